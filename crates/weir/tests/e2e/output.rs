//! What is printed, where, and when it ends.

use std::io::{BufRead, BufReader, Read};
use std::net::UdpSocket;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use weir_testkit::traffic::{self, EchoServer};
use weir_testkit::{Daemon, Stream, Topology, require_root, wait_until};

use crate::weir::{LIMIT, Weir, command, has_port, number, text};

fn ping_the_host(topology: &Topology) {
    traffic::ping(topology.container("web").namespace(), Topology::HOST_IPV4, 1, 56);
}

/// As in `weir observe | head -n 1`.
#[test]
fn root_a_closed_pipe_ends_it_quietly() {
    require_root!();
    let topology = Topology::with_containers(&["web"]);
    for format in ["jsonl", "compact"] {
        let mut child = command(topology.host(), &["observe", "-o", format, "--engine", "none"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let mut errors = BufReader::new(stderr);
        let mut line = String::new();
        while !line.starts_with("weir: watching") {
            line.clear();
            assert_ne!(errors.read_line(&mut line).unwrap(), 0, "weir ended before it watched");
        }
        ping_the_host(&topology);
        let mut reader = BufReader::new(stdout);
        let mut first = String::new();
        assert_ne!(reader.read_line(&mut first).unwrap(), 0);
        drop(reader);

        let start = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < LIMIT, "it writes into a closed pipe and does not end");
            // A new flow each time, so that there is something to write.
            ping_the_host(&topology);
        };
        let mut rest = String::new();
        errors.read_to_string(&mut rest).unwrap();
        assert_eq!((status.code(), rest.as_str()), (Some(0), ""), "{format}");
    }
}

#[test]
fn root_a_full_disk_is_an_error() {
    require_root!();
    let topology = Topology::with_containers(&["web"]);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut weir = Daemon::start_with_stdout(
        "weir",
        &mut command(topology.host(), &["observe", "-o", "jsonl", "--engine", "none"]),
        full,
    );
    weir.wait_for_line(Stream::Err, LIMIT, |line| line.starts_with("weir: watching"));
    wait_until(LIMIT, "it ends", || {
        ping_the_host(&topology);
        !weir.is_running()
    });
    assert_eq!(weir.wait(LIMIT).code(), Some(1));
    let said = weir.stderr().join("\n");
    assert!(said.contains("No space left on device") || said.contains("no space left"), "{said}");
}

#[test]
fn root_count_ends_it() {
    require_root!();
    let topology = Topology::with_containers(&["web"]);
    let weir = Weir::observe(topology.host(), &["--count", "3", "--protocol", "icmp"]);
    for _ in 0..3 {
        ping_the_host(&topology);
    }
    let run = weir.wait();
    assert_eq!(run.records.len(), 3, "{}", run.lines());
    assert_eq!(run.summary["records"], 3);
}

#[test]
fn root_for_ends_it() {
    require_root!();
    let topology = Topology::with_containers(&["web"]);
    let weir = Weir::observe(topology.host(), &["--for", "300ms"]);
    let run = weir.wait();
    let duration_ms = run.summary["duration_ms"].as_f64().expect("a number");
    assert!((300.0..5000.0).contains(&duration_ms), "{duration_ms}");
}

#[test]
fn root_last_keeps_the_last_records() {
    require_root!();
    let topology = Topology::with_containers(&["web"]);
    let weir = Weir::observe(topology.host(), &["--last", "2", "--protocol", "udp"]);
    let server = EchoServer::udp(topology.host(), Topology::HOST_IPV4);
    let web = topology.container("web").namespace();
    let ports: Vec<u16> = (0..4).map(|_| traffic::udp_echo(web, server.address(), 1, 10)).collect();
    let run = weir.finish();
    assert_eq!(run.records.len(), 2, "{}", run.lines());
    // At the end every flow that lives is told once more, in the order of its beginning or not.
    assert!(run.records.iter().all(|record| ports.iter().any(|&port| has_port(record, "udp", port))));
}

