//! Sums of requests.

use weir_core::record::StatsRecord;

use super::*;

pub(super) fn stats() -> StatsRecord {
    StatsRecord {
        time: time(),
        by: "route",
        service: Some("shop/web:80".into()),
        protocol: Some("http"),
        group: Some("GET /orders/{id}".into()),
        other: false,
        requests: 12_040,
        rate_per_s: Some(401.3),
        errors: 3,
        no_response: 0,
        no_request: 0,
        p50_us: Some(820),
        p95_us: Some(2_100),
        p99_us: Some(12_400),
        max_us: Some(1_200_000),
        request_bytes: 1_000_000,
        response_bytes: 9_000_000,
    }
}

fn other() -> StatsRecord {
    StatsRecord {
        service: None,
        protocol: None,
        group: None,
        other: true,
        requests: 7,
        rate_per_s: Some(0.25),
        errors: 0,
        no_response: 7,
        p50_us: None,
        p95_us: None,
        p99_us: None,
        max_us: None,
        ..stats()
    }
}

const TABLE: &str = "\
SERVICE      PROTOCOL  REQUESTS    RATE  ERRORS      P50      P95      P99     MAX  NO ANSWER  ROUTE
shop/web:80  HTTP        12,040   401/s       3  0.82 ms  2.10 ms  12.4 ms  1.20 s          0  GET /orders/{id}
other        -                7  0.25/s       0        -        -        -       -          7
";

#[test]
fn sums_are_a_table_for_people() {
    let records = [stats(), other()].map(|one| Record::Stats(Box::new(one)));
    for format in [Format::Compact, Format::Table] {
        assert_eq!(written(format, false, &records), TABLE);
        let with_summary = [&records[..], &[Record::Summary(summary().into())]].concat();
        let text = written(format, false, &with_summary);
        assert!(text.starts_with(TABLE) && text.ends_with("nothing lost\n"), "{text}");
    }
    let by_service = StatsRecord { by: "service", group: None, ..stats() };
    let text = written(Format::Table, false, &[Record::Stats(Box::new(by_service))]);
    assert!(text.lines().all(|line| line.ends_with("NO ANSWER") || line.ends_with("  0")), "{text}");
}

#[test]
fn hostile_groups_stay_in_their_line() {
    let hostile = StatsRecord { group: Some("GET /\u{1b}[2J\n".into()), ..stats() };
    for format in [Format::Compact, Format::Table, Format::Json, Format::Jsonl, Format::Csv] {
        let text = written(format, false, &[Record::Stats(Box::new(hostile.clone()))]);
        assert!(!text.replace('\n', "").contains(is_invisible), "{format:?}: {text:?}");
    }
}
