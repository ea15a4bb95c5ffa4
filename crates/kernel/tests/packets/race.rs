//! Two processors with packets of one flow at the same moment: nothing is
//! counted twice or not at all, and nothing is told twice.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use weir_core::event::Event;
use weir_core::flow::{Counters, FlowKey, FlowState};
use weir_core::loss::TallyReason;
use weir_testkit::packet::{Frame, arp_request};
use weir_testkit::require_root;

use crate::expect::{A, B, key};
use crate::lab::{At, BACK_FIRST, FIRST, Lab, SECOND, THIRD};

/// Flows, each with a race of its own: few enough for the table.
const FLOWS: u16 = 50;
const ROUNDS: usize = 10;

fn ports() -> impl Iterator<Item = u16> {
    40_000..40_000 + FLOWS
}

fn from_client(port: u16, flags: &str, seq: u32, ack: u32) -> Vec<u8> {
    Frame::between(A, B).tcp(port, 80, flags).seq(seq).ack(ack).build()
}

fn from_server(port: u16, flags: &str, seq: u32, ack: u32) -> Vec<u8> {
    Frame::between(B, A).tcp(80, port, flags).seq(seq).ack(ack).build()
}

fn tcp_key(port: u16) -> FlowKey {
    key(6, (A, port), (B, 80)).0
}

/// What one processor gets: a frame for each port, at a hook.
type Runner<'a> = (At, &'a (dyn Fn(u16) -> Vec<u8> + Sync));

/// For each port: every runner's frame at once.
fn race(lab: &Lab, runners: &[Runner<'_>]) {
    let arrived = AtomicUsize::new(0);
    thread::scope(|scope| {
        for (at, frame) in runners {
            let arrived = &arrived;
            scope.spawn(move || {
                lab.enter();
                for (round, port) in ports().enumerate() {
                    let frame = frame(port);
                    // A barrier that sleeps would wake them too far apart.
                    arrived.fetch_add(1, Ordering::SeqCst);
                    while arrived.load(Ordering::SeqCst) < (round + 1) * runners.len() {
                        thread::yield_now();
                    }
                    lab.repeat(*at, &frame, 1);
                }
            });
        }
    });
}

/// How many events of a kind each flow has.
fn told(events: &[Event], is_it: impl Fn(&Event) -> Option<FlowKey>) -> BTreeMap<u16, usize> {
    let mut told = BTreeMap::new();
    for key in events.iter().filter_map(is_it) {
        *told.entry(key.ports.into_iter().max().unwrap()).or_default() += 1;
    }
    told
}

fn once() -> BTreeMap<u16, usize> {
    ports().map(|port| (port, 1)).collect()
}

#[test]
fn root_hooks_that_meet_a_flow_at_once() {
    require_root!();
    let frame = |port| Frame::between(A, B).udp(port, 6000).payload(&[7; 10]).build();
    Lab::plain(|lab| {
        for _ in 0..ROUNDS {
            let further =
                |lab: &Lab| [FIRST, SECOND, THIRD].map(|at| lab.tally(at, TallyReason::FurtherHook).packets);
            let before: u64 = further(lab).iter().sum();
            race(lab, &[(FIRST, &frame), (SECOND, &frame), (THIRD, &frame)]);
            for port in ports() {
                let (key, side) = key(17, (A, port), (B, 6000));
                let points = lab.flow(&key).directions[side.index()].points;
                assert_eq!(points.map(|point| point.counters.packets), [1, 1], "{port}");
                assert_ne!(points[0].hook, points[1].hook, "{port}");
            }
            assert_eq!(further(lab).iter().sum::<u64>() - before, u64::from(FLOWS));
            let opens = told(&lab.events(), |event| match event {
                Event::Open(open) => Some(open.seen.key),
                _ => None,
            });
            assert_eq!(opens, once());
            lab.clear();
        }
    });
}

#[test]
fn root_counters_that_are_raised_at_once() {
    require_root!();
    const PACKETS: u32 = 1_000_000;
    let (key, side) = key(17, (A, 5000), (B, 6000));
    let frame = Frame::between(A, B).udp(5000, 6000).payload(&[7; 10]).build();
    let refused = arp_request([10, 0, 0, 1], [10, 0, 0, 2]);
    Lab::plain(|lab| {
        for frame in [&frame, &refused] {
            thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        lab.enter();
                        lab.repeat(FIRST, frame, PACKETS);
                    });
                }
            });
        }
        let all = |frame: &[u8]| {
            let packets = 2 * u64::from(PACKETS);
            Counters { packets, bytes: packets * frame.len() as u64 }
        };
        assert_eq!(lab.point(&key, side, 0).1, all(&frame));
        assert_eq!(lab.tally(FIRST, TallyReason::Arp), all(&refused));
    });
}

/// Each end acknowledges the other's FIN.
#[test]
fn root_both_ends_close_at_once() {
    require_root!();
    Lab::plain(|lab| {
        for _ in 0..ROUNDS {
            for port in ports() {
                lab.repeat(FIRST, &from_client(port, "FA", 1000, 1000), 1);
                lab.repeat(BACK_FIRST, &from_server(port, "FA", 1000, 1000), 1);
            }
            race(
                lab,
                &[
                    (FIRST, &|port| from_client(port, "A", 1001, 1001)),
                    (BACK_FIRST, &|port| from_server(port, "A", 1001, 1001)),
                ],
            );
            let closes = told(&lab.events(), |event| match event {
                Event::Close(close) => Some(close.seen.key),
                _ => None,
            });
            assert_eq!(closes, once());
            assert!(ports().all(|port| lab.flow(&tcp_key(port)).state == FlowState::Closed));
            lab.clear();
        }
    });
}

/// A SYN is met at two hooks at once, on a key that has ended.
#[test]
fn root_a_key_begins_again_at_two_hooks_at_once() {
    require_root!();
    Lab::plain(|lab| {
        for port in ports() {
            lab.repeat(FIRST, &from_client(port, "S", 1000, 0), 1);
        }
        for round in 1..=ROUNDS as u32 {
            for port in ports() {
                lab.repeat(BACK_FIRST, &from_server(port, "RA", 0, 1001), 1);
            }
            lab.events();
            let syn = |port| from_client(port, "S", 1000, 0);
            race(lab, &[(FIRST, &syn), (SECOND, &syn)]);
            let reopened = told(&lab.events(), |event| match event {
                Event::Reopen(open, _) => Some(open.seen.key),
                _ => None,
            });
            assert_eq!(reopened, once());
            for port in ports() {
                let entry = lab.flow(&tcp_key(port));
                assert_eq!((entry.incarnation, entry.state), (round, FlowState::New));
                let packets: u64 = entry
                    .directions
                    .iter()
                    .flat_map(|direction| direction.points)
                    .map(|point| point.counters.packets)
                    .sum();
                // The first SYN; then a RST, and a SYN at two hooks, in each round.
                assert_eq!(packets, 1 + 3 * u64::from(round), "{port}");
            }
        }
        assert!(lab.tallies().is_empty(), "{:?}", lab.tallies());
    });
}