#[test]
fn root_updates_are_totals() {
    require_root!();
    let topology = Topology::with_containers(&["web"]);
    let weir = Weir::observe(topology.host(), &["--updates", "50ms", "--protocol", "tcp"]);
    let server = EchoServer::tcp(topology.host(), Topology::HOST_IPV4);
    let mut stream = traffic::connect(topology.container("web").namespace(), server.address());
    let mut last = 0;
    for exchange in 0..3 {
        traffic::exchange(&mut stream, 1000);
        // The opening is told with what the entry holds by then: the first exchange may be in it.
        let update = weir.wait_for_record(|record| {
            (record["event"] == "update" || (exchange == 0 && record["event"] == "open"))
                && record["sent_bytes"].as_u64().is_some_and(|bytes| bytes >= last + 1000)
        });
        last = number(&update["sent_bytes"]);
    }
    drop(stream);
    let closed = weir.wait_for_record(|record| record["event"] == "close");
    assert!(number(&closed["sent_bytes"]) >= last);
    weir.finish();
}

#[test]
fn root_packets() {
    require_root!();
    let topology = Topology::with_containers(&["web", "db"]);
    let (web, db) = (topology.container("web"), topology.container("db"));
    let weir = Weir::observe(topology.host(), &["--packets"]);
    let server = EchoServer::tcp(db.namespace(), db.ipv6());
    let port = traffic::tcp_echo(web.namespace(), server.address(), 1, 100)[0];
    let of_port = |record: &Value, port: u16| {
        record["kind"] == "packet"
            && (record["source"]["port"] == port || record["destination"]["port"] == port)
    };
    weir.wait_for_record(|record| {
        // Its last ACK, at the second veth.
        of_port(record, port)
            && record["interface"] == "veth-db"
            && record["tcp_flags"] == "A"
            && record["direction"] == "to_container"
            && number(&record["tcp_ack"]) > 0
    });
    let run = weir.finish();
    let packets: Vec<&Value> = run.records.iter().filter(|record| of_port(record, port)).collect();

    let syn = packets.iter().find(|packet| packet["tcp_flags"] == "S").expect("a SYN");
    assert_eq!(text(&syn["source"]["ip"]), web.ipv6().to_string());
    assert_eq!(text(&syn["destination"]["ip"]), db.ipv6().to_string());
    assert_eq!((text(&syn["interface"]), text(&syn["direction"])), ("veth-web", "from_container"));
    assert_eq!(number(&syn["payload_bytes"]), 0);
    assert!(number(&syn["length_bytes"]) >= 74, "{syn}");
    // Each crosses two hooks.
    for way in ["from_container", "to_container"] {
        let payload: u64 = packets
            .iter()
            .filter(|packet| packet["direction"] == way && packet["source"]["port"] == port)
            .map(|packet| number(&packet["payload_bytes"]))
            .sum();
        assert_eq!(payload, 100, "{way}");
    }
    assert_eq!(run.summary["lost"], serde_json::json!({}));
    assert!(run.flows(|_| true).is_empty(), "packets instead of flows");
}

#[test]
fn root_an_interface_by_name_and_by_pattern() {
    require_root!();
    let topology = Topology::with_containers(&["web", "db"]);
    let weirs = [
        Weir::observe(topology.host(), &["--interface", "br0"]),
        Weir::observe(topology.host(), &["--interface", "veth-w*"]),
        Weir::observe(topology.host(), &["--interface", "lo"]),
    ];
    ping_the_host(&topology);
    let server = EchoServer::tcp(topology.host(), [127, 0, 0, 1]);
    let port = traffic::tcp_echo(topology.host(), server.address(), 1, 100)[0];
    let [bridge, veth, lo] = weirs.map(Weir::finish);
    for (run, device) in [(&bridge, "br0"), (&veth, "veth-web")] {
        let flow = run.flow(|flow| flow["protocol"] == "icmp");
        let interfaces = flow["interfaces"].as_array().expect("an array");
        assert_eq!(interfaces.len(), 1, "{flow}");
        assert_eq!(interfaces[0]["name"], device, "{flow}");
        assert_eq!((&flow["sent_packets"], &flow["received_packets"]), (&1.into(), &1.into()), "{flow}");
    }
    let flow = lo.flow(|flow| has_port(flow, "tcp", port));
    assert_eq!((text(&flow["state"]), &flow["midstream"]), ("closed", &false.into()), "{flow}");
}

