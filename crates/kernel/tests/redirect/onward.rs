//! Neither the client nor the target is a container: whom the client asked appears to ask the target itself. Both
//! directions are translated at the egress of its veth, and turn there.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use weir_core::event::Hook;
use weir_testkit::packet::Frame;
use weir_testkit::traffic::{EchoServer, udp_echo};
use weir_testkit::{Namespace, require_root};

use crate::lab::{
    API, CLIENT, DROPPED, FAR, HOST, Lab, NEXT, OUTSIDE, OUTSIDE6, REDIRECTED, Rule, VIRTUAL, VIRTUAL6, WEB,
};

use crate::real::{self, ASKED, Host, addresses, transfer};
use crate::transport::{End, Macs, Transport};

const SOMEBODY: &str = "198.51.100.77";
const SOMEBODY6: &str = "2001:db8:77::1";
/// A machine on the same bridge that weir knows nothing of.
const NEIGHBOR: [u8; 6] = [2, 0, 0, 0, 8, 8];
/// Where containers have no clients of their own.
const PORTS: std::ops::Range<u16> = 1024..32768;

/// Client, asked, target.
const ENDS: [[&str; 3]; 2] = [[SOMEBODY, WEB.ipv4, OUTSIDE], [SOMEBODY6, WEB.ipv6, OUTSIDE6]];

/// A packet on its way to `web`: it goes in again where it was about to go out, and there nobody touches it.
#[track_caller]
fn turns(lab: &Lab, frame: &Frame) -> Vec<u8> {
    let run = lab.run_marked(WEB, Hook::Egress, &frame.build(), 0);
    assert_eq!(run.verdict, REDIRECTED);
    assert_ne!(run.mark, 0, "known by its mark");
    let again = lab.run_marked(WEB, Hook::Ingress, &run.frame, run.mark);
    assert_eq!((again.verdict, &again.frame, again.mark), (NEXT, &run.frame, 0));
    run.frame
}

fn is_v6(frame: &[u8]) -> bool {
    frame[12] == 0x86
}

