//! Which answer belongs to which request.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use foldhash::fast::RandomState;

/// For protocols that answer in the order of the requests.
///
/// Order alone pairs only as long as nothing is missing. After a loss, and after
/// joining a connection late, requests are refused ([`Fifo::ask`] gives them
/// back) until the client is seen to ask when everything was answered. That is
/// proof only for clients that wait for their answers: on a connection where one
/// was ever seen to ask ahead (pipelining), nothing is paired any more after a
/// loss, because answers of requests that were never seen could still be on
/// their way.
#[derive(Debug)]
pub struct Fifo<T> {
    pending: VecDeque<T>,
    pending_max: usize,
    doubt: Option<Doubt>,
    /// The client asked again before it had its answer.
    asks_ahead: bool,
    /// The client was seen to wait for an answer.
    waits: bool,
    /// The last request that waits was lost in part, and nothing came since.
    lost_inside: bool,
    forgiving: bool,
    /// Since a loss the client seems to ask ahead.
    suspicion: Option<Suspicion>,
}

/// Requests in a row, each answered alone, after which a client is believed again
/// to wait; see [`Fifo::forgiving`].
const ANSWERED_ALONE: u64 = 3;

/// Since the last loss.
#[derive(Debug, Default)]
struct Doubt {
    /// Requests that were refused, or that may have been lost.
    asked: u64,
    /// Answers.
    answered: u64,
}

/// Whether requests and answers take turns.
#[derive(Debug, Default)]
struct Suspicion {
    /// Requests in a row that came after exactly one answer.
    alone: u64,
    /// Answers since the last request.
    answers: u64,
}

impl Suspicion {
    /// A request: whether there have been enough by now.
    fn ask(&mut self) -> bool {
        self.alone = if self.answers == 1 { self.alone + 1 } else { 0 };
        self.answers = 0;
        self.alone >= ANSWERED_ALONE
    }
}

impl<T> Fifo<T> {
    /// For a connection that was joined `late` or not; with room for so many
    /// requests without an answer.
    #[must_use]
    pub fn new(pending_max: usize, late: bool) -> Self {
        let doubt = late.then(Doubt::default);
        Self {
            pending: VecDeque::new(),
            pending_max,
            doubt,
            asks_ahead: false,
            waits: false,
            lost_inside: false,
            forgiving: false,
            suspicion: None,
        }
    }

    /// For a protocol with requests that have no answer, and clients that hardly
    /// ever ask ahead. If one of those requests is lost, the next one looks as if
    /// it was asked ahead. That is not held against the client for ever: a few
    /// requests, each answered before the next one, and it is paired again. As
    /// after a late join, one that keeps exactly one request ahead all the time
    /// cannot be told from one that waits, if it began to just then; one that was
    /// seen to ask ahead before the loss is not forgiven.
    #[must_use]
    pub fn forgiving(self) -> Self {
        Self { forgiving: true, ..self }
    }

    /// A request begins. It is given back if it cannot be known which answer
    /// will be its own.
    ///
    /// # Errors
    /// The request.
    pub fn ask(&mut self, request: T) -> Result<(), T> {
        if let Some(doubt) = &mut self.doubt {
            let seems_ahead = doubt.asked > doubt.answered;
            let believed = match &mut self.suspicion {
                Some(suspicion) => suspicion.ask(),
                None if seems_ahead && self.forgiving => {
                    self.suspicion = Some(Suspicion::default());
                    false
                }
                None => {
                    self.asks_ahead |= seems_ahead;
                    doubt.answered > 0 && doubt.asked <= doubt.answered
                }
            };
            if !believed || self.asks_ahead || !self.pending.is_empty() {
                doubt.asked += 1;
                return Err(request);
            }
            self.doubt = None;
            self.suspicion = None;
        }
        self.asks_ahead |= !self.pending.is_empty();
        if self.pending.len() >= self.pending_max {
            // The oldest can be told apart no more than this one.
            self.doubt = Some(Doubt { asked: 1, answered: 0 });
            return Err(request);
        }
        self.pending.push_back(request);
        Ok(())
    }

    /// An answer has come whole: the request that it belongs to.
    pub fn answer(&mut self) -> Option<T> {
        let request = self.pending.pop_front();
        self.waits |= request.is_some() && self.pending.is_empty() && !self.asks_ahead;
        if let Some(suspicion) = &mut self.suspicion {
            suspicion.answers += 1;
        }
        if let Some(doubt) = &mut self.doubt {
            // The answer to a request from before the loss proves as much as
            // any other that the client has waited.
            doubt.answered += 1;
            doubt.asked += u64::from(request.is_some());
        }
        request
    }

