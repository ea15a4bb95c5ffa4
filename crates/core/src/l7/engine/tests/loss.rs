//! Packets that were not captured, or not in order, in both directions at once.

use proptest::prelude::*;

use super::*;

/// One packet, before it is known whether it is captured.
struct Sent {
    asks: bool,
    seq: u32,
    ack: u32,
    bytes: Vec<u8>,
}

/// A client that waits for each answer: of every request it is known which one is its own.
fn dialogue(exchanges: &[(Vec<u8>, Vec<u8>)], segment_bytes: usize) -> Vec<Sent> {
    let mut next = [101, 10];
    let mut sent = Vec::new();
    for (asked, answered) in exchanges {
        for (asks, bytes) in [(true, asked), (false, answered)] {
            for piece in bytes.chunks(segment_bytes) {
                let [own, peer] = if asks { [0, 1] } else { [1, 0] };
                sent.push(Sent { asks, seq: next[own], ack: next[peer], bytes: piece.to_vec() });
                next[own] += piece.len() as u32;
            }
        }
    }
    sent
}

fn http(number: usize, body_bytes: usize) -> (Vec<u8>, Vec<u8>) {
    let body = "b".repeat(body_bytes);
    let head = format!("POST /{number} HTTP/1.1\r\nContent-Length: {body_bytes}\r\n\r\n{body}");
    (
        head.into(),
        format!("HTTP/1.1 {} No\r\nContent-Length: {body_bytes}\r\n\r\n{body}", 400 + number).into(),
    )
}

fn redis(number: usize, value_bytes: usize) -> (Vec<u8>, Vec<u8>) {
    let value = "v".repeat(value_bytes);
    let key = format!("{number:03}");
    let asked = format!("*3\r\n$3\r\nSET\r\n$3\r\n{key}\r\n${value_bytes}\r\n{value}\r\n");
    (asked.into(), format!("-E{key} no\r\n").into())
}

fn mysql(number: usize, _: usize) -> (Vec<u8>, Vec<u8>) {
    let asked = format!("\u{3}SELECT a FROM t{number:03}");
    let error = [b"\xff", (3_000 + number as u16).to_le_bytes().as_slice(), b"#HY000no"].concat();
    let packet = |number: u8, body: &[u8]| [&[body.len() as u8, 0, 0, number], body].concat();
    (packet(0, asked.as_bytes()), packet(1, &error))
}

/// The number in a text.
fn number(text: &str) -> usize {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever is missing, and in whatever order the rest was captured: who waits for
    /// its answers is never given another one.
    #[test]
    fn no_loss_pairs_wrongly(
        protocol in 0..3_usize,
        sizes in prop::collection::vec(prop::sample::select(vec![1_usize, 70, 600, 3_000]), 3..12),
        segment_bytes in prop::sample::select(vec![7_usize, 50, 1_400]),
        lost in prop::collection::vec((any::<prop::sample::Index>(), 1..4_usize), 0..4),
        swapped in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        repeated in prop::collection::vec((any::<prop::sample::Index>(), 0..4_usize), 0..3),
        late in any::<bool>(),
    ) {
        let make = [http, redis, mysql][protocol];
        let exchanges: Vec<_> = sizes.iter().enumerate().map(|(at, size)| make(at + 1, *size)).collect();
        let sent = dialogue(&exchanges, segment_bytes);
        let is_lost = |at: usize| lost.iter().any(|(first, count)| {
            let first = first.index(sent.len());
            (first..first + count).contains(&at)
        });
        let mut seen: Vec<&Sent> =
            sent.iter().enumerate().filter(|(at, _)| !is_lost(*at)).map(|(_, packet)| packet).collect();
        for place in swapped {
            let place = place.index(sent.len());
            if place + 1 < seen.len() && seen[place].asks == seen[place + 1].asks {
                seen.swap(place, place + 1);
            }
        }
        for (place, after) in repeated {
            let place = place.index(sent.len());
            if place < seen.len() {
                seen.insert((place + after).min(seen.len()), seen[place]);
            }
        }
        let mut traffic = Traffic::new(1 << 22);
        if !late {
            traffic.open(7, 100);
        }
        for Sent { asks, seq, ack, bytes } in seen {
            let payload_bytes = bytes.len() as u32;
            traffic.send(7, *asks, Segment { seq: *seq, ack: Some(*ack), payload: bytes, payload_bytes, ..Segment::default() });
        }
        let Traffic { engine, found, .. } = &mut traffic;
        engine.finish(&mut |one| found.push(one));
        let mut pairs = 0;
        for Found { exchange, .. } in &traffic.found {
            if let (Some(_), Some(_), Some(target), Some(status)) =
                (exchange.request, exchange.response, &exchange.target, &exchange.status)
            {
                prop_assert_eq!(number(target), number(status) % 100, "{:?}", exchange);
                pairs += 1;
            }
        }
        prop_assert!(late || !lost.is_empty() || pairs == exchanges.len() || protocol == 2, "{} pairs", pairs);
    }
}
