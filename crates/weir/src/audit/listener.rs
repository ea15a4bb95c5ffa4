//! The thread that reads requests out of payload.

use std::collections::VecDeque;

use crossbeam_channel::{Receiver, Sender, bounded};
use weir_core::capture::PayloadSeen;
use weir_core::l7::{Engine, Found, Tally};
use weir_kernel::{Captures, PayloadListener};

use super::{FlowNews, RequestsFound};
use crate::notice;

/// So many requests, and no more, are handed on at once: batches are queued by their number, and those of
/// pipelines would be many times as large as others.
const BATCH_REQUESTS: usize = 2048;
/// Batches that come back.
const BATCHES_USED: usize = 4;

/// Reads payload as it comes out of the ring, in place: nothing is copied that the
/// parsers do not keep.
pub(crate) struct Listener {
    engine: Engine,
    news: Receiver<FlowNews>,
    /// News of what has not been read yet.
    waiting: VecDeque<FlowNews>,
    /// When the last payload passed that was read.
    seen_ns: u64,
    found: Vec<Found>,
    /// The sums that were delivered last.
    told: Tally,
    deliver: Sender<RequestsFound>,
    /// What was delivered comes back, to be used again.
    used: (Sender<Vec<Found>>, Receiver<Vec<Found>>),
    /// The kernel refused once to be told what is wanted, and the user knows.
    refused: bool,
}

impl Listener {
    pub(super) fn new(engine: Engine, news: Receiver<FlowNews>, deliver: Sender<RequestsFound>) -> Self {
        Self {
            engine,
            news,
            waiting: VecDeque::new(),
            seen_ns: 0,
            found: Vec::new(),
            told: Tally::default(),
            deliver,
            used: bounded(BATCHES_USED),
            refused: false,
        }
    }

    /// What the flow table says counts when everything has been read that passed before it was said; all
    /// of it does, if nothing is left in the ring.
    fn take_news(&mut self, all: bool, captures: Option<&Captures>) {
        let Self { engine, news, waiting, seen_ns, found, .. } = self;
        waiting.extend(news.try_iter());
        let mut emit = |one| found.push(one);
        while let Some(one) = waiting.front().copied().filter(|one| all || one.told_ns < *seen_ns) {
            waiting.pop_front();
            engine.flow_came_to(&one.key, one.first_ns, one.next_seq, &mut emit);
            if one.is_over {
                let forgotten = engine.flow_ended(&one.key, one.first_ns, &mut emit);
                if let Some(captures) = captures.filter(|_| forgotten) {
                    // It may not be there; if it cannot be removed, it means no other connection.
                    let _ = captures.forget(&one.key);
                }
            }
        }
    }

    fn hand_on(&mut self) {
        let tally = self.engine.tally();
        if self.found.is_empty() && *tally == self.told {
            return;
        }
        self.told = tally.clone();
        let (give_back, used) = &self.used;
        let mut next = used.try_recv().unwrap_or_default();
        next.drain(..).for_each(|one| one.exchange.give_back());
        let found = std::mem::replace(&mut self.found, next);
        let found = RequestsFound { found, tally: self.told.clone(), used: give_back.clone() };
        // The pipeline hangs up only when it has read everything.
        let _ = self.deliver.send(found);
    }
}

impl PayloadListener for Listener {
    fn payload(&mut self, seen: &PayloadSeen<'_>, captures: &Captures) {
        let Self { engine, seen_ns, found, refused, .. } = self;
        *seen_ns = seen.seen.time_ns;
        engine.payload(seen, &mut |one| found.push(one));
        for (key, wanted) in engine.take_wanted() {
            let nothing_less =
                !wanted.off && wanted.skip_until_seq == [None; 2] && wanted.frames == [None; 2];
            let told = if nothing_less { captures.forget(&key) } else { captures.want(&key, &wanted) };
            if let Err(error) = told
                && !std::mem::replace(refused, true)
            {
                notice(&format!("{error}; more is copied than is needed"));
            }
        }
        if self.found.len() >= BATCH_REQUESTS {
            self.hand_on();
        }
    }

    fn rest(&mut self, captures: &Captures) {
        self.take_news(false, Some(captures));
        self.hand_on();
    }

    fn idle(&mut self, captures: &Captures) {
        self.take_news(true, Some(captures));
        self.hand_on();
    }

    fn finish(&mut self) {
        self.take_news(true, None);
        let Self { engine, found, .. } = self;
        engine.finish(&mut |one| found.push(one));
        self.hand_on();
    }
}
