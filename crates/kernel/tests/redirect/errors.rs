//! ICMP errors about translated packets: who gets one finds its own packet in it.

use weir_core::event::Hook;
use weir_testkit::packet::Frame;
use weir_testkit::require_root;

use crate::lab::{API, CLIENT, HOST, Lab, NEXT, OUTSIDE, REDIRECTED, Rule, WEB};

const ROUTER: &str = "10.0.0.1";
const ROUTER6: &str = "fd00::1";
const ALL: usize = usize::MAX;

/// A packet as the client and as the server see it.
#[derive(Clone)]
struct Pair {
    client: Frame,
    server: Frame,
}

struct Case {
    what: &'static str,
    rule: Rule,
    request: Pair,
    answer: Pair,
    router: &'static str,
}

fn pair(client: Frame, server: Frame) -> Pair {
    Pair { client, server }
}

fn cases() -> Vec<Case> {
    let (c, w, a) = (CLIENT.ipv4, WEB.ipv4, API.ipv4);
    let (c6, w6, a6) = (CLIENT.ipv6, WEB.ipv6, API.ipv6);
    let tcp = |from, to, ports: (u16, u16), flags| {
        Frame::between(from, to).tcp(ports.0, ports.1, flags).payload(&[7; 40])
    };
    let udp = |from, to, ports: (u16, u16)| Frame::between(from, to).udp(ports.0, ports.1).payload(&[7; 41]);
    // With a checksum that waits for a device: another one would stay as it was sent.
    let sctp =
        |from, to, ports: (u16, u16)| Frame::between(from, to).sctp(ports.0, ports.1).payload(&[7; 40]);
    let case = |what, rule, request, answer, router| Case { what, rule, request, answer, router };
    vec![
        case(
            "TCP",
            Rule::port((w, 8080), (a, 80)),
            pair(tcp(c, w, (40000, 8080), "S"), tcp(c, a, (40000, 80), "S")),
            pair(tcp(w, c, (8080, 40000), "SA"), tcp(a, c, (80, 40000), "SA")),
            ROUTER,
        ),
        case(
            "UDP",
            Rule::port((w, 8080), (a, 80)),
            pair(udp(c, w, (40000, 8080)), udp(c, a, (40000, 80))),
            pair(udp(w, c, (8080, 40000)), udp(a, c, (80, 40000))),
            ROUTER,
        ),
        case(
            "UDP behind IP options",
            Rule::port((w, 8080), (a, 80)),
            pair(
                udp(c, w, (40000, 8080)).ipv4_options(&[1; 8]),
                udp(c, a, (40000, 80)).ipv4_options(&[1; 8]),
            ),
            pair(udp(w, c, (8080, 40000)), udp(a, c, (80, 40000))),
            ROUTER,
        ),
        case(
            "SCTP",
            Rule::port((w, 8080), (a, 80)),
            pair(sctp(c, w, (40000, 8080)), sctp(c, a, (40000, 80))),
            pair(sctp(w, c, (8080, 40000)), sctp(a, c, (80, 40000))),
            ROUTER,
        ),
        case(
            "a ping",
            Rule::address(w, a),
            pair(Frame::between(c, w).echo_request(7, 1), Frame::between(c, a).echo_request(7, 1)),
            pair(Frame::between(w, c).echo_reply(7, 1), Frame::between(a, c).echo_reply(7, 1)),
            ROUTER,
        ),
        case(
            "TCP, IPv6",
            Rule::port((w6, 8080), (a6, 80)),
            pair(tcp(c6, w6, (40000, 8080), "S"), tcp(c6, a6, (40000, 80), "S")),
            pair(tcp(w6, c6, (8080, 40000), "SA"), tcp(a6, c6, (80, 40000), "SA")),
            ROUTER6,
        ),
        case(
            "UDP, IPv6",
            Rule::port((w6, 8080), (a6, 80)),
            pair(udp(c6, w6, (40000, 8080)), udp(c6, a6, (40000, 80))),
            pair(udp(w6, c6, (8080, 40000)), udp(a6, c6, (80, 40000))),
            ROUTER6,
        ),
    ]
}

/// "Fragmentation needed" or "packet too big", or a port that is not reachable.
fn error(from: &str, to: &str, quoted: &Frame, bytes: usize, macs: ([u8; 6], [u8; 6])) -> Frame {
    let (kind, code) = if from.contains(':') { (2, 0) } else { (3, 4) };
    Frame::between(from, to).macs(macs.0, macs.1).icmp_error(kind, code, quoted, bytes)
}

