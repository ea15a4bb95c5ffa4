use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::flow::ConnectionId;
use crate::record::{
    Attribute, AttributeValue, Capture, FlowEvent, FlowRecord, InterfaceCounters, Matched, PacketDirection,
    PacketRecord, RequestRecord, SummaryRecord, Translated, Verdict,
};

type Parser = fn(&str) -> Result<Criterion, FilterError>;

fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

fn since(text: &str) -> Result<Criterion, FilterError> {
    Criterion::parse_since(text, now())
}

fn web() -> Identity {
    Identity::Container(Arc::new(Container {
        id: "beef0123456789ab".repeat(4),
        name: "shop-web-2".into(),
        project: Some("shop".into()),
        service: Some("web".into()),
        replica: Some(2),
        ..Container::default()
    }))
}

fn database() -> Identity {
    Identity::Container(Arc::new(Container { name: "db".into(), ..Container::default() }))
}

fn end(ip: &str, port: Option<u16>, identity: Identity) -> Endpoint {
    Endpoint { ip: ip.parse().unwrap(), port, identity }
}

fn flow(client: Endpoint, server: Endpoint, protocol: Protocol) -> Record {
    Record::Flow(Box::new(FlowRecord {
        time: now(),
        id: ConnectionId(0x0123_4567_89ab_cdef),
        event: FlowEvent::Update,
        client,
        server,
        protocol,
        icmp_type: protocol.is_icmp().then_some(8),
        state: State::Established,
        verdict: Verdict::Forwarded,
        rule: None,
        translated: None,
        midstream: false,
        start: now(),
        duration_ms: 1.0,
        sent_packets: 1,
        sent_bytes: 74,
        received_packets: 1,
        received_bytes: 74,
        sent_delivered_packets: None,
        received_delivered_packets: None,
        rtt_us: None,
        retransmits: 0,
        resets: 0,
        zero_windows: 0,
        icmp_errors: 0,
        tcp_flags: None,
        interfaces: ["veth12ab", "veth34cd"].map(interface).into(),
    }))
}

fn interface(name: &str) -> InterfaceCounters {
    InterfaceCounters {
        name: name.into(),
        ingress_packets: 1,
        ingress_bytes: 74,
        egress_packets: 1,
        egress_bytes: 74,
    }
}

/// shop/web-2:43122 to db:3306.
fn inside() -> Record {
    flow(end("172.18.0.3", Some(43122), web()), end("172.18.0.4", Some(3306), database()), Protocol::TCP)
}

/// db:50000 to example.com:443, IPv6.
fn outside() -> Record {
    flow(
        end("fd00::4", Some(50_000), database()),
        end("2001:db8::1", Some(443), Identity::World(Some("example.com".into()))),
        Protocol::TCP,
    )
}

/// The host pings db.
fn ping() -> Record {
    flow(end("fd00::1", None, Identity::Host), end("fd00::4", None, database()), Protocol::ICMPV6)
}

/// db answers shop/web-2.
fn packet() -> Record {
    Record::Packet(Box::new(PacketRecord {
        time: now(),
        source: end("172.18.0.4", Some(3306), database()),
        destination: end("172.18.0.3", Some(43122), web()),
        protocol: Protocol::TCP,
        icmp_type: None,
        interface: Some("veth34cd".into()),
        direction: Some(PacketDirection::FromContainer),
        length_bytes: 74,
        payload_bytes: 0,
        tcp_flags: Some("SA".into()),
        tcp_seq: Some(1),
        tcp_ack: Some(2),
        tcp_window: Some(64_240),
    }))
}

/// Each of inside, outside, ping, packet: `+` if the record matches.
fn verdicts(criteria: &[(Parser, &str, bool)]) -> String {
    let mut filter = Filter::default();
    for (parse, text, negated) in criteria {
        filter.add(parse(text).unwrap(), *negated);
    }
    [inside(), outside(), ping(), packet()]
        .iter()
        .map(|record| if filter.matches(record) { '+' } else { '-' })
        .collect()
}

