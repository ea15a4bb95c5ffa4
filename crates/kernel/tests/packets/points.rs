//! One connection, one row: whichever way its packets go and wherever they are seen.

use weir_core::event::Event;
use weir_core::flow::{Counters, FlowState, Side};
use weir_core::loss::TallyReason;
use weir_testkit::packet::Frame;
use weir_testkit::require_root;

use crate::expect::{A, A6, B, B6, key};
use crate::lab::{At, BACK_FIRST, BACK_SECOND, FIRST, Lab, SECOND, THIRD};

fn counted(frame: &[u8], packets: u64) -> Counters {
    Counters { packets, bytes: packets * frame.len() as u64 }
}

#[test]
fn root_both_directions_are_one_flow() {
    require_root!();
    for (a, b) in [(A, B), (B, A), (A6, B6)] {
        let (key, side) = key(17, (a, 5000), (b, 6000));
        let request = Frame::between(a, b).udp(5000, 6000).payload(&[7; 10]).build();
        let answer = Frame::between(b, a).udp(6000, 5000).payload(&[7; 900]).build();
        Lab::plain(|lab| {
            lab.run(FIRST, &request);
            assert_eq!(lab.flow(&key).state, FlowState::New);
            lab.run(BACK_FIRST, &answer);
            lab.run(FIRST, &request);
            let entry = lab.flow(&key);
            assert_eq!(lab.flows().len(), 1);
            assert_eq!(
                (entry.state, entry.initiator, entry.midstream),
                (FlowState::Established, side, false)
            );
            assert_eq!(lab.point(&key, side, 0), (Some(lab.hook(FIRST)), counted(&request, 2)));
            assert_eq!(lab.point(&key, side.other(), 0), (Some(lab.hook(BACK_FIRST)), counted(&answer, 1)));
            assert!(entry.last_ns >= entry.first_ns);
            let events = lab.events();
            assert!(matches!(events.as_slice(), [Event::Open(_)]), "{events:?}");
        });
    }
}

#[test]
fn root_the_second_hook_tells_what_was_delivered() {
    require_root!();
    let (key, side) = key(17, (A, 5000), (B, 6000));
    let request = Frame::between(A, B).udp(5000, 6000).payload(&[7; 10]).build();
    let answer = Frame::between(B, A).udp(6000, 5000).build();
    Lab::plain(|lab| {
        for delivered in [true, false, true] {
            lab.run(FIRST, &request);
            if delivered {
                lab.run(SECOND, &request);
            }
        }
        lab.run(BACK_FIRST, &answer);
        lab.run(BACK_SECOND, &answer);
        assert_eq!(lab.point(&key, side, 0), (Some(lab.hook(FIRST)), counted(&request, 3)));
        assert_eq!(lab.point(&key, side, 1), (Some(lab.hook(SECOND)), counted(&request, 2)));
        assert_eq!(lab.point(&key, side.other(), 0), (Some(lab.hook(BACK_FIRST)), counted(&answer, 1)));
        assert_eq!(lab.point(&key, side.other(), 1), (Some(lab.hook(BACK_SECOND)), counted(&answer, 1)));
        assert!(lab.tallies().is_empty());
    });
}

#[test]
fn root_a_third_hook_is_tallied() {
    require_root!();
    let (key, side) = key(17, (A, 5000), (B, 6000));
    let frame = Frame::between(A, B).udp(5000, 6000).payload(&[7; 10]).build();
    Lab::with_packet_events(|lab| {
        for at in [FIRST, SECOND, THIRD, FIRST, SECOND, THIRD] {
            lab.run(at, &frame);
        }
        assert_eq!(lab.point(&key, side, 0).1, counted(&frame, 2));
        assert_eq!(lab.point(&key, side, 1).1, counted(&frame, 2));
        assert_eq!(lab.tally(THIRD, TallyReason::FurtherHook), counted(&frame, 2));
        let counted: Vec<bool> = lab
            .events()
            .iter()
            .filter_map(|event| match event {
                Event::Packet(packet) => Some(packet.counted),
                _ => None,
            })
            .collect();
        assert_eq!(counted, [true, false, false, true, false, false]);
    });
}

/// A veth whose two directions are both on the way, such as a container that talks to itself through its address.
#[test]
fn root_two_directions_of_one_device_are_two_hooks() {
    require_root!();
    let (key, side) = key(17, (A, 5000), (B, 6000));
    let frame = Frame::between(A, B).udp(5000, 6000).build();
    Lab::plain(|lab| {
        lab.run(FIRST, &frame);
        lab.run(BACK_SECOND, &frame);
        assert_eq!(lab.point(&key, side, 0), (Some(lab.hook(FIRST)), counted(&frame, 1)));
        assert_eq!(lab.point(&key, side, 1), (Some(lab.hook(BACK_SECOND)), counted(&frame, 1)));
    });
}

/// Same address and port at both ends (TCP can do that): one direction holds it all.
#[test]
fn root_a_connection_to_itself() {
    require_root!();
    let (key, _) = key(6, (A, 80), (A, 80));
    let segment = |flags| Frame::between(A, A).tcp(80, 80, flags).build();
    Lab::plain(|lab| {
        for flags in ["S", "SA", "A", "FA", "A"] {
            lab.run(FIRST, &segment(flags));
        }
        assert_eq!(lab.flows().len(), 1);
        assert_eq!(lab.point(&key, Side::Low, 0).1, counted(&segment("A"), 5));
        assert_eq!(lab.point(&key, Side::High, 0), (None, Counters::default()));
    });
}

/// The same packet at many hooks: TCP is followed at one of them only.
#[test]
fn root_tcp_is_followed_once() {
    require_root!();
    let (key, side) = key(6, (A, 40000), (B, 80));
    let ways: [&[At]; 2] = [&[FIRST, SECOND, THIRD], &[BACK_FIRST, BACK_SECOND]];
    Lab::plain(|lab| {
        let run = |way: &[At], frame: Frame| {
            for at in way {
                lab.run(*at, &frame.build());
            }
        };
        run(ways[0], Frame::between(A, B).tcp(40000, 80, "S"));
        run(ways[1], Frame::between(B, A).tcp(80, 40000, "SA"));
        run(ways[0], Frame::between(A, B).tcp(40000, 80, "A").seq(1001).payload(&[7; 10]));
        run(ways[0], Frame::between(A, B).tcp(40000, 80, "A").seq(1011).window(0));
        run(ways[1], Frame::between(B, A).tcp(80, 40000, "R"));
        let entry = lab.flow(&key);
        let own = &entry.directions[side.index()];
        assert_eq!((own.retransmits, own.zero_windows, entry.resets), (0, 1, 1));
        let closes = lab.events().into_iter().filter(|event| matches!(event, Event::Close(_))).count();
        assert_eq!(closes, 1);
    });
}
