//! `weir read` as its users meet it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is a failed test")]

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

/// A file that is gone when the test is over.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("weir-read-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A frame of raw IPv4 and TCP; `0` asks, `1` answers.
fn frame(from: u8, seq: u32, ack: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let (source, destination) =
        if from == 0 { ([10, 0, 0, 2], [10, 0, 0, 1]) } else { ([10, 0, 0, 1], [10, 0, 0, 2]) };
    let (port, peer): (u16, u16) = if from == 0 { (43_122, 80) } else { (80, 43_122) };
    let total = (40 + payload.len()) as u16;
    let mut bytes = vec![0x45, 0];
    bytes.extend_from_slice(&total.to_be_bytes());
    bytes.extend_from_slice(&[0, 0, 0, 0, 64, 6, 0, 0]);
    bytes.extend_from_slice(&source);
    bytes.extend_from_slice(&destination);
    bytes.extend_from_slice(&port.to_be_bytes());
    bytes.extend_from_slice(&peer.to_be_bytes());
    bytes.extend_from_slice(&seq.to_be_bytes());
    bytes.extend_from_slice(&ack.to_be_bytes());
    bytes.extend_from_slice(&[0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    bytes.extend_from_slice(payload);
    bytes
}

const SYN: u8 = 2;
const SYN_ACK: u8 = 18;
const PSH_ACK: u8 = 24;

/// Two requests, a millisecond between any two packets.
fn frames() -> Vec<Vec<u8>> {
    let first = b"GET /orders/17?token=hunter2 HTTP/1.1\r\nHost: shop\r\nCookie: hunter2\r\n\r\n";
    let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    let second = b"GET /health HTTP/1.1\r\nHost: shop\r\n\r\n";
    let failed = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
    let (asked, answered) = (101 + first.len() as u32, 501 + ok.len() as u32);
    vec![
        frame(0, 100, 0, SYN, b""),
        frame(1, 500, 101, SYN_ACK, b""),
        frame(0, 101, 501, PSH_ACK, first),
        frame(1, 501, asked, PSH_ACK, ok),
        frame(0, asked, answered, PSH_ACK, second),
        frame(1, answered, asked + second.len() as u32, PSH_ACK, failed),
    ]
}

fn pcap() -> Vec<u8> {
    let at = (0u32..).map(|index| index * 1_000);
    file(&at.zip(frames()).collect::<Vec<_>>())
}

/// Packets, so many microseconds after its beginning.
fn file(packets: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = 0xa1b2_c3d4_u32.to_le_bytes().to_vec();
    bytes.extend_from_slice(&[2, 0, 4, 0]);
    for field in [0u32, 0, 65_535, 101] {
        bytes.extend_from_slice(&field.to_le_bytes());
    }
    for (at_us, frame) in packets {
        let length = frame.len() as u32;
        for field in [1_000_000_000, *at_us, length, length] {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
        bytes.extend_from_slice(frame);
    }
    bytes
}

/// Big endian, time in nanoseconds.
fn pcapng() -> Vec<u8> {
    fn block(kind: u32, body: &[u8]) -> Vec<u8> {
        let padded = body.len().next_multiple_of(4);
        let length = (12 + padded) as u32;
        let mut bytes = [kind.to_be_bytes(), length.to_be_bytes()].concat();
        bytes.extend_from_slice(body);
        bytes.resize(8 + padded, 0);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes
    }
    let section = [&0x1a2b_3c4d_u32.to_be_bytes()[..], &[0, 1, 0, 0], &[0xff; 8]].concat();
    let interface = [&[0, 101, 0, 0, 0, 0, 0xff, 0xff][..], &[0, 9, 0, 1, 9, 0, 0, 0], &[0; 4]].concat();
    let mut bytes = [block(0x0a0d_0d0a, &section), block(1, &interface)].concat();
    for (index, frame) in frames().iter().enumerate() {
        let time = 1_000_000_000_000_000_000 + index as u64 * 1_000_000;
        let length = (frame.len() as u32).to_be_bytes();
        let body = [&[0; 4][..], &time.to_be_bytes(), &length, &length, frame].concat();
        bytes.extend_from_slice(&block(6, &body));
    }
    bytes
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn weir(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_weir"))
        .arg("read")
        .args(arguments)
        .env("TZ", "UTC")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may end before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

const LINES: &str = "\
01:46:40.002  world/10.0.0.2:43122 → world/10.0.0.1:80  HTTP  GET /orders/17?token=REDACTED  200  1.00 ms  70 B / 43 B
01:46:40.004  world/10.0.0.2:43122 → world/10.0.0.1:80  HTTP  GET /health                    503  1.00 ms  36 B / 55 B  Service Unavailable
2 requests, 1 flow, 6 packets, 444 B in 5.00 ms; nothing lost
";

const FLOWS: &str = "\
01:46:40.000  world/10.0.0.2:43122 → world/10.0.0.1:80  TCP  new          40 B / 0 B
01:46:40.005  world/10.0.0.2:43122 → world/10.0.0.1:81  TCP  new          40 B / 0 B
01:46:40.506  world/10.0.0.2:43122 → world/10.0.0.1:81  TCP  reset        40 B / 40 B  lasted 1.00 ms  1 reset
01:46:40.509  world/10.0.0.2:43122 → world/10.0.0.1:80  TCP  closed       210 B / 120 B  rtt 2.00 ms  lasted 9.00 ms  1 retransmit
01:46:40.600  world/10.0.0.2       → world/10.0.0.1     ICMP echo  new          28 B / 0 B
3 flows, 11 packets, 438 B in 600 ms; nothing lost
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

/// Two connections: one that is asked and closed, one that is refused, and half a second after them a ping.
fn connections() -> Vec<u8> {
    const ACK: u8 = 16;
    const FIN_ACK: u8 = 17;
    const RST_ACK: u8 = 20;
    let mut refused = [frame(0, 7, 0, SYN, b""), frame(1, 0, 8, RST_ACK, b"")];
    for (frame, port) in refused.iter_mut().zip([22, 20]) {
        frame[port..port + 2].copy_from_slice(&81u16.to_be_bytes());
    }
    let [refused, refusal] = refused;
    let mut ping = frame(0, 0, 0, 0, b"")[..28].to_vec();
    (ping[3], ping[9]) = (28, 1);
    ping[20..].copy_from_slice(&[8, 0, 0, 0, 0, 7, 0, 1]);
    let frames = [
        (0, frame(0, 100, 0, SYN, b"")),
        (1_000, frame(1, 500, 101, SYN_ACK, b"")),
        (2_000, frame(0, 101, 501, ACK, b"")),
        (3_000, frame(0, 101, 501, PSH_ACK, b"hello")),
        (4_000, frame(0, 101, 501, PSH_ACK, b"hello")),
        (5_000, refused),
        (6_000, refusal),
        (7_000, frame(1, 501, 106, FIN_ACK, b"")),
        (8_000, frame(0, 106, 502, FIN_ACK, b"")),
        (9_000, frame(1, 502, 107, ACK, b"")),
        (600_000, ping),
    ];
    file(&frames)
}

#[test]
fn flows_are_told_as_they_are_seen_live() {
    let text = stdout(&weir(&["--flows", "-"], &connections()));
    assert_eq!(text, FLOWS, "{text}");
    let lines = |arguments: &[&str]| {
        stdout(&weir(&[&["--flows", "-o", "jsonl", "-"], arguments].concat(), &connections()))
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect::<Vec<Value>>()
    };
    let closed = &lines(&["--state", "closed"])[0];
    for (field, expected) in [
        ("kind", Value::from("flow")),
        ("event", "close".into()),
        ("sent_packets", 5.into()),
        ("sent_bytes", 210.into()),
        ("received_packets", 3.into()),
        ("rtt_us", 2_000.into()),
        ("retransmits", 1.into()),
        ("midstream", false.into()),
        ("duration_ms", 9.0.into()),
    ] {
        assert_eq!(closed[field], expected, "{field}");
    }
    let kinds = |arguments: &[&str]| lines(arguments).len() - 1;
    assert_eq!(
        (kinds(&["--port", "81"]), kinds(&["--protocol", "icmp"]), kinds(&["--count", "1"])),
        (2, 1, 1)
    );
    let summary = lines(&[]).pop().unwrap();
    assert_eq!(
        (&summary["flows"], &summary["packets"], &summary["requests"]),
        (&3.into(), &11.into(), &Value::Null)
    );
}

#[test]
fn flows_have_no_requests_and_requests_no_states() {
    let told = |arguments: &[&str], says: &str| {
        let output = weir(&[arguments, &["-"]].concat(), b"");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && text.contains(says), "{arguments:?}: {text}");
    };
    told(&["--flows", "--status", "5xx"], "--flows' cannot be used with");
    told(&["--flows", "--stats"], "--flows' cannot be used with");
    told(&["--flows", "--reveal", "parameters"], "--flows' cannot be used with");
    told(&["--flows", "--protocol", "http"], "--protocol http: flows are told by their transport");
    told(&["--state", "reset"], "--state is about flows: it needs --flows");
    told(&["--flows", "--interface", "eth0"], "--interface is about the devices of this host");
}

#[test]
fn flows_have_no_application_protocol() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_weir")).args(["observe", "--protocol", "http"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("--protocol http: flows are told by their transport"), "{text}");
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
