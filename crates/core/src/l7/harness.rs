//! The properties that every parser must have, for its tests.
//!
//! A dialogue is what two ends say in turn. [`check`] plays it whole, cut in
//! any way, interleaved, broken off and with holes, and compares.

mod ahead;

use std::collections::BTreeSet;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use smol_str::SmolStr;

use super::conversation::Conversation;
use super::{Direction, End, Exchange, Gap, Protocol, Tally, Transport};
use crate::flow::Side;
use crate::reveal::Reveal;
pub(super) use ahead::check_asking_ahead;

const CLIENT: Side = Side::High;
const PAUSE_NS: u64 = 2_000_000_000;

/// What one end says before the other one's turn.
#[derive(Debug, Clone)]
pub(super) struct Turn {
    direction: Direction,
    bytes: Vec<u8>,
}

impl Turn {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn direction(&self) -> Direction {
        self.direction
    }
}

pub(super) fn ask(bytes: impl AsRef<[u8]>) -> Turn {
    Turn { direction: Direction::ToServer, bytes: bytes.as_ref().to_vec() }
}

pub(super) fn answer(bytes: impl AsRef<[u8]>) -> Turn {
    Turn { direction: Direction::ToClient, bytes: bytes.as_ref().to_vec() }
}

/// Something that happens on the wire.
enum Step<'a> {
    Data(Direction, &'a [u8]),
    Gap(Direction, u64),
}

/// One conversation over TCP, from its beginning.
pub(super) struct Played {
    conversation: Conversation,
    tally: Tally,
    pub(super) exchanges: Vec<Exchange>,
    time_ns: u64,
}

impl Played {
    pub(super) fn new(protocol: &'static Protocol) -> Self {
        Self::with_opener(protocol, Some(CLIENT))
    }

    /// Joined late: nobody was seen to open it.
    pub(super) fn late(protocol: &'static Protocol) -> Self {
        Self::with_opener(protocol, None)
    }

    fn with_opener(protocol: &'static Protocol, client: Option<Side>) -> Self {
        let ports = [protocol.ports.first().copied().unwrap_or(9), 43_122];
        Self {
            conversation: Conversation::new(Transport::Tcp, ports, client),
            tally: Tally::default(),
            exchanges: Vec::new(),
            time_ns: 0,
        }
    }

    /// The same, in which this may be shown.
    pub(super) fn revealing(mut self, reveal: Reveal) -> Self {
        self.conversation = self.conversation.revealing(reveal);
        self
    }

    /// From now on everything happens at this time.
    pub(super) fn at(&mut self, time_ns: u64) -> &mut Self {
        self.time_ns = time_ns;
        self
    }

    /// Nothing is said for so long that everything would be answered.
    pub(super) fn pause(&mut self) -> &mut Self {
        self.at(self.time_ns + PAUSE_NS)
    }

    pub(super) fn data(&mut self, direction: Direction, bytes: &[u8]) -> &mut Self {
        let Self { conversation, tally, exchanges, time_ns } = self;
        conversation.data(side(direction), bytes, *time_ns, tally, &mut |_, _, one| exchanges.push(*one));
        self
    }

    /// As many of these bytes as need not be seen are left out: how many.
    fn left_out(&mut self, direction: Direction, bytes: &[u8]) -> usize {
        let Self { conversation, tally, exchanges, time_ns } = self;
        let skips = conversation.skip_left(side(direction)).unwrap_or(0);
        let length = skips.min(bytes.len() as u64);
        if length > 0 {
            let mut emit = |_: &'static str, _, one: Box<Exchange>| exchanges.push(*one);
            conversation.left_out(side(direction), length, *time_ns, tally, &mut emit);
        }
        usize::try_from(length).unwrap_or(bytes.len())
    }

    pub(super) fn gap(&mut self, direction: Direction, length: u64, gap: Gap) -> &mut Self {
        let Self { conversation, tally, exchanges, time_ns } = self;
        let mut emit = |_: &'static str, _, one: Box<Exchange>| exchanges.push(*one);
        conversation.gap(side(direction), length, gap, *time_ns, tally, &mut emit);
        self
    }

