//! Threads that share a connection, asking ahead of each other, seen from some
//! moment on, or with losses.

use super::*;

/// Enough to shuffle with, and always the same.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound.max(1)
    }

    fn time(&mut self, mean_ns: u64, how: Spread) -> u64 {
        let time_ns = match how {
            Spread::None => mean_ns,
            Spread::Little => mean_ns * 9 / 10 + self.below(mean_ns / 5 + 1),
            Spread::Exponential => {
                let share = (self.below(1 << 30) + 1) as f64 / f64::from(1 << 30);
                (-share.ln() * mean_ns as f64) as u64
            }
            Spread::RarelyLong if self.below(20) == 0 => mean_ns * 300,
            Spread::RarelyLong => mean_ns / 2 + self.below(mean_ns),
        };
        time_ns.max(1)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spread {
    None,
    Little,
    Exponential,
    RarelyLong,
}

const SPREADS: [Spread; 4] = [Spread::None, Spread::Little, Spread::Exponential, Spread::RarelyLong];

/// Who asks, and how long it all takes.
#[derive(Debug)]
struct Crowd {
    /// Each asks, waits for its answers, and thinks.
    threads: u64,
    /// Up to so many requests at a time.
    burst: u64,
    think_ns: u64,
    thinks: Spread,
    service_ns: u64,
    serves: Spread,
    /// From one end to the other; captured are both ways after so many tenths of it.
    way_ns: u64,
    place: u64,
}

/// In the order in which they pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Passing {
    time_ns: u64,
    is_answer: bool,
    number: u64,
}

impl Crowd {
    /// Every kind of it, with servers that need up to 100 ms for an answer (and, if
    /// rarely, 30 s).
    fn every(threads: u64, burst: u64) -> impl Iterator<Item = Self> {
        SPREADS.into_iter().flat_map(move |thinks| {
            SPREADS.into_iter().flat_map(move |serves| {
                [1_000, 50_000, 1_000_000, 100_000_000].into_iter().flat_map(move |service_ns| {
                    [1, 10, 50, 110, 1_000, 100_000].into_iter().flat_map(move |load| {
                        [(1_000, 5), (100_000, 0), (20_000_000, 10)].into_iter().map(
                            move |(way_ns, place)| {
                                let think_ns = service_ns * load / 100 * threads;
                                Self { threads, burst, think_ns, thinks, service_ns, serves, way_ns, place }
                            },
                        )
                    })
                })
            })
        })
    }

    /// What passes until so many requests have been asked.
    fn passing(&self, requests: u64, random: &mut Random) -> Vec<Passing> {
        let mut passing = Vec::new();
        let mut asks_ns: Vec<u64> =
            (0..self.threads).map(|_| random.time(self.think_ns, self.thinks)).collect();
        let (mut idle_ns, mut number) = (0_u64, 0);
        while number < requests {
            let thread = (0..asks_ns.len()).min_by_key(|thread| asks_ns[*thread]).unwrap();
            let asked_ns = asks_ns[thread];
            for _ in 0..=random.below(self.burst) {
                let time_ns = asked_ns + self.way_ns * self.place / 10;
                passing.push(Passing { time_ns, is_answer: false, number });
                idle_ns = idle_ns.max(asked_ns + self.way_ns) + random.time(self.service_ns, self.serves);
                let time_ns = idle_ns + self.way_ns * (10 - self.place) / 10;
                passing.push(Passing { time_ns, is_answer: true, number });
                number += 1;
            }
            asks_ns[thread] = idle_ns + self.way_ns + random.time(self.think_ns, self.thinks);
        }
        passing.sort();
        passing
    }
}

/// How many were asked and paired; of those that were said to be likely, and certain.
#[derive(Debug, Default)]
struct Score {
    asked: u64,
    right: [u64; 2],
    wrong: [u64; 2],
}

