//! IP packets in pieces: joined to the flow of the first piece, or counted where they cannot be.

use weir_core::event::Event;
use weir_core::flow::{Counters, FlowKey};
use weir_core::loss::TallyReason;
use weir_testkit::packet::{Frame, protocol};
use weir_testkit::require_root;

use crate::expect::{A, A6, B, B6, icmp_key, key};
use crate::lab::{FIRST, Lab, SECOND};

struct Row {
    what: &'static str,
    frames: Vec<Frame>,
    /// Packets of the flow, and later fragments that found no first one.
    joined: u64,
    unjoined: u64,
    key: Option<FlowKey>,
}

fn piece(frame: &Frame, id: u32, offset_bytes: u16, more: bool) -> Frame {
    frame.clone().payload(&[7; 64]).fragment(id, offset_bytes, more)
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (a, b) in [(A, B), (A6, B6)] {
        let udp = Frame::between(a, b).udp(5000, 6000);
        let udp_key = Some(key(17, (a, 5000), (b, 6000)).0);
        rows.push(Row {
            what: "three pieces in order",
            frames: vec![piece(&udp, 1, 0, true), piece(&udp, 1, 72, true), piece(&udp, 1, 136, false)],
            joined: 3,
            unjoined: 0,
            key: udp_key,
        });
        rows.push(Row {
            what: "the last piece first",
            frames: vec![piece(&udp, 2, 136, false), piece(&udp, 2, 0, true), piece(&udp, 2, 72, true)],
            joined: 2,
            unjoined: 1,
            key: udp_key,
        });
        rows.push(Row {
            what: "no first piece",
            frames: vec![piece(&udp, 3, 72, false)],
            joined: 0,
            unjoined: 1,
            key: None,
        });
        rows.push(Row {
            what: "another identification",
            frames: vec![piece(&udp, 4, 0, true), piece(&udp, 5, 72, false)],
            joined: 1,
            unjoined: 1,
            key: udp_key,
        });
        rows.push(Row {
            what: "the way back is another packet",
            frames: vec![piece(&udp, 6, 0, true), piece(&Frame::between(b, a).udp(6000, 5000), 6, 72, false)],
            joined: 1,
            unjoined: 1,
            key: udp_key,
        });
        let tcp = Frame::between(a, b).tcp(40000, 80, "A");
        rows.push(Row {
            what: "TCP",
            frames: vec![piece(&tcp, 7, 0, true), piece(&tcp, 7, 88, false)],
            joined: 2,
            unjoined: 0,
            key: Some(key(6, (a, 40000), (b, 80)).0),
        });
        rows.push(Row {
            what: "the identification of one protocol is not another's",
            frames: vec![piece(&tcp, 8, 0, true), piece(&udp, 8, 88, false)],
            joined: 1,
            unjoined: 1,
            key: Some(key(6, (a, 40000), (b, 80)).0),
        });
        let ping = Frame::between(a, b).echo_request(77, 1);
        let kind = if a == A { 8 } else { 128 };
        rows.push(Row {
            what: "a large ping",
            frames: vec![piece(&ping, 9, 0, true), piece(&ping, 9, 72, false)],
            joined: 2,
            unjoined: 0,
            key: Some(icmp_key(kind, 77, a, b).0),
        });
        let gre = Frame::between(a, b).raw(protocol::GRE);
        rows.push(Row {
            what: "a protocol without ports, the last piece first",
            frames: vec![piece(&gre, 10, 128, false), piece(&gre, 10, 0, true), piece(&gre, 10, 64, true)],
            joined: 3,
            unjoined: 0,
            key: Some(key(protocol::GRE, (a, 0), (b, 0)).0),
        });
    }
    rows
}

#[test]
fn root_fragments_belong_to_the_flow_of_the_first() {
    require_root!();
    Lab::plain(|lab| {
        for row in rows() {
            let before = lab.tally(FIRST, TallyReason::FragmentUnjoined);
            for frame in &row.frames {
                lab.run(FIRST, &frame.build());
            }
            let unjoined = lab.tally(FIRST, TallyReason::FragmentUnjoined).since(before);
            assert_eq!(unjoined.packets, row.unjoined, "{}", row.what);
            let mut joined = Counters::default();
            for (found, entry) in lab.flows() {
                assert_eq!(Some(found), row.key, "{}", row.what);
                for (_, _, counters) in entry.points() {
                    joined += counters;
                }
            }
            assert_eq!(joined.packets, row.joined, "{}", row.what);
            lab.clear();
        }
        assert_eq!(lab.tallies().len(), 1, "nothing else was counted: {:?}", lab.tallies());
    });
}

/// The piece is known at every hook, not only at that of the first one.
#[test]
fn root_fragments_are_joined_at_both_hooks() {
    require_root!();
    let udp = Frame::between(A, B).udp(5000, 6000);
    let (key, side) = key(17, (A, 5000), (B, 6000));
    let frames = [piece(&udp, 1, 0, true), piece(&udp, 1, 72, false)].map(|frame| frame.build());
    Lab::plain(|lab| {
        for frame in &frames {
            lab.run(FIRST, frame);
            lab.run(SECOND, frame);
        }
        let sent = frames.iter().map(|frame| frame.len() as u64).sum();
        let sent = Counters { packets: 2, bytes: sent };
        assert_eq!(lab.point(&key, side, 0), (Some(lab.hook(FIRST)), sent));
        assert_eq!(lab.point(&key, side, 1), (Some(lab.hook(SECOND)), sent));
    });
}

/// A later piece has no TCP header: nothing is read in its place.
#[test]
fn root_a_later_fragment_says_nothing_about_tcp() {
    require_root!();
    let tcp = Frame::between(A, B).tcp(40000, 80, "A");
    let (key, side) = key(6, (A, 40000), (B, 80));
    Lab::with_packet_events(|lab| {
        lab.run(FIRST, &piece(&tcp, 1, 0, true).build());
        let first = lab.flow(&key);
        // Its bytes would be a RST with a closed window.
        lab.run(FIRST, &tcp.clone().payload(&[0x04; 64]).fragment(1, 88, false).build());
        let both = lab.flow(&key);
        let direction = &both.directions[side.index()];
        assert_eq!((direction.zero_windows, direction.retransmits, direction.tcp_flags), (0, 0, 0x10));
        assert_eq!((both.state, both.resets), (first.state, 0));
        assert_eq!(direction.points[0].counters.packets, 2);
        let payloads: Vec<u32> = lab
            .events()
            .into_iter()
            .filter_map(|event| match event {
                Event::Packet(packet) => Some(packet.payload_bytes),
                _ => None,
            })
            .collect();
        assert_eq!(payloads, [64, 64]);
    });
}

/// RFC 1858: a first piece without the whole transport header is refused, and so is what follows it.
#[test]
fn root_a_tiny_first_fragment_is_refused() {
    require_root!();
    let frame = |offset, more| {
        Frame::between(A, B).raw(protocol::TCP).payload(&[0x50; 16]).fragment(1, offset, more).build()
    };
    Lab::plain(|lab| {
        lab.run(FIRST, &frame(0, true));
        lab.run(FIRST, &frame(16, false));
        assert_eq!(lab.tally(FIRST, TallyReason::Truncated).packets, 1);
        assert_eq!(lab.tally(FIRST, TallyReason::FragmentUnjoined).packets, 1);
        assert!(lab.flows().is_empty());
    });
}
