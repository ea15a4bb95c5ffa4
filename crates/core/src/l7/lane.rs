//! One direction of a conversation: what is kept, counted and waited for.

use super::{Direction, End, FrameAhead, Gap, Parser, Protocol, Resync, Skipped, Step, Times, Why};
use crate::l7::Context;

#[derive(Debug, Default)]
pub(super) struct Lane {
    /// Bytes that the parser cannot use yet.
    kept: Vec<u8>,
    /// When the first and the last of them came.
    kept_times: Option<Times>,
    /// How many it wants to see.
    wanted: usize,
    skip: Option<Skip>,
    /// Until the other direction has moved on.
    waits: bool,
    /// Looking for the beginning of a message.
    lost: bool,
    /// Since it is lost.
    searched_bytes: u64,
    /// Nothing more comes.
    end: Option<End>,
    closed: bool,
}

#[derive(Debug)]
struct Skip {
    /// `u64::MAX`: all that comes.
    asked: u64,
    left: u64,
    passed: u64,
    gap: Option<Gap>,
}

/// What a lane's progress means for the conversation.
pub(super) enum Outcome {
    /// As it was.
    Same,
    /// The parser understood something: who waits for this direction may go on.
    Moved,
    /// The protocol changes; `kept` begins with the next one's bytes.
    Switch(Option<&'static Protocol>),
    /// Nothing more will be parsed.
    Bypass(Why),
}

impl Lane {
    /// `lost`: it does not begin at the beginning of a message.
    pub(super) fn new(lost: bool) -> Self {
        Self { lost, ..Self::default() }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.kept.capacity()
    }

    /// Whether it goes on by itself when more comes, and more may come.
    pub(super) fn is_open(&self) -> bool {
        !self.waits && self.end.is_none()
    }

    pub(super) fn waits(&self) -> bool {
        self.waits
    }

    pub(super) fn stop_waiting(&mut self) {
        self.waits = false;
    }

    /// What the next protocol gets to see first.
    pub(super) fn into_kept(self) -> (Vec<u8>, Option<End>) {
        (self.kept, self.end)
    }

    pub(super) fn end(&mut self, end: End) {
        self.end = Some(end);
    }

    /// How many bytes it does not need to see.
    pub(super) fn skips(&self) -> u64 {
        self.skip.as_ref().map_or(0, |skip| skip.left)
    }

    /// Bytes that it does not need to see, at most as many as [`Lane::skips`].
    pub(super) fn pass(&mut self, at: &mut Place<'_, '_>, length: u64) {
        let Some(skip) = &mut self.skip else { return };
        let passed = skip.left.min(length);
        skip.left -= passed;
        skip.passed += passed;
        if skip.left == 0 {
            self.end_skip(at, false);
        }
    }

    /// Takes bytes that came now; without any, goes on with what is kept.
    pub(super) fn data(&mut self, at: &mut Place<'_, '_>, bytes: &[u8]) -> Outcome {
        let mut bytes = bytes;
        let mut moved = false;
        if let Some(skip) = &mut self.skip {
            let passed = skip.left.min(bytes.len() as u64);
            skip.left -= passed;
            skip.passed += passed;
            bytes = bytes.get(usize::try_from(passed).unwrap_or(usize::MAX)..).unwrap_or_default();
            if skip.left > 0 {
                return Outcome::Same;
            }
            self.end_skip(at, false);
            moved = true;
        }
        if self.kept.is_empty() && !self.waits {
            let mut used = 0;
            let outcome = self.parse(at, bytes, 0, &mut used, moved);
            self.keep(bytes.get(used..).unwrap_or_default(), at.time_ns);
            return self.within_limit(at, outcome);
        }
        let older = self.kept.len();
        self.keep(bytes, at.time_ns);
        if self.waits || self.kept.len() < self.wanted {
            let outcome = if moved { Outcome::Moved } else { Outcome::Same };
            return self.within_limit(at, outcome);
        }
        let kept = std::mem::take(&mut self.kept);
        let mut used = 0;
        let outcome = self.parse(at, &kept, older, &mut used, moved);
        self.kept = kept;
        self.kept.drain(..used.min(self.kept.len()));
        if self.kept.is_empty() {
            self.kept = Vec::new(); // most connections are idle most of the time
            self.kept_times = None;
        } else if used >= older
            && let Some(times) = &mut self.kept_times
        {
            times.first_ns = times.last_ns;
        }
        self.within_limit(at, outcome)
    }

