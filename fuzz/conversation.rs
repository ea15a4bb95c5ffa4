//! Two ends talk: any bytes, in any pieces, with holes, overlaps and joins.
//!
//! The first byte chooses how the connection begins and whether everything may be
//! shown, the second the server's port (which only decides between guesses). Then
//! come pieces, each ended by [`MARK`] and a byte that says what happens next.

use std::sync::LazyLock;

use weir_core::flow::{FlowKey, Protocol, Side};
use weir_core::l7::{Engine, Found, Limits, PROTOCOLS};
use weir_core::reveal::{Class, Reveal};
use weir_core::stream::Segment;

const MARK: &[u8] = &[0x01, 0xd5, 0xca];
const MEMORY_BYTES: usize = 4 << 20;

static PORTS: LazyLock<Vec<u16>> = LazyLock::new(|| {
    PROTOCOLS.iter().flat_map(|protocol| protocol.ports.iter().copied()).chain([9]).collect()
});

/// The input is a conversation of any protocol; with a protocol, at its server's
/// port, whatever the second byte says.
///
/// # Panics
/// If the engine keeps more than it may, or tells of what was not there.
pub fn talk(input: &[u8], protocol: Option<&str>) {
    let [begin, port, pieces @ ..] = input else { return };
    let of_protocol = |name| PROTOCOLS.iter().find(|one| one.name == name)?.ports.first().copied();
    let port = protocol.and_then(of_protocol).unwrap_or(PORTS[usize::from(*port) % PORTS.len()]);
    let udp = begin & 1 != 0;
    let transport = if udp { Protocol::UDP } else { Protocol::TCP };
    let (key, client) =
        FlowKey::between(([10, 0, 0, 2], 43_122).into(), ([10, 0, 0, 1], port).into(), transport);
    let reveal = if begin & 4 != 0 { Class::ALL.into_iter().collect() } else { Reveal::NOTHING };
    let mut talk = Talk {
        engine: Engine::new(Limits { memory_bytes: MEMORY_BYTES, ..Limits::default() }).revealing(reveal),
        key,
        next: [1, 1],
        now_ns: 0,
        udp,
    };
    if begin & 2 == 0 && !udp {
        talk.send(client, Segment { syn: true, ..Segment::default() });
        talk.send(client.other(), Segment { syn: true, ack: Some(1), ..Segment::default() });
    }
    let mut from = client;
    let mut rest = pieces;
    while !rest.is_empty() {
        let end = rest.windows(MARK.len()).position(|window| window == MARK).unwrap_or(rest.len());
        let (piece, after) = rest.split_at(end);
        talk.say(from, piece, 0);
        let after = after.get(MARK.len()..).unwrap_or_default();
        let (what, later) = after.split_first().unwrap_or((&0, &[]));
        rest = later;
        match what % 8 {
            0..=2 => from = from.other(),
            3 => talk.lose(from, u32::from(*what)),
            4 => talk.say(from, &[], u32::from(*what)),
            5 => talk.repeat(from, piece),
            6 => talk.close(from),
            _ => {}
        }
    }
    talk.engine.finish(&mut check);
    assert_eq!(talk.engine.memory_bytes(), 0);
}

struct Talk {
    engine: Engine,
    key: FlowKey,
    /// Sequence numbers, by side.
    next: [u32; 2],
    now_ns: u64,
    udp: bool,
}

impl Talk {
    fn send(&mut self, from: Side, segment: Segment<'_>) {
        self.now_ns += 1_000;
        if self.udp {
            let sent = segment.payload_bytes;
            self.engine.datagram(self.key, from, segment.payload, sent, self.now_ns, &mut check);
        } else {
            self.engine.segment(self.key, from, &segment, self.now_ns, &mut check);
        }
        assert!(self.engine.memory_bytes() <= MEMORY_BYTES);
    }

    /// `cut`: so many bytes more were sent than captured.
    fn say(&mut self, from: Side, payload: &[u8], cut: u32) {
        let seq = self.next[from.index()];
        let payload_bytes = payload.len() as u32 + cut;
        self.next[from.index()] = seq.wrapping_add(payload_bytes);
        let ack = Some(self.next[from.other().index()]);
        self.send(from, Segment { seq, ack, payload, payload_bytes, ..Segment::default() });
    }

    /// A hole: it will be acknowledged by what the other end says next.
    fn lose(&mut self, from: Side, length: u32) {
        self.next[from.index()] = self.next[from.index()].wrapping_add(length);
    }

    fn repeat(&mut self, from: Side, payload: &[u8]) {
        let payload_bytes = payload.len() as u32;
        let seq = self.next[from.index()].wrapping_sub(payload_bytes / 2);
        self.send(from, Segment { seq, payload, payload_bytes, ..Segment::default() });
    }

    fn close(&mut self, from: Side) {
        let seq = self.next[from.index()];
        self.send(from, Segment { seq, fin: true, ..Segment::default() });
    }
}

fn check(found: Found) {
    let exchange = found.exchange;
    assert!(exchange.request.is_some() || exchange.response.is_some(), "{exchange:?}");
    let texts = [exchange.target.as_ref(), exchange.error.as_ref(), Some(&exchange.operation)];
    assert!(texts.iter().flatten().all(|text| text.len() <= 1 << 20), "too long to be kept");
}
