//! Packets out of files.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use flate2::read::GzDecoder;
use serde_json::{Value, json};

use crate::files::{
    PSH_ACK, Pcapng, SYN, SYN_ACK, file, frame, pcap, pcapng, records, refused, stdout, weir,
};

const PACKETS: &str = "\
01:46:40.000000  world/10.0.0.2:43122 → world/10.0.0.1:80  TCP  [S]  seq 100 win 65535  40 B
01:46:40.001000  world/10.0.0.1:80    → world/10.0.0.2:43122  TCP  [SA]  seq 500 ack 101 win 65535  40 B
01:46:40.002000  world/10.0.0.2:43122 → world/10.0.0.1:80     TCP  [PA]  seq 101 ack 501 win 65535  110 B (70 B payload)
01:46:40.003000  world/10.0.0.1:80    → world/10.0.0.2:43122  TCP  [PA]  seq 501 ack 171 win 65535  83 B (43 B payload)
";

/// Of eth0, by name, and its direction; of what only has a description; of one that says nothing;
/// of Linux's "any", whose frames say where they were; and of one whose frames nobody here can read.
fn interfaces() -> Vec<u8> {
    let cooked = |ifindex: u8, kind: u8, frame: Vec<u8>| {
        [&[8, 0, 0, 0, 0, 0, 0, ifindex, 0, 1, kind, 6][..], &[0; 8], &frame].concat()
    };
    Pcapng::new()
        .interface(101, &[(2, b"eth0"), (3, b"the first one")])
        .interface(101, &[(2, br"\Device\NPF_{1}"), (3, b"Ethernet 2")])
        .interface(101, &[])
        .interface(276, &[(2, b"any")])
        .interface(105, &[(2, b"wlan0\0")])
        .frame(0, 0, Some(2), &frame(0, 100, 0, SYN, b""))
        .frame(0, 1, Some(1), &frame(1, 500, 101, SYN_ACK, b""))
        .frame(4, 2, None, &[0x80; 40])
        .frame(1, 3, Some(0), &frame(0, 101, 501, PSH_ACK, b"hello"))
        .frame(2, 4, None, &frame(1, 501, 106, PSH_ACK, b"world"))
        .frame(3, 5, None, &cooked(7, 4, frame(0, 106, 506, PSH_ACK, b"!")))
        .frame(3, 6, None, &cooked(8, 0, frame(0, 106, 506, PSH_ACK, b"!")))
        .frame(4, 7, None, &[0x80; 40])
        .simple(&frame(1, 506, 107, PSH_ACK, b"?"))
        .bytes()
}

#[test]
fn packets_are_told_as_they_are_seen_live() {
    for bytes in [pcap(), pcapng()] {
        let text = stdout(&weir(&["--packets", "-"], &bytes));
        assert!(text.starts_with(PACKETS), "{text}");
        assert_eq!(text.lines().count(), 7);
        assert_eq!(text.lines().last().unwrap(), "1 flow, 6 packets, 444 B in 5.00 ms; nothing lost");
    }
    let records = records(&["--packets"], &pcap());
    assert_eq!(
        records[1],
        json!({
            "kind": "packet", "time": "2001-09-09T01:46:40.001000000Z",
            "source": { "ip": "10.0.0.1", "port": 80, "name": "world" },
            "destination": { "ip": "10.0.0.2", "port": 43122, "name": "world" },
            "protocol": "tcp", "length_bytes": 40, "payload_bytes": 0,
            "tcp_flags": "SA", "tcp_seq": 500, "tcp_ack": 101, "tcp_window": 65535,
        })
    );
    let summary = records.last().unwrap();
    assert_eq!(
        (&summary["packets"], &summary["records"], &summary["requests"]),
        (&6.into(), &6.into(), &Value::Null)
    );
}

#[test]
fn packets_are_told_in_every_format() {
    let text = |format: &str| stdout(&weir(&["--packets", "-o", format, "-"], &pcap()));
    let table = text("table");
    assert!(table.starts_with("TIME             INTERFACE         SOURCE  "), "{table}");
    assert!(table.contains("01:46:40.000000  -                 world/10.0.0.2:43122"), "{table}");
    let array: Vec<Value> = serde_json::from_str(&text("json")).unwrap();
    assert_eq!(array.len(), 7);
    let csv = text("csv");
    assert_eq!(csv.lines().count(), 7);
    assert!(csv.contains(",world,tcp,,,,40,0,S,100,0,65535\n"), "{csv}");
}