#[test]
fn root_errors_about_translated_packets() {
    require_root!();
    for case in cases() {
        let ipv6 = case.router == ROUTER6;
        let (c, w, a) =
            if ipv6 { (CLIENT.ipv6, WEB.ipv6, API.ipv6) } else { (CLIENT.ipv4, WEB.ipv4, API.ipv4) };
        let ip = if ipv6 { 40 } else { 20 };
        Lab::with(std::slice::from_ref(&case.rule), |lab| {
            lab.sends(CLIENT, &case.request.client);
            lab.sends(API, &case.answer.server);
            lab.gets(CLIENT, &case.answer.server);
            let flow = lab.flows().into_iter().find(|(_, entry)| entry.translation.is_some()).unwrap().0;
            let told = |lab: &Lab| lab.table.read(&flow).unwrap().unwrap().icmp_errors;
            let mut expected = 0;
            // All of the packet, the checksum cut off, the ports only.
            let options = if case.what.contains("options") { 8 } else { 0 };
            for bytes in [ALL, ip + options + 8] {
                let what = format!("{}, {bytes} bytes", case.what);
                // From the server, and from a router before it, to the client.
                let macs = (API.mac, CLIENT.mac);
                for (from, seen) in [(a, w), (case.router, case.router)] {
                    let before = error(from, c, &case.request.server, bytes, macs);
                    let after = error(seen, c, &case.request.client, bytes, macs);
                    let at_server = lab.run(API, Hook::Ingress, &before);
                    assert_eq!(at_server, (NEXT, before.build()), "{what}: not here");
                    assert_eq!(lab.gets(CLIENT, &before), (NEXT, after.build()), "{what} from {from}");
                    expected += 1;
                    assert_eq!(told(lab), expected, "{what} from {from}");
                }
                // From the client, about an answer, to the server.
                let before = error(c, w, &case.answer.client, bytes, (CLIENT.mac, WEB.mac));
                let after = error(c, a, &case.answer.server, bytes, (CLIENT.mac, API.mac));
                assert_eq!(lab.sends(CLIENT, &before), (NEXT, after.build()), "{what} to the server");
                expected += 1;
                assert_eq!(told(lab), expected, "{what} to the server");
            }
        });
    }
}

/// Errors about others, or too short to tell about whom, go as they are.
#[test]
fn root_other_errors_stay_as_they_are() {
    require_root!();
    Lab::with(&[Rule::address(WEB.ipv4, API.ipv4)], |lab| {
        let request = Frame::between(CLIENT.ipv4, WEB.ipv4).tcp(40000, 8080, "S").payload(&[7; 40]);
        let seen = Frame::between(CLIENT.ipv4, API.ipv4).tcp(40000, 8080, "S").payload(&[7; 40]);
        lab.sends(CLIENT, &request);
        let other = Frame::between(CLIENT.ipv4, API.ipv4).tcp(40001, 8080, "S");
        let macs = (API.mac, CLIENT.mac);
        for (quoted, bytes) in [(&other, ALL), (&seen, 23), (&seen, 10), (&seen, 0)] {
            let frame = error(API.ipv4, CLIENT.ipv4, quoted, bytes, macs);
            assert_eq!(lab.gets(CLIENT, &frame), (NEXT, frame.build()), "{bytes}");
        }
        // A rule for all that is sent to an address is not about errors that are sent there.
        let frame = error(CLIENT.ipv4, WEB.ipv4, &other, ALL, macs);
        assert_eq!(lab.sends(CLIENT, &frame), (NEXT, frame.build()));
    });
}

/// From outside, at the server's edge, and where packets go from veth to veth.
#[test]
fn root_errors_at_other_edges() {
    require_root!();
    Lab::with(&[Rule::port((WEB.ipv4, 8080), (API.ipv4, 80))], |lab| {
        let udp = |from, to, ports: (u16, u16)| Frame::between(from, to).udp(ports.0, ports.1).payload(b"x");
        let request = udp(OUTSIDE, WEB.ipv4, (5000, 8080));
        lab.gets(WEB, &request.clone().macs(HOST[0], WEB.mac));
        let before = error(API.ipv4, OUTSIDE, &udp(OUTSIDE, API.ipv4, (5000, 80)), ALL, (API.mac, HOST[0]));
        let after = error(WEB.ipv4, OUTSIDE, &request, ALL, (API.mac, HOST[0]));
        assert_eq!(lab.sends(API, &before), (NEXT, after.build()));
        let before = error(OUTSIDE, WEB.ipv4, &udp(WEB.ipv4, OUTSIDE, (8080, 5000)), ALL, (HOST[0], WEB.mac));
        let after = error(OUTSIDE, API.ipv4, &udp(API.ipv4, OUTSIDE, (80, 5000)), ALL, (HOST[0], API.mac));
        assert_eq!(lab.gets(WEB, &before), (REDIRECTED, after.build()));
    });
    Lab::with(&[Rule::port((WEB.ipv4, 8080), (API.ipv4, 80)).fast()], |lab| {
        let udp = |from, to, ports: (u16, u16)| Frame::between(from, to).udp(ports.0, ports.1).payload(b"x");
        let request = udp(CLIENT.ipv4, WEB.ipv4, (5000, 8080));
        lab.sends(CLIENT, &request.clone().macs(CLIENT.mac, WEB.mac));
        let quoted = udp(CLIENT.ipv4, API.ipv4, (5000, 80));
        let before = error(API.ipv4, CLIENT.ipv4, &quoted, ALL, (API.mac, CLIENT.mac));
        let after = error(WEB.ipv4, CLIENT.ipv4, &request, ALL, (API.mac, CLIENT.mac));
        assert_eq!(lab.sends(API, &before), (REDIRECTED, after.build()));
    });
}
