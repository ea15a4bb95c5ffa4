//! Any packet of a translated connection: there and back again it is what it was, and
//! every checksum is right in between, by a plain sum over the bytes (RFC 1071).

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use weir_core::event::Hook;
use weir_testkit::packet::Frame;
use weir_testkit::require_root;

use crate::lab::{API, CLIENT, Lab, NEXT, OUTSIDE, OUTSIDE6, REDIRECTED, Rule, WEB};

/// The one's complement sum of 16-bit words; 0xffff over what holds its own checksum.
fn sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u64;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Panics if a checksum of an Ethernet frame with TCP, UDP or ICMP is wrong.
#[track_caller]
fn check(frame: &[u8], fragment: bool) {
    let ipv6 = frame[12] == 0x86;
    let (addresses, mut transport, mut protocol, end);
    if ipv6 {
        addresses = &frame[22..54];
        transport = 54;
        protocol = frame[20];
        end = 54 + usize::from(u16::from_be_bytes([frame[18], frame[19]]));
        while matches!(protocol, 0 | 43 | 60) {
            protocol = frame[transport];
            transport += 8 + usize::from(frame[transport + 1]) * 8;
        }
    } else {
        addresses = &frame[26..34];
        let header = usize::from(frame[14] & 15) * 4;
        assert_eq!(sum(&[&frame[14..14 + header]]), 0xffff, "the IP header's checksum in {frame:02x?}");
        transport = 14 + header;
        protocol = frame[23];
        end = 14 + usize::from(u16::from_be_bytes([frame[16], frame[17]]));
    }
    if fragment {
        return;
    }
    let body = &frame[transport..end];
    let length = (body.len() as u16).to_be_bytes();
    let pseudo: [&[u8]; 3] = [addresses, &[0, protocol], &length];
    if protocol == 17 && body[6..8] == [0, 0] {
        return;
    }
    let whole = if protocol == 1 { sum(&[body]) } else { sum(&[pseudo[0], pseudo[1], pseudo[2], body]) };
    assert_eq!(whole, 0xffff, "the checksum of protocol {protocol} in {frame:02x?}");
}

#[derive(Debug, Clone)]
struct Packet {
    ipv6: bool,
    kind: u8,
    number: u16,
    payload: Vec<u8>,
    options: usize,
    vlan: bool,
    no_checksum: bool,
}

impl Packet {
    fn build(&self, from: &str, to: &str, answer: bool) -> Vec<u8> {
        let mut frame = Frame::between(from, to);
        if self.vlan {
            frame = frame.vlan(7);
        }
        if self.ipv6 && self.options > 0 {
            frame = frame.extension(60, &vec![1; self.options * 8 - 2]);
        } else if self.options > 0 {
            frame = frame.ipv4_options(&vec![1; self.options * 4]);
        }
        let (a, b) = if answer { (8080, self.number) } else { (self.number, 8080) };
        let frame = match self.kind {
            0 => frame.tcp(a, b, if answer { "SA" } else { "S" }),
            1 => frame.udp(a, b),
            _ if answer => frame.echo_reply(self.number, 1),
            _ => frame.echo_request(self.number, 1),
        };
        let mut bytes = frame.payload(&self.payload).build();
        if self.kind == 1 && self.no_checksum {
            let at = bytes.len() - self.payload.len() - 2;
            bytes[at..at + 2].fill(0);
        }
        bytes
    }
}

/// Without its VLAN tag, for the checker.
fn untagged(packet: &Packet, frame: &[u8]) -> Vec<u8> {
    if packet.vlan { [&frame[..12], &frame[16..]].concat() } else { frame.to_vec() }
}

fn packets() -> impl Strategy<Value = Packet> {
    let payload = prop::collection::vec(any::<u8>(), 0..300);
    (any::<bool>(), 0..3u8, any::<u16>(), payload, 0..3usize, any::<bool>(), any::<bool>()).prop_map(
        |(ipv6, kind, number, payload, options, vlan, no_checksum)| Packet {
            ipv6,
            kind,
            number,
            payload,
            options,
            vlan,
            no_checksum,
        },
    )
}

