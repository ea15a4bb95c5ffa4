use std::sync::Arc;

use super::*;
use crate::endpoint::Container;
use crate::flow::ConnectionId;
use crate::record::{AttributeValue, Capture};

#[test]
fn texts_of_one_kind_become_the_same() {
    for (text, made) in [
        ("/", "/"),
        ("/orders", "/orders"),
        ("/orders/17", "/orders/{id}"),
        ("/orders/17/items/4", "/orders/{id}/items/{id}"),
        ("/v1/users/me", "/v1/users/me"),
        ("/u/3f2504e0-4f89-11d3-9a0c-0305e82c3301/x", "/u/{id}/x"),
        ("/u/3F2504E0-4F89-11D3-9A0C-0305E82C3301", "/u/{id}"),
        ("/commit/9fceb02d0ae598e95dc970b74767f19372d61af8", "/commit/{id}"),
        ("/commit/9fceb02d", "/commit/{id}"),
        ("/facade/decade", "/facade/decade"),
        ("/token/abcdefghijklmnopqrstuvwxyzABCDEFGHIJ", "/token/{id}"),
        ("/days/2026-11-22.csv", "/days/{id}.csv"),
        ("/user-17/user_18", "/user-{id}/user_{id}"),
        ("/caf%C3%A9/b%20c", "/caf%C3%A9/b%20c"),
        ("/bücher/12", "/bücher/{id}"),
        ("user:4711:name", "user:{id}:name"),
        ("user4711", "user{id}"),
        ("sha1 utf8 s3", "sha1 utf8 s3"),
        ("ip-10-0-0-7.ec2.internal", "ip-{id}.ec2.internal"),
        ("", ""),
    ] {
        assert_eq!(template(text), made);
        assert_eq!(template(made), made, "again");
    }
}

#[test]
fn lists_in_statements_have_no_length() {
    for (text, made) in [
        ("SELECT 1;", "SELECT 1"),
        ("SELECT a FROM b WHERE c = ?", "SELECT a FROM b WHERE c = ?"),
        ("SELECT a FROM b WHERE c IN (?, ?, ?) AND d = ?", "SELECT a FROM b WHERE c IN (?, …) AND d = ?"),
        ("SELECT a FROM b WHERE c IN (?,?)", "SELECT a FROM b WHERE c IN (?, …)"),
        ("INSERT INTO a VALUES (?, ?), (?, ?), (?, ?)", "INSERT INTO a VALUES (?, …), …"),
        ("INSERT INTO a VALUES (?, ?), (?, b)", "INSERT INTO a VALUES (?, …), (?, b)"),
    ] {
        assert_eq!(statement(text), made);
        assert_eq!(statement(made), made, "again");
    }
}

fn end(port: u16, identity: Identity) -> Endpoint {
    Endpoint { ip: [10, 0, 0, 1].into(), port: Some(port), identity }
}

fn get(path: &str, latency_us: u64) -> RequestRecord {
    RequestRecord {
        time: Timestamp::UNIX_EPOCH,
        flow: ConnectionId(0x0123_4567_89ab_cdef),
        client: end(40_000, Identity::World(None)),
        server: end(80, Identity::World(None)),
        rule: None,
        translated: None,
        protocol: "http",
        operation: "GET".into(),
        target: Some(format!("{path}?page=2").into()),
        status: Some("200".into()),
        ok: Some(true),
        error: None,
        request_bytes: 100,
        response_bytes: 1_000,
        latency_us: Some(latency_us),
        total_us: Some(latency_us),
        matched: Matched::Yes,
        capture: Capture::Complete,
        attributes: [(Attribute::UrlPath, AttributeValue::from(path))].into(),
        revealed: Vec::new(),
    }
}

fn asked(protocol: &'static str, target: &str, text: &str) -> RequestRecord {
    RequestRecord {
        protocol,
        operation: "GET".into(),
        target: Some(target.into()),
        attributes: [(Attribute::DbQueryText, AttributeValue::from(text))].into(),
        ..get("/", 10)
    }
}

fn groups(by: By, requests: &[RequestRecord]) -> Vec<(Option<String>, u64)> {
    let mut stats = Stats::new(by, 100);
    for request in requests {
        stats.add(request);
    }
    let records = stats.records(Timestamp::UNIX_EPOCH, 0.0);
    records.into_iter().map(|record| (record.group, record.requests)).collect()
}

