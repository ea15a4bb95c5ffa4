//! Each protocol, over both versions of IP: one row for one connection between
//! two containers, counted once.

use std::io::Write;
use std::net::{IpAddr, UdpSocket};

use serde_json::Value;
use weir_testkit::packet::{Frame, protocol};
use weir_testkit::traffic::{self, EchoServer};
use weir_testkit::{Container, Daemon, Namespace, Stream, Topology, require_root, uninterrupted, wait_until};

use crate::weir::{LIMIT, Weir, at_interface, has_port, number, text};

const ETHERNET_BYTES: u64 = 14;

fn ip_bytes(ip: IpAddr) -> u64 {
    if ip.is_ipv4() { 20 } else { 40 }
}

fn addresses(container: &Container) -> [IpAddr; 2] {
    [container.ipv4().into(), container.ipv6().into()]
}

/// Holds what every flow from `web` to `db` has in common against `flow`.
#[track_caller]
fn assert_between_web_and_db(flow: &Value, topology: &Topology, server: IpAddr) {
    let web = topology.container("web");
    let client = if server.is_ipv4() { IpAddr::V4(web.ipv4()) } else { web.ipv6().into() };
    assert_eq!(text(&flow["client"]["ip"]), client.to_string(), "{flow}");
    assert_eq!(text(&flow["server"]["ip"]), server.to_string(), "{flow}");
    assert_eq!(text(&flow["client"]["container"]), web.namespace().name(), "{flow}");
    assert_eq!(text(&flow["server"]["container"]), topology.container("db").namespace().name(), "{flow}");
    assert_eq!(flow["verdict"], "forwarded", "{flow}");
    assert_eq!(flow["midstream"], false, "{flow}");

    // Both veths saw it, it is counted once, and everything arrived.
    let (at_web, at_db) = (at_interface(flow, "veth-web"), at_interface(flow, "veth-db"));
    for (way, there, here) in [("sent", "ingress", "egress"), ("received", "egress", "ingress")] {
        for unit in ["packets", "bytes"] {
            let counted = number(&flow[format!("{way}_{unit}")]);
            assert_eq!(number(&at_web[format!("{there}_{unit}")]), counted, "{way} {unit} of {flow}");
            assert_eq!(number(&at_db[format!("{here}_{unit}")]), counted, "{way} {unit} of {flow}");
        }
    }
    assert_eq!(flow["sent_delivered_packets"], flow["sent_packets"], "{flow}");
    assert_eq!(flow["received_delivered_packets"], flow["received_packets"], "{flow}");
}

#[test]
fn root_tcp() {
    require_root!();
    let topology = Topology::with_containers(&["web", "db"]);
    let (web, db) = (topology.container("web"), topology.container("db"));
    let weir = Weir::observe(topology.host(), &[]);
    let mut opened = Vec::new();
    for ip in addresses(db) {
        let server = EchoServer::tcp(db.namespace(), ip);
        for port in traffic::tcp_echo(web.namespace(), server.address(), 2, 10_000) {
            opened.push((ip, port, server.address().port()));
        }
    }
    for &(_, port, _) in &opened {
        weir.wait_for_record(|record| record["event"] == "close" && has_port(record, "tcp", port));
    }
    let run = weir.finish();

    for (ip, port, server_port) in opened {
        let flow = run.flow(|flow| has_port(flow, "tcp", port));
        assert_between_web_and_db(flow, &topology, ip);
        assert_eq!((&flow["client"]["port"], &flow["server"]["port"]), (&port.into(), &server_port.into()));
        assert_eq!((&flow["event"], &flow["state"]), (&"close".into(), &"closed".into()), "{flow}");
        for way in ["sent", "received"] {
            let packets = number(&flow[format!("{way}_packets")]);
            let bytes = number(&flow[format!("{way}_bytes")]);
            // Headers of 20 bytes at least, and 10,000 bytes of payload.
            let headers = packets * (ETHERNET_BYTES + ip_bytes(ip) + 20);
            assert!(bytes >= 10_000 + headers && bytes <= 10_000 + headers + packets * 40, "{flow}");
        }
        assert!(number(&flow["rtt_us"]) > 0, "{flow}");
        for flags in flow["tcp_flags"].as_array().expect("TCP has flags") {
            assert!(["S", "A", "F", "P"].iter().all(|flag| text(flags).contains(flag)), "{flow}");
        }
        // Not retransmits: two processors may hand a veth's segments on out of order, and those
        // count as such. The packet tables test that counter.
        for counter in ["resets", "zero_windows", "icmp_errors"] {
            assert_eq!(flow[counter], 0, "{flow}");
        }
        let events: Vec<_> = run
            .records
            .iter()
            .filter(|record| record["id"] == flow["id"])
            .map(|record| text(&record["event"]))
            .collect();
        assert_eq!(events, ["open", "close"]);
    }
    assert_eq!(run.summary["lost"], serde_json::json!({}));
}

