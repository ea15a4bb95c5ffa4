//! Targets on another machine, for clients that are no containers: the host itself, and others that come in by the
//! uplink, by routes and by a published port. The host masquerades and filters as Docker has it do.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use serde_json::Value;
use weir_testkit::engine::Engine;
use weir_testkit::traffic::{self, EchoServer};
use weir_testkit::{Bpffs, Counters, Daemon, Namespace, Stream, Topology, require_root, uninterrupted};

use crate::outside::{exchange_all, nft, of_version, publish};
use crate::redirect::Host;
use crate::volume::{addresses, upload};
use crate::ways::{behind_a_router, connect_from, download, knows};
use crate::weir::{LIMIT, Weir, command_with_state, number, text};

const WORLD: [IpAddr; 2] = [IpAddr::V4(Topology::WORLD_IPV4), IpAddr::V6(Topology::WORLD_IPV6)];
const UPLINK: [IpAddr; 2] = [IpAddr::V4(Topology::UPLINK_IPV4), IpAddr::V6(Topology::UPLINK_IPV6)];

/// `web` and `api` on a bridge, the world beyond the uplink, and the rules of Docker's `bridge` network: what a
/// container sends out is masqueraded, and what comes in must be an answer, or for a published port. Sources are
/// checked as strictly as Linux can.
fn docker_like() -> Host {
    let host = Host::new(&["web", "api"]);
    host.topology.world();
    host.topology.host().sysctl("ipv4/conf/all/rp_filter", "1");
    let rules = |family: &str, range: &str| {
        format!(
            "table {family} docker {{
               chain out {{
                 type nat hook postrouting priority 100
                 {family} saddr {range} oifname != br0 masquerade
               }}
               chain forward {{
                 type filter hook forward priority 0; policy drop
                 ct state established,related accept
                 ct status dnat accept
                 iifname br0 accept
               }}
             }}\n"
        )
    };
    nft(&host, &(rules("ip", "10.99.0.0/24") + &rules("ip6", "fd99::/64")));
    host
}

/// Lets others in by routes, too.
fn let_in(host: &Host) {
    nft(
        host,
        "add rule ip docker forward oifname br0 accept\nadd rule ip6 docker forward oifname br0 accept\n",
    );
}

