//! Rules against a small host: what they become, and what is refused.

mod properties;

use std::net::IpAddr;
use std::sync::Arc;

use super::*;
use crate::endpoint::Container;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn service(name: &str, project: &str, service: &str, replica: u32) -> Container {
    Container {
        name: name.into(),
        project: Some(project.into()),
        service: Some(service.into()),
        replica: Some(replica).filter(|number| *number != 1),
        ..Container::default()
    }
}

fn named(name: &str) -> Container {
    Container { name: name.into(), ..Container::default() }
}

fn place(ifindex: u32, bridge_ifindex: u32) -> Place {
    Place { ifindex, bridge_ifindex, mac: [2, 0, 0, 0, 0, ifindex as u8] }
}

fn resident(container: Container, ifindex: u32, bridge: u32, addresses: &[&str]) -> Resident {
    let addresses = addresses.iter().map(|text| (ip(text), Some(place(ifindex, bridge)))).collect();
    Resident { container: Arc::new(container), addresses }
}

/// Two bridges, 1 (10.0.0.0/24) and 2 (10.0.1.0/24).
fn host() -> Surroundings {
    let web = resident(named("web"), 11, 1, &["10.0.0.2", "fd00::2"]);
    let mut both = resident(named("both"), 12, 1, &["10.0.0.9"]);
    both.addresses.push((ip("10.0.1.9"), Some(place(13, 2))));
    let shared = resident(Container { id: "ab12".repeat(16), ..named("shared") }, 0, 0, &[]);
    Surroundings {
        residents: vec![
            web,
            both,
            shared,
            resident(named("api"), 14, 1, &["10.0.0.3", "fd00::3"]),
            resident(named("four"), 15, 1, &["10.0.0.4"]),
            resident(named("six"), 16, 2, &["fd01::6"]),
            resident(service("shop-db-1", "shop", "db", 1), 17, 2, &["10.0.1.21"]),
            resident(service("shop-db-2", "shop", "db", 2), 18, 2, &["10.0.1.22"]),
            resident(service("blog-cache-1", "blog", "cache", 1), 19, 2, &["10.0.1.23"]),
            resident(service("shop-cache-1", "shop", "cache", 1), 20, 2, &["10.0.1.24"]),
        ],
        stopped: vec![Arc::new(named("old")), Arc::new(service("shop-db-3", "shop", "db", 3))],
        host_addresses: [ip("10.0.0.1"), ip("10.0.1.1"), ip("192.0.2.1")].into(),
        interfaces: [(11, InterfacePlace { bridge_ifindex: 1, host_mac: [2; 6], container_side: true })]
            .into(),
        networks: [("10.0.0.0/24", 1), ("10.99.0.0/16", 1)]
            .map(|(network, bridge)| (network.parse().unwrap(), bridge))
            .into(),
        accelerated: true,
    }
}

/// `[protocol/]match target [from=...] [source=...]`, as the command line would have it.
fn rule(text: &str) -> Result<Rule, SyntaxError> {
    let mut words = text.split(' ');
    let asked = words.next().unwrap();
    let (protocol, asked) = match asked.split_once('/') {
        Some((protocol, asked)) if ["tcp", "udp", "sctp", "icmp"].contains(&protocol) => {
            (Some(protocol), asked)
        }
        _ => (None, asked),
    };
    let mut rule = Rule {
        name: "new".parse()?,
        protocol: protocol.map(str::parse).transpose()?,
        from: None,
        asked: asked.parse()?,
        target: words.next().unwrap().parse()?,
        source: None,
    };
    for word in words {
        match word.split_once('=').unwrap() {
            ("from", from) => rule.from = Some(from.parse()?),
            (_, source) => rule.source = Some(source.parse()?),
        }
    }
    rule.check()?;
    Ok(rule)
}

fn kept(name: &str, text: &str) -> KeptRule {
    let mut rule = rule(text).unwrap();
    rule.name = name.parse().unwrap();
    let means = host().meanings(&rule);
    KeptRule { rule, means, added: jiff::Timestamp::UNIX_EPOCH, expires: None, expires_ns: 0 }
}