/// The host routes between them, so that its stack has each packet in hand.
#[test]
fn root_tcp_between_two_networks() {
    require_root!();
    let mut topology = Topology::with_two_bridges();
    topology.add_container("web");
    topology.add_container_on_second_bridge("db");
    let db = topology.container("db");
    let weir = Weir::observe(topology.host(), &[]);
    for ip in addresses(db) {
        let server = EchoServer::tcp(db.namespace(), ip);
        let port = traffic::tcp_echo(topology.container("web").namespace(), server.address(), 1, 10_000)[0];
        let closed =
            weir.wait_for_record(|record| record["event"] == "close" && has_port(record, "tcp", port));
        assert_between_web_and_db(&closed, &topology, ip);
    }
    assert_eq!(weir.finish().flows(|flow| flow["protocol"] == "tcp").len(), 2);
}

#[test]
fn root_tcp_refused_is_reset() {
    require_root!();
    let topology = Topology::with_containers(&["web", "db"]);
    let (web, db) = (topology.container("web"), topology.container("db"));
    let weir = Weir::observe(topology.host(), &[]);
    let address = (db.ipv4(), 1).into();
    let refused = web.namespace().enter(|| std::net::TcpStream::connect_timeout(&address, LIMIT));
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    let closed = weir.wait_for_record(|record| record["event"] == "close" && has_port(record, "tcp", 1));
    assert_between_web_and_db(&closed, &topology, db.ipv4().into());
    assert_eq!((text(&closed["state"]), number(&closed["resets"])), ("reset", 1), "{closed}");
}

#[test]
fn root_udp() {
    require_root!();
    let topology = Topology::with_containers(&["web", "db"]);
    let (web, db) = (topology.container("web"), topology.container("db"));
    let weir = Weir::observe(topology.host(), &[]);
    let mut sent = Vec::new();
    for ip in addresses(db) {
        let server = EchoServer::udp(db.namespace(), ip);
        sent.push((ip, traffic::udp_echo(web.namespace(), server.address(), 5, 1200)));
    }
    let run = weir.finish();

    for (ip, port) in sent {
        let flow = run.flow(|flow| has_port(flow, "udp", port));
        assert_between_web_and_db(flow, &topology, ip);
        assert_eq!((text(&flow["event"]), text(&flow["state"])), ("update", "established"), "{flow}");
        let bytes = 5 * (ETHERNET_BYTES + ip_bytes(ip) + 8 + 1200);
        for way in ["sent", "received"] {
            assert_eq!(number(&flow[format!("{way}_packets")]), 5, "{flow}");
            assert_eq!(number(&flow[format!("{way}_bytes")]), bytes, "{flow}");
        }
    }
}

#[test]
fn root_icmp() {
    require_root!();
    let topology = Topology::with_containers(&["web", "db"]);
    let (web, db) = (topology.container("web"), topology.container("db"));
    let weir = Weir::observe(topology.host(), &[]);
    for ip in addresses(db) {
        traffic::ping(web.namespace(), ip, 3, 100);
    }
    let run = weir.finish();

    for (ip, name, echo) in [(addresses(db)[0], "icmp", 8), (addresses(db)[1], "icmpv6", 128)] {
        let flow = run.flow(|flow| flow["protocol"] == name);
        assert_between_web_and_db(flow, &topology, ip);
        assert_eq!(flow["icmp_type"], echo, "{flow}");
        let bytes = 3 * (ETHERNET_BYTES + ip_bytes(ip) + 8 + 100);
        for way in ["sent", "received"] {
            assert_eq!(number(&flow[format!("{way}_packets")]), 3, "{flow}");
            assert_eq!(number(&flow[format!("{way}_bytes")]), bytes, "{flow}");
        }
    }
}

#[test]
fn root_an_icmp_error_counts_at_the_flow_that_it_quotes() {
    require_root!();
    let topology = Topology::with_containers(&["web", "db"]);
    let (web, db) = (topology.container("web"), topology.container("db"));
    let weir = Weir::observe(topology.host(), &[]);
    for ip in addresses(db) {
        let any: IpAddr = if ip.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
        let socket = web.namespace().enter(|| UdpSocket::bind((any, 0))).unwrap();
        socket.connect((ip, 9)).unwrap();
        socket.send(b"is there anybody?").unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        assert_eq!(
            uninterrupted(|| socket.recv(&mut [0; 1])).unwrap_err().kind(),
            std::io::ErrorKind::ConnectionRefused
        );
    }
    let run = weir.finish();
    for ip in addresses(db) {
        let flow = run.flow(|flow| has_port(flow, "udp", 9) && flow["server"]["ip"] == ip.to_string());
        assert_eq!((number(&flow["icmp_errors"]), text(&flow["state"])), (1, "new"), "{flow}");
    }
}