#[test]
fn root_there_and_back_is_the_identity() {
    require_root!();
    // To the address alone, to one port, by collision to any port (ICMP: identifier).
    let to_port = |asked, target| Rule { protocol: 0, ..Rule::ports((asked, 8080, 8080), (target, 80)) };
    let rules = [
        to_port(WEB.ipv4, API.ipv4),
        to_port(WEB.ipv6, API.ipv6),
        Rule::address(WEB.ipv4, API.ipv4),
        Rule::address(WEB.ipv6, API.ipv6),
    ];
    Lab::with(&rules, |lab| {
        let moved = Cell::new(0);
        let mut runner =
            TestRunner::new(Config { cases: 600, failure_persistence: None, ..Config::default() });
        runner
            .run(&(packets(), any::<bool>()), |(packet, collide)| {
                let (client, web, api) = if packet.ipv6 {
                    (CLIENT.ipv6, WEB.ipv6, API.ipv6)
                } else {
                    (CLIENT.ipv4, WEB.ipv4, API.ipv4)
                };
                if collide {
                    // A direct connection that has the name already.
                    let direct = match packet.kind {
                        0 => Frame::between(client, api).tcp(packet.number, 80, "S"),
                        1 => Frame::between(client, api).udp(packet.number, 80),
                        _ => Frame::between(client, api).echo_request(packet.number, 1),
                    };
                    prop_assert_eq!(lab.sends(CLIENT, &direct), (NEXT, direct.build()));
                }
                let sent = packet.build(client, web, false);
                check(&untagged(&packet, &sent), false);
                let (verdict, seen) = lab.run_bytes(CLIENT, Hook::Ingress, &sent);
                prop_assert_eq!(verdict, NEXT);
                check(&untagged(&packet, &seen), false);
                prop_assert_ne!(&seen, &sent);
                // Turned round by hand: what a server would answer, with the same bytes.
                let plain = Packet { vlan: packet.vlan, ..packet.clone() };
                let asked = plain.build(web, client, true);
                // The answer that the server sends is the one that translates to `asked`:
                // found by translating the request's change backwards.
                let answer = turned(&packet, &seen, &asked, [api, client]);
                check(&untagged(&packet, &answer), false);
                let (verdict, got) = lab.run_bytes(CLIENT, Hook::Egress, &answer);
                prop_assert_eq!(verdict, NEXT);
                check(&untagged(&packet, &got), false);
                prop_assert_eq!(&got[12..], &asked[12..]);
                if collide {
                    moved.set(moved.get() + 1);
                }
                lab.clear();
                Ok(())
            })
            .unwrap();
        assert!(moved.get() > 150);
    });
}

/// The answer `asked` as the server sends it that saw `seen`, from the one of these ends to the other.
fn turned(packet: &Packet, seen: &[u8], asked: &[u8], ends: [&str; 2]) -> Vec<u8> {
    let base = 14 + if packet.vlan { 4 } else { 0 };
    let header = match (packet.ipv6, packet.options) {
        (true, options) => 40 + options * 8,
        (false, options) => 20 + options * 4,
    };
    let at = base + header;
    let number = |frame: &[u8], at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    let seen_number = if packet.kind == 2 { number(seen, at + 4) } else { number(seen, at) };
    let server_port = if packet.kind == 2 { 0 } else { number(seen, at + 2) };
    let mut frame = Frame::between(ends[0], ends[1]);
    if packet.vlan {
        frame = frame.vlan(7);
    }
    if packet.ipv6 && packet.options > 0 {
        frame = frame.extension(60, &vec![1; packet.options * 8 - 2]);
    } else if packet.options > 0 {
        frame = frame.ipv4_options(&vec![1; packet.options * 4]);
    }
    let frame = match packet.kind {
        0 => frame.tcp(server_port, seen_number, "SA"),
        1 => frame.udp(server_port, seen_number),
        _ => frame.echo_reply(seen_number, 1),
    };
    let mut bytes = frame.payload(&packet.payload).build();
    if packet.kind == 1 && packet.no_checksum {
        bytes[at + 6..at + 8].fill(0);
    }
    assert_eq!(bytes.len(), asked.len());
    bytes
}