#[test]
fn requests_are_told_apart_by_what_was_asked_for() {
    let select = "SELECT a FROM b WHERE c IN (?, ?)";
    let requests = [
        get("/orders/1", 10),
        get("/orders/2", 10),
        get("/orders/3", 10),
        asked("redis", "user:1", "GET user:1"),
        asked("redis", "user:2", "GET user:2"),
        asked("mysql", select, select),
    ];
    let shown = RequestRecord { revealed: vec!["sql-literals"], ..asked("mysql", "SELECT 17", "SELECT 17") };
    assert_eq!(groups(By::Statement, &[shown]), [(Some("SELECT ?".to_owned()), 1)]);
    let shown =
        RequestRecord { revealed: vec!["redis-values"], ..asked("redis", "user:1", "GET user:1 bob") };
    assert_eq!(groups(By::Statement, &[shown]), [(Some("GET user:{id}".to_owned()), 1)]);
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(groups(By::Service, &requests), [(None, 3), (None, 2), (None, 1)]);
    assert_eq!(groups(By::Route, &requests), [(some("GET /orders/{id}"), 3), (None, 2), (None, 1)]);
    assert_eq!(
        groups(By::Statement, &requests),
        [(None, 3), (some("GET user:{id}"), 2), (some("SELECT a FROM b WHERE c IN (?, …)"), 1)]
    );
    assert_eq!(groups(By::Key, &requests), [(None, 3), (some("user:{id}"), 2), (None, 1)]);
}

#[test]
fn sums_are_those_of_the_requests() {
    let mut stats = Stats::new(By::Service, 10);
    for latency_us in 1..=100 {
        stats.add(&get("/", latency_us));
    }
    stats.add(&RequestRecord { ok: Some(false), ..get("/", 5_000) });
    stats.add(&RequestRecord {
        ok: None,
        latency_us: None,
        response_bytes: 0,
        matched: Matched::NoResponse,
        ..get("/", 0)
    });
    stats.add(&RequestRecord {
        latency_us: None,
        request_bytes: 0,
        matched: Matched::NoRequest,
        ..get("/", 0)
    });
    let records = stats.records(Timestamp::UNIX_EPOCH, 2_000.0);
    assert_eq!(
        records,
        [StatsRecord {
            time: Timestamp::UNIX_EPOCH,
            by: "service",
            service: Some("world/10.0.0.1:80".into()),
            protocol: Some("http"),
            group: None,
            other: false,
            requests: 102,
            rate_per_s: Some(51.0),
            errors: 1,
            no_response: 1,
            no_request: 1,
            p50_us: Some(51),
            p95_us: Some(97),  // of 96 and 97, which share a bucket
            p99_us: Some(101), // likewise of 100 and 101
            max_us: Some(5_000),
            request_bytes: 10_200,
            response_bytes: 102_000,
        }]
    );
}

#[test]
fn replicas_are_one_server_and_ports_are_not() {
    let replica = |number: u32| {
        Identity::Container(Arc::new(Container {
            name: format!("shop-web-{number}"),
            project: Some("shop".into()),
            service: Some("web".into()),
            replica: Some(number),
            ..Container::default()
        }))
    };
    let mut stats = Stats::new(By::Service, 10);
    for (port, number) in [(80, 1), (80, 2), (81, 1)] {
        stats.add(&RequestRecord { server: end(port, replica(number)), ..get("/", 1) });
    }
    let servers: Vec<_> = stats
        .records(Timestamp::UNIX_EPOCH, 1.0)
        .into_iter()
        .map(|record| (record.service.unwrap(), record.requests))
        .collect();
    assert_eq!(servers, [("shop/web:80".to_owned(), 2), ("shop/web:81".to_owned(), 1)]);
}

#[test]
fn what_finds_no_room_is_counted_all_the_same() {
    let mut stats = Stats::new(By::Route, 3);
    for name in ["a", "b", "c", "d", "e", "a"] {
        stats.add(&get(&format!("/{name}"), 7));
    }
    let records = stats.records(Timestamp::UNIX_EPOCH, 1.0);
    assert_eq!(records.len(), 4);
    assert_eq!(records.iter().map(|record| record.requests).sum::<u64>(), 6);
    let other = records.last().unwrap();
    assert_eq!((other.other, other.requests, other.service.as_ref()), (true, 2, None));
}

#[test]
fn a_long_group_is_cut() {
    let long = "é".repeat(2_000).replace("éé", "é/");
    assert_eq!(groups(By::Route, &[get(&long, 1)])[0].0.as_ref().unwrap().chars().count(), 501);
}