fn number(frame: &[u8], offset: usize) -> u16 {
    let at = offset + if is_v6(frame) { 54 } else { 34 };
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

fn source_port(frame: &[u8]) -> u16 {
    number(frame, 0)
}

/// What stands for the client's port.
fn seen_port(transport: Transport, frame: &[u8]) -> u16 {
    match transport {
        Transport::Echo => number(frame, 4),
        Transport::Other => 0,
        _ => source_port(frame),
    }
}

fn exchange(transport: Transport, ends: [&'static str; 3], ports: bool, sender: [u8; 6]) {
    let what = format!("{transport:?}, {ends:?}, ports: {ports}");
    let [client, asked, target] = ends;
    let client_port = if transport == Transport::Other { 0 } else { 40000 };
    let same = match transport {
        Transport::Echo => client_port,
        Transport::Other => 0,
        _ => 8080,
    };
    let (client, asked, target) =
        ((client, client_port), (asked, same), (target, if ports { 443 } else { same }));
    let rule = if ports { Rule::port(asked, target) } else { Rule::address(asked.0, target.0) };
    Lab::with(&[rule], |lab| {
        let tallied = lab.table.tallies().unwrap();
        // The first packets make it, the others find it.
        for _ in 0..3 {
            let seen = turns(lab, &transport.packet(client, asked, false, (sender, WEB.mac)));
            let port = seen_port(transport, &seen);
            assert!(transport == Transport::Other || PORTS.contains(&port), "{what}: {port}");
            let target = if transport == Transport::Echo { (target.0, port) } else { target };
            let expected = transport.packet((asked.0, port), target, false, (WEB.mac, HOST[0]));
            assert_eq!(seen, expected.build(), "{what}");
            let answer = transport.packet(target, (asked.0, port), true, (HOST[0], WEB.mac));
            let expected = transport.packet(asked, client, true, (WEB.mac, sender));
            assert_eq!(turns(lab, &answer), expected.build(), "{what}");
        }
        let flows = lab.flows();
        assert_eq!(flows.len(), 1, "{what}: {flows:?}");
        let hooks: Vec<_> =
            flows[0].1.points().map(|(_, point, counters)| (point, counters.packets)).collect();
        assert_eq!(hooks.iter().map(|(_, packets)| packets).sum::<u64>(), 6, "{what}: {hooks:?}");
        assert_eq!(lab.table.tallies().unwrap(), tallied, "{what}: once is enough");
        assert_eq!((lab.counters(0).hits, lab.redirects.translations().unwrap().len()), (1, 1), "{what}");
    });
}

#[test]
fn root_every_protocol_goes_on_and_comes_back() {
    require_root!();
    use Transport::{Echo, Other, Sctp, Tcp, Udp};
    for transport in [Tcp, Udp, Echo] {
        exchange(transport, [OUTSIDE, WEB.ipv4, OUTSIDE], false, HOST[0]);
    }
    for ends in ENDS {
        for transport in [Tcp, Udp, Sctp] {
            exchange(transport, ends, true, HOST[0]);
        }
        for transport in [Tcp, Udp, Echo, Sctp, Other] {
            exchange(transport, ends, false, HOST[0]);
            exchange(transport, ends, false, NEIGHBOR);
        }
    }
}

fn udp(from: End, to: End) -> Frame {
    Frame::between(from.0, to.0).udp(from.1, to.1).payload(&[7; 41])
}

/// About what the client sent, and about what it was answered; told by the ends, and by routers before them.
#[test]
fn root_errors_are_told_as_from_whom_was_asked() {
    require_root!();
    for ([client, asked, target], router, icmp) in
        [(ENDS[0], "203.0.113.254", (3, 4)), (ENDS[1], "2001:db8:fe::1", (2, 0))]
    {
        let (client, asked, target) = ((client, 40000), (asked, 8080), (target, 443));
        Lab::with(&[Rule::port(asked, target)], |lab| {
            let to_web = (HOST[0], WEB.mac);
            let from_web = (WEB.mac, HOST[0]);
            let own = (asked.0, source_port(&turns(lab, &udp(client, asked).macs(to_web.0, to_web.1))));
            turns(lab, &udp(target, own).macs(to_web.0, to_web.1));
            let error = |from: &str, to: &str, macs: Macs, quoted: &Frame, bytes| {
                Frame::between(from, to).macs(macs.0, macs.1).icmp_error(icmp.0, icmp.1, quoted, bytes)
            };
            let name = lab.flows()[0].0;
            let mut told = 0;
            for bytes in [usize::MAX, if icmp.0 == 3 { 28 } else { 48 }] {
                for (from, receiver, sent, seen) in [
                    (target.0, client.0, udp(client, asked), udp(own, target)),
                    (router, client.0, udp(client, asked), udp(own, target)),
                    (client.0, target.0, udp(target, own), udp(asked, client)),
                    (router, target.0, udp(target, own), udp(asked, client)),
                ] {
                    let before = error(from, asked.0, to_web, &seen, bytes);
                    let expected = error(asked.0, receiver, from_web, &sent, bytes);
                    assert_eq!(turns(lab, &before), expected.build(), "{from} tells {receiver}, {bytes}");
                    told += 1;
                    let entry = lab.table.read(&name).unwrap().unwrap();
                    assert_eq!(entry.icmp_errors, told, "{from} tells {receiver}");
                }
            }
        });
    }
}

/// The first fragment is translated whole, later ones in their addresses.
#[test]
fn root_fragments_go_on_too() {
    require_root!();
    for [client, asked, target] in ENDS {
        let (client, asked, target) = ((client, 40000), (asked, 8080), (target, 443));
        Lab::with(&[Rule::port(asked, target)], |lab| {
            let piece = |from: End, to: End, macs: Macs, offset, more| {
                let bytes = if offset == 0 { 24 } else { 32 };
                let frame = Frame::between(from.0, to.0).macs(macs.0, macs.1).udp(from.1, to.1);
                frame.payload(&vec![7; bytes]).fragment(77, offset, more)
            };
            let mut port = 0;
            for (offset, more) in [(0, true), (32, true), (64, false)] {
                let seen = turns(lab, &piece(client, asked, (HOST[0], WEB.mac), offset, more));
                if offset == 0 {
                    port = u16::from_be_bytes(seen[seen.len() - 32..][..2].try_into().unwrap());
                    assert!(PORTS.contains(&port), "{port}");
                }
                let expected = piece((asked.0, port), target, (WEB.mac, HOST[0]), offset, more);
                assert_eq!(seen, expected.build(), "{client:?} {offset}");
            }
            for (offset, more) in [(0, true), (32, false)] {
                let seen = turns(lab, &piece(target, (asked.0, port), (HOST[0], WEB.mac), offset, more));
                let expected = piece(asked, client, (WEB.mac, HOST[0]), offset, more);
                assert_eq!(seen, expected.build(), "to {client:?} {offset}");
            }
            assert_eq!(lab.flows().len(), 1);
        });
    }
}

fn asks(lab: &Lab, client_port: u16, flags: &str) -> u16 {
    let frame = Frame::between(SOMEBODY, WEB.ipv4).macs(HOST[0], WEB.mac).tcp(client_port, 8080, flags);
    source_port(&turns(lab, &frame))
}

/// What the container itself sends to the same target, from this port: the port it arrives from.
fn asks_itself(lab: &Lab, port: u16, flags: &str) -> u16 {
    let frame = Frame::between(WEB.ipv4, OUTSIDE).macs(WEB.mac, HOST[0]).tcp(port, 443, flags);
    let (verdict, seen) = lab.sends(WEB, &frame);
    let moved = source_port(&seen);
    let expected = Frame::between(WEB.ipv4, OUTSIDE).macs(WEB.mac, HOST[0]).tcp(moved, 443, flags);
    assert_eq!((verdict, seen), (NEXT, expected.build()));
    moved
}

/// The container's own connection to the same target, from the very port: each keeps to itself.
#[test]
fn root_the_container_speaks_to_the_same_target() {
    require_root!();
    let rule = Rule::port((WEB.ipv4, 8080), (OUTSIDE, 443));
    Lab::with(std::slice::from_ref(&rule), |lab| {
        let first = asks(lab, 40000, "S");
        for own_first in [false, true] {
            lab.clear();
            let (own, onward) = if own_first {
                (asks_itself(lab, first, "S"), asks(lab, 40000, "S"))
            } else {
                let onward = asks(lab, 40000, "S");
                (asks_itself(lab, first, "S"), onward)
            };
            assert_ne!(own, onward);
            assert_eq!(own == first, own_first, "whoever comes first has it");
            // Several times: what a processor has just used must not be taken for the other's.
            for _ in 0..3 {
                let answer =
                    |port| Frame::between(OUTSIDE, WEB.ipv4).macs(HOST[0], WEB.mac).tcp(443, port, "SA");
                let expected =
                    Frame::between(WEB.ipv4, SOMEBODY).macs(WEB.mac, HOST[0]).tcp(8080, 40000, "SA");
                assert_eq!(turns(lab, &answer(onward)), expected.build());
                assert_eq!(lab.gets(WEB, &answer(own)), (NEXT, answer(first).build()));
                assert_eq!((asks(lab, 40000, "A"), asks_itself(lab, first, "A")), (onward, own));
            }
            assert_eq!(lab.flows().len(), 2);
        }
    });
}

#[test]
fn root_clients_that_look_alike_get_other_ports_of_whom_they_asked() {
    require_root!();
    Lab::with(&[Rule::port((WEB.ipv4, 8080), (OUTSIDE, 443))], |lab| {
        let ports: BTreeSet<u16> = (0..100).map(|client| asks(lab, 40000 + client, "S")).collect();
        assert_eq!(ports.len(), 100);
        assert!(ports.iter().all(|port| PORTS.contains(port)), "{ports:?}");
        lab.clear();
        let again: BTreeSet<u16> = (0..100).map(|client| asks(lab, 40000 + client, "S")).collect();
        assert_eq!(ports, again, "the same connection has the same port again");
    });
}

/// Rules are not chained, and what a rule says of the container's own connections is about these only.
#[test]
fn root_what_goes_on_is_not_decided_again() {
    require_root!();
    let rules = [Rule::port((WEB.ipv4, 8080), (OUTSIDE, 443)), Rule::port((OUTSIDE, 443), (API.ipv4, 80))];
    Lab::with(&rules, |lab| {
        for round in 0..2 {
            assert!(PORTS.contains(&asks(lab, 40000 + round, "S")));
        }
        assert_eq!((lab.counters(0).hits, lab.counters(1).hits), (2, 0));
        let own = Frame::between(WEB.ipv4, OUTSIDE).macs(WEB.mac, HOST[0]).tcp(50000, 443, "S");
        let expected = Frame::between(WEB.ipv4, API.ipv4).macs(WEB.mac, API.mac).tcp(50000, 80, "S");
        assert_eq!(lab.sends(WEB, &own), (NEXT, expected.build()));
        assert_eq!((lab.counters(0).hits, lab.counters(1).hits), (2, 1));
    });
}

/// One target here, one outside; of an address that nobody has, too.
#[test]
fn root_some_stay_and_some_go_on() {
    require_root!();
    for (asked, client, api, target, mac) in [
        (WEB.ipv4, SOMEBODY, API.ipv4, OUTSIDE, WEB.mac),
        (WEB.ipv6, SOMEBODY6, API.ipv6, OUTSIDE6, WEB.mac),
        (VIRTUAL, SOMEBODY, API.ipv4, OUTSIDE, API.mac),
        (VIRTUAL6, SOMEBODY6, API.ipv6, OUTSIDE6, API.mac),
    ] {
        let at = if mac == WEB.mac { WEB } else { API };
        let rule = Rule { targets: vec![(api, 80), (target, 443)], ..Rule::port((asked, 8080), (api, 80)) };
        Lab::with(&[rule], |lab| {
            let (mut stay, mut go) = (0, 0);
            for port in 40000..40100 {
                let request = Frame::between(client, asked).macs(HOST[0], mac).tcp(port, 8080, "S");
                let run = lab.run_marked(at, Hook::Egress, &request.build(), 0);
                if run.mark == 0 {
                    let seen = Frame::between(client, api).macs(HOST[0], API.mac).tcp(port, 80, "S");
                    assert_eq!(run.frame, seen.build());
                    stay += 1;
                } else {
                    let own = source_port(&run.frame);
                    let seen = Frame::between(asked, target).macs(mac, HOST[0]).tcp(own, 443, "S");
                    assert_eq!(run.frame, seen.build());
                    go += 1;
                }
            }
            assert!(stay > 25 && go > 25, "{stay} and {go}");
            assert_eq!(lab.counters(0).hits, 100);
        });
    }
}

/// Connections outlive their rule, also those that ended and began again by the same name before.
#[test]
fn root_what_has_gone_on_goes_on_without_its_rule() {
    require_root!();
    Lab::with(&[Rule::port((WEB.ipv4, 8080), (OUTSIDE, 443))], |lab| {
        let port = asks(lab, 40000, "S");
        assert_eq!(asks(lab, 40000, "R"), port);
        assert_eq!(asks(lab, 40000, "S"), port);
        lab.set(&[]);
        assert_eq!(asks(lab, 40000, "A"), port);
        let answer = Frame::between(OUTSIDE, WEB.ipv4).macs(HOST[0], WEB.mac).tcp(443, port, "A");
        let expected = Frame::between(WEB.ipv4, SOMEBODY).macs(WEB.mac, HOST[0]).tcp(8080, 40000, "A");
        assert_eq!(turns(lab, &answer), expected.build());
        let other = Frame::between(SOMEBODY, WEB.ipv4).macs(HOST[0], WEB.mac).tcp(40001, 8080, "S");
        assert_eq!(lab.gets(WEB, &other), (NEXT, other.build()));
    });
}

#[test]
fn root_where_it_cannot_go_on_a_connection_is_refused() {
    require_root!();
    let ask = |lab: &Lab, asked: &str, port| {
        let frame = Frame::between(SOMEBODY, asked).macs(HOST[0], WEB.mac).udp(port, 8080);
        let at = if asked == VIRTUAL { API } else { WEB };
        lab.gets(at, &frame).0
    };
    // Its answers would not find this host.
    Lab::with(&[Rule::port((WEB.ipv4, 8080), (OUTSIDE, 443)).source("198.51.100.1")], |lab| {
        assert_eq!((ask(lab, WEB.ipv4, 1), lab.counters(0).refused_no_target), (DROPPED, 1));
    });
    // A server that asks itself, with nothing to tell the two sides by.
    Lab::with(&[Rule::address(WEB.ipv4, OUTSIDE)], |lab| {
        let frame = Frame::between(OUTSIDE, WEB.ipv4).macs(HOST[0], WEB.mac).raw(47);
        assert_eq!((lab.gets(WEB, &frame).0, lab.counters(0).refused_no_port), (DROPPED, 1));
    });
    // Nobody is at another port of an address that nobody has.
    Lab::with(&[Rule::port((VIRTUAL, 8080), (VIRTUAL, 80))], |lab| {
        assert_eq!((ask(lab, VIRTUAL, 1), lab.counters(0).refused_no_target), (DROPPED, 1));
    });
    Lab::with_table_of(4, &[Rule::port((WEB.ipv4, 8080), (OUTSIDE, 443))], |lab| {
        for port in 1..=4 {
            assert_eq!(ask(lab, WEB.ipv4, port), REDIRECTED);
        }
        assert_eq!((ask(lab, WEB.ipv4, 5), lab.counters(0).refused_flows_full), (DROPPED, 1));
        assert_eq!(ask(lab, WEB.ipv4, 1), REDIRECTED, "what is open stays");
    });
}

/// A container asks the same, and goes its own way: its rule is about it too.
#[test]
fn root_containers_go_their_own_way_to_the_same_target() {
    require_root!();
    Lab::with(&[Rule::port((WEB.ipv4, 8080), (OUTSIDE, 443))], |lab| {
        assert!(PORTS.contains(&asks(lab, 40000, "S")));
        for (client, bridge) in [(CLIENT, 0), (FAR, 1)] {
            let request =
                Frame::between(client.ipv4, WEB.ipv4).macs(client.mac, WEB.mac).tcp(40000, 8080, "S");
            let seen =
                Frame::between(client.ipv4, OUTSIDE).macs(client.mac, HOST[bridge]).tcp(40000, 443, "S");
            assert_eq!(lab.sends(client, &request), (NEXT, seen.build()));
        }
        assert_eq!(lab.counters(0).hits, 3);
    });
}

/// The packets of real stacks, where the host believes no source that is not where it should be.
#[test]
fn root_the_host_and_others_reach_somebody_outside() {
    require_root!();
    let host = Host::new();
    // As `Topology::world`, without devices that not every kernel has.
    let world = Namespace::new("world");
    host.topology.host().ip_batch(&format!(
        "link add wan type veth peer name eth0 netns {}\nlink set wan up\naddress add 203.0.113.1/24 dev wan\n\
         address add fd97::1/64 dev wan nodad\naddress add fe80::1/64 dev wan nodad\n",
        world.name()
    ));
    world.ip_batch(
        "link set eth0 up\naddress add 203.0.113.7/24 dev eth0\naddress add fd97::7/64 dev eth0 nodad\n\
         route add default via 203.0.113.1\nroute add ::/0 via fd97::1\n",
    );
    host.topology.host().sysctl("ipv4/conf/all/rp_filter", "1");
    let outside: [IpAddr; 2] = ["203.0.113.7", "fd97::7"].map(|ip| ip.parse().unwrap());
    for (web, outside) in addresses(host.container("web")).into_iter().zip(outside) {
        let (tcp, udp) = (EchoServer::tcp(&world, outside), EchoServer::udp(&world, outside));
        for client in [host.topology.host(), &world] {
            host.set(&[real::rule(web, tcp.address())]);
            let before = host.hits(1);
            transfer(client, SocketAddr::new(web, ASKED), 1 << 20);
            host.set(&[real::rule(web, udp.address())]);
            udp_echo(client, SocketAddr::new(web, ASKED), 5, 512);
            udp_echo(client, SocketAddr::new(web, ASKED), 1, 4000);
            assert_eq!(host.hits(1) - before, 3, "{client:?} to {outside}");
        }
    }
}
