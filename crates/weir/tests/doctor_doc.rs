//! `docs/records.md` names every field that `weir doctor -o json` prints.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::process::Command;

use serde_json::Value;

const PAGE: &str = include_str!("../../../docs/records.md");

/// The names of all fields, however deep.
fn fields(value: &Value) -> Vec<&str> {
    match value {
        Value::Object(object) => {
            object.iter().flat_map(|(name, inner)| [vec![name.as_str()], fields(inner)].concat()).collect()
        }
        Value::Array(array) => array.iter().flat_map(fields).collect(),
        _ => vec![],
    }
}

/// As whoever runs the tests: without root the doctor finds more to tell, and tells it all the same.
#[test]
fn every_field_is_documented() {
    let output = Command::new(env!("CARGO_BIN_EXE_weir")).args(["doctor", "-o", "json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let section = PAGE.split_once("\n## weir doctor\n").unwrap().1.split("\n## ").next().unwrap();
    let found = fields(&report);
    assert!(found.contains(&"works") && found.contains(&"check"), "{report}");
    for name in found {
        assert!(section.contains(&format!("\n| `{name}` |")), "docs/records.md does not name {name}");
    }
}