#[test]
fn each_criterion_matches_what_it_says() {
    let container: Parser = Criterion::parse_container;
    let service: Parser = Criterion::parse_service;
    let from: Parser = Criterion::parse_from;
    let to: Parser = Criterion::parse_to;
    let ip: Parser = Criterion::parse_ip;
    let port: Parser = Criterion::parse_port;
    let protocol: Parser = Criterion::parse_protocol;
    let state: Parser = Criterion::parse_state;
    let interface: Parser = Criterion::parse_interface;
    let version: Parser = Criterion::parse_ip_version;
    for (parse, text, expected) in [
        (container, "shop-web-2", "+--+"),
        (container, "shop/web-2", "+--+"),
        (container, "shop/web", "----"),
        (container, "db", "++++"),
        (container, "d", "----"),
        (container, "beef", "+--+"),
        (container, "BEEF0123", "+--+"),
        (container, "bee", "----"),
        (container, "shop*", "+--+"),
        (container, "s*2", "+--+"),
        (container, "d?", "++++"),
        (container, "{db,nginx}", "++++"),
        (service, "web", "+--+"),
        (service, "shop/web", "+--+"),
        (service, "shop/*", "+--+"),
        (service, "w*", "+--+"),
        (service, "db", "----"),
        (service, "other/web", "----"),
        (from, "shop/web", "+---"),
        (from, "web", "+---"),
        (from, "db", "-+-+"),
        (from, "db:3306", "---+"),
        (from, "host", "--+-"),
        (from, "world", "----"),
        (from, "172.18.0.3", "+---"),
        (from, "172.18.0.0/16:40000-50000", "+---"),
        (to, "db:3306", "+---"),
        (to, ":443", "-+--"),
        (to, "world", "-+--"),
        (to, "world:443", "-+--"),
        (to, "world:80", "----"),
        (to, "Example.COM.", "-+--"),
        (to, "*.com:443", "-+--"),
        (to, "example.org", "----"),
        (to, "2001:db8::1", "-+--"),
        (to, "[2001:db8::1]", "-+--"),
        (to, "[2001:db8::/32]:443", "-+--"),
        (to, "2001:db8::/32", "-+--"),
        (to, "[2001:db8::1]:80", "----"),
        (to, "virtual", "----"),
        (to, "multicast", "----"),
        (ip, "172.18.0.4", "+--+"),
        (ip, "::ffff:172.18.0.4", "+--+"),
        (ip, "::ffff:172.18.0.0/112", "+--+"),
        (ip, "172.18.0.9/16", "+--+"),
        (ip, "0.0.0.0/0", "+--+"),
        (ip, "::/0", "-++-"),
        (port, "3306", "+--+"),
        (port, "400-500", "-+--"),
        (port, "0", "----"),
        (protocol, "tcp", "++-+"),
        (protocol, "icmp", "--+-"),
        (protocol, "1", "----"),
        (protocol, "ICMPv6", "--+-"),
        (state, "established", "+++-"),
        (state, "Reset", "----"),
        (interface, "veth34cd", "++++"),
        (interface, "veth12*", "+++-"),
        (interface, "eth0", "----"),
        (version, "4", "+--+"),
        (version, "6", "-++-"),
        (since, "0s", "++++"),
        (since, "2026-11-22T12:00:00Z", "++++"),
        (since, "2026-11-22T12:00:00.000000001Z", "----"),
    ] {
        assert_eq!(verdicts(&[(parse, text, false)]), expected, "{text}");
        let opposite: String = expected.chars().map(|sign| if sign == '+' { '-' } else { '+' }).collect();
        assert_eq!(verdicts(&[(parse, text, true)]), opposite, "not {text}");
    }
}

#[test]
fn the_same_flag_is_or_different_flags_are_and() {
    let port: Parser = Criterion::parse_port;
    let from: Parser = Criterion::parse_from;
    let protocol: Parser = Criterion::parse_protocol;
    assert_eq!(verdicts(&[]), "++++");
    assert_eq!(verdicts(&[(port, "443", false), (port, "3306", false)]), "++-+");
    assert_eq!(verdicts(&[(port, "3306", false), (from, "db", false)]), "---+");
    assert_eq!(verdicts(&[(protocol, "tcp", false), (port, "443", true)]), "+--+");
    assert_eq!(verdicts(&[(port, "443", true), (protocol, "icmp", true)]), "+--+");
    assert_eq!(verdicts(&[(port, "443", false), (port, "443", true)]), "----");
}

