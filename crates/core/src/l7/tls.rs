//! TLS: what the two hellos say in plain (RFC 8446, RFC 5246, RFC 6101), and
//! the alert that ends a handshake. Nothing that is encrypted is looked at.
//!
//! A connection has one handshake, and so one exchange: the client's hello, and
//! what the server makes of it. It is over when the server encrypts.
//!
//! - `hello`: the two messages;
//! - `names`: versions, cipher suites and alerts;
//! - `probe`: how to recognise them;
//! - here: records, and what a connection remembers.

mod hello;
mod names;
mod probe;

use smol_str::{SmolStr, format_smolstr};

use self::hello::{ClientHello, ServerHello};
use super::{
    Attribute, Context, Direction, End, Exchange, Gap, Guess, Parser, Part, Protocol, Resync, Skipped, Start,
    Step, Times, Transport, Why,
};
use crate::record::Capture;

const HEADER_BYTES: usize = 5;
/// What a record may hold, with what encryption may add to it.
const RECORD_BYTES_MAX: usize = HEADER_BYTES + 16_384 + 2_048;
/// Post-quantum keys and tickets make hellos of a few kilobytes.
const HELLO_BYTES_MAX: usize = 64 * 1024;
const MESSAGE_HEADER_BYTES: usize = 4;
/// What must be seen of a hello to be sure that it is one.
const PROBE_BYTES: usize = 11;

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const SSL2_SERVER_HELLO: u8 = 4;
const WARNING: u8 = 1;
const CLOSE_NOTIFY: u8 = 0;

pub(super) static PROTOCOL: Protocol = Protocol {
    name: "tls",
    transports: &[Transport::Tcp],
    ports: &[443, 8443],
    message_bytes_max: RECORD_BYTES_MAX,
    probe: probe::probe,
    parser: |start| Box::new(Tls::new(start)),
};

/// A record's header: its type and the length of what it holds.
fn header(bytes: &[u8]) -> Option<(u8, usize)> {
    match bytes {
        [kind @ CHANGE_CIPHER_SPEC..=APPLICATION_DATA, 3, 0..=4, high, low, ..] => {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            (HEADER_BYTES + length <= RECORD_BYTES_MAX).then_some((*kind, length))
        }
        _ => None,
    }
}

/// How far a direction is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Its hello is being read.
    Hello,
    /// It was read; what follows is still plain.
    After,
    /// What comes cannot be read.
    Over,
}

struct Tls {
    late: bool,
    exchange: Exchange,
    /// By [`Direction::index`], as are the following.
    stages: [Stage; 2],
    /// What records held of a message that is not whole yet.
    messages: [Vec<u8>; 2],
    /// The records until the hello's end.
    parts: [Option<Part>; 2],
    /// The client gave up, perhaps before the server's hello is read.
    client_alert: Option<u8>,
}

impl Tls {
    fn new(start: Start) -> Self {
        Self {
            late: start.late,
            exchange: Exchange { operation: SmolStr::new_static("hello"), ..Exchange::default() },
            stages: [Stage::Hello; 2],
            messages: [Vec::new(), Vec::new()],
            parts: [None; 2],
            client_alert: None,
        }
    }

    /// One more record of a hello, or all of an answer.
    fn count(&mut self, direction: Direction, times: Times, bytes: usize) {
        match &mut self.parts[direction.index()] {
            Some(part) => part.grow(times.last_ns, bytes as u64),
            none => *none = Some(Part::new(times, bytes as u64)),
        }
    }

    /// The handshake is over and failed.
    fn fail(&mut self, status: &str, error: &str) -> Step {
        self.exchange.status = Some(status.into());
        self.exchange.ok = Some(false);
        self.exchange.error = Some(error.into());
        self.exchange.set(Attribute::ErrorType, status);
        Step::Bypass(Why::Encrypted)
    }

    fn fail_by_client(&mut self, alert: u8) -> Step {
        self.fail(&names::alert(alert), "given up by the client")
    }

    fn established(&mut self) -> Step {
        self.exchange.ok = Some(true);
        Step::Bypass(Why::Encrypted)
    }

