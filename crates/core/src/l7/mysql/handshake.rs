//! How a connection begins: the server's greeting and the client's answer.

use smol_str::SmolStr;

use super::wire::{Reader, lossy};

/// What either end can do, of what matters here.
const MYSQL: u32 = 1;
const CONNECT_WITH_DB: u32 = 1 << 3;
const COMPRESS: u32 = 1 << 5;
const PROTOCOL_41: u32 = 1 << 9;
const SSL: u32 = 1 << 11;
const SECURE_CONNECTION: u32 = 1 << 15;
const LENGTH_OF_SECRET: u32 = 1 << 21;
const SESSION_TRACK: u32 = 1 << 23;
const DEPRECATE_EOF: u32 = 1 << 24;
const ZSTD: u32 = 1 << 26;
const QUERY_ATTRIBUTES: u32 = 1 << 27;

/// What a request for encryption holds.
const SSL_REQUEST_BYTES: usize = 32;
/// Capabilities, greatest packet, character set, and room for more.
const RESPONSE_FIXED_BYTES: usize = 32;
const PROTOCOL_VERSION: u8 = 10;

/// Capabilities that both ends have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Capabilities(u32);

impl Capabilities {
    fn has(self, flags: u32) -> bool {
        self.0 & flags != 0
    }

    pub(super) fn compress(self) -> bool {
        self.has(COMPRESS | ZSTD)
    }

    pub(super) fn tracks_state(self) -> bool {
        self.has(SESSION_TRACK)
    }

    /// Whether EOF packets end lists of columns.
    pub(super) fn sends_eof(self) -> bool {
        !self.has(DEPRECATE_EOF)
    }

    pub(super) fn query_attributes(self) -> bool {
        self.has(QUERY_ATTRIBUTES)
    }

    /// Of the client alone, where the greeting was not seen.
    pub(super) fn and(self, server: Option<Self>) -> Self {
        Self(self.0 & server.map_or(u32::MAX, |server| server.0))
    }
}

/// What the server says first.
#[derive(Debug)]
pub(super) struct Greeting {
    pub(super) capabilities: Capabilities,
    pub(super) is_mariadb: bool,
    /// Flags, as at the end of an answer.
    pub(super) status: u16,
}

/// Reads a greeting of version 10; `None` if it is none.
pub(super) fn greeting(body: &[u8]) -> Option<Greeting> {
    let mut reader = Reader::new(body);
    if reader.byte()? != PROTOCOL_VERSION {
        return None;
    }
    let version = reader.text();
    // Thread, the challenge's first part, and a filler.
    reader.bytes(4 + 8 + 1)?;
    let low = reader.short()?;
    let (status, high) = match (reader.byte(), reader.short(), reader.short()) {
        (Some(_), Some(status), Some(high)) => (status, high),
        _ => (0, 0),
    };
    let capabilities = Capabilities(u32::from(high) << 16 | u32::from(low));
    let is_mariadb = version.windows(7).any(|part| part.eq_ignore_ascii_case(b"mariadb"))
        || (capabilities.has(PROTOCOL_41) && !capabilities.has(MYSQL));
    Some(Greeting { capabilities, is_mariadb, status })
}

/// What the client says first.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) user: Option<SmolStr>,
    pub(super) database: Option<SmolStr>,
}

/// A client's first packet.
#[derive(Debug)]
pub(super) enum Response {
    /// TLS begins after it.
    Encryption,
    Login(Capabilities, Login),
}

/// Reads the client's first packet, of `length` bytes of which `body` is seen.
pub(super) fn response(length: usize, body: &[u8]) -> Option<Response> {
    let mut reader = Reader::new(body);
    let low = reader.short()?;
    if u32::from(low) & PROTOCOL_41 == 0 {
        // Of the 1990s: capabilities, greatest packet, user, secret, database.
        let capabilities = Capabilities(u32::from(low));
        if capabilities.has(SSL) && length == 5 {
            return Some(Response::Encryption);
        }
        reader.bytes(3)?;
        let user = name(reader.text());
        let _secret = reader.text();
        return Some(Response::Login(capabilities, Login { user, database: name(reader.text()) }));
    }
    let capabilities = Capabilities(u32::from(reader.short()?) << 16 | u32::from(low));
    if capabilities.has(SSL) && length == SSL_REQUEST_BYTES {
        return Some(Response::Encryption);
    }
    reader.bytes(RESPONSE_FIXED_BYTES - 4)?;
    let user = name(reader.text());
    let mut login = Login { user, database: None };
    let secret = if capabilities.has(LENGTH_OF_SECRET) {
        reader.counted()
    } else if capabilities.has(SECURE_CONNECTION) {
        reader.byte().and_then(|length| reader.bytes(usize::from(length)))
    } else {
        Some(reader.text())
    };
    if secret.is_some() && capabilities.has(CONNECT_WITH_DB) {
        login.database = name(reader.text());
    }
    Some(Response::Login(capabilities, login))
}

/// The body of `COM_CHANGE_USER`, after its first byte.
pub(super) fn change_of_user(body: &[u8]) -> Login {
    let mut reader = Reader::new(body);
    let user = name(reader.text());
    let secret = reader.byte().and_then(|length| reader.bytes(usize::from(length)));
    Login { user, database: secret.and_then(|_| name(reader.text())) }
}

fn name(bytes: &[u8]) -> Option<SmolStr> {
    (!bytes.is_empty()).then(|| lossy(bytes))
}