    /// How many of the next bytes need not be seen.
    pub(super) fn skip_left(&self, parser: &dyn Parser, direction: Direction) -> Option<u64> {
        match &self.skip {
            Some(skip) => Some(skip.left),
            None => self.next_skip(parser, direction),
        }
    }

    /// The next frame, where long contents need not be seen.
    pub(super) fn frame_ahead(&self, parser: &dyn Parser, direction: Direction) -> Option<FrameAhead> {
        if self.lost || self.waits || !self.kept.is_empty() {
            return None;
        }
        let FrameAhead { left_bytes, bytes } = parser.frame_ahead(direction)?;
        let passed = self.skip.as_ref().map_or(0, |skip| skip.passed);
        Some(FrameAhead { left_bytes: left_bytes.checked_sub(passed)?, bytes })
    }

    /// The skip that begins here, before its first byte has come.
    fn next_skip(&self, parser: &dyn Parser, direction: Direction) -> Option<u64> {
        if self.is_between() { parser.skips_next(direction).filter(|asked| *asked > 0) } else { None }
    }

    /// Whether nothing waits for what comes next, and what that is is known.
    fn is_between(&self) -> bool {
        self.kept.is_empty() && !self.lost && !self.waits
    }

    fn begin_skip(&mut self, next: Option<u64>) {
        if self.skip.is_none() {
            self.skip = next.map(|asked| Skip { asked, left: asked, passed: 0, gap: None });
        }
    }

    /// Bytes that were not captured, because they are being skipped.
    pub(super) fn left_out(&mut self, at: &mut Place<'_, '_>, length: u64) {
        let mut length = length;
        while length > 0 {
            let spared = || at.parser.spares(at.direction).filter(|bytes| self.is_between() && *bytes > 0);
            self.begin_skip(self.next_skip(at.parser, at.direction).or_else(spared));
            let Some(skip) = &mut self.skip else { return self.gap(at, length, Gap::Cut) };
            let passed = skip.left.min(length);
            skip.left -= passed;
            skip.passed += passed;
            length -= passed;
            if skip.left == 0 {
                self.end_skip(at, false);
            }
        }
    }

    /// Bytes that are missing at this place.
    pub(super) fn gap(&mut self, at: &mut Place<'_, '_>, length: u64, gap: Gap) {
        let mut length = length;
        while length > 0 {
            let bridged = at.parser.bridges(at.direction).filter(|bytes| self.is_between() && *bytes > 0);
            self.begin_skip(bridged);
            let Some(skip) = &mut self.skip else { break };
            let passed = skip.left.min(length);
            skip.left -= passed;
            skip.passed += passed;
            skip.gap = Some(gap);
            length -= passed;
            if skip.left > 0 {
                return;
            }
            self.end_skip(at, false);
        }
        if length > 0 {
            self.waits = false;
            self.lose(at, Some(gap));
        }
    }

    /// Tells the parser that nothing more comes, once, when it has seen all.
    pub(super) fn close_if_ended(&mut self, at: &mut Place<'_, '_>) {
        let Some(end) = self.end else { return };
        if self.closed || self.waits {
            return;
        }
        self.closed = true;
        if self.skip.is_some() {
            self.end_skip(at, true);
        }
        if !self.kept.is_empty() && !self.lost {
            self.lose(at, None);
        }
        self.kept = Vec::new();
        at.parser.close(at.cx, at.direction, end);
    }

    fn keep(&mut self, bytes: &[u8], time_ns: u64) {
        if bytes.is_empty() {
            return;
        }
        self.kept.extend_from_slice(bytes);
        self.kept_times.get_or_insert(Times { first_ns: time_ns, last_ns: time_ns }).last_ns = time_ns;
    }

    fn end_skip(&mut self, at: &mut Place<'_, '_>, cut_off: bool) {
        if let Some(skip) = self.skip.take() {
            let skipped = Skipped {
                bytes: skip.passed,
                time_ns: at.time_ns,
                gap: skip.gap,
                cut_off: cut_off && skip.asked != u64::MAX,
            };
            at.parser.skipped(at.cx, at.direction, skipped);
        }
    }

    /// What was being read cannot be read to its end.
    fn lose(&mut self, at: &mut Place<'_, '_>, gap: Option<Gap>) {
        let kept = std::mem::take(&mut self.kept);
        let times = self.kept_times.take();
        self.lose_kept(at, &kept, times, gap);
    }