    pub(super) fn end(&mut self, direction: Direction, end: End) -> &mut Self {
        let Self { conversation, tally, exchanges, time_ns } = self;
        conversation.end(side(direction), end, *time_ns, tally, &mut |_, _, one| exchanges.push(*one));
        self
    }

    /// Both ends are done.
    pub(super) fn finish(&mut self, end: End) -> &mut Self {
        self.end(Direction::ToServer, end).end(Direction::ToClient, end);
        let Self { conversation, tally, exchanges, .. } = self;
        conversation.finish(tally, &mut |_, _, one| exchanges.push(*one));
        self
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.conversation.memory_bytes()
    }

    pub(super) fn turns(&mut self, turns: &[Turn]) -> &mut Self {
        for turn in turns {
            self.data(turn.direction, &turn.bytes);
        }
        self
    }

    fn step(&mut self, step: &Step<'_>) {
        match step {
            Step::Data(direction, bytes) => self.data(*direction, bytes),
            Step::Gap(direction, length) => self.gap(*direction, *length, Gap::Lost),
        };
    }
}

fn side(direction: Direction) -> Side {
    match direction {
        Direction::ToServer => CLIENT,
        Direction::ToClient => CLIENT.other(),
    }
}

/// The exchanges of a dialogue, each turn in one piece, closed by both ends.
pub(super) fn play(protocol: &'static Protocol, turns: &[Turn]) -> Vec<Exchange> {
    let mut played = Played::new(protocol);
    played.turns(turns).finish(End::Fin);
    played.exchanges
}

/// Checks every property on this dialogue. Each exchange in it must differ from
/// the others in its operation, target or status, or wrong pairs would not show.
pub(super) fn check(protocol: &'static Protocol, turns: &[Turn]) {
    let whole = play(protocol, turns);
    assert!(!whole.is_empty(), "the dialogue has no exchange");
    let pairs = pairs(&whole);
    let distinct: BTreeSet<_> = pairs.iter().collect();
    assert_eq!(distinct.len(), pairs.len(), "exchanges that look the same: {pairs:?}");
    any_segmentation(protocol, turns, &whole);
    any_interleaving(protocol, turns, &whole);
    spared(protocol, turns, &whole);
    any_truncation(protocol, turns, &pairs);
    any_gap(protocol, turns, &pairs);
    any_late_join(protocol, turns, &pairs);
    bounded_memory(protocol, turns);
}

/// Checks that reading takes time in proportion to the length, also byte by
/// byte. `dialogue` makes one of about that many bytes.
pub(super) fn check_linear(protocol: &'static Protocol, dialogue: impl Fn(usize) -> Vec<Turn>) {
    let time = |length: usize| -> Duration {
        let turns = dialogue(length);
        let run = || {
            let began = cpu_time();
            let mut played = Played::new(protocol);
            for turn in &turns {
                turn.bytes.iter().for_each(|byte| {
                    played.data(turn.direction, &[*byte]);
                });
            }
            played.finish(End::Fin);
            cpu_time().saturating_sub(began)
        };
        (0..3).map(|_| run()).min().unwrap_or_default()
    };
    // 16 times as long; quadratic would be 256 times. Whoever else uses the caches
    // may spoil a measurement, but not all of them.
    let linear = (0..20).any(|_| time(64_000) < time(4_000) * 64);
    assert!(linear, "{:?} for 4 kB, {:?} for 64 kB", time(4_000), time(64_000));
}

/// That this thread has used: what others use of the processor does not count, and
/// would make what takes long take longer than its share.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap())
}

/// What says which request got which answer.
type Pair = (String, Option<String>, Option<String>);

fn pairs(exchanges: &[Exchange]) -> Vec<Pair> {
    exchanges
        .iter()
        .filter(|one| one.request.is_some() && one.response.is_some())
        .map(|one| {
            (
                one.operation.to_string(),
                one.target.as_ref().map(SmolStr::to_string),
                one.status.as_ref().map(SmolStr::to_string),
            )
        })
        .collect()
}

fn sorted(exchanges: &[Exchange]) -> Vec<String> {
    let mut texts: Vec<_> = exchanges.iter().map(|one| format!("{one:?}")).collect();
    texts.sort();
    texts
}

