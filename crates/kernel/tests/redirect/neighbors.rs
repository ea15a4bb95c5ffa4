//! Who answers "who has this address?", and where nobody does.

use std::net::Ipv6Addr;

use weir_core::event::Hook;
use weir_kernel::monotonic_now_ns;
use weir_testkit::packet::{Frame, arp_request};
use weir_testkit::require_root;

use crate::lab::{
    API, CLIENT, Container, FAR, HOST, Lab, NEXT, REDIRECTED, Rule, VIRTUAL, VIRTUAL6, WEB, compiled,
};

const FORGED: &str = "198.51.100.1";
const FORGED6: &str = "2001:db8::f";
/// The host's own address on the bridge.
const GATEWAY: &str = "10.0.0.1";
const GATEWAY6: &str = "fd00::1";

fn rules() -> [Rule; 4] {
    [
        Rule::port((VIRTUAL, 80), (API.ipv4, 80)),
        Rule::port((VIRTUAL6, 80), (API.ipv6, 80)),
        Rule::port((WEB.ipv4, 80), (API.ipv4, 80)).source(FORGED),
        Rule::port((WEB.ipv6, 80), (API.ipv6, 80)).source(FORGED6),
    ]
}

fn octets(address: &str) -> [u8; 4] {
    address.parse::<std::net::Ipv4Addr>().unwrap().octets()
}

/// A question from that MAC, broadcast.
fn arp(mac: [u8; 6], asker: &str, wanted: &str) -> Vec<u8> {
    let mut frame = arp_request(octets(asker), octets(wanted));
    frame[6..12].copy_from_slice(&mac);
    frame[22..28].copy_from_slice(&mac);
    frame
}

/// The answer, byte by byte as RFC 826 has it.
fn arp_answer(asker_mac: [u8; 6], asker: &str, mac: [u8; 6], wanted: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(asker_mac);
    frame.extend(mac);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
    frame.extend(mac);
    frame.extend(octets(wanted));
    frame.extend(asker_mac);
    frame.extend(octets(asker));
    frame
}

/// An ICMPv6 message about `wanted` with the option given; its hop limit is 255.
fn discovery(
    kind: u8,
    flags: u8,
    ends: (&str, &str),
    macs: ([u8; 6], [u8; 6]),
    wanted: &str,
    option: Option<(u8, [u8; 6])>,
) -> Vec<u8> {
    let mut payload = wanted.parse::<Ipv6Addr>().unwrap().octets().to_vec();
    if let Some((kind, mac)) = option {
        payload.extend([kind, 1]);
        payload.extend(mac);
    }
    let frame = Frame::between(ends.0, ends.1).macs(macs.0, macs.1);
    let mut bytes = frame.icmp(kind, 0, [flags, 0, 0, 0]).payload(&payload).build();
    bytes[14 + 7] = 255;
    bytes
}

fn multicast(wanted: &str) -> (String, [u8; 6]) {
    let octets = wanted.parse::<Ipv6Addr>().unwrap().octets();
    let [a, b, c] = [octets[13], octets[14], octets[15]];
    (format!("ff02::1:ff{a:02x}:{b:02x}{c:02x}"), [0x33, 0x33, 0xff, a, b, c])
}

fn solicitation(mac: [u8; 6], asker: &str, wanted: &str) -> Vec<u8> {
    let (group, group_mac) = multicast(wanted);
    discovery(135, 0, (asker, &group), (mac, group_mac), wanted, Some((1, mac)))
}

#[track_caller]
fn answered(lab: &Lab, at: (Container, Hook), question: &[u8], answer: &[u8]) {
    assert_eq!(lab.run_bytes(at.0, at.1, question), (REDIRECTED, answer.to_vec()));
}

#[track_caller]
fn unanswered(lab: &Lab, at: (Container, Hook), question: &[u8]) {
    assert_eq!(lab.run_bytes(at.0, at.1, question), (NEXT, question.to_vec()));
}