fn set(rules: &[&str]) -> RuleSet {
    let mut set = RuleSet::default();
    for (index, text) in rules.iter().enumerate() {
        set.add(kept(&format!("rule-{index}"), text)).unwrap();
    }
    set
}

/// Adds the last rule to the others, as the command line does.
fn check(rules: &[&str]) -> Result<Vec<String>, String> {
    let text = rules[rules.len() - 1];
    rule(text).map_err(|error| error.to_string())?;
    let mut set = set(&rules[..rules.len() - 1]);
    let number = set.add(kept("new", text)).unwrap();
    let warnings = set.check(number, &host()).map_err(|error| error.to_string())?;
    Ok(warnings.iter().map(ToString::to_string).collect())
}

fn compiled(rules: &[&str]) -> Compiled {
    let (compiled, warnings) = set(rules).compile(&host());
    assert_eq!(warnings, [], "{rules:?}");
    compiled
}

/// Where connections to this address go, by the match that comes first.
fn targets(compiled: &Compiled, address: &str, index: usize) -> Vec<(String, usize)> {
    let rule = compiled.matches[&ip(address)][index].rule;
    let mut shares = std::collections::BTreeMap::new();
    for slot in &compiled.rules[&rule].slots {
        let target = compiled.targets[slot];
        *shares.entry(format!("{} {}", target.address, target.port_first)).or_insert(0) += 1;
    }
    shares.into_iter().collect()
}

fn all(target: &str) -> Vec<(String, usize)> {
    vec![(target.to_owned(), SLOTS)]
}

