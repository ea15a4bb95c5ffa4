//! PostgreSQL, protocol 3.0 to 3.2.
//!
//! What is answered as one is everything up to the server's `ReadyForQuery`: a
//! simple query, or the steps of the extended query up to a `Sync`. Which answer
//! belongs to which of them is counted by that message ([`super::Fifo`]); within,
//! every step has its own answer, and an error skips the others
//! ([`session::Session`]). There is one exchange for a simple query, however many
//! statements it has, and one for each execution of a prepared statement.
//!
//! Rows, bound values, copied data and everything about authentication are
//! skipped: they never come into the parser. After a loss it begins again at
//! `ReadyForQuery` from the server, and at a chain of whole and valid messages
//! from the client.

mod session;
mod statement;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::VecDeque;

use smol_str::ToSmolStr;

use super::{
    Context, Direction, End, Exchange, Gap, Guess, Heads, Parser, Part, Protocol, Resync, Skipped, Start,
    Step, Times, Transport, Why, tls,
};
use crate::reveal::Reveal;
use session::Session;
use wire::{Message, Opening};

pub(super) static PROTOCOL: Protocol = Protocol {
    name: "postgresql",
    transports: &[Transport::Tcp],
    ports: &[5432, 6432],
    message_bytes_max: wire::HEADER_BYTES + wire::STATEMENT_BYTES_MAX,
    probe,
    parser: |start| Box::new(PostgreSql::new(start)),
};

/// A client asks for encryption once for each kind that it knows.
const REQUESTS_FOR_ENCRYPTION_MAX: usize = 4;

fn probe(heads: &Heads<'_>) -> Guess {
    let asked = match wire::opening(heads.to_server) {
        Opening::None => wire::guess(Direction::ToServer, heads.to_server),
        Opening::More => Guess::More,
        _ => Guess::Sure,
    };
    let answered = wire::guess(Direction::ToClient, heads.to_client);
    match (asked, answered) {
        (Guess::Sure, _) | (_, Guess::Sure) => Guess::Sure,
        (Guess::No, _) | (_, Guess::No) => Guess::No,
        _ => Guess::More,
    }
}

struct PostgreSql {
    session: Session,
    /// The client's next message is an [`Opening`].
    opening: bool,
    /// Requests for encryption that were not answered yet, at most a few.
    negotiating: VecDeque<Box<Exchange>>,
    negotiated: bool,
    /// The message whose end is being skipped, by [`Direction::index`].
    skipping: [Option<Skipping>; 2],
    reveal: Reveal,
}

/// A message of which only the beginning is looked at.
struct Skipping {
    kind: u8,
    body: Vec<u8>,
    first_ns: u64,
}

impl PostgreSql {
    fn new(start: Start) -> Self {
        Self {
            session: Session::new(start.late, start.reveal),
            opening: !start.late,
            negotiating: VecDeque::new(),
            negotiated: false,
            skipping: [None, None],
            reveal: start.reveal,
        }
    }

    /// Messages before the connection is set up have no type.
    fn open(&mut self, cx: &mut Context<'_>, bytes: &[u8], times: Times) -> Step {
        match wire::opening(bytes) {
            Opening::More => Step::NeedMore(wire::OPENING_BYTES),
            Opening::Encryption(name) => {
                if self.negotiating.len() >= REQUESTS_FOR_ENCRYPTION_MAX {
                    return Step::Bypass(Why::NotUnderstood);
                }
                let mut exchange = self.session.exchange(name);
                exchange.request = Some(Part::new(times, wire::OPENING_BYTES as u64));
                self.negotiating.push_back(exchange);
                self.negotiated = true;
                Step::Consumed(wire::OPENING_BYTES)
            }
            Opening::Cancel(length) => {
                // What follows is the key that allows it.
                let mut exchange = self.session.exchange("CANCEL");
                exchange.request = Some(Part::new(times, length as u64));
                cx.emit(exchange);
                Step::Skip(length as u64)
            }
            Opening::Startup(length) => {
                let Some(parameters) = bytes.get(wire::OPENING_BYTES..length) else {
                    return Step::NeedMore(length);
                };
                self.opening = false;
                self.session.startup(cx, parameters, Part::new(times, length as u64));
                Step::Consumed(length)
            }
            // The server has agreed to encrypt, or will.
            Opening::None if !self.negotiating.is_empty() => Step::WaitPeer,
            Opening::None if self.negotiated => Step::Bypass(Why::Encrypted),
            Opening::None => Step::Desync,
        }
    }