#[test]
fn a_request_that_a_rule_redirected_is_told_apart() {
    let Record::Request(plain) = request("GET", "/", "200", 1) else { unreachable!() };
    let redirected = RequestRecord { rule: Some("canary".into()), ..(*plain).clone() };
    let records = [Record::Request(plain), Record::Request(Box::new(redirected)), packet()];
    for (text, expected) in [("forwarded", [true, false, false]), ("redirected", [false, true, false])] {
        let mut filter = Filter::default();
        filter.add(Criterion::parse_verdict(text).unwrap(), false);
        assert_eq!(records.each_ref().map(|record| filter.matches(record)), expected, "{text}");
    }
}

fn request(operation: &str, target: &str, status: &str, latency_us: u64) -> Record {
    let path = target.split('?').next().unwrap();
    let attributes: &[(Attribute, &str)] = match operation {
        "GET" => &[(Attribute::HttpRequestMethod, "GET"), (Attribute::UrlPath, path)],
        _ => &[(Attribute::DbQueryText, "SELECT * FROM Users")],
    };
    Record::Request(Box::new(RequestRecord {
        time: now(),
        flow: ConnectionId(0x0123_4567_89ab_cdef),
        client: end("172.18.0.3", Some(43122), web()),
        server: end("172.18.0.4", Some(80), database()),
        rule: None,
        translated: None,
        protocol: if operation == "GET" { "http" } else { "dns" },
        operation: operation.into(),
        target: Some(target.into()),
        status: Some(status.into()),
        ok: Some(!(status.starts_with(['4', '5']) || status == "NXDOMAIN")),
        error: None,
        request_bytes: 1,
        response_bytes: 1,
        latency_us: Some(latency_us),
        total_us: Some(latency_us),
        matched: Matched::Yes,
        capture: Capture::Complete,
        revealed: Vec::new(),
        attributes: attributes.iter().map(|(name, text)| (*name, AttributeValue::from(*text))).collect(),
    }))
}

#[test]
fn requests_are_told_apart_and_flows_are_none() {
    let records = [
        request("GET", "/orders/17?page=2", "200", 900),
        request("GET", "/health", "503", 150_000),
        request("AAAA", "example.com", "NXDOMAIN", 20),
        inside(),
    ];
    for (parse, text, expected) in [
        (Criterion::parse_method as Parser, "get", "++--"),
        (Criterion::parse_method, "P*", "----"),
        (Criterion::parse_path, "/orders/*", "+---"),
        (Criterion::parse_path, "/health", "-+--"),
        (Criterion::parse_status, "5xx", "-+--"),
        (Criterion::parse_status, "200", "+---"),
        (Criterion::parse_status, ">=400", "-+--"),
        (Criterion::parse_status, "<400", "+---"),
        (Criterion::parse_status, "nxdomain", "--+-"),
        (Criterion::parse_operation, "aaaa", "--+-"),
        (Criterion::parse_statement, "from users", "--+-"),
        (Criterion::parse_key, "*.com", "--+-"),
        (Criterion::parse_slow, "100ms", "-+--"),
        (Criterion::parse_slow, "900us", "++--"),
        (Criterion::parse_protocol, "HTTP", "++--"),
        (Criterion::parse_protocol, "dns", "--+-"),
        (Criterion::parse_from, "shop/web", "++++"),
    ] {
        let mut filter = Filter::default();
        filter.add(parse(text).unwrap(), false);
        let got: String =
            records.iter().map(|record| if filter.matches(record) { '+' } else { '-' }).collect();
        assert_eq!(got, expected, "{text}");
    }
    let mut errors = Filter::default();
    errors.add(Criterion::Errors, false);
    let failed: Vec<_> = records.iter().map(|record| errors.matches(record)).collect();
    assert_eq!(failed, [false, true, true, false]);
    let mut either = Filter::default();
    either.add(Criterion::parse_protocol("dns").unwrap(), false);
    either.add(Criterion::parse_protocol("tcp").unwrap(), false);
    assert!(either.matches(&records[2]) && either.matches(&records[3]), "one flag, either value");
    assert_eq!(either.application(), Some("dns"));
    for bad in ["", "9xx", ">=x", "5x", "four hundred", ">"] {
        assert!(Criterion::parse_status(bad).is_err(), "{bad}");
    }
    assert!(Criterion::parse_slow("100").is_err() && Criterion::parse_statement("").is_err());
}