    /// A record of the client's, or its SSL 2 hello.
    fn client(&mut self, bytes: &[u8], times: Times) -> Step {
        let stage = self.stages[Direction::ToServer.index()];
        if stage == Stage::Over {
            return Step::Skip(u64::MAX);
        }
        if stage == Stage::Hello && bytes.first().is_some_and(|head| head & 0x80 != 0) {
            return self.ssl2_client(bytes, times);
        }
        if bytes.len() < HEADER_BYTES {
            return Step::NeedMore(HEADER_BYTES);
        }
        let Some((kind, length)) = header(bytes) else { return Step::Bypass(Why::NotUnderstood) };
        let whole = HEADER_BYTES + length;
        match (kind, stage) {
            (HANDSHAKE, Stage::Hello) | (ALERT, _) => {}
            (_, Stage::Hello) => return Step::Bypass(Why::NotUnderstood),
            // What is encrypted comes next, or a second hello that says no more than the first.
            (CHANGE_CIPHER_SPEC, _) => return self.leave_client(),
            _ => return Step::Skip(whole as u64),
        }
        let Some(content) = bytes.get(HEADER_BYTES..whole) else { return Step::NeedMore(whole) };
        if kind == ALERT {
            if let Some(alert) = fatal(content) {
                self.client_alert = Some(alert);
                if self.stages[Direction::ToClient.index()] == Stage::After {
                    return self.fail_by_client(alert);
                }
            }
            return Step::Consumed(whole);
        }
        self.count(Direction::ToServer, times, whole);
        match self.message(Direction::ToServer, content) {
            Message::Partial => {}
            Message::Whole(CLIENT_HELLO, body) => {
                self.hear_client(ClientHello::parse(&body));
            }
            Message::Whole(..) | Message::TooLong => return Step::Bypass(Why::NotUnderstood),
        }
        Step::Consumed(whole)
    }

    fn leave_client(&mut self) -> Step {
        self.stages[Direction::ToServer.index()] = Stage::Over;
        Step::Skip(u64::MAX)
    }

    fn ssl2_client(&mut self, bytes: &[u8], times: Times) -> Step {
        let [head, low, ..] = bytes else { return Step::NeedMore(2) };
        let whole = 2 + usize::from(u16::from_be_bytes([head & 0x7f, *low]));
        if !(PROBE_BYTES..=RECORD_BYTES_MAX).contains(&whole) {
            return Step::Bypass(Why::NotUnderstood);
        }
        if bytes.len() < whole {
            return Step::NeedMore(whole);
        }
        self.count(Direction::ToServer, times, whole);
        self.hear_client(Some(ClientHello::default()));
        // In SSL 2 no more of it is plain; in what it upgrades to, the next is a record.
        Step::Consumed(whole)
    }

    fn hear_client(&mut self, hello: Option<ClientHello>) {
        let direction = Direction::ToServer.index();
        self.stages[direction] = Stage::After;
        self.exchange.request = self.parts[direction];
        let Some(hello) = hello else {
            self.exchange.anomaly("malformed hello");
            return;
        };
        if let Some(name) = hello.server_name {
            let name = SmolStr::from(name);
            self.exchange.set(Attribute::ServerAddress, name.clone());
            self.exchange.target = Some(name);
        }
        if !hello.protocols.is_empty() {
            self.exchange.set(Attribute::TlsOfferedProtocols, hello.protocols);
        }
        if hello.encrypted {
            self.exchange.set(Attribute::TlsEncryptedHello, "offered");
        }
    }

    /// A record of the server's, or its SSL 2 hello.
    fn server(&mut self, bytes: &[u8], times: Times) -> Step {
        let direction = Direction::ToClient;
        let stage = self.stages[direction.index()];
        if stage == Stage::Over {
            return Step::Bypass(Why::Encrypted);
        }
        if bytes.len() < HEADER_BYTES {
            return Step::NeedMore(HEADER_BYTES);
        }
        let Some((kind, length)) = header(bytes) else { return self.stranger(bytes, times) };
        let whole = HEADER_BYTES + length;
        match (kind, stage) {
            (HANDSHAKE, Stage::After) => return Step::Skip(whole as u64),
            (CHANGE_CIPHER_SPEC | APPLICATION_DATA, Stage::After) => return self.established(),
            (APPLICATION_DATA, _) => return Step::Bypass(Why::Encrypted),
            _ => {}
        }
        let Some(content) = bytes.get(HEADER_BYTES..whole) else { return Step::NeedMore(whole) };
        if stage == Stage::Hello {
            self.count(direction, times, whole);
        }
        match kind {
            ALERT => match fatal(content) {
                Some(alert) => {
                    self.exchange.response = self.parts[direction.index()];
                    self.fail(&names::alert(alert), "refused by the server")
                }
                None => Step::Consumed(whole),
            },
            HANDSHAKE => match self.message(direction, content) {
                Message::Whole(SERVER_HELLO, body) => match ServerHello::parse(&body) {
                    // The client says hello once more; the answer is still to come.
                    Some(hello) if hello.retry => Step::Consumed(whole),
                    Some(hello) => self.hear_server(&hello, whole),
                    None => Step::Bypass(Why::NotUnderstood),
                },
                Message::TooLong => Step::Bypass(Why::NotUnderstood),
                Message::Partial | Message::Whole(..) => Step::Consumed(whole),
            },
            _ => Step::Consumed(whole),
        }
    }

