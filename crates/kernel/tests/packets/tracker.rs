//! `weir read` follows flows without a kernel: the same packets give the same
//! entries, by the programs and by [`Tracker`].

use std::cell::RefCell;
use std::sync::atomic::{AtomicU16, Ordering};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use weir_core::event::{Event, Hook, HookId, PacketSeen, Seen};
use weir_core::flow::{DirectionEntry, EntrySource as _, FlowEntry, FlowKey, Point, Tracker};
use weir_core::frame::{Body, Decoder, Link};
use weir_core::loss::TallyReason;
use weir_testkit::packet::Frame;
use weir_testkit::require_root;

use crate::expect::{A, A6, B, B6};
use crate::lab::{FIRST, Lab};
use crate::rows::{Outcome, rows};

const MILLISECOND_NS: u64 = 1_000_000;

/// What both must agree on: all but the times.
type Row = (FlowKey, FlowEntry);

fn comparable((key, entry): (FlowKey, FlowEntry)) -> Row {
    let directions = entry.directions.map(|direction| DirectionEntry {
        points: direction.points.map(|point| Point { hook: None, ..point }),
        // Known of TCP only; the kernel's is that of its last use.
        next_seq: if direction.tcp_flags == 0 { 0 } else { direction.next_seq },
        looked_at: false,
        ..direction
    });
    let entry = FlowEntry { first_ns: 0, last_ns: 0, rtt_us: entry.rtt_us.map(|_| 0), directions, ..entry };
    (key, entry)
}

/// In an order that both have.
fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort_by_key(|(key, _)| (key.protocol, key.icmp_type, key.addresses, key.ports));
    rows
}

/// What the tracker makes of frames, and how many it has in no flow, by reason.
fn track<'a>(frames: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Row>, Vec<TallyReason>) {
    let (mut decoder, mut tracker) = (Decoder::default(), Tracker::default());
    let (mut flows, mut reasons) = (Vec::new(), Vec::new());
    for (index, frame) in frames.into_iter().enumerate() {
        let (length, time_ns) = (frame.len() as u32, (index as u64 + 1) * MILLISECOND_NS);
        match decoder.decode(Link::Ethernet, frame, length, time_ns) {
            Ok(packet) if matches!(packet.body, Body::Stray) => reasons.push(TallyReason::FragmentUnjoined),
            Ok(packet) => assert!(!tracker.packet(&packet, length, time_ns).is_table_full),
            Err(reason) => reasons.push(reason),
        }
    }
    let Ok(()) = tracker.visit(&mut |key, entry| flows.push(comparable((key, entry))));
    reasons.sort();
    (sorted(flows), reasons)
}

/// The same by the programs.
fn run(lab: &Lab, frames: &[Vec<u8>]) -> (Vec<Row>, Vec<TallyReason>) {
    let before = lab.tallies();
    lab.run_all(FIRST, true, frames.iter().map(Vec::as_slice));
    let mut reasons = Vec::new();
    for ((hook, reason), counters) in lab.tallies() {
        let packets = counters.since(before.get(&(hook, reason)).copied().unwrap_or_default()).packets;
        reasons.extend((0..packets).map(|_| reason));
    }
    reasons.sort();
    let flows = sorted(lab.flows().into_iter().map(comparable).collect());
    lab.clear();
    (flows, reasons)
}

/// Each kind of header that the programs are tested with. Files may tell more: a
/// length that the header does not, and what stands behind more headers; and a header
/// that ends too soon was not cut there, but is so.
#[test]
fn root_headers_name_the_same_flows() {
    require_root!();
    Lab::plain(|lab| {
        for row in rows() {
            let frames = [row.frame];
            let tracked = track(frames.iter().map(Vec::as_slice));
            let counted = run(lab, &frames);
            match counted.1.as_slice() {
                [reason] if reason.is_loss() => {
                    let is_lost = tracked.1.first().is_some_and(|reason| reason.is_loss());
                    assert!(is_lost || tracked.0.len() == 1, "{}: {tracked:?}", row.what);
                }
                _ => assert_eq!(tracked, counted, "{}", row.what),
            }
        }
    });
}