#[test]
fn filters_choose_packets() {
    for (arguments, expected) in [
        (&["--port", "80"][..], 6),
        (&["--from", "10.0.0.1"], 3),
        (&["--to", ":80"], 3),
        (&["--not", "--from", "10.0.0.1"], 3),
        (&["--protocol", "udp"], 0),
        (&["--protocol", "tcp", "-4"], 6),
        (&["--ip", "10.1.0.0/16"], 0),
        (&["--since", "2001-09-09T01:46:40.003Z"], 3),
        (&["--count", "2"], 2),
        (&["--last", "2"], 2),
    ] {
        let records = records(&[&["--packets"], arguments].concat(), &pcap());
        assert_eq!(records.len() - 1, expected, "{arguments:?}");
    }
    refused(&["--packets", "--protocol", "dns"], b"", 2, "flows and packets are told by their transport");
    refused(&["--packets", "--state", "reset"], b"", 2, "--state is about flows: it needs --flows");
    for option in ["--flows", "--stats", "--errors"] {
        refused(&["--packets", option], b"", 2, "--packets' cannot be used with");
    }
}

#[test]
fn where_a_packet_was_seen_is_told_as_far_as_the_file_does() {
    let output = weir(&["--packets", "-o", "jsonl", "-"], &interfaces());
    let text = stdout(&output);
    let mut records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summary = records.pop().unwrap();
    let places: Vec<_> = records
        .iter()
        .map(|record| {
            let field = |name: &str| record.get(name).map_or("", |value| value.as_str().unwrap());
            (field("interface"), field("direction"))
        })
        .collect();
    assert_eq!(
        places,
        [
            ("eth0", "egress"),
            ("eth0", "ingress"),
            ("Ethernet 2", ""),
            ("", ""),
            ("if7", "egress"),
            ("if8", "ingress"),
            ("eth0", ""),
        ]
    );
    assert_eq!(records[6]["time"], "2001-09-09T01:46:40.007000000Z", "a time that its block does not have");
    // The rest is read, and what is not is counted and named, once.
    assert_eq!(summary["lost"], json!({ "link_type_unknown": 2 }));
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(told.matches("frames of wlan0 have link type 105").count(), 1, "{told}");
    let people = stdout(&weir(&["--packets", "-"], &interfaces()));
    assert!(people.starts_with("01:46:40.000000  eth0 ↑  world/10.0.0.2:43122 "), "{people}");
    assert!(people.contains("01:46:40.003000  Ethernet 2  "), "{people}");
    assert!(people.ends_with("lost:\n  2 packets of a link type that weir does not read\n"), "{people}");
}

#[test]
fn what_was_seen_elsewhere_is_not_read() {
    let packets = |arguments: &[&str]| records(arguments, &interfaces()).pop().unwrap()["packets"].clone();
    for kind in [&["--packets"][..], &["--flows"], &[]] {
        let packets = |arguments: &[&str]| packets(&[kind, arguments].concat());
        assert_eq!(packets(&["--interface", "eth0"]), 3);
        assert_eq!(packets(&["--interface", "if*", "--interface", "Ethernet?2"]), 3);
        assert_eq!(packets(&["--not", "--interface", "eth0"]), 4);
        assert_eq!(packets(&["--interface", "if*", "--not", "--interface", "if8"]), 1);
        assert_eq!(packets(&["--interface", "nobody*"]), 0);
    }
    let output = weir(&["--interface", "eth0", "-"], &interfaces());
    assert!(!String::from_utf8(output.stderr).unwrap().contains("link type"), "its frames are not asked for");
    let there = "no packet was captured at an interface named \"eth9\"; there are packets of: Ethernet 2, eth0, if7, if8, wlan0";
    refused(&["--interface", "eth9"], &interfaces(), 2, there);
    refused(&["--interface", "eth0"], &pcap(), 2, "do not tell at which interfaces packets were captured");
}

#[test]
fn a_file_of_which_nothing_can_be_read_is_a_failure() {
    let strange = Pcapng::new().interface(105, &[]).frame(0, 0, None, &[0x80; 40]).bytes();
    refused(&["--packets"], &strange, 1, "standard input holds frames of link type 105");
    refused(&[], &strange, 1, "standard input holds frames of link type 105");
}

#[test]
fn a_later_fragment_has_no_header() {
    let whole = frame(0, 100, 0, PSH_ACK, &[7; 44]);
    let piece = |place: usize, end: usize, more: bool| {
        let mut piece = whole[..20].to_vec();
        piece.extend(&whole[20 + place..20 + end]);
        let length = piece.len() as u16;
        piece[2..4].copy_from_slice(&length.to_be_bytes());
        piece[6..8].copy_from_slice(&((place / 8) as u16 | u16::from(more) << 13).to_be_bytes());
        piece
    };
    let (first, last) = (piece(0, 32, true), piece(32, 64, false));
    let bytes = file(&[(0, first.clone()), (1, last.clone()), (2, last), (3, first)]);
    let records = records(&["--packets"], &bytes);
    let told: Vec<_> = records
        .iter()
        .map(|one| (one["source"]["port"].clone(), one["payload_bytes"].clone(), one.get("tcp_seq").cloned()))
        .collect();
    let (head, tail) = ((json!(43_122), json!(12), Some(json!(100))), (json!(43_122), json!(32), None));
    assert_eq!(told[..4], [head.clone(), tail.clone(), tail, head], "the last ones came again");
}

