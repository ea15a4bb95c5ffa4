//! A redirected connection beside a direct one to the same server, and one that
//! goes a way on which large packets do not fit.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use rustix::io::Errno;
use rustix::net::sockopt::{
    Timeout, set_ip_ttl, set_ipv6_unicast_hops, set_socket_reuseaddr, set_socket_timeout,
};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use weir_testkit::traffic::EchoServer;
use weir_testkit::{Namespace, Topology, require_root, uninterrupted};

use crate::redirect::Host;
use crate::volume::{addresses, upload};
use crate::weir::LIMIT;

/// A connection from this port, which others with another server may have too.
pub(crate) fn connect_from(client: &Namespace, port: u16, asked: SocketAddr) -> TcpStream {
    let family = if asked.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let any: IpAddr = if asked.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
    let stream = client.enter(|| {
        let socket = socket(family, SocketType::STREAM, None).unwrap();
        set_socket_reuseaddr(&socket, true).unwrap();
        set_socket_timeout(&socket, Timeout::Send, Some(LIMIT)).unwrap();
        bind(&socket, &SocketAddr::new(any, port)).unwrap();
        connect(&socket, &asked).unwrap_or_else(|error| panic!("{asked} from port {port}: {error}"));
        TcpStream::from(socket)
    });
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

/// Each client's port is used twice, for the server's own port and for one that is redirected to it:
/// without another port for one of the two, the server would take them for one connection.
#[test]
fn root_direct_and_redirected_connections_at_once() {
    require_root!();
    const PORTS: std::ops::Range<u16> = 20_000..20_100;
    let host = Host::new(&["web", "api", "client"]);
    let client = host.namespace("client");
    let api = host.topology.container("api");
    let _servers = addresses(api).map(|ip| EchoServer::tcp_at(api.namespace(), SocketAddr::new(ip, 80)));
    // From another port of the same container, and from another container.
    host.redirects(&["add", "--name", "port", &format!("{}:8080", host.name("api")), ":80"]);
    let to = format!("{}:80", host.name("api"));
    host.redirects(&["add", "--name", "container", &format!("{}:8080", host.name("web")), &to]);
    let at = |name: &str, port| addresses(host.topology.container(name)).map(|ip| SocketAddr::new(ip, port));
    let (direct, port, container) = (at("api", 80), at("api", 8080), at("web", 8080));
    let mut streams = Vec::new();
    for number in PORTS {
        let version = usize::from(number) % 2;
        let mut asked = [direct, port, container].map(|addresses| addresses[version]);
        // Each of the three comes first at times.
        asked.rotate_left(usize::from(number) / 2 % 3);
        for asked in asked {
            streams.push((asked, number, connect_from(client, number, asked)));
        }
    }
    for round in 0..2 {
        let sent = |asked: SocketAddr, number: u16| format!("{round}: {asked} from {number}");
        for (asked, number, stream) in &mut streams {
            stream.write_all(sent(*asked, *number).as_bytes()).unwrap();
        }
        for (asked, number, stream) in &mut streams {
            let expected = sent(*asked, *number);
            let mut answer = vec![0; expected.len()];
            stream.read_exact(&mut answer).unwrap_or_else(|error| panic!("{expected}: {error}"));
            assert_eq!(String::from_utf8_lossy(&answer), expected);
        }
    }
    for rule in host.rules() {
        let connections = PORTS.len();
        assert_eq!((&rule["hits"], &rule["live_connections"]), (&connections.into(), &connections.into()));
    }
}

/// Datagrams of one socket that is not connected: it alone sees from where it is answered.
#[test]
fn root_datagrams_are_answered_from_the_port_that_was_asked() {
    require_root!();
    let host = Host::new(&["api", "client"]);
    let api = host.topology.container("api");
    for ip in addresses(api) {
        let server = EchoServer::udp(api.namespace(), ip);
        let asked = SocketAddr::new(ip, 53);
        let name = if ip.is_ipv4() { "v4" } else { "v6" };
        let target = format!(":{}", server.address().port());
        host.redirects(&["add", "--name", name, "--protocol", "udp", &asked.to_string(), &target]);
        let any: IpAddr = if ip.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
        let sockets: Vec<_> =
            host.namespace("client").enter(|| (0..50).map(|_| UdpSocket::bind((any, 0)).unwrap()).collect());
        for (number, socket) in sockets.iter().enumerate() {
            socket.set_read_timeout(Some(LIMIT)).unwrap();
            let mut both = [asked, server.address()];
            both.rotate_left(number % 2);
            for round in 0..4 {
                let to = both[round % 2];
                let sent = format!("{number}: {to} {round}");
                socket.send_to(sent.as_bytes(), to).unwrap();
                let mut answer = [0; 100];
                let (bytes, from) = uninterrupted(|| socket.recv_from(&mut answer)).unwrap();
                assert_eq!((&*String::from_utf8_lossy(&answer[..bytes]), from), (&*sent, to));
            }
        }
    }
}

/// What the narrow part of the way below takes.
const NARROW_BYTES: u32 = 1300;

/// A machine behind the one in the world, with 198.18.0.9 and fd96::9. Both ends of its
/// cable take 1500 bytes as far as it knows: only the router in between says that it is less.
pub(crate) fn behind_a_router(host: &Host) -> Namespace {
    let beyond = Namespace::new("beyond");
    for key in ["accept_dad", "dad_transmits"] {
        beyond.sysctl(&format!("ipv6/conf/default/{key}"), "0");
    }
    let router = host.topology.world();
    router.sysctl("ipv4/ip_forward", "1");
    router.sysctl("ipv6/conf/all/forwarding", "1");
    router.ip_batch(&format!(
        "address add fe80::7/64 dev eth0 nodad\n\
         link add inner type veth peer name eth0 netns {}\n\
         link set inner mtu {NARROW_BYTES}\n\
         link set inner up\n\
         address add 198.18.0.1/24 dev inner\n\
         address add fd96::1/64 dev inner nodad\n\
         address add fe80::8/64 dev inner nodad\n",
        beyond.name()
    ));
    beyond.ip_batch(
        "link set eth0 up\n\
         address add 198.18.0.9/24 dev eth0\n\
         address add fd96::9/64 dev eth0 nodad\n\
         route add default via 198.18.0.1\n\
         route add ::/0 via fd96::1\n",
    );
    let (v4, v6) = (Topology::WORLD_IPV4, Topology::WORLD_IPV6);
    let routes = format!("route add 198.18.0.0/24 via {v4}\nroute add fd96::/64 via {v6}\n");
    host.topology.host().ip_batch(&routes);
    beyond
}

/// Whether this machine has been told of the narrow part on its way to that address.
pub(crate) fn knows(namespace: &Namespace, address: IpAddr) -> bool {
    namespace.run("ip", &["route", "get", &address.to_string()]).contains(&format!(" mtu {NARROW_BYTES}"))
}

/// The router's error quotes what the target was sent; the client is told of what it sent.
#[test]
fn root_a_router_before_the_target_tells_the_client_its_mtu() {
    require_root!();
    let host = Host::new(&["web", "client"]);
    let beyond = behind_a_router(&host);
    let client = host.namespace("client");
    let targets: [IpAddr; 2] = ["198.18.0.9", "fd96::9"].map(|ip| ip.parse().unwrap());
    for (web, target) in addresses(host.topology.container("web")).into_iter().zip(targets) {
        let (asked, target) = (SocketAddr::new(web, 8080), SocketAddr::new(target, 80));
        host.redirects(&["add", &asked.to_string(), &target.to_string()]);
        let listener = beyond.enter(|| TcpListener::bind(target)).unwrap();
        upload(client, asked, &listener, 1 << 20);
        assert!(knows(client, web), "{asked}");
        assert!(!knows(client, target.ip()), "it was never asked");
    }
}

/// As `traceroute` does it by TCP: each router on the way answers in turn. What it quotes of the SYN is what the
/// client sent; else the client would not take it for an answer.
#[test]
fn root_every_router_on_the_way_can_be_found() {
    require_root!();
    let host = Host::new(&["web", "client"]);
    let beyond = behind_a_router(&host);
    let targets: [IpAddr; 2] = ["198.18.0.9", "fd96::9"].map(|ip| ip.parse().unwrap());
    for (web, target) in addresses(host.topology.container("web")).into_iter().zip(targets) {
        let (asked, target) = (SocketAddr::new(web, 8080), SocketAddr::new(target, 80));
        host.redirects(&["add", &asked.to_string(), &target.to_string()]);
        let _listener = beyond.enter(|| TcpListener::bind(target)).unwrap();
        let connect_over = |hops: u8| {
            host.namespace("client").enter(|| {
                let family = if asked.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
                let socket = socket(family, SocketType::STREAM, None).unwrap();
                match asked.is_ipv4() {
                    true => set_ip_ttl(&socket, hops.into()).unwrap(),
                    false => set_ipv6_unicast_hops(&socket, Some(hops)).unwrap(),
                }
                set_socket_timeout(&socket, Timeout::Send, Some(LIMIT)).unwrap();
                connect(&socket, &asked)
            })
        };
        // The host, and the router before the target.
        for hops in [1, 2] {
            assert_eq!(connect_over(hops), Err(Errno::HOSTUNREACH), "{asked} over {hops} hops");
        }
        assert_eq!(connect_over(3), Ok(()), "{asked}");
    }
}

/// The same about the answers: the error is sent to the address that the client asked, and
/// is for the server that answered in its name.
#[test]
fn root_a_router_before_the_client_tells_the_server_its_mtu() {
    require_root!();
    let host = Host::new(&["web", "api"]);
    let beyond = behind_a_router(&host);
    let clients: [IpAddr; 2] = ["198.18.0.9", "fd96::9"].map(|ip| ip.parse().unwrap());
    for server in ["web", "api"] {
        for version in [0, 1] {
            let web = addresses(host.topology.container("web"))[version];
            let ip = addresses(host.topology.container(server))[version];
            let asked = SocketAddr::new(web, if server == "web" { 8080 } else { 8081 });
            let target = SocketAddr::new(ip, 80);
            host.redirects(&["add", &asked.to_string(), &target.to_string()]);
            let listener = host.namespace(server).enter(|| TcpListener::bind(target)).unwrap();
            download(&beyond, asked, &listener, 1 << 20);
            assert!(knows(host.namespace(server), clients[version]), "{server}, for {asked}");
        }
    }
}

/// Gets so many bytes from the listener, which answers at `asked`.
#[track_caller]
pub(crate) fn download(client: &Namespace, asked: SocketAddr, listener: &TcpListener, bytes: u32) {
    let mut stream = weir_testkit::traffic::connect(client, asked);
    let (mut accepted, _) = listener.accept().unwrap();
    accepted.set_write_timeout(Some(LIMIT)).unwrap();
    let sent: Vec<u8> = (0..bytes).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut got = Vec::new();
    std::thread::scope(|scope| {
        let sent = &sent;
        scope.spawn(move || accepted.write_all(sent).unwrap());
        stream.read_to_end(&mut got).unwrap();
    });
    assert!(got == sent, "what came from {asked} is not what was sent");
}