/// Programs of their own, which are loaded when the user names an interface.
#[test]
fn root_an_interface_without_a_link_layer() {
    require_root!();
    let topology = Topology::with_containers(&["web"]);
    topology.host().run("ip", &["tuntap", "add", "tun0", "mode", "tun"]);
    topology.host().ip_batch("addr add 10.77.0.1/24 dev tun0\nlink set tun0 up\n");
    let weir = Weir::observe(topology.host(), &["--interface", "tun*"]);
    let port = topology.host().enter(|| {
        let socket = UdpSocket::bind(("10.77.0.1", 0)).unwrap();
        socket.send_to(&[0; 100], ("10.77.0.2", 9)).unwrap();
        socket.local_addr().unwrap().port()
    });
    let run = weir.finish();
    let flow = run.flow(|flow| has_port(flow, "udp", port));
    assert_eq!((&flow["sent_packets"], &flow["sent_bytes"]), (&1.into(), &128.into()), "{flow}");
    assert_eq!(flow["interfaces"][0]["name"], "tun0", "{flow}");
}

#[test]
fn root_formats_for_people() {
    require_root!();
    let topology = Topology::with_containers(&["web", "db"]);
    let (web, db) = (topology.container("web"), topology.container("db"));
    let start = |format: &str| {
        let args = ["observe", "-o", format, "--engine", "none", "--protocol", "tcp", "--color", "never"];
        Weir::start(&mut command(topology.host(), &args))
    };
    let (compact, table, json) = (start("compact"), start("table"), start("json"));
    let server = EchoServer::tcp(db.namespace(), db.ipv4());
    let port = traffic::tcp_echo(web.namespace(), server.address(), 1, 2000)[0];
    let mark = format!(":{port}");
    compact.daemon.wait_for_line(Stream::Out, LIMIT, |line| line.contains(&mark) && line.contains("closed"));

    let mut outputs = Vec::new();
    for mut weir in [compact, table, json] {
        // Long enough for the same record to be in each.
        assert!(weir.daemon.stop(libc::SIGINT, LIMIT).success());
        outputs.push(weir.daemon.stdout().join("\n"));
    }
    let line = outputs[0].lines().find(|line| line.contains(&mark)).expect("a line of the flow");
    let (from, to) = (format!("{}{mark}", web.namespace().name()), format!(":{}", server.address().port()));
    assert!(
        line.contains(&from) && line.contains('→') && line.contains(&to) && line.contains("TCP"),
        "{line}"
    );
    assert!(outputs[1].contains(&mark), "{}", outputs[1]);
    let records: Value = serde_json::from_str(&outputs[2]).expect("-o json is one JSON text");
    let records = records.as_array().expect("an array");
    assert!(records.iter().any(|record| has_port(record, "tcp", port) && record["event"] == "close"));
    assert_eq!(records.last().expect("records")["kind"], "summary");
    assert!(outputs.iter().all(|output| !output.contains('\u{1b}')));
}

/// Idle, it uses no processor time worth measuring.
#[test]
fn root_nothing_to_see_costs_nothing() {
    require_root!();
    let topology = Topology::with_containers(&["web"]);
    let weir = Weir::observe(topology.host(), &[]);
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", weir.daemon.id())).unwrap();
        let fields: Vec<u64> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|n| n.parse().unwrap())
            .collect();
        fields.iter().sum::<u64>()
    };
    // Where others keep the processors, its start takes some of these seconds.
    wait_until(LIMIT, "a second with at most one tick of 10 ms", || {
        let before = ticks();
        std::thread::sleep(Duration::from_secs(1));
        ticks() - before <= 1
    });
    weir.finish();
}
