//! What requests cost once their bytes are there: from segments to exchanges, on
//! one core, without a kernel and without a network.

use std::hint::black_box;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weir_bench::{Dialogue, Parsers, Talk, cpu_time, dialogues};

use crate::Plan;
use crate::report::{Table, at_most, grouped};
use crate::statistics::Spread;

/// As long as segments are at a veth, before they are cut for a wire.
const SEGMENT_BYTES: usize = 65_160;
/// Times of fewer rounds say little.
const ROUNDS_MIN: u32 = 64;

/// Measures every dialogue.
pub(crate) fn measure(plan: &Plan) -> Result<Vec<Table>> {
    let rows = dialogues().iter().map(|dialogue| row(plan, dialogue)).collect::<Result<_>>()?;
    Ok(vec![Table {
        title: "Parsers".into(),
        note: format!(
            "From TCP segments (or datagrams) to finished exchanges: reassembly, the protocol's parser, pairing, \
             redaction. One connection, one core, medians of {} samples of {} ms. httparse: the same heads through \
             httparse alone, which finds where names and values stand and keeps nothing. Of WebSocket, a message \
             stands for a request.",
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

fn talk(dialogue: &Dialogue) -> Talk<'_, Parsers> {
    Talk::new(dialogue, SEGMENT_BYTES, Parsers::new())
}

fn row(plan: &Plan, dialogue: &Dialogue) -> Result<Vec<String>> {
    let requests = f64::from(dialogue.requests);
    // A number for what was passed over would say nothing.
    let mut trial = talk(dialogue);
    let before = trial.listener.found;
    (0..10).for_each(|_| trial.round());
    let (found, told) = (trial.listener.found - before, dialogue.told());
    ensure!(found == 10 * told, "{}: {found} of {} requests were found", dialogue.name, 10 * told);

    let ns = median(plan, || talk(dialogue), Talk::round)?;
    let ns_each = ns / requests;
    let heads_ns = match dialogue.heads.is_empty() {
        true => None,
        false => Some(
            median(plan, || (), |()| dialogue.heads.iter().for_each(|head| httparse_head(head)))? / requests,
        ),
    };
    let target = match (heads_ns, dialogue.target_ns) {
        (Some(heads_ns), _) if dialogue.is_compared => at_most(ns_each / heads_ns, 2.0, " × httparse"),
        (_, Some(limit)) => at_most(ns_each, limit, " ns"),
        _ => String::new(),
    };
    Ok(vec![
        dialogue.name.to_owned(),
        grouped(dialogue.round_bytes() / u64::from(dialogue.requests)),
        format!("{ns_each:.0}"),
        grouped((1e9 / ns_each) as u64),
        grouped((dialogue.round_bytes() as f64 * 1_000.0 / ns) as u64),
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
