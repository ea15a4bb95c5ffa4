//! `weir read` against what Zeek and tshark say of real captures.
//!
//! The captures are no part of the project: they are looked for in
//! `../shared/captures`, next to the checkout, and without them the tests say
//! so and pass. Where weir disagrees, `docs/protocols.md` tells why.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const PAGE: &str = include_str!("../../../docs/protocols.md");

fn captures() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/captures");
    if folder.join("MANIFEST.tsv").exists() {
        return Some(folder);
    }
    // Not by eprintln!, whose lines cargo shows of failed tests only.
    let _ = std::io::stderr().write_all(
        b"SKIPPED (no captures in ../shared/captures): NOTHING IS COMPARED with Zeek and tshark.\n",
    );
    None
}

fn expected(folder: &Path, name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("expected").join(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn requests(folder: &Path, file: &str, protocol: &str) -> Vec<Value> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    let output = command.args(["read", "-o", "jsonl"]).arg(folder.join(file)).output().unwrap();
    assert!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|record| record["protocol"] == protocol)
        .collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("-").to_owned()
}

/// Weir writes bytes other than letters, digits, `-` and `_` as `\DDD`.
fn unescaped(name: &str) -> String {
    let mut parts = name.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (digits, rest) = part.split_at(3);
        plain.push(char::from(digits.parse::<u8>().unwrap()));
        plain.push_str(rest);
    }
    plain
}

/// The files that the page says weir disagrees on, in the table of a section.
fn explained(heading: &str) -> BTreeSet<String> {
    let section = PAGE.split_once(&format!("\n{heading}\n")).expect("a section of that name").1;
    let end = section.find("\n#").unwrap_or(section.len());
    section[..end]
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|line| line.split_once('`'))
        .map(|(file, _)| file.to_owned())
        .collect()
}

type Counts = BTreeMap<Vec<String>, usize>;

fn count(rows: impl Iterator<Item = Vec<String>>) -> Counts {
    rows.fold(Counts::new(), |mut counts, row| {
        *counts.entry(row).or_default() += 1;
        counts
    })
}

fn assert_only(differing: &BTreeMap<String, String>, explained: &BTreeSet<String>, compared: usize) {
    let found: BTreeSet<String> = differing.keys().cloned().collect();
    let unexplained: Vec<_> = differing.iter().filter(|(file, _)| !explained.contains(*file)).collect();
    assert!(unexplained.is_empty(), "not in docs/protocols.md: {unexplained:#?}");
    let outdated: Vec<_> = explained.difference(&found).collect();
    assert!(outdated.is_empty(), "weir agrees by now on {outdated:?}: take them out of docs/protocols.md");
    eprintln!("weir: {compared} compared, {} differ and are explained", differing.len());
}

#[test]
fn http_is_what_zeek_says() {
    let Some(folder) = captures() else { return };
    let mut logs: BTreeMap<(String, String), Vec<Value>> = BTreeMap::new();
    for row in expected(&folder, "zeek-http.jsonl") {
        for file in row["traces"].as_array().unwrap() {
            logs.entry((text(file), text(&row["baseline"]))).or_default().push(row.clone());
        }
    }
    let mut differing = BTreeMap::new();
    for ((file, _), rows) in &logs {
        // A baseline has only the columns that its test is about.
        let columns: Vec<&str> = ["method", "status_code"]
            .into_iter()
            .filter(|column| rows.iter().any(|row| row.get(column).is_some()))
            .collect();
        let zeek = count(rows.iter().map(|row| columns.iter().map(|column| text(&row[column])).collect()));
        let weir = count(requests(&folder, file, "http").iter().map(|record| {
            columns
                .iter()
                .map(|column| match *column {
                    "method" if record["operation"] == "" => "-".to_owned(),
                    "method" => text(&record["operation"]),
                    _ => text(&record["status"]),
                })
                .collect()
        }));
        if zeek != weir {
            differing.insert(file.clone(), format!("Zeek {zeek:?}, weir {weir:?}"));
        }
    }
    assert_only(&differing, &explained("### HTTP against Zeek"), logs.len());
}

