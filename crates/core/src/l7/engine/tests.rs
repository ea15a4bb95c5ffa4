mod frames;
mod live;
mod loss;

use super::*;
use crate::capture::PayloadSeen;
use crate::flow::Protocol;

const SECOND_NS: u64 = 1_000_000_000;

/// A client's way to one server, by its port.
fn key(port: u16) -> (FlowKey, Side) {
    let client = ([10, 0, 0, 2], port).into();
    FlowKey::between(client, ([10, 0, 0, 1], 80).into(), Protocol::TCP)
}

struct Traffic {
    engine: Engine,
    found: Vec<Found>,
    now_ns: u64,
}

impl Traffic {
    fn new(memory_bytes: usize) -> Self {
        Self {
            engine: Engine::new(Limits { memory_bytes, ..Limits::default() }),
            found: Vec::new(),
            now_ns: 0,
        }
    }

    fn send(&mut self, port: u16, asks: bool, segment: Segment<'_>) {
        let (key, client) = key(port);
        let from = if asks { client } else { client.other() };
        self.now_ns += 1_000;
        let Self { engine, found, now_ns } = self;
        engine.segment(key, from, &segment, *now_ns, &mut |one| found.push(one));
    }

    fn open(&mut self, port: u16, seq: u32) {
        self.send(port, true, Segment { seq, syn: true, ..Segment::default() });
        self.send(port, false, Segment { seq: 9, ack: Some(seq + 1), syn: true, ..Segment::default() });
    }

    fn say(&mut self, port: u16, asks: bool, seq: u32, text: &str) {
        let payload = text.as_bytes();
        self.send(
            port,
            asks,
            Segment { seq, payload, payload_bytes: payload.len() as u32, ..Segment::default() },
        );
    }

    fn lines(&self) -> Vec<String> {
        let line = |one: &Found| {
            let target = one.exchange.target.as_deref().unwrap_or("?");
            format!("{target} {}", one.exchange.status.as_deref().unwrap_or("-"))
        };
        self.found.iter().map(line).collect()
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

#[test]
fn the_longest_silent_conversation_makes_room() {
    let mut traffic = Traffic::new(100_000);
    for port in 1..=1_000 {
        traffic.open(port, 100);
        traffic.say(port, true, 101, &format!("GET /{port} HTTP/1.1\r\n\r\n"));
        // The first one stays busy.
        traffic.say(1, false, 10 + u32::from(port - 1) * OK.len() as u32, OK);
        assert!(traffic.engine.memory_bytes() <= 100_000);
    }
    let evicted = traffic.engine.tally().evicted;
    assert!(evicted > 800, "{evicted}");
    let Traffic { engine, found, .. } = &mut traffic;
    engine.finish(&mut |one| found.push(one));
    assert_eq!(engine.memory_bytes(), 0);
    let lines = traffic.lines();
    assert_eq!(lines[0], "/1 200");
    let told = lines.iter().filter(|line| line.ends_with(" -")).count();
    assert_eq!(told, 999, "what was evicted is told, without its answer");
    assert_eq!(traffic.engine.tally().conversations, 1_000);
}

#[test]
fn a_port_that_is_used_again_is_another_connection() {
    let mut traffic = Traffic::new(1 << 20);
    for (round, seq) in [100, 90_000_000].into_iter().enumerate() {
        traffic.open(7, seq);
        traffic.say(7, true, seq + 1, &format!("GET /{round} HTTP/1.1\r\n\r\n"));
    }
    traffic.say(7, false, 10, OK);
    assert_eq!(traffic.lines(), ["/0 -", "/1 200"]);
    assert_ne!(traffic.found[0].first_ns, traffic.found[1].first_ns);
}

#[test]
fn a_connection_that_ended_is_forgotten() {
    let mut traffic = Traffic::new(1 << 20);
    traffic.open(7, 100);
    traffic.say(7, true, 101, "GET / HTTP/1.1\r\n\r\n");
    traffic.say(7, false, 10, OK);
    traffic.send(7, true, Segment { seq: 119, fin: true, ..Segment::default() });
    traffic.send(7, false, Segment { seq: 10 + OK.len() as u32, fin: true, ..Segment::default() });
    assert_eq!(traffic.engine.memory_bytes(), 0);
    traffic.send(7, false, Segment { seq: 11, rst: true, ..Segment::default() });
    assert_eq!((traffic.engine.memory_bytes(), traffic.lines()), (0, vec!["/ 200".to_owned()]));
}

#[test]
fn a_hole_is_counted_and_marked() {
    let mut traffic = Traffic::new(1 << 20);
    traffic.open(7, 100);
    traffic.say(7, true, 101, "GET / HTTP/1.1\r\n\r\n");
    traffic.say(7, false, 10, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n");
    traffic.send(7, false, Segment { seq: 10 + 40 + 100, fin: true, ..Segment::default() });
    traffic.send(7, true, Segment { seq: 119, ack: Some(151), fin: true, ..Segment::default() });
    assert_eq!(traffic.lines(), ["/ 200"]);
    assert_eq!(traffic.found[0].exchange.capture, crate::record::Capture::Gap);
    assert_eq!(traffic.found[0].exchange.response.unwrap().bytes, 140);
    assert_eq!(traffic.engine.tally().gaps_lost, 1);
}

#[test]
fn what_is_not_understood_costs_next_to_nothing_and_is_counted() {
    let mut traffic = Traffic::new(1 << 20);
    traffic.open(7, 100);
    for round in 0..100 {
        traffic.say(7, true, 101 + round * 1_000, &"\u{7f}".repeat(1_000));
        assert!(traffic.engine.memory_bytes() < 2_000);
    }
    for round in (0..100).rev() {
        traffic.say(7, true, 201_101 + round * 1_000, &"\u{7f}".repeat(1_000));
        assert!(traffic.engine.memory_bytes() < 12_000, "not even behind a hole");
    }
    assert_eq!(traffic.engine.tally().bypassed, [(Why::NotUnderstood, 1)].into());
    assert_eq!(traffic.found.len(), 0);
}

#[test]
fn datagrams_that_stay_away_end_their_conversation() {
    let (key, client) =
        FlowKey::between(([10, 0, 0, 2], 7).into(), ([10, 0, 0, 1], 53).into(), Protocol::UDP);
    let question = [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'a', 0, 0, 1, 0, 1];
    let mut engine = Engine::new(Limits::default());
    let mut found = Vec::new();
    engine.datagram(key, client, &question, 19, 0, &mut |one| found.push(one));
    let later = FlowKey { ports: [54, 8], ..key };
    engine.datagram(later, client, &question, 19, 61 * SECOND_NS, &mut |one| found.push(one));
    assert_eq!(found.len(), 1, "nobody answers any more");
    assert_eq!((found[0].key, found[0].time_ns), (key, 0));
}