#[test]
fn a_rule_is_the_same_after_json_and_text() {
    for text in [
        "web:8080 :80",
        "udp/[fd00::3]:53 [fd00::4]:5353",
        "10.99.0.1 web-v1=9,web-v2=1",
        "web:8000-8099 api:9000-9099 from=shop/web",
        "web:80 api:80 from=10.0.0.0/8 source=10.9.9.9",
    ] {
        let kept = kept("a", text);
        let json = serde_json::to_string(&kept).unwrap();
        assert_eq!(serde_json::from_str::<KeptRule>(&json).unwrap(), kept, "{json}");
        let words = text.split(' ').take(2).collect::<Vec<_>>().join(" ⇒ ");
        assert_eq!(kept.rule.to_string(), words.trim_start_matches("udp/"), "{text}");
    }
    let json = r#"{"name": "a", "match": "web:80", "target": "api:80=0"}"#;
    assert!(serde_json::from_str::<Rule>(json).unwrap_err().to_string().contains("is not a weight"));
    assert!(
        serde_json::from_str::<Rule>(r#"{"name": "a", "match": "a:1", "target": ":2", "form": "x"}"#)
            .is_err()
    );
}

#[test]
fn texts_that_are_no_rule_are_refused_with_the_reason() {
    for (text, expected) in [
        (":8080 :80", "\":8080\" does not say what to redirect"),
        ("web:0 :80", "\"0\" is not a port: accepted are a number from 1 to 65535"),
        ("web:8080 :65536", "\"65536\" is not a port"),
        ("web:80-70 :1-11", "the lower number stands first"),
        ("web:+80 :81", "\"+80\" is not a port"),
        ("web: :80", "\"\" is not a port"),
        ("web:8000-8099 :80", "8000-8099 are 100 ports, 80 is 1"),
        ("web:8000-8099 api:80-89", "8000-8099 are 100 ports, 80-89 are 10"),
        ("web :80", "the target :80 has a port, but not what is redirected"),
        ("web:80 api:80,", "\"api:80,\" does not say where to"),
        ("web:80 api:80=0", "\"0\" is not a weight"),
        ("web:80 api:80=101", "\"101\" is not a weight"),
        ("web:80 api:80,api:80=2", "the target api:80 stands there twice"),
        ("fd00::3:53 :54", "the target :54 has a port, but not what is redirected"),
        ("fd00::zz:53 :54", "is ambiguous"),
        ("[fd00::3 :54", "\"[fd00::3\" is not an address"),
        ("10.0.0.300:80 :81", "\"10.0.0.300\" is not an address"),
        ("10.0.0.0/8:80 :81", "is a range of addresses"),
        ("host:80 :81", "\"host\" is not one address"),
        ("127.0.0.1:80 :81", "127.0.0.1 is a loopback address"),
        ("web:80 [fe80::1]:81", "fe80::1 is a link-local address"),
        ("0.0.0.0:80 :81", "0.0.0.0 is no address at all"),
        ("web*:80 :81", "\"web*\" is not a name"),
        ("icmp/web:80 :81", "\"icmp\" is not a protocol that can be redirected"),
        ("10.0.0.2:80 [fd00::3]:80", "10.0.0.2 and fd00::3 are of different versions of IP"),
        ("10.0.0.2:80 api:80 source=fd00::9", "of different versions of IP"),
        ("web:80 api:80 source=224.0.0.1", "224.0.0.1 is a multicast address: no server would answer"),
        ("web:80 api:80 source=api", "\"api\" is not an address"),
        ("web:80 api:80 from=world", "\"world\" is not one address"),
        ("web:80 api:80 from=10.0.0.0/33", "does not name clients"),
        ("web:80 api:80 from=four:99", "a rule has no port of clients"),
    ] {
        let error = rule(text).expect_err(text).to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
    for name in ["", "-a", "a b", "ä", &"a".repeat(65)] {
        assert!(name.parse::<RuleName>().is_err(), "{name}");
    }
    for possible in ["sctp/web:80 api:80", "sctp/web:80 :81", "sctp/web:80-89 api:90-99"] {
        assert!(rule(possible).is_ok(), "{possible}");
    }
}

#[test]
fn rules_that_make_no_sense_here_are_refused_with_the_reason() {
    for (rules, expected) in [
        (&["nobody:80 :81"][..], "no container or service is named \"nobody\"; there are: api, "),
        (&["web:80 nobody:81"], "no container or service is named \"nobody\""),
        (&["web:80 :81 from=nobody"], "no container or service is named \"nobody\""),
        (&["cache:80 :81"], "\"cache\" may be blog/cache or shop/cache"),
        (&["shared:80 :81"], "shared has no address of its own"),
        (&["ab12ab12:80 :81"], "has no address of its own"),
        (&["web:80 shared:81"], "shared has no address of its own"),
        (&["four:80 six:80"], "four has only IPv4 addresses and six only IPv6"),
        (&["six:80 10.0.0.3:80"], "six has only IPv6 addresses and 10.0.0.3 only IPv4"),
        (&["web:80 :80"], "web:80 would be redirected to itself"),
        (&["web:80 web"], "web:80 would be redirected to itself"),
        (&["web:80 10.0.0.2:80"], "web:80 would be redirected to itself"),
        (&["web:80-89 web:80-89"], "web:80-89 would be redirected to itself"),
        (&["web:80 198.51.100.7:80 source=10.9.9.9"], "--source 10.9.9.9 needs a target that is a container"),
        (&["web:80 api:80 source=10.0.0.3"], "is the address of the target itself"),
        (&["six:80 :81 source=10.9.9.9"], "--source 10.9.9.9 is IPv4, what is redirected IPv6"),
        (&["six:80 :81 from=four"], "--from four has no IPv6 address"),
        // Loops.
        (
            &["web:80 api:80", "api:80 web:80"],
            "a loop: \"new\" redirects api:80 ⇒ web:80, and \"rule-0\" redirects web:80 ⇒ api:80",
        ),
        (
            &["web:1 four:2", "four:2 both:3", "both:3 web:1"],
            "a loop: \"new\" redirects both:3 ⇒ web:1, and ",
        ),
        (&["web:80-89 api:90-99", "api:95 web:85"], "a loop"),
        (&["web api", "api web"], "a loop"),
        (&["web:80 :81", "web:81 :80"], "a loop"),
        // Contradictions.
        (
            &["web:80 api:80", "web:80 four:80"],
            "the rules \"rule-0\" and \"new\" contradict each other: both are about 10.0.0.2:80",
        ),
        (&["web:80 api:80", "10.0.0.2:80 four:80"], "both are about 10.0.0.2:80"),
        (&["six:80 :81", "[fd01::6]:80 :82"], "both are about [fd01::6]:80"),
        (&["web:80-89 api:80-89", "web:85-94 four:85-94"], "both are about 10.0.0.2:85-89"),
        (&["web api", "web four"], "both are about everything sent to 10.0.0.2"),
        (&["web:80 api:80 from=four", "web:80 :81 from=10.0.0.4"], "contradict each other"),
        (&["web:80 api:80 from=both", "web:80 :81 from=10.0.1.0/24"], "contradict each other"),
    ] {
        let error = check(rules).expect_err(&format!("{rules:?}"));
        assert!(error.contains(expected), "{rules:?}: {error}");
    }
}

#[test]
fn rules_that_only_look_wrong_are_taken() {
    for rules in [
        // Not the same ports, protocols, clients.
        &["web:80 api:80", "web:81 four:80"][..],
        &["tcp/web:80 api:80", "udp/web:80 four:80"],
        &["web:80 api:80", "web:80 four:80 from=both"],
        &["web:80 api:80 from=four", "web:80 :81 from=both"],
        &["web:80 api:80 from=10.0.0.0/8", "web:80 :81 from=10.0.0.0/16"],
        &["web:80-89 :90-99", "web:80 four:80"],
        &["web api", "web:80 four:80"],
        // Not back to where it began.
        &["web:80 :81", "web:81 :82"],
        &["web:80-89 :81-90"],
        &["web:80-89 api:90-99", "api:90 web:85"],
        &["web:80 api:80 from=four", "api:80 web:80 from=both"],
        &["tcp/web:80 api:80", "udp/api:80 web:80"],
        // Some stay where they are.
        &["web:80 web=9,api:80=1"],
        &["web:80 web:80 source=10.9.9.9", "api:80 :80 source=10.9.9.9"],
    ] {
        // A source of one version of IP leaves the other out, which it says.
        let warnings = check(rules).unwrap_or_else(|error| panic!("{rules:?}: {error}"));
        assert!(warnings.iter().all(|text| text.contains("stay as they are")), "{rules:?}: {warnings:?}");
    }
}

/// The host's own rules may keep its networks apart.
#[test]
fn another_network_is_a_warning() {
    let isolated = Surroundings { accelerated: false, ..host() };
    for (text, warned) in [
        ("four:80 db:80", vec![("10.0.0.4", "10.0.1.21"), ("10.0.0.4", "10.0.1.22")]),
        ("four:80 10.0.1.21:80", vec![("10.0.0.4", "10.0.1.21")]),
        ("four:80 db:80 from=both", vec![]),
        (
            "both:80 db:80 from=four",
            vec![
                ("10.0.0.9", "10.0.1.21"),
                ("10.0.0.9", "10.0.1.22"),
                ("10.0.1.9", "10.0.1.21"),
                ("10.0.1.9", "10.0.1.22"),
            ],
        ),
        ("four:80 db:80 from=host", vec![]),
        ("four:80 db:80 source=10.9.9.9", vec![]),
        ("four:80 api:80", vec![]),
        ("four:80 both:80", vec![]),
        ("four:80 192.0.2.7:80", vec![]),
        // Whoever asks for it may be anywhere.
        ("10.9.9.1:80 db:80", vec![]),
    ] {
        let (_, warnings) = set(&[text]).compile(&isolated);
        let found: Vec<_> = warnings
            .iter()
            .map(|warning| match &warning.concern {
                Concern::OtherNetwork { address, target } => (address.to_string(), target.to_string()),
                other => panic!("{text}: {other}"),
            })
            .collect();
        let expected: Vec<_> =
            warned.iter().map(|(asked, target)| ((*asked).to_owned(), (*target).to_owned())).collect();
        assert_eq!(found, expected, "{text}");
        assert_eq!(set(&[text]).compile(&host()).1, [], "{text}");
    }
}

#[test]
fn what_does_not_run_is_a_warning() {
    for (text, expected) in [
        ("web:80 old:80", "old is not running; until it runs, connections to it are refused"),
        ("web:80 old:80,api:80", "connections to it are shared by the other targets"),
        ("old:80 :81", "old is not running; until it runs, the rule has no effect"),
        ("web:80 :81 from=old", "old (--from) is not running; until it runs, the rule has no effect"),
        ("web:80 four:80", "connections to fd00::2 stay as they are: four has no IPv6 address"),
        (
            "web:80 api:80 source=10.9.9.9",
            "connections to fd00::2 stay as they are: --source 10.9.9.9 is IPv4",
        ),
        ("192.0.2.1:80 four:80", "192.0.2.1 is this host's: connections of containers to it are redirected"),
        ("four:80 api:80 from=four", "10.0.0.4 is the address of the only client"),
        (
            "web:80 api:80 from=10.0.0.0/8",
            "connections to fd00::2 stay as they are: 10.0.0.0/8 (--from) has no IPv6 address",
        ),
        ("10.98.0.1:80 web:80", "no route of this host leads to 10.98.0.1 by the bridge of its target"),
        ("10.0.0.77:80 db:80", "no route of this host leads to 10.0.0.77 by the bridge"),
        ("10.99.0.1:80 198.51.100.7:80", "neither 10.99.0.1 nor a target is a container's"),
        ("10.99.0.1:80 198.51.100.7:80 from=host", "neither 10.99.0.1 nor a target is a container's"),
        ("web:80 api:80 from=four", "connections to fd00::2 stay as they are: four (--from) has no IPv6"),
    ] {
        let warnings = check(&[text]).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert!(matches!(&warnings[..], [one] if one.contains(expected)), "{text}: {warnings:?}");
    }
    let (compiled, _) = set(&["four:80 old:80"]).compile(&host());
    let found = &compiled.matches[&ip("10.0.0.4")];
    assert_eq!(compiled.rules[&found[0].rule].slots, [], "new connections are refused");
}

#[test]
fn a_rule_becomes_matches_targets_and_places() {
    let compiled = compiled(&["web:8080 :80"]);
    for (address, variant) in [("10.0.0.2", 0), ("fd00::2", 1)] {
        assert_eq!(
            compiled.matches[&ip(address)],
            [CompiledMatch {
                rule: RuleId::new(1, variant).unwrap(),
                protocol: 6,
                port_first: 8080,
                port_last: 8080,
                limited: false
            }]
        );
        assert_eq!(targets(&compiled, address, 0), all(&format!("{address} 80")));
    }
    assert_eq!(compiled.matches.len(), 2);
    assert_eq!((compiled.virtual_addresses.len(), compiled.forged_sources.len()), (0, 0));
    assert_eq!(compiled.endpoints[&ip("10.0.1.9")], place(13, 2));
    assert_eq!(compiled.interfaces.len(), 1);
    assert!(
        compiled.rules.values().all(|rule| rule.fast_path && rule.expires_ns == 0 && rule.source.is_none())
    );
}

#[test]
fn a_target_is_taken_where_the_match_is() {
    // `both` is on two bridges.
    assert_eq!(targets(&compiled(&["four:1 both:2"]), "10.0.0.4", 0), all("10.0.0.9 2"));
    assert_eq!(targets(&compiled(&["shop/cache:1 both:2"]), "10.0.1.24", 0), all("10.0.1.9 2"));
    let both = compiled(&["both:1 :2"]);
    assert_eq!(targets(&both, "10.0.0.9", 0), all("10.0.0.9 2"));
    assert_eq!(targets(&both, "10.0.1.9", 0), all("10.0.1.9 2"));
    // A service is all its containers, with one container's weight together.
    let service = compiled(&["10.99.0.1:80 db:80,api:80"]);
    assert_eq!(
        targets(&service, "10.99.0.1", 0).into_iter().map(|(name, _)| name).collect::<Vec<_>>(),
        ["10.0.0.3 0", "10.0.1.21 0", "10.0.1.22 0"]
    );
    let shares: Vec<_> = targets(&service, "10.99.0.1", 0).into_iter().map(|(_, share)| share).collect();
    assert!(shares[0].abs_diff(126) <= 1 && shares[1].abs_diff(63) <= 1, "{shares:?}");
    assert_eq!(service.virtual_addresses[&ip("10.99.0.1")].target, Some(place(17, 2)));
}

#[test]
fn everything_sent_to_an_address_is_any_protocol() {
    let all_ports = compiled(&["10.99.0.1 four"]);
    let found = all_ports.matches[&ip("10.99.0.1")][0];
    assert_eq!((found.protocol, found.port_first, found.port_last), (0, 0, 65535));
    assert_eq!(targets(&all_ports, "10.99.0.1", 0), all("10.0.0.4 0"));
    let udp = compiled(&["udp/10.99.0.1 198.51.100.7"]);
    assert_eq!(udp.matches[&ip("10.99.0.1")][0].protocol, 17);
    assert_eq!(udp.virtual_addresses[&ip("10.99.0.1")].target, None, "outside");
    let (of_host, _) = set(&["192.0.2.1:80 four:80"]).compile(&host());
    assert!(of_host.virtual_addresses.is_empty(), "the host has it");
}

#[test]
fn the_most_specific_comes_first() {
    let rules = compiled(
        &[
            "four api",
            "four:80-89 :90-99",
            "four:80 both:80",
            "four:80 :81 from=10.0.0.0/8",
            "four:80 :82 from=10.0.0.0/16",
            "four:80 :83 from=api",
            "udp/four api",
            "tcp/four:80-89 :90-99 from=both",
        ]
        .map(|text| text),
    );
    let order: Vec<u32> = rules.matches[&ip("10.0.0.4")].iter().map(|one| one.rule.number()).collect();
    assert_eq!(order, [6, 5, 4, 3, 8, 2, 7, 1]);
    let from_api: Vec<_> = rules.clients.iter().filter(|(id, _)| id.number() == 6).collect();
    assert_eq!(from_api.len(), 1, "of IPv4 only: {from_api:?}");
}

#[test]
fn a_forged_source_is_known_at_its_servers_only() {
    let (compiled, warnings) = set(&["web:80 api:80,four:80 source=10.9.9.9"]).compile(&host());
    assert_eq!(warnings.len(), 1, "IPv6 is left out");
    assert_eq!(compiled.forged_sources, [(14, ip("10.9.9.9")), (15, ip("10.9.9.9"))].into());
    let rule = compiled.rules.values().next().unwrap();
    assert_eq!((rule.source, rule.fast_path), (Some(ip("10.9.9.9")), false));
}

#[test]
fn one_address_has_room_for_sixteen() {
    let texts: Vec<String> = (1..=17).map(|port| format!("four:{port} :{}", port + 100)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    assert_eq!(check(&texts[..16]), Ok(Vec::new()));
    assert_eq!(check(&texts).unwrap_err(), "10.0.0.4 would have 17 rules; one address has room for 16");
    let (compiled, warnings) = set(&texts).compile(&host());
    assert_eq!(compiled.matches[&ip("10.0.0.4")].len(), MATCHES_MAX);
    assert!(matches!(&warnings[..], [Warning { rule, concern: Concern::NoEffect(_) }] if rule == "rule-16"));
}

#[test]
fn containers_that_change_leave_warnings_not_errors() {
    let set = set(&["10.0.0.77:80 api:80", "web:80 four:80", "web:90 web-v2:90"].map(|text| text));
    let mut later = host();
    later.residents[0].addresses = vec![(ip("10.0.0.77"), Some(place(31, 1)))];
    let (compiled, warnings) = set.compile(&later);
    let texts: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert!(texts.iter().any(|text| text.contains("\"rule-0\" is now about 10.0.0.77:80 too")), "{texts:?}");
    assert!(texts.iter().any(|text| text.contains("web-v2 is not running")), "{texts:?}");
    let numbers: Vec<_> = compiled.matches[&ip("10.0.0.77")].iter().map(|one| one.rule.number()).collect();
    assert_eq!(numbers, [1, 2, 3]);
    assert!(!compiled.matches.contains_key(&ip("10.0.0.2")), "the rule moved with its container");
}

/// As `docker network disconnect` leaves it: it runs, and cannot be reached.
#[test]
fn who_leaves_its_network_is_missed_and_the_others_serve() {
    let set = set(&["web:80 api:80,four:80", "four:80 web:80", "api:80 web:81 from=four"]);
    let mut later = host();
    later.residents.iter_mut().find(|one| one.container.name == "four").unwrap().addresses.clear();
    let (compiled, warnings) = set.compile(&later);
    let texts: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "the rule \"rule-0\": four is in no network; until it is in one, connections to it are shared by the other \
             targets",
            "the rule \"rule-1\": four is in no network; until it is in one, the rule has no effect",
            "the rule \"rule-2\": four (--from) is in no network; until it is in one, the rule has no effect",
        ]
    );
    let rule = &compiled.rules[&compiled.matches[&ip("10.0.0.2")][0].rule];
    assert!(rule.slots.iter().all(|slot| compiled.targets[slot].address == ip("10.0.0.3")));
}

#[test]
fn a_name_means_the_same_as_long_as_the_rule_is_there() {
    let rules = ["web:80 api:80", "10.99.0.1:80 cache", "10.99.0.2:80 ab12"];
    let mut now = host();
    now.residents.retain(|one| one.container.service.as_deref() != Some("cache"));
    now.residents.push(resident(service("shop-cache-1", "shop", "cache", 1), 20, 2, &["10.0.1.24"]));
    now.residents[2].addresses = vec![(ip("10.0.0.8"), Some(place(21, 1)))];
    let mut set = RuleSet::default();
    for text in rules {
        let kept = kept(text.split(':').next().unwrap(), text);
        set.add(KeptRule { means: now.meanings(&kept.rule), ..kept }).unwrap();
    }
    let target = |compiled: &Compiled, asked: &str| targets(compiled, asked, 0)[0].0.clone();
    let (before, warnings) = set.compile(&now);
    assert_eq!(warnings, []);

    // web is restarted, and there is a service of that name; another project has a service `cache`, too; another
    // container's id begins in the same way.
    let mut later = now;
    later.residents.retain(|one| one.container.name != "web");
    later.residents.push(resident(service("shop-web-1", "shop", "web", 1), 31, 1, &["10.0.0.31"]));
    later.residents.push(resident(service("blog-cache-1", "blog", "cache", 1), 19, 2, &["10.0.1.23"]));
    let other = Container { id: format!("ab12{}", "34".repeat(30)), ..named("other") };
    later.residents.push(resident(other, 32, 1, &["10.0.0.32"]));
    let (compiled, warnings) = set.compile(&later);
    let texts: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["the rule \"web\": web is not running; until it runs, the rule has no effect"]);
    assert!(!compiled.matches.contains_key(&ip("10.0.0.31")), "another's");
    for asked in ["10.99.0.1", "10.99.0.2"] {
        assert_eq!(target(&compiled, asked), target(&before, asked));
    }
    assert_eq!(
        serde_json::to_value(&set.get(2).unwrap().means).unwrap(),
        serde_json::json!({"cache": {"service": "shop/cache"}})
    );
}