/// Methods and statuses, of gRPC too.
#[test]
fn http2_is_what_tshark_says() {
    let Some(folder) = captures() else { return };
    let mut frames: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for row in expected(&folder, "tshark-http2.jsonl") {
        frames.entry(text(&row["file"])).or_default().push(row);
    }
    let mut differing = BTreeMap::new();
    for (file, rows) in &frames {
        let tshark = count(rows.iter().flat_map(|row| {
            ["http2.headers.method", "http2.headers.status"]
                .into_iter()
                .flat_map(|column| row[column].as_array().into_iter().flatten().map(|said| vec![text(said)]))
        }));
        let records = [requests(&folder, file, "http"), requests(&folder, file, "grpc")].concat();
        let second = records.iter().map(|record| &record["attributes"]);
        let second = second.filter(|attributes| attributes["network.protocol.version"] == "2");
        let weir = count(second.flat_map(|attributes| {
            let method = attributes["http.request.method"].as_str().map(str::to_owned);
            let status = attributes["http.response.status_code"].as_u64().map(|status| status.to_string());
            [method, status].into_iter().flatten().map(|said| vec![said]).collect::<Vec<_>>()
        }));
        if tshark != weir {
            differing.insert(file.clone(), format!("tshark {tshark:?}, weir {weir:?}"));
        }
    }
    assert_only(&differing, &explained("### HTTP/2 against tshark"), frames.len());
}

#[test]
fn dns_is_what_tshark_says() {
    let Some(folder) = captures() else { return };
    let mut frames: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for row in expected(&folder, "tshark-dns.jsonl") {
        frames.entry(text(&row["file"])).or_default().push(row);
    }
    let mut differing = BTreeMap::new();
    for (file, rows) in &frames {
        let tshark = count(rows.iter().flat_map(|row| {
            let flags = row["dns.flags.response"].as_array().unwrap();
            // One name for each message, where each has one question.
            let names = row["dns.qry.name"].as_array().filter(|names| names.len() == flags.len());
            flags.iter().enumerate().map(move |(index, flag)| {
                let name = names.map_or("-".to_owned(), |names| text(&names[index]).to_lowercase());
                vec![text(flag), name.replace("<root>", ".")]
            })
        }));
        let unnamed = tshark.keys().any(|row| row[1] == "-");
        let weir = count(requests(&folder, file, "dns").iter().flat_map(|record| {
            let name = if unnamed { "-".to_owned() } else { unescaped(&text(&record["target"])) };
            let asked = (record["matched"] != "no_request").then(|| vec!["0".to_owned(), name.clone()]);
            let answered = (record["matched"] != "no_response").then(|| vec!["1".to_owned(), name]);
            [asked, answered].into_iter().flatten().collect::<Vec<_>>()
        }));
        if tshark != weir {
            differing.insert(file.clone(), format!("tshark {tshark:?}, weir {weir:?}"));
        }
    }
    assert_only(&differing, &explained("### DNS against tshark"), frames.len());
}

/// What clients asked. Zeek names a command by its first word, and knows no
/// record for what a server says unasked.
#[test]
fn redis_is_what_zeek_says() {
    let Some(folder) = captures() else { return };
    let mut logs: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for row in expected(&folder, "zeek-redis.jsonl") {
        for file in row["traces"].as_array().unwrap() {
            logs.entry(text(file)).or_default().push(row.clone());
        }
    }
    let mut differing = BTreeMap::new();
    for (file, rows) in &logs {
        let zeek = count(rows.iter().map(|row| vec![text(&row["cmd.name"])]));
        let asked =
            requests(&folder, file, "redis").into_iter().filter(|record| record["matched"] != "no_request");
        let weir = count(asked.map(|record| {
            let operation = text(&record["operation"]);
            vec![operation.split(' ').next().unwrap_or_default().to_owned()]
        }));
        if zeek != weir {
            differing.insert(file.clone(), format!("Zeek {zeek:?}, weir {weir:?}"));
        }
    }
    assert_only(&differing, &explained("### Redis against Zeek"), logs.len());
}

