//! Flows out of files.

use std::process::Command;

use serde_json::Value;

use crate::files::{PSH_ACK, Pcapng, SYN, SYN_ACK, file, frame, records, refused, stdout, weir};

const ACK: u8 = 16;

const FLOWS: &str = "\
01:46:40.000  world/10.0.0.2:43122 → world/10.0.0.1:80  TCP  new          40 B / 0 B
01:46:40.005  world/10.0.0.2:43122 → world/10.0.0.1:81  TCP  new          40 B / 0 B
01:46:40.506  world/10.0.0.2:43122 → world/10.0.0.1:81  TCP  reset        40 B / 40 B  lasted 1.00 ms  1 reset
01:46:40.509  world/10.0.0.2:43122 → world/10.0.0.1:80  TCP  closed       210 B / 120 B  rtt 2.00 ms  lasted 9.00 ms  1 retransmit
01:46:40.600  world/10.0.0.2       → world/10.0.0.1     ICMP echo  new          28 B / 0 B
3 flows, 11 packets, 438 B in 600 ms; nothing lost
";

/// Two connections: one that is asked and closed, one that is refused, and half a second after them a ping.
fn connections() -> Vec<u8> {
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
    let told = |arguments: &[&str], says: &str| refused(arguments, b"", 2, says);
    told(&["--flows", "--status", "5xx"], "--flows' cannot be used with");
    told(&["--flows", "--stats"], "--flows' cannot be used with");
    told(&["--flows", "--reveal", "parameters"], "--flows' cannot be used with");
    told(
        &["--flows", "--protocol", "http"],
        "--protocol http: flows and packets are told by their transport",
    );
    told(&["--protocol", "tcp"], "requests are told by their application protocol");
    told(&["--not", "--protocol", "17"], "requests are told by their application protocol");
    told(&["--state", "reset"], "--state is about flows: it needs --flows");
    told(&["--updates", "1s"], "--flows");
    told(&["--packets", "--updates", "1s"], "cannot be used with");
    told(&["--stats", "--updates", "1s"], "cannot be used with");
    told(&["--max-flows", "100"], "--max-flows is about flows: it needs --flows or --packets");
}

#[test]
fn flows_have_no_application_protocol() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_weir")).args(["observe", "--protocol", "http"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("--protocol http: flows are told by their transport"), "{text}");
}

/// A connection that speaks now and then, and a ping at 10 s.
fn a_long_connection() -> Vec<u8> {
    let ping = connections().split_off(connections().len() - 28);
    file(&[
        (0, frame(0, 100, 0, SYN, b"")),
        (100_000, frame(1, 500, 101, SYN_ACK, b"")),
        (200_000, frame(0, 101, 501, ACK, b"")),
        (900_000, frame(0, 101, 501, PSH_ACK, b"a")),
        (1_500_000, frame(0, 102, 501, PSH_ACK, b"b")),
        (3_100_000, frame(0, 103, 501, PSH_ACK, b"c")),
        (10_000_000, ping),
    ])
}

/// What is told of the connection: why, of which moment after its beginning, how many packets it has.
fn told(arguments: &[&str]) -> Vec<(String, String, u64)> {
    let records = records(&[&["--flows", "--protocol", "tcp"], arguments].concat(), &a_long_connection());
    let packets = |record: &Value, way: &str| record[way].as_u64().unwrap();
    let flows = records.iter().filter(|record| record["kind"] == "flow");
    flows
        .map(|flow| {
            let time = flow["time"].as_str().unwrap();
            let told = time.strip_prefix("2001-09-09T01:46:").unwrap().strip_suffix("00000000Z").unwrap();
            let sum = packets(flow, "sent_packets") + packets(flow, "received_packets");
            (flow["event"].as_str().unwrap().to_owned(), told.to_owned(), sum)
        })
        .collect()
}

