use super::*;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};

#[test]
fn checksums_and_lengths_are_right() {
    let frame = Frame::between("192.0.2.1", "192.0.2.2").tcp(1, 2, "SA").payload(b"abc").build();
    let packet = SlicedPacket::from_ethernet(&frame).unwrap();
    let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Tcp(tcp))) = (packet.net, packet.transport) else {
        panic!("not TCP over IPv4")
    };
    assert_eq!(ip.header().header_checksum(), ip.header().to_header().calc_header_checksum());
    assert!(tcp.syn() && tcp.ack() && !tcp.fin());
    assert_eq!(tcp.payload(), b"abc");
}

#[test]
fn tags_and_options_stand_in_order() {
    let frame = Frame::between("192.0.2.1", "192.0.2.2")
        .service_vlan(7)
        .vlan(8)
        .ipv4_options(&[1, 1, 1, 0])
        .udp(5, 6)
        .payload(b"x")
        .build();
    assert_eq!(frame[12..22], [0x88, 0xa8, 0, 7, 0x81, 0, 0, 8, 8, 0]);
    let packet = SlicedPacket::from_ethernet(&frame).unwrap();
    assert_eq!(packet.vlan_ids().iter().map(|id| id.value()).collect::<Vec<_>>(), [7, 8]);
    let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Udp(udp))) = (packet.net, packet.transport) else {
        panic!("not UDP over IPv4")
    };
    assert_eq!(ip.header().options(), [1, 1, 1, 0]);
    assert_eq!((udp.source_port(), udp.destination_port(), udp.payload()), (5, 6, b"x".as_slice()));
}

#[test]
fn extensions_chain_to_the_transport() {
    let frame = Frame::between("fd00::1", "fd00::2")
        .extension(protocol::HOP_BY_HOP, &[5, 2, 0, 0])
        .extension(protocol::AUTHENTICATION, &[0; 22])
        .extension(protocol::DESTINATION_OPTIONS, &[])
        .tcp(1, 2, "S")
        .build();
    assert_eq!(frame.len(), 14 + 40 + 8 + 24 + 8 + 20);
    let packet = SlicedPacket::from_ethernet(&frame).unwrap();
    assert!(matches!(packet.transport, Some(TransportSlice::Tcp(tcp)) if tcp.destination_port() == 2));
}

#[test]
fn fragments_of_both_versions() {
    for ends in [("192.0.2.1", "192.0.2.2"), ("fd00::1", "fd00::2")] {
        let first = Frame::between(ends.0, ends.1).udp(1, 2).payload(&[7; 16]).fragment(9, 0, true).build();
        let later = Frame::between(ends.0, ends.1).udp(1, 2).payload(&[7; 5]).fragment(9, 24, false).build();
        assert_eq!(first.len() - later.len(), 8 + 16 - 5);
        for frame in [first, later] {
            let packet = SlicedPacket::from_ethernet(&frame).unwrap();
            assert!(packet.transport.is_none(), "etherparse does not look into fragments");
            assert!(packet.is_ip_payload_fragmented());
        }
    }
}

#[test]
fn errors_quote() {
    let lost = Frame::between("fd00::1", "fd00::2").vlan(3).udp(1, 2).payload(&[1; 100]);
    let error = Frame::between("fd00::9", "fd00::1").icmp_error(1, 4, &lost, 48).build();
    assert_eq!(error.len(), 14 + 40 + 8 + 48);
    assert_eq!(error[62..102], lost.without_ethernet().build()[..40]);
    let packet = SlicedPacket::from_ethernet(&error).unwrap();
    let (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Icmpv6(icmp))) = (packet.net, packet.transport)
    else {
        panic!("not ICMPv6")
    };
    assert!(icmp.is_checksum_valid(ip.header().source(), ip.header().destination()));
}

#[test]
fn odd_frames() {
    assert_eq!(arp_request([10, 0, 0, 1], [10, 0, 0, 2]).len(), 42);
    assert!(SlicedPacket::from_ethernet(&arp_request([10, 0, 0, 1], [10, 0, 0, 2])).is_ok());
    assert_eq!(other(&[(ethertype::VLAN, 1)], ethertype::LLDP, &[0; 3]).len(), 21);
    let sctp = Frame::between("10.0.0.1", "10.0.0.2").sctp(7, 8).build();
    assert_eq!((sctp[23], sctp.len(), &sctp[34..38]), (132, 14 + 20 + 12, [0, 7, 0, 8].as_slice()));
    let sctp = Frame::between("10.0.0.1", "10.0.0.2").sctp_complete(7, 8).build();
    assert_eq!(sctp[42..46], sctp_checksum(&[0, 7, 0, 8, 0x11, 0x22, 0x33, 0x44, 0, 0, 0, 0]));
    // The check value of every catalogue of CRCs.
    assert_eq!(sctp_checksum(b"123456789"), 0xe306_9283_u32.to_le_bytes());
    let ping = Frame::between("10.0.0.1", "10.0.0.2").echo_request(0x1234, 1).build();
    assert_eq!(ping[34..42], [8, 0, 0xe5, 0xca, 0x12, 0x34, 0, 1]);
}
