mod csv;
mod json;
mod stats;

use std::io;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use weir_core::endpoint::{Container, Endpoint, Identity};
use weir_core::flow::{ConnectionId, Protocol};
use weir_core::record::{
    Attribute, AttributeValue, Capture, FlowEvent, FlowRecord, InterfaceCounters, Matched, PacketDirection,
    PacketRecord, RequestRecord, State, SummaryRecord, Translated, Verdict,
};
use weir_core::text::is_invisible;

use super::*;

/// What was written, to be looked at while the sink has it.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Written {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

fn written(format: Format, color: bool, records: &[Record]) -> String {
    let written = Written::default();
    let zone = TimeZone::fixed(jiff::tz::offset(1));
    let mut sink = sink_in(zone, format, color, Box::new(written.clone()));
    for record in records {
        sink.write(record).unwrap();
    }
    sink.finish().unwrap();
    written.text()
}

fn time() -> Timestamp {
    "2026-11-22T11:01:07.482913Z".parse().unwrap()
}

fn compose(service: &str) -> Identity {
    Identity::Container(Arc::new(Container {
        id: "beef".repeat(16),
        name: format!("shop-{service}-1"),
        image: Some("nginx".into()),
        project: Some("shop".into()),
        service: Some(service.into()),
        replica: None,
    }))
}

fn end(ip: &str, port: Option<u16>, identity: Identity) -> Endpoint {
    Endpoint { ip: ip.parse().unwrap(), port, identity }
}

/// shop/web asks shop/db, halfway.
fn query() -> FlowRecord {
    FlowRecord {
        time: time(),
        id: ConnectionId(0x0123_4567_89ab_cdef),
        event: FlowEvent::Update,
        client: end("172.18.0.3", Some(43122), compose("web")),
        server: end("172.18.0.4", Some(3306), compose("db")),
        protocol: Protocol::TCP,
        icmp_type: None,
        state: State::Established,
        verdict: Verdict::Forwarded,
        rule: None,
        translated: None,
        midstream: false,
        start: time(),
        duration_ms: 12.4,
        sent_packets: 9,
        sent_bytes: 1_234,
        received_packets: 20,
        received_bytes: 18_400,
        sent_delivered_packets: Some(9),
        received_delivered_packets: Some(20),
        rtt_us: Some(113),
        retransmits: 0,
        resets: 0,
        zero_windows: 0,
        icmp_errors: 0,
        tcp_flags: Some(["SPA".into(), "SPA".into()]),
        interfaces: vec![InterfaceCounters {
            name: "veth12ab".into(),
            ingress_packets: 9,
            ingress_bytes: 1_234,
            egress_packets: 20,
            egress_bytes: 18_400,
        }],
    }
}

/// The host pings shop/db and gets no answer.
fn ping() -> FlowRecord {
    FlowRecord {
        event: FlowEvent::Open,
        client: end("fd00::1", None, Identity::Host),
        server: end("fd00::4", None, compose("db")),
        protocol: Protocol::ICMPV6,
        icmp_type: Some(128),
        state: State::New,
        duration_ms: 0.0,
        sent_packets: 1,
        sent_bytes: 118,
        received_packets: 0,
        received_bytes: 0,
        sent_delivered_packets: Some(0),
        received_delivered_packets: None,
        rtt_us: None,
        tcp_flags: None,
        ..query()
    }
}

/// A connection to the outside that everything went wrong with.
fn broken() -> FlowRecord {
    FlowRecord {
        event: FlowEvent::Close,
        server: end("2001:db8::7", Some(443), Identity::World(None)),
        state: State::Reset,
        midstream: true,
        duration_ms: 200_000.0,
        sent_packets: 2_000,
        sent_delivered_packets: Some(766),
        rtt_us: None,
        retransmits: 1_234,
        resets: 1,
        zero_windows: 2,
        icmp_errors: 1,
        ..query()
    }
}

