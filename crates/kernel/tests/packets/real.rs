//! What BPF_PROG_TEST_RUN cannot make, sent over a real veth: packets whose
//! headers lie outside the linear part, segmentation-offload packets of 60 kB,
//! a tag that the kernel takes off, frames of a few bytes. What weir counts is
//! what the device counted.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use weir_core::event::{Event, Hook};
use weir_core::flow::{Counters, FlowKey};
use weir_core::loss::{Tallies, TallyReason};
use weir_kernel::attach::{Attacher, probe};
use weir_kernel::{Datapath, Options};
use weir_testkit::packet::{Frame, ethertype, other};
use weir_testkit::{Namespace, require_root, wait_until};

use crate::expect::{A, A6, B, B6, icmp_key, key};
use crate::lab::index;

/// What the sender tells the kernel beside the bytes (`struct virtio_net_hdr`).
#[derive(Debug, Clone, Copy, Default)]
struct Offload {
    /// The kernel keeps so many bytes in the linear part of a frame of a page and more.
    linear_bytes: u16,
    /// Payload of a segment, TCP only. 0: it is one packet.
    segment_bytes: u16,
    /// `VIRTIO_NET_HDR_GSO_TCPV4` or `_TCPV6`.
    segment_kind: u8,
}

impl Offload {
    fn to_bytes(self) -> [u8; 10] {
        let (linear, segment) = (self.linear_bytes.to_ne_bytes(), self.segment_bytes.to_ne_bytes());
        // Segments need their checksum: from the TCP header on, at its 17th byte.
        let checksum = u8::from(self.segment_bytes != 0);
        let start = if self.segment_kind == GSO_TCPV6 { 54u16 } else { 34 } * u16::from(checksum);
        let (start, offset) = (start.to_ne_bytes(), (16 * u16::from(checksum)).to_ne_bytes());
        [
            checksum,
            self.segment_kind,
            linear[0],
            linear[1],
            segment[0],
            segment[1],
            start[0],
            start[1],
            offset[0],
            offset[1],
        ]
    }
}

/// Longest wait for a packet to pass the program.
const LIMIT: Duration = Duration::from_secs(10);

const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;

struct Row {
    what: &'static str,
    frame: Vec<u8>,
    /// `None`: as it is, in one piece.
    offload: Option<Offload>,
    /// Sent from here, it passes `v0`.
    device: &'static str,
    outcome: Outcome,
}

enum Outcome {
    Flow(FlowKey),
    Tally(TallyReason),
    /// What a DNS event holds, beside the flow.
    Dns(FlowKey, Vec<u8>),
}

const MTU: usize = 9000;
const LONG: usize = 8000;