/// The same where both directions are translated at one hook, and the server sees whom the client asked.
#[test]
fn root_onward_and_back_is_the_identity() {
    require_root!();
    const SOMEBODY: [&str; 2] = ["198.51.100.77", "2001:db8:77::1"];
    let rules = [
        Rule::ports((WEB.ipv4, 8080, 8080), (OUTSIDE, 80)),
        Rule::ports((WEB.ipv6, 8080, 8080), (OUTSIDE6, 80)),
        Rule::address(WEB.ipv4, OUTSIDE),
        Rule::address(WEB.ipv6, OUTSIDE6),
    ];
    Lab::with(&rules, |lab| {
        let mut runner =
            TestRunner::new(Config { cases: 400, failure_persistence: None, ..Config::default() });
        runner
            .run(&packets(), |packet| {
                let version = usize::from(packet.ipv6);
                let (client, web) = (SOMEBODY[version], [WEB.ipv4, WEB.ipv6][version]);
                let sent = packet.build(client, web, false);
                let (verdict, seen) = lab.run_bytes(WEB, Hook::Egress, &sent);
                prop_assert_eq!(verdict, REDIRECTED);
                check(&untagged(&packet, &seen), false);
                let asked = packet.build(web, client, true);
                let answer = turned(&packet, &seen, &asked, [[OUTSIDE, OUTSIDE6][version], web]);
                check(&untagged(&packet, &answer), false);
                let (verdict, got) = lab.run_bytes(WEB, Hook::Egress, &answer);
                prop_assert_eq!(verdict, REDIRECTED);
                check(&untagged(&packet, &got), false);
                prop_assert_eq!(&got[12..], &asked[12..]);
                lab.clear();
                Ok(())
            })
            .unwrap();
    });
}

/// The first fragment is translated whole, later ones in their addresses.
#[test]
fn root_fragments_go_the_same_way() {
    require_root!();
    let rules = [Rule::port((WEB.ipv4, 8080), (API.ipv4, 80)), Rule::port((WEB.ipv6, 8080), (API.ipv6, 80))];
    for (client, web, api) in [(CLIENT.ipv4, WEB.ipv4, API.ipv4), (CLIENT.ipv6, WEB.ipv6, API.ipv6)] {
        Lab::with(&rules, |lab| {
            let piece = |from, to, ports: (u16, u16), offset, more| {
                let frame = Frame::between(from, to).macs(CLIENT.mac, API.mac).udp(ports.0, ports.1);
                let frame = if offset == 0 { frame.payload(&[7; 24]) } else { frame.payload(&[7; 32]) };
                frame.fragment(77, offset, more)
            };
            for (offset, more) in [(0, true), (32, true), (64, false)] {
                let sent = piece(client, web, (40000, 8080), offset, more);
                let seen = piece(client, api, (40000, 80), offset, more);
                assert_eq!(lab.sends(CLIENT, &sent), (NEXT, seen.build()), "{client} {offset}");
                assert_eq!(lab.gets(API, &seen), (NEXT, seen.build()));
            }
            for (offset, more) in [(0, true), (32, false)] {
                let sent = piece(api, client, (80, 40000), offset, more);
                let seen = piece(web, client, (8080, 40000), offset, more);
                assert_eq!(lab.gets(CLIENT, &sent), (NEXT, seen.build()), "to {client} {offset}");
            }
            assert_eq!(lab.flows().len(), 1);
        });
    }
}
