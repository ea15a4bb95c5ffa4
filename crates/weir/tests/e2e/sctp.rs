//! SCTP to another port: its checksum covers the ports, and either stands in the packet or
//! waits for a device.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use rustix::net::sockopt::{Timeout, set_socket_reuseaddr, set_socket_timeout};
use rustix::net::{AddressFamily, SocketType, bind, connect, ipproto, listen, socket};
use weir_testkit::packet::sctp_checksum;
use weir_testkit::traffic::EchoServer;
use weir_testkit::{Namespace, require_root, uninterrupted};

use crate::redirect::Host;
use crate::volume::addresses;
use crate::weir::{LIMIT, number};

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 }
}

/// Whether the kernel has SCTP; says so if not.
fn kernel_has_sctp(test: &str) -> bool {
    let has = socket(AddressFamily::INET, SocketType::STREAM, Some(ipproto::SCTP)).is_ok();
    if !has {
        let _ = writeln!(std::io::stderr(), "SKIPPED (this kernel has no SCTP): {test}");
    }
    has
}

/// A socket that sends and gets whole SCTP packets, without a kernel that knows the protocol.
fn raw(namespace: &Namespace, address: IpAddr) -> UdpSocket {
    namespace.enter(|| {
        let socket = socket(family(address), SocketType::RAW, Some(ipproto::SCTP)).unwrap();
        bind(&socket, &SocketAddr::new(address, 0)).unwrap();
        set_socket_timeout(&socket, Timeout::Recv, Some(LIMIT)).unwrap();
        UdpSocket::from(socket)
    })
}

/// An SCTP packet of `bytes` bytes with its checksum.
fn packet(source: u16, destination: u16, bytes: usize) -> Vec<u8> {
    let mut packet: Vec<u8> =
        (0..bytes as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    packet[..2].copy_from_slice(&source.to_be_bytes());
    packet[2..4].copy_from_slice(&destination.to_be_bytes());
    packet[8..12].fill(0);
    let checksum = sctp_checksum(&packet);
    packet[8..12].copy_from_slice(&checksum);
    packet
}

/// Sends one and waits until `expected` arrives. A kernel that knows SCTP may answer, too.
#[track_caller]
fn arrives(from: &UdpSocket, to: (IpAddr, &UdpSocket), sent: &[u8], expected: &[u8]) {
    from.send_to(sent, SocketAddr::new(to.0, 0)).unwrap();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let bytes =
            uninterrupted(|| to.1.recv(&mut buffer)).unwrap_or_else(|e| panic!("{} bytes: {e}", sent.len()));
        // IPv4's header comes along.
        let header = if to.0.is_ipv4() { usize::from(buffer[0] & 15) * 4 } else { 0 };
        let got = &buffer[header..bytes];
        if got.len() == expected.len() && got[..4] == expected[..4] {
            assert!(got == expected, "{} bytes arrive as others", sent.len());
            return;
        }
    }
}

/// As large as IP has them: their checksums are what the whole packets' are.
#[test]
fn root_sctp_packets_of_any_size_to_another_port() {
    require_root!();
    let host = Host::new(&["web", "api", "client"]);
    for name in ["web", "api", "client"] {
        let veth = host.topology.container(name).host_veth();
        host.topology.host().ip_batch(&format!("link set {veth} mtu 65535\n"));
        host.namespace(name).ip_batch("link set eth0 mtu 65535\n");
    }
    let to = format!("{}:80", host.name("api"));
    host.redirects(&["add", "--protocol", "sctp", &format!("{}:8080", host.name("web")), &to]);
    let ends = ["client", "web", "api"].map(|name| addresses(host.topology.container(name)));
    for version in 0..2 {
        let [client, web, api] = ends.map(|addresses| addresses[version]);
        let (asking, serving) = (raw(host.namespace("client"), client), raw(host.namespace("api"), api));
        let headers = if client.is_ipv4() { 20 } else { 40 };
        for bytes in [12, 13, 15, 16, 17, 100, 255, 256, 1480, 4095, 4096, 9001, 40_000, 65_535 - headers] {
            arrives(&asking, (web, &serving), &packet(40_000, 8080, bytes), &packet(40_000, 80, bytes));
            arrives(&serving, (client, &asking), &packet(80, 40_000, bytes), &packet(8080, 40_000, bytes));
        }
    }
    assert_eq!(host.rules()[0]["hits"], 2);
}

