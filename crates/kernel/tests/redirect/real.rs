//! Real connections of real stacks, through the programs attached: what is written
//! comes back byte by byte, whoever asks and whichever way it goes.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use weir_core::redirect::{
    Compiled, CompiledMatch, CompiledRule, CompiledTarget, InterfacePlace, Place, RuleId, SLOTS, TargetId,
    VirtualAddress,
};
use weir_kernel::attach::{Attacher, Attachment, probe};
use weir_kernel::{Datapath, FlowTable, Options, Redirects};
use weir_testkit::traffic::{EchoServer, connect, ping, udp_echo};
use weir_testkit::{Container, Namespace, Topology, require_root, uninterrupted};

/// The port that clients ask for.
pub(crate) const ASKED: u16 = 8080;

/// A host whose containers' veths have the programs.
pub(crate) struct Host {
    pub(crate) topology: Topology,
    redirects: Redirects,
    table: FlowTable,
    _attachments: Vec<Attachment>,
    _datapath: Datapath,
    compiled: Compiled,
}

/// One redirect of everything that is sent to a port of an address.
pub(crate) struct Rule {
    asked: IpAddr,
    target: SocketAddr,
    source: Option<IpAddr>,
    fast_path: bool,
}

pub(crate) fn rule(asked: impl Into<IpAddr>, target: SocketAddr) -> Rule {
    Rule { asked: asked.into(), target, source: None, fast_path: false }
}

/// Index and MAC of a device.
fn link(namespace: &Namespace, device: &str) -> (u32, [u8; 6]) {
    let text = namespace.run("ip", &["-o", "link", "show", "dev", device]);
    let index = text.split(':').next().unwrap().trim().parse().unwrap();
    let mac = text.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).unwrap();
    let mut octets = mac.split(':').map(|octet| u8::from_str_radix(octet, 16).unwrap());
    (index, std::array::from_fn(|_| octets.next().unwrap()))
}

impl Host {
    /// `client`, `web` and `api` on one bridge, `far` on the other.
    pub(crate) fn new() -> Self {
        Self::with_table_of(4096)
    }

    fn with_table_of(max_flows: u32) -> Self {
        Self::with(&Options { max_flows, redirects: true, ..Options::default() })
    }

    fn with(options: &Options) -> Self {
        let mut topology = Topology::with_two_bridges();
        for name in ["client", "web", "api"] {
            topology.add_container(name);
        }
        topology.add_container_on_second_bridge("far");
        let host = topology.shared_host();
        let datapath = Datapath::load(options).unwrap();
        let (redirects, table) = (datapath.redirects().unwrap(), datapath.flow_table().unwrap());
        let mut compiled = Compiled::default();
        let mut indexes = Vec::new();
        for (name, bridge) in [("client", "br0"), ("web", "br0"), ("api", "br0"), ("far", "br1")] {
            let container = topology.container(name);
            let (ifindex, _) = link(&host, container.host_veth());
            let (_, mac) = link(container.namespace(), "eth0");
            let (bridge_ifindex, host_mac) = link(&host, bridge);
            let place = Place { ifindex, bridge_ifindex, mac };
            compiled.endpoints.insert(container.ipv4().into(), place);
            compiled.endpoints.insert(container.ipv6().into(), place);
            let interface = InterfacePlace { bridge_ifindex, host_mac, container_side: true };
            compiled.interfaces.insert(ifindex, interface);
            indexes.push(ifindex);
        }
        let attachments = host.enter(|| {
            let attacher = Attacher::new(probe().unwrap(), |name| datapath.program(name)).unwrap();
            indexes.iter().map(|index| attacher.attach(*index, true).unwrap()).collect()
        });
        Self { topology, redirects, table, _attachments: attachments, _datapath: datapath, compiled }
    }

    pub(crate) fn container(&self, name: &str) -> &Container {
        self.topology.container(name)
    }

    fn namespace(&self, name: &str) -> &Namespace {
        match name {
            "host" => self.topology.host(),
            name => self.container(name).namespace(),
        }
    }

