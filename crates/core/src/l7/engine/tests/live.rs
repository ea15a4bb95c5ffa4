//! Payload as the kernel side hands it over.

use std::num::NonZeroU32;

use super::*;
use crate::event::{Hook, Seen};
use crate::record::Capture;
use crate::stream::SKIP_BYTES_MAX;

pub(super) const FIRST_NS: u64 = 5;
const HOOK: HookId = HookId { ifindex: 7, hook: Hook::Ingress };
pub(super) const DATA: u8 = 0x18;
pub(super) const FIN: u8 = 0x11;
pub(super) const RST: u8 = 0x04;

/// A connection whose ends both begin at 1000, as it comes out of the kernel.
pub(super) struct Kernel {
    pub(super) engine: Engine,
    pub(super) found: Vec<Found>,
    pub(super) wanted: Vec<Wanted>,
    now_ns: u64,
    /// Where each end stands: the client's, the server's.
    pub(super) at: [u32; 2],
    flow_first_ns: u64,
    pub(super) begun: bool,
}

impl Kernel {
    pub(super) fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        Self {
            engine: Engine::new(limits),
            found: Vec::new(),
            wanted: Vec::new(),
            now_ns: 1_000,
            at: [1000; 2],
            flow_first_ns: FIRST_NS,
            begun: true,
        }
    }

    pub(super) fn tell(&mut self, asks: bool, flags: u8, payload: &[u8], payload_bytes: u32) {
        let seq = self.at[usize::from(!asks)];
        self.tell_framed(asks, flags, seq, payload, payload_bytes, 0, None);
    }

    /// The same of frames: so many bytes after it are left out, and one begins here.
    #[expect(clippy::too_many_arguments, reason = "as many as a record has")]
    pub(super) fn tell_framed(
        &mut self,
        asks: bool,
        flags: u8,
        seq: u32,
        payload: &[u8],
        payload_bytes: u32,
        left_out_bytes: u32,
        frame_chain: Option<NonZeroU32>,
    ) {
        self.now_ns += 1_000;
        let (key, client) = key(1);
        let (own, peer) = if asks { (0, 1) } else { (1, 0) };
        let first_seq = if self.begun { [Some(1000); 2] } else { [None; 2] };
        let seen = PayloadSeen {
            seen: Seen { time_ns: self.now_ns, hook: HOOK, key },
            flow_first_ns: self.flow_first_ns,
            from: if asks { client } else { client.other() },
            client: self.begun.then_some(client),
            first_seq,
            seq,
            ack: self.at[peer],
            peer_next_seq: self.at[peer],
            tcp_flags: flags,
            payload_bytes,
            payload,
            left_out_bytes,
            frame_chain,
        };
        self.at[own] = seq.wrapping_add(payload_bytes);
        let Self { engine, found, wanted, .. } = self;
        engine.payload(&seen, &mut |one| found.push(one));
        wanted.extend(engine.take_wanted().into_iter().map(|(_, wanted)| wanted));
    }

    fn say(&mut self, asks: bool, text: &str) {
        self.tell(asks, DATA, text.as_bytes(), text.len() as u32);
    }

    /// Nothing is said for so long that everything would be answered.
    fn pause(&mut self) {
        self.now_ns += 2_000_000_000;
    }

    /// Bytes pass that nobody is told of.
    fn pass(&mut self, asks: bool, bytes: u32) {
        let at = &mut self.at[usize::from(!asks)];
        *at = at.wrapping_add(bytes);
    }

    /// What the kernel was told last of the server's bytes: how far from where they stand.
    fn skipped_ahead(&self) -> Option<u32> {
        let (_, client) = key(1);
        let until = self.wanted.last()?.skip_until_seq[client.other().index()]?;
        Some(until.wrapping_sub(self.at[1]))
    }

    /// Target, status, bytes of the answer, how much of it was seen.
    pub(super) fn lines(&self) -> Vec<String> {
        let line = |one: &Found| {
            let target = one.exchange.target.as_deref().unwrap_or("?");
            let status = one.exchange.status.as_deref().unwrap_or("-");
            let bytes = one.exchange.response.map_or(0, |part| part.bytes);
            let whole = if one.exchange.capture == Capture::Complete { "" } else { " (in part)" };
            format!("{target} {status} {bytes}{whole}")
        };
        self.found.iter().map(line).collect()
    }
}

const ASK: &str = "GET / HTTP/1.1\r\n\r\n";
const NEXT: &str = "GET /next HTTP/1.1\r\n\r\n";
const DONE: &str = "HTTP/1.1 204 No Content\r\n\r\n";

fn head(length: u64) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")
}

