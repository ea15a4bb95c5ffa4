//! MySQL and MariaDB: version 10 of the protocol, from 4.1 on.
//!
//! A client asks and waits for the answer; only few ask ahead. Commands begin
//! with packets of number 0, and answers go on counting, so that neither end's
//! bytes need the other's to be told apart. What an answer looks like depends on
//! its command.
//!
//! Rows, columns, files, bound values and everything about authentication are
//! skipped: they never come into the parser.
//!
//! - `wire`: packets, and the fields in them;
//! - `handshake`: who the two ends are, and what they agree upon;
//! - `command`, `values`: what is asked. The only place that decides what of it
//!   is shown;
//! - `statement`: prepared statements by their numbers;
//! - `answer`: how an answer goes on and ends;
//! - `session`: what belongs together, and what is told of it;
//! - `packets`: from bytes to packets;
//! - `frames`, `decoder`: packets inside of compressed ones;
//! - `probe`: how to recognise all this;
//! - here: whether a connection compresses.

mod answer;
mod command;
mod decoder;
mod frames;
mod handshake;
mod packets;
mod probe;
mod session;
mod statement;
#[cfg(test)]
mod tests;
mod values;
mod wire;

use self::frames::Frames;
use self::packets::Packets;
use super::{
    Context, Direction, End, Gap, Guess, Parser, Protocol, Resync, Skipped, Start, Step, Times, Transport,
};

pub(super) static PROTOCOL: Protocol = Protocol {
    name: "mysql",
    transports: &[Transport::Tcp],
    ports: &[3306, 3307],
    message_bytes_max: packets::MESSAGE_BYTES_MAX,
    probe: probe::probe,
    parser: |start| Box::new(MySql::new(start)),
};

struct MySql {
    packets: Packets,
    /// From the moment on that compressed packets are expected.
    frames: Option<Box<Frames>>,
    /// When something came last.
    last_ns: u64,
}

impl MySql {
    fn new(start: Start) -> Self {
        Self { packets: Packets::new(start.late, start.reveal), frames: None, last_ns: 0 }
    }

    fn frames(&mut self, direction: Direction) -> Option<&mut Frames> {
        self.frames.as_deref_mut().filter(|frames| frames.is_active(direction))
    }

    /// Whether the next packet of this direction is the first compressed one;
    /// `None` if that cannot be told yet.
    fn begins_to_compress(&self, direction: Direction, bytes: &[u8]) -> Option<bool> {
        let session = &self.packets.session;
        if session.compresses() != Some(true) || session.awaits_login() {
            return Some(false);
        }
        match direction {
            // What still belongs to the login has a higher number.
            Direction::ToServer => bytes.get(3).map(|sequence| *sequence == 0),
            Direction::ToClient => Some(session.is_logged_in()),
        }
    }

    /// Begins to read compressed packets.
    fn compress(&mut self, direction: Direction) {
        let frames = self.frames.get_or_insert_with(|| Box::new(Frames::new(&PROTOCOL)));
        frames.begin(&mut self.packets, direction);
    }
}

impl Parser for MySql {
    fn data(&mut self, cx: &mut Context<'_>, direction: Direction, bytes: &[u8], times: Times) -> Step {
        self.last_ns = times.last_ns;
        if self.frames(direction).is_none() {
            match self.begins_to_compress(direction, bytes) {
                Some(false) => return self.packets.data(cx, direction, bytes, times),
                Some(true) => self.compress(direction),
                None => return Step::NeedMore(4),
            }
        }
        match self.frames.as_deref_mut() {
            Some(frames) => frames.data(&mut self.packets, cx, direction, bytes, times),
            None => Step::Desync,
        }
    }

    fn bridges(&self, direction: Direction) -> Option<u64> {
        self.frames.as_ref()?.bridges(direction)
    }

    fn skipped(&mut self, cx: &mut Context<'_>, direction: Direction, skipped: Skipped) {
        self.last_ns = skipped.time_ns;
        match self.frames.as_deref_mut().filter(|frames| frames.is_active(direction)) {
            Some(frames) => frames.skipped(&mut self.packets, cx, direction, skipped),
            None => self.packets.skipped(cx, direction, skipped),
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
        match self.frames.as_deref_mut().filter(|frames| frames.is_active(direction)) {
            Some(frames) => frames.lost(&mut self.packets, cx, direction, times, gap),
            None => self.packets.lost(cx, direction, kept, times, gap),
        }
    }

    fn resync(&mut self, direction: Direction, bytes: &[u8]) -> Resync {
        if self.frames(direction).is_none() {
            let found = self.packets.resync(direction, bytes);
            // Whether it compresses was agreed upon before, and may be unknown.
            let asks = direction == Direction::ToServer && self.packets.session.compresses().is_none();
            if !asks || matches!(found, Resync::At(_)) || frames::commands(bytes) < Guess::Maybe {
                return found;
            }
            self.compress(Direction::ToServer);
            self.compress(Direction::ToClient);
        }
        match self.frames.as_deref_mut() {
            Some(frames) => frames.resync(&mut self.packets, direction, bytes),
            None => Resync::Keep(0),
        }
    }

    fn close(&mut self, cx: &mut Context<'_>, direction: Direction, end: End) {
        let time_ns = self.last_ns;
        match self.frames.as_deref_mut().filter(|frames| frames.is_active(direction)) {
            Some(frames) => frames.close(&mut self.packets, cx, direction, end, time_ns),
            None => self.packets.close(cx, direction, end),
        }
    }

    fn finish(&mut self, cx: &mut Context<'_>) {
        self.packets.finish(cx);
    }

    fn memory_bytes(&self) -> usize {
        self.packets.memory_bytes() + self.frames.as_ref().map_or(0, |frames| frames.memory_bytes())
    }
}
