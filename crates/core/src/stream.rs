//! TCP streams, put together from segments as they passed a point of observation.
//!
//! What an observer cannot do: ask for a segment again. So bytes that it never
//! gets are told as a [`Gap`], of known length, as soon as it is sure that they
//! will not come: when the receiver has acknowledged them and goes on.
//!
//! Of overlapping copies the first counts, as with most receivers; a later copy
//! with other bytes changes nothing.

mod half;
#[cfg(test)]
mod tests;

use crate::flow::Side;
use half::{Ack, Half};

/// A reset counts only this close to where the stream stands: others are
/// forged, or belong to an earlier connection.
const RESET_WINDOW_BYTES: i64 = 1 << 20;

/// How far ahead bytes are skipped at a time: sequence numbers tell no more than
/// twice as many apart.
pub const SKIP_BYTES_MAX: u64 = 1 << 30;
/// Fewer than these have come before anybody could be told not to copy them.
const SKIP_BYTES_MIN: u64 = 256 << 10;

/// One TCP segment. `payload` may be shorter than what was sent.
#[derive(Debug, Clone, Copy, Default)]
pub struct Segment<'a> {
    /// Sequence number of the first byte (of the SYN, if there is one).
    pub seq: u32,
    /// Acknowledgement number, where the segment has one.
    pub ack: Option<u32>,
    /// Begins the stream.
    pub syn: bool,
    /// Ends the stream.
    pub fin: bool,
    /// Ends the connection.
    pub rst: bool,
    /// As much of the payload as was captured.
    pub payload: &'a [u8],
    /// As much as was sent; at least `payload.len()`.
    pub payload_bytes: u32,
}

/// Why bytes are missing. Their number is known in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gap {
    /// Their packet was captured, but not to its end (snap length).
    Cut,
    /// The receiver acknowledged them: they passed, but not through the capture.
    Lost,
    /// Later bytes came and nobody acknowledged these: they passed elsewhere or
    /// not at all, and the room for waiting is used up, or the stream is over.
    NotSeen,
}

/// How one direction of a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// FIN: everything was said.
    Fin,
    /// RST: broken off.
    Reset,
    /// No more is seen of it: the capture ends here, or nothing came for too
    /// long, or its place in memory was needed.
    Unseen,
}

/// The next thing in one direction, in the order in which it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Bytes.
    Data(&'a [u8]),
    /// That many bytes are missing here.
    Gap(u64, Gap),
    /// That many bytes were not captured, because nobody needs them.
    LeftOut(u64),
    /// Nothing more comes. Once in each direction, and last.
    End(End),
}

/// Both directions of a TCP connection.
#[derive(Debug, Default)]
pub struct Connection {
    halves: [Half; 2],
    client: Option<Side>,
    reset: bool,
}

impl Connection {
    /// This end's stream begins with this number: its SYN was seen elsewhere.
    pub fn begin(&mut self, side: Side, seq: u32) {
        self.halves[side.index()].begin(seq);
    }

    /// Who opened it, if that was seen elsewhere.
    pub fn opened_by(&mut self, client: Side) {
        self.client = Some(client);
    }

    /// Says that the next `left` bytes of this end's stream need not come: where
    /// they are missing, they are left out, and not lost. Whether what
    /// [`Connection::skipped_until`] says has changed by it.
    pub fn skip(&mut self, side: Side, left: Option<u64>) -> bool {
        self.halves[side.index()].skip(left)
    }

    /// Up to which sequence number nothing of this end's stream need come. Never
    /// much further than [`SKIP_BYTES_MAX`] ahead: to be asked for again.
    #[must_use]
    pub fn skipped_until(&self, side: Side) -> Option<u32> {
        self.halves[side.index()].skipped_until()
    }

    /// Says that so many bytes of this end's stream, from `seq` on, were not captured
    /// because nobody needs them.
    pub fn leave_out(&mut self, side: Side, seq: u32, bytes: u32) {
        self.halves[side.index()].leave_out_from(seq, bytes);
    }

    /// The sequence number of the next byte that this end's stream will deliver.
    #[must_use]
    pub fn next_seq(&self, side: Side) -> Option<u32> {
        self.halves[side.index()].next_seq()
    }

    /// This end was seen to have sent everything before `seq`. Matters for what is
    /// being skipped only.
    pub fn come_to(&mut self, side: Side, seq: u32, deliver: &mut impl FnMut(Side, Piece<'_>)) {
        self.halves[side.index()].come_to(seq, &mut |piece| deliver(side, piece));
    }

    /// Nothing more comes of what this end has sent before `seq`: what is missing is lost.
    pub fn lack(&mut self, side: Side, seq: u32, deliver: &mut impl FnMut(Side, Piece<'_>)) {
        self.halves[side.index()].lack(seq);
        self.settle(deliver);
    }

    /// Who opened it, if its SYN or SYN-ACK was seen.
    #[must_use]
    pub fn client(&self) -> Option<Side> {
        self.client
    }

    /// Whether what this end sends was joined after its beginning.
    #[must_use]
    pub fn is_midstream(&self, side: Side) -> bool {
        self.halves[side.index()].is_midstream()
    }

    /// Whether both directions have ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.halves.iter().all(Half::is_over)
    }

    /// Heap memory held, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.halves.iter().map(Half::memory_bytes).sum()
    }

