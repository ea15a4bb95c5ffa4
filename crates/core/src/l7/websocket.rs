//! WebSocket (RFC 6455): frames are counted, what they hold is not looked at.
//!
//! It has no requests, so a connection is one exchange, told at its end: all
//! that the client sent, and all that the server sent.

use smol_str::{SmolStr, ToSmolStr};

use super::{
    Attribute, Context, Direction, End, Exchange, Gap, Guess, Parser, Part, Protocol, Resync, Skipped, Step,
    Times, Transport,
};

/// The longest control frame, its header included: the only ones that are read.
const CONTROL_FRAME_BYTES_MAX: usize = 2 + 4 + 125;

const OPCODE_CONTINUATION: u8 = 0;
const OPCODE_BINARY: u8 = 2;
const OPCODE_CLOSE: u8 = 8;
const OPCODE_PONG: u8 = 10;
const CONTROL_BYTES_MAX: u64 = 125;
/// "Normal" and "going away".
const GOOD_CODES: [u16; 2] = [1000, 1001];

/// HTTP leads to it; by itself it is never guessed.
pub(super) static PROTOCOL: Protocol = Protocol {
    name: "websocket",
    transports: &[Transport::Tcp],
    ports: &[],
    message_bytes_max: CONTROL_FRAME_BYTES_MAX,
    probe: |_| Guess::No,
    parser: |_| Box::new(Websocket::default()),
};

#[derive(Default)]
struct Websocket {
    exchange: Exchange,
    /// By [`Direction::index`].
    payload_bytes: [u64; 2],
}

/// What a frame's header says.
struct Frame {
    opcode: u8,
    last: bool,
    key: [u8; 4],
    header_bytes: usize,
    payload_bytes: u64,
}

impl Frame {
    /// `Err`: how many bytes it takes to tell more.
    fn parse(bytes: &[u8]) -> Result<Self, usize> {
        let [first, second, rest @ ..] = bytes else { return Err(2) };
        let (masked, length) = (second & 0x80 != 0, second & 0x7f);
        let long = match length {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let header_bytes = 2 + long + if masked { 4 } else { 0 };
        let Some(more) = rest.get(..header_bytes - 2) else { return Err(header_bytes) };
        let (long, key) = more.split_at(long);
        Ok(Self {
            opcode: first & 0x0f,
            last: first & 0x80 != 0,
            key: key.try_into().unwrap_or_default(),
            header_bytes,
            payload_bytes: match long {
                [] => u64::from(length),
                _ => long.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
            },
        })
    }

    fn is_possible(&self) -> bool {
        match self.opcode {
            OPCODE_CONTINUATION..=OPCODE_BINARY => self.payload_bytes <= i64::MAX as u64,
            OPCODE_CLOSE..=OPCODE_PONG => self.last && self.payload_bytes <= CONTROL_BYTES_MAX,
            _ => false,
        }
    }
}

impl Websocket {
    fn part(&mut self, direction: Direction) -> &mut Option<Part> {
        match direction {
            Direction::ToServer => &mut self.exchange.request,
            Direction::ToClient => &mut self.exchange.response,
        }
    }

    fn count(&mut self, direction: Direction, times: Times, bytes: u64) {
        match self.part(direction) {
            Some(part) => part.grow(times.last_ns, bytes),
            part => *part = Some(Part::new(times, bytes)),
        }
    }

    /// The first reason that is given for the end.
    fn closed(&mut self, code: u16) {
        if self.exchange.status.is_none() {
            let ok = GOOD_CODES.contains(&code);
            self.exchange.status = Some(code.to_smolstr());
            self.exchange.ok = Some(ok);
            if !ok {
                self.exchange.set(Attribute::ErrorType, code.to_string());
            }
        }
    }
}

impl Parser for Websocket {
    fn data(&mut self, _: &mut Context<'_>, direction: Direction, bytes: &[u8], times: Times) -> Step {
        let payload = std::mem::take(&mut self.payload_bytes[direction.index()]);
        if payload > 0 {
            self.payload_bytes[direction.index()] = payload;
            return Step::Skip(payload);
        }
        let frame = match Frame::parse(bytes) {
            Ok(frame) if frame.is_possible() => frame,
            Ok(_) => return Step::Desync,
            Err(wanted) => return Step::NeedMore(wanted),
        };
        if frame.opcode == OPCODE_CLOSE {
            let whole = frame.header_bytes + usize::try_from(frame.payload_bytes).unwrap_or(usize::MAX);
            let Some(payload) = bytes.get(frame.header_bytes..whole) else { return Step::NeedMore(whole) };
            if let [high, low, ..] = payload {
                self.closed(u16::from_be_bytes([high ^ frame.key[0], low ^ frame.key[1]]));
            }
            self.count(direction, times, whole as u64);
            return Step::Consumed(whole);
        }
        if frame.last && frame.opcode <= OPCODE_BINARY {
            self.exchange.add(
                match direction {
                    Direction::ToServer => Attribute::WebsocketSentMessages,
                    Direction::ToClient => Attribute::WebsocketReceivedMessages,
                },
                1,
            );
        }
        self.count(direction, times, frame.header_bytes as u64);
        self.payload_bytes[direction.index()] = frame.payload_bytes;
        Step::Consumed(frame.header_bytes)
    }

    fn skips_next(&self, direction: Direction) -> Option<u64> {
        Some(self.payload_bytes[direction.index()]).filter(|payload| *payload > 0)
    }