    /// Makes these the rules, and forgets all connections there were.
    pub(crate) fn set(&self, rules: &[Rule]) {
        let mut compiled = self.compiled.clone();
        for (number, rule) in (1..).zip(rules) {
            let (id, target) = (RuleId::new(number, 0).unwrap(), TargetId(number));
            compiled.numbers.insert(number);
            compiled
                .targets
                .insert(target, CompiledTarget { address: rule.target.ip(), port_first: rule.target.port() });
            compiled.rules.insert(
                id,
                CompiledRule {
                    expires_ns: 0,
                    source: rule.source,
                    slots: vec![target; SLOTS],
                    fast_path: rule.fast_path,
                },
            );
            compiled.matches.entry(rule.asked).or_default().push(CompiledMatch {
                rule: id,
                protocol: 0,
                port_first: ASKED,
                port_last: ASKED,
                limited: false,
            });
            let place = compiled.endpoints.get(&rule.target.ip()).copied();
            if !compiled.endpoints.contains_key(&rule.asked) {
                compiled.virtual_addresses.insert(rule.asked, VirtualAddress { target: place });
            }
            if let (Some(source), Some(place)) = (rule.source, place) {
                compiled.forged_sources.insert((place.ifindex, source));
            }
        }
        self.redirects.set(&compiled).unwrap();
        let mut keys = Vec::new();
        self.table.visit(|key, _| keys.push(key)).unwrap();
        for key in keys {
            self.table.remove(&key).unwrap();
        }
        // Who asked for an address while nobody had it hears no answer that comes after the last question.
        self.namespace("host")
            .run("ip", &["neigh", "flush", "dev", "br0", "nud", "incomplete", "nud", "failed"]);
    }

    pub(crate) fn hits(&self, number: u32) -> u64 {
        self.redirects.counters().unwrap()[&number].hits
    }
}

/// Bytes that repeat nowhere: what is lost, exchanged or comes twice is found.
fn bytes(count: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    (0..count.div_ceil(8))
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .take(count)
        .collect()
}

/// Sends a few megabytes to an echo server, and compares what comes back.
#[track_caller]
pub(crate) fn transfer(client: &Namespace, address: SocketAddr, count: usize) {
    let sent = bytes(count);
    let mut stream = connect(client, address);
    let mut writer = stream.try_clone().unwrap();
    let mut got = vec![0; count];
    std::thread::scope(|scope| {
        scope.spawn(|| writer.write_all(&sent).unwrap());
        stream.read_exact(&mut got).unwrap();
    });
    assert!(got == sent, "what came back from {address} is not what was sent");
}

/// Both versions of IP: the addresses of a container.
pub(crate) fn addresses(container: &Container) -> [IpAddr; 2] {
    [container.ipv4().into(), container.ipv6().into()]
}

const VIRTUAL: [&str; 2] = ["10.99.0.200", "fd99::200"];
const FORGED: [&str; 2] = ["198.51.100.1", "2001:db8::1"];

/// TCP and UDP, redirected.
#[track_caller]
fn works(
    host: &Host,
    client: &str,
    server: &str,
    rule: impl Fn(SocketAddr) -> Rule,
    version: usize,
    what: &str,
) {
    let ip = addresses(host.container(server))[version];
    let tcp = EchoServer::tcp(host.namespace(server), ip);
    let redirect = rule(tcp.address());
    let asked = SocketAddr::new(redirect.asked, ASKED);
    host.set(&[redirect]);
    let before = host.hits(1);
    println!("{what}: {client} asks {asked}, {} answers", tcp.address());
    transfer(host.namespace(client), asked, 1 << 20);
    assert_eq!(host.hits(1) - before, 1, "{what}");
    let udp = EchoServer::udp(host.namespace(server), ip);
    host.set(&[rule(udp.address())]);
    // Small ones, and one in fragments.
    udp_echo(host.namespace(client), asked, 20, 512);
    udp_echo(host.namespace(client), asked, 1, 4000);
    assert_eq!(host.hits(1) - before, 3, "{what}");
}

