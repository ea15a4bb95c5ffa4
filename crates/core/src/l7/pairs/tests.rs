use super::*;
use crate::l7::Times;

mod crowd;

const PAUSE_NS: u64 = 1_000_000_000;

/// A connection whose clock goes on by a microsecond with everything that is said.
struct Talk {
    fifo: Fifo<u32>,
    now_ns: u64,
}

impl Talk {
    fn new(fifo: Fifo<u32>) -> Self {
        Self { fifo, now_ns: 1_600_000_000_000_000_000 }
    }

    fn known() -> Self {
        Self::new(Fifo::new(4, false))
    }

    fn late() -> Self {
        Self::new(Fifo::new(4, true))
    }

    /// How far it is known which answer it will have.
    fn ask(&mut self, request: u32) -> Option<Trust> {
        self.now_ns += 1_000;
        self.fifo.ask(request, Times { first_ns: self.now_ns, last_ns: self.now_ns }).ok()
    }

    fn answer(&mut self) -> Option<u32> {
        self.now_ns += 1_000;
        self.fifo.answer(self.now_ns)
    }

    fn pause(&mut self, nanoseconds: u64) {
        self.now_ns += nanoseconds;
    }

    /// Requests that are each answered before the next one: how far each is known.
    fn rounds(&mut self, count: u32) -> Vec<Option<Trust>> {
        (0..count)
            .map(|request| {
                let trust = self.ask(request);
                assert_eq!(self.answer(), trust.map(|_| request));
                trust
            })
            .collect()
    }
}

const CERTAIN: Option<Trust> = Some(Trust::Certain);
const LIKELY: Option<Trust> = Some(Trust::Likely);

#[test]
fn answers_come_in_order() {
    let mut talk = Talk::known();
    assert_eq!((talk.ask(1), talk.ask(2)), (CERTAIN, CERTAIN));
    assert_eq!((talk.answer(), talk.answer(), talk.answer()), (Some(1), Some(2), None));
}

#[test]
fn requests_before_a_lost_one_keep_their_answers() {
    let mut talk = Talk::known();
    talk.rounds(1);
    talk.ask(1);
    talk.fifo.lose_requests(false);
    assert_eq!(talk.answer(), Some(1));
    assert_eq!(talk.answer(), None, "of the lost one");
    assert_eq!((talk.ask(3), talk.answer()), (LIKELY, Some(3)));
}

#[test]
fn a_request_right_after_a_lost_one_was_asked_ahead() {
    let mut talk = Talk::known();
    talk.rounds(1);
    talk.fifo.lose_requests(false);
    assert_eq!(talk.ask(2), None);
    assert_eq!((talk.answer(), talk.answer()), (None, None));
    assert_eq!(talk.rounds(40), [None; 40], "such a client may have asked more than was seen");
    talk.pause(PAUSE_NS);
    assert_eq!(talk.ask(3), CERTAIN);
}

#[test]
fn a_client_that_waits_is_trusted_again_after_a_lost_answer() {
    let mut talk = Talk::known();
    talk.rounds(1);
    talk.ask(2);
    assert_eq!(talk.fifo.lose_answers(), [2]);
    assert_eq!(talk.rounds(18), [LIKELY; 18], "it did so once only");
    talk.pause(PAUSE_NS);
    assert_eq!(talk.rounds(1), [CERTAIN]);
}

#[test]
fn a_client_that_was_often_seen_to_wait_is_certain_to_do_so() {
    let mut talk = Talk::known();
    talk.rounds(16);
    talk.fifo.lose_answers();
    assert_eq!(talk.rounds(18), [[LIKELY; 16].as_slice(), &[CERTAIN; 2]].concat());
    talk.fifo.lose_answers();
    assert_eq!(talk.rounds(1), [LIKELY]);
    talk.pause(PAUSE_NS);
    assert_eq!(talk.rounds(1), [CERTAIN]);
}

#[test]
fn a_client_that_asks_ahead_is_not_before_a_pause() {
    let mut talk = Talk::known();
    talk.ask(1);
    talk.ask(2);
    assert_eq!(talk.fifo.lose_answers(), [1, 2]);
    assert_eq!(talk.answer(), None);
    assert_eq!(talk.rounds(40), [None; 40]);
    talk.pause(PAUSE_NS);
    assert_eq!((talk.ask(1), talk.ask(2), talk.answer(), talk.ask(3)), (CERTAIN, CERTAIN, Some(1), CERTAIN));
}