#[track_caller]
fn no_false_pair(found: &[Exchange], expected: &[Pair], what: &str) {
    for pair in pairs(found) {
        // What was asked, or a part of it, may have become known before the loss,
        // by a name; and what broke off may have no status. What is not said is
        // not wrong.
        let unnamed = match &pair.1 {
            None => pair.0.is_empty(),
            // Of a prepared statement only its number is known.
            Some(target) => target.starts_with("stmt#"),
        };
        let may_be = |said: &Option<String>, right: &Option<String>| said.is_none() || said == right;
        let right = expected.iter().any(|one| {
            let same = unnamed || one.0 == pair.0 && may_be(&pair.1, &one.1);
            same && may_be(&pair.2, &one.2)
        });
        assert!(right, "{what}: {pair:?} is a wrong pair; right ones are {expected:?}");
    }
}

fn any_segmentation(protocol: &'static Protocol, turns: &[Turn], whole: &[Exchange]) {
    let mut random = Random(7);
    for round in 0..60 {
        let mut played = Played::new(protocol);
        for turn in turns {
            let mut rest = turn.bytes.as_slice();
            while !rest.is_empty() {
                let size = match round {
                    0..5 => round + 1,
                    _ => 1 + random.below(rest.len().min(1 << (round % 9))),
                };
                let (now, later) = rest.split_at(size.min(rest.len()));
                played.data(turn.direction, now);
                rest = later;
            }
        }
        played.finish(End::Fin);
        assert_eq!(sorted(&played.exchanges), sorted(whole), "segmentation {round}");
    }
}

/// What need not be seen is not: nothing else changes.
fn spared(protocol: &'static Protocol, turns: &[Turn], whole: &[Exchange]) {
    let mut random = Random(17);
    for round in 0..60 {
        let mut played = Played::new(protocol);
        for turn in turns {
            let mut rest = turn.bytes.as_slice();
            while !rest.is_empty() {
                let left_out = played.left_out(turn.direction, rest);
                rest = &rest[left_out..];
                let size = 1 + random.below(1 << (round % 9));
                let (now, later) = rest.split_at(size.min(rest.len()));
                if !now.is_empty() {
                    played.data(turn.direction, now);
                }
                rest = later;
            }
        }
        played.finish(End::Fin);
        assert_eq!(sorted(&played.exchanges), sorted(whole), "spared {round}");
    }
}

/// The client may say its later turns before the server's earlier ones have
/// arrived, but no answer comes before what was said before it.
fn any_interleaving(protocol: &'static Protocol, turns: &[Turn], whole: &[Exchange]) {
    let mut random = Random(11);
    for round in 0..60 {
        let mut played = Played::new(protocol);
        let of = |direction| {
            let own = turns.iter().enumerate().filter(move |(_, turn)| turn.direction == direction);
            own.collect::<Vec<_>>()
        };
        let (asks, answers) = (of(Direction::ToServer), of(Direction::ToClient));
        let (mut asked, mut answered) = (0, 0);
        while asked < asks.len() || answered < answers.len() {
            let next_answer = answers.get(answered);
            let allowed = next_answer.is_some_and(|(at, _)| asks.get(asked).is_none_or(|(ask, _)| ask > at));
            // What the server says first it says before it hears anything.
            let first = next_answer.is_some_and(|(at, _)| *at == 0);
            let asks_now = match (allowed, asks.get(asked)) {
                (true, Some(_)) => !first && random.below(2) == 0,
                (true, None) => false,
                (false, _) => true,
            };
            let (place, counter) =
                if asks_now { (asks[asked], &mut asked) } else { (answers[answered], &mut answered) };
            let (_, turn) = place;
            *counter += 1;
            for piece in turn.bytes.chunks(1 + random.below(if round % 2 == 0 { 20 } else { 2_000 })) {
                played.data(turn.direction, piece);
            }
        }
        played.finish(End::Fin);
        assert_eq!(sorted(&played.exchanges), sorted(whole), "interleaving {round}");
    }
}

