//! `weir read` follows flows without a kernel: the same packets give the same
//! entries, by the programs and by [`Tracker`].

use std::sync::atomic::{AtomicU16, Ordering};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use weir_core::flow::{DirectionEntry, EntrySource as _, FlowEntry, FlowKey, Point, Tracker};
use weir_core::frame::{Body, Decoder, Link};
use weir_core::loss::TallyReason;
use weir_testkit::packet::Frame;
use weir_testkit::require_root;

use crate::expect::{A, A6, B, B6};
use crate::lab::{FIRST, Lab};
use crate::rows::rows;

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
    let other = (ends, 0..9u8).prop_map(|((from, to, port, peer), kind)| {
        let frame = || Frame::between(from, to);
        let udp = frame().udp(port, peer).payload(&[7; 64]);
        let error = if from == A || from == B { (3, 3) } else { (1, 4) };
        let sent = Frame::between(to, from);
        match kind {
            0 => (udp, None),
            1 => (udp, Some((0, true))),
            2 => (udp, Some((72, true))),
            // With this one a datagram is whole, and its pieces may come again.
            3 => (udp, Some((136, false))),
            4 => (frame().echo_request(7, 1), None),
            5 => (frame().echo_reply(7, 1), None),
            6 => (frame().icmp_error(error.0, error.1, &sent.tcp(peer, port, "A"), usize::MAX), None),
            7 => (frame().icmp_error(error.0, error.1, &sent.udp(peer, port), 28), None),
            _ => (frame().sctp(port, peer), None),
        }
    });
    // The programs remember fragments of earlier cases, and of other tests, which have small numbers.
    static DATAGRAMS: AtomicU16 = AtomicU16::new(1_000);
    prop::collection::vec(prop_oneof![4 => tcp, 1 => other], 1..24).prop_map(|frames| {
        let id = u32::from(DATAGRAMS.fetch_add(1, Ordering::Relaxed));
        let build = |(frame, piece): (Frame, Option<(u16, bool)>)| match piece {
            Some((offset_bytes, more)) => frame.fragment(id, offset_bytes, more).build(),
            None => frame.build(),
        };
        frames.into_iter().map(build).collect()
    })
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