#[test]
fn requests_are_those_of_the_flow() {
    let mut kernel = Kernel::new();
    kernel.say(true, ASK);
    kernel.say(false, DONE);
    let [found] = &kernel.found[..] else { panic!() };
    assert_eq!((found.first_ns, found.client), (FIRST_NS, key(1).1));
    assert_eq!(found.hooks, [Some(HOOK); 2]);
    assert_eq!(kernel.lines(), ["/ 204 27"]);
    assert_eq!(kernel.wanted, [], "everything is wanted");
    assert_eq!(kernel.engine.tally().captured_bytes, 45);
}

/// 10 GiB, told in a few records.
#[test]
fn a_body_is_skipped_for_as_long_as_it_is() {
    const BODY: u64 = 10 << 30;
    const STEP: u32 = 1 << 28;
    let mut kernel = Kernel::new();
    let head = head(BODY);
    kernel.say(true, ASK);
    kernel.say(false, &head);
    assert_eq!(u64::from(kernel.skipped_ahead().unwrap()), SKIP_BYTES_MAX);
    let mut left = BODY;
    while left > u64::from(STEP) {
        assert!(kernel.skipped_ahead().unwrap() >= STEP, "renewed in time");
        kernel.pass(false, STEP);
        kernel.tell(false, DATA, b"", 0);
        left -= u64::from(STEP);
    }
    assert_eq!(u64::from(kernel.skipped_ahead().unwrap()), left, "and no further than the body");
    kernel.pass(false, STEP);
    kernel.say(false, "");
    assert_eq!(kernel.lines(), [format!("/ 200 {}", BODY + head.len() as u64)]);
    assert_eq!(kernel.wanted.last().unwrap().skip_until_seq, [None; 2], "what follows is wanted");
    assert!(kernel.wanted.len() < 25, "{}", kernel.wanted.len());
    kernel.say(true, NEXT);
    kernel.say(false, DONE);
    assert_eq!(kernel.lines()[1], "/next 204 27");
    assert_eq!(kernel.engine.tally().left_out_bytes, BODY);
    assert_eq!(kernel.engine.tally().losses().iter().map(|(_, count)| count).sum::<u64>(), 0);
}

#[test]
fn what_was_on_its_way_before_a_skip_counts() {
    let mut kernel = Kernel::new();
    kernel.say(true, ASK);
    kernel.say(false, &head(1_000_000));
    kernel.tell(false, DATA, &[b'x'; 3000], 3000);
    kernel.tell(false, DATA, &[], 2000);
    kernel.pass(false, 995_000);
    // The client's next request says that it has the body, before the body's end is told.
    kernel.say(true, NEXT);
    kernel.say(false, DONE);
    assert_eq!(
        kernel.lines(),
        ["/ 200 1000044 (in part)", "/next 204 27"],
        "2,000 bytes were not copied unasked"
    );
}

#[test]
fn a_body_that_is_broken_off_is_counted_so_far() {
    for by_client in [false, true] {
        let mut kernel = Kernel::new();
        kernel.say(true, ASK);
        kernel.say(false, &head(1 << 32));
        kernel.pass(false, 3_000_000);
        kernel.tell(by_client, RST, b"", 0);
        assert_eq!(kernel.lines(), ["/ 200 3000047 (in part)"], "{by_client}");
    }
}

#[test]
fn a_body_that_ends_with_the_connection_is_skipped_too() {
    let mut kernel = Kernel::new();
    kernel.say(true, ASK);
    kernel.say(false, "HTTP/1.0 200 OK\r\n\r\n");
    assert_eq!(u64::from(kernel.skipped_ahead().unwrap()), SKIP_BYTES_MAX);
    kernel.pass(false, 700_000_000);
    kernel.tell(false, FIN, b"", 0);
    assert_eq!(kernel.lines(), ["/ 200 700000019"]);
}

#[test]
fn a_skip_outlives_weir() {
    let mut kernel = Kernel::new();
    kernel.say(true, ASK);
    kernel.say(false, &head(1 << 32));
    kernel.pass(false, 3_000_000);
    let (key, client) = key(1);
    let mut next_seq = kernel.at;
    if client == Side::High {
        next_seq.swap(0, 1);
    }
    let Kernel { engine, found, .. } = &mut kernel;
    engine.flow_came_to(&key, FIRST_NS, next_seq, &mut |one| found.push(one));
    engine.finish(&mut |one| found.push(one));
    assert_eq!(kernel.lines(), ["/ 200 3000047 (in part)"]);
}