#[test]
fn root_sctp_frames() {
    require_root!();
    let topology = Topology::with_containers(&["web", "db"]);
    let web = topology.container("web").namespace();
    let weir = Weir::observe(topology.host(), &[]);
    for (source, destination) in [("10.99.0.2", "10.99.0.3"), ("fd99::2", "fd99::3")] {
        // One INIT chunk; what the other end thinks of it does not matter.
        let init = [1, 0, 0, 20, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1];
        let frame = Frame::between(source, destination).sctp(7000, 7001).payload(&init).build();
        traffic::send_frame(web, "eth0", &frame);
        let record =
            weir.wait_for_record(|record| has_port(record, "sctp", 7000) && record["client"]["ip"] == source);
        assert_eq!((&record["server"]["ip"], &record["server"]["port"]), (&destination.into(), &7001.into()));
        assert_eq!(record["sent_bytes"], frame.len(), "{record}");
    }
}

#[test]
fn root_sctp_connection() {
    require_root!();
    // SAFETY: no pointers; the descriptor is closed at once.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP) };
    if socket < 0 {
        let _ = writeln!(std::io::stderr(), "SKIPPED (this kernel has no SCTP): root_sctp_connection");
        return;
    }
    // SAFETY: it is open and ours.
    unsafe { libc::close(socket) };
    let topology = Topology::with_containers(&["web", "db"]);
    let (web, db) = (topology.container("web"), topology.container("db"));
    let weir = Weir::observe(topology.host(), &[]);
    let mut socat = db.namespace().command("socat");
    let server = Daemon::start("socat", socat.args(["-u", "SCTP-LISTEN:7001", "-"]));
    wait_until(LIMIT, "the SCTP server listens", || {
        let endpoints = || std::fs::read_to_string("/proc/thread-self/net/sctp/eps").unwrap();
        db.namespace().enter(endpoints).contains(" 7001 ")
    });
    let client = format!("echo over SCTP | socat -u - SCTP:{}:7001", db.ipv4());
    web.namespace().run("sh", &["-c", &client]);
    server.wait_for_line(Stream::Out, LIMIT, |line| line == "over SCTP");
    let run = weir.finish();
    let flow = run.flow(|flow| has_port(flow, "sctp", 7001));
    assert_between_web_and_db(flow, &topology, db.ipv4().into());
    // The association is made in four packets, two each way.
    assert!(number(&flow["sent_packets"]) > 2 && number(&flow["received_packets"]) > 2, "{flow}");
}

/// Frames that no socket sends, as the kernel delivers them to the hook.
#[test]
fn root_odd_headers() {
    require_root!();
    let topology = Topology::with_containers(&["web", "db"]);
    let web: &Namespace = topology.container("web").namespace();
    let weir = Weir::observe(topology.host(), &[]);
    let v4 = || Frame::between("10.99.0.2", "10.99.0.3");
    let v6 = || Frame::between("fd99::2", "fd99::3");
    let frames = [
        (1001, v4().vlan(7).udp(1001, 9)),
        (1002, v6().service_vlan(7).vlan(8).udp(1002, 9)),
        (1003, v4().ipv4_options(&[1, 1, 1, 0]).udp(1003, 9)),
        (
            1004,
            v6().extension(protocol::HOP_BY_HOP, &[1, 4])
                .extension(protocol::DESTINATION_OPTIONS, &[1, 4])
                .udp(1004, 9),
        ),
    ];
    for (_, frame) in &frames {
        traffic::send_frame(web, "eth0", &frame.build());
    }
    // Two pieces of one datagram, the later one without ports.
    for ends in [v4, v6] as [fn() -> Frame; 2] {
        let piece = |offset, more| ends().udp(1005, 9).payload(&[0; 64]).fragment(77, offset, more).build();
        traffic::send_frame(web, "eth0", &piece(0, true));
        traffic::send_frame(web, "eth0", &piece(72, false));
    }
    // A later piece of nothing.
    traffic::send_frame(web, "eth0", &v4().udp(1006, 9).payload(&[0; 64]).fragment(78, 72, false).build());
    // And an ethertype that is not IP.
    traffic::send_frame(web, "eth0", &weir_testkit::packet::other(&[], 0x88b5, &[0; 50]));
    traffic::ping(web, topology.container("db").ipv4(), 1, 1);
    let run = weir.finish();

    for (port, _) in frames {
        let flow = run.flow(|flow| has_port(flow, "udp", port));
        assert_eq!((number(&flow["sent_packets"]), text(&flow["state"])), (1, "new"), "{flow}");
    }
    for source in ["10.99.0.2", "fd99::2"] {
        let flow = run.flow(|flow| has_port(flow, "udp", 1005) && flow["client"]["ip"] == source);
        assert_eq!(flow["sent_packets"], 2, "{flow}");
    }
    // The bridge carries frames to unknown addresses to the other port too, so
    // each may be counted at two hooks.
    let lost = run.summary["lost"].as_object().expect("an object");
    assert_eq!(lost.keys().collect::<Vec<_>>(), ["fragment_unjoined"], "{}", run.summary);
    assert!(number(&run.summary["not_flows"]["non_ip"]) >= 1, "{}", run.summary);
}
