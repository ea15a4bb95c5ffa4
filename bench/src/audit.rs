//! Requests told one by one while servers are under load: rates, whether every
//! request is there, and what it costs.

mod watcher;

use anyhow::{Context, Result};
use weir_testkit::Topology;

use crate::Plan;
use crate::report::{Table, at_least, grouped};
use crate::statistics::Spread;
use crate::turns::{Samples, by_turns};
use crate::workload::database::Database;
use crate::workload::keys::Keys;
use crate::workload::web::Web;
use crate::workload::{Folder, Requests};
use watcher::{Usage, Watcher};

/// The least ratio to nobody watching that weir is to reach.
const TARGET: f64 = 0.90;

/// A workload, and what was measured.
struct Contest<'a> {
    workload: Box<dyn Requests + 'a>,
    rates: Samples,
    /// By watcher, one a round.
    usages: Vec<Vec<Usage>>,
}

/// Measures all workloads.
pub(crate) fn measure(plan: &Plan) -> Result<Vec<Table>> {
    let topology = Topology::with_containers(&["client", "server"]);
    let folder = Folder::new()?;
    let contest = |workload| Contest {
        workload,
        rates: Samples::of(Watcher::ALL.len()),
        usages: vec![Vec::new(); Watcher::ALL.len()],
    };
    let mut contests = vec![
        contest(Box::new(Web::start(&topology)?) as Box<dyn Requests>),
        contest(Box::new(Keys::start(&topology, 1)?)),
        contest(Box::new(Keys::start(&topology, 16)?)),
        contest(Box::new(Database::start(&topology)?)),
    ];
    for round in 0..plan.rounds {
        for contest in &mut contests {
            contest
                .run_round(plan, &topology, &folder, round)
                .with_context(|| format!("while measuring: {}", contest.workload.name()))?;
        }
    }
    Ok(vec![rates(plan, &contests)?, usages(&contests)])
}

impl Contest<'_> {
    fn run_round(&mut self, plan: &Plan, topology: &Topology, folder: &Folder, round: usize) -> Result<()> {
        by_turns(round, &Watcher::ALL, |which, watcher| {
            let before = self.workload.served()?;
            let watch = watcher.start(plan, topology, folder, self.workload.tshark_field())?;
            let address = self.workload.server();
            self.rates.add(which, self.workload.run(plan.seconds, address)?);
            let served = self.workload.served()?.saturating_sub(before);
            let usage = watch.map(|watch| watch.stop(served)).transpose()?;
            if let Some(usages) = self.usages.get_mut(which) {
                usages.extend(usage);
            }
            Ok(())
        })
    }
}

fn rates(plan: &Plan, contests: &[Contest<'_>]) -> Result<Table> {
    let line = |contest: &Contest<'_>| -> Result<Vec<String>> {
        let of = |watcher: Watcher| contest.rates.ratio(watcher as usize, Watcher::Nobody as usize);
        let bare = contest.rates.spread(Watcher::Nobody as usize).context("nothing was measured")?;
        let (same, weir) = (of(Watcher::NobodyAgain)?, of(Watcher::Weir)?);
        Ok(vec![
            contest.workload.name().to_owned(),
            contest.workload.write(bare.median),
            same.to_string(),
            weir.to_string(),
            of(Watcher::Tcpdump)?.to_string(),
            of(Watcher::Tshark)?.to_string(),
            at_least(weir.median, TARGET, same.median),
        ])
    };
    Ok(Table {
        title: "Audit, with and without".into(),
        note: format!(
            "Two containers on a bridge; {} rounds of {} s for each, in turns that begin with another one each \
             round. Ratios to nobody watching in the same round: median (min to max). \"Nobody\" is the same \
             measured twice, hence the noise. weir audit -o jsonl watches both containers, tcpdump and tshark the server's veth; all write to files \
             in memory.",
            plan.rounds, plan.seconds
        ),
        columns: vec![
            "work",
            "nobody watching",
            "nobody",
            "weir audit",
            "tcpdump -w",
            "tshark",
            "target for weir",
        ],
        rows: contests.iter().map(line).collect::<Result<_>>()?,
    })
}

fn usages(contests: &[Contest<'_>]) -> Table {
    let mut rows = Vec::new();
    for contest in contests {
        for (watcher, usages) in Watcher::ALL.iter().zip(&contest.usages) {
            if !usages.is_empty() {
                rows.push(usage_line(contest.workload.name(), *watcher, usages));
            }
        }
    }
    Table {
        title: "Audit: every request, and at what cost".into(),
        note: "Of the same runs, all rounds. Served: requests, as the server counts them. Told: records of requests \
               that were written; tshark prints a line for each that it finds. Lost: as it says itself; packets \
               that tcpdump and tshark did not get, pieces of payload and events that found no room on their way \
               to weir. CPU: of the process and those it starts, from the load's begin to its own end, not what \
               the kernel does while others send; median of the rounds. Peak: VmHWM, the most of all rounds."
            .into(),
        columns: vec!["work, who", "served", "told", "lost", "CPU µs a request", "peak MiB"],
        rows,
    }
}

fn usage_line(work: &str, watcher: Watcher, usages: &[Usage]) -> Vec<String> {
    let served: u64 = usages.iter().map(|usage| usage.served).sum();
    let told = usages.iter().map(|usage| usage.told).sum::<Option<u64>>();
    let median = |value: fn(&Usage) -> f64| {
        let values: Vec<f64> = usages.iter().map(value).collect();
        Spread::of(&values).map_or(0.0, |spread| spread.median)
    };
    let peak_kib = usages.iter().map(|usage| usage.peak_kib).max().unwrap_or(0);
    vec![
        format!("{work}: {}", watcher.name()),
        grouped(served),
        told.map_or_else(|| "–".to_owned(), grouped),
        grouped(usages.iter().map(|usage| usage.lost).sum()),
        format!("{:.2}", median(|usage| usage.cpu_s * 1e6 / usage.served as f64)),
        format!("{:.1}", peak_kib as f64 / 1024.0),
    ]
}