fn packet() -> PacketRecord {
    PacketRecord {
        time: time(),
        source: end("172.18.0.3", Some(43122), compose("web")),
        destination: end("172.18.0.4", Some(3306), compose("db")),
        protocol: Protocol::TCP,
        icmp_type: None,
        interface: Some("veth12ab".into()),
        direction: Some(PacketDirection::FromContainer),
        length_bytes: 1_514,
        payload_bytes: 1_448,
        tcp_flags: Some("PA".into()),
        tcp_seq: Some(4_000_000_000),
        tcp_ack: Some(17),
        tcp_window: Some(64_240),
    }
}

fn packets() -> Vec<Record> {
    let syn = PacketRecord {
        length_bytes: 74,
        payload_bytes: 0,
        tcp_flags: Some("S".into()),
        tcp_seq: Some(1),
        tcp_ack: Some(0),
        ..packet()
    };
    let datagram = PacketRecord {
        source: end("192.0.2.53", Some(53), Identity::World(Some("dns.example".into()))),
        destination: packet().source,
        protocol: Protocol::UDP,
        direction: Some(PacketDirection::ToContainer),
        length_bytes: 90,
        payload_bytes: 48,
        tcp_flags: None,
        tcp_seq: None,
        tcp_ack: None,
        tcp_window: None,
        ..packet()
    };
    [syn, packet(), datagram].into_iter().map(|packet| Record::Packet(packet.into())).collect()
}

fn flows() -> Vec<Record> {
    [query(), ping(), broken(), query()].into_iter().map(|flow| Record::Flow(flow.into())).collect()
}

fn request() -> RequestRecord {
    RequestRecord {
        time: time(),
        flow: ConnectionId(0x0123_4567_89ab_cdef),
        client: query().client,
        server: query().server,
        rule: None,
        translated: None,
        protocol: "http",
        operation: "GET".into(),
        target: Some("/orders/17".into()),
        status: Some("200".into()),
        ok: Some(true),
        error: None,
        request_bytes: 412,
        response_bytes: 18_400,
        latency_us: Some(820),
        total_us: Some(1_900),
        matched: Matched::Yes,
        capture: Capture::Complete,
        attributes: [(Attribute::HttpRequestMethod, AttributeValue::from("GET"))].into(),
        revealed: Vec::new(),
    }
}

fn requests() -> Vec<Record> {
    let unanswered = RequestRecord {
        status: None,
        ok: None,
        response_bytes: 0,
        latency_us: None,
        total_us: None,
        matched: Matched::NoResponse,
        capture: Capture::Gap,
        ..request()
    };
    let unasked = RequestRecord {
        operation: "".into(),
        target: None,
        status: Some("502".into()),
        ok: Some(false),
        error: Some("Bad Gateway".into()),
        request_bytes: 0,
        latency_us: None,
        total_us: None,
        matched: Matched::NoRequest,
        capture: Capture::Midstream,
        ..request()
    };
    [request(), unanswered, unasked].into_iter().map(|one| Record::Request(Box::new(one))).collect()
}

fn summary() -> SummaryRecord {
    SummaryRecord {
        time: time(),
        duration_ms: 30_000.0,
        flows: 12,
        packets: 3_204,
        bytes: 4_100_000,
        requests: None,
        captured_bytes: None,
        left_out_bytes: None,
        records: 24,
        not_flows: [].into(),
        not_parsed: [].into(),
        lost: [].into(),
        interfaces: Vec::new(),
    }
}

#[test]
fn a_flow_is_one_line() {
    assert_eq!(
        written(Format::Compact, false, &[Record::Flow(query().into())]),
        "12:01:07.482  shop/web:43122 → shop/db:3306  TCP  established  1.2 kB / 18.4 kB  rtt 0.11 ms\n"
    );
}