    /// The request that the next answer belongs to.
    #[must_use]
    pub fn front(&self) -> Option<&T> {
        self.pending.front()
    }

    /// The same, to be changed.
    pub fn front_mut(&mut self) -> Option<&mut T> {
        self.pending.front_mut()
    }

    /// The request that was accepted last.
    pub fn back_mut(&mut self) -> Option<&mut T> {
        self.pending.back_mut()
    }

    /// How many requests wait for their answer.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pending.len()
    }

    /// Whether no request waits for its answer.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Bytes of requests are missing; those that wait keep their answers.
    /// `inside`: the loss began inside of the last request, so there may be no
    /// other one in it; nor in further losses before that one is answered.
    pub fn lose_requests(&mut self, inside: bool) {
        let inside = !self.pending.is_empty() && (inside || self.lost_inside);
        self.lost_inside = inside;
        self.suspicion = self.suspicion.take().map(|_| Suspicion::default());
        self.doubt = Some(Doubt { asked: u64::from(!inside), answered: 0 });
    }

    /// Bytes of answers are missing: no request that waits can be paired.
    /// They are given back.
    pub fn lose_answers(&mut self) -> Vec<T> {
        let unpaired: Vec<T> = self.pending.drain(..).collect();
        self.suspicion = self.suspicion.take().map(|_| Suspicion::default());
        // A client that always waited has its answer when it asks again.
        let answered = u64::from(self.waits && !self.asks_ahead);
        match &mut self.doubt {
            Some(doubt) => doubt.answered += answered,
            None => self.doubt = Some(Doubt { asked: 0, answered }),
        }
        unpaired
    }

    /// Everything that still waits, because nothing more will come.
    pub fn drain(&mut self) -> Vec<T> {
        self.pending.drain(..).collect()
    }
}

/// For protocols whose answers carry their request's number.
#[derive(Debug)]
pub struct Keyed<K, T> {
    pending: HashMap<K, (u64, T), RandomState>,
    order: VecDeque<(u64, K)>,
    next: u64,
    pending_max: usize,
}

impl<K: Hash + Eq + Clone, T> Keyed<K, T> {
    /// With room for so many requests without an answer.
    #[must_use]
    pub fn new(pending_max: usize) -> Self {
        Self { pending: HashMap::default(), order: VecDeque::new(), next: 0, pending_max: pending_max.max(1) }
    }

    /// A request; gives back one that will not be paired any more: an older one
    /// with this key, or the oldest of all when there are too many.
    pub fn ask(&mut self, key: K, request: T) -> Option<T> {
        let number = self.next;
        self.next += 1;
        let mut dropped = self.pending.insert(key.clone(), (number, request)).map(|(_, older)| older);
        self.order.push_back((number, key));
        while self.pending.len() > self.pending_max {
            let Some((number, key)) = self.order.pop_front() else { break };
            if self.pending.get(&key).is_some_and(|(current, _)| *current == number) {
                dropped = self.pending.remove(&key).map(|(_, oldest)| oldest);
            }
        }
        if self.order.len() > 2 * self.pending_max {
            let pending = &self.pending;
            self.order.retain(|(number, key)| pending.get(key).is_some_and(|(current, _)| current == number));
        }
        dropped
    }

    /// An answer: the request that it belongs to.
    pub fn answer(&mut self, key: &K) -> Option<T> {
        self.pending.remove(key).map(|(_, request)| request)
    }

