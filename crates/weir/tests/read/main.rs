//! `weir read` as its users meet it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is a failed test")]

mod files;
mod flows;
mod packets;

use std::process::{Command, Stdio};

use serde_json::Value;

use files::{Temporary, gzipped, pcap, pcapng, stdout, weir};

const LINES: &str = "\
01:46:40.002  world/10.0.0.2:43122 → world/10.0.0.1:80  HTTP  GET /orders/17?token=REDACTED  200  1.00 ms  70 B / 43 B
01:46:40.004  world/10.0.0.2:43122 → world/10.0.0.1:80  HTTP  GET /health                    503  1.00 ms  36 B / 55 B  Service Unavailable
2 requests, 1 flow, 6 packets, 444 B in 5.00 ms; nothing lost
";

#[test]
fn every_kind_of_file_gives_the_same() {
    for (name, bytes) in [
        ("a.pcap", pcap()),
        ("a.pcapng", pcapng()),
        ("a.pcap.gz", gzipped(&pcap())),
        ("a.pcapng.gz", gzipped(&pcapng())),
    ] {
        let file = Temporary::new(name, &bytes);
        assert_eq!(stdout(&weir(&[file.0.to_str().unwrap()], b"")), LINES, "{name}");
        assert_eq!(stdout(&weir(&["-"], &bytes)), LINES, "{name} on standard input");
    }
}

#[test]
fn records_are_whole_and_hold_no_secret() {
    let text = stdout(&weir(&["-o", "jsonl", "-"], &pcap()));
    assert!(!text.contains("hunter2"), "{text}");
    let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let first = &records[0];
    for (field, expected) in [
        ("kind", Value::from("request")),
        ("protocol", "http".into()),
        ("operation", "GET".into()),
        ("target", "/orders/17?token=REDACTED".into()),
        ("status", "200".into()),
        ("ok", true.into()),
        ("request_bytes", 70.into()),
        ("response_bytes", 43.into()),
        ("latency_us", 1_000.into()),
        ("matched", "yes".into()),
        ("capture", "complete".into()),
    ] {
        assert_eq!(first[field], expected, "{field}");
    }
    assert_eq!(first["attributes"]["http.response.body.size"], 5);
    assert_eq!(first["flow"], records[1]["flow"]);
    assert_eq!((&records[2]["kind"], &records[2]["requests"]), (&"summary".into(), &2.into()));
}

#[test]
fn no_output_holds_a_secret() {
    for format in ["compact", "table", "json", "jsonl", "csv"] {
        for color in ["always", "never"] {
            let text = stdout(&weir(&["-o", format, "--color", color, "-"], &pcap()));
            assert!(text.contains("REDACTED") && !text.contains("hunter2"), "{text}");
        }
    }
}

#[test]
fn csv_has_rows_only_and_the_summary_is_told_beside_it() {
    let output = weir(&["-o", "csv", "-"], &pcap());
    let text = stdout(&output);
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.starts_with("kind,time,flow,client_ip,"), "{text}");
    let summary = String::from_utf8(output.stderr).unwrap();
    assert_eq!(summary, LINES.lines().last().unwrap().to_owned() + "\n");
}

#[test]
fn requests_are_summed_up() {
    let lines = |arguments: &[&str]| {
        let text = stdout(&weir(&[&["--stats", "-"], arguments].concat(), &pcap()));
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let lines_by_route = lines(&["--by", "route"]);
    assert_eq!(lines_by_route.len(), 4, "{lines_by_route:?}");
    assert!(lines_by_route[0].ends_with("NO ANSWER  ROUTE"), "{lines_by_route:?}");
    assert!(lines_by_route[1].ends_with("GET /health"), "{lines_by_route:?}");
    assert!(lines_by_route[2].ends_with("GET /orders/{id}"), "{lines_by_route:?}");
    assert_eq!(lines_by_route[3], LINES.lines().last().unwrap());

    let json = lines(&["-o", "jsonl", "--errors"]);
    let sum: Value = serde_json::from_str(&json[0]).unwrap();
    assert_eq!((&sum["kind"], &sum["requests"], &sum["errors"]), (&"stats".into(), &1.into(), &1.into()));
    assert_eq!((&sum["p50_us"], &sum["rate_per_s"]), (&1_000.into(), &200.0.into()));
    let summary: Value = serde_json::from_str(&json[1]).unwrap();
    assert_eq!((&summary["records"], &summary["requests"]), (&1.into(), &2.into()));
    assert_eq!(lines(&["-o", "csv"]).len(), 2);

    let refused = weir(&["--by", "key", "-"], b"");
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("--by is about sums: it needs --stats"));
    assert_eq!(weir(&["--stats", "--last", "1", "-"], b"").status.code(), Some(2));
}