#[test]
fn a_redirected_flow_shows_both_sides_in_one_row() {
    let redirected = |client: Endpoint| FlowRecord {
        server: end("172.18.0.4", Some(8080), compose("db")),
        verdict: Verdict::Redirected,
        rule: Some("canary".into()),
        translated: Some(Box::new(Translated {
            client,
            server: end("172.18.0.7", Some(80), compose("api")),
        })),
        ..query()
    };
    for (client, expected) in [
        (query().client, "shop/web:43122 → shop/db:8080 ⇒ shop/api:80  TCP"),
        (
            end("10.9.9.9", Some(40_000), compose("web")),
            "shop/web:43122 → shop/db:8080 ⇒ 10.9.9.9:40000 → shop/api:80  TCP",
        ),
    ] {
        let record = [Record::Flow(redirected(client).into())];
        let line = written(Format::Compact, false, &record);
        assert!(line.contains(expected) && line.contains("redirected by canary"), "{line}");
        assert!(written(Format::Table, false, &record).contains("shop/db:8080 ⇒ "));
        let json: serde_json::Value = serde_json::from_str(&written(Format::Jsonl, false, &record)).unwrap();
        assert_eq!((&json["verdict"], &json["rule"]), (&"redirected".into(), &"canary".into()));
        assert_eq!(json["translated"]["server"]["port"], 80);
    }
}