#[test]
fn root_containers_are_told_the_hosts_mac() {
    require_root!();
    Lab::with(&rules(), |lab| {
        let client = (CLIENT, Hook::Ingress);
        answered(
            lab,
            client,
            &arp(CLIENT.mac, CLIENT.ipv4, VIRTUAL),
            &arp_answer(CLIENT.mac, CLIENT.ipv4, HOST[0], VIRTUAL),
        );
        let answer = |asker: Container, wanted| {
            let ends = (wanted, asker.ipv6);
            discovery(136, 0x60, ends, (HOST[0], asker.mac), wanted, Some((2, HOST[0])))
        };
        let question = solicitation(CLIENT.mac, CLIENT.ipv6, VIRTUAL6);
        answered(lab, client, &question, &answer(CLIENT, VIRTUAL6));
        // Is it still there? Asked without an option, it is answered without one.
        let macs = (CLIENT.mac, HOST[0]);
        let question = discovery(135, 0, (CLIENT.ipv6, VIRTUAL6), macs, VIRTUAL6, None);
        let expected = discovery(136, 0x60, (VIRTUAL6, CLIENT.ipv6), (HOST[0], CLIENT.mac), VIRTUAL6, None);
        answered(lab, client, &question, &expected);

        // Only the server behind a forged source may ask for it.
        let api = (API, Hook::Ingress);
        let expected = arp_answer(API.mac, API.ipv4, HOST[0], FORGED);
        answered(lab, api, &arp(API.mac, API.ipv4, FORGED), &expected);
        answered(lab, api, &solicitation(API.mac, API.ipv6, FORGED6), &answer(API, FORGED6));
        unanswered(lab, client, &arp(CLIENT.mac, CLIENT.ipv4, FORGED));
        unanswered(lab, client, &solicitation(CLIENT.mac, CLIENT.ipv6, FORGED6));
    });
}

#[test]
fn root_the_host_is_told_a_targets_mac_where_it_asks() {
    require_root!();
    Lab::with(&rules(), |lab| {
        let question = arp(HOST[0], GATEWAY, VIRTUAL);
        let question6 = solicitation(HOST[0], GATEWAY6, VIRTUAL6);
        let api = (API, Hook::Egress);
        answered(lab, api, &question, &arp_answer(HOST[0], GATEWAY, API.mac, VIRTUAL));
        let expected =
            discovery(136, 0x60, (VIRTUAL6, GATEWAY6), (API.mac, HOST[0]), VIRTUAL6, Some((2, API.mac)));
        answered(lab, api, &question6, &expected);
        // The question is flooded to all: others are silent.
        unanswered(lab, (WEB, Hook::Egress), &question);
        unanswered(lab, (WEB, Hook::Egress), &question6);
        // Somebody on the bridge whose veth is not watched.
        unanswered(lab, api, &arp([2, 9, 9, 9, 9, 9], "10.0.0.99", VIRTUAL));
    });
}

#[test]
fn root_other_questions_are_not_answered() {
    require_root!();
    Lab::with(&rules(), |lab| {
        let client = (CLIENT, Hook::Ingress);
        // For those who are there.
        unanswered(lab, client, &arp(CLIENT.mac, CLIENT.ipv4, WEB.ipv4));
        unanswered(lab, client, &solicitation(CLIENT.mac, CLIENT.ipv6, WEB.ipv6));
        // Is this address free? And: this address is mine.
        unanswered(lab, client, &arp(CLIENT.mac, "0.0.0.0", VIRTUAL));
        unanswered(lab, client, &arp(CLIENT.mac, VIRTUAL, VIRTUAL));
        let (group, group_mac) = multicast(VIRTUAL6);
        let free = discovery(135, 0, ("::", &group), (CLIENT.mac, group_mac), VIRTUAL6, None);
        unanswered(lab, client, &free);
        // Answers, and what is not as it should be.
        unanswered(lab, client, &arp_answer(CLIENT.mac, CLIENT.ipv4, HOST[0], VIRTUAL));
        let question = arp(CLIENT.mac, CLIENT.ipv4, VIRTUAL);
        for at in 14..22 {
            let mut spoilt = question.clone();
            spoilt[at] ^= 0x40;
            unanswered(lab, client, &spoilt);
        }
        for length in 15..question.len() {
            unanswered(lab, client, &question[..length]);
        }
        let question = solicitation(CLIENT.mac, CLIENT.ipv6, VIRTUAL6);
        for at in [14 + 6, 14 + 7, 14 + 40, 14 + 41, 14 + 64, 14 + 65] {
            let mut spoilt = question.clone();
            spoilt[at] ^= 0x40;
            unanswered(lab, client, &spoilt);
        }
    });
    Lab::with(&[], |lab| {
        unanswered(lab, (CLIENT, Hook::Ingress), &arp(CLIENT.mac, CLIENT.ipv4, VIRTUAL));
    });
}

