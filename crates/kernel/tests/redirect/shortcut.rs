//! `--accelerate`: what two containers of one bridge send each other goes past it.

use weir_core::event::Hook;
use weir_testkit::packet::Frame;
use weir_testkit::require_root;

use crate::lab::{API, CLIENT, Container, FAR, HOST, Lab, NEXT, OUTSIDE, REDIRECTED};

fn frame(from: (&str, Container), to: (&str, [u8; 6])) -> Frame {
    Frame::between(from.0, to.0).macs(from.1.mac, to.1)
}

#[test]
fn root_two_containers_of_a_bridge_take_the_short_way() {
    require_root!();
    Lab::accelerated(&[], |lab| {
        for (client, api) in [(CLIENT.ipv4, API.ipv4), (CLIENT.ipv6, API.ipv6)] {
            lab.clear();
            let there = frame((client, CLIENT), (api, API.mac)).tcp(40000, 80, "S");
            let back = frame((api, API), (client, CLIENT.mac)).tcp(80, 40000, "SA");
            for _ in 0..2 {
                assert_eq!(lab.sends(CLIENT, &there), (REDIRECTED, there.build()), "unchanged");
                assert_eq!(lab.sends(API, &back), (REDIRECTED, back.build()));
            }
            // Counted where it was sent, and as delivered where it is received.
            let [(_, entry)] = lab.flows()[..] else { panic!("{:?}", lab.flows()) };
            let points: Vec<_> =
                entry.points().map(|(_, at, counters)| (at.ifindex, at.hook, counters.packets)).collect();
            for container in [CLIENT, API] {
                for hook in [Hook::Ingress, Hook::Egress] {
                    assert!(points.contains(&(lab.ifindex(container), hook, 2)), "{points:?}");
                }
            }
        }
    });
}

#[test]
fn root_everything_else_goes_as_it_went() {
    require_root!();
    Lab::accelerated(&[], |lab| {
        let rows = [
            ("another bridge", frame((CLIENT.ipv4, CLIENT), (FAR.ipv4, HOST[0]))),
            ("outside", frame((CLIENT.ipv4, CLIENT), (OUTSIDE, HOST[0]))),
            ("by way of the host", frame((CLIENT.ipv4, CLIENT), (API.ipv4, HOST[0]))),
            ("somebody behind the container", frame(("10.0.0.77", CLIENT), (API.ipv4, API.mac))),
            ("a tag", frame((CLIENT.ipv4, CLIENT), (API.ipv4, API.mac)).vlan(7)),
            ("to itself", frame((CLIENT.ipv4, CLIENT), (CLIENT.ipv4, CLIENT.mac))),
        ];
        for (what, frame) in rows {
            lab.clear();
            let frame = frame.udp(5000, 6000);
            assert_eq!(lab.sends(CLIENT, &frame), (NEXT, frame.build()), "{what}");
        }
        // What begins where it is received was sent by somebody whose veth is not watched.
        lab.clear();
        let there = frame((CLIENT.ipv4, CLIENT), (API.ipv4, API.mac)).udp(5000, 6000);
        assert_eq!(lab.gets(API, &there), (NEXT, there.build()));
        assert_eq!(lab.sends(CLIENT, &there), (NEXT, there.build()));
    });
}