/// A server of one-to-one associations, which are used as TCP's connections are. At one
/// address: its others it would tell its clients, in chunks that nobody translates.
fn echo_server(namespace: &Namespace, address: SocketAddr) -> EchoServer {
    let listener = namespace.enter(|| {
        let socket = socket(family(address.ip()), SocketType::STREAM, Some(ipproto::SCTP)).unwrap();
        bind(&socket, &address).unwrap();
        listen(&socket, 16).unwrap();
        TcpListener::from(socket)
    });
    EchoServer::at(listener)
}

fn associate(namespace: &Namespace, own: SocketAddr, asked: SocketAddr) -> TcpStream {
    namespace.enter(|| {
        let socket = socket(family(own.ip()), SocketType::STREAM, Some(ipproto::SCTP)).unwrap();
        set_socket_reuseaddr(&socket, true).unwrap();
        for direction in [Timeout::Send, Timeout::Recv] {
            set_socket_timeout(&socket, direction, Some(LIMIT)).unwrap();
        }
        bind(&socket, &own).unwrap();
        connect(&socket, &asked).unwrap_or_else(|error| panic!("{asked} from {own}: {error}"));
        TcpStream::from(socket)
    })
}

/// Sends so many bytes, and gets them back as they were.
#[track_caller]
fn exchange(stream: &mut TcpStream, bytes: usize) {
    let mut piece: Vec<u8> = (0..16_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut answer = vec![0; piece.len()];
    for count in 0..bytes.div_ceil(piece.len()) {
        piece[..8].copy_from_slice(&count.to_le_bytes());
        stream.write_all(&piece).unwrap();
        stream.read_exact(&mut answer).unwrap();
        assert!(answer == piece, "piece {count} comes back as another");
    }
}

/// Packets that SCTP has dropped in this namespace for their checksum.
fn wrong_checksums(namespace: &Namespace) -> u64 {
    let counters = namespace.enter(|| std::fs::read_to_string("/proc/thread-self/net/sctp/snmp")).unwrap();
    let counter = counters.lines().find_map(|line| line.strip_prefix("SctpChecksumErrors"));
    counter.expect("SCTP counts them").trim().parse().unwrap()
}

/// One with either state of checksums: veths complete them, or those who send do.
#[test]
fn root_sctp_associations_to_another_port() {
    require_root!();
    if !kernel_has_sctp("root_sctp_associations_to_another_port") {
        return;
    }
    const BYTES: usize = 400_000;
    const NAMES: [&str; 3] = ["web", "api", "client"];
    for offload in [true, false] {
        let host = Host::new(&NAMES);
        for name in NAMES {
            host.namespace(name).set_offloads("eth0", &["tx-checksum-sctp"], offload);
        }
        let what = |name: &str, port: u16| format!("{}:{port}", host.name(name));
        let add = |what: &str, to: &str| host.redirects(&["add", "--protocol", "sctp", what, to]);
        add(&what("web", 8080), ":80");
        add(&format!("{}:9000-9009", host.name("web")), &format!("{}:9100-9109", host.name("api")));
        // The client's own, by another's name.
        add(&what("api", 7000), &what("client", 70));
        for version in 0..2 {
            let at =
                |name: &str, port| SocketAddr::new(addresses(host.topology.container(name))[version], port);
            let servers = [("web", 80), ("api", 9107), ("client", 70)];
            let _servers = servers.map(|(name, port)| echo_server(host.namespace(name), at(name, port)));
            // Direct and redirected from one port, which the server would take for the same.
            let mut streams = [at("web", 80), at("web", 8080), at("web", 9007), at("api", 7000)]
                .map(|asked| associate(host.namespace("client"), at("client", 20_000), asked));
            for stream in &mut streams {
                exchange(stream, BYTES);
                assert_eq!(stream.peer_addr().unwrap().ip().is_ipv4(), version == 0);
            }
            // The host itself asks: its bridge has another way, and so has its checksum.
            let gateway = [[10, 99, 0, 1].into(), "fd99::1".parse::<IpAddr>().unwrap()][version];
            let own = SocketAddr::new(gateway, 20_000);
            exchange(&mut associate(host.topology.host(), own, at("web", 8080)), BYTES);
        }
        for namespace in NAMES.map(|name| host.namespace(name)).into_iter().chain([host.topology.host()]) {
            assert_eq!(wrong_checksums(namespace), 0, "offload {offload}, in {}", namespace.name());
        }
        let hits: Vec<u64> = host.rules().iter().map(|rule| number(&rule["hits"])).collect();
        assert_eq!(hits, [4, 2, 2], "offload {offload}");
    }
}
