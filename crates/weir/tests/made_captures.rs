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
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        let capture = folder.join(format!("{name}.pcap.gz"));
        let output = command.args(["read", "-o", "jsonl"]).arg(capture).output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let records = lines(&String::from_utf8(output.stdout).unwrap());
        let requests: Vec<_> = records.iter().filter(|record| record["kind"] == "request").collect();
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
