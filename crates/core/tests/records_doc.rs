//! `docs/records.md` lists every field of every record, and no other.
//!
//! The records here are written out in full, without `..`: a new field does
//! not compile until it is here, and does not pass until it is on the page.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use weir_core::endpoint::{Container, Endpoint, Identity};
use weir_core::flow::{ConnectionId, Protocol};
use weir_core::l7::{self, Attribute};
use weir_core::loss::{EventLosses, TallyReason};
use weir_core::record::{
    AttributeValue, Capture, FlowEvent, FlowRecord, InterfaceCounters, Matched, PacketDirection,
    PacketRecord, Record, RequestRecord, State, StatsRecord, SummaryRecord, Translated, Verdict,
};
use weir_core::reveal::Class;
use weir_core::stats::By;

const PAGE: &str = include_str!("../../../docs/records.md");

/// What stands in backquotes in the first column of the tables of a section.
fn documented(heading: &str) -> BTreeSet<String> {
    let section = PAGE
        .split_once(&format!("\n{heading}\n"))
        .unwrap_or_else(|| panic!("docs/records.md has no section {heading:?}"))
        .1;
    let end = section.find("\n#").unwrap_or(section.len());
    section[..end]
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|line| line.split_once('`'))
        .map(|(name, _)| name.to_owned())
        .collect()
}

fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

/// The fields of what is a JSON object, of all the `values` together.
fn fields<T: Serialize>(values: &[T]) -> BTreeSet<String> {
    values.iter().flat_map(|value| keys(&serde_json::to_value(value).unwrap())).collect()
}

fn keys(value: &Value) -> Vec<String> {
    value.as_object().expect("a JSON object").keys().cloned().collect()
}

/// As they stand in JSON.
fn texts<T: Serialize>(values: &[T]) -> BTreeSet<String> {
    values.iter().map(|value| serde_json::to_value(value).unwrap().as_str().unwrap().to_owned()).collect()
}

fn container() -> Endpoint {
    let container = Container {
        id: "0123456789abcdef".repeat(4),
        name: "shop-web-2".into(),
        image: Some("nginx:1".into()),
        project: Some("shop".into()),
        service: Some("web".into()),
        replica: Some(2),
    };
    Endpoint {
        ip: [172, 18, 0, 2].into(),
        port: Some(43122),
        identity: Identity::Container(Arc::new(container)),
    }
}

fn host() -> Endpoint {
    Endpoint { ip: [172, 18, 0, 1].into(), port: None, identity: Identity::Host }
}

fn interface() -> InterfaceCounters {
    InterfaceCounters {
        name: "veth0".into(),
        ingress_packets: 1,
        ingress_bytes: 2,
        egress_packets: 3,
        egress_bytes: 4,
    }
}

fn translated() -> Translated {
    Translated { client: container(), server: host() }
}

fn flow() -> FlowRecord {
    FlowRecord {
        time: Timestamp::UNIX_EPOCH,
        id: ConnectionId(0x0123_4567_89ab_cdef),
        event: FlowEvent::Close,
        client: container(),
        server: host(),
        protocol: Protocol::TCP,
        icmp_type: Some(8),
        state: State::Closed,
        verdict: Verdict::Redirected,
        rule: Some("canary".into()),
        translated: Some(Box::new(translated())),
        midstream: false,
        start: Timestamp::UNIX_EPOCH,
        duration_ms: 1.5,
        sent_packets: 6,
        sent_bytes: 500,
        received_packets: 5,
        received_bytes: 700,
        sent_delivered_packets: Some(6),
        received_delivered_packets: Some(5),
        rtt_us: Some(110),
        retransmits: 0,
        resets: 0,
        zero_windows: 0,
        icmp_errors: 0,
        tcp_flags: Some(["FSPA".into(), "FSPA".into()]),
        interfaces: vec![interface()],
    }
}

fn packet() -> PacketRecord {
    PacketRecord {
        time: Timestamp::UNIX_EPOCH,
        source: container(),
        destination: host(),
        protocol: Protocol::TCP,
        icmp_type: Some(8),
        interface: Some("veth0".into()),
        direction: Some(PacketDirection::FromContainer),
        length_bytes: 74,
        payload_bytes: 8,
        tcp_flags: Some("S".into()),
        tcp_seq: Some(1),
        tcp_ack: Some(2),
        tcp_window: Some(3),
    }
}

fn request() -> RequestRecord {
    RequestRecord {
        time: Timestamp::UNIX_EPOCH,
        flow: ConnectionId(0x0123_4567_89ab_cdef),
        client: container(),
        server: host(),
        rule: Some("canary".into()),
        translated: Some(Box::new(translated())),
        protocol: "dns",
        operation: "A".into(),
        target: Some("example.com".into()),
        status: Some("NOERROR".into()),
        ok: Some(true),
        error: Some("none".into()),
        request_bytes: 29,
        response_bytes: 45,
        latency_us: Some(820),
        total_us: Some(820),
        matched: Matched::Yes,
        capture: Capture::Complete,
        revealed: vec!["sql-literals"],
        attributes: [(Attribute::DnsQuestionName, AttributeValue::from("example.com"))].into(),
    }
}