/// Segments of two connections, whatever they say, pings, errors and fragments.
fn packets() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let flags = prop::sample::select(vec!["S", "SA", "A", "PA", "FA", "F", "R", "RA", "FPA", "SF"]);
    let number = prop::sample::select(vec![0, 1, 100, 101, 200, 1000, u32::MAX - 1, u32::MAX]);
    let ends =
        prop::sample::select(vec![(A, B, 40_000, 80), (B, A, 80, 40_000), (A6, B6, 7, 7), (B6, A6, 7, 7)]);
    let length = prop::sample::select(vec![0usize, 0, 1, 99, 100]);
    let window = prop::sample::select(vec![0u16, 1, 512]);
    let tcp = (ends.clone(), flags, number.clone(), number, length, window).prop_map(
        |((from, to, port, peer), flags, seq, ack, length, window)| {
            let segment = Frame::between(from, to).tcp(port, peer, flags).seq(seq).ack(ack).window(window);
            (segment.payload(&vec![7; length]), None)
        },
    );
    // Of one datagram: often it is whole, and its pieces come again.
    let pieces = prop::sample::select(vec![(0, true), (72, true), (136, false)]);
    let fragment =
        pieces.prop_map(|piece| (Frame::between(A, B).udp(40_000, 80).payload(&[7; 64]), Some(piece)));
    let other = (ends, 0..7u8).prop_map(|((from, to, port, peer), kind)| {
        let frame = || Frame::between(from, to);
        let udp = frame().udp(port, peer).payload(&[7; 64]);
        let error = if from == A || from == B { (3, 3) } else { (1, 4) };
        let sent = Frame::between(to, from);
        match kind {
            0 => (udp, None),
            1 => (udp, Some((72, true))),
            2 => (frame().echo_request(7, 1), None),
            3 => (frame().echo_reply(7, 1), None),
            4 => (frame().icmp_error(error.0, error.1, &sent.tcp(peer, port, "A"), usize::MAX), None),
            5 => (frame().icmp_error(error.0, error.1, &sent.udp(peer, port), 28), None),
            _ => (frame().sctp(port, peer), None),
        }
    });
    // The programs remember fragments of earlier cases, and of other tests, which have small numbers.
    static DATAGRAMS: AtomicU16 = AtomicU16::new(1_000);
    prop::collection::vec(prop_oneof![4 => tcp, 1 => other, 2 => fragment], 1..24).prop_map(|frames| {
        let id = u32::from(DATAGRAMS.fetch_add(1, Ordering::Relaxed));
        let build = |(frame, piece): (Frame, Option<(u16, bool)>)| match piece {
            Some((offset_bytes, more)) => frame.fragment(id, offset_bytes, more).build(),
            None => frame.build(),
        };
        frames.into_iter().map(build).collect()
    })
}

/// What is told of each packet, by the decoder and by the programs: all but when and where.
fn told(lab: &mut Lab, frames: &[Vec<u8>]) -> [Vec<PacketSeen>; 2] {
    let nowhere = HookId { ifindex: 0, hook: Hook::Ingress };
    let mut decoder = Decoder::default();
    let mut decoded = Vec::new();
    for frame in frames {
        let length = frame.len() as u32;
        if let Ok(packet) = decoder.decode(Link::Ethernet, frame, length, 0)
            && !matches!(packet.body, Body::Stray)
        {
            decoded.push(packet.seen(nowhere, length, 0));
        }
    }
    lab.run_all(FIRST, true, frames.iter().map(Vec::as_slice));
    let seen = lab.events().into_iter().filter_map(|event| match event {
        Event::Packet(packet) => {
            let seen = Seen { hook: nowhere, time_ns: 0, ..packet.seen };
            Some(PacketSeen { seen, ..packet })
        }
        _ => None,
    });
    let seen = seen.collect();
    lab.clear();
    [decoded, seen]
}

/// `weir read --packets` tells of packets what `weir observe --packets` does.
#[test]
fn root_packets_are_told_alike() {
    require_root!();
    Lab::with_packet_events(|lab| {
        for row in rows().into_iter().filter(|row| matches!(row.outcome, Outcome::Flow(..))) {
            let [decoded, seen] = told(lab, &[row.frame]);
            assert_eq!(decoded, seen, "{}", row.what);
        }
        let lab = RefCell::new(lab);
        let config = Config { cases: 300, failure_persistence: None, ..Config::default() };
        TestRunner::new(config)
            .run(&packets(), |frames| {
                let [decoded, seen] = told(&mut lab.borrow_mut(), &frames);
                prop_assert_eq!(decoded, seen);
                Ok(())
            })
            .unwrap();
    });
}

#[test]
fn root_packets_make_the_same_entries() {
    require_root!();
    Lab::plain(|lab| {
        // Not to files: a failing case is printed.
        let config = Config { cases: 1_500, failure_persistence: None, ..Config::default() };
        TestRunner::new(config)
            .run(&packets(), |frames| {
                let tracked = track(frames.iter().map(Vec::as_slice));
                prop_assert_eq!(tracked, run(lab, &frames));
                Ok(())
            })
            .unwrap();
    });
}