/// Rows for one end: `v0` sends what it gets from here, and receives what `v1` sends.
fn rows(device: &'static str) -> Vec<Row> {
    let short = |linear_bytes| Some(Offload { linear_bytes, ..Offload::default() });
    let segments =
        |segment_kind, linear_bytes| Some(Offload { linear_bytes, segment_bytes: 1400, segment_kind });
    let row =
        |what, frame: Frame, offload, outcome| Row { what, frame: frame.build(), offload, device, outcome };
    let tcp_key = key(6, (A, 40000), (B, 80)).0;
    let tcp6_key = key(6, (A6, 40000), (B6, 80)).0;
    let udp6_key = key(17, (A6, 5000), (B6, 6000)).0;
    let tcp = |length: usize| Frame::between(A, B).tcp(40000, 80, "A").payload(&vec![7; length]);
    let tcp6 = |length: usize| Frame::between(A6, B6).tcp(40000, 80, "A").payload(&vec![7; length]);
    let chain = Frame::between(A6, B6).extension(0, &[0; 262]).extension(60, &[0; 6]).udp(5000, 6000);
    let message: Vec<u8> = (0..LONG).map(|index| (index % 251) as u8).collect();
    let error =
        Frame::between(B, A).icmp_error(3, 3, &Frame::between(A, B).udp(1, 2).payload(&[7; LONG]), LONG);
    let mut rows = vec![
        row("in one piece", tcp(LONG), None, Outcome::Flow(tcp_key)),
        row("only Ethernet is linear", tcp(LONG), short(14), Outcome::Flow(tcp_key)),
        row("half of IP is linear", tcp(LONG), short(24), Outcome::Flow(tcp_key)),
        row("the ports are linear", tcp(LONG), short(38), Outcome::Flow(tcp_key)),
        row("only Ethernet is linear, IPv6", tcp6(LONG), short(14), Outcome::Flow(tcp6_key)),
        row("extensions are not linear", chain.payload(&[7; LONG]), short(60), Outcome::Flow(udp6_key)),
        row("an error whose quote is not linear", error, short(42), Outcome::Flow(icmp_key(3, 3, B, A).0)),
        row(
            "a DNS answer that is not linear",
            Frame::between(B, A).udp(53, 5000).payload(&message),
            short(42),
            Outcome::Dns(key(17, (B, 53), (A, 5000)).0, message[..1232].to_vec()),
        ),
        row("60 kB of segments", tcp(60_000), segments(GSO_TCPV4, 54), Outcome::Flow(tcp_key)),
        row("60 kB of segments, IPv6", tcp6(60_000), segments(GSO_TCPV6, 74), Outcome::Flow(tcp6_key)),
    ];
    rows.push(row(
        "a tag",
        Frame::between(A, B).vlan(7).udp(5000, 6000).payload(&[7; 50]),
        None,
        Outcome::Flow(key(17, (A, 5000), (B, 6000)).0),
    ));
    for length in [14, 15, 20, 33] {
        rows.push(Row {
            what: "an IP header, cut",
            frame: tcp(0).build()[..length].to_vec(),
            offload: None,
            device,
            outcome: Outcome::Tally(TallyReason::Truncated),
        });
    }
    rows.push(Row {
        what: "a frame of its header alone",
        frame: other(&[], ethertype::LLDP, &[]),
        offload: None,
        device,
        outcome: Outcome::Tally(TallyReason::NonIp),
    });
    rows
}

/// A packet of segments that is too long for its own length field (BIG TCP).
fn big(device: &'static str) -> Row {
    let mut frame = Frame::between(A6, B6).tcp(40000, 80, "A").payload(&[7; 60_000]).build();
    frame.resize(100_000, 7);
    frame[18..20].fill(0);
    Row {
        what: "100 kB of segments, without a length",
        frame,
        offload: Some(Offload { linear_bytes: 74, segment_bytes: 1400, segment_kind: GSO_TCPV6 }),
        device,
        outcome: Outcome::Flow(key(6, (A6, 40000), (B6, 80)).0),
    }
}

/// Lets a device carry such packets: from Linux 5.19 on, with an `ip` that knows.
fn allow_big(namespace: &Namespace, device: &str) -> bool {
    let mut command = namespace.command("ip");
    command.args(["link", "set", device, "gso_max_size", "200000"]);
    command.stderr(Stdio::null()).status().unwrap().success()
}

/// Sends one frame out of a device of this thread's namespace.
fn send(device: &str, offload: Option<Offload>, frame: &[u8]) -> io::Result<()> {
    // SAFETY: no pointers; the descriptor is checked before it is owned.
    let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0) };
    assert!(socket >= 0, "no packet socket: {}", io::Error::last_os_error());
    // SAFETY: it is open and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let mut bytes = Vec::new();
    if let Some(offload) = offload {
        let on: libc::c_int = 1;
        // SAFETY: the option is an int, which outlives the call.
        let status = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_VNET_HDR,
                (&raw const on).cast(),
                size_of_val(&on) as libc::socklen_t,
            )
        };
        assert_eq!(status, 0, "{}", io::Error::last_os_error());
        bytes.extend(offload.to_bytes());
    }
    bytes.extend(frame);
    // SAFETY: all zero is a valid address.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = index(device).cast_signed();
    // SAFETY: bytes and address are as long as is said.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            0,
            (&raw const address).cast(),
            size_of_val(&address) as libc::socklen_t,
        )
    };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    assert_eq!(sent, bytes.len() as isize);
    Ok(())
}