fn any_truncation(protocol: &'static Protocol, turns: &[Turn], expected: &[Pair]) {
    let total: usize = turns.iter().map(|turn| turn.bytes.len()).sum();
    for length in 0..total {
        for end in [End::Fin, End::Reset, End::Unseen] {
            let mut played = Played::new(protocol);
            let mut left = length;
            for turn in turns {
                let here = left.min(turn.bytes.len());
                if here > 0 {
                    played.data(turn.direction, &turn.bytes[..here]);
                }
                left -= here;
            }
            played.finish(end);
            no_false_pair(&played.exchanges, expected, &format!("broken off after {length} bytes"));
        }
    }
}

fn any_gap(protocol: &'static Protocol, turns: &[Turn], expected: &[Pair]) {
    for direction in [Direction::ToServer, Direction::ToClient] {
        let total: usize =
            turns.iter().filter(|turn| turn.direction == direction).map(|turn| turn.bytes.len()).sum();
        for length in [1, 7, 60, 300, 1_448] {
            for start in (0..total).step_by(1 + total / 400) {
                let hole = start..(start + length).min(total);
                let mut played = Played::new(protocol);
                for step in with_hole(turns, direction, &hole) {
                    played.step(&step);
                }
                played.finish(End::Fin);
                no_false_pair(&played.exchanges, expected, &format!("{direction:?} without {hole:?}"));
            }
        }
    }
}

/// The dialogue's steps, with bytes of one direction missing. A hole is noticed
/// where it begins.
fn with_hole<'a>(turns: &'a [Turn], direction: Direction, hole: &std::ops::Range<usize>) -> Vec<Step<'a>> {
    let mut steps = Vec::new();
    let mut place = 0;
    for turn in turns {
        if turn.direction != direction {
            steps.push(Step::Data(turn.direction, &turn.bytes));
            continue;
        }
        let cut = |at: usize| at.saturating_sub(place).min(turn.bytes.len());
        let (from, to) = (cut(hole.start), cut(hole.end));
        if from > 0 {
            steps.push(Step::Data(direction, &turn.bytes[..from]));
        }
        if from < to {
            steps.push(Step::Gap(direction, (to - from) as u64));
        }
        if to < turn.bytes.len() {
            steps.push(Step::Data(direction, &turn.bytes[to.max(from)..]));
        }
        place += turn.bytes.len();
    }
    steps
}

fn any_late_join(protocol: &'static Protocol, turns: &[Turn], expected: &[Pair]) {
    let total: usize = turns.iter().map(|turn| turn.bytes.len()).sum();
    for start in (0..total).step_by(1 + total / 800) {
        let mut played = Played::late(protocol);
        let mut place = 0;
        for turn in turns {
            let from = start.saturating_sub(place).min(turn.bytes.len());
            if from < turn.bytes.len() {
                played.data(turn.direction, &turn.bytes[from..]);
            }
            place += turn.bytes.len();
        }
        played.finish(End::Fin);
        no_false_pair(&played.exchanges, expected, &format!("joined at {start}"));
    }
}

fn bounded_memory(protocol: &'static Protocol, turns: &[Turn]) {
    let mut random = Random(13);
    let longest = turns.iter().map(|turn| turn.bytes.len()).max().unwrap_or_default();
    for until in [0, turns.len() / 2, turns.len()] {
        for garbage in [None, Some(b'A'), Some(b'\n'), Some(0), Some(0xff)] {
            let mut played = Played::new(protocol);
            played.turns(&turns[..until]);
            for _ in 0..40 {
                let bytes: Vec<u8> =
                    (0..4_096).map(|_| garbage.unwrap_or_else(|| random.below(256) as u8)).collect();
                for direction in [Direction::ToServer, Direction::ToClient] {
                    played.data(direction, &bytes);
                    let memory = played.conversation.memory_bytes();
                    let limit = 4 * (protocol.message_bytes_max + longest) + 256 * 1024;
                    assert!(memory <= limit, "{memory} bytes after turn {until} and {garbage:?}");
                }
            }
            played.finish(End::Unseen);
        }
    }
}

/// Enough to shuffle with, and always the same.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or_default() % bound.max(1)
    }
}
