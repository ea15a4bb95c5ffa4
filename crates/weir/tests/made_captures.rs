//! `weir read` against the log of the client that was captured.
//!
//! The captures in `testdata/` were made of real servers, each by the script
//! beside it, which wrote down what it did.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is a failed test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// What one command was and how it went, as far as the client knows.
#[derive(Debug, PartialEq)]
struct Told {
    operation: String,
    status: String,
    rows: Option<u64>,
    /// 0 where nothing is said.
    affected: u64,
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// All that are in it, of which nothing is lost and no secret shown.
#[track_caller]
fn requests(capture: &Path) -> Vec<Value> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    let output = command.args(["read", "-o", "jsonl"]).arg(capture).output().unwrap();
    assert!(output.status.success(), "{capture:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    // What the scripts have for a password, and for other things that are nobody's business.
    assert!(!text.contains("sesame") && !text.contains("a secret"), "{capture:?}: {text}");
    let mut records = lines(&text);
    let summary = records.pop().unwrap();
    assert_eq!(summary["lost"], serde_json::json!({}), "{capture:?}");
    records.into_iter().filter(|record| record["kind"] == "request").collect()
}

#[test]
fn mysql_is_what_its_client_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/mysql");
    for name in ["plain", "compressed"] {
        let log = std::fs::read_to_string(folder.join(format!("{name}.jsonl"))).unwrap();
        let said: Vec<Told> = lines(&log)
            .iter()
            .map(|entry| Told {
                operation: text(&entry["operation"]),
                status: text(&entry["status"]),
                rows: entry["rows"].as_u64(),
                affected: entry["affected"].as_u64().unwrap_or(0),
            })
            .collect();
        let requests = requests(&folder.join(format!("{name}.pcap.gz")));
        let read: Vec<Told> = requests
            .iter()
            .map(|record| Told {
                operation: text(&record["operation"]),
                status: text(&record["status"]),
                rows: record["attributes"]["db.response.returned_rows"].as_u64(),
                affected: record["attributes"]["weir.db.affected_rows"].as_u64().unwrap_or(0),
            })
            .collect();
        assert_eq!(read, said, "{name}");
        for record in requests {
            assert!(record["protocol"] == "mysql" && record["matched"] == "yes", "{name}: {record}");
            assert_eq!(record["attributes"]["db.system.name"], "mariadb", "{name}: {record}");
        }
    }
}

#[test]
fn grpc_is_what_its_client_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/grpc");
    let log = std::fs::read_to_string(folder.join("calls.jsonl")).unwrap();
    let said: Vec<_> = lines(&log)
        .iter()
        .map(|entry| {
            // That its time was over, the client knows; what it says is that it does not want it any more.
            let status = text(&entry["status"]).replace("DEADLINE_EXCEEDED", "CANCEL");
            (text(&entry["operation"]), status, entry["sent"].as_u64(), entry["received"].as_u64())
        })
        .collect();
    let requests = requests(&folder.join("calls.pcap.gz"));
    let read: Vec<_> = requests
        .iter()
        .map(|record| {
            let messages = |name: &str| record["attributes"][name].as_u64();
            let received = messages("weir.rpc.received_messages").unwrap_or(0);
            let sent = messages("weir.rpc.sent_messages");
            (text(&record["operation"]), text(&record["status"]), sent, Some(received))
        })
        .collect();
    assert_eq!(read, said);
    assert!(requests.iter().all(|record| record["protocol"] == "grpc"));
}

/// Of each connection in a capture that `testdata/capture.py` made: as many requests as its
/// client's log has, in that order, and in each everything that the client says of it.
#[track_caller]
fn assert_as_told(protocol: &str, names: &[&str]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(protocol);
    let by_port = |records: Vec<Value>, port: fn(&Value) -> &Value| {
        records.into_iter().fold(BTreeMap::<_, Vec<Value>>::new(), |mut connections, record| {
            connections.entry(port(&record).as_u64()).or_default().push(record);
            connections
        })
    };
    for name in names {
        let log = std::fs::read_to_string(folder.join(format!("{name}.jsonl"))).unwrap();
        let told = by_port(lines(&log), |entry| &entry["port"]);
        let found =
            by_port(requests(&folder.join(format!("{name}.pcap.gz"))), |record| &record["client"]["port"]);
        assert_eq!(found.keys().collect::<Vec<_>>(), told.keys().collect::<Vec<_>>(), "{name}: connections");
        for (told, mut found) in told.values().zip(found.into_values()) {
            found.sort_by(|one, other| text(&one["time"]).cmp(&text(&other["time"])));
            for (entry, record) in told.iter().zip(&found) {
                let usual = [("protocol", protocol), ("matched", "yes"), ("capture", "complete")].into_iter();
                for (field, usual) in usual.filter(|(field, _)| entry.get(field).is_none()) {
                    assert_eq!(record[field], usual, "{name}: {field} of {entry} in {record}");
                }
                assert_holds(record, entry, name);
            }
            assert_eq!(found.len(), told.len(), "{name}: {:?}, {:?}", told.last(), found.last());
        }
    }
}

/// What is null must be absent.
#[track_caller]
fn assert_holds(record: &Value, entry: &Value, name: &str) {
    for (field, expected) in entry.as_object().unwrap() {
        if field == "attributes" {
            for (attribute, expected) in expected.as_object().unwrap() {
                let found = &record["attributes"][attribute];
                assert_eq!(found, expected, "{name}: {attribute} of {entry} in {record}");
            }
        } else if field != "port" {
            assert_eq!(&record[field], expected, "{name}: {field} of {entry} in {record}");
        }
    }
}

#[test]
fn http_is_what_its_client_says() {
    assert_as_told("http", &["nginx", "python", "websocket"]);
}

#[test]
fn redis_is_what_its_client_says() {
    assert_as_told("redis", &["resp2", "resp3"]);
}

#[test]
fn postgresql_is_what_its_client_says() {
    assert_as_told("postgresql", &["simple", "extended", "copies"]);
}

#[test]
fn dns_is_what_its_client_says() {
    assert_as_told("dns", &["udp", "tcp"]);
}

#[test]
fn tls_is_what_its_client_says() {
    assert_as_told("tls", &["handshakes"]);
}