/// The error that a datagram to a port of `asked` brings back.
#[track_caller]
fn refused(client: &Namespace, asked: SocketAddr) {
    let any = of_version(usize::from(asked.is_ipv6()), "0.0.0.0", "::");
    let socket = client.enter(|| UdpSocket::bind((any, 0))).unwrap();
    socket.connect(asked).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket.send(b"anybody?").unwrap();
    let error = uninterrupted(|| socket.recv(&mut [0; 8])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
}

/// The host asks: everything that a connection may need, and both sides in one row.
#[test]
fn root_the_host_reaches_a_target_outside() {
    require_root!();
    let host = docker_like();
    let run = host.run();
    let (here, world) = (host.topology.host(), host.topology.world());
    let observe = ["observe", "-o", "jsonl", "--verdict", "redirected", "--protocol", "tcp"];
    let observer = Weir::start(&mut host.weir(&observe));
    for (version, web) in addresses(host.topology.container("web")).into_iter().enumerate() {
        let server = SocketAddr::new(WORLD[version], 80);
        let datagrams = EchoServer::udp(world, WORLD[version]);
        let at = |port| SocketAddr::new(web, port);
        for (protocol, port, target) in [
            ("tcp", 8080, server),
            ("udp", 53, datagrams.address()),
            ("udp", 54, SocketAddr::new(WORLD[version], 9)),
        ] {
            host.redirects(&["add", "--protocol", protocol, &at(port).to_string(), &target.to_string()]);
        }
        let listener = world.enter(|| TcpListener::bind(server)).unwrap();
        let stream = traffic::connect(here, at(8080));
        let (accepted, peer) = listener.accept().unwrap();
        assert_eq!(peer.ip(), UPLINK[version], "masqueraded, as the container's own are");
        drop((stream, accepted));
        upload(here, at(8080), &listener, 1 << 24);
        download(here, at(8080), &listener, 1 << 20);
        // One datagram whole, one in fragments; and nobody there.
        traffic::udp_echo(here, at(53), 5, 100);
        traffic::udp_echo(here, at(53), 5, 4000);
        refused(here, at(54));
    }
    let closed = |weir: &Weir| {
        weir_testkit::wait_until(LIMIT, "six ends", || {
            weir.daemon.stdout().iter().filter(|line| line.contains("\"close\"")).count() == 6
        });
    };
    closed(&observer);
    let seen = observer.finish();
    let rows = seen.flows(|_| true);
    assert_eq!(rows.len(), 6, "one row a connection:\n{}", seen.lines());
    for row in rows {
        let version = usize::from(text(&row["server"]["ip"]).contains(':'));
        let web = addresses(host.topology.container("web"))[version].to_string();
        assert_eq!((text(&row["server"]["ip"]), number(&row["server"]["port"])), (&*web, 8080), "{row}");
        assert_eq!(text(&row["translated"]["client"]["ip"]), web, "{row}");
        let server = &row["translated"]["server"];
        assert_eq!(
            (text(&server["ip"]), number(&server["port"])),
            (&*WORLD[version].to_string(), 80),
            "{row}"
        );
        assert!(number(&row["received_packets"]) > 0, "{row}");
    }
    drop(run);
}

/// Segments of 64 kB as the host's stack makes them, which turn at the container's veth.
#[test]
fn root_much_goes_on_as_it_was_sent() {
    require_root!();
    let host = docker_like();
    for (version, web) in addresses(host.topology.container("web")).into_iter().enumerate() {
        let server = SocketAddr::new(WORLD[version], 80);
        host.redirects(&["add", &SocketAddr::new(web, 8080).to_string(), &server.to_string()]);
        let listener = host.topology.world().enter(|| TcpListener::bind(server)).unwrap();
        let before = Counters::of(host.topology.host(), "uplink");
        let veth = host.topology.counters("web");
        upload(host.topology.host(), SocketAddr::new(web, 8080), &listener, 1 << 27);
        let sent = Counters::of(host.topology.host(), "uplink") - before;
        let mean_bytes = sent.tx_bytes / sent.tx_packets;
        assert!(mean_bytes > 3000, "{mean_bytes} bytes a packet, {web}");
        // The container never sees any of it.
        let veth = host.topology.counters("web") - veth;
        assert!(veth.rx_bytes + veth.tx_bytes < 10_000, "{veth:?}");
    }
}

/// By routes, and by a published port; the container has the same to say to the same target meanwhile.
#[test]
fn root_clients_outside_reach_a_target_outside() {
    require_root!();
    let host = docker_like();
    let_in(&host);
    let beyond = behind_a_router(&host);
    let world = host.topology.world();
    publish(&host, "web", &[("tcp", 8088, 8080), ("tcp", 8089, 8081), ("udp", 5353, 53)]);
    for (version, web) in addresses(host.topology.container("web")).into_iter().enumerate() {
        let at = |port| SocketAddr::new(web, port);
        let far = of_version(version, "198.18.0.9", "fd96::9");
        // Each of the two machines is a client of the other one, and one of itself. Fragments of datagrams do not pass
        // the narrow cable.
        for (client, server, target, port, datagram_bytes) in [
            (world, &beyond, far, 80, 1000),
            (&beyond, world, WORLD[version], 81, 1000),
            (world, world, WORLD[version], 82, 4000),
        ] {
            let target = SocketAddr::new(target, port);
            let datagrams = EchoServer::udp(server, target.ip());
            let echo = EchoServer::tcp(server, target.ip());
            let rules =
                [("tcp", 8080, target), ("tcp", 8081, echo.address()), ("udp", 53, datagrams.address())];
            for (protocol, port, target) in rules {
                host.redirects(&["add", "--protocol", protocol, &at(port).to_string(), &target.to_string()]);
            }
            let published = |port| SocketAddr::new(UPLINK[version], port);
            let listener = server.enter(|| TcpListener::bind(target)).unwrap();
            for asked in [at(8080), published(8088)] {
                upload(client, asked, &listener, 1 << 22);
                // What is too large for the narrow cable is told to whoever sent it, wherever that is.
                download(client, asked, &listener, 1 << 20);
            }
            // Others than in the rounds before, whose ends clients remember.
            let from = 20_000 + 2 * port;
            let mut streams = vec![
                connect_from(client, from, at(8081)),
                connect_from(client, from + 1, published(8089)),
                connect_from(host.namespace("web"), from, echo.address()),
                connect_from(host.topology.host(), from, at(8081)),
                connect_from(host.namespace("api"), from, at(8081)),
            ];
            exchange_all(&mut streams);
            for (client, asked) in [(client, at(53)), (client, published(5353))] {
                traffic::udp_echo(client, asked, 5, datagram_bytes);
            }
            // Without the rules, open connections stay.
            host.redirects(&["remove", "--all"]);
            streams.reverse();
            exchange_all(&mut streams);
        }
    }
}

/// Beyond a narrow cable: the host, whose packets do not fit, is told of it by whom it asked.
#[test]
fn root_a_router_before_a_target_outside_tells_the_host_its_mtu() {
    require_root!();
    let host = docker_like();
    let beyond = behind_a_router(&host);
    for (version, web) in addresses(host.topology.container("web")).into_iter().enumerate() {
        let target = SocketAddr::new(of_version(version, "198.18.0.9", "fd96::9"), 80);
        let asked = SocketAddr::new(web, 8080);
        host.redirects(&["add", &asked.to_string(), &target.to_string()]);
        let listener = beyond.enter(|| TcpListener::bind(target)).unwrap();
        upload(host.topology.host(), asked, &listener, 1 << 20);
        assert!(knows(host.topology.host(), web), "{asked}");
        assert!(!knows(host.topology.host(), target.ip()), "it was never asked");
    }
}

/// Some connections stay on the host, others leave it, and each stays where it is.
#[test]
fn root_one_target_here_and_one_outside() {
    require_root!();
    let host = docker_like();
    let args = ["run", "--accelerate", "--engine", "none"];
    let mut run = Daemon::start("weir run", &mut host.weir(&args));
    run.wait_for_line(Stream::Err, LIMIT, |line| line.contains("answering at"));
    let observe = ["observe", "-o", "jsonl", "--verdict", "redirected"];
    let observer = Weir::start(&mut host.weir(&observe));
    let mut asked = Vec::new();
    let mut servers = Vec::new();
    // Of an address that somebody has, and of one that nobody has.
    for (version, api) in addresses(host.topology.container("api")).into_iter().enumerate() {
        let web = addresses(host.topology.container("web"))[version];
        let targets = [api, WORLD[version]].map(|ip| SocketAddr::new(ip, 80));
        servers.push(EchoServer::tcp_at(host.namespace("api"), targets[0]));
        servers.push(EchoServer::tcp_at(host.topology.world(), targets[1]));
        for (name, address) in [("web", web), ("nobody", of_version(version, "10.99.0.77", "fd99::77"))] {
            let at = SocketAddr::new(address, 8080);
            let target = targets.map(|target| target.to_string()).join(",");
            let from = if name == "web" { &["--from", "host"][..] } else { &[] };
            host.redirects(&[&["add", &at.to_string(), &target], from].concat());
            asked.push(at);
        }
    }
    for asked in &asked {
        traffic::tcp_echo(host.topology.host(), *asked, 40, 1000);
    }
    let all = 40 * asked.len();
    weir_testkit::wait_until(LIMIT, "all ends", || {
        observer.daemon.stdout().iter().filter(|line| line.contains("\"close\"")).count() == all
    });
    let seen = observer.finish();
    for asked in &asked {
        let to = |ips: [IpAddr; 2]| {
            let is_one = |row: &Value| {
                ips.iter().any(|ip| text(&row["translated"]["server"]["ip"]) == ip.to_string())
                    && text(&row["server"]["ip"]) == asked.ip().to_string()
            };
            seen.flows(is_one).len()
        };
        let (stayed, left) = (to(addresses(host.topology.container("api"))), to(WORLD));
        assert!(
            stayed + left == 40 && stayed > 5 && left > 5,
            "{asked}: {stayed} and {left}:\n{}",
            seen.lines()
        );
    }
    run.stop(libc::SIGTERM, LIMIT);
}

/// Docker's own rules, published port and proxy, on a way that they know nothing of.
#[test]
fn root_docker_a_published_port_leads_to_another_machine() {
    require_root!();
    let engine = Engine::start();
    let (bpffs, world) = (Bpffs::new(), Namespace::new("world"));
    // As `Topology::world`: a veth to another namespace would be a container's.
    engine.host().ip_batch(&format!(
        "link add uplink type veth peer name cable\nlink set uplink up\nlink set cable up\n\
         address add 203.0.113.1/24 dev uplink\n\
         link add outside link cable type macvlan mode bridge\nlink set outside netns {} name eth0\n",
        world.name()
    ));
    // It has no way back but to the host's own address.
    world.ip_batch("link set eth0 up\naddress add 203.0.113.7/24 dev eth0\n");
    engine.run("web", &["--publish", "8088:8080"], &["sleep", "1000"]);
    let socket = engine.socket().display().to_string();
    let weir = |args: &[&str]| command_with_state(engine.host(), &bpffs, args);
    let mut run = Daemon::start("weir run", &mut weir(&["run", "--engine", &socket]));
    run.wait_for_line(Stream::Err, LIMIT, |line| line.contains("answering at"));
    let server = EchoServer::tcp(&world, [203, 0, 113, 7]);
    let added = weir(&["redirect", "add", "web:8080", &server.address().to_string()]).output().unwrap();
    assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    let web = SocketAddr::new(engine.address("web", "bridge"), 8080);
    let published = |ip: [u8; 4]| SocketAddr::from((ip, 8088));
    for (client, asked) in [
        (engine.host(), web),
        (engine.host(), published([203, 0, 113, 1])),
        // By Docker's proxy.
        (engine.host(), published([127, 0, 0, 1])),
        (&world, published([203, 0, 113, 1])),
    ] {
        traffic::tcp_echo(client, asked, 3, 100_000);
    }
    run.stop(libc::SIGTERM, LIMIT);
}
