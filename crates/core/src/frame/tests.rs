use proptest::prelude::*;

use super::*;

fn udp(payload: &[u8]) -> Vec<u8> {
    let length = (8 + payload.len()) as u16;
    [&[0x30, 0x39, 0, 53][..], &length.to_be_bytes(), &[0, 0], payload].concat()
}

fn tcp(flags: u8, payload: &[u8]) -> Vec<u8> {
    // With one option of four bytes.
    [&[0x30, 0x39, 0, 80, 0, 0, 0, 7, 0, 0, 0, 9, 0x60, flags, 0xff, 0xff, 0, 0, 0, 0, 1, 1, 1, 1], payload]
        .concat()
}

fn ip4(protocol: u8, offset: u16, body: &[u8]) -> Vec<u8> {
    let total = (24 + body.len()) as u16;
    let [high, low] = total.to_be_bytes();
    let [flags, place] = offset.to_be_bytes();
    // With four bytes of options.
    [
        &[0x46, 0, high, low, 0, 77, flags, place, 64, protocol, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1, 1, 1, 1, 1],
        body,
    ]
    .concat()
}

fn ip6(next: u8, body: &[u8]) -> Vec<u8> {
    let [high, low] = (body.len() as u16).to_be_bytes();
    let mut bytes = vec![0x60, 0, 0, 0, high, low, next, 64];
    bytes.extend_from_slice(&"fd00::2".parse::<std::net::Ipv6Addr>().unwrap().octets());
    bytes.extend_from_slice(&"fd00::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
    [bytes, body.to_vec()].concat()
}

fn ethernet(ethertype: u16, body: &[u8]) -> Vec<u8> {
    [&[2; 12][..], &ethertype.to_be_bytes(), body].concat()
}

/// Sender, receiver and payload, as a line.
fn line(decoder: &mut Decoder, link: Link, frame: &[u8], sent: usize) -> String {
    match decoder.decode(link, frame, sent as u32, 0) {
        Err(reason) => reason.name().to_owned(),
        Ok(packet) => {
            let body = match packet.body {
                Body::Tcp(segment) => format!(
                    "tcp {}{} {}/{}",
                    segment.seq,
                    segment.ack.map(|ack| format!(" ack {ack}")).unwrap_or_default(),
                    String::from_utf8_lossy(segment.payload),
                    segment.payload_bytes
                ),
                Body::Udp { payload, payload_bytes } => {
                    format!("udp {}/{payload_bytes}", String::from_utf8_lossy(payload))
                }
                Body::Other => format!("protocol {}", packet.key.protocol),
                Body::Fragment | Body::Stray => return "fragment".to_owned(),
            };
            format!("{} > {} {body}", packet.key.socket(packet.from), packet.key.socket(packet.from.other()))
        }
    }
}

fn once(link: Link, frame: &[u8]) -> String {
    line(&mut Decoder::default(), link, frame, frame.len())
}

const DATAGRAM: &str = "10.0.0.2:12345 > 10.0.0.1:53 udp hello/5";

#[test]
fn every_link_layer_is_read() {
    let packet = ip4(17, 0, &udp(b"hello"));
    let cooked = [&[0; 14][..], &[8, 0], &packet].concat();
    let cooked2 = [&[8, 0][..], &[0; 18], &packet].concat();
    let tagged = ethernet(0x88a8, &[&[0, 1, 0x81, 0, 0, 2, 8, 0], &packet[..]].concat());
    assert_eq!(once(Link::Ethernet, &[ethernet(0x0800, &packet), vec![0; 9]].concat()), DATAGRAM, "padding");
    assert_eq!(once(Link::Ethernet, &tagged), DATAGRAM);
    assert_eq!(once(Link::Ip, &packet), DATAGRAM);
    assert_eq!(once(Link::Cooked, &cooked), DATAGRAM);
    assert_eq!(once(Link::Cooked2, &cooked2), DATAGRAM);
    assert_eq!(once(Link::Loopback, &[&[2, 0, 0, 0], &packet[..]].concat()), DATAGRAM);
    assert_eq!(once(Link::Loopback, &[&[0, 0, 0, 2], &packet[..]].concat()), DATAGRAM);
    let ip6 = ip6(17, &udp(b"hello"));
    assert_eq!(
        once(Link::Loopback, &[&[30, 0, 0, 0], &ip6[..]].concat()),
        "[fd00::2]:12345 > [fd00::1]:53 udp hello/5"
    );
    let numbers = [0, 1, 101, 108, 113, 228, 229, 276].map(Link::from_number);
    assert!(numbers.iter().all(Option::is_some));
    assert_eq!(Link::from_number(105), None, "802.11");
}

#[test]
fn tcp_and_its_cut_payload_are_read() {
    let frame = ethernet(0x0800, &ip4(6, 0, &tcp(0x18, b"payload")));
    let full = once(Link::Ethernet, &frame);
    assert_eq!(full, "10.0.0.2:12345 > 10.0.0.1:80 tcp 7 ack 9 payload/7");
    let cut = line(&mut Decoder::default(), Link::Ethernet, &frame[..frame.len() - 4], frame.len());
    assert_eq!(cut, "10.0.0.2:12345 > 10.0.0.1:80 tcp 7 ack 9 pay/7");
    let mut offloaded = frame.clone();
    offloaded[16..18].copy_from_slice(&[0, 0]);
    assert_eq!(once(Link::Ethernet, &offloaded), full, "no length in the header");
}

#[test]
fn extension_headers_are_walked() {
    let body =
        [&[60, 0, 0, 0, 0, 0, 0, 0][..], &[44, 1], &[0; 14], &[17, 0, 0, 0, 0, 0, 0, 9], &udp(b"hello")]
            .concat();
    assert_eq!(once(Link::Ip, &ip6(0, &body)), "[fd00::2]:12345 > [fd00::1]:53 udp hello/5");
    let deep = [60, 0, 0, 0, 0, 0, 0, 0].repeat(20);
    assert_eq!(once(Link::Ip, &ip6(60, &deep)), "headers_too_deep");
}

#[test]
fn padding_behind_nothing_is_no_payload() {
    let payload = |frame: &[u8]| {
        Decoder::default().decode(Link::Ethernet, frame, frame.len() as u32, 0).unwrap().payload_bytes
    };
    let mut padded = ethernet(0x86dd, &ip6(253, &[]));
    padded.resize(60, 0);
    assert_eq!(payload(&padded), 0);
    let mut offloaded = ethernet(0x86dd, &ip6(6, &tcp(0x18, &[b'x'; 2_000])));
    offloaded[18..20].fill(0);
    assert_eq!(payload(&offloaded), 2_000);
}

#[test]
fn fragments_are_joined_in_any_order() {
    let whole = udp(&[b'x'; 40]);
    let pieces = [(0, true), (16, true), (32, false)];
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let mut decoder = Decoder::default();
        let lines: Vec<_> = order
            .iter()
            .map(|index| {
                let (place, more): (usize, bool) = pieces[*index];
                let end = if more { place + 16 } else { whole.len() };
                let offset = (place / 8) as u16 | if more { 0x2000 } else { 0 };
                let frame = ip4(17, offset, &whole[place..end]);
                line(&mut decoder, Link::Ip, &frame, frame.len())
            })
            .collect();
        assert_eq!(lines[..2], ["fragment", "fragment"]);
        assert_eq!(lines[2], format!("10.0.0.2:12345 > 10.0.0.1:53 udp {}/40", "x".repeat(40)));
        assert_eq!(decoder.unjoined(), 0);
    }
}

