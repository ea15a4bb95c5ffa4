//! Which connections are redirected, to whom, and what happens where that cannot be done.

use std::collections::BTreeMap;

use weir_core::flow::FlowState;
use weir_kernel::{RedirectCounters, monotonic_now_ns};
use weir_testkit::packet::Frame;
use weir_testkit::require_root;

use crate::lab::{API, CLIENT, Container, DROPPED, FAR, HOST, Lab, NEXT, OUTSIDE, Rule, WEB, id};

fn from_client(from: &str, to: &str) -> Frame {
    Frame::between(from, to).macs(CLIENT.mac, WEB.mac)
}

fn udp(port: u16) -> Frame {
    from_client(CLIENT.ipv4, WEB.ipv4).udp(port, 8080).payload(b"hello")
}

fn tcp(flags: &str) -> Frame {
    from_client(CLIENT.ipv4, WEB.ipv4).tcp(40000, 8080, flags)
}

fn to_api() -> Rule {
    Rule::port((WEB.ipv4, 8080), (API.ipv4, 80))
}

/// Where a frame's IPv4 packet goes: address and port.
fn goes_to(frame: &[u8]) -> (String, u16) {
    let address: [u8; 4] = frame[30..34].try_into().unwrap();
    (std::net::Ipv4Addr::from(address).to_string(), u16::from_be_bytes([frame[36], frame[37]]))
}

fn comes_from(frame: &[u8]) -> (String, u16) {
    let address: [u8; 4] = frame[26..30].try_into().unwrap();
    (std::net::Ipv4Addr::from(address).to_string(), u16::from_be_bytes([frame[34], frame[35]]))
}

#[track_caller]
fn untouched(lab: &Lab, at: Container, frame: &Frame) {
    assert_eq!(lab.sends(at, frame), (NEXT, frame.build()));
}

#[track_caller]
fn redirected(lab: &Lab, frame: &Frame) -> (String, u16) {
    let (verdict, bytes) = lab.sends(CLIENT, frame);
    assert_eq!(verdict, NEXT);
    goes_to(&bytes)
}

fn api() -> (String, u16) {
    (API.ipv4.to_owned(), 80)
}

#[test]
fn root_connections_older_than_the_rule_stay_untouched() {
    require_root!();
    Lab::with(&[], |lab| {
        untouched(lab, CLIENT, &udp(5000));
        untouched(lab, CLIENT, &tcp("S"));
        lab.set(&[to_api()]);
        untouched(lab, CLIENT, &udp(5000));
        untouched(lab, CLIENT, &tcp("A"));
        // Of a connection that was never seen: it is as old, whatever it is.
        untouched(lab, CLIENT, &from_client(CLIENT.ipv4, WEB.ipv4).tcp(40001, 8080, "A"));
        assert_eq!(redirected(lab, &udp(5001)), api());
        // And those that are redirected stay so.
        lab.set(&[]);
        assert_eq!(redirected(lab, &udp(5001)), api());
        untouched(lab, CLIENT, &udp(5002));
    });
}

#[test]
fn root_a_closed_connection_is_decided_anew() {
    require_root!();
    Lab::with(&[], |lab| {
        // Before the rule.
        untouched(lab, CLIENT, &tcp("S"));
        untouched(lab, CLIENT, &tcp("R"));
        lab.set(&[to_api()]);
        untouched(lab, CLIENT, &tcp("A"));
        assert_eq!(redirected(lab, &tcp("S")), api());
        assert_eq!(redirected(lab, &tcp("A")), api());
        assert_eq!(redirected(lab, &tcp("R")), api());
        // The same connection again.
        assert_eq!(redirected(lab, &tcp("S")), api());
        assert_eq!(redirected(lab, &tcp("R")), api());
        // To another target.
        lab.set(&[Rule::port((WEB.ipv4, 8080), (FAR.ipv4, 81))]);
        assert_eq!(redirected(lab, &tcp("RA")), api());
        assert_eq!(redirected(lab, &tcp("S")), (FAR.ipv4.to_owned(), 81));
        assert_eq!(lab.redirects.translations().unwrap().len(), 1);
        assert_eq!(redirected(lab, &tcp("R")), (FAR.ipv4.to_owned(), 81));
        // And to none.
        lab.set(&[]);
        untouched(lab, CLIENT, &tcp("S"));
        untouched(lab, CLIENT, &tcp("A"));
        assert_eq!(lab.redirects.translations().unwrap(), []);
    });
}

