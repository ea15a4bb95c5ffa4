//! How long it takes until weir's programs are where the packets are.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use weir_testkit::tc::{Hook, tcx_programs};
use weir_testkit::{Daemon, Namespace};

use crate::Plan;
use crate::observer::{start_weir, stop, wait_until_attached, weir_command};
use crate::report::{Table, at_most, grouped};
use crate::statistics::Spread;

const AT_START_S: f64 = 2.0;
const NEW_MS: f64 = 100.0;
/// Longest wait for one new interface.
const LIMIT: Duration = Duration::from_secs(10);

/// A host with containers that only exist: their interfaces lie in one namespace.
struct Host {
    host: Namespace,
    containers: Namespace,
}

impl Host {
    fn with_veths(count: u32) -> Self {
        let this = Self { host: Namespace::new("host"), containers: Namespace::new("many") };
        let lines = (0..count).fold(String::new(), |lines, number| lines + &this.lines_for(number));
        this.host.ip_batch(&lines);
        this
    }

    fn lines_for(&self, number: u32) -> String {
        let mut lines = String::new();
        let peer = self.containers.name();
        let _ = writeln!(lines, "link add veth{number} type veth peer name eth{number} netns {peer}");
        let _ = writeln!(lines, "link set veth{number} up");
        lines
    }

    fn is_attached(&self, number: u32) -> bool {
        let device = format!("veth{number}");
        let at_tcx = Hook::BOTH.iter().all(|hook| tcx_programs(&self.host, &device, *hook) > 0);
        at_tcx
            || Hook::BOTH.iter().all(|hook| !weir_testkit::tc::filters(&self.host, &device, *hook).is_empty())
    }
}

/// Measures both.
pub(crate) fn measure(plan: &Plan) -> Result<Vec<Table>> {
    let (at_start, at_end) = many(plan)?;
    let new = new_ones(plan)?;
    let veths = grouped(u64::from(plan.veths));
    let seconds = |value: f64| format!("{value:.2} s");
    let milliseconds = |value: f64| format!("{value:.1} ms");
    let row = |what: String, spread: Spread, write: &dyn Fn(f64) -> String, target: String| {
        vec![
            what,
            write(spread.median),
            format!("{} to {}", write(spread.least), write(spread.greatest)),
            target,
        ]
    };
    Ok(vec![Table {
        title: "Attaching".into(),
        note: "At start: from weir's start to its first line, which it writes when all are attached. New: from \
               before the `ip` command that makes the veth to both hooks' having a program; medians of several. \
               At the end: from SIGINT to weir's exit."
            .into(),
        columns: vec!["what", "median", "min to max", "target"],
        rows: vec![
            row(format!("{veths} veths at start"), at_start, &seconds, at_most(at_start.median, AT_START_S, " s")),
            row("one new veth".into(), new, &milliseconds, at_most(new.median, NEW_MS, " ms")),
            row(format!("{veths} veths at the end"), at_end, &seconds, String::new()),
        ],
    }])
}

fn many(plan: &Plan) -> Result<(Spread, Spread)> {
    let host = Host::with_veths(plan.veths);
    let (mut at_start, mut at_end) = (Vec::new(), Vec::new());
    for _ in 0..plan.attach_rounds {
        let started = Instant::now();
        let weir = Daemon::start("weir", &mut weir_command(&host.host, &plan.weir));
        wait_until_attached(&weir);
        at_start.push(started.elapsed().as_secs_f64());
        // Not only said, but so: at twenty of them.
        let mut some = (0..plan.veths).step_by((plan.veths as usize / 20).max(1));
        if let Some(missing) = some.find(|number| !host.is_attached(*number)) {
            bail!("weir says that it watches, but not veth{missing}");
        }
        let ended = Instant::now();
        stop(weir)?;
        at_end.push(ended.elapsed().as_secs_f64());
    }
    spreads(&at_start, &at_end)
}

fn spreads(first: &[f64], second: &[f64]) -> Result<(Spread, Spread)> {
    match (Spread::of(first), Spread::of(second)) {
        (Some(first), Some(second)) => Ok((first, second)),
        _ => bail!("nothing was measured"),
    }
}

fn new_ones(plan: &Plan) -> Result<Spread> {
    let host = Host::with_veths(2);
    let weir = start_weir(&host.host, &plan.weir)?;
    let mut times = Vec::new();
    for number in 2..2 + plan.new_veths {
        let lines = host.lines_for(number);
        let started = Instant::now();
        host.host.ip_batch(&lines);
        while !host.is_attached(number) {
            if started.elapsed() > LIMIT {
                bail!("veth{number} is not attached after {LIMIT:?}");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        times.push(started.elapsed().as_secs_f64() * 1000.0);
    }
    stop(weir)?;
    Ok(spreads(&times, &times)?.0)
}
