//! From bytes to packets: what is looked at of each, and what is skipped.

use super::command::STATEMENT_BYTES_MAX;
use super::probe;
use super::session::{Message, Session};
use super::wire::{self, HEADER_BYTES, Header};
use crate::l7::{Context, Direction, End, Gap, Parser, Part, Resync, Skipped, Step, Times, Why, tls};
use crate::reveal::Reveal;

/// What must be seen of a packet at once.
pub(super) const MESSAGE_BYTES_MAX: usize = HEADER_BYTES + STATEMENT_BYTES_MAX;

/// A connection whose packets are not compressed, or not any more.
pub(super) struct Packets {
    pub(super) session: Session,
    /// The packet whose end is being skipped, by [`Direction::index`].
    skipping: [Option<Skipping>; 2],
}

/// A packet of which only the beginning is looked at.
struct Skipping {
    header: Header,
    body: Vec<u8>,
    first_ns: u64,
}

impl Packets {
    pub(super) fn new(late: bool, reveal: Reveal) -> Self {
        Self { session: Session::new(late, reveal), skipping: [None, None] }
    }

    fn part(&mut self, direction: Direction, times: Times, bytes: usize) -> Part {
        Part::new(times, self.session.wire_bytes(direction, bytes as u64))
    }

    fn message(&mut self, cx: &mut Context<'_>, direction: Direction, message: &Message<'_>) -> bool {
        match direction {
            Direction::ToServer if self.session.awaits_login() => {
                return self.session.client_begins(cx, message);
            }
            Direction::ToServer => self.session.client_says(cx, message),
            Direction::ToClient => self.session.server_says(cx, message),
        }
        false
    }
}

impl Parser for Packets {
    fn data(&mut self, cx: &mut Context<'_>, direction: Direction, bytes: &[u8], times: Times) -> Step {
        if self.session.streams() {
            return Step::Bypass(Why::NoRequests);
        }
        if direction == Direction::ToClient && self.session.is_adrift() {
            return Step::Desync;
        }
        if direction == Direction::ToClient {
            let rows_bytes = self.session.take_rows(bytes, times.last_ns);
            if rows_bytes > 0 {
                return Step::Consumed(rows_bytes);
            }
        }
        let Some(header) = wire::header(bytes) else { return Step::NeedMore(HEADER_BYTES) };
        let first = match bytes.get(HEADER_BYTES) {
            Some(first) => *first,
            None if header.length > 0 => return Step::NeedMore(HEADER_BYTES + 1),
            None => 0,
        };
        let seen = header.length.min(self.session.bytes_seen(direction, header, first));
        let Some(body) = bytes.get(HEADER_BYTES..HEADER_BYTES + seen) else {
            return Step::NeedMore(HEADER_BYTES + seen);
        };
        let length = header.packet_bytes();
        if length > bytes.len() {
            let skipping = Skipping { header, body: body.to_vec(), first_ns: times.first_ns };
            self.skipping[direction.index()] = Some(skipping);
            return Step::Skip(length as u64);
        }
        let part = self.part(direction, times, length);
        if self.message(cx, direction, &Message { header, body, part, gap: None }) {
            return Step::Switch(length, Some(&tls::PROTOCOL));
        }
        Step::Consumed(length)
    }

    fn skipped(&mut self, cx: &mut Context<'_>, direction: Direction, skipped: Skipped) {
        let Some(Skipping { header, body, first_ns }) = self.skipping[direction.index()].take() else {
            return;
        };
        let bytes = self.session.wire_bytes(direction, skipped.bytes);
        let part = Part { first_ns, last_ns: skipped.time_ns, bytes };
        let message = Message { header, body: &body, part, gap: skipped.gap };
        if !skipped.cut_off {
            self.message(cx, direction, &message);
        } else if direction == Direction::ToServer {
            // The server acts upon whole packets only.
            self.session.client_lost(cx, Some(&message), None);
        }
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
                let header = wire::header(kept);
                let message = header.map(|header| {
                    let body = kept.get(HEADER_BYTES..).unwrap_or_default();
                    let body = body.get(..header.length.min(body.len())).unwrap_or_default();
                    Message { header, body, part: self.part(direction, times, header.packet_bytes()), gap }
                });
                self.session.client_lost(cx, message.as_ref(), gap);
            }
            Direction::ToClient => self.session.server_lost(cx, gap),
        }
    }

    fn resync(&mut self, direction: Direction, bytes: &[u8]) -> Resync {
        if direction == Direction::ToServer {
            return probe::resync_commands(bytes);
        }
        if !self.session.is_fresh() {
            return Resync::Keep(0);
        }
        let (kind, sequence) = self.session.expected();
        match probe::begins_answer(bytes, kind, Some(sequence)) {
            None => Resync::Keep(bytes.len()),
            Some(true) => Resync::At(0),
            Some(false) => {
                self.session.is_stale();
                Resync::Keep(0)
            }
        }
    }

    fn close(&mut self, _: &mut Context<'_>, _: Direction, _: End) {}

    fn finish(&mut self, cx: &mut Context<'_>) {
        self.session.finish(cx);
    }

    fn memory_bytes(&self) -> usize {
        let skipping: usize = self.skipping.iter().flatten().map(|one| one.body.capacity()).sum();
        size_of::<Self>() + skipping + self.session.memory_bytes()
    }
}
