//! What a rule's connections have brought: bytes of both directions, each counted where it is seen first, and kept when
//! the flow has gone.

use weir_core::event::Hook;
use weir_core::flow::FlowEntry;
use weir_core::redirect::{Compiled, RuleId};
use weir_testkit::packet::Frame;
use weir_testkit::require_root;

use crate::lab::{API, CLIENT, Container, DROPPED, FAR, HOST, Lab, OUTSIDE, Rule, WEB, compiled, id};

fn to_api() -> Rule {
    Rule::port((WEB.ipv4, 8080), (API.ipv4, 80))
}

fn length(frame: &Frame) -> u64 {
    frame.build().len() as u64
}

/// As `weir observe` tells it: sent and received.
fn told(entry: &FlowEntry) -> u64 {
    entry.directions.iter().map(|direction| direction.points[0].counters.bytes).sum()
}

fn udp(payload: &[u8]) -> Frame {
    Frame::between(CLIENT.ipv4, WEB.ipv4).macs(CLIENT.mac, WEB.mac).udp(40000, 8080).payload(payload)
}

fn answer(payload: &[u8]) -> Frame {
    Frame::between(API.ipv4, CLIENT.ipv4).macs(API.mac, CLIENT.mac).udp(80, 40000).payload(payload)
}

/// The only number whose place rule 1 has, too.
const SAME_PLACE: u32 = 1 + RuleId::PLACES;

fn renumbered(mut compiled: Compiled, number: u32) -> Compiled {
    let new = RuleId::new(number, 0).unwrap();
    compiled.numbers = [number].into();
    let rule = compiled.rules.remove(&id(0)).unwrap();
    compiled.rules.insert(new, rule);
    compiled.matches.values_mut().flatten().for_each(|one| one.rule = new);
    compiled
}

#[test]
fn root_a_frame_counts_once_whoever_sees_it() {
    require_root!();
    let client = |to: Container| Frame::between(CLIENT.ipv4, to.ipv4).macs(CLIENT.mac, to.mac);
    let client6 = |to: Container| Frame::between(CLIENT.ipv6, to.ipv6).macs(CLIENT.mac, to.mac);
    type Asks = fn(Frame, (u16, u16)) -> Frame;
    let tcp: Asks = |frame, ports| frame.tcp(ports.0, ports.1, "S");
    let udp: Asks = |frame, ports| frame.udp(ports.0, ports.1).payload(&[7; 900]);
    let sctp: Asks = |frame, ports| frame.sctp(ports.0, ports.1);
    for (what, asks, tcp_answer) in [("TCP", tcp, true), ("UDP", udp, false), ("SCTP", sctp, false)] {
        for (asked, server, client, from) in
            [(WEB.ipv4, API.ipv4, client(WEB), CLIENT.ipv4), (WEB.ipv6, API.ipv6, client6(WEB), CLIENT.ipv6)]
        {
            Lab::with(&[Rule::port((asked, 8080), (server, 80))], |lab| {
                let request = asks(client.clone(), (40000, 8080));
                let seen = lab.sends(CLIENT, &request).1;
                lab.run_bytes(API, Hook::Egress, &seen);
                assert_eq!(lab.counters(0).bytes, length(&request), "{what}, {asked}: there");
                let back = Frame::between(server, from).macs(API.mac, CLIENT.mac);
                let back = match tcp_answer {
                    true => back.tcp(80, 40000, "SA"),
                    false => asks(back, (80, 40000)),
                };
                lab.sends(API, &back);
                lab.gets(CLIENT, &back);
                assert_eq!(lab.counters(0).bytes, length(&request) + length(&back), "{what}, {asked}");
                let [(_, entry)] = lab.flows()[..] else { panic!("{:?}", lab.flows()) };
                assert_eq!(lab.counters(0).bytes, told(&entry), "{what}, {asked}: as its flow");
            });
        }
    }
}

/// Asked by somebody outside: decided where it reaches whom it asked, and beyond.
#[test]
fn root_of_other_clients_too() {
    require_root!();
    for target in [(API.ipv4, 80), (FAR.ipv4, 80), ("192.0.2.77", 443)] {
        Lab::with(&[Rule::port((WEB.ipv4, 8080), target)], |lab| {
            let request = Frame::between(OUTSIDE, WEB.ipv4).macs(HOST[0], WEB.mac).tcp(40000, 8080, "S");
            lab.gets(WEB, &request);
            assert_eq!(lab.counters(0).bytes, length(&request), "{target:?}");
            let [(_, entry)] = lab.flows()[..] else { panic!("{:?}", lab.flows()) };
            assert_eq!(told(&entry), length(&request));
        });
    }
}

