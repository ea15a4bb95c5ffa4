//! The same work with nobody watching, with weir and with tcpdump, by turns.

mod requests;
mod streams;
mod web;
mod workload;

use anyhow::{Context, Result};
use weir_testkit::{Daemon, Topology};

use crate::Plan;
use crate::observer::{start_tcpdump, start_weir, stop};
use crate::process::cpu_time;
use crate::report::{Table, at_least};
use crate::statistics::Spread;
use requests::{NewConnections, RequestResponse};
use streams::{Datagrams, Streams};
use web::Web;
use workload::Workload;

/// Who watches while the work is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Watcher {
    Nobody,
    /// Shows how far two runs of the same lie apart: what is within it is noise.
    NobodyAgain,
    Weir,
    Tcpdump,
}

impl Watcher {
    const ALL: [Self; 4] = [Self::Nobody, Self::NobodyAgain, Self::Weir, Self::Tcpdump];

    fn start(self, plan: &Plan, topology: &Topology) -> Result<Option<Daemon>> {
        Ok(match self {
            Self::Nobody | Self::NobodyAgain => None,
            Self::Weir => Some(start_weir(topology.host(), &plan.weir)?),
            Self::Tcpdump => Some(start_tcpdump(topology.host())),
        })
    }
}

/// What one workload gave, by [`Watcher::ALL`], one sample a round.
#[derive(Default)]
struct Samples {
    rates: [Vec<f64>; Watcher::ALL.len()],
    /// CPU seconds that the watcher used in a second.
    cpu: [Vec<f64>; Watcher::ALL.len()],
}

impl Samples {
    /// Of each round's ratio to what nobody's watching gave in that round.
    fn ratio(&self, watcher: usize) -> Option<Spread> {
        let [bare, ..] = &self.rates;
        let ratios: Vec<f64> =
            self.rates.get(watcher)?.iter().zip(bare).map(|(rate, bare)| rate / bare).collect();
        Spread::of(&ratios)
    }
}

/// Measures all workloads.
pub(crate) fn measure(plan: &Plan) -> Result<Table> {
    let topology = Topology::with_containers(&["client", "server"]);
    let mut workloads: Vec<Box<dyn Workload>> = vec![
        Box::new(Streams::start(&topology, 1)?),
        Box::new(Streams::start(&topology, 4)?),
        Box::new(Datagrams::start(&topology)?),
        Box::new(RequestResponse::start(&topology)?),
        Box::new(NewConnections::start(&topology)?),
        Box::new(Web::start(&topology)?),
    ];
    let mut samples: Vec<Samples> = workloads.iter().map(|_| Samples::default()).collect();
    for round in 0..plan.rounds {
        for (workload, samples) in workloads.iter_mut().zip(&mut samples) {
            run_round(plan, &topology, round, workload.as_mut(), samples)
                .with_context(|| format!("while measuring: {}", workload.name()))?;
        }
    }
    let rows = workloads
        .iter()
        .zip(&samples)
        .map(|(workload, samples)| line(workload.as_ref(), samples))
        .collect::<Result<_>>()?;
    Ok(Table {
        title: "End to end, with and without".into(),
        note: format!(
            "Two containers on a bridge; {} rounds of {} s for each, in turns that begin with another one each \
             round. Ratios to nobody watching in the same round: median (min to max). \"Nobody\" is the \
             same measured twice, hence the noise. weir observe -o jsonl, tcpdump -i any -w /dev/null. CPU: \
             of weir's process, in percent of one core.",
            plan.rounds, plan.seconds
        ),
        columns: vec![
            "work",
            "nobody watching",
            "nobody",
            "weir",
            "tcpdump",
            "target for weir",
            "CPU of weir",
        ],
        rows,
    })
}

fn run_round(
    plan: &Plan,
    topology: &Topology,
    round: usize,
    workload: &mut dyn Workload,
    samples: &mut Samples,
) -> Result<()> {
    for turn in 0..Watcher::ALL.len() {
        let which = (round + turn) % Watcher::ALL.len();
        let (Some(watcher), Some(rates), Some(cpu)) =
            (Watcher::ALL.get(which), samples.rates.get_mut(which), samples.cpu.get_mut(which))
        else {
            continue;
        };
        let daemon = watcher.start(plan, topology)?;
        let before = daemon.as_ref().map(|daemon| cpu_time(daemon.id())).transpose()?;
        rates.push(workload.run(plan.seconds)?);
        if let (Some(daemon), Some(before)) = (&daemon, before) {
            cpu.push((cpu_time(daemon.id())? - before).as_secs_f64() / f64::from(plan.seconds));
        }
        daemon.map_or(Ok(()), stop)?;
    }
    Ok(())
}

fn line(workload: &dyn Workload, samples: &Samples) -> Result<Vec<String>> {
    let of =
        |watcher: Watcher| samples.ratio(watcher as usize).context("nothing was measured: --rounds is 0");
    let bare = samples.rates.first().and_then(|rates| Spread::of(rates)).context("nothing was measured")?;
    let (same, weir) = (of(Watcher::NobodyAgain)?, of(Watcher::Weir)?);
    let cpu = samples.cpu.get(Watcher::Weir as usize).and_then(|cpu| Spread::of(cpu));
    let ratio =
        |spread: Spread| format!("{:.3} ({:.2} to {:.2})", spread.median, spread.least, spread.greatest);
    Ok(vec![
        workload.name().to_owned(),
        workload.write(bare.median),
        ratio(same),
        ratio(weir),
        ratio(of(Watcher::Tcpdump)?),
        at_least(weir.median, workload.target(), same.median),
        cpu.map_or_else(String::new, |cpu| format!("{:.1} %", cpu.median * 100.0)),
    ])
}