#[test]
fn root_connections_go_every_way() {
    require_root!();
    let host = Host::new();
    for version in [0, 1] {
        let of = |name: &str| addresses(host.container(name))[version];
        let virtual_address: IpAddr = VIRTUAL[version].parse().unwrap();
        let forged: IpAddr = FORGED[version].parse().unwrap();
        let web = of("web");
        let to = |target| rule(web, target);
        let fast = |target| Rule { fast_path: true, ..rule(web, target) };
        let forging = |target| Rule { source: Some(forged), ..rule(web, target) };
        let from_nowhere = |target| rule(virtual_address, target);
        works(&host, "client", "web", to, version, "another port");
        works(&host, "client", "api", to, version, "another container");
        works(&host, "client", "far", to, version, "another bridge");
        works(&host, "far", "api", to, version, "from another bridge");
        works(&host, "far", "far", to, version, "to itself, from another bridge");
        works(&host, "client", "client", to, version, "to itself");
        works(&host, "client", "api", fast, version, "the fast path");
        works(&host, "client", "api", forging, version, "a forged source");
        works(&host, "client", "far", forging, version, "a forged source, another bridge");
        works(&host, "client", "api", from_nowhere, version, "a virtual address");
        works(&host, "client", "far", from_nowhere, version, "a virtual address, another bridge");
        works(&host, "host", "web", to, version, "the host, another port");
        works(&host, "host", "api", to, version, "the host, another container");
        works(&host, "host", "far", to, version, "the host, another bridge");
        works(&host, "host", "api", from_nowhere, version, "the host, a virtual address");
    }
}

/// Checksums that nobody has completed yet and large segments, or neither.
#[test]
fn root_offloads_make_no_difference() {
    require_root!();
    let host = Host::new();
    let features = ["tx", "rx", "tso", "gso", "gro", "sg"];
    // The last: checksums that wait for a device when they are translated, and are completed behind that,
    // in software: the receiver sees whether what they hold meanwhile was right.
    for on in [[false, false], [true, true], [true, false]] {
        for name in ["client", "api"] {
            host.namespace(name).set_offloads("eth0", &features, on[0]);
            host.namespace("host").set_offloads(host.container(name).host_veth(), &features, on[1]);
        }
        for version in [0, 1] {
            let web = addresses(host.container("web"))[version];
            for fast_path in [false, true] {
                let what = format!("offloads {on:?}, fast path {fast_path}");
                let to = |target| Rule { fast_path, ..rule(web, target) };
                works(&host, "client", "api", to, version, &what);
            }
        }
    }
}

#[test]
fn root_somebody_outside_is_redirected() {
    require_root!();
    let host = Host::new();
    host.topology.world();
    let web: IpAddr = host.container("web").ipv4().into();
    for server in ["web", "api", "far"] {
        let tcp = EchoServer::tcp(host.namespace(server), addresses(host.container(server))[0]);
        host.set(&[rule(web, tcp.address())]);
        let asked = SocketAddr::new(web, ASKED);
        // Its namespace is the topology's, which gives it out with its own name.
        let world = host.topology.world();
        transfer(world, asked, 1 << 20);
    }
}

#[test]
fn root_the_server_sees_the_forged_source() {
    require_root!();
    let host = Host::new();
    let (web, api) = (host.container("web").ipv4(), host.container("api").ipv4());
    let server = host.namespace("api").enter(|| UdpSocket::bind((api, 0))).unwrap();
    server.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    let forged: Ipv4Addr = FORGED[0].parse().unwrap();
    host.set(&[Rule { source: Some(forged.into()), ..rule(web, server.local_addr().unwrap()) }]);
    let client = host.namespace("client").enter(|| UdpSocket::bind(("0.0.0.0", 0))).unwrap();
    client.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    client.send_to(b"who am I?", (web, ASKED)).unwrap();
    let mut buffer = [0; 100];
    let (length, from) = uninterrupted(|| server.recv_from(&mut buffer)).unwrap();
    assert_eq!((&buffer[..length], from.ip()), (&b"who am I?"[..], IpAddr::from(forged)));
    server.send_to(from.to_string().as_bytes(), from).unwrap();
    let (length, from) = uninterrupted(|| client.recv_from(&mut buffer)).unwrap();
    assert_eq!(from, SocketAddr::new(web.into(), ASKED));
    assert!(std::str::from_utf8(&buffer[..length]).unwrap().starts_with("198.51.100.1:"));
}