#[test]
fn root_what_a_flow_brought_stays_when_it_goes() {
    require_root!();
    Lab::with(&[to_api()], |lab| {
        let (there, back) = (udp(b"a question"), answer(b"an answer"));
        let mut expected = 0;
        for _ in 0..3 {
            lab.sends(CLIENT, &there);
            lab.gets(CLIENT, &back);
            expected += length(&there) + length(&back);
            assert_eq!(lab.counters(0).bytes, expected);
            lab.clear();
            assert_eq!(lab.counters(0).bytes, expected, "the flow has gone");
        }
        assert_eq!(lab.counters(0).hits, 3);
        // What is not redirected, what is somebody else's, and what is refused.
        let direct = Frame::between(CLIENT.ipv4, API.ipv4).macs(CLIENT.mac, API.mac);
        lab.sends(CLIENT, &direct.clone().udp(40000, 80));
        lab.sends(CLIENT, &direct.tcp(40001, 80, "S"));
        lab.set(&[Rule { targets: vec![], ..to_api() }]);
        let other = Frame::between(CLIENT.ipv4, WEB.ipv4).macs(CLIENT.mac, WEB.mac).udp(40009, 8080);
        assert_eq!(lab.sends(CLIENT, &other).0, DROPPED);
        assert_eq!(lab.counters(0).bytes, expected);
    });
}

/// The same addresses and ports once more: the entry's counters go on, the rule may be another one.
#[test]
fn root_a_connection_that_begins_anew_counts_for_its_own_rule() {
    require_root!();
    Lab::with(&[to_api()], |lab| {
        let asks = |flags: &str, seq, ack| {
            let frame = Frame::between(CLIENT.ipv4, WEB.ipv4).macs(CLIENT.mac, WEB.mac);
            let frame = frame.tcp(40000, 8080, flags).seq(seq).ack(ack);
            lab.sends(CLIENT, &frame);
            length(&frame)
        };
        let answers = |flags: &str, seq, ack| {
            let frame = Frame::between(API.ipv4, CLIENT.ipv4).macs(API.mac, CLIENT.mac);
            let frame = frame.tcp(80, 40000, flags).seq(seq).ack(ack);
            lab.gets(CLIENT, &frame);
            length(&frame)
        };
        let mut first = asks("S", 1000, 0) + answers("SA", 5000, 1001) + asks("A", 1001, 5001);
        first += asks("FA", 1001, 5001) + answers("FA", 5001, 1002) + asks("A", 1002, 5002);
        assert_eq!(lab.counters(0).bytes, first);
        let more = asks("S", 9000, 0);
        assert_eq!(lab.counters(0).bytes, first + more, "the same rule");
        let more = more + answers("RA", 0, 9001);
        // A second rule, which comes first.
        let before = Rule { protocol: 6, ..to_api() };
        lab.redirects
            .set(&{
                let mut both = compiled(lab, &[to_api(), before]);
                both.matches.values_mut().for_each(|matches| matches.reverse());
                both
            })
            .unwrap();
        let second = asks("S", 20000, 0) + answers("SA", 7000, 20001);
        assert_eq!((lab.counters(0).bytes, lab.counters(1).bytes), (first + more, second));
        assert_eq!((lab.counters(0).hits, lab.counters(1).hits), (2, 1));
        assert_eq!(lab.flows().len(), 1, "one entry for all three");
    });
}

#[test]
fn root_a_total_stays_with_its_rule_and_ends_with_it() {
    require_root!();
    Lab::with(&[to_api()], |lab| {
        let (there, back) = (udp(b"a question"), answer(b"an answer"));
        lab.sends(CLIENT, &there);
        let mut total = length(&there);
        // Others come and go; and nobody is there whom the rule is about.
        lab.set(&[to_api(), Rule::port((WEB.ipv4, 81), (API.ipv4, 80))]);
        lab.set(&[Rule { fast_path: true, ..to_api() }]);
        lab.redirects.set(&Compiled { numbers: [1].into(), ..Compiled::default() }).unwrap();
        assert_eq!((lab.counters(0).bytes, lab.counters(0).hits), (total, 1));
        // The connection that is open goes on.
        lab.gets(CLIENT, &back);
        total += length(&back);
        lab.set(&[to_api()]);
        assert_eq!((lab.counters(0).bytes, lab.counters(0).hits), (total, 1));

        // Removed, and another one has its place: what is open does not count for that.
        lab.redirects.set(&renumbered(compiled(lab, &[to_api()]), SAME_PLACE)).unwrap();
        let all = || lab.redirects.counters().unwrap();
        lab.sends(CLIENT, &there);
        assert_eq!(all().keys().collect::<Vec<_>>(), [&SAME_PLACE]);
        assert_eq!((all()[&SAME_PLACE].bytes, all()[&SAME_PLACE].hits), (0, 0));
        lab.clear();
        lab.sends(CLIENT, &there);
        assert_eq!((all()[&SAME_PLACE].bytes, all()[&SAME_PLACE].hits), (length(&there), 1));
        // The first one's number once more: from nothing.
        lab.set(&[to_api()]);
        assert_eq!((lab.counters(0).bytes, lab.counters(0).hits), (0, 0));
    });
}
