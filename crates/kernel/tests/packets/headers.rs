//! The rows of [`crate::rows`], each at both hooks: table, tallies and events.

use weir_core::event::Event;
use weir_core::flow::{Counters, FlowState};
use weir_core::loss::TallyReason;
use weir_testkit::packet::{Frame, protocol};
use weir_testkit::require_root;

use crate::expect::{B, B6, without_link};
use crate::lab::{At, BACK_SECOND, FIRST, Lab};
use crate::rows::{Outcome, Row, flow, rows, tally, tcp, udp};

/// Asserts what one frame left behind, and cleans up after it.
#[track_caller]
fn check(lab: &mut Lab, at: At, row: &Row, run: impl FnOnce(&Lab)) {
    let before = lab.tallies();
    run(lab);
    let hook = lab.hook(at);
    let once = Counters { packets: 1, bytes: row.frame.len() as u64 };
    let what = row.what;
    let events = lab.events();
    let mut tallies = lab.tallies();
    tallies.retain(|key, counters| {
        *counters = counters.since(before.get(key).copied().unwrap_or_default());
        counters.packets > 0
    });
    match row.outcome {
        Outcome::Tally(reason) => {
            assert_eq!(tallies.into_iter().collect::<Vec<_>>(), [((hook, reason), once)], "{what}");
            assert_eq!((lab.flows(), events), (vec![], vec![]), "{what}");
        }
        Outcome::Flow(key, side, payload_bytes) => {
            assert!(tallies.is_empty(), "{what}: {tallies:?}");
            let flows = lab.flows();
            let [(found, entry)] = flows.as_slice() else { panic!("{what}: {flows:?}") };
            assert_eq!(*found, key, "{what}");
            assert_eq!(entry.points().collect::<Vec<_>>(), [(side, hook, once)], "{what}");
            let midstream = key.protocol.0 == protocol::TCP && !what.contains("itself");
            assert_eq!(entry.midstream, midstream, "{what}");
            let state = if midstream { FlowState::Established } else { FlowState::New };
            assert_eq!((entry.state, entry.incarnation), (state, 0), "{what}");

            let [Event::Open(open), Event::Packet(packet)] = events.as_slice() else {
                panic!("{what}: {events:?}")
            };
            assert_eq!((open.seen.key, open.seen.hook, open.source), (key, hook, side), "{what}");
            assert_eq!((open.length_bytes as usize, open.state), (row.frame.len(), state), "{what}");
            assert_eq!(open.seen.time_ns, entry.first_ns, "{what}");
            assert_eq!((packet.seen.key, packet.seen.hook, packet.source), (key, hook, side), "{what}");
            assert_eq!(packet.payload_bytes, payload_bytes, "{what}");
            assert_eq!((packet.length_bytes as usize, packet.counted), (row.frame.len(), true), "{what}");
        }
    }
    lab.clear();
}

#[test]
fn root_every_header_is_understood_or_refused() {
    require_root!();
    Lab::with_packet_events(|lab| {
        for row in rows() {
            for at in [FIRST, BACK_SECOND] {
                check(lab, at, &row, |lab| lab.run(at, &row.frame));
            }
        }
    });
}

#[test]
fn root_devices_without_a_link_layer() {
    require_root!();
    let (v4, v6) = (without_link::IPV4, without_link::IPV6);
    let mut rows = vec![
        flow("TCP", Frame::between(v4, B).tcp(40000, 80, "A").payload(&[7; 9]), tcp(v4, B), 9),
        flow(
            "UDP behind options",
            Frame::between(v4, B).ipv4_options(&[1; 8]).udp(5000, 6000),
            udp(v4, B),
            0,
        ),
        flow("UDP over IPv6", Frame::between(v6, B6).udp(5000, 6000).payload(&[7; 9]), udp(v6, B6), 9),
    ];
    for row in &mut rows {
        row.frame.drain(..14);
    }
    // Byte 13 makes the kernel say that it is ARP.
    rows.push(tally("ARP", [&[0x45; 12], [8, 6].as_slice(), &[0; 30]].concat(), TallyReason::Arp));
    rows.push(tally(
        "IPv4, cut",
        Frame::between(v4, B).udp(1, 2).payload(&[7; 30]).build()[14..60].to_vec(),
        TallyReason::Truncated,
    ));
    Lab::with_packet_events(|lab| {
        for row in &rows {
            for at in [FIRST, BACK_SECOND] {
                check(lab, at, row, |lab| lab.run_ip(at, &row.frame));
            }
        }
    });
}