#[test]
fn the_users_own_ssh_connection_is_not_cut_unasked() {
    let ssh = SshConnection::parse("203.0.113.9 50312 192.0.2.1 22").unwrap();
    for (text, cuts) in [
        ("192.0.2.1:22 four:22", true),
        ("192.0.2.1 four", true),
        ("192.0.2.1:20-29 four:20-29 from=203.0.113.0/24", true),
        ("192.0.2.1:22 four:22 from=10.0.0.0/8", false),
        ("udp/192.0.2.1:22 four:22", false),
        ("192.0.2.1:23 four:22", false),
        ("four:22 api:22", false),
    ] {
        let result = set(&[text]).check_ssh(1, &host(), ssh);
        assert_eq!(result.is_err(), cuts, "{text}: {result:?}");
    }
    for bad in ["", "203.0.113.9 50312 192.0.2.1", "a b c d"] {
        assert_eq!(SshConnection::parse(bad), None, "{bad}");
    }
    assert!(SshConnection::parse("fe80::1%eth0 1 ::ffff:192.0.2.1 22").is_some());
}

#[test]
fn rules_are_found_removed_and_end() {
    let mut set = set(&["four:1 :2", "four:3 :4"]);
    assert_eq!(set.find("rule-1").unwrap().0, 2);
    let missing = set.find("x").unwrap_err().to_string();
    assert_eq!(missing, "there is no rule named \"x\"; there are: rule-0, rule-1");
    assert!(matches!(set.add(kept("rule-1", "four:9 :8")), Err(RuleError::NameTaken(_))));
    assert_eq!(set.free_name().as_str(), "redirect-3");
    set.remove(2);
    let ending = KeptRule { expires_ns: 50, ..kept("ending", "four:5 :6") };
    assert_eq!(set.add(ending).unwrap(), 3, "no number is given twice");
    assert!(set.remove_expired(49).is_empty());
    assert_eq!(set.compile(&host()).0.rules[&RuleId::new(3, 0).unwrap()].expires_ns, 50);
    assert_eq!(set.remove_expired(50), [3]);
    assert_eq!((set.last_number(), set.iter().count()), (3, 1));
    assert_eq!(RuleSet::new([(7, kept("a", "four:1 :2"))].into(), 3).last_number(), 7);
}