impl Score {
    /// What is said of `passing`, of which one in `losses` is lost.
    fn add(&mut self, fifo: Fifo<u64>, passing: &[Passing], losses: Option<u64>, random: &mut Random) {
        let mut fifo = fifo;
        let mut trusts = Vec::new();
        let mut lost = [false; 2];
        for Passing { time_ns, is_answer, number } in passing.iter().copied() {
            self.asked += u64::from(!is_answer);
            if losses.is_some_and(|losses| random.below(losses) == 0) {
                lost[usize::from(is_answer)] = true;
                continue;
            }
            if std::mem::take(&mut lost[0]) {
                fifo.lose_requests(false);
            }
            if std::mem::take(&mut lost[1]) {
                fifo.lose_answers();
            }
            if !is_answer {
                let trust = fifo.ask(number, Times { first_ns: time_ns, last_ns: time_ns });
                trusts.extend(trust.ok().map(|trust| (number, trust)));
            } else if let Some(asked) = fifo.answer(time_ns) {
                let place = trusts.binary_search_by_key(&asked, |(number, _)| *number).unwrap();
                let count = if asked == number { &mut self.right } else { &mut self.wrong };
                count[usize::from(trusts[place].1 == Trust::Certain)] += 1;
            }
        }
    }
}

/// Each of these, joined late at some moment; and, from there on, with losses.
fn joined_late(crowds: impl Iterator<Item = Crowd>, losses: Option<u64>) -> Score {
    let mut random = Random(1);
    let mut score = Score::default();
    for crowd in crowds {
        let passing = crowd.passing(100, &mut random);
        let from = random.below(passing.len() as u64 / 2) as usize;
        let before = score.wrong[1];
        score.add(Fifo::new(1_024, true), &passing[from..], losses, &mut random);
        assert_eq!(score.wrong[1], before, "{crowd:?} from {from} on");
    }
    score
}

#[test]
fn of_those_that_ask_ahead_nothing_is_certain_that_is_wrong() {
    for losses in [None, Some(30)] {
        for (threads, burst) in [(2, 1), (3, 1), (8, 1), (16, 1), (4, 4)] {
            let score = joined_late(Crowd::every(threads, burst), losses);
            assert!(score.right[1] > 0, "{threads} threads: {score:?}");
        }
    }
}

/// As far as chance has a part in when they ask and are answered.
#[test]
fn of_those_that_ask_ahead_by_chance_hardly_anything_is_likely_that_is_wrong() {
    let by_chance = |crowd: &Crowd| {
        let is_random = |spread| matches!(spread, Spread::Exponential | Spread::RarelyLong);
        is_random(crowd.thinks) && crowd.serves == Spread::Exponential && crowd.think_ns > crowd.service_ns
    };
    for threads in [3, 8, 16] {
        let score = joined_late(Crowd::every(threads, 1).filter(by_chance), None);
        assert!(score.wrong[0] * 20 < score.right[0] + score.right[1], "{threads} threads: {score:?}");
    }
}

#[test]
fn those_that_wait_are_paired_soon() {
    let score = joined_late(Crowd::every(1, 1), None);
    assert_eq!(score.wrong, [0, 0]);
    assert!((score.right[0] + score.right[1]) * 5 > score.asked * 4, "{score:?}");
    // Up to 16 at a time, and nothing more before all of them are answered.
    let score = joined_late(Crowd::every(1, 16), None);
    assert_eq!(score.wrong, [0, 0]);
}

#[test]
fn after_losses_nothing_is_certain_that_is_wrong() {
    let mut random = Random(1);
    for (threads, burst) in [(1, 16), (2, 1), (3, 1), (8, 1), (4, 4), (1, 1)] {
        let mut score = Score::default();
        for crowd in Crowd::every(threads, burst) {
            let passing = crowd.passing(100, &mut random);
            let before = score.wrong[1];
            score.add(Fifo::new(1_024, false), &passing, Some(50), &mut random);
            assert_eq!(score.wrong[1], before, "{crowd:?}");
        }
        let paired = score.right[0] + score.right[1];
        assert!(score.wrong[0] * 100 < paired, "{threads} threads: {score:?}");
        assert!(threads * burst > 1 || score.wrong[0] == 0 && paired * 10 > score.asked * 9, "{score:?}");
    }
}
