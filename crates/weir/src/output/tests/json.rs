use super::*;
use crate::output::json;

/// Requests are written by hand: it must be what any other record's way would give.
#[test]
fn a_request_is_written_as_it_would_be_serialized() {
    let hostile = "a\u{1b}]0;owned\u{7}\u{9b}2J\u{202e}\u{e0041}\r\nb\u{7f}\"\\é";
    let named = |name: &str| end("192.0.2.7", Some(443), Identity::World(Some(name.into())));
    let attributes = [
        (Attribute::DbQueryText, AttributeValue::from(hostile)),
        (Attribute::HttpResponseBodySize, AttributeValue::from(u64::MAX)),
        (Attribute::Anomalies, AttributeValue::from(vec!["one".to_owned(), hostile.to_owned()])),
    ];
    let times = ["2026-11-22T11:01:07.000000009Z", "2026-11-22T11:01:08Z", "1969-12-31T23:59:59.9Z"];
    let mut records = requests();
    records.extend(times.map(|time| of(RequestRecord { time: time.parse().unwrap(), ..request() })));
    records.extend([
        of(RequestRecord { server: named("a.example"), ..request() }),
        of(RequestRecord { server: named("a.example"), ..request() }),
        of(RequestRecord { server: named(hostile), ..request() }),
        of(RequestRecord { rule: Some("canary".into()), ..request() }),
        of(RequestRecord {
            translated: Some(Box::new(Translated { client: named("b.example"), server: query().server })),
            ..request()
        }),
        of(RequestRecord { flow: ConnectionId(7), client: query().server, ..request() }),
        of(RequestRecord {
            operation: hostile.into(),
            target: Some(hostile.into()),
            status: Some(hostile.into()),
            error: Some(hostile.into()),
            attributes: attributes.into(),
            revealed: vec!["sql-literals", "redis-values"],
            ..request()
        }),
    ]);
    let expected: String = records.iter().map(|record| json::text(record).unwrap() + "\n").collect();
    assert_eq!(written(Format::Jsonl, false, &records), expected);
}

fn of(request: RequestRecord) -> Record {
    Record::Request(Box::new(request))
}
