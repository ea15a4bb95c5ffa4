//! What the hellos of client and server say. Lengths are never believed: what
//! reaches past its end is not there.

/// As long as a name can be in DNS.
const NAME_BYTES_MAX: usize = 255;
/// Clients offer two or three.
const PROTOCOLS_MAX: usize = 16;

const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;

const RANDOM_BYTES: usize = 32;
/// A server hello with this instead of a random number asks for another hello.
const RETRY: [u8; RANDOM_BYTES] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2,
    0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

/// What the client offers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ClientHello {
    pub(super) server_name: Option<String>,
    /// Application protocols, by preference.
    pub(super) protocols: Vec<String>,
    /// It carries another hello, encrypted, or what looks like one.
    pub(super) encrypted: bool,
}

impl ClientHello {
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        reader.u16()?;
        reader.take(RANDOM_BYTES)?;
        reader.short()?; // session
        reader.long()?; // cipher suites
        reader.short()?; // compression
        let mut hello = Self::default();
        for (kind, content) in reader.extensions() {
            match kind {
                SERVER_NAME => hello.server_name = server_name(content),
                ALPN => hello.protocols = protocols(content),
                ENCRYPTED_CLIENT_HELLO => hello.encrypted = true,
                _ => {}
            }
        }
        Some(hello)
    }
}

/// What the server chose.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ServerHello {
    pub(super) version: u16,
    pub(super) cipher: u16,
    pub(super) protocol: Option<String>,
    pub(super) retry: bool,
}

impl ServerHello {
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let version = reader.u16()?;
        let retry = reader.take(RANDOM_BYTES)? == RETRY;
        // Drafts of TLS 1.3 have neither session nor compression.
        let draft = version >> 8 == 0x7f;
        if !draft {
            reader.short()?;
        }
        let cipher = reader.u16()?;
        if !draft {
            reader.u8()?;
        }
        let mut hello = Self { version, cipher, protocol: None, retry };
        for (kind, content) in reader.extensions() {
            match kind {
                ALPN => hello.protocol = protocols(content).into_iter().next(),
                SUPPORTED_VERSIONS => hello.version = Reader(content).u16().unwrap_or(version),
                _ => {}
            }
        }
        Some(hello)
    }
}

fn server_name(content: &[u8]) -> Option<String> {
    let mut list = Reader(Reader(content).long()?);
    while let Some(kind) = list.u8() {
        let name = list.long()?;
        if kind == 0 {
            let fits = !name.is_empty() && name.len() <= NAME_BYTES_MAX;
            return fits.then(|| String::from_utf8_lossy(name).to_ascii_lowercase());
        }
    }
    None
}

/// Without those that only test whether servers skip what they do not know.
fn protocols(content: &[u8]) -> Vec<String> {
    let mut list = Reader(Reader(content).long().unwrap_or_default());
    std::iter::from_fn(|| list.short())
        .filter(|name| !matches!(name, [a, b] if a == b && a & 0x0f == 0x0a))
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .take(PROTOCOLS_MAX)
        .collect()
}

/// Takes bytes from the front, if there are as many.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_be_bytes)
    }

    /// What one byte of length announces.
    fn short(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        self.take(length.into())
    }

    /// What two bytes of length announce.
    fn long(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(length.into())
    }

    /// Type and content of each; there may be none.
    fn extensions(&mut self) -> impl Iterator<Item = (u16, &'a [u8])> + use<'a> {
        let mut list = Reader(self.long().unwrap_or_default());
        std::iter::from_fn(move || Some((list.u16()?, list.long()?)))
    }
}