#[test]
fn root_the_first_match_that_fits_decides() {
    require_root!();
    let udp_only = Rule { protocol: 17, ..Rule::port((WEB.ipv4, 8080), (API.ipv4, 1)) };
    let expired = Rule { expires_ns: 1, ..Rule::port((WEB.ipv4, 8080), (API.ipv4, 2)) };
    let limited = Rule { clients: vec!["10.0.0.64/26"], ..Rule::port((WEB.ipv4, 8080), (API.ipv4, 3)) };
    let port = Rule::port((WEB.ipv4, 8080), (API.ipv4, 4));
    let all = Rule::address(WEB.ipv4, FAR.ipv4);
    let to = |rules: &[Rule], frame: Frame| {
        let mut went = None;
        Lab::with(rules, |lab| went = Some(redirected(lab, &frame)));
        went.unwrap()
    };
    let rules = [udp_only, expired, limited, port, all];
    assert_eq!(to(&rules, udp(5000)), (API.ipv4.into(), 1));
    assert_eq!(to(&rules, tcp("S")), (API.ipv4.into(), 4));
    let near = from_client("10.0.0.77", WEB.ipv4).tcp(40000, 8080, "S");
    assert_eq!(to(&rules, near), (API.ipv4.into(), 3));
    let other = from_client(CLIENT.ipv4, WEB.ipv4).tcp(40000, 8081, "S");
    assert_eq!(to(&rules, other), (FAR.ipv4.into(), 8081));
    Lab::with(&rules[..4], |lab| {
        untouched(lab, CLIENT, &from_client(CLIENT.ipv4, WEB.ipv4).tcp(40000, 8081, "S"));
        untouched(lab, CLIENT, &from_client(CLIENT.ipv4, API.ipv4).tcp(40000, 8080, "S"));
    });
}

#[test]
fn root_clients_are_limited_by_any_prefix() {
    require_root!();
    let rows = [
        (CLIENT.ipv4, WEB.ipv4, "0.0.0.0/0", true),
        (CLIENT.ipv4, WEB.ipv4, "10.0.0.2/32", true),
        (CLIENT.ipv4, WEB.ipv4, "10.0.0.3/32", false),
        (CLIENT.ipv4, WEB.ipv4, "10.0.0.0/31", false),
        (CLIENT.ipv4, WEB.ipv4, "::/0", true), // all there is, mapped addresses too
        (CLIENT.ipv6, WEB.ipv6, "fd00::/64", true),
        (CLIENT.ipv6, WEB.ipv6, "fd00::2/128", true),
        (CLIENT.ipv6, WEB.ipv6, "fd00::3/128", false),
        (CLIENT.ipv6, WEB.ipv6, "0.0.0.0/0", false),
    ];
    for (client, asked, net, applies) in rows {
        let target = if client == CLIENT.ipv4 { API.ipv4 } else { API.ipv6 };
        let rule = Rule { clients: vec![net], ..Rule::port((asked, 8080), (target, 80)) };
        Lab::with(&[rule], |lab| {
            lab.sends(CLIENT, &from_client(client, asked).udp(5000, 8080));
            assert_eq!(lab.counters(0).hits, u64::from(applies), "{client} in {net}");
        });
    }
}

#[test]
fn root_a_rule_expires_by_the_kernels_clock() {
    require_root!();
    let mut rule = to_api();
    Lab::with(&[], |lab| {
        // First there is time enough for the slowest machine.
        rule.expires_ns = monotonic_now_ns() + 3_600_000_000_000;
        lab.set(std::slice::from_ref(&rule));
        assert_eq!(redirected(lab, &udp(5000)), api());
        rule.expires_ns = monotonic_now_ns() + 200_000_000;
        lab.set(std::slice::from_ref(&rule));
        weir_testkit::wait_until(std::time::Duration::from_secs(5), "the rule expires", || {
            monotonic_now_ns() > rule.expires_ns
        });
        untouched(lab, CLIENT, &udp(5001));
        // What it has begun goes on.
        assert_eq!(redirected(lab, &udp(5000)), api());
    });
}