/// How many packets a pcap file holds, and their lengths on the wire together.
fn counted(mut pcap: &[u8]) -> (u64, u64) {
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
    assert!(matches!(number(&pcap[..4]), 0xa1b2_c3d4 | 0xa1b2_3c4d));
    pcap = &pcap[24..];
    let mut sums = (0, 0);
    while !pcap.is_empty() {
        sums = (sums.0 + 1, sums.1 + u64::from(number(&pcap[12..16])));
        pcap = &pcap[16 + number(&pcap[8..12]) as usize..];
    }
    sums
}

#[test]
fn packets_add_up_to_flows_and_to_what_is_in_the_file() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata");
    let mut files = 0;
    for path in std::fs::read_dir(folder)
        .unwrap()
        .flat_map(|entry| std::fs::read_dir(entry.unwrap().path()))
        .flatten()
    {
        let path = path.unwrap().path();
        if !path.to_string_lossy().ends_with(".pcap.gz") {
            continue;
        }
        files += 1;
        let mut bytes = Vec::new();
        GzDecoder::new(&*std::fs::read(&path).unwrap()).read_to_end(&mut bytes).unwrap();
        let packets = records(&["--packets"], &bytes);
        let number = |record: &Value, fields: &[&str]| -> u64 {
            fields.iter().map(|field| record[field].as_u64().unwrap()).sum()
        };
        let (summary, packets) = packets.split_last().unwrap();
        let told = (packets.len() as u64, packets.iter().map(|one| number(one, &["length_bytes"])).sum());
        let other: u64 = summary["not_flows"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
        assert_eq!((other, &summary["lost"]), (0, &json!({})), "{path:?}");
        assert_eq!(told, counted(&bytes), "{path:?}");

        let mut flows = records(&["--flows"], &bytes);
        let sums = flows.pop().unwrap();
        // The last record of each.
        let last: std::collections::HashMap<_, _> =
            flows.iter().map(|flow| (flow["id"].as_str().unwrap(), flow)).collect();
        let sum = |fields: &[&str]| last.values().map(|flow| number(flow, fields)).sum::<u64>();
        let of_flows = (sum(&["sent_packets", "received_packets"]), sum(&["sent_bytes", "received_bytes"]));
        assert_eq!(of_flows, told, "{path:?}");
        for field in ["flows", "packets", "bytes"] {
            assert_eq!(sums[field], summary[field], "{path:?}: {field}");
        }
    }
    assert!(files >= 10, "{files}");
}

#[test]
fn what_only_live_traffic_has_is_refused_with_the_reason() {
    for (option, value, reason) in [
        ("--attach", "tcx", "a file is read without any"),
        ("--bpffs", "/sys/fs/bpf", "a file is read without any"),
        ("--engine", "none", "not when and where a file was captured"),
        ("--socket", "/run/weir.sock", "a file is read without it"),
        ("--max-turn", "64KiB", "a file has what it has"),
        ("--max-connection", "64KiB", "a file has what it has"),
        ("--payload-ring", "1MiB", "a file has what it has"),
        ("--container", "web", "files do not tell which containers there were"),
        ("--service", "web", "files do not tell which containers there were"),
        ("--verdict", "redirected", "it did nothing with those in a file"),
        ("--from", "virtual:80", "nobody answers for addresses in a file"),
    ] {
        refused(&[option, value], b"", 2, reason);
    }
    refused(&["--flows", "--not", "--container", "web"], b"", 2, "files do not tell which containers");
}

#[test]
fn what_comes_slowly_is_told_at_once() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(["read", "--packets", "-o", "jsonl", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let (told, lines) = std::sync::mpsc::channel();
    let reading = std::thread::spawn(move || {
        BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| told.send(line))
    });
    let bytes = pcap();
    let (first, rest) = bytes.split_at(24 + 16 + 40);
    input.write_all(first).unwrap();
    let line = lines.recv_timeout(Duration::from_secs(120)).expect("a line while the file goes on");
    assert!(line.contains("\"tcp_flags\":\"S\""), "{line}");
    input.write_all(rest).unwrap();
    drop(input);
    assert_eq!(lines.iter().count(), 6);
    reading.join().unwrap().unwrap();
    assert!(child.wait().unwrap().success());
}
