//! Datagrams from port 53 are handed on for the names in them.

use weir_core::event::{DnsSeen, Event};
use weir_testkit::packet::Frame;
use weir_testkit::require_root;

use crate::expect::{A, A6, B, B6, key};
use crate::lab::{BACK_FIRST, BACK_SECOND, FIRST, Lab};

/// `DNS_CAPTURE_BYTES` of `bpf/abi.h`.
const CAPTURE_BYTES: usize = 1232;

fn message(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index % 251) as u8).collect()
}

/// What one datagram makes of the ring, its opening left out.
fn dns(lab: &mut Lab) -> Vec<DnsSeen> {
    let events = lab.events().into_iter();
    events
        .filter_map(|event| match event {
            Event::Dns(dns) => Some(dns),
            Event::Open(_) => None,
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn root_answers_are_captured_exactly() {
    require_root!();
    Lab::plain(|lab| {
        for (a, b) in [(A, B), (A6, B6)] {
            for length in [1, 12, 100, 511, 512, 513, CAPTURE_BYTES - 1, CAPTURE_BYTES] {
                let frame = Frame::between(b, a).udp(53, 5000).payload(&message(length)).build();
                lab.run(BACK_FIRST, &frame);
                let seen = dns(lab);
                assert_eq!(seen.len(), 1);
                assert_eq!(seen[0].payload, message(length));
                assert_eq!(seen[0].payload_bytes as usize, length);
                assert_eq!(seen[0].seen.key, key(17, (b, 53), (a, 5000)).0);
            }
        }
        assert_eq!(lab.lost("dns_truncated"), 0);
    });
}

#[test]
fn root_padding_is_not_captured() {
    require_root!();
    Lab::plain(|lab| {
        let mut frame = Frame::between(B, A).udp(53, 5000).payload(&message(12)).build();
        frame.resize(60, 0xee);
        lab.run(BACK_FIRST, &frame);
        assert_eq!(dns(lab)[0].payload, message(12));
    });
}

#[test]
fn root_a_long_answer_is_cut_and_counted() {
    require_root!();
    Lab::plain(|lab| {
        let frame = Frame::between(B, A).udp(53, 5000).payload(&message(CAPTURE_BYTES + 1)).build();
        lab.run(BACK_FIRST, &frame);
        let seen = dns(lab);
        assert_eq!(seen[0].payload, message(CAPTURE_BYTES));
        assert_eq!(seen[0].payload_bytes as usize, CAPTURE_BYTES + 1);
        assert_eq!(lab.lost("dns_truncated"), 1);
    });
}

#[test]
fn root_only_answers_and_only_once() {
    require_root!();
    Lab::plain(|lab| {
        // A query, the answer's second hook, TCP from port 53, and a later fragment.
        lab.run(FIRST, &Frame::between(A, B).udp(5000, 53).payload(&message(30)).build());
        let answer = Frame::between(B, A).udp(53, 5000).payload(&message(64)).build();
        lab.run(BACK_FIRST, &answer);
        lab.run(BACK_SECOND, &answer);
        lab.run(BACK_FIRST, &Frame::between(B, A).tcp(53, 5001, "A").payload(&message(30)).build());
        let piece = Frame::between(B, A).udp(53, 5000).payload(&message(64));
        lab.run(BACK_FIRST, &piece.clone().fragment(1, 0, true).build());
        lab.run(BACK_FIRST, &piece.fragment(1, 72, false).build());
        let seen = dns(lab);
        assert_eq!(seen.len(), 2, "{seen:?}");
        assert!(seen.iter().all(|dns| dns.payload == message(64)));
    });
}

#[test]
fn root_an_empty_answer_is_empty() {
    require_root!();
    Lab::plain(|lab| {
        lab.run(BACK_FIRST, &Frame::between(B, A).udp(53, 5000).build());
        let seen = dns(lab);
        assert_eq!((seen[0].payload_bytes, seen[0].payload.len()), (0, 0));
    });
}