/// A port that nobody listens on is told to the client as its own mistake; and
/// whom it asks directly answers directly.
#[test]
fn root_refusals_come_back_and_direct_connections_are_left_alone() {
    require_root!();
    let host = Host::new();
    let (web, api) = (host.container("web").ipv4(), host.container("api").ipv4());
    let server = EchoServer::tcp(host.namespace("api"), api);
    host.set(&[rule(web, server.address())]);
    let client = host.namespace("client");
    let redirected = connect(client, SocketAddr::new(web.into(), ASKED));
    assert_eq!(redirected.peer_addr().unwrap(), SocketAddr::new(web.into(), ASKED));
    for _ in 0..3 {
        transfer(client, SocketAddr::new(web.into(), ASKED), 10_000);
        transfer(client, server.address(), 10_000);
    }
    ping(client, web, 1, 56);

    host.set(&[rule(web, SocketAddr::new(api.into(), 9))]);
    let socket = client.enter(|| UdpSocket::bind(("0.0.0.0", 0))).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    socket.connect((web, ASKED)).unwrap();
    socket.send(b"nobody there").unwrap();
    // An ICMP error about what was sent to `web`, as far as the client knows.
    let error = uninterrupted(|| socket.recv(&mut [0; 10])).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}

/// Larger than the other bridge takes: the error that tells it is translated too.
#[test]
fn root_the_way_tells_its_mtu() {
    require_root!();
    let host = Host::new();
    for version in [0, 1] {
        host.namespace("far").ip_batch("link set eth0 mtu 1300\n");
        let device = host.container("far").host_veth();
        host.namespace("host").ip_batch(&format!("link set {device} mtu 1300\nlink set br1 mtu 1300\n"));
        let ip = addresses(host.container("far"))[version];
        let web = addresses(host.container("web"))[version];
        let server = EchoServer::tcp(host.namespace("far"), ip);
        host.set(&[rule(web, server.address())]);
        transfer(host.namespace("client"), SocketAddr::new(web, ASKED), 1 << 20);
        // Datagrams must not be fragmented by those who send them on.
        let udp = EchoServer::udp(host.namespace("far"), ip);
        host.set(&[rule(web, udp.address())]);
        let address = SocketAddr::new(web, ASKED);
        let bytes = 1400;
        let any: IpAddr = if version == 0 { [0; 4].into() } else { [0u16; 8].into() };
        let socket = host.namespace("client").enter(|| UdpSocket::bind((any, 0))).unwrap();
        socket.set_read_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
        let mut answer = vec![0; bytes + 1];
        // The first is lost to the error; the sender's stack fragments the next.
        let answered = (0..10).any(|_| {
            let _ = socket.send_to(&vec![7; bytes], address);
            socket.recv_from(&mut answer).is_ok_and(|(length, from)| (length, from) == (bytes, address))
        });
        assert!(answered, "datagrams of {bytes} bytes, version {version}");
    }
}

