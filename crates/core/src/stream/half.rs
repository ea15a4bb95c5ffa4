//! One direction of a connection.

use std::collections::{BTreeMap, VecDeque};

use super::{End, Gap, Piece, SKIP_BYTES_MAX, SKIP_BYTES_MIN};

/// Room for segments that wait behind a hole, of one direction: what a
/// connection has in flight at 10 Gbit/s and 1 ms.
const HELD_BYTES_MAX: usize = 1 << 20;
/// What a held segment costs besides its bytes.
const HELD_OVERHEAD_BYTES: usize = 96;
/// Nobody has a window of more than a GiB: what is further ahead is nonsense.
const AHEAD_BYTES_MAX: i64 = 1 << 30;
/// A keep-alive repeats one byte that was acknowledged before; as the first
/// thing seen of a stream it would be taken for its beginning.
const KEEP_ALIVE_BYTES: u32 = 1;
/// What is known of acknowledgements behind a hole: as many as can be of segments that are held.
const LATER_ACKS_MAX: usize = 4_096;
/// Of what was left out behind a hole: more than as much is held as can be of what was not.
const LEFT_OUT_MAX: usize = HELD_BYTES_MAX / HELD_OVERHEAD_BYTES;

#[derive(Debug, Default)]
pub(super) struct Half {
    start: Option<Start>,
    /// Where the next byte to deliver stands, counted from the start.
    at: u64,
    /// Segments beyond a hole, by their place. They do not overlap.
    held: BTreeMap<u64, Held>,
    held_bytes: usize,
    /// Up to here the receiver acknowledged.
    acknowledged: u64,
    /// Up to here it did so together with something of its own: what is missing is
    /// not just late.
    lost_to: u64,
    /// What this end acknowledged, by the place up to which it had sent before. That
    /// counts once everything before that place has been delivered.
    later_acks: BTreeMap<u64, Ack>,
    /// Where the stream ends, if its FIN was seen.
    fin: Option<u64>,
    over: bool,
    /// Nothing before this place need come. 0: everything is wanted.
    skipped_to: u64,
    /// From where to where nothing will come, for it was left out. In order, and ahead of `at`.
    left_out: VecDeque<(u64, u64)>,
}

#[derive(Debug, Clone, Copy)]
struct Start {
    seq: u32,
    midstream: bool,
}

/// What a segment says of the other direction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ack {
    /// Everything before this number has come.
    pub(super) number: u32,
    /// It is said together with something of its own.
    pub(super) certain: bool,
}

impl Ack {
    /// What this and a later one say together.
    fn and(self, later: Self) -> Self {
        let newer = later.number.wrapping_sub(self.number).cast_signed() > 0;
        Self {
            number: if newer { later.number } else { self.number },
            certain: self.certain || later.certain,
        }
    }
}

#[derive(Debug)]
struct Held {
    bytes: Box<[u8]>,
    /// As sent; at least `bytes.len()`.
    length: u64,
}

