//! When order does not say what belongs together, because something is missing;
//! and what makes it say so again.
//!
//! A client that asks ahead, and of which one request was not seen, looks like
//! one that waits for its answers for as long as the two ends take turns: every
//! answer seems to be that to the request before it, and is that to an earlier
//! one. So that they take turns proves nothing by itself. What counts:
//!
//! - **Rounds.** Everything that was seen to be asked has its answer, and only
//!   then more is asked. If that is so many times in a row, the client is likely
//!   to wait: with one that asks ahead, sooner or later an answer comes to nothing
//!   that was seen, or a request too early. Only one that keeps just as many under
//!   way all the time never gives itself away, so this is never certain.
//! - **A pause.** After a round nothing is said for so long that what was not seen
//!   would have been answered as well. That is certain after some rounds, in which
//!   it was seen how long answers take.
//! - **What is known of the client.** One that was seen to wait, and never not to,
//!   before the loss, is likely to go on so; after many rounds, it is certain as
//!   soon as there was a pause or there are many rounds again. One that asks ahead
//!   is not known by its rounds.
//!
//! An answer to nothing that was asked proves that more was under way than was
//! seen: all that counted before is forgotten.

use crate::l7::Times;
use crate::record::Capture;

/// Rounds in a row after which pairs are likely.
const ROUNDS: u32 = 16;
/// How long nothing is said in a pause, at least,
const PAUSE_NS: u64 = 1_000_000_000;
/// and how many times as long as the slowest answer.
const PAUSE_ANSWERS: u64 = 10;
/// Rounds in a row that make pairs certain after a pause.
const ROUNDS_AND_PAUSE: u32 = 8;

/// How far it is known which answer a request will have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Something is missing, and by all that was seen since it will be the next one.
    /// The exchange has to say so: [`Trust::mark`].
    Likely,
    /// Nothing is missing that could matter.
    Certain,
}

impl Trust {
    /// How a pair is marked, where this is what is missing.
    #[must_use]
    pub fn mark(self, missing: Capture) -> Capture {
        match (self, missing) {
            (Self::Certain, _) => Capture::Complete,
            // All bytes are there, and some of them could not be read.
            (Self::Likely, Capture::Complete) => Capture::Truncated,
            (Self::Likely, missing) => missing,
        }
    }
}

/// What was seen of a client while nothing was missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Client {
    /// It had its answer before it asked again, so many times and every time.
    Waits(u32),
    /// It asked again before it had its answer. Once is enough, also in doubt.
    AsksAhead,
}

/// Since something was missed.
#[derive(Debug, Default)]
pub(super) struct Doubt {
    /// Requests that were seen, and have no answer.
    open: usize,
    /// An answer to one of them came since the last request.
    heard: bool,
    /// Rounds in a row.
    rounds: u32,
    /// There was a pause, and nothing since that speaks against it.
    paused: bool,
    /// Requests of this round are paired.
    pairs: bool,
    /// Nothing is missing: more was asked than there was room for.
    is_counted: bool,
    /// A request may have been lost, and have no answer yet.
    lost: bool,
    /// The client seemed not to wait for that one.
    suspect: bool,
    /// When the round began, if that was seen.
    round_ns: Option<u64>,
    /// When something was said last, if that was seen.
    last_ns: Option<u64>,
    /// The longest time from a round's beginning to an answer in it.
    slowest_ns: u64,
}

impl Doubt {
    /// With so many requests under way.
    pub(super) fn after_loss(open: usize) -> Self {
        Self { open, ..Self::default() }
    }

    /// With so many requests under way that there is no room for another one, which
    /// comes now.
    pub(super) fn of_full_queue(open: usize, times: Times) -> Self {
        let mut doubt = Self { open, is_counted: true, ..Self::default() };
        doubt.asked(times);
        doubt
    }

    /// Whether requests were seen that have no answer.
    pub(super) fn is_open(&self) -> bool {
        self.open > 0
    }

    /// Whether the answer to what was lost has not come, if that has one.
    pub(super) fn misses_answer(&self) -> bool {
        self.lost
    }

    /// Whether only answers are missing, and requests that wait were asked before.
    pub(super) fn is_of_answers(&self) -> bool {
        !self.pairs && !self.lost
    }

    /// A request: whether it can be paired.
    pub(super) fn ask(&mut self, times: Times, client: Client) -> Option<Trust> {
        let mut trust = Trust::Likely;
        if self.open == 0 {
            self.rounds += u32::from(self.heard);
            // What was lost may have no answer; otherwise the client does not wait.
            self.suspect |= std::mem::take(&mut self.lost);
            let (waits, has_always_waited) = match client {
                Client::Waits(rounds) if !self.suspect => (rounds > 0, rounds >= ROUNDS),
                _ => (false, false),
            };
            let is_pause = self.is_pause(times.first_ns);
            self.paused |= is_pause;
            let takes_turns = self.rounds >= ROUNDS && client != Client::AsksAhead;
            self.pairs = self.is_counted || self.paused || waits || takes_turns;
            let is_proven = is_pause && (has_always_waited || self.rounds >= ROUNDS_AND_PAUSE);
            if self.is_counted || is_proven || has_always_waited && takes_turns {
                trust = Trust::Certain;
            }
            self.round_ns = Some(times.first_ns);
        } else if self.heard && !self.paused {
            // Some have their answers, and others not: that is no round.
            (self.rounds, self.pairs) = (0, false);
        }
        self.asked(times);
        self.pairs.then_some(trust)
    }

    fn asked(&mut self, times: Times) {
        self.open += 1;
        self.heard = false;
        self.last_ns = self.last_ns.max(Some(times.last_ns));
    }

    fn is_pause(&self, now_ns: u64) -> bool {
        let Some(last_ns) = self.last_ns else { return false };
        now_ns.saturating_sub(last_ns) >= PAUSE_NS.max(self.slowest_ns.saturating_mul(PAUSE_ANSWERS))
    }

    /// The request that came now has no room, and no other one of its round either.
    pub(super) fn refuse(&mut self) {
        self.pairs = false;
    }

    /// An answer came.
    pub(super) fn answer(&mut self, time_ns: u64) {
        if self.open == 0 {
            // To something that was not seen.
            self.forget();
            self.lost = false;
        } else {
            self.open -= 1;
            self.heard = true;
            let began_ns = self.round_ns.unwrap_or(time_ns);
            self.slowest_ns = self.slowest_ns.max(time_ns.saturating_sub(began_ns));
        }
        self.last_ns = self.last_ns.max(Some(time_ns));
    }

    /// Bytes of requests are missing: `inside` of one that was seen, or else there
    /// may have been others in them.
    pub(super) fn lose_requests(&mut self, inside: bool) {
        self.forget();
        self.lost |= !inside;
    }

    /// Bytes of answers are missing: who waited for one has it.
    pub(super) fn lose_answers(&mut self) {
        self.forget();
        self.lost = false;
        self.open = 0;
        self.last_ns = None;
    }

    /// What was seen counts for nothing any more.
    fn forget(&mut self) {
        (self.heard, self.rounds, self.paused) = (false, 0, false);
        (self.pairs, self.is_counted) = (false, false);
    }
}