#[test]
fn root_targets_have_their_share_and_connections_their_target() {
    require_root!();
    let rule = Rule {
        targets: vec![(API.ipv4, 80), (API.ipv4, 80), (API.ipv4, 80), (FAR.ipv4, 80)],
        ..Rule::port((WEB.ipv4, 8080), (API.ipv4, 80))
    };
    Lab::with(std::slice::from_ref(&rule), |lab| {
        let mut share: BTreeMap<String, u32> = BTreeMap::new();
        let mut first = Vec::new();
        for port in 1..=2000 {
            let target = redirected(lab, &udp(port)).0;
            *share.entry(target.clone()).or_default() += 1;
            first.push(target);
            if port % 100 == 0 {
                lab.clear();
            }
        }
        // Three quarters of 2,000; the binomial deviation is 19.
        assert!((1400..1600).contains(&share[API.ipv4]), "{share:?}");
        for (port, target) in (1..).zip(&first) {
            assert_eq!(&redirected(lab, &udp(port)).0, target, "a connection has the same target again");
            if port % 100 == 0 {
                lab.clear();
            }
        }
    });
}

/// Many more than a processor remembers: each has its own translation, whoever else has taken its place.
#[test]
fn root_many_connections_in_turns() {
    require_root!();
    Lab::with_table_of(4096, &[to_api()], |lab| {
        for round in 0..3 {
            for port in 1..=3000 {
                let request = udp(port).macs(CLIENT.mac, API.mac);
                let (_, seen) = lab.sends(CLIENT, &request);
                assert_eq!((comes_from(&seen).1, goes_to(&seen)), (port, api()), "round {round}");
                let answer = Frame::between(API.ipv4, CLIENT.ipv4).macs(API.mac, CLIENT.mac);
                let expected = Frame::between(WEB.ipv4, CLIENT.ipv4).macs(API.mac, CLIENT.mac);
                assert_eq!(lab.gets(CLIENT, &answer.udp(80, port)).1, expected.udp(8080, port).build());
            }
        }
        assert_eq!((lab.flows().len(), lab.counters(0).hits), (3000, 3000));
    });
}

/// One of several targets may be what the client asked for.
#[test]
fn root_what_was_asked_may_be_the_target() {
    require_root!();
    let rule = Rule { targets: vec![(WEB.ipv4, 8080)], ..to_api() };
    Lab::with(&[rule], |lab| {
        untouched(lab, CLIENT, &udp(5000));
        assert_eq!(lab.counters(0), RedirectCounters::default());
        assert_eq!(lab.redirects.translations().unwrap(), []);
    });
}

#[test]
fn root_direct_and_redirected_at_once() {
    require_root!();
    // From one port to both: the server could not tell the two apart.
    for direct_first in [false, true] {
        Lab::with(&[to_api()], |lab| {
            let direct = from_client(CLIENT.ipv4, API.ipv4).tcp(40000, 80, "S");
            let ports = if direct_first {
                let ((_, there), (_, through)) = (lab.sends(CLIENT, &direct), lab.sends(CLIENT, &tcp("S")));
                assert_eq!(there, direct.build());
                (comes_from(&there).1, comes_from(&through).1)
            } else {
                let (_, through) = lab.sends(CLIENT, &tcp("S"));
                let (verdict, there) = lab.sends(CLIENT, &direct);
                assert_eq!((verdict, comes_from(&through).1), (NEXT, 40000));
                assert_eq!(goes_to(&there), api());
                (comes_from(&there).1, comes_from(&through).1)
            };
            assert_ne!(ports.0, ports.1);
            let moved = if direct_first { ports.1 } else { ports.0 };
            assert!((32768..61000).contains(&moved), "{moved}");
            // Each answer comes back to the connection that asked.
            for (port, from) in [(ports.0, (API.ipv4, 80)), (ports.1, (WEB.ipv4, 8080))] {
                let answer =
                    Frame::between(API.ipv4, CLIENT.ipv4).macs(API.mac, CLIENT.mac).tcp(80, port, "SA");
                let expected =
                    Frame::between(from.0, CLIENT.ipv4).macs(API.mac, CLIENT.mac).tcp(from.1, 40000, "SA");
                assert_eq!(lab.gets(CLIENT, &answer), (NEXT, expected.build()), "{direct_first} {port}");
            }
            // And what follows goes the same way.
            let followed = |frame: &Frame| comes_from(&lab.sends(CLIENT, frame).1).1;
            assert_eq!(followed(&from_client(CLIENT.ipv4, API.ipv4).tcp(40000, 80, "A")), ports.0);
            assert_eq!(followed(&tcp("A")), ports.1);
            assert_eq!(lab.flows().len(), 2);
        });
    }
}