#[test]
fn updates_come_by_the_time_of_the_capture() {
    let expected = |records: &[(&str, &str, u64)]| {
        records.iter().map(|(event, time, sum)| ((*event).to_owned(), (*time).to_owned(), *sum)).collect()
    };
    let whole: Vec<_> = expected(&[("open", "40.0", 1), ("update", "50.0", 6)]);
    assert_eq!(told(&[]), whole);
    // An update is told of the last packet before it: at 1 s, at 2 s, not at 3 s, at 4 s.
    let each_second: Vec<_> = expected(&[
        ("open", "40.0", 1),
        ("update", "40.9", 4),
        ("update", "41.5", 5),
        ("update", "43.1", 6),
        ("update", "50.0", 6),
    ]);
    assert_eq!(told(&["--updates", "1s"]), each_second);
    // What comes at the very moment is told the next time.
    let twice_a_second: Vec<_> = expected(&[
        ("open", "40.0", 1),
        ("update", "40.2", 3),
        ("update", "40.9", 4),
        ("update", "41.5", 5),
        ("update", "43.1", 6),
        ("update", "50.0", 6),
    ]);
    assert_eq!(told(&["--updates", "500ms"]), twice_a_second);
    let seldom: Vec<_> = expected(&[("open", "40.0", 1), ("update", "43.1", 6), ("update", "50.0", 6)]);
    assert_eq!(told(&["--updates", "7s"]), seldom);
    assert_eq!(told(&["--updates", "1h"]), whole);
}

#[test]
fn no_update_comes_after_the_end() {
    for interval in ["1ms", "2ms", "5ms", "100ms", "1s"] {
        let records = records(&["--flows", "--updates", interval, "--port", "80"], &connections());
        let events: Vec<_> = records.iter().filter_map(|record| record["event"].as_str()).collect();
        let (last, before) = events.split_last().unwrap();
        assert_eq!(*last, "close", "{interval}: {events:?}");
        assert!(!before.contains(&"close"), "{interval}: {events:?}");
    }
}

#[test]
fn reading_ends_after_a_time_of_the_capture() {
    let packets = |arguments: &[&str]| records(arguments, &connections()).pop().unwrap()["packets"].clone();
    for kind in ["--flows", "--packets"] {
        assert_eq!(packets(&[kind, "--for", "8ms"]), 8);
        assert_eq!(packets(&[kind, "--for", "1s"]), 11);
    }
    assert_eq!(packets(&["--for", "8ms"]), 8);
}

/// So many pings, of as many flows, each answered in the end.
fn pings(flows: u8) -> Vec<u8> {
    let ping = |identifier: u8, kind: u8| {
        let mut ping = frame(u8::from(kind == 0), 0, 0, 0, b"")[..28].to_vec();
        (ping[3], ping[9]) = (28, 1);
        ping[20..].copy_from_slice(&[kind, 0, 0, 0, 0, identifier, 0, 1]);
        ping
    };
    let asked = (0..flows).map(|one| (u32::from(one) * 1_000, ping(one, 8)));
    let answered = (0..flows).map(|one| (500_000 + u32::from(one) * 1_000, ping(one, 0)));
    file(&asked.chain(answered).collect::<Vec<_>>())
}

#[test]
fn the_same_file_tells_the_same() {
    let whole = pings(100);
    let first = stdout(&weir(&["--flows", "--updates", "100ms", "-"], &whole));
    for _ in 0..3 {
        assert_eq!(stdout(&weir(&["--flows", "--updates", "100ms", "-"], &whole)), first);
    }
}

#[test]
fn there_is_room_for_so_many_flows() {
    let summary = |arguments: &[&str]| records(arguments, &pings(20)).pop().unwrap();
    for kind in ["--flows", "--packets"] {
        let all = summary(&[kind]);
        assert_eq!(
            (&all["flows"], &all["packets"], &all["lost"]),
            (&20.into(), &40.into(), &serde_json::json!({}))
        );
        let some = summary(&[kind, "--max-flows", "16"]);
        assert_eq!((&some["flows"], &some["packets"]), (&16.into(), &32.into()));
        assert_eq!(some["lost"], serde_json::json!({ "table_full": 8 }));
    }
}

#[test]
fn times_may_be_any() {
    let times = [0, u64::MAX, 1 << 60, u64::MAX - 1, 0, 5_000_000_000, u64::MAX];
    for order in [times, [0; 7], [u64::MAX; 7]] {
        let mut file = Pcapng::new().interface(101, &[]);
        for (index, time) in order.into_iter().enumerate() {
            let flags = [SYN, ACK, 17, 4][index % 4];
            file = file.frame_at(0, time, None, &frame(0, index as u32, 0, flags, b""));
        }
        let bytes = file.bytes();
        for arguments in [&["--flows"][..], &["--flows", "--updates", "1ms"], &["--packets"], &[]] {
            assert_eq!(records(arguments, &bytes).pop().unwrap()["packets"], 7, "{arguments:?}");
        }
    }
}