    fn hear_server(&mut self, hello: &ServerHello, whole: usize) -> Step {
        let direction = Direction::ToClient.index();
        self.stages[direction] = Stage::After;
        self.exchange.response = self.parts[direction];
        self.negotiated(hello.version);
        self.exchange.set(Attribute::TlsCipher, names::cipher(hello.cipher).into_owned());
        if let Some(protocol) = &hello.protocol {
            self.exchange.set(Attribute::TlsNextProtocol, protocol.as_str());
        }
        match self.client_alert {
            Some(alert) => self.fail_by_client(alert),
            // From here on everything is encrypted.
            None if names::is_1_3(hello.version) => self.established(),
            None => Step::Consumed(whole),
        }
    }

    fn negotiated(&mut self, version: u16) {
        let (name, number) = names::version(version);
        self.exchange.status = Some(format_smolstr!("{}v{number}", name.to_ascii_uppercase()));
        self.exchange.set(Attribute::TlsProtocolName, name);
        self.exchange.set(Attribute::TlsProtocolVersion, number.into_owned());
    }

    /// Bytes of the server's that are no record.
    fn stranger(&mut self, bytes: &[u8], times: Times) -> Step {
        if self.stages[Direction::ToClient.index()] == Stage::After {
            return Step::Bypass(Why::NotUnderstood);
        }
        self.exchange.response = Some(Part::new(times, HEADER_BYTES as u64));
        if let [head, _, SSL2_SERVER_HELLO, ..] = bytes
            && head & 0x80 != 0
        {
            self.negotiated(names::SSL2);
            return self.established();
        }
        self.fail("not_tls", "the server does not speak TLS");
        Step::Bypass(Why::NotUnderstood)
    }

    /// What a record held, added to the message that it is part of.
    fn message(&mut self, direction: Direction, content: &[u8]) -> Message {
        let message = &mut self.messages[direction.index()];
        message.extend_from_slice(content);
        let [kind, high, middle, low, rest @ ..] = message.as_slice() else { return Message::Partial };
        let length = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
        if length > HELLO_BYTES_MAX {
            return Message::TooLong;
        }
        let Some(body) = rest.get(..length) else { return Message::Partial };
        let (kind, body) = (*kind, body.to_vec());
        message.drain(..MESSAGE_HEADER_BYTES + length);
        Message::Whole(kind, body)
    }
}

/// A handshake message, as far as its records came.
enum Message {
    Partial,
    /// Its type and what it says.
    Whole(u8, Vec<u8>),
    TooLong,
}

/// The alert, if the handshake ends with it.
fn fatal(content: &[u8]) -> Option<u8> {
    match content {
        [level, alert] if *level != WARNING || *alert == CLOSE_NOTIFY => Some(*alert),
        _ => None,
    }
}

impl Parser for Tls {
    fn data(&mut self, _: &mut Context<'_>, direction: Direction, bytes: &[u8], times: Times) -> Step {
        match direction {
            Direction::ToServer => self.client(bytes, times),
            Direction::ToClient => self.server(bytes, times),
        }
    }

    fn skipped(&mut self, _: &mut Context<'_>, _: Direction, _: Skipped) {}

    fn lost(&mut self, _: &mut Context<'_>, direction: Direction, kept: &[u8], _: Times, gap: Option<Gap>) {
        if gap.is_none() && kept.is_empty() {
            return; // before the hello, in a connection that was joined late
        }
        let stage = &mut self.stages[direction.index()];
        // After its hello the client says nothing that is needed.
        if *stage == Stage::Hello || direction == Direction::ToClient {
            match gap {
                Some(gap) => self.exchange.note_gap(gap),
                None => self.exchange.note(Capture::Truncated),
            }
        }
        *stage = Stage::Over;
        self.messages[direction.index()] = Vec::new();
    }

    fn resync(&mut self, direction: Direction, bytes: &[u8]) -> Resync {
        if self.stages[direction.index()] == Stage::Over {
            return Resync::At(0); // to be left at once
        }
        let begins = |at: &usize| {
            let rest = bytes.get(*at..).unwrap_or_default();
            match direction {
                Direction::ToServer => probe::client_hello(rest) == Guess::Sure,
                Direction::ToClient => probe::server_hello(rest) == Guess::Sure,
            }
        };
        match (0..bytes.len()).find(begins) {
            Some(start) => Resync::At(start),
            None => Resync::Keep(bytes.len().min(PROBE_BYTES - 1)),
        }
    }

    fn close(&mut self, _: &mut Context<'_>, _: Direction, _: End) {}

    fn finish(&mut self, cx: &mut Context<'_>) {
        let mut exchange = std::mem::take(&mut self.exchange);
        let something = exchange.request.is_some() || exchange.response.is_some();
        if !something {
            return;
        }
        if exchange.response.is_none()
            && let Some(alert) = self.client_alert
        {
            self.exchange = exchange;
            self.fail_by_client(alert);
            exchange = std::mem::take(&mut self.exchange);
        }
        if self.late {
            exchange.note(Capture::Midstream);
        }
        cx.emit(exchange);
    }

    fn memory_bytes(&self) -> usize {
        self.messages.iter().map(Vec::capacity).sum::<usize>() + 2_048
    }
}

#[cfg(test)]
pub(super) mod tests;