/// Past the bridge: it counts nothing of it.
#[test]
fn root_the_short_way_carries_everything() {
    require_root!();
    let options = Options { max_flows: 4096, redirects: true, accelerate: true, ..Options::default() };
    let host = Host::with(&options);
    host.set(&[]);
    for version in [0, 1] {
        let ip = addresses(host.container("api"))[version];
        let server = EchoServer::tcp(host.namespace("api"), ip);
        let before = host.topology.counters("api").tx_bytes;
        transfer(host.namespace("client"), server.address(), 1 << 20);
        let passed = host.topology.counters("api").tx_bytes - before;
        assert!(passed < 10_000, "{passed} bytes went out at the server's veth");
        let udp = EchoServer::udp(host.namespace("api"), ip);
        udp_echo(host.namespace("client"), udp.address(), 20, 512);
        udp_echo(host.namespace("client"), udp.address(), 1, 4000);
        ping(host.namespace("client"), ip, 2, 56);
        // To another bridge, as ever.
        let server = EchoServer::tcp(host.namespace("far"), addresses(host.container("far"))[version]);
        transfer(host.namespace("client"), server.address(), 1 << 20);
    }
}

/// Redirected from one bridge to the other, where the host itself forwards nothing: as with Docker, whose rules
/// keep networks apart.
#[test]
fn root_the_short_way_between_two_bridges() {
    require_root!();
    let options = Options { max_flows: 4096, redirects: true, accelerate: true, ..Options::default() };
    let host = Host::with(&options);
    host.namespace("host").sysctl("ipv4/ip_forward", "0");
    host.namespace("host").sysctl("ipv6/conf/all/forwarding", "0");
    for mtu in [1500, 1300] {
        host.namespace("far").ip_batch(&format!("link set eth0 mtu {mtu}\n"));
        for version in [0, 1] {
            let web = addresses(host.container("web"))[version];
            let to = |target| Rule { fast_path: true, ..rule(web, target) };
            works(&host, "client", "far", to, version, &format!("the other end takes {mtu} bytes"));
            // Nobody there: the error comes back as from whom was asked.
            let far = addresses(host.container("far"))[version];
            host.set(&[to(SocketAddr::new(far, 9))]);
            let any: IpAddr = if version == 0 { [0; 4].into() } else { [0u16; 8].into() };
            let socket = host.namespace("client").enter(|| UdpSocket::bind((any, 0))).unwrap();
            socket.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
            socket.connect((web, ASKED)).unwrap();
            socket.send(b"nobody there").unwrap();
            let error = uninterrupted(|| socket.recv(&mut [0; 10])).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        }
    }
    // What is not redirected goes by the host's own tables.
    let server = EchoServer::tcp(host.namespace("far"), host.container("far").ipv4());
    let direct = host.namespace("client").enter(|| {
        std::net::TcpStream::connect_timeout(&server.address(), std::time::Duration::from_millis(300))
    });
    assert!(direct.is_err());
}

/// First packets from everywhere fill the table; connections that are translated live on.
#[test]
fn root_a_flood_pushes_nobody_out() {
    require_root!();
    let host = Host::with_table_of(512);
    let (web, api) = (host.container("web").ipv4(), host.container("api").ipv4());
    let server = EchoServer::tcp(host.namespace("api"), api);
    host.set(&[rule(web, server.address())]);
    let address = SocketAddr::new(web.into(), ASKED);
    let mut streams: Vec<_> = (0..100).map(|_| connect(host.namespace("client"), address)).collect();
    let client = link(host.namespace("client"), "eth0").1;
    let gateway = link(host.namespace("host"), "br0").1;
    host.namespace("client").enter(|| {
        for number in 0..2_000u32 {
            let source = Ipv4Addr::from(0x0b00_0000 + number).to_string();
            let frame = weir_testkit::packet::Frame::between(&source, &web.to_string())
                .macs(client, gateway)
                .tcp(1024 + number as u16, ASKED, "S")
                .build();
            weir_testkit::traffic::send_frame(host.namespace("client"), "eth0", &frame);
        }
    });
    for stream in &mut streams {
        stream.write_all(b"still here").unwrap();
        let mut answer = [0; 10];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"still here");
    }
    let counters = host.redirects.counters().unwrap()[&1];
    assert!(counters.refused_flows_full > 1000, "{counters:?}");
}
