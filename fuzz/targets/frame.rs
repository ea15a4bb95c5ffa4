//! Any frames, of any link layer, one after the other (so that fragments and flows meet).
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_core::flow::Tracker;
use weir_core::frame::{Body, Decoder, Link};

fuzz_target!(|input: &[u8]| {
    let mut decoder = Decoder::default();
    let mut tracker = Tracker::default();
    let mut rest = input;
    let mut time_ns = 0;
    while let [link, length, more, tail @ ..] = rest {
        let length = usize::from(*length).min(tail.len());
        let (frame, later) = tail.split_at(length);
        rest = later;
        time_ns += u64::from(*more) * 1_000_000_000;
        let link =
            [Link::Ethernet, Link::Ip, Link::Cooked, Link::Cooked2, Link::Loopback][usize::from(*link) % 5];
        let sent = (frame.len() + usize::from(*more)) as u32;
        if let Ok(packet) = decoder.decode(link, frame, sent, time_ns) {
            let step = tracker.packet(&packet, sent, time_ns);
            assert!(!step.is_table_full);
            match packet.body {
                Body::Tcp(segment) => assert!(segment.payload.len() <= segment.payload_bytes as usize),
                Body::Udp { payload, payload_bytes } => assert!(payload.len() <= payload_bytes as usize),
                Body::Other | Body::Fragment | Body::Stray => {}
            }
        }
    }
});