#[test]
fn an_answer_that_was_lost_at_the_end_is_a_hole() {
    let mut kernel = Kernel::new();
    kernel.say(true, ASK);
    kernel.pass(false, 100);
    let (key, client) = key(1);
    let mut next_seq = kernel.at;
    if client == Side::High {
        next_seq.swap(0, 1);
    }
    let Kernel { engine, found, .. } = &mut kernel;
    engine.flow_came_to(&key, FIRST_NS + 1, next_seq, &mut |_| panic!("another connection"));
    engine.flow_came_to(&key, FIRST_NS, next_seq, &mut |one| found.push(one));
    engine.finish(&mut |one| found.push(one));
    assert_eq!(kernel.engine.tally().gaps_lost, 1);
    assert_eq!(kernel.lines(), ["/ - 0 (in part)"]);
}

#[test]
fn what_is_not_read_is_not_wanted() {
    let mut kernel = Kernel::new();
    kernel.say(false, "SSH-2.0-OpenSSH_9.2\r\n");
    kernel.say(true, "SSH-2.0-OpenSSH_9.2\r\n");
    kernel.say(true, "\0\0\x05\x00binary");
    assert_eq!(kernel.wanted.iter().map(|wanted| wanted.off).collect::<Vec<_>>(), [true]);
    assert_eq!(kernel.engine.tally().bypassed.get(&Why::NotUnderstood), Some(&1));
    // What was on its way is not a new conversation.
    kernel.say(true, ASK);
    kernel.say(false, DONE);
    assert_eq!((kernel.lines().len(), kernel.engine.tally().conversations), (0, 1));
}

#[test]
fn a_connection_is_read_up_to_its_limit() {
    let mut kernel = Kernel::with(Limits { connection_bytes: 100, ..Limits::default() });
    for _ in 0..5 {
        kernel.say(true, ASK);
        kernel.say(false, DONE);
    }
    assert_eq!(kernel.lines(), ["/ 204 27", "/ 204 27", "/ - 0"], "{:?}", kernel.wanted);
    assert_eq!(kernel.engine.tally().bypassed.get(&Why::ByteLimit), Some(&1));
    assert!(kernel.wanted.last().unwrap().off);
}

#[test]
fn repetitions_after_the_end_begin_nothing() {
    let mut kernel = Kernel::new();
    kernel.say(true, ASK);
    kernel.say(false, DONE);
    let before = kernel.at;
    kernel.tell(true, FIN, b"", 0);
    kernel.tell(false, FIN, b"", 0);
    kernel.at = [1000, 1000];
    kernel.say(true, ASK);
    kernel.say(false, DONE);
    assert_eq!((kernel.lines().len(), kernel.at), (1, before));

    // The same ports again are another connection.
    kernel.flow_first_ns += 1_000_000;
    kernel.at = [1000, 1000];
    kernel.say(true, NEXT);
    kernel.say(false, DONE);
    assert_eq!(kernel.lines(), ["/ 204 27", "/next 204 27"]);
    // Of the older one nothing more is taken.
    kernel.flow_first_ns = FIRST_NS;
    kernel.say(true, ASK);
    assert!(!kernel.engine.flow_ended(&key(1).0, FIRST_NS, &mut |_| {}));
    assert!(kernel.engine.flow_ended(&key(1).0, FIRST_NS + 1_000_000, &mut |_| {}));
    assert_eq!(kernel.engine.memory_bytes(), 0);
}

#[test]
fn lost_records_are_holes() {
    let mut kernel = Kernel::new();
    kernel.pass(true, 18);
    kernel.say(false, DONE);
    kernel.say(true, NEXT);
    kernel.say(false, DONE);
    kernel.pause();
    kernel.say(true, ASK);
    kernel.say(false, DONE);
    let tally = kernel.engine.tally();
    assert_eq!(tally.gaps_lost, 1);
    let lines = kernel.lines();
    assert!(lines.iter().any(|line| line == "/ 204 27 (in part)"), "{lines:?}");
    assert!(!lines.iter().any(|line| line.starts_with("/next 204 27 (")), "{lines:?}");
}

#[test]
fn a_connection_joined_late_is_read_from_where_it_can_be() {
    let mut kernel = Kernel::new();
    kernel.begun = false;
    for _ in 0..3 {
        kernel.pause();
        kernel.say(true, ASK);
        kernel.say(false, DONE);
    }
    let lines = kernel.lines();
    assert_eq!(lines.last().unwrap(), "/ 204 27 (in part)", "{lines:?}");
    assert!(kernel.found.iter().all(|found| found.client == key(1).1));
}

/// An entry that made room for others comes back in the middle of its connection.
#[test]
fn a_connection_that_comes_back_is_joined_late() {
    let mut kernel = Kernel::new();
    kernel.at = [50_000_000, 3_000_000_000];
    for _ in 0..3 {
        kernel.pause();
        kernel.say(true, ASK);
        kernel.say(false, DONE);
    }
    assert_eq!(kernel.engine.tally().gaps_lost, 0);
    assert_eq!(kernel.lines().last().unwrap(), "/ 204 27 (in part)");
}
