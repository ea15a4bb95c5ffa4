//! One frame, one outcome: everything that the parser knows, and what it must refuse.

use weir_core::flow::{FlowKey, Side};
use weir_core::loss::TallyReason;
use weir_testkit::packet::{Frame, arp_request, ethertype, other, protocol};

use crate::expect::{A, A6, B, B6, icmp_key, key};

#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// The flow, who sent the frame, and how many bytes the transport protocol carries.
    Flow(FlowKey, Side, u32),
    Tally(TallyReason),
}

pub(crate) struct Row {
    pub(crate) what: &'static str,
    pub(crate) frame: Vec<u8>,
    pub(crate) outcome: Outcome,
}

pub(crate) fn flow(
    what: &'static str,
    frame: Frame,
    (key, side): (FlowKey, Side),
    payload_bytes: u32,
) -> Row {
    Row { what, frame: frame.build(), outcome: Outcome::Flow(key, side, payload_bytes) }
}

pub(crate) fn tally(what: &'static str, frame: Vec<u8>, reason: TallyReason) -> Row {
    Row { what, frame, outcome: Outcome::Tally(reason) }
}

fn v4() -> Frame {
    Frame::between(A, B)
}

fn v6() -> Frame {
    Frame::between(A6, B6)
}

/// A frame with bytes of its IP header changed. (Nobody looks at the checksum.)
fn edited(frame: &Frame, edits: &[(usize, u8)]) -> Vec<u8> {
    let mut bytes = frame.build();
    for (offset, value) in edits {
        bytes[14 + offset] = *value;
    }
    bytes
}

fn padded(frame: &Frame) -> Vec<u8> {
    let mut bytes = frame.build();
    bytes.resize(60, 0xee);
    bytes
}

pub(crate) fn tcp(source: &str, destination: &str) -> (FlowKey, Side) {
    key(protocol::TCP, (source, 40000), (destination, 80))
}

pub(crate) fn udp(source: &str, destination: &str) -> (FlowKey, Side) {
    key(protocol::UDP, (source, 5000), (destination, 6000))
}

fn link_layer() -> Vec<Row> {
    let tagged = |ends: (&str, &str)| Frame::between(ends.0, ends.1).vlan(7).udp(5000, 6000).payload(&[1; 9]);
    let three_tags = [(ethertype::QINQ, 1), (ethertype::VLAN, 2), (ethertype::VLAN, 3)];
    vec![
        flow("one tag, IPv4", tagged((A, B)), udp(A, B), 9),
        flow("one tag, IPv6", tagged((A6, B6)), udp(A6, B6), 9),
        flow("a service tag alone", v4().service_vlan(7).udp(5000, 6000), udp(A, B), 0),
        flow("two tags (QinQ), IPv4", v4().service_vlan(7).vlan(8).udp(5000, 6000), udp(A, B), 0),
        flow("two tags of one kind, IPv6", v6().vlan(7).vlan(8).udp(5000, 6000), udp(A6, B6), 0),
        tally("three tags", other(&three_tags, ethertype::IPV4, &[0; 40]), TallyReason::HeadersTooDeep),
        tally("ARP", arp_request([10, 0, 0, 1], [10, 0, 0, 2]), TallyReason::Arp),
        tally("ARP behind a tag", other(&[(ethertype::VLAN, 1)], ethertype::ARP, &[0; 28]), TallyReason::Arp),
        tally("LLDP", other(&[], ethertype::LLDP, &[0; 46]), TallyReason::NonIp),
        tally("MPLS", other(&[], 0x8847, &[0; 46]), TallyReason::NonIp),
        tally("802.3 with a length (spanning tree)", other(&[], 38, &[0x42; 46]), TallyReason::NonIp),
        tally(
            "nothing after the tag, IPv4",
            other(&[(ethertype::VLAN, 1)], ethertype::IPV4, &[]),
            TallyReason::Truncated,
        ),
        tally(
            "nothing after the tag",
            other(&[(ethertype::VLAN, 1)], 0, &[])[..16].to_vec(),
            TallyReason::Truncated,
        ),
    ]
}

