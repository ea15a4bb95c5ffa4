//! DNS, over UDP and TCP (RFC 1035, RFC 7766).
//!
//! An answer belongs to the question with the same number *and* the same name
//! and type: what does not repeat the question is somebody else's, or forged.

use smol_str::{SmolStr, format_smolstr};

use super::{
    Attribute, Context, Direction, End, Exchange, Gap, Guess, Heads, Keyed, Parser, Part, Protocol, Resync,
    Skipped, Start, Step, Times, Transport,
};
use crate::dns::{Message, Question};
use crate::record::{AttributeValue, Capture};

/// The longest message that two bytes of length can announce, and those two.
const MESSAGE_BYTES_MAX: usize = 65_535 + LENGTH_BYTES;
/// Over TCP the message's length stands before it.
const LENGTH_BYTES: usize = 2;
const HEADER_BYTES: usize = 12;
/// A header and a question with the longest name.
const QUESTION_BYTES_MAX: usize = HEADER_BYTES + 255 + 4;
/// A resolver keeps fewer open between two sockets.
const PENDING_MAX: usize = 256;
/// More records than fit into a message.
const RECORDS_MAX: u16 = 4096;

/// The highest that is assigned.
const OPCODE_MAX: u8 = 6;

/// NetBIOS names are asked for in the same format; in DNS nobody uses this type.
const TYPE_NETBIOS: u16 = 32;

const CLASSES: [u16; 4] = [1, 3, 254, 255];
/// In multicast DNS the top bit of the class asks for an answer to the asker alone.
const CLASS_MASK: u16 = 0x7fff;

pub(super) static PROTOCOL: Protocol = Protocol {
    name: "dns",
    transports: &[Transport::Udp, Transport::Tcp],
    ports: &[53, 5353, 5355],
    message_bytes_max: MESSAGE_BYTES_MAX,
    probe,
    parser: |start| Box::new(Dns::new(start)),
};

fn probe(heads: &Heads<'_>) -> Guess {
    let asked = guess(heads.to_server, heads.transport, false);
    let answered = guess(heads.to_client, heads.transport, true);
    match (asked, answered) {
        (Guess::No, _) | (_, Guess::No) => Guess::No,
        _ => asked.max(answered),
    }
}

/// Whether these bytes begin with a question, or with an answer.
fn guess(bytes: &[u8], transport: Transport, response: bool) -> Guess {
    let (message, announced) = match (transport, bytes) {
        (_, []) => return Guess::More,
        (Transport::Udp, message) => (message, message.len()),
        (Transport::Tcp, [high, low, message @ ..]) => {
            (message, usize::from(u16::from_be_bytes([*high, *low])))
        }
        (Transport::Tcp, _) => return Guess::More,
    };
    if announced < HEADER_BYTES {
        return Guess::No;
    }
    let whole = message.len() >= announced;
    let Some(parsed) = Message::parse(message.get(..announced).unwrap_or(message)) else {
        return if whole { Guess::No } else { Guess::More };
    };
    if parsed.response != response || !is_plausible(&parsed) {
        return Guess::No;
    }
    match (&parsed.question, parsed.counts) {
        (Some(question), [1, ..]) if CLASSES.contains(&(question.class & CLASS_MASK)) => Guess::Sure,
        (Some(_), _) => Guess::Maybe,
        (None, [0, ..]) => Guess::Maybe,
        (None, _) if !whole && message.len() < QUESTION_BYTES_MAX => Guess::More,
        (None, _) => Guess::No,
    }
}

fn is_plausible(message: &Message) -> bool {
    message.opcode <= OPCODE_MAX
        && message.counts.iter().all(|count| *count <= RECORDS_MAX)
        && message.question.as_ref().is_none_or(|question| question.kind != TYPE_NETBIOS)
}

/// One client's conversation with one server.
struct Dns {
    start: Start,
    pending: Keyed<(u16, Option<Question>), Box<Exchange>>,
    /// Bytes were missing in this direction since the last whole message.
    missing: [Option<Gap>; 2],
}

impl Dns {
    fn new(start: Start) -> Self {
        Self { start, pending: Keyed::new(PENDING_MAX), missing: [None; 2] }
    }

    fn message(&mut self, cx: &mut Context<'_>, message: &Message, part: Part, gap: Option<Gap>) {
        let key = (message.id, message.question.clone());
        let mut exchange =
            if message.response { self.pending.remove(&key).unwrap_or_default() } else { Box::default() };
        if let Some(gap) = gap {
            exchange.note_gap(gap);
        }
        if message.response {
            answer(&mut exchange, message, part);
            if exchange.request.is_none() {
                describe(&mut exchange, message, self.start.transport);
                self.note_late(&mut exchange);
            }
            cx.emit(exchange);
            return;
        }
        describe(&mut exchange, message, self.start.transport);
        exchange.request = Some(part);
        if let Some(unanswered) = self.pending.insert(key, exchange) {
            cx.emit(unanswered);
        }
    }

    fn note_late(&self, exchange: &mut Exchange) {
        if self.start.late {
            exchange.note(Capture::Midstream);
        }
    }
}

fn describe(exchange: &mut Exchange, message: &Message, transport: Transport) {
    let (name, kind) = match &message.question {
        Some(question) => (question.name.clone(), kind_name(question.kind)),
        None => (SmolStr::default(), SmolStr::default()),
    };
    exchange.operation = match (message.opcode, kind.is_empty()) {
        (0, false) => kind,
        (0, true) => SmolStr::new_static("QUERY"),
        (opcode, true) => opcode_name(opcode),
        (opcode, false) => format_smolstr!("{} {kind}", opcode_name(opcode)),
    };
    if message.question.is_some() {
        let name = if name.is_empty() { SmolStr::new_static(".") } else { name };
        exchange.set(Attribute::DnsQuestionName, name.clone());
        exchange.target = Some(name);
    }
    let transport = match transport {
        Transport::Udp => "udp",
        Transport::Tcp => "tcp",
    };
    exchange.set(Attribute::NetworkTransport, SmolStr::new_static(transport));
}