    /// The request that waits under this key.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&T> {
        self.pending.get(key).map(|(_, request)| request)
    }

    /// The request that waits under this key.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut T> {
        self.pending.get_mut(key).map(|(_, request)| request)
    }

    /// Whether a request waits under this key.
    #[must_use]
    pub fn contains(&self, key: &K) -> bool {
        self.pending.contains_key(key)
    }

    /// How many requests wait for their answer.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pending.len()
    }

    /// Whether no request waits for its answer.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Everything that still waits, in the order of asking.
    pub fn drain(&mut self) -> Vec<T> {
        let pending = &mut self.pending;
        let in_order = self.order.drain(..).filter_map(|(number, key)| {
            let current = pending.get(&key).is_some_and(|(current, _)| *current == number);
            if current { pending.remove(&key).map(|(_, request)| request) } else { None }
        });
        in_order.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fifo() -> Fifo<u32> {
        Fifo::new(4, false)
    }

    #[test]
    fn answers_come_in_order() {
        let mut fifo = fifo();
        assert_eq!((fifo.ask(1), fifo.ask(2)), (Ok(()), Ok(())));
        assert_eq!((fifo.answer(), fifo.answer(), fifo.answer()), (Some(1), Some(2), None));
    }

    #[test]
    fn requests_before_a_lost_one_keep_their_answers() {
        let mut fifo = fifo();
        fifo.ask(1).unwrap();
        fifo.lose_requests(false);
        assert_eq!(fifo.answer(), Some(1));
        assert_eq!(fifo.answer(), None, "of the lost one");
        assert_eq!(fifo.ask(3), Ok(()), "after an idle moment");
        assert_eq!(fifo.answer(), Some(3));
    }

    #[test]
    fn a_request_right_after_a_lost_one_was_asked_ahead() {
        let mut fifo = fifo();
        fifo.lose_requests(false);
        assert_eq!(fifo.ask(2), Err(2));
        assert_eq!((fifo.answer(), fifo.answer()), (None, None));
        assert_eq!(fifo.ask(3), Err(3), "such a client may have asked more than was seen");
    }

    #[test]
    fn a_client_that_waits_is_trusted_again_after_a_lost_answer() {
        let mut fifo = fifo();
        fifo.ask(1).unwrap();
        fifo.answer().unwrap();
        fifo.ask(2).unwrap();
        assert_eq!(fifo.lose_answers(), [2]);
        assert_eq!(fifo.ask(3), Ok(()));
        assert_eq!(fifo.answer(), Some(3));
    }

    #[test]
    fn a_client_that_asks_ahead_is_not() {
        let mut fifo = fifo();
        fifo.ask(1).unwrap();
        fifo.ask(2).unwrap();
        assert_eq!(fifo.lose_answers(), [1, 2]);
        assert_eq!(fifo.answer(), None);
        assert_eq!(fifo.ask(3), Err(3));
    }

    #[test]
    fn a_late_join_pairs_after_the_first_idle_moment() {
        let mut fifo = Fifo::new(4, true);
        assert_eq!(fifo.ask(1), Err(1), "there may be older requests");
        assert_eq!(fifo.answer(), None);
        assert_eq!(fifo.ask(2), Ok(()));
        assert_eq!(fifo.answer(), Some(2));
    }

    #[test]
    fn what_only_seems_to_be_asked_ahead_is_forgiven() {
        let mut fifo = fifo().forgiving();
        fifo.ask(1).unwrap();
        fifo.answer().unwrap();
        // Lost is a request that has no answer.
        fifo.lose_requests(false);
        for request in 2..5 {
            assert_eq!(fifo.ask(request), Err(request));
            assert_eq!(fifo.answer(), None);
        }
        assert_eq!((fifo.ask(5), fifo.answer()), (Ok(()), Some(5)));
    }

    #[test]
    fn what_was_asked_ahead_is_not_forgiven() {
        let mut fifo = fifo().forgiving();
        fifo.ask(1).unwrap();
        fifo.ask(2).unwrap();
        assert_eq!((fifo.answer(), fifo.answer()), (Some(1), Some(2)));
        fifo.lose_requests(false);
        for request in 3..9 {
            assert_eq!(fifo.ask(request), Err(request));
            assert_eq!(fifo.answer(), None);
        }
        let mut fifo = Fifo::new(4, true).forgiving();
        for request in 0..9 {
            // Two at a time: never alone.
            assert_eq!((fifo.ask(request), fifo.ask(request)), (Err(request), Err(request)));
            assert_eq!((fifo.answer(), fifo.answer()), (None, None));
        }
    }

    #[test]
    fn a_full_queue_pairs_what_is_in_it_and_no_more() {
        let mut fifo = fifo();
        for request in 0..4 {
            fifo.ask(request).unwrap();
        }
        assert_eq!(fifo.ask(4), Err(4));
        assert_eq!((0..5).map_while(|_| fifo.answer()).collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!(fifo.ask(5), Err(5));
    }

    #[test]
    fn keys_tell_which() {
        let mut keyed = Keyed::new(2);
        assert_eq!(keyed.ask(7, "a"), None);
        assert_eq!(keyed.ask(7, "b"), Some("a"), "asked again");
        assert_eq!(keyed.ask(8, "c"), None);
        assert_eq!(keyed.ask(9, "d"), Some("b"), "no room");
        assert_eq!((keyed.answer(&9), keyed.answer(&7)), (Some("d"), None));
        assert_eq!(keyed.drain(), ["c"]);
        for key in 0..100 {
            keyed.ask(key, "e");
            keyed.answer(&key);
        }
        assert!(keyed.order.len() <= 4 && keyed.is_empty());
    }
}
