//! The same work with nobody watching, with weir and with tcpdump, by turns.

use anyhow::{Context, Result};
use weir_testkit::{Daemon, Topology};

use crate::Plan;
use crate::observer::{start_tcpdump, start_weir, stop};
use crate::process::cpu_time;
use crate::report::{Table, at_least};
use crate::turns::{Samples, by_turns};
use crate::workload::Workload;
use crate::workload::requests::{NewConnections, RequestResponse};
use crate::workload::streams::{Datagrams, Streams};
use crate::workload::web::Web;

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

/// A workload, the least ratio to nobody watching that weir is to reach, and
/// what was measured.
struct Contest<'a> {
    workload: Box<dyn Workload + 'a>,
    target: f64,
    rates: Samples,
    /// CPU seconds that the watcher used in a second.
    cpu: Samples,
}

impl<'a> Contest<'a> {
    fn new(workload: impl Workload + 'a, target: f64) -> Self {
        let samples = Samples::of(Watcher::ALL.len());
        Self { workload: Box::new(workload), target, rates: samples.clone(), cpu: samples }
    }

    fn run_round(&mut self, plan: &Plan, topology: &Topology, round: usize) -> Result<()> {
        by_turns(round, &Watcher::ALL, |which, watcher| {
            let daemon = watcher.start(plan, topology)?;
            let before = daemon.as_ref().map(|daemon| cpu_time(daemon.id())).transpose()?;
            let address = self.workload.server();
            self.rates.add(which, self.workload.run(plan.seconds, address)?);
            if let (Some(daemon), Some(before)) = (&daemon, before) {
                let used = cpu_time(daemon.id())? - before;
                self.cpu.add(which, used.as_secs_f64() / f64::from(plan.seconds));
            }
            daemon.map_or(Ok(()), stop)
        })
    }

    fn line(&self) -> Result<Vec<String>> {
        let of = |watcher: Watcher| self.rates.ratio(watcher as usize, Watcher::Nobody as usize);
        let bare = self.rates.spread(Watcher::Nobody as usize).context("nothing was measured")?;
        let (same, weir) = (of(Watcher::NobodyAgain)?, of(Watcher::Weir)?);
        let cpu = self.cpu.spread(Watcher::Weir as usize);
        Ok(vec![
            self.workload.name().to_owned(),
            self.workload.write(bare.median),
            same.to_string(),
            weir.to_string(),
            of(Watcher::Tcpdump)?.to_string(),
            at_least(weir.median, self.target, same.median),
            cpu.map_or_else(String::new, |cpu| format!("{:.1} %", cpu.median * 100.0)),
        ])
    }
}

/// Measures all workloads.
pub(crate) fn measure(plan: &Plan) -> Result<Vec<Table>> {
    let topology = Topology::with_containers(&["client", "server"]);
    let mut contests = vec![
        Contest::new(Streams::start(&topology, 1)?, 0.97),
        Contest::new(Streams::start(&topology, 4)?, 0.97),
        Contest::new(Datagrams::start(&topology)?, 0.97),
        Contest::new(RequestResponse::start(&topology)?, 0.97),
        Contest::new(NewConnections::start(&topology)?, 0.95),
        Contest::new(Web::start(&topology)?, 0.97),
    ];
    for round in 0..plan.rounds {
        for contest in &mut contests {
            contest
                .run_round(plan, &topology, round)
                .with_context(|| format!("while measuring: {}", contest.workload.name()))?;
        }
    }
    Ok(vec![Table {
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
        rows: contests.iter().map(Contest::line).collect::<Result<_>>()?,
    }])
}