    fn skipped(&mut self, _: &mut Context<'_>, direction: Direction, skipped: Skipped) {
        self.payload_bytes[direction.index()] = 0;
        if let Some(part) = self.part(direction) {
            part.grow(skipped.time_ns, skipped.bytes);
        }
        if let Some(gap) = skipped.gap {
            self.exchange.note_gap(gap);
        }
    }

    fn lost(&mut self, _: &mut Context<'_>, direction: Direction, _: &[u8], _: Times, gap: Option<Gap>) {
        self.payload_bytes[direction.index()] = 0;
        self.exchange.note_gap(gap.unwrap_or(Gap::NotSeen));
    }

    /// Nothing in the bytes tells where a frame begins.
    fn resync(&mut self, _: Direction, _: &[u8]) -> Resync {
        Resync::Keep(0)
    }

    fn close(&mut self, _: &mut Context<'_>, _: Direction, _: End) {}

    fn finish(&mut self, cx: &mut Context<'_>) {
        let mut exchange = std::mem::take(&mut self.exchange);
        if let Some(first_ns) = exchange.request.or(exchange.response).map(|part| part.first_ns) {
            // An end that said nothing was there all the same.
            let silent = Part { first_ns, last_ns: first_ns, bytes: 0 };
            exchange.request.get_or_insert(silent);
            exchange.response.get_or_insert(silent);
            exchange.operation = SmolStr::new_static("SESSION");
            cx.emit(exchange);
        }
    }

    fn memory_bytes(&self) -> usize {
        0
    }
}

#[cfg(test)]
mod tests {
    use crate::l7::harness::{self, Played, Turn, answer, ask};
    use crate::l7::{Attribute, End, Exchange, http};
    use crate::record::{AttributeValue, Capture};

    fn frame(first: u8, masked: bool, payload: &[u8]) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut bytes = match payload.len() {
            0..126 => vec![first, mask | payload.len() as u8],
            126..65_536 => [&[first, mask | 126][..], &(payload.len() as u16).to_be_bytes()].concat(),
            _ => [&[first, mask | 127][..], &(payload.len() as u64).to_be_bytes()].concat(),
        };
        let key: &[u8] = if masked { &[7, 8, 9, 10] } else { &[] };
        bytes.extend_from_slice(key);
        bytes.extend(payload.iter().zip([7, 8, 9, 10].iter().cycle()).map(|(byte, key)| match masked {
            true => byte ^ key,
            false => *byte,
        }));
        bytes
    }

    /// A text in two frames, a ping within it, long answers, an end.
    fn dialogue() -> Vec<Turn> {
        vec![
            ask("GET /chat HTTP/1.1\r\nUpgrade: WebSocket\r\nConnection: upgrade\r\n\r\n"),
            answer("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"),
            ask([frame(0x01, true, b"hel"), frame(0x89, true, b"?"), frame(0x80, true, b"lo")].concat()),
            answer(
                [frame(0x8a, false, b"?"), frame(0x82, false, &[0; 300]), frame(0x82, false, &[0; 70_000])]
                    .concat(),
            ),
            ask(frame(0x88, true, &[0x03, 0xe8])),
            answer(frame(0x88, false, &[0x03, 0xe8])),
        ]
    }

    fn session(exchanges: &[Exchange]) -> &Exchange {
        exchanges.iter().find(|one| one.operation == "SESSION").unwrap()
    }

    #[test]
    fn a_session_is_counted_and_told_at_its_end() {
        let exchanges = harness::play(&http::PROTOCOL, &dialogue());
        assert_eq!(exchanges.len(), 2);
        let session = session(&exchanges);
        assert_eq!((session.status.as_deref(), session.ok), (Some("1000"), Some(true)));
        assert_eq!(
            session.attributes.get(Attribute::WebsocketSentMessages),
            Some(&AttributeValue::Number(1))
        );
        assert_eq!(
            session.attributes.get(Attribute::WebsocketReceivedMessages),
            Some(&AttributeValue::Number(2))
        );
        assert_eq!(session.request.unwrap().bytes, 9 + 7 + 8 + 8);
        assert_eq!(session.response.unwrap().bytes, 3 + 304 + 70_010 + 4);
        assert_eq!(session.capture, Capture::Complete);
    }

    #[test]
    fn pieces_do_not_matter_and_nothing_hostile_does_harm() {
        let mut turns = dialogue();
        turns[3] = answer([frame(0x8a, false, b"?"), frame(0x82, false, &[0; 300])].concat());
        harness::check(&http::PROTOCOL, &turns);
    }

    #[test]
    fn an_end_may_be_silent() {
        let mut turns = dialogue()[..2].to_vec();
        turns.push(answer(frame(0x81, false, b"news")));
        let exchanges = harness::play(&http::PROTOCOL, &turns);
        let session = session(&exchanges);
        assert_eq!((session.request.unwrap().bytes, session.response.unwrap().bytes), (0, 6));
    }

    #[test]
    fn a_hole_in_a_frame_keeps_the_count() {
        let mut played = Played::new(&http::PROTOCOL);
        let long = frame(0x82, false, &[0; 300]);
        played.turns(&dialogue()[..2]);
        played.data(crate::l7::Direction::ToClient, &long[..4]);
        played.gap(crate::l7::Direction::ToClient, 300, crate::l7::Gap::Lost);
        played.data(crate::l7::Direction::ToClient, &frame(0x88, false, &[0x03, 0xea]));
        played.finish(End::Fin);
        let session = session(&played.exchanges);
        assert_eq!((session.status.as_deref(), session.ok), (Some("1002"), Some(false)));
        assert_eq!((session.response.unwrap().bytes, session.capture), (304 + 4, Capture::Gap));
    }
}