#[test]
fn a_fragment_that_comes_again_is_its_datagrams() {
    let mut decoder = Decoder::default();
    let whole = udp(&[b'x'; 24]);
    let mut decode = |place: usize, more| {
        let offset = (place / 8) as u16 | if more { 0x2000 } else { 0 };
        let frame = ip4(17, offset, &whole[place..place + 16]);
        let packet = decoder.decode(Link::Ip, &frame, frame.len() as u32, 0).unwrap();
        (packet.key.ports, packet.payload_bytes, matches!(packet.body, Body::Stray))
    };
    // In the order of the addresses, of which the server's is the lower one.
    let ports = [53, 12345];
    assert_eq!(decode(16, false), ([0, 0], 16, true), "the ports are not known yet");
    assert_eq!(decode(0, true), (ports, 8, false), "whole, but each frame has its own payload");
    for _ in 0..2 {
        assert_eq!(decode(16, false), (ports, 16, false), "the datagram was whole already");
    }
    assert_eq!(decode(0, true), (ports, 8, false));
}

#[test]
fn first_fragments_are_remembered_within_bounds() {
    let mut decoder = Decoder::default();
    let mut decode = |id: u16, offset: u16| {
        let mut frame = ip4(17, offset, &udp(&[0; 8]));
        frame[4..6].copy_from_slice(&id.to_be_bytes());
        matches!(
            decoder.decode(Link::Ip, &frame, frame.len() as u32, 0).unwrap().body,
            Body::Fragment | Body::Udp { .. }
        )
    };
    for id in (0..8_193).chain(std::iter::repeat_n(8_192, 20_000)) {
        assert!(decode(id, 0x2000));
    }
    assert!(!decode(0, 2) && decode(1, 2) && decode(8_192, 2));
    let (ends, order) = decoder.firsts.lengths();
    assert!(ends == 8_192 && order <= 2 * 8_192, "{ends} {order}");
}