/// Rules on the virtual addresses, of both versions, for some clients.
fn limited(client: &'static str, client6: &'static str) -> [Rule; 2] {
    let [v4, v6, ..] = rules();
    [Rule { clients: vec![client], ..v4 }, Rule { clients: vec![client6], ..v6 }]
}

fn link_local(container: Container) -> String {
    let [.., a, b, c] = container.mac;
    format!("fe80::ff:fe{a:02x}:{b:02x}{c:02x}")
}

/// What a container asks: from its own addresses, and from that of the link, as it does when it makes sure that
/// somebody is still there.
fn questions(asker: Container) -> [Vec<u8>; 3] {
    [
        arp(asker.mac, asker.ipv4, VIRTUAL),
        solicitation(asker.mac, asker.ipv6, VIRTUAL6),
        solicitation(asker.mac, &link_local(asker), VIRTUAL6),
    ]
}

#[track_caller]
fn all_answered(lab: &Lab, asker: Container) {
    for question in questions(asker) {
        assert_eq!(lab.run_bytes(asker, Hook::Ingress, &question).0, REDIRECTED);
    }
}

#[track_caller]
fn none_answered(lab: &Lab, asker: Container) {
    questions(asker).iter().for_each(|question| unanswered(lab, (asker, Hook::Ingress), question));
}

#[test]
fn root_only_whom_a_rule_lets_in_is_answered() {
    require_root!();
    Lab::with(&limited(CLIENT.ipv4, CLIENT.ipv6), |lab| {
        all_answered(lab, CLIENT);
        // With another address of its own, too: its container is a client.
        let other = (CLIENT, Hook::Ingress);
        assert_eq!(lab.run_bytes(other.0, other.1, &arp(CLIENT.mac, "10.0.0.99", VIRTUAL)).0, REDIRECTED);
        [WEB, API, FAR].into_iter().for_each(|asker| none_answered(lab, asker));
        // Nor does anybody learn whether an address is free.
        unanswered(lab, other, &arp(CLIENT.mac, "0.0.0.0", VIRTUAL));
        let (group, group_mac) = multicast(VIRTUAL6);
        unanswered(lab, other, &discovery(135, 0, ("::", &group), (CLIENT.mac, group_mac), VIRTUAL6, None));

        // Each version of IP has its own rule.
        let [v4, v6] = limited(CLIENT.ipv4, WEB.ipv6);
        lab.set(&[v4, v6]);
        let [of_client, of_client6, _] = questions(CLIENT);
        assert_eq!(lab.run_bytes(CLIENT, Hook::Ingress, &of_client).0, REDIRECTED);
        unanswered(lab, (CLIENT, Hook::Ingress), &of_client6);
        let [of_web, of_web6, _] = questions(WEB);
        unanswered(lab, (WEB, Hook::Ingress), &of_web);
        assert_eq!(lab.run_bytes(WEB, Hook::Ingress, &of_web6).0, REDIRECTED);
    });
    // A range: also from an address in it that nobody knows a container to have.
    Lab::with(&limited("10.0.0.64/26", "fd00::a:0/112"), |lab| {
        none_answered(lab, WEB);
        let web = (WEB, Hook::Ingress);
        let question = arp(WEB.mac, "10.0.0.70", VIRTUAL);
        answered(lab, web, &question, &arp_answer(WEB.mac, "10.0.0.70", HOST[0], VIRTUAL));
        assert_eq!(
            lab.run_bytes(WEB, Hook::Ingress, &solicitation(WEB.mac, "fd00::a:7", VIRTUAL6)).0,
            REDIRECTED
        );
        unanswered(lab, web, &arp(WEB.mac, "10.0.0.130", VIRTUAL));
        unanswered(lab, web, &solicitation(WEB.mac, "fd00::b:7", VIRTUAL6));
    });
}