    fn lose_kept(&mut self, at: &mut Place<'_, '_>, kept: &[u8], times: Option<Times>, gap: Option<Gap>) {
        self.wanted = 0;
        // While searching, what is kept belongs to no message.
        let kept = if self.lost { &[] } else { kept };
        if !self.lost {
            self.lost = true;
            self.searched_bytes = 0;
        }
        let times = times.unwrap_or(Times { first_ns: at.time_ns, last_ns: at.time_ns });
        at.parser.lost(at.cx, at.direction, kept, times, gap);
    }

    fn within_limit(&mut self, at: &mut Place<'_, '_>, outcome: Outcome) -> Outcome {
        if self.kept.len() > at.protocol.message_bytes_max && !matches!(outcome, Outcome::Switch(_)) {
            self.waits = false;
            self.lose(at, None);
            *at.too_long += 1;
        }
        outcome
    }

    /// Lets the parser work on bytes, of which the first `older` were kept.
    fn parse(
        &mut self,
        at: &mut Place<'_, '_>,
        bytes: &[u8],
        older: usize,
        used: &mut usize,
        moved: bool,
    ) -> Outcome {
        let now = Times { first_ns: at.time_ns, last_ns: at.time_ns };
        let kept_times = self.kept_times.unwrap_or(now);
        let mut outcome = if moved { Outcome::Moved } else { Outcome::Same };
        self.wanted = 0;
        loop {
            let rest = bytes.get(*used..).unwrap_or_default();
            if rest.is_empty() {
                return outcome;
            }
            if self.lost {
                let found = at.parser.resync(at.direction, rest);
                let passed = match found {
                    Resync::At(start) => start,
                    Resync::Keep(tail) => rest.len().saturating_sub(tail),
                };
                if passed > 0 {
                    // There may have been messages in them.
                    at.parser.lost(at.cx, at.direction, &[], now, None);
                }
                match found {
                    Resync::At(start) => {
                        *used += start;
                        self.lost = false;
                    }
                    Resync::Keep(_) => {
                        *used += passed;
                        self.searched_bytes += passed as u64;
                        if self.searched_bytes > at.parser.search_bytes_max() {
                            return Outcome::Bypass(Why::NotUnderstood);
                        }
                        self.wanted = rest.len() - passed + 1;
                        return outcome;
                    }
                }
                continue;
            }
            let times = Times {
                first_ns: if *used < older { kept_times.first_ns } else { at.time_ns },
                last_ns: if older < bytes.len() { at.time_ns } else { kept_times.last_ns },
            };
            match at.parser.data(at.cx, at.direction, rest, times) {
                Step::Consumed(0) => {
                    self.wanted = rest.len() + 1;
                    return outcome;
                }
                Step::Consumed(count) => {
                    *used = (*used + count).min(bytes.len());
                    outcome = Outcome::Moved;
                }
                Step::NeedMore(wanted) => {
                    self.wanted = wanted.max(rest.len() + 1);
                    return outcome;
                }
                Step::Skip(length) => {
                    let here = length.min(rest.len() as u64);
                    *used += usize::try_from(here).unwrap_or(rest.len());
                    self.skip = Some(Skip { asked: length, left: length - here, passed: here, gap: None });
                    outcome = Outcome::Moved;
                    if length > here {
                        return outcome;
                    }
                    self.end_skip(at, false);
                }
                Step::WaitPeer => {
                    self.waits = true;
                    return outcome;
                }
                Step::Switch(count, next) => {
                    *used = (*used + count).min(bytes.len());
                    return Outcome::Switch(next);
                }
                Step::Bypass(why) => return Outcome::Bypass(why),
                Step::Desync => {
                    self.lose_kept(at, &[], Some(times), None);
                    // Not here again, or this would never end.
                    *used += 1;
                }
            }
        }
    }
}

/// What a lane works with.
pub(super) struct Place<'a, 'b> {
    pub(super) parser: &'a mut dyn Parser,
    pub(super) protocol: &'static Protocol,
    pub(super) cx: &'a mut Context<'b>,
    pub(super) direction: Direction,
    pub(super) time_ns: u64,
    /// Counts messages that were longer than the protocol's limit.
    pub(super) too_long: &'a mut u64,
}