fn stats() -> StatsRecord {
    StatsRecord {
        time: Timestamp::UNIX_EPOCH,
        by: "route",
        service: Some("shop/web:80".into()),
        protocol: Some("http"),
        group: Some("GET /orders/{id}".into()),
        other: false,
        requests: 2,
        rate_per_s: Some(0.5),
        errors: 0,
        no_response: 0,
        no_request: 0,
        p50_us: Some(1),
        p95_us: Some(2),
        p99_us: Some(2),
        max_us: Some(2),
        request_bytes: 100,
        response_bytes: 1_000,
    }
}

fn summary() -> SummaryRecord {
    SummaryRecord {
        time: Timestamp::UNIX_EPOCH,
        duration_ms: 1.5,
        flows: 1,
        packets: 11,
        bytes: 1200,
        requests: Some(1),
        captured_bytes: Some(1),
        left_out_bytes: Some(1),
        records: 2,
        not_flows: BTreeMap::new(),
        not_parsed: [("encrypted", 1)].into(),
        lost: BTreeMap::new(),
        interfaces: vec![interface()],
    }
}

#[test]
fn every_field_is_documented() {
    assert_eq!(fields(&[Record::Flow(flow().into())]), documented("## flow"));
    assert_eq!(fields(&[Record::Packet(packet().into())]), documented("## packet"));
    assert_eq!(fields(&[Record::Request(Box::new(request()))]), documented("## request"));
    assert_eq!(fields(&[Record::Stats(Box::new(stats()))]), documented("## stats"));
    assert_eq!(fields(&[Record::Summary(summary().into())]), documented("## summary"));
    assert_eq!(fields(&[interface()]), documented("## interfaces"));
    assert_eq!(fields(&[container(), host()]), documented("## endpoints"));
}

#[test]
fn every_name_is_documented() {
    assert_eq!(texts(&[FlowEvent::Open, FlowEvent::Update, FlowEvent::Close]), documented("### events"));
    assert_eq!(texts(&State::ALL), documented("### states"));
    assert_eq!(texts(&Verdict::ALL), documented("### verdicts"));
    assert_eq!(names(Verdict::ALL.map(Verdict::name)), documented("### verdicts"));
    assert_eq!(fields(&[translated()]), documented("### translated"));
    assert_eq!(names(State::ALL.map(State::name)), documented("### states"));
    let directions = [
        PacketDirection::FromContainer,
        PacketDirection::ToContainer,
        PacketDirection::Ingress,
        PacketDirection::Egress,
    ];
    assert_eq!(texts(&directions), documented("### directions"));
    assert_eq!(names(Class::ALL.map(Class::name)), documented("### revealed"));
    assert_eq!(names(By::ALL.map(By::name)), documented("### by"));
    assert_eq!(texts(&Matched::ALL), documented("### matched"));
    assert_eq!(texts(&Capture::ALL), documented("### capture"));
    assert_eq!(names(Capture::ALL.map(Capture::name)), documented("### capture"));
    let attributes: BTreeSet<_> = Attribute::ALL.iter().map(|one| one.name().to_owned()).collect();
    assert_eq!(attributes, documented("### attributes"));
    let protocols: BTreeSet<_> = l7::names().map(str::to_owned).collect();
    assert_eq!(protocols, documented("### protocols"));
}

#[test]
fn every_loss_reason_is_documented() {
    let (losses, not_flows): (Vec<_>, Vec<_>) = TallyReason::ALL.iter().partition(|reason| reason.is_loss());
    let named = |reasons: Vec<&TallyReason>| reasons.iter().map(|reason| reason.name().to_owned()).collect();
    let mut lost: BTreeSet<String> = named(losses);
    lost.extend(EventLosses::default().named().map(|(name, _)| name.to_owned()));
    lost.extend(l7::Tally::default().losses().map(|(name, _)| name.to_owned()));
    // Counted by the directory, not by the kernel side.
    lost.insert("dns_names_evicted".to_owned());
    // Counted where several readers share one weir.
    lost.insert("output_full".to_owned());
    // Counted by `weir read`.
    lost.insert("file_cut_off".to_owned());
    lost.insert("link_type_unknown".to_owned());
    // Counted from the flow table, by `weir audit`.
    lost.insert("conversations_refused".to_owned());
    assert_eq!(lost, documented("### reasons for lost"));
    assert_eq!(named(not_flows), documented("### reasons for not_flows"));
    assert_eq!(names(l7::Why::ALL.map(l7::Why::name)), documented("### reasons for not_parsed"));
}

#[test]
fn times_and_absent_fields_are_as_the_page_says() {
    let without = FlowRecord { icmp_type: None, rtt_us: None, tcp_flags: None, ..flow() };
    let value = serde_json::to_value(Record::Flow(without.into())).unwrap();
    assert_eq!(value["kind"], "flow");
    assert_eq!(value["time"], "1970-01-01T00:00:00.000000000Z");
    assert_eq!(value["protocol"], "tcp");
    assert!(!keys(&value).iter().any(|key| key == "rtt_us"), "{value}");
    let value = serde_json::to_value(host()).unwrap();
    assert_eq!(value, serde_json::json!({ "ip": "172.18.0.1", "name": "host" }));
}