#[test]
fn fragments_that_wait_are_bounded_and_counted() {
    let mut decoder = Decoder::default();
    for id in 0..1_000u16 {
        let mut frame = ip4(17, 0x2000, &[0; 16]);
        frame[4..6].copy_from_slice(&id.to_be_bytes());
        assert_eq!(line(&mut decoder, Link::Ip, &frame, frame.len()), "fragment");
    }
    assert!(decoder.fragments.waiting.len() <= 256);
    assert_eq!(decoder.unjoined(), 1_000);
    let frame = ip4(17, 0x2000, &[0; 16]);
    decoder.decode(Link::Ip, &frame, frame.len() as u32, 90_000_000_000).unwrap();
    assert_eq!(
        (decoder.fragments.waiting.len(), decoder.unjoined()),
        (1, 1_001),
        "the others had their time"
    );
}

#[test]
fn what_is_no_packet_has_a_reason() {
    assert_eq!(once(Link::Ethernet, &ethernet(0x0806, &[0; 28])), "arp");
    assert_eq!(once(Link::Ethernet, &ethernet(0x88cc, &[0; 28])), "non_ip");
    assert_eq!(once(Link::Ip, &ip6(58, &[135, 0, 0, 0, 0, 0, 0, 0])), "neighbor_discovery");
    assert_eq!(
        once(Link::Ip, &ip6(58, &[128, 0, 0, 0, 0, 9, 0, 1])),
        "[fd00::2]:0 > [fd00::1]:0 protocol icmpv6"
    );
    let mut short = ip4(17, 0, &udp(b"hello"));
    short[3] = 20;
    assert_eq!(once(Link::Ip, &short), "malformed", "shorter than its own header");
    let frame = ip4(6, 0, &tcp(2, b""));
    assert_eq!(line(&mut Decoder::default(), Link::Ip, &frame[..30], frame.len()), "truncated");
}

#[test]
fn every_truncation_and_flipped_bit_is_survived() {
    let frames = [
        ethernet(0x0800, &ip4(6, 0, &tcp(0x18, b"payload"))),
        ethernet(0x86dd, &ip6(44, &[&[17, 0, 0, 1, 0, 0, 0, 9], &udp(b"hello")[..]].concat())),
    ];
    for frame in frames {
        for length in 0..frame.len() {
            line(&mut Decoder::default(), Link::Ethernet, &frame[..length], frame.len());
        }
        for bit in 0..frame.len() * 8 {
            let mut flipped = frame.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            once(Link::Ethernet, &flipped);
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_survived(frame in prop::collection::vec(any::<u8>(), 0..200), sent in 0usize..400, link in 0usize..5) {
        let link = [Link::Ethernet, Link::Ip, Link::Cooked, Link::Cooked2, Link::Loopback][link];
        line(&mut Decoder::default(), link, &frame, sent);
    }
}
