//! Every protocol's parser against the time before a change:
//!
//! ```text
//! cargo bench -p weir-bench -- --save-baseline before
//! cargo bench -p weir-bench -- --baseline before [REGEX]
//! ```
//!
//! What is said is what the table "Parsers" of `make bench` measures.
#![allow(missing_docs, reason = "criterion's macros make a public function")]

use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use weir_bench::{Parsers, Talk, cpu_time, dialogues};

/// As long as segments are at a veth, before they are cut for a wire.
const SEGMENT_BYTES: usize = 65_160;

/// CPU time of the thread: what others do meanwhile does not count.
struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        cpu_time()
    }

    fn end(&self, begun: Duration) -> Duration {
        cpu_time().saturating_sub(begun)
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

fn parsers(criterion: &mut Criterion<CpuTime>) {
    for dialogue in dialogues() {
        let mut group = criterion.benchmark_group(dialogue.protocol);
        group.throughput(Throughput::ElementsAndBytes {
            elements: dialogue.requests.into(),
            bytes: dialogue.round_bytes(),
        });
        group.bench_function(dialogue.name, |bencher| {
            let mut talk = Talk::new(&dialogue, SEGMENT_BYTES, Parsers::new());
            bencher.iter(|| talk.round());
        });
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .with_measurement(CpuTime)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = parsers
}
criterion_main!(benches);
