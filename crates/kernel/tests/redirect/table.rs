//! Every translation, direction and protocol: what goes in, what comes out.

use weir_core::event::Hook;
use weir_testkit::packet::Frame;
use weir_testkit::require_root;

use crate::lab::{
    API, CLIENT, Container, FAR, HOST, Lab, NEXT, OUTSIDE, OUTSIDE6, REDIRECTED, Rule, VIRTUAL, VIRTUAL6, WEB,
};
use crate::transport::{Macs, Transport};

/// A packet at a hook, and what becomes of it.
struct Step {
    at: (Container, Hook),
    before: Frame,
    verdict: i32,
    after: Frame,
}

struct Case {
    what: String,
    rule: Rule,
    steps: Vec<Step>,
}

/// The four packets of an exchange as client and server see it, by address and port.
struct Exchange {
    transport: Transport,
    client: (&'static str, u16),
    asked: (&'static str, u16),
    /// As the server sees them.
    seen: (&'static str, u16),
    target: (&'static str, u16),
}

impl Exchange {
    fn request(&self, macs: Macs) -> Frame {
        self.transport.packet(self.client, self.asked, false, macs)
    }
    fn request_seen(&self, macs: Macs) -> Frame {
        self.transport.packet(self.seen, self.target, false, macs)
    }
    fn answer(&self, macs: Macs) -> Frame {
        self.transport.packet(self.target, self.seen, true, macs)
    }
    fn answer_seen(&self, macs: Macs) -> Frame {
        self.transport.packet(self.asked, self.client, true, macs)
    }
}

fn step(at: Container, hook: Hook, before: Frame, verdict: i32, after: Frame) -> Step {
    Step { at: (at, hook), before, verdict, after }
}

/// A container asks; the host's bridge or tables carry both directions.
fn client_edge(what: &str, rule: Rule, exchange: &Exchange, server: Option<Container>, near: bool) -> Case {
    // Whom it asked: somebody on its bridge, or beyond.
    let asked_mac = [2, 7, 7, 7, 7, 7];
    let next = match server {
        Some(server) if near => server.mac,
        _ => HOST[0],
    };
    let request_seen = exchange.request_seen((CLIENT.mac, next));
    let answer = exchange.answer((next, CLIENT.mac));
    let mut steps = vec![step(
        CLIENT,
        Hook::Ingress,
        exchange.request((CLIENT.mac, asked_mac)),
        NEXT,
        request_seen.clone(),
    )];
    if let Some(server) = server {
        steps.push(step(server, Hook::Egress, request_seen.clone(), NEXT, request_seen));
        steps.push(step(server, Hook::Ingress, answer.clone(), NEXT, answer.clone()));
    }
    let answer_seen = exchange.answer_seen((next, CLIENT.mac));
    steps.push(step(CLIENT, Hook::Egress, answer, NEXT, answer_seen));
    Case { what: what.into(), rule, steps }
}

const C: (&str, u16) = (CLIENT.ipv4, 40000);
const C6: (&str, u16) = (CLIENT.ipv6, 40000);

fn same(address: &'static str, number: u16) -> (&'static str, u16) {
    (address, number)
}

fn client_cases() -> Vec<Case> {
    use Transport::{Echo, Other, Sctp, Tcp, Udp};
    let mut cases = Vec::new();
    for transport in [Tcp, Udp, Sctp] {
        let mut case = |what: &str, rule, client, asked, target, server: Option<Container>, near| {
            let exchange = Exchange { transport, client, asked, seen: client, target };
            let what = format!("{what}, {transport:?}");
            cases.push(client_edge(&what, rule, &exchange, server, near));
        };
        let port = |asked, target| Rule::port(asked, target);
        let (asked, asked6) = ((WEB.ipv4, 8080), (WEB.ipv6, 8080));
        let (web, web6) = ((WEB.ipv4, 80), (WEB.ipv6, 80));
        case("another port", port(asked, web), C, asked, web, Some(WEB), true);
        case("another port, IPv6", port(asked6, web6), C6, asked6, web6, Some(WEB), true);
        let (api, api6) = ((API.ipv4, 80), (API.ipv6, 80));
        case("another container", port(asked, api), C, asked, api, Some(API), true);
        case("another container, IPv6", port(asked6, api6), C6, asked6, api6, Some(API), true);
        let (api, api6) = ((API.ipv4, 8080), (API.ipv6, 8080));
        case("the same port", port(asked, api), C, asked, api, Some(API), true);
        case("the same port, IPv6", port(asked6, api6), C6, asked6, api6, Some(API), true);
        let (far, far6) = ((FAR.ipv4, 80), (FAR.ipv6, 80));
        case("another bridge", port(asked, far), C, asked, far, Some(FAR), false);
        case("another bridge, IPv6", port(asked6, far6), C6, asked6, far6, Some(FAR), false);
        let (out, out6) = ((OUTSIDE, 443), (OUTSIDE6, 443));
        case("outside", port(asked, out), C, asked, out, None, false);
        case("outside, IPv6", port(asked6, out6), C6, asked6, out6, None, false);
        let (nobody, nobody6) = ((VIRTUAL, 80), (VIRTUAL6, 80));
        case("a virtual address", port(nobody, api), C, nobody, api, Some(API), true);
        case("a virtual address, IPv6", port(nobody6, api6), C6, nobody6, api6, Some(API), true);
        let range = Rule::ports((WEB.ipv4, 8000, 8099), (API.ipv4, 9000));
        case("a range", range.clone(), C, (WEB.ipv4, 8000), (API.ipv4, 9000), Some(API), true);
        case("a range's end", range, C, (WEB.ipv4, 8099), (API.ipv4, 9099), Some(API), true);
    }
    for (transport, number) in [(Tcp, 8080), (Udp, 1), (Echo, 77), (Sctp, 9), (Other, 0)] {
        for (client, asked, target) in [(CLIENT.ipv4, WEB.ipv4, API.ipv4), (CLIENT.ipv6, WEB.ipv6, API.ipv6)]
        {
            let port = if matches!(transport, Echo) { number } else { 40000 };
            let exchange = Exchange {
                transport,
                client: (client, port),
                asked: (asked, number),
                seen: (client, port),
                target: same(target, number),
            };
            let what = format!("an address, {transport:?} from {client}");
            cases.push(client_edge(&what, Rule::address(asked, target), &exchange, Some(API), true));
        }
    }
    cases
}

/// The host asks, or somebody outside: the connection is translated where it would
/// reach whom it asked for, and the host sees the answers come from there.
fn server_cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for transport in [Transport::Tcp, Transport::Udp, Transport::Sctp] {
        for (client, web, api, far) in
            [(OUTSIDE, WEB.ipv4, API.ipv4, FAR.ipv4), (OUTSIDE6, WEB.ipv6, API.ipv6, FAR.ipv6)]
        {
            let targets = [
                ("the same container", WEB, web, NEXT, NEXT, WEB.mac),
                ("another container", API, api, REDIRECTED, NEXT, HOST[0]),
                ("another bridge", FAR, far, REDIRECTED, REDIRECTED, HOST[1]),
            ];
            for (what, server, target, there, back, gateway) in targets {
                let exchange = Exchange {
                    transport,
                    client: (client, 5000),
                    asked: (web, 8080),
                    seen: (client, 5000),
                    target: (target, 80),
                };
                let gateway = if server == WEB { HOST[0] } else { gateway };
                let seen = exchange.request_seen((HOST[0], server.mac));
                let mut steps =
                    vec![step(WEB, Hook::Egress, exchange.request((HOST[0], WEB.mac)), there, seen.clone())];
                if server != WEB {
                    steps.push(step(server, Hook::Egress, seen.clone(), NEXT, seen));
                }
                steps.push(step(
                    server,
                    Hook::Ingress,
                    exchange.answer((server.mac, gateway)),
                    back,
                    exchange.answer_seen((server.mac, HOST[0])),
                ));
                cases.push(Case {
                    what: format!("from outside, {what}, {transport:?} to {target}"),
                    rule: Rule::port((exchange.asked.0, 8080), exchange.target),
                    steps,
                });
            }
        }
    }
    cases
}

/// From veth to veth. `macs`: [0], whom the server sees send; [1], whom the client does.
fn direct_case(what: &str, rule: Rule, exchange: &Exchange, server: Container, macs: [[u8; 6]; 2]) -> Case {
    let asked_mac = [2, 7, 7, 7, 7, 7];
    let seen = exchange.request_seen((macs[0], server.mac));
    let answer_seen = exchange.answer_seen((macs[1], CLIENT.mac));
    Case {
        what: what.into(),
        rule,
        steps: vec![
            step(CLIENT, Hook::Ingress, exchange.request((CLIENT.mac, asked_mac)), REDIRECTED, seen.clone()),
            step(server, Hook::Egress, seen.clone(), NEXT, seen),
            step(
                server,
                Hook::Ingress,
                exchange.answer((server.mac, asked_mac)),
                REDIRECTED,
                answer_seen.clone(),
            ),
            step(CLIENT, Hook::Egress, answer_seen.clone(), NEXT, answer_seen),
        ],
    }
}

fn direct_cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut case = |what: &str, rule: Rule, exchange: Exchange, server: Container, macs: [[u8; 6]; 2]| {
        cases.push(direct_case(what, rule, &exchange, server, macs));
    };
    for transport in [Transport::Tcp, Transport::Udp, Transport::Sctp] {
        let exchange =
            |seen, target| Exchange { transport, client: C, asked: (WEB.ipv4, 8080), seen, target };
        let (api, far) = ((API.ipv4, 80), (FAR.ipv4, 80));
        let asked = (WEB.ipv4, 8080);
        case("the fast path", Rule::port(asked, api).fast(), exchange(C, api), API, [CLIENT.mac, API.mac]);
        let forged = ("198.51.100.1", 40000);
        case(
            "a forged source",
            Rule::port(asked, api).source(forged.0),
            exchange(forged, api),
            API,
            [CLIENT.mac, API.mac],
        );
        case(
            "a forged source, another bridge",
            Rule::port(asked, far).source(forged.0),
            exchange(forged, far),
            FAR,
            [HOST[1], HOST[0]],
        );
        // The server sees the address that was asked, for its own it would not answer.
        let itself = (CLIENT.ipv4, 80);
        case(
            "to itself",
            Rule::port(asked, itself),
            exchange((WEB.ipv4, 40000), itself),
            CLIENT,
            [HOST[0], HOST[0]],
        );
    }
    cases
}

/// With --accelerate: past the host's own tables, as if one bridge were beside the other.
fn accelerated_cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for transport in [Transport::Tcp, Transport::Udp, Transport::Sctp] {
        for (client, asked, near, far) in
            [(C, WEB.ipv4, API.ipv4, FAR.ipv4), (C6, WEB.ipv6, API.ipv6, FAR.ipv6)]
        {
            let asked = (asked, 8080);
            for (what, server, target, macs) in [
                ("the same bridge", API, near, [CLIENT.mac, API.mac]),
                ("another bridge", FAR, far, [HOST[1], HOST[0]]),
            ] {
                let target = (target, 80);
                let exchange = Exchange { transport, client, asked, seen: client, target };
                let what = format!("accelerated, {what}, {transport:?} to {}", target.0);
                cases.push(direct_case(&what, Rule::port(asked, target).fast(), &exchange, server, macs));
            }
        }
    }
    cases
}

impl Case {
    fn run(&self, lab: &Lab) {
        let what = &self.what;
        // The first packets make it, the others find it.
        for round in 0..2 {
            for (number, step) in self.steps.iter().enumerate() {
                let (verdict, frame) = lab.run(step.at.0, step.at.1, &step.before);
                let at = format!("{what}: round {round}, step {number}");
                assert_eq!(frame, step.after.build(), "{at}");
                assert_eq!(verdict, step.verdict, "{at}");
            }
        }
        let flows = lab.flows();
        assert_eq!(flows.len(), 1, "{what}: {flows:?}");
        assert!(flows[0].1.translation.is_some(), "{what}");
        assert_eq!(lab.counters(0).hits, 1, "{what}");
        assert_eq!(lab.redirects.translations().unwrap().len(), 1, "{what}");
        // Every packet is counted where it passed.
        let counted: u64 = flows[0].1.points().map(|(_, _, counters)| counters.packets).sum();
        assert!(counted >= 2 * self.steps.len() as u64, "{what}: {counted}");
    }
}

#[test]
fn root_every_translation() {
    require_root!();
    for case in client_cases().into_iter().chain(server_cases()).chain(direct_cases()) {
        Lab::with(std::slice::from_ref(&case.rule), |lab| case.run(lab));
    }
}

#[test]
fn root_every_translation_past_the_hosts_tables() {
    require_root!();
    for case in accelerated_cases() {
        Lab::accelerated(std::slice::from_ref(&case.rule), |lab| case.run(lab));
    }
}
