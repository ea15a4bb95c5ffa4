//! Clients on another machine, which come in by the host's uplink: by routes to a container's own address, and by a
//! published port as Docker makes it (a rule of the host's that sends a port of its own to a container's).

use std::io::{ErrorKind, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::process::Stdio;

use serde_json::Value;
use weir_testkit::traffic::{self, EchoServer};
use weir_testkit::{Namespace, Topology, require_root, uninterrupted};

use crate::redirect::Host;
use crate::volume::{addresses, upload};
use crate::ways::{behind_a_router, connect_from, download, knows};
use crate::weir::{LIMIT, Weir, at_interface, number, text};

/// `web` on one bridge, `api` on the other, and the world beyond the uplink.
fn routed() -> Host {
    let mut topology = Topology::with_two_bridges();
    topology.add_container("web");
    topology.add_container_on_second_bridge("api");
    topology.world();
    Host::of(topology)
}

pub(crate) fn of_version(version: usize, v4: &str, v6: &str) -> IpAddr {
    [v4, v6][version].parse().unwrap()
}

/// The same bytes come back, over all of these connections at once.
#[track_caller]
pub(crate) fn exchange_all(streams: &mut [std::net::TcpStream]) {
    for stream in streams {
        traffic::exchange(stream, 30_000);
    }
}

/// Four connections from one port, three of which would be one at the server's: each keeps to itself. Whoever looks at
/// the uplink sees what the clients see, and the weir that redirects sees both.
#[test]
fn root_clients_outside_are_redirected_and_seen_at_the_uplink() {
    require_root!();
    let host = routed();
    let (web, api) = (host.topology.container("web"), host.topology.container("api"));
    let _servers = [web, api]
        .map(|one| addresses(one).map(|ip| EchoServer::tcp_at(one.namespace(), SocketAddr::new(ip, 80))));
    let run = host.run();
    let target = format!("{}:80", host.name("api"));
    host.redirects(&["add", "--name", "port", &format!("{}:8080", host.name("web")), ":80"]);
    host.redirects(&["add", "--name", "other", &format!("{}:8081", host.name("web")), &target]);
    host.redirects(&["add", "--name", "v4", "10.99.0.77:80", &host.name("web")]);
    host.redirects(&["add", "--name", "v6", "[fd99::77]:80", &host.name("web")]);
    let inside = Weir::start(&mut host.weir(&["observe", "-o", "jsonl", "--protocol", "tcp"]));
    let args = ["observe", "-o", "jsonl", "--protocol", "tcp", "--interface", "uplink", "--engine", "none"];
    let uplink = Weir::start(&mut host.weir(&args));

    let web = addresses(host.topology.container("web"));
    for (version, web) in web.into_iter().enumerate() {
        let virtual_address = of_version(version, "10.99.0.77", "fd99::77");
        let asked = [(web, 80), (web, 8080), (web, 8081), (virtual_address, 80)];
        let outside = host.topology.world();
        let mut streams = asked.map(|(ip, port)| connect_from(outside, 20_000, SocketAddr::new(ip, port)));
        exchange_all(&mut streams);
        streams.reverse();
        exchange_all(&mut streams);
        drop(streams);
    }
    let closed = |weir: &Weir| {
        weir_testkit::wait_until(LIMIT, "eight ends", || {
            let closed = |line: &String| line.contains("\"close\"");
            weir.daemon.stdout().iter().filter(|line| closed(line)).count() == 8
        });
    };
    closed(&inside);
    closed(&uplink);
    let (inside, uplink) = (inside.finish(), uplink.finish());
    let all = |_: &Value| true;
    assert_eq!(uplink.flows(all).len(), 8, "one row a connection:\n{}", uplink.lines());
    assert_eq!(inside.flows(all).len(), 8, "one row a connection:\n{}", inside.lines());
    for seen in uplink.flows(all) {
        let same = |flow: &Value| {
            ["client", "server"]
                .iter()
                .all(|end| (&flow[end]["ip"], &flow[end]["port"]) == (&seen[end]["ip"], &seen[end]["port"]))
        };
        let told = inside.flow(same);
        for count in ["sent_bytes", "received_bytes", "sent_packets", "received_packets"] {
            assert_eq!(told[count], seen[count], "{told}\n{seen}");
        }
        assert!(number(&seen["sent_bytes"]) > 60_000 && seen["translated"].is_null(), "{seen}");
        assert_eq!(at_interface(seen, "uplink")["ingress_packets"], seen["sent_packets"], "{seen}");
        let (ip, port) = (text(&told["server"]["ip"]), number(&told["server"]["port"]));
        let rule = match (port, ip.ends_with("77")) {
            (8080, _) => "port",
            (8081, _) => "other",
            (80, true) if ip.contains('.') => "v4",
            (80, true) => "v6",
            _ => continue,
        };
        assert_eq!((&told["rule"], &told["verdict"]), (&rule.into(), &"redirected".into()), "{told}");
        assert_eq!(told["translated"]["server"]["port"], 80, "{told}");
        let name = if rule.starts_with('v') { "virtual" } else { "" };
        assert_eq!(told["server"]["name"].as_str().unwrap_or_default(), name, "{told}");
        assert_eq!(told["translated"]["client"]["ip"], told["client"]["ip"], "{told}");
    }
    assert_eq!(uplink.summary["lost"], serde_json::json!({}));
    assert_eq!(inside.summary["lost"], serde_json::json!({}));
    drop(run);
}

/// Much, and datagrams, and what is refused behind the redirect.
#[test]
fn root_clients_outside_send_much_and_datagrams() {
    require_root!();
    let host = routed();
    let run = host.run();
    for (version, web) in addresses(host.topology.container("web")).into_iter().enumerate() {
        let api = addresses(host.topology.container("api"))[version];
        let datagrams = EchoServer::udp(host.namespace("web"), web);
        let elsewhere = EchoServer::udp(host.namespace("api"), api);
        let at = |port| SocketAddr::new(web, port);
        let add = |asked: SocketAddr, target: &str, protocol: &str| {
            host.redirects(&["add", "--protocol", protocol, &asked.to_string(), target]);
        };
        add(at(8080), ":80", "tcp");
        add(at(8081), &SocketAddr::new(api, 80).to_string(), "tcp");
        add(at(53), &format!(":{}", datagrams.address().port()), "udp");
        add(at(54), &elsewhere.address().to_string(), "udp");
        add(at(55), ":9", "udp");
        for (asked, server, ip) in [(8080, "web", web), (8081, "api", api)] {
            let listener =
                host.namespace(server).enter(|| TcpListener::bind(SocketAddr::new(ip, 80))).unwrap();
            upload(host.topology.world(), at(asked), &listener, 1 << 24);
        }
        // One datagram whole, one in fragments.
        for bytes in [100, 4000] {
            traffic::udp_echo(host.topology.world(), at(53), 5, bytes);
            traffic::udp_echo(host.topology.world(), at(54), 5, bytes);
        }
        // Nobody listens there: the error is about what was asked.
        let any: IpAddr = of_version(version, "0.0.0.0", "::");
        let socket = host.topology.world().enter(|| UdpSocket::bind((any, 0))).unwrap();
        socket.connect(at(55)).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket.send(b"anybody?").unwrap();
        let error = uninterrupted(|| socket.recv(&mut [0; 8])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
    }
    drop(run);
}

/// Sends ports of the host's own to ports of a container, as Docker does for `--publish`: whoever comes, from
/// outside, from another bridge or from the host itself.
pub(crate) fn publish(host: &Host, container: &str, ports: &[(&str, u16, u16)]) {
    let mut rules = String::new();
    for (family, ip) in ["ip", "ip6"].into_iter().zip(addresses(host.topology.container(container))) {
        let to = |port| SocketAddr::new(ip, port);
        let lines: String = ports
            .iter()
            .map(|(protocol, own, port)| {
                format!("fib daddr type local {protocol} dport {own} dnat to {}\n", to(*port))
            })
            .collect();
        for hook in ["prerouting", "output"] {
            rules += &format!(
                "table {family} published {{\n chain {hook} {{\n type nat hook {hook} priority -100\n{lines} }}\n}}\n"
            );
        }
    }
    nft(host, &rules);
}

/// Rules of the host's own.
#[track_caller]
pub(crate) fn nft(host: &Host, rules: &str) {
    let mut nft = host.topology.host().command("nft");
    let mut nft = nft.args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    nft.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    assert!(nft.wait().unwrap().success(), "{rules}");
}

/// The host's rule comes first, weir's afterwards, and the way back is the same in reverse.
#[test]
fn root_a_published_port_may_lead_to_a_redirected_one() {
    require_root!();
    let host = routed();
    let run = host.run();
    let datagrams = EchoServer::udp(host.namespace("web"), [0; 4]);
    let datagrams_v6 = EchoServer::udp(host.namespace("web"), [0u16; 8]);
    publish(&host, "web", &[("tcp", 8088, 8080), ("tcp", 8089, 8081), ("tcp", 8090, 80), ("udp", 5353, 53)]);
    let what = |port: u16| format!("{}:{port}", host.name("web"));
    host.redirects(&["add", "--name", "port", &what(8080), ":80"]);
    host.redirects(&["add", "--name", "other", &what(8081), &format!("{}:80", host.name("api"))]);
    for version in [0, 1] {
        let web = addresses(host.topology.container("web"))[version];
        let api = addresses(host.topology.container("api"))[version];
        let server = if version == 0 { &datagrams } else { &datagrams_v6 };
        let asked = SocketAddr::new(web, 53).to_string();
        host.redirects(&["add", "--protocol", "udp", &asked, &format!(":{}", server.address().port())]);
        let uplink: IpAddr = [Topology::UPLINK_IPV4.into(), Topology::UPLINK_IPV6.into()][version];
        let world: IpAddr = [Topology::WORLD_IPV4.into(), Topology::WORLD_IPV6.into()][version];

        // The server sees the client itself, and the client whom it asked.
        for (published, server, ip) in [(8088, "web", web), (8089, "api", api)] {
            let at = SocketAddr::new(ip, 80);
            let listener = host.namespace(server).enter(|| TcpListener::bind(at)).unwrap();
            let asked = SocketAddr::new(uplink, published);
            let stream = traffic::connect(host.topology.world(), asked);
            let (accepted, peer) = listener.accept().unwrap();
            assert_eq!((peer, stream.peer_addr().unwrap()), (stream.local_addr().unwrap(), asked));
            assert_eq!(peer.ip(), world);
            drop((stream, accepted));
            upload(host.topology.world(), asked, &listener, 1 << 24);
        }
        let _servers = [("web", web), ("api", api)]
            .map(|(name, ip)| EchoServer::tcp_at(host.namespace(name), SocketAddr::new(ip, 80)));
        // One client's port, to the server as it is and redirected to it.
        let mut streams = [8088, 8090]
            .map(|port| connect_from(host.topology.world(), 20_000, SocketAddr::new(uplink, port)));
        exchange_all(&mut streams);
        drop(streams);
        traffic::udp_echo(host.topology.world(), SocketAddr::new(uplink, 5353), 5, 100);
        traffic::udp_echo(host.topology.world(), SocketAddr::new(uplink, 5353), 5, 4000);
        // The same door for a container of another bridge, and for the host.
        let second: IpAddr = of_version(version, "10.98.0.1", "fd98::1");
        for client in [host.namespace("api"), host.topology.host()] {
            traffic::tcp_echo(client, SocketAddr::new(second, 8088), 3, 10_000);
            traffic::udp_echo(client, SocketAddr::new(second, 5353), 3, 100);
        }
    }
    let rules = host.rules();
    let named = |name: &str| rules.iter().find(|rule| rule["name"] == name).unwrap();
    assert_eq!((&named("port")["hits"], &named("other")["hits"]), (&18.into(), &4.into()), "{rules:?}");
    drop(run);
}

/// A router beyond the uplink tells of its narrow cable: two translations later the server knows of it.
#[test]
fn root_a_router_before_the_client_of_a_published_port_tells_the_server_its_mtu() {
    require_root!();
    let host = routed();
    let beyond: Namespace = behind_a_router(&host);
    publish(&host, "web", &[("tcp", 8088, 8080), ("tcp", 8089, 8081)]);
    let what = |port: u16| format!("{}:{port}", host.name("web"));
    host.redirects(&["add", "--name", "port", &what(8080), ":80"]);
    host.redirects(&["add", "--name", "other", &what(8081), &format!("{}:80", host.name("api"))]);
    for version in [0, 1] {
        let uplink: IpAddr = [Topology::UPLINK_IPV4.into(), Topology::UPLINK_IPV6.into()][version];
        for (published, server) in [(8088, "web"), (8089, "api")] {
            let ip = addresses(host.topology.container(server))[version];
            let at = SocketAddr::new(ip, 80);
            let listener = host.namespace(server).enter(|| TcpListener::bind(at)).unwrap();
            download(&beyond, SocketAddr::new(uplink, published), &listener, 1 << 20);
            let client = of_version(version, "198.18.0.9", "fd96::9");
            assert!(knows(host.namespace(server), client), "{server}, port {published} of {uplink}");
        }
    }
}