fn ipv4() -> Vec<Row> {
    let whole = v4().tcp(40000, 80, "A").payload(&[7; 100]);
    vec![
        flow("TCP", whole.clone(), tcp(A, B), 100),
        flow(
            "TCP the other way: the same flow",
            Frame::between(B, A).tcp(80, 40000, "A"),
            {
                let (key, side) = tcp(A, B);
                (key, side.other())
            },
            0,
        ),
        flow(
            "4 bytes of IP options",
            v4().ipv4_options(&[1, 1, 1, 0]).tcp(40000, 80, "A").payload(&[7; 3]),
            tcp(A, B),
            3,
        ),
        flow(
            "40 bytes of IP options",
            v4().ipv4_options(&[1; 40]).udp(5000, 6000).payload(&[7; 3]),
            udp(A, B),
            3,
        ),
        Row {
            what: "Ethernet padding is no payload",
            frame: padded(&v4().tcp(40000, 80, "A")),
            outcome: Outcome::Flow(tcp(A, B).0, tcp(A, B).1, 0),
        },
        Row {
            what: "padding behind one byte of payload",
            frame: padded(&v4().udp(5000, 6000).payload(&[7])),
            outcome: Outcome::Flow(udp(A, B).0, udp(A, B).1, 1),
        },
        flow(
            "to a group",
            Frame::between(A, "239.1.2.3").udp(5000, 6000),
            key(17, (A, 5000), ("239.1.2.3", 6000)),
            0,
        ),
        flow(
            "to everybody",
            Frame::between("0.0.0.0", "255.255.255.255").udp(68, 67),
            key(17, ("0.0.0.0", 68), ("255.255.255.255", 67)),
            0,
        ),
        tally("version 5", edited(&whole, &[(0, 0x55)]), TallyReason::Malformed),
        tally("version 6 under IPv4's ethertype", edited(&whole, &[(0, 0x65)]), TallyReason::Malformed),
        tally("a header length of 16", edited(&whole, &[(0, 0x44)]), TallyReason::Malformed),
        tally("a header length of 0", edited(&whole, &[(0, 0x40)]), TallyReason::Malformed),
        tally(
            "a header longer than the total length",
            edited(&whole, &[(0, 0x4f), (2, 0), (3, 40)]),
            TallyReason::Malformed,
        ),
        tally(
            "a total length below the header's",
            edited(&whole, &[(2, 0), (3, 19)]),
            TallyReason::Malformed,
        ),
        tally(
            "a total length of 0 in a small frame",
            edited(&whole, &[(2, 0), (3, 0)]),
            TallyReason::Malformed,
        ),
        tally(
            "a total length that ends within TCP",
            edited(&whole, &[(2, 0), (3, 39)]),
            TallyReason::Truncated,
        ),
        tally("a total length past the frame", edited(&whole, &[(2, 0), (3, 141)]), TallyReason::Truncated),
        tally(
            "a header that ends past the frame",
            edited(&v4().raw(253).payload(&[0; 8]), &[(0, 0x4f), (2, 0), (3, 60)]),
            TallyReason::Truncated,
        ),
    ]
}