/// The kernel counts by places, which numbers that come round would share.
#[test]
fn no_two_rules_have_one_place() {
    let there = [(3, kept("a", "web:1 :2")), (4, kept("b", "web:3 :4"))].into();
    let mut set = RuleSet::new(there, RuleId::PLACES + 2);
    assert_eq!(set.add(kept("c", "web:5 :6")), Ok(RuleId::PLACES + 5), "3 and 4 are taken");
    set.remove(4);
    assert_eq!(set.add(kept("d", "web:7 :8")), Ok(RuleId::PLACES + 6), "none is given twice");
    let (compiled, _) = set.compile(&host());
    let numbers: Vec<u32> = compiled.numbers.into_iter().collect();
    assert_eq!(numbers, [3, RuleId::PLACES + 5, RuleId::PLACES + 6]);
    // Without effect at the moment, and still a rule.
    let gone = Surroundings { residents: Vec::new(), ..host() };
    assert_eq!(set.compile(&gone).0.numbers.len(), 3);
    let last = [(RuleId::NUMBER_MAX - RuleId::PLACES + 1, kept("a", "web:1 :2"))].into();
    let mut full = RuleSet::new(last, RuleId::NUMBER_MAX);
    assert_eq!(full.add(kept("c", "web:5 :6")), Err(RuleError::NumbersUsedUp));
}