#[test]
fn a_client_of_which_nothing_is_known_is_not_trusted() {
    let mut talk = Talk::known();
    // Of those that it asks ahead the first are lost.
    talk.fifo.lose_requests(false);
    assert_eq!(talk.answer(), None);
    assert_eq!(talk.rounds(17), [[None; 16].as_slice(), &[LIKELY]].concat());
}

#[test]
fn a_late_join_pairs_after_many_rounds_and_is_certain_after_a_pause() {
    let mut talk = Talk::late();
    assert_eq!(talk.rounds(20), [[None; 16].as_slice(), &[LIKELY; 4]].concat());
    talk.pause(PAUSE_NS);
    assert_eq!(talk.rounds(20), [CERTAIN; 20]);
}

#[test]
fn a_late_join_pairs_after_a_pause_and_is_certain_after_some_rounds_and_another() {
    let mut talk = Talk::late();
    talk.pause(PAUSE_NS);
    assert_eq!(talk.rounds(2), [None; 2], "nothing was heard before the pause");
    talk.pause(PAUSE_NS);
    assert_eq!(talk.rounds(9), [LIKELY; 9]);
    talk.pause(PAUSE_NS);
    assert_eq!(talk.rounds(2), [CERTAIN; 2]);
}

#[test]
fn a_pause_is_longer_than_any_answer_takes() {
    let mut talk = Talk::late();
    talk.rounds(1);
    talk.ask(1);
    talk.pause(200_000_000);
    assert_eq!(talk.answer(), None);
    talk.pause(1_999_000_000);
    assert_eq!(talk.rounds(1), [None]);
    talk.pause(2_100_000_000);
    assert_eq!(talk.rounds(1), [LIKELY]);
}

#[test]
fn what_is_asked_ahead_after_a_pause_is_paired() {
    let mut talk = Talk::late();
    talk.rounds(1);
    talk.pause(PAUSE_NS);
    assert_eq!((talk.ask(1), talk.ask(2), talk.answer(), talk.ask(3)), (LIKELY, LIKELY, Some(1), LIKELY));
    assert_eq!((talk.answer(), talk.answer(), talk.ask(4)), (Some(2), Some(3), LIKELY));
}

#[test]
fn an_answer_too_many_ends_all_trust() {
    let mut talk = Talk::late();
    talk.rounds(1);
    talk.pause(PAUSE_NS);
    assert_eq!(talk.rounds(10), [LIKELY; 10]);
    assert_eq!(talk.answer(), None);
    talk.pause(PAUSE_NS / 2);
    assert_eq!(talk.rounds(17), [[None; 16].as_slice(), &[LIKELY]].concat());
}

#[test]
fn a_late_client_that_asks_ahead_is_not_known_by_its_rounds() {
    let mut talk = Talk::late();
    // Always one that was not seen, and once two.
    talk.ask(1);
    talk.ask(2);
    talk.answer();
    talk.answer();
    assert_eq!(talk.rounds(40), [None; 40]);
}

#[test]
fn what_only_seems_to_be_asked_ahead_is_forgiven() {
    let mut talk = Talk::new(Fifo::new(4, false).forgiving());
    talk.rounds(1);
    // Lost is a request that has no answer.
    talk.fifo.lose_requests(false);
    assert_eq!(talk.rounds(17), [[None; 16].as_slice(), &[LIKELY]].concat());
}

#[test]
fn what_was_asked_ahead_is_not_forgiven() {
    let mut talk = Talk::new(Fifo::new(4, false).forgiving());
    talk.ask(1);
    talk.ask(2);
    assert_eq!((talk.answer(), talk.answer()), (Some(1), Some(2)));
    talk.fifo.lose_requests(false);
    assert_eq!(talk.rounds(40), [None; 40]);
}

#[test]
fn a_full_queue_pairs_what_is_in_it_and_all_that_comes_after_a_round() {
    let mut talk = Talk::known();
    for request in 0..4 {
        assert_eq!(talk.ask(request), CERTAIN);
    }
    assert_eq!(talk.ask(4), None);
    assert_eq!((0..5).map_while(|_| talk.answer()).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!(talk.ask(5), CERTAIN, "nothing is missing");
    for request in 6..9 {
        talk.ask(request);
    }
    assert_eq!((talk.ask(9), talk.answer(), talk.ask(10)), (None, Some(5), None));
    talk.fifo.lose_requests(false);
    while talk.answer().is_some() {}
    assert_eq!(talk.rounds(40), [None; 40], "now something is");
}