impl Half {
    pub(super) fn is_midstream(&self) -> bool {
        self.start.is_some_and(|start| start.midstream)
    }

    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.held_bytes
            + self.left_out.capacity() * size_of::<(u64, u64)>()
            + self.later_acks.len() * size_of::<(u64, Ack)>()
    }

    pub(super) fn begin(&mut self, seq: u32) {
        if self.start.is_none() {
            self.start = Some(Start { seq, midstream: false });
        }
    }

    /// Whether the stream's first byte has this number.
    pub(super) fn begins_at(&self, seq: u32) -> bool {
        self.start.is_some_and(|start| start.seq == seq)
    }

    /// How far ahead of the next byte to deliver this number is. Sequence
    /// numbers wrap, so it is the nearer of the two possible answers.
    pub(super) fn distance(&self, seq: u32) -> Option<i64> {
        // The low half of the offset is all that 32-bit numbers can tell apart.
        let next = self.start?.seq.wrapping_add(self.at as u32);
        Some(i64::from(seq.wrapping_sub(next).cast_signed()))
    }

    /// The place of a number, if it is near enough to make sense and not
    /// before the start.
    fn place(&self, seq: u32) -> Option<u64> {
        let distance = self.distance(seq)?;
        (distance <= AHEAD_BYTES_MAX).then(|| self.at.checked_add_signed(distance)).flatten()
    }

    pub(super) fn skip(&mut self, left: Option<u64>) -> bool {
        let before = self.skipped_to;
        match left {
            Some(left) if left >= SKIP_BYTES_MIN => {
                let end = self.at.saturating_add(left);
                // Said again when half of it has passed.
                if before < end.min(self.at + SKIP_BYTES_MAX / 2) {
                    self.skipped_to = end.min(self.at + SKIP_BYTES_MAX);
                }
            }
            _ if before <= self.at => self.skipped_to = 0,
            _ => {}
        }
        self.skipped_to != before
    }

    pub(super) fn skipped_until(&self) -> Option<u32> {
        let start = self.start.filter(|_| self.skipped_to > 0)?;
        Some(start.seq.wrapping_add(self.skipped_to as u32))
    }

    /// What stands from this number on, so many bytes, was left out.
    pub(super) fn leave_out_from(&mut self, seq: u32, bytes: u32) {
        let Some(place) = self.place(seq).filter(|_| !self.over) else { return };
        let end = place + u64::from(bytes);
        let after = self.left_out.back().map_or(0, |(_, end)| *end);
        // What is told again is known; and what was told out of order is not worth to be sorted.
        if bytes > 0 && end > self.at && place >= after && self.left_out.len() < LEFT_OUT_MAX {
            self.left_out.push_back((place, end));
        }
    }

    /// Up to where nothing more need come, without a hole.
    fn left_out_to(&mut self) -> u64 {
        while self.left_out.front().is_some_and(|(_, end)| *end <= self.at) {
            self.left_out.pop_front();
        }
        let known = self.left_out.front().filter(|(start, _)| *start <= self.at);
        known.map_or(0, |(_, end)| *end).max(self.skipped_to)
    }

    /// The number of the next byte to deliver.
    pub(super) fn next_seq(&self) -> Option<u32> {
        self.start.map(|start| start.seq.wrapping_add(self.at as u32))
    }

    pub(super) fn come_to(&mut self, seq: u32, deliver: &mut impl FnMut(Piece<'_>)) {
        if let Some(place) = self.place(seq).filter(|_| !self.over) {
            self.leave_out(place, deliver);
        }
    }

    pub(super) fn lack(&mut self, seq: u32) {
        if let Some(place) = self.place(seq).filter(|_| !self.over) {
            self.acknowledged = self.acknowledged.max(place);
            self.lost_to = self.lost_to.max(place);
        }
    }

    /// The stream has come to `place`: what is missing before it and need not come will not.
    fn leave_out(&mut self, place: u64, deliver: &mut impl FnMut(Piece<'_>)) {
        if self.held.is_empty() {
            self.pass_left_out(place, deliver);
        }
    }

    fn pass_left_out(&mut self, place: u64, deliver: &mut impl FnMut(Piece<'_>)) {
        let to = place.min(self.left_out_to());
        if to > self.at {
            deliver(Piece::LeftOut(to - self.at));
            self.at = to;
        }
    }

    /// Keeps an acknowledgement that this end said with a segment at `seq` for when
    /// everything has been delivered that it had sent before; gives it back if that is now.
    pub(super) fn later(&mut self, seq: u32, ack: Ack) -> Option<Ack> {
        let Some(place) = self.place(seq).filter(|_| !self.over) else { return Some(ack) };
        let held = self.held.last_key_value().map_or(0, |(start, held)| start + held.length);
        let place = self.fin.map_or(place.max(held), |fin| fin.min(place.max(held)));
        if place <= self.at {
            return Some(ack);
        }
        let known = self.later_acks.get(&place).copied();
        // Beyond that many, the next one that is in order says it.
        if known.is_some() || self.later_acks.len() < LATER_ACKS_MAX {
            self.later_acks.insert(place, known.map_or(ack, |known| known.and(ack)));
        }
        None
    }

    /// The next acknowledgement for which everything before it has been delivered.
    pub(super) fn due_ack(&mut self) -> Option<Ack> {
        let (place, _) = self.later_acks.first_key_value()?;
        if *place > self.at && !self.over { None } else { self.later_acks.pop_first().map(|(_, ack)| ack) }
    }

    /// The last acknowledgement that this end said, due or not.
    pub(super) fn last_ack(&self) -> Option<Ack> {
        self.later_acks.last_key_value().map(|(_, ack)| *ack)
    }

    /// Whether nothing waits: there is no acknowledgement that is due, and nothing to deliver.
    pub(super) fn is_settled(&self) -> bool {
        let is_known =
            self.acknowledged.max(self.lost_to) <= self.at && self.fin.is_none_or(|fin| fin > self.at);
        self.later_acks.is_empty() && (self.over || self.held.is_empty() && is_known)
    }

    /// Whether the receiver has more than was delivered.
    pub(super) fn is_behind(&self) -> bool {
        self.acknowledged > self.at
    }

    /// The receiver has everything before it. Whether that is new.
    pub(super) fn acknowledge(&mut self, ack: Ack) -> bool {
        let Some(place) = self.place(ack.number).filter(|_| !self.over) else { return false };
        let before = (self.acknowledged, self.lost_to);
        self.acknowledged = self.acknowledged.max(place);
        if ack.certain {
            self.lost_to = self.lost_to.max(place);
        }
        before != (self.acknowledged, self.lost_to)
    }

    /// The same, but for what is behind the hole. Whether that is new.
    pub(super) fn acknowledge_hole(&mut self, ack: Ack) -> bool {
        let held = self.held.first_key_value().map(|(place, _)| *place);
        let later = self.later_acks.first_key_value().map(|(place, _)| *place);
        let (Some(end), Some(place)) = (held.into_iter().chain(later).min(), self.place(ack.number)) else {
            return false;
        };
        let before = self.acknowledged;
        self.acknowledged = before.max(place.min(end));
        self.lost_to = self.lost_to.max(if ack.certain { self.acknowledged } else { 0 });
        self.acknowledged != before
    }

    pub(super) fn take(
        &mut self,
        seq: u32,
        payload: &[u8],
        length: u32,
        fin: bool,
        deliver: &mut impl FnMut(Piece<'_>),
    ) {
        if self.over {
            return;
        }
        if self.start.is_none() {
            if length <= KEEP_ALIVE_BYTES && !fin {
                return;
            }
            self.start = Some(Start { seq, midstream: true });
        }
        let Some(distance) = self.distance(seq).filter(|distance| *distance <= AHEAD_BYTES_MAX) else {
            return;
        };
        let mut length = u64::from(length);
        let mut payload = payload;
        let mut place = self.at;
        if distance < 0 {
            // Bytes that were delivered already, or passed before the start.
            let old = distance.unsigned_abs();
            if old > length {
                return;
            }
            payload = payload.get(usize::try_from(old).unwrap_or(usize::MAX)..).unwrap_or_default();
            length -= old;
        } else {
            place += distance.unsigned_abs();
        }
        self.leave_out(place, deliver);
        if fin && self.fin.is_none() {
            self.fin = Some(place + length);
        }
        if let Some(fin) = self.fin {
            length = length.min(fin.saturating_sub(place));
            payload = payload.get(..usize::try_from(length).unwrap_or(usize::MAX)).unwrap_or(payload);
        }
        if place == self.at && self.held.is_empty() {
            // The usual case: in order, nothing copied.
            self.pass(payload, length, deliver);
        } else if length > 0 {
            self.hold(place, payload, length);
        }
    }

    /// What nobody holds yet of a segment.
    fn hold(&mut self, place: u64, payload: &[u8], length: u64) {
        let end = place + length;
        let before = self.held.range(..=place).next_back().map(|(start, held)| start + held.length);
        let mut from = before.map_or(place, |covered| covered.max(place));
        let later: Vec<(u64, u64)> =
            self.held.range(place + 1..end).map(|(start, held)| (*start, start + held.length)).collect();
        for (start, covered) in later.into_iter().chain([(end, end)]) {
            if from < start.min(end) {
                self.insert(from, start.min(end), place, payload);
            }
            from = from.max(covered);
        }
    }

    fn insert(&mut self, from: u64, to: u64, place: u64, payload: &[u8]) {
        let index = |at: u64| usize::try_from(at - place).unwrap_or(usize::MAX).min(payload.len());
        let bytes = payload.get(index(from)..index(to)).unwrap_or_default();
        self.held_bytes += bytes.len() + HELD_OVERHEAD_BYTES;
        self.held.insert(from, Held { bytes: bytes.into(), length: to - from });
    }

    /// Delivers what is next, or steps over a hole that will not be filled. Whether
    /// there was anything to do.
    pub(super) fn step(&mut self, deliver: &mut impl FnMut(Piece<'_>)) -> bool {
        if self.over {
            return false;
        }
        let before = self.at;
        if let Some((place, _)) = self.held.first_key_value() {
            let place = *place;
            self.pass_left_out(place, deliver);
            let lost_to = self.acknowledged.min(place);
            if place <= self.at {
                self.pass_held(deliver);
                return true;
            } else if lost_to > self.at {
                self.give_up(lost_to, Gap::Lost, deliver);
            } else if self.held_bytes > HELD_BYTES_MAX {
                self.give_up(place, Gap::NotSeen, deliver);
            }
        } else {
            let end = self.fin.unwrap_or(u64::MAX);
            self.pass_left_out(self.acknowledged.min(end), deliver);
            let lost_to = self.lost_to.min(end);
            if lost_to > self.at {
                self.give_up(lost_to, Gap::Lost, deliver);
            }
        }
        if self.at > before {
            return true;
        }
        self.over = self.fin == Some(self.at);
        if self.over {
            deliver(Piece::End(End::Fin));
        }
        self.over
    }

    fn pass_held(&mut self, deliver: &mut impl FnMut(Piece<'_>)) {
        if let Some((_, held)) = self.held.pop_first() {
            self.held_bytes -= held.bytes.len() + HELD_OVERHEAD_BYTES;
            self.pass(&held.bytes, held.length, deliver);
        }
    }

    fn pass(&mut self, bytes: &[u8], length: u64, deliver: &mut impl FnMut(Piece<'_>)) {
        if !bytes.is_empty() {
            deliver(Piece::Data(bytes));
        }
        let cut = length.saturating_sub(bytes.len() as u64);
        if cut > 0 {
            deliver(Piece::Gap(cut, Gap::Cut));
        }
        self.at += length;
    }

    fn give_up(&mut self, to: u64, why: Gap, deliver: &mut impl FnMut(Piece<'_>)) {
        deliver(Piece::Gap(to - self.at, why));
        self.at = to;
    }

    /// Steps over the hole before what is held. Whether there was one.
    pub(super) fn step_over(&mut self, deliver: &mut impl FnMut(Piece<'_>)) -> bool {
        let Some((place, _)) = self.held.first_key_value().filter(|_| !self.over) else { return false };
        let place = *place;
        self.pass_left_out(place, deliver);
        if place > self.at {
            self.give_up(place, Gap::NotSeen, deliver);
        }
        true
    }

    pub(super) fn finish(&mut self, end: End, deliver: &mut impl FnMut(Piece<'_>)) {
        if !self.over {
            self.over = true;
            deliver(Piece::End(end));
        }
    }
}
