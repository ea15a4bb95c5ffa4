//! Where there is no room: each loss has its own counter, and it is exact.

use weir_core::event::Event;
use weir_core::flow::Counters;
use weir_core::loss::TallyReason;
use weir_testkit::packet::Frame;
use weir_testkit::require_root;

use crate::expect::{A, B, key};
use crate::lab::{BACK_FIRST, FIRST, Lab};

fn from_port(port: u16) -> Vec<u8> {
    Frame::between(A, B).udp(port, 6000).payload(&[7; 10]).build()
}

#[test]
fn root_a_full_table_refuses_new_flows_and_keeps_the_old() {
    require_root!();
    Lab::with_table_of(4, |lab| {
        for port in 1..=10 {
            lab.run(FIRST, &from_port(port));
        }
        let refused = Counters { packets: 6, bytes: 6 * from_port(1).len() as u64 };
        assert_eq!(lab.tally(FIRST, TallyReason::TableFull), refused);
        assert_eq!(lab.flows().len(), 4);

        // Those that are in go on, and the one that leaves makes room for one.
        let answer = Frame::between(B, A).udp(6000, 1).build();
        lab.run(BACK_FIRST, &answer);
        assert_eq!(lab.tally(BACK_FIRST, TallyReason::TableFull), Counters::default());
        lab.remove(&key(17, (A, 1), (B, 6000)).0);
        lab.run(FIRST, &from_port(10));
        lab.run(FIRST, &from_port(1));
        assert_eq!(lab.flow(&key(17, (A, 10), (B, 6000)).0).points().count(), 1);
        assert_eq!(lab.tally(FIRST, TallyReason::TableFull).packets, 7);

        let opened = lab.events().iter().filter(|event| matches!(event, Event::Open(_))).count();
        assert_eq!(opened, 5, "a flow without an entry is not told");
    });
}

/// Nobody reads: what was delivered and what was lost are all that happened.
#[test]
fn root_a_full_ring_loses_events_by_kind_and_no_packet() {
    require_root!();
    const PACKETS: u64 = 150_000;
    let (key, side) = key(17, (B, 53), (A, 5000));
    let frame = Frame::between(B, A).udp(53, 5000).payload(&[7; 100]).build();
    Lab::with_table_of(4, |lab| {
        lab.repeat(FIRST, &frame, PACKETS as u32);
        lab.run(FIRST, &Frame::between(A, B).tcp(40000, 80, "S").build());
        lab.run(BACK_FIRST, &Frame::between(B, A).tcp(80, 40000, "RA").build());
        lab.run(FIRST, &Frame::between(A, B).tcp(40000, 80, "S").build());

        for kind in ["open", "close", "reopen"] {
            assert_eq!(lab.lost(&format!("{kind}_ring_full")), 1, "{kind}");
        }
        let (packets_lost, dns_lost) = (lab.lost("packet_ring_full"), lab.lost("dns_ring_full"));
        let (mut opens, mut packets, mut dns) = (0, 0, 0);
        for event in lab.events() {
            match event {
                Event::Open(_) => opens += 1,
                Event::Packet(_) => packets += 1,
                Event::Dns(_) => dns += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(opens, 1);
        assert!(packets_lost > 0 && dns_lost > 0);
        assert_eq!(packets + packets_lost, PACKETS + 3);
        assert_eq!(dns + dns_lost, PACKETS);
        assert_eq!(lab.point(&key, side, 0).1.packets, PACKETS);

        // Once somebody has read, events pass again; incarnations were counted meanwhile.
        lab.run(BACK_FIRST, &Frame::between(B, A).tcp(80, 40000, "RA").build());
        let events = lab.events();
        let [Event::Packet(_), Event::Close(close)] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!(close.incarnation, 1);
    });
}