/// Behind a forged source all clients look alike.
#[test]
fn root_clients_that_look_alike_get_other_ports() {
    require_root!();
    let rule = to_api().source("198.51.100.1");
    Lab::with(&[rule], |lab| {
        let mut ports = BTreeMap::new();
        for client in 10..40 {
            let client = format!("10.0.0.{client}");
            let (_, frame) = lab.sends(CLIENT, &from_client(&client, WEB.ipv4).udp(5000, 8080));
            let (source, port) = comes_from(&frame);
            assert_eq!((source.as_str(), goes_to(&frame)), ("198.51.100.1", api()));
            assert_eq!(ports.insert(port, client), None, "port {port} twice");
        }
        assert_eq!(ports[&5000], "10.0.0.10");
        for (port, client) in ports {
            let answer = Frame::between(API.ipv4, "198.51.100.1").macs(API.mac, HOST[0]).udp(80, port);
            let expected = Frame::between(WEB.ipv4, &client).macs(API.mac, CLIENT.mac).udp(8080, 5000);
            assert_eq!(lab.sends(API, &answer).1, expected.build());
        }
    });
}

#[test]
fn root_ping_and_sctp_collide_too() {
    require_root!();
    Lab::with(&[Rule::address(WEB.ipv4, API.ipv4)], |lab| {
        let ping = |to: &str| from_client(CLIENT.ipv4, to).echo_request(77, 1).payload(b"ping");
        untouched(lab, CLIENT, &ping(API.ipv4));
        let (verdict, frame) = lab.sends(CLIENT, &ping(WEB.ipv4));
        let moved = u16::from_be_bytes([frame[38], frame[39]]);
        let expected = from_client(CLIENT.ipv4, API.ipv4)
            .macs(CLIENT.mac, API.mac)
            .echo_request(moved, 1)
            .payload(b"ping");
        assert_eq!((verdict, frame), (NEXT, expected.build()));
        assert_ne!(moved, 77);
        let pong = |from: &str, id| Frame::between(from, CLIENT.ipv4).echo_reply(id, 1).payload(b"ping");
        assert_eq!(lab.gets(CLIENT, &pong(API.ipv4, moved)).1, pong(WEB.ipv4, 77).build());
        assert_eq!(lab.gets(CLIENT, &pong(API.ipv4, 77)).1, pong(API.ipv4, 77).build());

        let sctp = |to: &str, port| from_client(CLIENT.ipv4, to).sctp_complete(port, 8);
        untouched(lab, CLIENT, &sctp(API.ipv4, 7));
        let (verdict, frame) = lab.sends(CLIENT, &sctp(WEB.ipv4, 7));
        let (_, moved) = comes_from(&frame);
        let expected = sctp(API.ipv4, moved).macs(CLIENT.mac, API.mac);
        assert_eq!((verdict, frame), (NEXT, expected.build()));
        assert_ne!(moved, 7);
        let answer = |from: &str, port| Frame::between(from, CLIENT.ipv4).sctp_complete(8, port);
        assert_eq!(lab.gets(CLIENT, &answer(API.ipv4, moved)).1, answer(WEB.ipv4, 7).build());
        assert_eq!(lab.gets(CLIENT, &answer(API.ipv4, 7)).1, answer(API.ipv4, 7).build());
        assert_eq!(lab.counters(0).refused_no_port, 0);
    });
}