    /// The server's answer to a request for encryption is one byte.
    fn negotiate(&mut self, cx: &mut Context<'_>, byte: u8, times: Times) -> Option<Step> {
        let mut exchange = self.negotiating.pop_front()?;
        exchange.response = Some(Part::new(times, 1));
        exchange.status = Some(char::from(byte).to_smolstr());
        let step = match byte {
            b'S' => {
                exchange.ok = Some(true);
                Some(Step::Switch(1, Some(&tls::PROTOCOL)))
            }
            b'G' => {
                exchange.ok = Some(true);
                Some(Step::Bypass(Why::Encrypted))
            }
            b'N' => {
                exchange.ok = Some(false);
                Some(Step::Consumed(1))
            }
            // A server that does not know the request says so in a message.
            b'E' => {
                exchange.ok = Some(false);
                None
            }
            _ => {
                exchange.response = None;
                exchange.status = None;
                Some(Step::Desync)
            }
        };
        cx.emit(exchange);
        step
    }

    fn message(&mut self, cx: &mut Context<'_>, direction: Direction, message: &Message<'_>) {
        match direction {
            Direction::ToServer => self.session.client_says(cx, message),
            Direction::ToClient => self.session.server_says(cx, message),
        }
    }
}

impl Parser for PostgreSql {
    fn data(&mut self, cx: &mut Context<'_>, direction: Direction, bytes: &[u8], times: Times) -> Step {
        if self.session.replicates() {
            return Step::Bypass(Why::NoRequests);
        }
        match direction {
            Direction::ToServer if self.opening => return self.open(cx, bytes, times),
            Direction::ToServer => {}
            Direction::ToClient => {
                self.session.server_found();
                if let [byte, ..] = bytes
                    && let Some(step) = self.negotiate(cx, *byte, times)
                {
                    return step;
                }
            }
        }
        let Some(header) = wire::header(direction, bytes) else { return Step::Desync };
        let Some((kind, length)) = header else { return Step::NeedMore(wire::HEADER_BYTES) };
        let seen = length.min(wire::HEADER_BYTES + wire::body_bytes_seen(direction, kind, self.reveal));
        let Some(body) = bytes.get(wire::HEADER_BYTES..seen) else { return Step::NeedMore(seen) };
        if length > bytes.len() {
            let skipping = Skipping { kind, body: body.to_vec(), first_ns: times.first_ns };
            self.skipping[direction.index()] = Some(skipping);
            return Step::Skip(length as u64);
        }
        let part = Part::new(times, length as u64);
        self.message(cx, direction, &Message { kind, body, cut: seen < length, part, gap: None });
        let more = match (direction, kind) {
            (Direction::ToClient, wire::ROW) => {
                self.session.take_rows(bytes.get(length..).unwrap_or_default(), times.last_ns)
            }
            _ => 0,
        };
        Step::Consumed(length + more)
    }

    fn skipped(&mut self, cx: &mut Context<'_>, direction: Direction, skipped: Skipped) {
        let Some(Skipping { kind, body, first_ns }) = self.skipping[direction.index()].take() else { return };
        if skipped.cut_off {
            return; // the server acts upon whole messages only
        }
        let part = Part { first_ns, last_ns: skipped.time_ns, bytes: skipped.bytes };
        let cut = skipped.bytes > (wire::HEADER_BYTES + body.len()) as u64;
        self.message(cx, direction, &Message { kind, body: &body, cut, part, gap: skipped.gap });
    }

    fn lost(
        &mut self,
        cx: &mut Context<'_>,
        direction: Direction,
        kept: &[u8],
        times: Times,
        gap: Option<Gap>,
    ) {
        self.skipping[direction.index()] = None;
        match direction {
            Direction::ToServer => {
                if !self.opening
                    && let Some(Some((b'Q', length))) = wire::header(direction, kept)
                    && let Some(body) = kept.get(wire::HEADER_BYTES..)
                {
                    self.session.query_cut_off(cx, body, Part::new(times, length as u64), gap);
                }
                self.opening = false;
                self.session.client_lost(gap);
            }
            Direction::ToClient => {
                for exchange in self.negotiating.drain(..) {
                    cx.emit(exchange);
                }
                self.session.server_lost(cx, gap);
            }
        }
    }

    fn resync(&mut self, direction: Direction, bytes: &[u8]) -> Resync {
        match direction {
            Direction::ToServer => wire::resync_client(bytes),
            Direction::ToClient => wire::resync_server(bytes),
        }
    }

    fn close(&mut self, _: &mut Context<'_>, _: Direction, _: End) {}

    fn finish(&mut self, cx: &mut Context<'_>) {
        for exchange in self.negotiating.drain(..) {
            cx.emit(exchange);
        }
        self.session.finish(cx);
    }

    fn memory_bytes(&self) -> usize {
        let skipping: usize = self.skipping.iter().flatten().map(|one| one.body.capacity()).sum();
        size_of::<Self>() + skipping + self.session.memory_bytes()
    }
}