fn ipv6() -> Vec<Row> {
    let whole = v6().tcp(40000, 80, "A").payload(&[7; 50]);
    let six = [
        protocol::HOP_BY_HOP,
        protocol::DESTINATION_OPTIONS,
        protocol::ROUTING,
        protocol::AUTHENTICATION,
        protocol::DESTINATION_OPTIONS,
        protocol::MOBILITY,
    ];
    let chain = |kinds: &[u8]| kinds.iter().fold(v6(), |frame, kind| frame.extension(*kind, &[0; 22]));
    let mut rows = vec![
        flow("TCP", whole.clone(), tcp(A6, B6), 50),
        flow(
            "an atomic fragment is whole",
            v6().udp(5000, 6000).payload(&[7; 5]).fragment(1, 0, false),
            udp(A6, B6),
            5,
        ),
        flow("six extension headers", chain(&six).udp(5000, 6000).payload(&[7; 5]), udp(A6, B6), 5),
        flow(
            "one that is 264 bytes long",
            v6().extension(protocol::HOP_BY_HOP, &[0; 262]).udp(5000, 6000),
            udp(A6, B6),
            0,
        ),
        flow(
            "options and a fragment header",
            v6().extension(protocol::HOP_BY_HOP, &[0; 6])
                .udp(5000, 6000)
                .payload(&[7; 5])
                .fragment(2, 0, false),
            udp(A6, B6),
            5,
        ),
        flow("no next header", v6().raw(protocol::NO_NEXT_HEADER), key(59, (A6, 0), (B6, 0)), 0),
        flow(
            "no next header behind an extension",
            chain(&six[..1]).raw(protocol::NO_NEXT_HEADER),
            key(59, (A6, 0), (B6, 0)),
            0,
        ),
        flow(
            "to a group",
            Frame::between(A6, "ff02::fb").udp(5000, 5353),
            key(17, (A6, 5000), ("ff02::fb", 5353)),
            0,
        ),
        Row {
            what: "padding is no payload",
            frame: padded(&v6().raw(253)),
            outcome: Outcome::Flow(key(253, (A6, 0), (B6, 0)).0, Side::Low, 0),
        },
        tally(
            "seven extension headers",
            chain(&[&six[..], &six[..1]].concat()).udp(5000, 6000).build(),
            TallyReason::HeadersTooDeep,
        ),
        tally(
            "headers of more than a kilobyte",
            v6().extension(protocol::HOP_BY_HOP, &[0; 1030]).udp(5000, 6000).build(),
            TallyReason::HeadersTooDeep,
        ),
        tally("version 4", edited(&whole, &[(0, 0x40)]), TallyReason::Malformed),
        tally("a payload length past the frame", edited(&whole, &[(5, 71)]), TallyReason::Truncated),
        tally("a payload length that ends within TCP", edited(&whole, &[(5, 19)]), TallyReason::Truncated),
        tally("a payload length of 0 in a small frame", edited(&whole, &[(5, 0)]), TallyReason::Truncated),
        tally(
            "an extension header that ends past the packet",
            {
                let mut bytes = chain(&six[..1]).raw(protocol::NO_NEXT_HEADER).build();
                bytes[14 + 41] = 9;
                bytes
            },
            TallyReason::Truncated,
        ),
    ];
    let single = [
        ("a hop-by-hop header", protocol::HOP_BY_HOP),
        ("a routing header", protocol::ROUTING),
        ("destination options", protocol::DESTINATION_OPTIONS),
        ("an authentication header", protocol::AUTHENTICATION),
        ("a mobility header", protocol::MOBILITY),
    ];
    for (what, kind) in single {
        rows.push(flow(what, chain(&[kind]).tcp(40000, 80, "A").payload(&[7; 5]), tcp(A6, B6), 5));
    }
    rows
}