/// `v0`'s own count of one direction.
fn device_counters(namespace: &Namespace, hook: Hook) -> Counters {
    let counters = weir_testkit::Counters::of(namespace, "v0");
    match hook {
        Hook::Ingress => Counters { packets: counters.rx_packets, bytes: counters.rx_bytes },
        Hook::Egress => Counters { packets: counters.tx_packets, bytes: counters.tx_bytes },
    }
}

#[test]
fn root_packets_of_all_shapes_are_counted_as_the_device_counts() {
    require_root!();
    let namespace = Namespace::new("shapes");
    namespace.sysctl("ipv6/conf/default/disable_ipv6", "1");
    namespace.ip_batch(&format!(
        "link add v0 mtu {MTU} type veth peer name v1 mtu {MTU}\nlink set v0 up\nlink set v1 up\n"
    ));
    namespace.enter(|| {
        let mut datapath =
            Datapath::load(&Options { max_flows: 64, packet_events: false, ..Options::default() }).unwrap();
        let table = datapath.flow_table().unwrap();
        let attacher = Attacher::new(probe().unwrap(), |name| datapath.program(name)).unwrap();
        let _attachment = attacher.attach(index("v0"), true).unwrap();
        let mut rows: Vec<Row> = ["v0", "v1"].into_iter().flat_map(rows).collect();
        if ["v0", "v1"].iter().all(|device| allow_big(&namespace, device)) {
            rows.extend(["v0", "v1"].map(big));
        } else {
            println!("packets of more than 64 kB: not tried, this kernel or its `ip` has none");
        }
        for row in rows {
            let (what, hook) = (row.what, if row.device == "v1" { Hook::Ingress } else { Hook::Egress });
            let before = (table.tallies().unwrap(), device_counters(&namespace, hook));
            match send(row.device, row.offload, &row.frame) {
                // The packet sockets of Linux 6.1 do not take so much.
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) && row.frame.len() > 0xffff => {
                    println!("{what}: not tried, this kernel has no socket to send it");
                    continue;
                }
                sent => sent.unwrap(),
            }
            let counted = device_counters(&namespace, hook).since(before.1);
            assert_eq!(counted, Counters { packets: 1, bytes: row.frame.len() as u64 }, "{what}");

            let (mut tallies, mut flows) = (Tallies::new(), Vec::new());
            // The kernel may put off what is received.
            wait_until(LIMIT, what, || {
                tallies = table.tallies().unwrap();
                tallies.retain(|key, counters| before.0.get(key) != Some(counters));
                flows.clear();
                table.visit(|key, entry| flows.push((key, entry))).unwrap();
                !tallies.is_empty() || !flows.is_empty()
            });
            let events = Arc::new(Mutex::new(Vec::new()));
            let sink = events.clone();
            datapath.start_reader(move |batch| sink.lock().unwrap().extend(batch)).unwrap();
            datapath.stop_reader();
            let dns = events.lock().unwrap().drain(..).find_map(|event| match event {
                Event::Dns(dns) => Some(dns.payload),
                _ => None,
            });
            let (expected, payload) = match row.outcome {
                Outcome::Tally(reason) => {
                    let reasons: Vec<_> = tallies.keys().map(|(at, reason)| (at.hook, *reason)).collect();
                    assert_eq!((reasons, flows), (vec![(hook, reason)], vec![]), "{what} {hook:?}");
                    continue;
                }
                Outcome::Flow(key) => (key, None),
                Outcome::Dns(key, payload) => (key, Some(payload)),
            };
            assert!(tallies.is_empty(), "{what} {hook:?}: {tallies:?}");
            let [(found, entry)] = flows.as_slice() else { panic!("{what} {hook:?}: {flows:?}") };
            assert_eq!((*found, dns), (expected, payload), "{what} {hook:?}");
            let points: Vec<_> = entry.points().map(|(_, at, counters)| (at.hook, counters)).collect();
            // What is received with a tag as bytes comes to the programs without: the kernel
            // keeps it beside the packet, where a sender that offloads has it from the start.
            let taken_off = if what == "a tag" && hook == Hook::Ingress { 4 } else { 0 };
            let seen = Counters { bytes: counted.bytes - taken_off, ..counted };
            assert_eq!(points, [(hook, seen)], "{what}");
            table.remove(found).unwrap();
        }
    });
}
