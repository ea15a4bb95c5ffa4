//! Who stands behind an address: the host, the world, and names from DNS
//! answers that containers got.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use weir_testkit::traffic::{self, EchoServer};
use weir_testkit::{Stream, Topology, require_root, uninterrupted};

use crate::weir::{LIMIT, Weir, command, has_port, text};

/// The answer of a name server: the name that was asked for has `address`.
fn dns_answer(question: &[u8], address: [u8; 4]) -> Vec<u8> {
    let mut answer = question.to_vec();
    answer[2] |= 0x80; // a response
    answer[7] = 1; // with one answer:
    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]); // the name asked for, A, IN, 60 s, 4 bytes
    answer.extend(address);
    answer
}

fn dns_question(labels: &[&[u8]]) -> Vec<u8> {
    let mut question = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in labels {
        question.push(u8::try_from(label.len()).unwrap());
        question.extend(*label);
    }
    question.extend([0, 0, 1, 0, 1]);
    question
}

/// Lets the container `web` ask the world's name server for the address of
/// `labels`; the answer is the world's own.
fn resolve(topology: &mut Topology, labels: &[&[u8]]) {
    let server = topology.world().enter(|| UdpSocket::bind(("0.0.0.0", 53))).unwrap();
    server.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let client = topology.container("web").namespace().enter(|| UdpSocket::bind(("0.0.0.0", 0))).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = [0; 512];
            while !done.load(Ordering::Relaxed) {
                if let Ok((bytes, from)) = server.recv_from(&mut buffer) {
                    let answer = dns_answer(&buffer[..bytes], Topology::WORLD_IPV4.octets());
                    server.send_to(&answer, from).unwrap();
                }
            }
        });
        client.send_to(&dns_question(labels), (Topology::WORLD_IPV4, 53)).unwrap();
        let answered = uninterrupted(|| client.recv(&mut [0; 512]));
        done.store(true, Ordering::Relaxed);
        assert!(answered.unwrap() > 12);
    });
}

#[test]
fn root_host_world_and_dns_names() {
    require_root!();
    let mut topology = Topology::with_containers(&["web"]);
    topology.world();
    let weir = Weir::observe(topology.host(), &[]);
    let web_port = |topology: &mut Topology| {
        let server = EchoServer::tcp(topology.world(), Topology::WORLD_IPV4);
        traffic::tcp_echo(topology.container("web").namespace(), server.address(), 1, 100)[0]
    };
    let nameless = web_port(&mut topology);
    let closed =
        weir.wait_for_record(|record| record["event"] == "close" && has_port(record, "tcp", nameless));
    assert_eq!(text(&closed["server"]["name"]), "world", "{closed}");
    assert_eq!(text(&closed["server"]["ip"]), Topology::WORLD_IPV4.to_string());

    resolve(&mut topology, &[b"api", b"example", b"com"]);
    let named = web_port(&mut topology);
    let closed = weir.wait_for_record(|record| record["event"] == "close" && has_port(record, "tcp", named));
    assert_eq!(text(&closed["server"]["name"]), "api.example.com", "{closed}");
    assert_eq!(closed["client"]["container"], topology.container("web").namespace().name());

    traffic::ping(topology.container("web").namespace(), Topology::HOST_IPV4, 1, 56);
    let ping = weir.wait_for_record(|record| record["protocol"] == "icmp");
    assert_eq!(text(&ping["server"]["name"]), "host", "{ping}");

    let web = topology.container("web");
    let server = EchoServer::udp(web.namespace(), web.ipv6());
    let port = traffic::udp_echo(topology.host(), server.address(), 1, 100);
    let opened = weir.wait_for_record(|record| has_port(record, "udp", port));
    assert_eq!(text(&opened["client"]["name"]), "host", "{opened}");
    assert_eq!(text(&opened["server"]["container"]), web.namespace().name(), "{opened}");
    weir.finish();
}

/// A name from the wire that would paint a terminal red, and end a line.
#[test]
fn root_bytes_from_the_wire_are_escaped() {
    require_root!();
    let mut topology = Topology::with_containers(&["web"]);
    topology.world();
    let args = ["observe", "--engine", "none", "--protocol", "tcp", "--color", "never"];
    let mut weir = Weir::start(&mut command(topology.host(), &args));
    let json = Weir::observe(topology.host(), &["--protocol", "tcp"]);
    resolve(&mut topology, &[b"\x1b[31mevil\nline\r", b"\xc2\x9b\xff"]);
    let server = EchoServer::tcp(topology.world(), Topology::WORLD_IPV4);
    let port = traffic::tcp_echo(topology.container("web").namespace(), server.address(), 1, 100)[0];
    json.wait_for_record(|record| record["event"] == "close" && has_port(record, "tcp", port));
    weir.daemon.wait_for_line(Stream::Out, LIMIT, |line| line.contains("closed"));
    assert!(weir.daemon.stop(libc::SIGINT, LIMIT).success());
    json.finish();
    let printed = weir.daemon.stdout();
    assert!(printed.iter().all(|line| !line.chars().any(char::is_control)), "{printed:?}");
    assert!(printed.join("").contains("\\027\\09131mevil\\010line\\013.\\194\\155\\255:"), "{printed:?}");
}