/// Who may ask who has a virtual address: veths of clients, and the host if it is one, or forwards what some send.
#[test]
fn clients_of_a_virtual_address_may_ask_for_it() {
    let host = None;
    for (rule, askers) in [
        ("10.99.0.1:80 web", vec![]), // whoever wants
        ("10.99.0.1:80 web from=web", vec![Some(11)]),
        ("[fd99::1]:80 web from=web", vec![Some(11)]),
        ("10.99.0.1:80 web from=both", vec![Some(12), Some(13)]),
        ("10.99.0.1:80 web from=shop/db", vec![Some(17), Some(18)]),
        ("10.99.0.1:80 web from=host", vec![host]),
        ("10.99.0.1:80 web from=10.0.1.0/24", vec![host, Some(13), Some(17), Some(18), Some(19), Some(20)]),
        ("10.99.0.1:80 web from=10.0.0.4", vec![Some(15)]),
        // Somebody outside, for whom the host asks.
        ("10.99.0.1:80 web from=192.0.2.77", vec![host]),
        // Somebody has these: they answer themselves.
        ("api:80 web from=web", vec![]),
    ] {
        let compiled = compiled(&[rule]);
        let id = RuleId::new(1, 0).unwrap();
        assert_eq!(compiled.askers, askers.into_iter().map(|asker| (id, asker)).collect(), "{rule}");
    }
}
