//! Much through one rule: a gigabyte, and ten thousand connections.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use weir_testkit::traffic::{EchoServer, connect};
use weir_testkit::{Container, Counters, Namespace, require_root, uninterrupted};

use crate::redirect::Host;
use crate::weir::{LIMIT, number};

/// What is handed to the kernel at once.
const PIECE_BYTES: usize = 1 << 17;

/// Both versions of IP: the addresses of a container.
pub(crate) fn addresses(container: &Container) -> [IpAddr; 2] {
    [container.ipv4().into(), container.ipv6().into()]
}

/// The SHA-256 of what it reads, by openssl: a third of `sha256sum`'s time where the processor helps.
fn sha256(input: Stdio) -> Child {
    let mut command = Command::new("openssl");
    command.args(["dgst", "-sha256", "-r"]).stdin(input).stdout(Stdio::piped()).spawn().unwrap()
}

/// What it says once there is no more.
fn digest(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Sends so many bytes from the client to whoever answers at `asked`, which is the
/// listener: the same must arrive there, by its SHA-256.
#[track_caller]
pub(crate) fn upload(client: &Namespace, asked: SocketAddr, listener: &TcpListener, bytes: usize) {
    let mut stream = connect(client, asked);
    let (accepted, _) = listener.accept().unwrap();
    // Or it would wait for ever for what was lost.
    accepted.set_read_timeout(Some(LIMIT)).unwrap();
    let received = sha256(Stdio::from(OwnedFd::from(accepted)));
    let mut sent = sha256(Stdio::piped());
    let mut hashed = sent.stdin.take().unwrap();
    // No piece looks like itself moved by some bytes, and each has its number.
    let mut piece: Vec<u8> =
        (0..PIECE_BYTES as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for count in 0..bytes / PIECE_BYTES {
        piece[..8].copy_from_slice(&count.to_le_bytes());
        stream.write_all(&piece).unwrap();
        hashed.write_all(&piece).unwrap();
    }
    drop((stream, hashed));
    assert_eq!(digest(received), digest(sent), "what arrived from {asked} is not what was sent");
}

/// A gigabyte once; an eighth of it where the packets are other ones.
#[test]
fn root_a_gigabyte_arrives_as_it_was_sent() {
    require_root!();
    let host = Host::new(&["web", "client"]);
    let web = host.topology.container("web");
    host.redirects(&["add", &format!("{}:8080", host.name("web")), ":80"]);
    let mut transfers = 0;
    for (offloads, bytes) in [(true, [1 << 30, 1 << 27]), (false, [1 << 27, 1 << 27])] {
        for name in ["web", "client"] {
            let features = ["tx", "tso", "gso", "gro"];
            host.namespace(name).set_offloads("eth0", &features, offloads);
            let veth = host.topology.container(name).host_veth();
            host.topology.host().set_offloads(veth, &features, offloads);
        }
        for (ip, bytes) in addresses(web).into_iter().zip(bytes) {
            let server = SocketAddr::new(ip, 80);
            let listener = web.namespace().enter(|| TcpListener::bind(server)).unwrap();
            let before = Counters::of(host.namespace("client"), "eth0");
            upload(host.namespace("client"), SocketAddr::new(ip, 8080), &listener, bytes);
            // Whether it was what was to be tried: segments of up to 64 KiB, or what the wire takes.
            let sent = Counters::of(host.namespace("client"), "eth0") - before;
            let mean_bytes = sent.tx_bytes / sent.tx_packets;
            assert_eq!(mean_bytes > 3000, offloads, "{mean_bytes} bytes a packet, {ip}");
            transfers += 1;
        }
    }
    let rule = &host.rules()[0];
    assert_eq!(rule["hits"], transfers, "{rule}");
}

/// One short connection: what it sends comes back, and both sides end it in order.
fn short(asked: SocketAddr, number: usize) -> Result<(), String> {
    let sent = format!("connection {number}");
    let exchange = || {
        let mut stream = TcpStream::connect_timeout(&asked, Duration::from_secs(10))?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.write_all(sent.as_bytes())?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).map(|_| answer)
    };
    match exchange() {
        Ok(answer) if answer == sent.as_bytes() => Ok(()),
        Ok(answer) => Err(format!("{sent} to {asked}: {:?}", String::from_utf8_lossy(&answer))),
        Err(error) => Err(format!("{sent} to {asked}: {error}")),
    }
}

#[test]
fn root_ten_thousand_connections_without_an_error() {
    require_root!();
    const CLIENTS: usize = 8;
    const CONNECTIONS: usize = 10_000;
    let host = Host::new(&["web", "client"]);
    let web = host.topology.container("web");
    let _servers = addresses(web).map(|ip| EchoServer::tcp_at(web.namespace(), SocketAddr::new(ip, 80)));
    host.redirects(&["add", &format!("{}:8080", host.name("web")), ":80"]);
    let asked = addresses(web).map(|ip| SocketAddr::new(ip, 8080));
    let errors = Mutex::new(Vec::new());
    // Threads begin in the namespace of whoever starts them.
    host.namespace("client").enter(|| {
        thread::scope(|scope| {
            for client in 0..CLIENTS {
                let (asked, errors) = (asked[client % 2], &errors);
                scope.spawn(move || {
                    let numbers = (client..CONNECTIONS).step_by(CLIENTS);
                    let failed = numbers.filter_map(|number| short(asked, number).err());
                    // The first tells what is wrong; each may take its time.
                    errors.lock().unwrap().extend(failed.take(1));
                });
            }
        });
    });
    assert_eq!(errors.into_inner().unwrap(), [] as [String; 0]);
    let rule = &host.rules()[0];
    assert_eq!(number(&rule["hits"]), CONNECTIONS as u64, "{rule}");
}

/// SYNs that were sent again from this namespace: the first one was not answered as it should be.
fn repeated_syns(namespace: &Namespace) -> u64 {
    let text = namespace.run("cat", &["/proc/net/netstat"]);
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let place = names.split(' ').position(|name| name == "TCPSynRetrans").unwrap();
    values.split(' ').nth(place).unwrap().parse().unwrap()
}

/// A server that ends its connections holds the client's port for a minute, for whoever had it.
/// So the same few ports are to be had by direct and by redirected connections in turns.
#[test]
fn root_few_ports_for_direct_and_redirected_connections_by_turns() {
    require_root!();
    const CLIENTS: usize = 4;
    const CONNECTIONS: usize = 1_200;
    let host = Host::new(&["web", "client"]);
    let client = host.namespace("client");
    client.sysctl("ipv4/ip_local_port_range", "40000 40099");
    let listener = host.namespace("web").enter(|| TcpListener::bind(host.address("web", 80))).unwrap();
    set_socket_timeout(&listener, Timeout::Recv, Some(LIMIT)).unwrap();
    host.redirects(&["add", &format!("{}:8080", host.name("web")), ":80"]);
    let asked = [80, 8080].map(|port| host.address("web", port));
    let exchange = |number: usize| {
        let mut stream = TcpStream::connect_timeout(&asked[number / CLIENTS % 2], LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.write_all(b"hello")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).map(|_| answer)
    };
    client.enter(|| {
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..CONNECTIONS {
                    let (mut stream, _) = uninterrupted(|| listener.accept()).unwrap();
                    let mut received = [0; 5];
                    stream.set_read_timeout(Some(LIMIT)).unwrap();
                    stream.read_exact(&mut received).unwrap();
                    stream.write_all(&received).unwrap();
                }
            });
            for first in 0..CLIENTS {
                scope.spawn(move || {
                    for number in (first..CONNECTIONS).step_by(CLIENTS) {
                        assert_eq!(exchange(number).unwrap(), b"hello", "connection {number}");
                    }
                });
            }
        });
    });
    assert_eq!(number(&host.rules()[0]["hits"]), CONNECTIONS as u64 / 2);
    // Taken for old ones, a quarter of them would be; on a busy machine a few may be late.
    let repeated = repeated_syns(client);
    assert!(repeated < CONNECTIONS as u64 / 100, "{repeated} SYNs were sent again");
}