fn answer(exchange: &mut Exchange, message: &Message, part: Part) {
    exchange.response = Some(part);
    exchange.ok = Some(message.rcode == 0);
    let status = rcode_name(message.rcode);
    if message.rcode != 0 {
        exchange.set(Attribute::ErrorType, status.clone());
    }
    exchange.status = Some(status);
    if message.truncated {
        exchange.anomaly("truncated by the server");
    }
    exchange.set(Attribute::DnsAnswerCount, AttributeValue::Number(message.counts[1].into()));
}

impl Parser for Dns {
    fn data(&mut self, cx: &mut Context<'_>, direction: Direction, bytes: &[u8], times: Times) -> Step {
        if self.start.transport == Transport::Udp {
            if let Some(message) = Message::parse(bytes).filter(is_plausible) {
                self.message(cx, &message, Part::new(times, bytes.len() as u64), None);
            }
            return Step::Consumed(bytes.len());
        }
        let [high, low, rest @ ..] = bytes else { return Step::NeedMore(LENGTH_BYTES) };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if length < HEADER_BYTES {
            return Step::Desync;
        }
        let Some(message) = rest.get(..length) else { return Step::NeedMore(LENGTH_BYTES + length) };
        let Some(message) = Message::parse(message).filter(is_plausible) else { return Step::Desync };
        let whole = LENGTH_BYTES + length;
        let gap = self.missing[direction.index()].take();
        self.message(cx, &message, Part::new(times, whole as u64), gap);
        Step::Consumed(whole)
    }

    fn skipped(&mut self, _: &mut Context<'_>, _: Direction, _: Skipped) {}

    fn lost(&mut self, _: &mut Context<'_>, direction: Direction, _: &[u8], _: Times, gap: Option<Gap>) {
        // Numbers pair what is left; only what follows the hole is marked.
        let missing = &mut self.missing[direction.index()];
        *missing = gap.or(*missing);
    }

    fn resync(&mut self, direction: Direction, bytes: &[u8]) -> Resync {
        let response = direction == Direction::ToClient;
        let begins =
            |at: &usize| guess(bytes.get(*at..).unwrap_or_default(), Transport::Tcp, response) == Guess::Sure;
        match (0..bytes.len()).find(begins) {
            Some(start) => Resync::At(start),
            None => Resync::Keep(bytes.len().min(LENGTH_BYTES + QUESTION_BYTES_MAX)),
        }
    }

    fn close(&mut self, _: &mut Context<'_>, _: Direction, _: End) {}

    fn finish(&mut self, cx: &mut Context<'_>) {
        for mut unanswered in self.pending.drain() {
            if let Some(gap) = self.missing[Direction::ToClient.index()] {
                unanswered.note_gap(gap);
            }
            cx.emit(unanswered);
        }
    }

    fn memory_bytes(&self) -> usize {
        self.pending.len() * (size_of::<Exchange>() + 1_024)
    }
}

/// As IANA's registry names it; `TYPE65534` (RFC 3597) where it has no name here.
fn kind_name(kind: u16) -> SmolStr {
    let name = match kind {
        1 => "A",
        2 => "NS",
        5 => "CNAME",
        6 => "SOA",
        12 => "PTR",
        13 => "HINFO",
        15 => "MX",
        16 => "TXT",
        17 => "RP",
        24 => "SIG",
        25 => "KEY",
        28 => "AAAA",
        29 => "LOC",
        33 => "SRV",
        35 => "NAPTR",
        37 => "CERT",
        39 => "DNAME",
        41 => "OPT",
        43 => "DS",
        44 => "SSHFP",
        45 => "IPSECKEY",
        46 => "RRSIG",
        47 => "NSEC",
        48 => "DNSKEY",
        50 => "NSEC3",
        51 => "NSEC3PARAM",
        52 => "TLSA",
        59 => "CDS",
        60 => "CDNSKEY",
        61 => "OPENPGPKEY",
        64 => "SVCB",
        65 => "HTTPS",
        99 => "SPF",
        249 => "TKEY",
        250 => "TSIG",
        251 => "IXFR",
        252 => "AXFR",
        255 => "ANY",
        256 => "URI",
        257 => "CAA",
        _ => return format_smolstr!("TYPE{kind}"),
    };
    SmolStr::new_static(name)
}

fn opcode_name(opcode: u8) -> SmolStr {
    let name = match opcode {
        1 => "IQUERY",
        2 => "STATUS",
        4 => "NOTIFY",
        5 => "UPDATE",
        6 => "DSO",
        _ => return format_smolstr!("OPCODE{opcode}"),
    };
    SmolStr::new_static(name)
}

fn rcode_name(rcode: u8) -> SmolStr {
    let name = match rcode {
        0 => "NOERROR",
        1 => "FORMERR",
        2 => "SERVFAIL",
        3 => "NXDOMAIN",
        4 => "NOTIMP",
        5 => "REFUSED",
        6 => "YXDOMAIN",
        7 => "YXRRSET",
        8 => "NXRRSET",
        9 => "NOTAUTH",
        10 => "NOTZONE",
        11 => "DSOTYPENI",
        _ => return format_smolstr!("RCODE{rcode}"),
    };
    SmolStr::new_static(name)
}

#[cfg(test)]
mod tests;