fn transports() -> Vec<Row> {
    let mut rows = vec![
        flow(
            "40 bytes of TCP options",
            v4().tcp(40000, 80, "A").tcp_options(&[1; 40]).payload(&[7; 3]),
            tcp(A, B),
            3,
        ),
        flow("UDP without payload", v4().udp(5000, 6000), udp(A, B), 0),
        flow("SCTP, IPv4", v4().sctp(7, 8).payload(&[7; 20]), key(132, (A, 7), (B, 8)), 20),
        flow("SCTP, IPv6", v6().sctp(7, 8), key(132, (A6, 7), (B6, 8)), 0),
        flow(
            "UDP-Lite",
            v4().raw(136).payload(&[0x13, 0x88, 0x17, 0x70, 0, 8, 0, 0, 7, 7]),
            key(136, (A, 5000), (B, 6000)),
            2,
        ),
        flow("GRE has no ports", v4().raw(protocol::GRE).payload(&[7; 24]), key(47, (A, 0), (B, 0)), 24),
        flow("ESP has none either", v6().raw(protocol::ESP).payload(&[7; 24]), key(50, (A6, 0), (B6, 0)), 24),
        flow(
            "an authentication header is the end of IPv4's way",
            v4().raw(protocol::AUTHENTICATION).payload(&[6; 44]),
            key(51, (A, 0), (B, 0)),
            44,
        ),
        flow("a protocol that nobody knows", v4().raw(253), key(253, (A, 0), (B, 0)), 0),
        flow("a connection to itself", Frame::between(A, A).tcp(80, 80, "S"), key(6, (A, 80), (A, 80)), 0),
        flow(
            "between two ports of one address",
            Frame::between(A, A).udp(6000, 5000),
            key(17, (A, 6000), (A, 5000)),
            0,
        ),
        flow("a ping", v4().echo_request(77, 1).payload(&[7; 56]), icmp_key(8, 77, A, B), 56),
        flow("its answer", Frame::between(B, A).echo_reply(77, 1), icmp_key(8, 77, B, A), 0),
        flow("a ping, IPv6", v6().echo_request(77, 1), icmp_key(128, 77, A6, B6), 0),
        flow("its answer", Frame::between(B6, A6).echo_reply(77, 1), icmp_key(128, 77, B6, A6), 0),
        flow(
            "a timestamp request",
            v4().icmp(13, 0, [0, 77, 0, 1]).payload(&[0; 12]),
            icmp_key(13, 77, A, B),
            12,
        ),
        flow("its answer", Frame::between(B, A).icmp(14, 0, [0, 77, 0, 1]), icmp_key(13, 77, B, A), 0),
        flow(
            "another ICMP message has its code for a number",
            v4().icmp(9, 16, [0; 4]),
            icmp_key(9, 16, A, B),
            0,
        ),
        flow(
            "IGMP",
            Frame::between(A, "224.0.0.22").raw(2).payload(&[0x22; 8]),
            key(2, (A, 0), ("224.0.0.22", 0)),
            8,
        ),
        tally(
            "a TCP data offset of 16",
            {
                let mut bytes = v4().tcp(40000, 80, "A").build();
                bytes[14 + 20 + 12] = 0x40;
                bytes
            },
            TallyReason::Malformed,
        ),
        tally(
            "a TCP data offset past the packet",
            {
                let mut bytes = v4().tcp(40000, 80, "A").payload(&[7; 3]).build();
                bytes[14 + 20 + 12] = 0x60;
                bytes
            },
            TallyReason::Truncated,
        ),
    ];
    for kind in [130, 131, 132, 133, 134, 135, 136, 137, 143] {
        rows.push(tally(
            "neighbour and multicast listener discovery",
            v6().icmp(kind, 0, [0; 4]).payload(&[0; 16]).build(),
            TallyReason::NeighborDiscovery,
        ));
    }
    for (what, frame) in [
        ("TCP cut", v4().raw(protocol::TCP).payload(&[0x50; 19])),
        ("UDP cut", v4().raw(protocol::UDP).payload(&[0; 7])),
        ("SCTP cut", v6().raw(protocol::SCTP).payload(&[0; 11])),
        ("ICMP cut", v4().raw(protocol::ICMP).payload(&[8; 7])),
        ("ICMPv6 cut", v6().raw(protocol::ICMPV6).payload(&[135; 7])),
        ("a fragment header cut", v6().raw(protocol::FRAGMENT).payload(&[17; 7])),
    ] {
        rows.push(tally(what, frame.build(), TallyReason::Truncated));
    }
    rows
}

/// Every row; the other tests cut and spoil the same frames.
pub(crate) fn rows() -> Vec<Row> {
    [link_layer(), ipv4(), ipv6(), transports()].into_iter().flatten().collect()
}