/// Any of its rules will do, of those in force.
#[test]
fn root_several_rules_let_in_the_clients_of_each() {
    require_root!();
    let [for_client, for_client6] = limited(CLIENT.ipv4, CLIENT.ipv6);
    let [for_web, for_web6] = limited(WEB.ipv4, WEB.ipv6);
    let both = [for_client.clone(), for_client6.clone(), for_web.clone(), for_web6.clone()];
    Lab::with(&both, |lab| {
        [CLIENT, WEB].into_iter().for_each(|asker| all_answered(lab, asker));
        none_answered(lab, API);
        let past = |rule: &Rule| Rule { expires_ns: monotonic_now_ns() - 1, ..rule.clone() };
        lab.set(&[for_client.clone(), for_client6.clone(), past(&for_web), past(&for_web6)]);
        all_answered(lab, CLIENT);
        none_answered(lab, WEB);
        // One for all, on another port.
        let [v4, v6, ..] = rules();
        let all = |rule: Rule| Rule { asked: (rule.asked.0, 81, 81), ..rule };
        lab.set(&[for_client, for_client6, all(v4), all(v6)]);
        [CLIENT, WEB, API].into_iter().for_each(|asker| all_answered(lab, asker));
    });
}

#[test]
fn root_the_host_is_answered_if_it_is_let_in() {
    require_root!();
    let questions = [arp(HOST[0], GATEWAY, VIRTUAL), solicitation(HOST[0], GATEWAY6, VIRTUAL6)];
    for host_asks in [false, true] {
        let rules = limited(CLIENT.ipv4, CLIENT.ipv6).map(|rule| Rule { host_asks, ..rule });
        Lab::with(&rules, |lab| {
            for question in &questions {
                match host_asks {
                    true => assert_eq!(lab.run_bytes(API, Hook::Egress, question).0, REDIRECTED),
                    false => unanswered(lab, (API, Hook::Egress), question),
                }
            }
            // Which says nothing of containers.
            none_answered(lab, WEB);
        });
    }
}

/// Where no container is behind the interface, whoever asks.
#[test]
fn root_nobody_is_answered_at_an_uplink() {
    require_root!();
    Lab::with(&rules(), |lab| {
        all_answered(lab, CLIENT);
        let forged = arp(API.mac, API.ipv4, FORGED);
        assert_eq!(lab.run_bytes(API, Hook::Ingress, &forged).0, REDIRECTED);
        for known in [true, false] {
            let mut host = compiled(lab, &rules());
            match known {
                true => host.interfaces.values_mut().for_each(|interface| interface.container_side = false),
                false => host.interfaces.clear(),
            }
            lab.redirects.set(&host).unwrap();
            for asker in [CLIENT, API] {
                for question in questions(asker).iter().chain([&forged]) {
                    for hook in [Hook::Ingress, Hook::Egress] {
                        unanswered(lab, (asker, hook), question);
                    }
                }
            }
            for question in [arp(HOST[0], GATEWAY, VIRTUAL), solicitation(HOST[0], GATEWAY6, VIRTUAL6)] {
                unanswered(lab, (API, Hook::Egress), &question);
            }
        }
    });
}