#[test]
fn the_summary_is_always_wanted() {
    let mut filter = Filter::default();
    filter.add(Criterion::parse_port("1").unwrap(), false);
    let summary = SummaryRecord {
        time: now(),
        duration_ms: 1.0,
        flows: 0,
        packets: 0,
        bytes: 0,
        requests: None,
        captured_bytes: None,
        left_out_bytes: None,
        records: 0,
        not_flows: [].into(),
        not_parsed: [].into(),
        lost: [].into(),
        interfaces: Vec::new(),
    };
    assert!(filter.matches(&Record::Summary(summary.into())));
}

#[test]
fn names_that_nobody_bears_can_be_told() {
    let mut filter = Filter::default();
    for (text, negated) in [("db", false), ("nginx", false), ("red*", false), ("gone", true)] {
        filter.add(Criterion::parse_container(text).unwrap(), negated);
    }
    filter.add(Criterion::parse_service("shop/web").unwrap(), false);
    filter.add(Criterion::parse_service("mail").unwrap(), false);
    filter.add(Criterion::parse_from("example.com").unwrap(), false);
    filter.add(Criterion::parse_interface("br-*").unwrap(), false);
    filter.add(Criterion::parse_interface("lo").unwrap(), true);
    let known: Vec<_> = [web(), database()]
        .into_iter()
        .filter_map(|identity| match identity {
            Identity::Container(container) => Some(container),
            _ => None,
        })
        .collect();
    assert_eq!(filter.container_names().collect::<Vec<_>>(), ["db", "nginx", "shop/web", "mail"]);
    assert_eq!(filter.unknown_names(&known), ["nginx", "mail"]);
    let globs: Vec<_> = filter.interface_globs().map(NamePattern::as_str).collect();
    assert_eq!(globs, ["br-*"]);
    let taken = filter.take_interface_globs();
    assert_eq!(taken.iter().map(NamePattern::as_str).collect::<Vec<_>>(), ["br-*"]);
    assert_eq!(filter.interface_globs().count(), 0);
    assert_eq!(filter.container_names().collect::<Vec<_>>(), ["db", "nginx", "shop/web", "mail"]);
}

