//! What requests cost once their bytes are there: from segments to exchanges, on
//! one core, without a kernel and without a network.

mod traffic;

use std::hint::black_box;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::time::{ClockId, clock_gettime};
use weir_core::flow::{FlowKey, Protocol, Side};
use weir_core::l7::{Engine, Limits};
use weir_core::stream::Segment;

use crate::Plan;
use crate::report::{Table, at_most, grouped};
use crate::statistics::Spread;
use traffic::{Load, loads};

/// As long as segments are at a veth, before they are cut for a wire.
const SEGMENT_BYTES: usize = 65_160;
/// Times of fewer rounds say little.
const ROUNDS_MIN: u32 = 64;

/// Measures every load.
pub(crate) fn measure(plan: &Plan) -> Result<Vec<Table>> {
    let rows = loads().iter().map(|load| row(plan, load)).collect::<Result<_>>()?;
    Ok(vec![Table {
        title: "Parsers".into(),
        note: format!(
            "From TCP segments (or datagrams) to finished exchanges: reassembly, the protocol's parser, pairing, \
             redaction. One connection, one core, medians of {} samples of {} ms. httparse: the same heads through \
             httparse alone, which finds where names and values stand and keeps nothing.",
            plan.parser_samples,
            plan.parser_sample.as_millis()
        ),
        columns: vec![
            "load",
            "bytes a request",
            "ns a request",
            "requests/s",
            "MB/s",
            "httparse ns",
            "target",
        ],
        rows,
    }])
}

fn row(plan: &Plan, load: &Load) -> Result<Vec<String>> {
    let requests = f64::from(load.requests);
    // A number for what was passed over would say nothing.
    let mut talk = Talk::new(load);
    let before = talk.found;
    (0..10).for_each(|_| talk.round(load));
    let (found, said) = (talk.found - before, 10 * u64::from(load.requests));
    ensure!(found.abs_diff(said) <= 1, "{}: {found} of {said} requests were found", load.name);

    let ns = median(plan, || Talk::new(load), |talk| talk.round(load))?;
    let ns_each = ns / requests;
    let bytes: usize = load.turns.iter().map(|(_, bytes)| bytes.len()).sum();
    let heads_ns = match load.heads.is_empty() {
        true => None,
        false => {
            Some(median(plan, || (), |()| load.heads.iter().for_each(|head| httparse_head(head)))? / requests)
        }
    };
    let target = match (heads_ns, load.target_ns) {
        (Some(heads_ns), _) if load.is_compared => at_most(ns_each / heads_ns, 2.0, " × httparse"),
        (_, Some(limit)) => at_most(ns_each, limit, " ns"),
        _ => String::new(),
    };
    Ok(vec![
        load.name.to_owned(),
        grouped(bytes as u64 / u64::from(load.requests)),
        format!("{ns_each:.0}"),
        grouped((1e9 / ns_each) as u64),
        grouped((bytes as f64 * 1_000.0 / ns) as u64),
        heads_ns.map_or_else(String::new, |ns| format!("{ns:.0}")),
        target,
    ])
}

/// Nanoseconds of one call of `work`, the median of several samples.
fn median<T>(plan: &Plan, begin: impl Fn() -> T, mut work: impl FnMut(&mut T)) -> Result<f64> {
    let mut samples = Vec::new();
    for _ in 0..plan.parser_samples {
        let mut state = begin();
        // Warm up: find out what it speaks, fill the caches.
        (0..ROUNDS_MIN).for_each(|_| work(&mut state));
        let (started, mut rounds, mut elapsed) = (cpu_time(), 0_u32, Duration::ZERO);
        while elapsed < plan.parser_sample {
            (0..ROUNDS_MIN).for_each(|_| work(&mut state));
            rounds += ROUNDS_MIN;
            elapsed = cpu_time().saturating_sub(started);
        }
        samples.push(elapsed.as_nanos() as f64 / f64::from(rounds));
    }
    Ok(Spread::of(&samples).context("no sample")?.median)
}

/// CPU time of this thread: others may want the core too.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn httparse_head(head: &[u8]) {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    if head.starts_with(b"HTTP/") {
        let mut response = httparse::Response::new(&mut headers);
        let _ = black_box(response.parse(head));
    } else {
        let mut request = httparse::Request::new(&mut headers);
        let _ = black_box(request.parse(head));
    }
}

/// One connection.
struct Talk {
    engine: Engine,
    key: FlowKey,
    client: Side,
    /// By side.
    next: [u32; 2],
    now_ns: u64,
    found: u64,
    stream: u32,
}

impl Talk {
    fn new(load: &Load) -> Self {
        let protocol = if load.udp { Protocol::UDP } else { Protocol::TCP };
        let (key, client) =
            FlowKey::between(([10, 0, 0, 2], 43_122).into(), ([10, 0, 0, 1], load.port).into(), protocol);
        let mut talk = Self {
            engine: Engine::new(Limits::default()),
            key,
            client,
            next: [1, 1],
            now_ns: 0,
            found: 0,
            stream: 1,
        };
        if !load.udp {
            talk.send(client, Segment { syn: true, ..Segment::default() });
            talk.send(client.other(), Segment { syn: true, ack: Some(1), ..Segment::default() });
        }
        for (asks, bytes) in &load.opening {
            talk.say(load, *asks, bytes);
        }
        talk
    }

    fn round(&mut self, load: &Load) {
        match load.numbered {
            None => load.turns.iter().for_each(|(asks, bytes)| self.say(load, *asks, bytes)),
            Some(number) => {
                for (asks, bytes) in &load.turns {
                    let mut bytes = bytes.clone();
                    number(&mut bytes, self.stream);
                    self.say(load, *asks, &bytes);
                }
                self.stream += 2;
            }
        }
        black_box(self.found);
    }

    fn say(&mut self, load: &Load, asks: bool, bytes: &[u8]) {
        let from = if asks { self.client } else { self.client.other() };
        if load.udp {
            self.now_ns += 1_000;
            let Self { engine, key, now_ns, found, .. } = self;
            let sent_bytes = bytes.len() as u32;
            return engine.datagram(*key, from, bytes, sent_bytes, *now_ns, &mut |one| {
                black_box(one);
                *found += 1;
            });
        }
        for payload in bytes.chunks(SEGMENT_BYTES) {
            let seq = self.next[from.index()];
            let payload_bytes = payload.len() as u32;
            self.next[from.index()] = seq.wrapping_add(payload_bytes);
            let ack = Some(self.next[from.other().index()]);
            self.send(from, Segment { seq, ack, payload, payload_bytes, ..Segment::default() });
        }
    }

    fn send(&mut self, from: Side, segment: Segment<'_>) {
        self.now_ns += 1_000;
        let Self { engine, key, now_ns, found, .. } = self;
        engine.segment(*key, from, &segment, *now_ns, &mut |one| {
            black_box(one);
            *found += 1;
        });
    }
}
