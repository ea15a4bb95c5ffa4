//! `weir read` against the log of the client that was captured.
//!
//! The captures in `testdata/` were made of real servers, each by the script
//! beside it, which wrote down what it did.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is a failed test")]

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

fn requests(capture: &Path) -> Vec<Value> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    let output = command.args(["read", "-o", "jsonl"]).arg(capture).output().unwrap();
    assert!(output.status.success(), "{capture:?}: {}", String::from_utf8_lossy(&output.stderr));
    let records = lines(&String::from_utf8(output.stdout).unwrap());
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