#[test]
fn times_are_ago_or_absolute() {
    for (text, expected) in [
        ("90s", "2026-11-22T11:58:30Z"),
        ("2h 30m", "2026-11-22T09:30:00Z"),
        ("1d", "2026-11-21T12:00:00Z"),
        ("2026-11-22T13:00:00+02:00", "2026-11-22T11:00:00Z"),
    ] {
        match since(text) {
            Ok(Criterion::Since(time)) => assert_eq!(time, expected.parse().unwrap(), "{text}"),
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn errors_say_what_is_wrong_and_what_is_accepted() {
    let container: Parser = Criterion::parse_container;
    let from: Parser = Criterion::parse_from;
    let ip: Parser = Criterion::parse_ip;
    let port: Parser = Criterion::parse_port;
    for (parse, text, message) in [
        (ip, "10.0.0.0/33", "\"10.0.0.0/33\" is not an address range: after \"/\" a number from 0 to 32"),
        (ip, "fd00::/129", "from 0 to 128"),
        (ip, "web", "accepted are addresses (10.0.0.7, 2001:db8::1) and ranges (10.0.0.0/8, fd00::/8)"),
        (from, "10.0.0.0/33", "\"10.0.0.0/33\" is not an address range"),
        (from, "10.0.0.300:80", "\"10.0.0.300\" is not an address range"),
        (from, "10.0.0", "is not an address range"),
        (from, "fd00::/8:443", "written in brackets"),
        (from, "[fd00::1]443", "written in brackets"),
        (from, "web:http", "\"http\" is not a port"),
        (from, "web:", "\"\" is not a port"),
        (from, "", "the name is empty"),
        (from, ".", "is not an address range"),
        (container, "", "the container is empty"),
        (container, "web[", "\"web[\" is not a container pattern: "),
        (port, "65536", "a number from 0 to 65535, or a range such as 8000-8080"),
        (port, "+80", "is not a port"),
        (port, "90-80", "the lower number stands first"),
        (Criterion::parse_protocol, "quic", "numbers from 0 to 255"),
        (Criterion::parse_state, "open", "accepted are new, established, closing, closed, reset, idle"),
        (Criterion::parse_ip_version, "5", "accepted are 4 and 6"),
        (since, "yesterday", "(90s, 15m, 2h 30m, 1d)"),
        (since, "-5m", "is not a time"),
        (since, "1 month", "is not a time"),
        (since, "150000000h", "is not a time"),
    ] {
        match parse(text) {
            Err(error) => assert!(error.to_string().contains(message), "{text}: {error}"),
            Ok(criterion) => panic!("{text}: {criterion:?}"),
        }
    }
    let hostile = Criterion::parse_port("\u{1b}[2J\u{202e}").unwrap_err().to_string();
    assert!(!hostile.contains(crate::text::is_invisible), "{hostile:?}");
}

/// A redirected flow is found by what its client sees and by what its server sees.
#[test]
fn both_sides_of_a_redirected_flow_are_its_ends() {
    let Record::Flow(plain) = inside() else { panic!("a flow") };
    let translated = Translated {
        client: end("10.9.9.9", Some(40_000), web()),
        server: end("172.18.0.9", Some(80), Identity::World(None)),
    };
    let verdict = Verdict::Redirected;
    let redirected = FlowRecord { verdict, translated: Some(Box::new(translated)), ..(*plain).clone() };
    let redirected = Record::Flow(redirected.into());
    let plain = Record::Flow(plain);
    for (parse, text, expected) in [
        (Criterion::parse_from as Parser, "172.18.0.3:43122", [true, true]),
        (Criterion::parse_from, "10.9.9.9", [false, true]),
        (Criterion::parse_to, "db:3306", [true, true]),
        (Criterion::parse_to, "172.18.0.9:80", [false, true]),
        (Criterion::parse_from, "172.18.0.9", [false, false]),
        (Criterion::parse_port, "80", [false, true]),
        (Criterion::parse_ip, "10.9.9.0/24", [false, true]),
        (Criterion::parse_verdict, "redirected", [false, true]),
        (Criterion::parse_verdict, "Forwarded", [true, false]),
    ] {
        let mut filter = Filter::default();
        filter.add(parse(text).unwrap(), false);
        assert_eq!([&plain, &redirected].map(|record| filter.matches(record)), expected, "{text}");
    }
    let error = Criterion::parse_verdict("bent").unwrap_err().to_string();
    assert_eq!(error, "\"bent\" is not a verdict: accepted are forwarded, redirected");
}

proptest! {
    #[test]
    fn parsing_never_panics(text in "[ -~]{0,24}|\\PC{0,24}|[0-9a-f:./\\[\\]*-]{0,24}") {
        for parse in [
            Criterion::parse_container, Criterion::parse_service, Criterion::parse_from,
            Criterion::parse_to, Criterion::parse_ip, Criterion::parse_port,
            Criterion::parse_protocol, Criterion::parse_state, Criterion::parse_interface,
            Criterion::parse_ip_version, Criterion::parse_verdict, since as Parser,
        ] {
            match parse(&text) {
                Ok(criterion) => {
                    let mut filter = Filter::default();
                    filter.add(criterion, false);
                    for record in [inside(), outside(), ping(), packet()] {
                        let _ = filter.matches(&record);
                    }
                }
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
        }
    }

    #[test]
    fn every_address_selects_itself(ip in any::<IpAddr>(), port in any::<u16>()) {
        let ip = ip.to_canonical();
        let socket = std::net::SocketAddr::new(ip, port);
        let target = Endpoint { ip, port: Some(port), identity: Identity::World(None) };
        for text in [ip.to_string(), socket.to_string()] {
            prop_assert!(Selector::parse(&text).unwrap().matches(&target), "{}", text);
        }
    }
}