    /// Whether the segment belongs to a new connection between the same ports:
    /// a SYN that is no repetition of this connection's own.
    #[must_use]
    pub fn is_succeeded_by(&self, from: Side, segment: &Segment<'_>) -> bool {
        if !segment.syn || segment.ack.is_some() {
            return false;
        }
        let half = &self.halves[from.index()];
        match half.distance(segment.seq.wrapping_add(1)) {
            // An old SYN is at or behind what was delivered.
            Some(distance) if !half.is_over() && !self.reset => {
                !half.begins_at(segment.seq.wrapping_add(1)) && distance.abs() > RESET_WINDOW_BYTES
            }
            Some(_) => !half.begins_at(segment.seq.wrapping_add(1)),
            None => false,
        }
    }

    /// Takes a segment that `from` sent, and delivers what it completes, each
    /// piece with the end that sent it.
    pub fn segment(&mut self, from: Side, segment: &Segment<'_>, deliver: &mut impl FnMut(Side, Piece<'_>)) {
        let mut first = segment.seq;
        if segment.syn {
            first = first.wrapping_add(1);
            self.halves[from.index()].begin(first);
            self.client = self.client.or(Some(if segment.ack.is_some() { from.other() } else { from }));
        }
        let length = segment.payload_bytes.max(u32::try_from(segment.payload.len()).unwrap_or(u32::MAX));
        let own = &mut self.halves[from.index()];
        if let Some(number) = segment.ack {
            // Who answers has what it answers to: a hole in it will not be filled. But what
            // it had sent before comes first.
            let ack = Ack { number, certain: length > 0 || segment.fin };
            own.come_to(first, &mut |piece| deliver(from, piece));
            if let Some(ack) = own.later(first, ack) {
                self.halves[from.other().index()].acknowledge(ack);
                self.settle(deliver);
            }
        }
        let own = &mut self.halves[from.index()];
        if segment.rst {
            own.come_to(first, &mut |piece| deliver(from, piece));
            if own.distance(first).is_none_or(|distance| (0..=RESET_WINDOW_BYTES).contains(&distance)) {
                self.reset = true;
                self.finish(End::Reset, deliver);
            }
            return;
        }
        own.take(first, segment.payload, length, segment.fin, &mut |piece| deliver(from, piece));
        self.settle(deliver);
    }

    /// Delivers what can be by now, in the order in which it was sent as far as that can
    /// be told: what an end sent before it had something of the other end comes before
    /// what it sent after.
    fn settle(&mut self, deliver: &mut impl FnMut(Side, Piece<'_>)) {
        if self.halves.iter().all(Half::is_settled) {
            return; // nearly always
        }
        while self.acknowledge_due() || self.step(deliver) || self.untie() {}
    }

    fn acknowledge_due(&mut self) -> bool {
        for side in [Side::Low, Side::High] {
            if let Some(ack) = self.halves[side.index()].due_ack() {
                self.halves[side.other().index()].acknowledge(ack);
                return true;
            }
        }
        false
    }

    fn step(&mut self, deliver: &mut impl FnMut(Side, Piece<'_>)) -> bool {
        let first = self.client.unwrap_or(Side::High);
        // What the other end has had comes before what it may have said because of it.
        let mut sides = [first, first.other()];
        sides.sort_by_key(|side| !self.halves[side.index()].is_behind());
        sides.into_iter().any(|side| self.halves[side.index()].step(&mut |piece| deliver(side, piece)))
    }

    /// Where both ends wait behind a hole, and only what is behind the other one's says
    /// that it will not be filled: says so. Whether that was needed.
    fn untie(&mut self) -> bool {
        let acks = [Side::Low, Side::High].map(|side| self.halves[side.index()].last_ack());
        let [Some(low), Some(high)] = acks else { return false };
        let side = self.client.unwrap_or(Side::High);
        let ack = if side == Side::Low { high } else { low };
        self.halves[side.index()].acknowledge_hole(ack)
    }

    /// Delivers what still waits behind holes, and ends both directions.
    pub fn finish(&mut self, end: End, deliver: &mut impl FnMut(Side, Piece<'_>)) {
        for side in [Side::Low, Side::High] {
            while self.halves[side.index()].step_over(&mut |piece| deliver(side, piece)) {
                self.settle(deliver);
            }
        }
        for side in [Side::Low, Side::High] {
            self.halves[side.index()].finish(end, &mut |piece| deliver(side, piece));
        }
    }
}
