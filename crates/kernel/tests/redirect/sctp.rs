//! SCTP's checksum, which covers the ports: whatever a packet carries, it is what an
//! implementation says of the whole packet that shares nothing with the programs'.

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use weir_core::event::Hook;
use weir_core::loss::TallyReason;
use weir_testkit::packet::Frame;
use weir_testkit::require_root;

use crate::lab::{API, CLIENT, DROPPED, Lab, NEXT, Rule, WEB};

#[derive(Debug, Clone)]
struct Packet {
    ipv6: bool,
    /// Of a client, and one of a range of a server's.
    ports: (u16, u16),
    chunks: Vec<u8>,
    /// Units of IPv4's options, or of an extension header.
    options: usize,
    /// Ethernet's, which no checksum covers.
    padding: Vec<u8>,
    /// Else the checksum waits for a device.
    complete: bool,
}

impl Packet {
    fn build(&self, from: &str, to: &str, ports: (u16, u16)) -> Vec<u8> {
        let mut frame = Frame::between(from, to).macs(CLIENT.mac, API.mac);
        if self.ipv6 && self.options > 0 {
            frame = frame.extension(60, &vec![1; self.options * 8 - 2]);
        } else {
            frame = frame.ipv4_options(&vec![1; self.options * 4]);
        }
        let frame =
            if self.complete { frame.sctp_complete(ports.0, ports.1) } else { frame.sctp(ports.0, ports.1) };
        [frame.payload(&self.chunks).build(), self.padding.clone()].concat()
    }

    /// Where a frame's ports are.
    fn transport(&self) -> usize {
        14 + if self.ipv6 { 40 + self.options * 8 } else { 20 + self.options * 4 }
    }
}

fn packets() -> impl Strategy<Value = Packet> {
    // Short ones and long ones alike; a test run takes less than a page.
    let length = prop_oneof![0..64usize, 0..600usize, 0..3300usize];
    let chunks = length.prop_flat_map(|length| prop::collection::vec(any::<u8>(), length));
    let ports = (any::<u16>(), 8000..=8999u16);
    let padding = prop_oneof![Just(Vec::new()), prop::collection::vec(any::<u8>(), 0..60)];
    (any::<bool>(), ports, chunks, 0..3usize, padding, prop::bool::weighted(0.8)).prop_map(
        |(ipv6, ports, chunks, options, padding, complete)| Packet {
            ipv6,
            ports,
            chunks,
            options,
            padding,
            complete,
        },
    )
}

#[test]
fn root_any_sctp_packet_has_its_checksum_there_and_back() {
    require_root!();
    let rules = [
        Rule::ports((WEB.ipv4, 8000, 8999), (API.ipv4, 1)),
        Rule::ports((WEB.ipv6, 8000, 8999), (API.ipv6, 1)),
    ];
    Lab::with(&rules, |lab| {
        let (moved, longest) = (Cell::new(0), Cell::new(0));
        let mut runner =
            TestRunner::new(Config { cases: 1500, failure_persistence: None, ..Config::default() });
        runner
            .run(&(packets(), prop::bool::weighted(0.3)), |(packet, collide)| {
                let (client, web, api) = if packet.ipv6 {
                    (CLIENT.ipv6, WEB.ipv6, API.ipv6)
                } else {
                    (CLIENT.ipv4, WEB.ipv4, API.ipv4)
                };
                let (mut port, asked) = packet.ports;
                let target = asked - 7999;
                if collide {
                    // A direct connection that has the name already.
                    let direct = packet.build(client, api, (port, target));
                    prop_assert_eq!(lab.run_bytes(CLIENT, Hook::Ingress, &direct), (NEXT, direct));
                }
                let sent = packet.build(client, web, packet.ports);
                let (verdict, seen) = lab.run_bytes(CLIENT, Hook::Ingress, &sent);
                if collide {
                    let at = packet.transport();
                    let other = u16::from_be_bytes([seen[at], seen[at + 1]]);
                    prop_assert_ne!(other, port);
                    port = other;
                    moved.set(moved.get() + 1);
                }
                prop_assert_eq!(verdict, NEXT);
                prop_assert_eq!(seen, packet.build(client, api, (port, target)));
                let answer = packet.build(api, client, (target, port));
                let (verdict, got) = lab.run_bytes(CLIENT, Hook::Egress, &answer);
                prop_assert_eq!(verdict, NEXT);
                prop_assert_eq!(got, packet.build(web, client, (asked, packet.ports.0)));
                // What follows finds its translation where bpf/recent.h keeps it.
                let (_, seen) = lab.run_bytes(CLIENT, Hook::Ingress, &sent);
                prop_assert_eq!(seen, packet.build(client, api, (port, target)));
                longest.set(longest.get().max(sent.len()));
                lab.clear();
                Ok(())
            })
            .unwrap();
        assert!(moved.get() > 300 && longest.get() > 3000, "{} {}", moved.get(), longest.get());
    });
}