#[test]
fn root_a_full_table_refuses_and_keeps() {
    require_root!();
    Lab::with_table_of(8, &[to_api()], |lab| {
        for port in 1..=8 {
            assert_eq!(redirected(lab, &udp(port)), api());
        }
        // What the rule is about is dropped, for the client must not reach the wrong
        // server; the rest goes its way uncounted.
        assert_eq!(lab.sends(CLIENT, &udp(9)).0, DROPPED);
        untouched(lab, CLIENT, &from_client(CLIENT.ipv4, WEB.ipv4).udp(9, 9));
        for port in 1..=8 {
            assert_eq!(redirected(lab, &udp(port)), api());
        }
        assert_eq!((lab.counters(0).hits, lab.counters(0).refused_flows_full), (8, 1));
        let refused: u64 = lab
            .table
            .tallies()
            .unwrap()
            .iter()
            .filter(|((_, reason), _)| reason.name() == "redirect_refused")
            .map(|(_, counters)| counters.packets)
            .sum();
        assert_eq!(refused, 1);
        // One that ends makes room.
        let (key, _) = lab.flows()[0];
        lab.table.remove(&key).unwrap();
        assert_eq!(redirected(lab, &udp(9)), api());
        assert_eq!(lab.redirects.translations().unwrap().len(), 8);
    });
}

#[test]
fn root_without_a_target_a_connection_is_refused() {
    require_root!();
    let rule = Rule { targets: vec![], ..to_api() };
    Lab::with(&[rule], |lab| {
        assert_eq!(lab.sends(CLIENT, &udp(5000)).0, DROPPED);
        assert_eq!(lab.counters(0).refused_no_target, 1);
        assert_eq!(lab.flows(), []);
    });
}

/// A frame that is flooded to a veth of somebody else decides nothing.
#[test]
fn root_connections_are_decided_where_they_are_going() {
    require_root!();
    for target in [(API.ipv4, 80), (OUTSIDE, 443)] {
        Lab::with(&[Rule::port((WEB.ipv4, 8080), target)], |lab| {
            let request = Frame::between("192.0.2.77", WEB.ipv4).macs(HOST[0], WEB.mac).udp(5000, 8080);
            assert_eq!(lab.gets(API, &request), (NEXT, request.build()));
            assert_eq!(lab.counters(0), RedirectCounters::default());
        });
    }
}

#[test]
fn root_the_row_knows_both_names() {
    require_root!();
    Lab::with(&[to_api()], |lab| {
        lab.sends(CLIENT, &tcp("S"));
        let [(key, entry)] = lab.flows()[..] else { panic!("{:?}", lab.flows()) };
        let translation = entry.translation.unwrap();
        assert_eq!(translation.rule, Some(id(0)));
        assert_eq!(translation.asked.port(translation.client), Some(40000));
        assert_eq!(translation.asked.port(translation.client.other()), Some(8080));
        assert_eq!(translation.asked.address(translation.client.other()).to_string(), WEB.ipv4);
        assert_eq!(key.address(entry.initiator.other()).to_string(), API.ipv4);
        assert_eq!(entry.state, FlowState::New);
        assert_eq!(lab.redirects.translations().unwrap(), [(key, translation)]);
        // With its flow go both of its translations.
        lab.table.remove(&key).unwrap();
        assert_eq!(lab.redirects.translations().unwrap(), []);
        untouched(lab, CLIENT, &tcp("A"));
    });
}

/// Counters begin with their rule, stay over changes, and end with it.
#[test]
fn root_counters_live_as_long_as_their_rule() {
    require_root!();
    Lab::with(&[to_api()], |lab| {
        lab.sends(CLIENT, &udp(1));
        lab.set(&[Rule { fast_path: true, ..to_api() }, to_api()]);
        lab.sends(CLIENT, &udp(2));
        assert_eq!((lab.counters(0).hits, lab.counters(1).hits), (2, 0));
        lab.set(&[]);
        assert!(lab.redirects.counters().unwrap().is_empty());
    });
}
