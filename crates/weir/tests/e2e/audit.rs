//! `weir audit`, with real servers: what the client's own log says is what weir
//! says, request for request.

mod http;
mod http2;
mod overload;
mod redirected;
mod redis;
mod servers;
mod statements;

use serde_json::Value;
use weir_testkit::Namespace;

use crate::weir::{Run, Weir, command, text};

/// A running `weir audit -o jsonl`.
fn audit(host: &Namespace, args: &[&str]) -> Weir {
    let fixed = ["audit", "-o", "jsonl", "--engine", "none"];
    Weir::start(&mut command(host, &[&fixed, args].concat()))
}

/// The requests of each connection, in their order; connections in the order of their ports.
fn by_connection<T>(run: &Run, line: impl Fn(&Value) -> T) -> Vec<Vec<T>> {
    let mut connections = std::collections::BTreeMap::<_, (&str, Vec<&Value>)>::new();
    for record in &run.records {
        assert_eq!(record["kind"], "request", "{record}");
        let port = record["client"]["port"].as_u64();
        let (flow, requests) = connections.entry(port).or_insert_with(|| (text(&record["flow"]), Vec::new()));
        assert_eq!(*flow, text(&record["flow"]), "one connection, one flow");
        requests.push(record);
    }
    let lines = |(_, mut requests): (&str, Vec<&Value>)| {
        requests.sort_by_key(|request| text(&request["time"]));
        requests.into_iter().map(&line).collect()
    };
    connections.into_values().map(lines).collect()
}

/// Nothing was lost, and every request was seen with its answer.
#[track_caller]
fn assert_complete(run: &Run) {
    assert_eq!(run.summary["lost"], serde_json::json!({}), "{}", run.summary);
    let whole = |record: &&Value| record["matched"] == "yes" && record["capture"] == "complete";
    if let Some(part) = run.records.iter().find(|record| !whole(record)) {
        panic!("not whole: {part}");
    }
    assert_eq!(run.summary["requests"], run.records.len(), "{}", run.summary);
}