#[test]
fn columns_grow_and_nothing_is_cut() {
    let long = "x".repeat(100);
    let mut records = flows();
    let named = FlowRecord {
        client: end("192.0.2.7", Some(80), Identity::World(Some(long.clone().into()))),
        protocol: Protocol(89),
        ..query()
    };
    records.insert(3, Record::Flow(named.into()));
    let expected = [
        "12:01:07.482  shop/web:43122 → shop/db:3306  TCP  established  1.2 kB / 18.4 kB  rtt 0.11 ms",
        "12:01:07.482  host           → shop/db       ICMPv6 echo  new          118 B / 0 B",
        "12:01:07.482  shop/web:43122 → world/[2001:db8::7]:443  TCP          reset        1.2 kB / 18.4 kB  \
         lasted 3 m 20 s  1,234 retransmits  1 reset  2 zero windows  1 ICMP error  not delivered: 1,234  \
         midstream",
        &format!(
            "12:01:07.482  {long}:80 → shop/db:3306             protocol 89  established  1.2 kB / 18.4 kB  \
             rtt 0.11 ms"
        ),
        "12:01:07.482  shop/web:43122 → shop/db:3306             TCP          established  1.2 kB / 18.4 kB  \
         rtt 0.11 ms",
    ];
    let text = written(Format::Compact, false, &records);
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_packet_is_one_line() {
    let expected = [
        "12:01:07.482913  veth12ab ↑  shop/web:43122 → shop/db:3306  TCP  [S]  seq 1 win 64240  74 B",
        "12:01:07.482913  veth12ab ↑  shop/web:43122 → shop/db:3306  TCP  [PA]  \
         seq 4000000000 ack 17 win 64240  1514 B (1448 B payload)",
        "12:01:07.482913  veth12ab ↓  dns.example:53 → shop/web:43122  UDP  90 B (48 B payload)",
    ];
    assert_eq!(written(Format::Compact, false, &packets()).lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_request_is_one_line() {
    let expected = [
        "12:01:07.482  shop/web:43122 → shop/db:3306  HTTP  GET /orders/17  200  0.82 ms  412 B / 18.4 kB",
        "12:01:07.482  shop/web:43122 → shop/db:3306  HTTP  GET /orders/17  no answer        -  412 B / 0 B      gap",
        "12:01:07.482  shop/web:43122 → shop/db:3306  HTTP  ?               502              -  0 B / 18.4 kB    \
         Bad Gateway  request not seen  midstream",
    ];
    assert_eq!(written(Format::Compact, false, &requests()).lines().collect::<Vec<_>>(), expected);
    let table = written(Format::Table, false, &requests());
    assert!(table.starts_with("TIME          CLIENT"), "{table}");
    assert_eq!(table.lines().count(), 5, "the header again where the status grew: {table}");
}

#[test]
fn a_long_target_is_cut_for_people_only() {
    let target = "/é".repeat(200);
    let long =
        [Record::Request(Box::new(RequestRecord { target: Some(target.clone().into()), ..request() }))];
    let line = written(Format::Compact, false, &long);
    assert!(line.contains(&format!("{}…", "/é".repeat(80))), "{line}");
    assert!(written(Format::Jsonl, false, &long).contains(&target));
}

#[test]
fn colour_is_not_the_only_sign() {
    let colored = written(Format::Compact, true, &[Record::Flow(query().into())]);
    assert_eq!(
        colored,
        "12:01:07.482  \u{1b}[36mshop/web\u{1b}[0m:\u{1b}[33m43122\u{1b}[0m → \
         \u{1b}[36mshop/db\u{1b}[0m:\u{1b}[33m3306\u{1b}[0m  TCP  \u{1b}[32mestablished\u{1b}[0m  \
         1.2 kB / 18.4 kB  rtt 0.11 ms\n"
    );
    for format in [Format::Compact, Format::Table] {
        let records = [flows(), packets(), requests(), vec![Record::Summary(summary().into())]].concat();
        let mut stripped = written(format, true, &records);
        while let Some(start) = stripped.find('\u{1b}') {
            let length = stripped[start..].find('m').unwrap();
            stripped.replace_range(start..=start + length, "");
        }
        assert_eq!(stripped, written(format, false, &records), "{format:?}");
    }
}

#[test]
fn a_table_repeats_its_header_only_where_a_column_grew() {
    let text = written(Format::Table, false, &flows());
    let expected = "\
TIME          EVENT   CLIENT                    SERVER                    PROTOCOL  STATE            SENT  RECEIVED       RTT   DURATION  NOTES
12:01:07.482  update  shop/web:43122            shop/db:3306              TCP       established    1.2 kB   18.4 kB   0.11 ms    12.4 ms
TIME          EVENT   CLIENT                    SERVER                    PROTOCOL          STATE            SENT  RECEIVED       RTT   DURATION  NOTES
12:01:07.482  open    host                      shop/db                   ICMPv6 echo       new             118 B       0 B         -   0.000 ms
12:01:07.482  close   shop/web:43122            world/[2001:db8::7]:443   TCP               reset          1.2 kB   18.4 kB         -   3 m 20 s  1,234 retransmits  1 reset  2 zero windows  1 ICMP error  not delivered: 1,234  midstream
12:01:07.482  update  shop/web:43122            shop/db:3306              TCP               established    1.2 kB   18.4 kB   0.11 ms    12.4 ms
";
    assert_eq!(text, expected);
    let text = written(Format::Table, false, &packets());
    let expected = "\
TIME             INTERFACE         SOURCE                    DESTINATION               PROTOCOL  LENGTH  PAYLOAD  FLAGS          SEQ         ACK  WINDOW
12:01:07.482913  veth12ab ↑        shop/web:43122            shop/db:3306              TCP           74        0  [S]              1           -   64240
12:01:07.482913  veth12ab ↑        shop/web:43122            shop/db:3306              TCP         1514     1448  [PA]    4000000000          17   64240
12:01:07.482913  veth12ab ↓        dns.example:53            shop/web:43122            UDP           90       48  -                -           -       -
";
    assert_eq!(text, expected);
}

#[test]
fn the_summary_says_what_was_lost() {
    let nothing = "12 flows, 3,204 packets, 4.1 MB in 30.0 s; nothing lost\n";
    let losses = SummaryRecord {
        flows: 1,
        not_flows: [("arp", 12), ("non_ip", 3)].into(),
        lost: [("table_full", 3_000), ("malformed", 1), ("something_new", 2)].into(),
        ..summary()
    };
    let lost = "\
1 flow, 3,204 packets, 4.1 MB in 30.0 s; lost:
  1 packet with a header that contradicts itself
  something new: 2
  3,000 packets of flows that found no room in the flow table
in no flow: 12 ARP, 3 not IP
";
    let audited = SummaryRecord {
        requests: Some(24),
        not_parsed: [("encrypted", 3), ("not_understood", 1)].into(),
        ..summary()
    };
    let read = "\
24 requests, 12 flows, 3,204 packets, 4.1 MB in 30.0 s; nothing lost
connections not read: 3 encrypted, 1 in a protocol that weir does not know
";
    for format in [Format::Compact, Format::Table] {
        assert_eq!(written(format, false, &[Record::Summary(audited.clone().into())]), read);
        assert_eq!(written(format, false, &[Record::Summary(summary().into())]), nothing);
        assert_eq!(written(format, false, &[Record::Summary(losses.clone().into())]), lost);
    }
}

#[test]
fn json_is_an_array_and_jsonl_is_lines() {
    let records = [flows(), packets(), requests(), vec![Record::Summary(summary().into())]].concat();
    let expected: Vec<_> = records.iter().map(|record| serde_json::to_value(record).unwrap()).collect();

    let array = written(Format::Json, false, &records);
    assert_eq!(serde_json::from_str::<Vec<serde_json::Value>>(&array).unwrap(), expected);
    assert!(array.starts_with("[\n{\"kind\":\"flow\","), "{array}");
    assert!(array.ends_with("}\n]\n"), "{array}");
    assert_eq!(written(Format::Json, false, &[]), "[]\n");

    let lines = written(Format::Jsonl, false, &records);
    let values: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(values, expected);
    assert_eq!(values.last().unwrap()["kind"], "summary");
    assert_eq!(written(Format::Jsonl, false, &[]), "");
}

#[test]
fn hostile_names_never_reach_a_terminal() {
    let name = "a\u{1b}]0;owned\u{7}\u{9b}2J\u{202e}\u{e0041}\r\nb\u{7f}\"";
    let hostile = Identity::Container(Arc::new(Container { name: name.into(), ..Container::default() }));
    let flow = FlowRecord {
        client: end("172.18.0.3", Some(1), hostile.clone()),
        server: end("192.0.2.7", None, Identity::World(Some(name.into()))),
        ..query()
    };
    let packet = PacketRecord {
        source: end("172.18.0.3", Some(1), hostile),
        interface: Some(name.into()),
        tcp_flags: Some(name.into()),
        ..packet()
    };
    let records = [Record::Flow(flow.into()), Record::Packet(packet.into())];
    for format in [Format::Compact, Format::Table, Format::Json, Format::Jsonl, Format::Csv] {
        let text = written(format, false, &records);
        assert!(!text.replace('\n', "").contains(is_invisible), "{format:?}: {text:?}");
    }
    let compact = written(Format::Compact, false, &records);
    assert_eq!(compact.lines().count(), 2);
    assert!(
        compact.contains("a\\x1b]0;owned\\x07\\x9b2J\\u{202e}\\u{e0041}\\x0d\\x0ab\\x7f\":1 → "),
        "{compact}"
    );
    let lines = written(Format::Jsonl, false, &records);
    let first: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(first["client"]["container"], name, "readers get what it was");
    assert!(lines.contains("\\u009b2J\\u202e\\udb40\\udc41"), "{lines}");
}

#[test]
fn what_is_written_stays_back_until_flushed() {
    let written = Written::default();
    let mut sink = sink_in(TimeZone::UTC, Format::Jsonl, false, Box::new(written.clone()));
    sink.write(&Record::Flow(query().into())).unwrap();
    assert_eq!(written.text(), "");
    sink.flush().unwrap();
    assert_eq!(written.text().lines().count(), 1);
}

#[test]
fn a_destination_that_fails_is_told() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    for format in [Format::Compact, Format::Table, Format::Json, Format::Jsonl, Format::Csv] {
        let mut sink = sink_in(TimeZone::UTC, format, false, Box::new(Full));
        sink.write(&Record::Flow(query().into())).unwrap();
        assert_eq!(sink.flush().unwrap_err().kind(), io::ErrorKind::StorageFull, "{format:?}");
        let many = (0..10_000).map(|_| sink.write(&Record::Flow(query().into())));
        let error = many.filter_map(Result::err).next().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{format:?}");
    }
}