#[test]
fn filters_choose() {
    for (arguments, expected) in [
        (&["--status", "5xx"][..], 1),
        (&["--errors"], 1),
        (&["--not", "--errors"], 1),
        (&["--path", "/orders/*"], 1),
        (&["--not", "--path", "/health", "--protocol", "http"], 1),
        (&["--method", "POST"], 0),
        (&["--slow", "1ms"], 2),
        (&["--slow", "2ms"], 0),
        (&["--port", "80", "--from", "10.0.0.2"], 2),
        (&["--protocol", "dns"], 0),
        (&["--count", "1"], 1),
        (&["--last", "1"], 1),
    ] {
        let output = weir(&[&["-o", "jsonl", "-"], arguments].concat(), &pcap());
        assert_eq!(stdout(&output).lines().count() - 1, expected, "{arguments:?}");
    }
}

#[test]
fn what_cannot_be_read_is_told_and_what_can_is_read() {
    let error = |arguments: &[&str], input: &[u8], code| {
        let output = weir(arguments, input);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(error(&["/no/such/file"], b"", 1).contains("cannot read /no/such/file: No such file"));
    let text = error(&["-"], b"this is no capture at all, but it is long enough", 1);
    assert!(
        text.contains("standard input is no capture that weir knows") && text.contains("try this"),
        "{text}"
    );
    assert!(error(&["-"], b"", 1).contains("standard input is empty"));
    assert!(error(&["--state", "new", "-"], b"", 2).contains("--state is about flows"));
    let mut strange = pcap();
    strange[20] = 105;
    assert!(error(&["-"], &strange, 1).contains("link type 105"));

    let whole = pcap();
    let output = weir(&["-"], &whole[..whole.len() - 10]);
    let text = stdout(&output);
    assert!(text.starts_with(LINES.lines().next().unwrap()), "{text}");
    assert!(text.contains("1 file that is cut off or damaged"), "{text}");
    assert!(text.contains("GET /health                    no answer"), "{text}");
    assert!(String::from_utf8(output.stderr).unwrap().contains("it is read up to there"));

    // Gzipped, it may break off between two packets.
    let zipped = gzipped(&whole);
    let output = weir(&["-"], &zipped[..zipped.len() - 4]);
    assert!(stdout(&output).contains("1 file that is cut off or damaged"), "{}", stdout(&output));
    assert!(stdout(&output).contains("GET /health"), "{}", stdout(&output));
    let mut damaged = zipped.clone();
    damaged[zipped.len() - 6] ^= 1;
    let text = error(&["-"], &damaged, 1);
    assert!(text.contains("cannot read standard input"), "{text}");
}

#[test]
fn time_is_counted_in_any_units() {
    // The resolution stands behind the option's head (9, of one byte).
    let option = [0, 9, 0, 1, 9, 0, 0, 0];
    let place = pcapng().windows(8).position(|bytes| bytes == option).unwrap() + 4;
    for (resolution, year) in [(9, "2001-09-09"), (0x80 | 30, "1999-07-07"), (10, "1973-03-03")] {
        let mut file = pcapng();
        file[place] = resolution;
        let text = stdout(&weir(&["-o", "jsonl", "-"], &file));
        assert!(text.contains(&format!("\"time\":\"{year}")), "{resolution}: {text}");
    }
    let mut file = pcapng();
    file[place] = 0xff;
    assert_eq!(weir(&["-"], &file).status.code(), Some(1), "no clock counts so");
}

#[test]
fn a_reader_that_has_enough_is_no_failure() {
    let file = Temporary::new("pipe.pcap", &pcap());
    let many = vec![file.0.to_str().unwrap(); 2_000];
    let mut child = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(["read", "-o", "jsonl"])
        .args(many)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