/// One byte of chunks more or less is another power of x: each of them.
#[test]
fn root_sctp_packets_of_every_length() {
    require_root!();
    Lab::with(&[Rule::port((WEB.ipv4, 8080), (API.ipv4, 80))], |lab| {
        let packet = |to: &str, port, length| {
            let chunks: Vec<u8> = (0..length).map(|byte| (byte * 7 + 3) as u8).collect();
            Frame::between(CLIENT.ipv4, to)
                .macs(CLIENT.mac, API.mac)
                .sctp_complete(40000, port)
                .payload(&chunks)
        };
        for length in 0..3300usize {
            let seen = lab.sends(CLIENT, &packet(WEB.ipv4, 8080, length)).1;
            assert_eq!(seen, packet(API.ipv4, 80, length).build(), "{length}");
        }
    });
}

/// No fragment but the last tells how much the checksum covers.
#[test]
fn root_sctp_fragments_get_another_address_and_no_other_port() {
    require_root!();
    let first = |to: &str, port| {
        let frame = Frame::between(CLIENT.ipv4, to).macs(CLIENT.mac, API.mac);
        frame.sctp_complete(40000, port).payload(&[7; 36]).fragment(77, 0, true)
    };
    let later = |to: &str| {
        let frame = Frame::between(CLIENT.ipv4, to).macs(CLIENT.mac, API.mac);
        frame.sctp(0, 0).payload(&[7; 32]).fragment(77, 48, false)
    };
    let refused = |lab: &Lab| {
        let tallies = lab.table.tallies().unwrap();
        let refused = tallies.iter().filter(|(key, _)| key.1 == TallyReason::RedirectRefused);
        refused.map(|(_, counters)| counters.packets).sum::<u64>()
    };
    Lab::with(&[Rule::address(WEB.ipv4, API.ipv4)], |lab| {
        assert_eq!(lab.sends(CLIENT, &first(WEB.ipv4, 8080)), (NEXT, first(API.ipv4, 8080).build()));
        assert_eq!(lab.sends(CLIENT, &later(WEB.ipv4)), (NEXT, later(API.ipv4).build()));
    });
    Lab::with(&[Rule::port((WEB.ipv4, 8080), (API.ipv4, 80))], |lab| {
        let before = refused(lab);
        assert_eq!(lab.sends(CLIENT, &first(WEB.ipv4, 8080)).0, DROPPED);
        assert_eq!(refused(lab), before + 1);
        // The association goes on, and its answers may be too long as well.
        let frame = |from: &str, to: &str, ports: (u16, u16)| {
            Frame::between(from, to)
                .macs(CLIENT.mac, API.mac)
                .sctp_complete(ports.0, ports.1)
                .payload(&[7; 36])
        };
        let sent = frame(CLIENT.ipv4, WEB.ipv4, (40000, 8080));
        assert_eq!(lab.sends(CLIENT, &sent).1, frame(CLIENT.ipv4, API.ipv4, (40000, 80)).build());
        let answer = frame(API.ipv4, CLIENT.ipv4, (80, 40000));
        assert_eq!(lab.gets(CLIENT, &answer.clone().fragment(78, 0, true)).0, DROPPED);
        assert_eq!(refused(lab), before + 2);
        assert_eq!(lab.gets(CLIENT, &answer).1, frame(WEB.ipv4, CLIENT.ipv4, (8080, 40000)).build());
    });
}
