//! A client and a server that say a dialogue, and who listens.

use std::hint::black_box;

use weir_core::flow::{FlowKey, Protocol, Side};
use weir_core::l7::{Engine, Found, Limits};
use weir_core::stream::Segment;

use crate::dialogue::{Dialogue, Turn};

const CLIENT: [u8; 4] = [10, 0, 0, 2];
const SERVER: [u8; 4] = [10, 0, 0, 1];
const FIRST_PORT: u16 = 10_000;
/// Between any two packets.
const STEP_NS: u64 = 1_000;

/// Between whom a packet passes.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// The connection.
    pub key: FlowKey,
    /// Whose end of it the client is.
    pub client: Side,
    /// Whether the client sends this packet.
    pub asks: bool,
    /// Addresses and ports of the client and of the server.
    pub ends: [([u8; 4], u16); 2],
    /// Nanoseconds since the talk began.
    pub time_ns: u64,
}

impl Place {
    fn from(&self) -> Side {
        if self.asks { self.client } else { self.client.other() }
    }
}

/// Who hears what passes.
pub trait Listener {
    /// One segment of TCP.
    fn segment(&mut self, place: &Place, segment: &Segment<'_>);

    /// One datagram of UDP.
    fn datagram(&mut self, place: &Place, payload: &[u8]);
}

/// weir's, as they are behind `weir audit` and `weir read`.
#[derive(Default)]
pub struct Parsers {
    engine: Engine,
    /// Requests that were found.
    pub found: u64,
}

impl Parsers {
    /// With the limits that weir has by default.
    #[must_use]
    pub fn new() -> Self {
        Self { engine: Engine::new(Limits::default()), ..Self::default() }
    }

    /// Ends every connection; what was found last.
    #[must_use]
    pub fn finish(mut self) -> Option<Found> {
        let mut last = None;
        self.engine.finish(&mut |one| last = Some(one));
        last
    }
}

impl Listener for Parsers {
    fn segment(&mut self, place: &Place, segment: &Segment<'_>) {
        let Self { engine, found, .. } = self;
        engine.segment(place.key, place.from(), segment, place.time_ns, &mut |one| {
            black_box(one).exchange.give_back();
            *found += 1;
        });
    }

    fn datagram(&mut self, place: &Place, payload: &[u8]) {
        let Self { engine, found, .. } = self;
        let sent_bytes = payload.len() as u32;
        engine.datagram(place.key, place.from(), payload, sent_bytes, place.time_ns, &mut |one| {
            black_box(one).exchange.give_back();
            *found += 1;
        });
    }
}

/// A dialogue that is being said.
pub struct Talk<'a, L> {
    dialogue: &'a Dialogue,
    /// Who hears it.
    pub listener: L,
    /// The dialogue's, numbered.
    turns: Vec<Turn>,
    segment_bytes: usize,
    place: Place,
    /// The next sequence numbers, of the server and of the client.
    next: [u32; 2],
    stream: u32,
}

impl<'a, L: Listener> Talk<'a, L> {
    /// Connects, and says what is said once. No segment carries more than `segment_bytes`.
    pub fn new(dialogue: &'a Dialogue, segment_bytes: usize, listener: L) -> Self {
        let mut talk = Self {
            dialogue,
            listener,
            turns: dialogue.turns.clone(),
            segment_bytes,
            place: place(dialogue, FIRST_PORT),
            next: [1, 1],
            stream: 1,
        };
        if !dialogue.reconnects {
            talk.open();
        }
        talk
    }

    /// Says everything that is said in a round.
    pub fn round(&mut self) {
        if self.dialogue.reconnects {
            self.open();
        }
        let mut turns = std::mem::take(&mut self.turns);
        for (asks, bytes) in &mut turns {
            if let Some(number) = self.dialogue.numbered {
                number(bytes, self.stream);
            }
            self.say(*asks, bytes);
        }
        self.turns = turns;
        self.stream += 2;
        if self.dialogue.reconnects {
            self.close();
        }
    }

    /// Says one thing more.
    pub fn say(&mut self, asks: bool, bytes: &[u8]) {
        if self.dialogue.udp {
            self.pass(asks);
            return self.listener.datagram(&self.place, bytes);
        }
        for payload in bytes.chunks(self.segment_bytes) {
            self.send(asks, Segment { payload, payload_bytes: payload.len() as u32, ..Segment::default() });
        }
    }

    fn open(&mut self) {
        if !self.dialogue.udp {
            for asks in [true, false] {
                self.send(asks, Segment { syn: true, ..Segment::default() });
            }
        }
        for (asks, bytes) in &self.dialogue.opening {
            self.say(*asks, bytes);
        }
    }

    /// The next connection is another client's.
    fn close(&mut self) {
        for asks in [true, false] {
            self.send(asks, Segment { fin: true, ..Segment::default() });
        }
        let [(_, port), _] = self.place.ends;
        let place = place(self.dialogue, port.checked_add(1).unwrap_or(FIRST_PORT));
        self.place = Place { time_ns: self.place.time_ns, ..place };
        self.next = [1, 1];
    }

    fn send(&mut self, asks: bool, segment: Segment<'_>) {
        self.pass(asks);
        let from = usize::from(asks);
        let seq = self.next[from];
        let taken = segment.payload_bytes + u32::from(segment.syn) + u32::from(segment.fin);
        self.next[from] = seq.wrapping_add(taken);
        let ack = if segment.syn && asks { None } else { Some(self.next[1 - from]) };
        self.listener.segment(&self.place, &Segment { seq, ack, ..segment });
    }

    fn pass(&mut self, asks: bool) {
        self.place.asks = asks;
        self.place.time_ns += STEP_NS;
    }
}

fn place(dialogue: &Dialogue, client_port: u16) -> Place {
    let protocol = if dialogue.udp { Protocol::UDP } else { Protocol::TCP };
    let ends = [(CLIENT, client_port), (SERVER, dialogue.port)];
    let (key, client) = FlowKey::between(ends[0].into(), ends[1].into(), protocol);
    Place { key, client, asks: true, ends, time_ns: 0 }
}