/// Statements and whether they succeeded. Weir tells an encryption that was
/// asked for and how it was answered, but no goodbye.
#[test]
fn postgresql_is_what_zeek_says() {
    let Some(folder) = captures() else { return };
    let mut logs: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for row in expected(&folder, "zeek-postgresql.jsonl") {
        for file in row["traces"].as_array().unwrap() {
            logs.entry(text(file)).or_default().push(row.clone());
        }
    }
    let mut differing = BTreeMap::new();
    for (file, rows) in &logs {
        let zeek = count(rows.iter().filter(|row| row["frontend"] == "simple_query").map(|row| {
            let statement = text(&row["frontend_arg"]);
            let first = statement.split([' ', ';']).next().unwrap_or_default().to_uppercase();
            vec![first, (row["success"] == "T").to_string()]
        }));
        let records = requests(&folder, file, "postgresql");
        let queries = records.iter().filter(|record| record["operation"] != "STARTUP");
        let weir =
            count(queries.map(|record| vec![text(&record["operation"]), (record["ok"] == true).to_string()]));
        if zeek != weir {
            differing.insert(file.clone(), format!("Zeek {zeek:?}, weir {weir:?}"));
        }
    }
    assert_only(&differing, &explained("### PostgreSQL against Zeek"), logs.len());
}

/// Commands and whether they succeeded. Weir tells no goodbye.
#[test]
fn mysql_is_what_zeek_says() {
    let Some(folder) = captures() else { return };
    let mut logs: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for row in expected(&folder, "zeek-mysql.jsonl") {
        for file in row["traces"].as_array().unwrap() {
            logs.entry(text(file)).or_default().push(row.clone());
        }
    }
    let mut differing = BTreeMap::new();
    for (file, rows) in &logs {
        let zeek = count(rows.iter().filter(|row| row["cmd"] != "quit").map(|row| {
            let command = text(&row["cmd"]);
            let statement = text(&row["arg"]);
            let asked = match command.as_str() {
                "query" => statement.split(' ').next().unwrap_or_default().to_uppercase(),
                _ => command.replace('_', " ").to_uppercase(),
            };
            // Zeek does not know how statistics went, which are a text.
            vec![asked, (row["success"] == "T" || command == "statistics").to_string()]
        }));
        let records = requests(&folder, file, "mysql");
        let weir = count(
            records.iter().map(|record| vec![text(&record["operation"]), (record["ok"] == true).to_string()]),
        );
        if zeek != weir {
            differing.insert(file.clone(), format!("Zeek {zeek:?}, weir {weir:?}"));
        }
    }
    assert_only(&differing, &explained("### MySQL against Zeek"), logs.len());
}

/// As weir names a version that tshark gives in hexadecimal.
fn tls_version(number: &str) -> String {
    let known = match number {
        "0x0002" => "2",
        "0x0300" => "3",
        "0x0301" => "1.0",
        "0x0302" => "1.1",
        "0x0303" => "1.2",
        "0x0304" => "1.3",
        _ => "",
    };
    match (known, number.strip_prefix("0x7f")) {
        ("", Some(draft)) => format!("1.3-draft{}", u8::from_str_radix(draft, 16).unwrap()),
        ("", None) => number.to_owned(),
        _ => known.to_owned(),
    }
}

#[test]
fn tls_is_what_tshark_says() {
    let Some(folder) = captures() else { return };
    // Server name and version of each handshake, by file and stream.
    let mut files: BTreeMap<String, BTreeMap<String, [String; 2]>> = BTreeMap::new();
    for row in expected(&folder, "tshark-tls.jsonl") {
        let streams = files.entry(text(&row["file"])).or_default();
        let last = |column: &str| row[column].as_array().and_then(|all| all.last()).map(text);
        let says = |kind: &str| {
            row["tls.handshake.type"].as_array().is_some_and(|all| all.iter().any(|one| one == kind))
        };
        let stream = || ["-".to_owned(), "-".to_owned()];
        if says("1") {
            let name = last("tls.handshake.extensions_server_name");
            let told = streams.entry(text(&row["stream"])).or_insert_with(stream);
            told[0] = name.map_or("-".to_owned(), |name| name.to_lowercase());
        }
        if says("2") {
            let version = last("tls.handshake.extensions.supported_version");
            let told = streams.entry(text(&row["stream"])).or_insert_with(stream);
            told[1] = tls_version(&version.or_else(|| last("tls.handshake.version")).unwrap_or_default());
        }
    }
    let mut differing = BTreeMap::new();
    for (file, streams) in &files {
        let tshark = count(streams.values().map(|told| told.to_vec()));
        let weir = count(requests(&folder, file, "tls").iter().map(|record| {
            vec![text(&record["target"]), text(&record["attributes"]["tls.protocol.version"])]
        }));
        if tshark != weir {
            differing.insert(file.clone(), format!("tshark {tshark:?}, weir {weir:?}"));
        }
    }
    assert_only(&differing, &explained("### TLS against tshark"), files.len());
}
