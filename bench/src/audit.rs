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
            let watch = watcher.start(plan, topology, folder, self.workload.as_ref())?;
            let address = self.workload.server();
            self.rates.add(which, self.workload.run(plan.seconds, address)?);
            let served = self.workload.served()?.saturating_sub(before);
            let aside = self.workload.not_counted();
            let usage = watch.map(|watch| watch.stop(served, aside)).transpose()?;
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
                rows.push(usage_line(contest.workload.as_ref(), *watcher, usages));
            }
        }
    }
    Table {
        title: "Audit: every request, and at what cost".into(),
        note: "Of the same runs, all rounds. Served: requests, as the server counts them. Told: records of requests \
               that were written (of MariaDB without logins and preparations, which the server does not count); \
               tshark prints a line for each that it finds. Whole: with their answers, and nothing missing; the \
               target is that it is all that were served. Lost: as it says itself; packets that tcpdump and tshark \
               did not get, pieces of payload and events that found no room on their way to weir. CPU: of the \
               process and those it starts, in user space and for its own system calls, from the load's begin to \
               its own end (of weir: from the ring to the file), not what the kernel does while others send; median \
               of the rounds, and the requests in a second of one core that it comes to. Peak: VmHWM when the load \
               ends, the most of all rounds."
            .into(),
        columns: vec![
            "work, who",
            "served",
            "told",
            "whole",
            "lost",
            "CPU µs a request",
            "requests a core-second",
            "target",
            "peak MiB",
        ],
        rows,
    }
}

fn usage_line(work: &dyn Requests, watcher: Watcher, usages: &[Usage]) -> Vec<String> {
    let served: u64 = usages.iter().map(|usage| usage.served).sum();
    let sum = |value: fn(&Usage) -> Option<u64>| usages.iter().map(value).sum::<Option<u64>>();
    let whole = sum(|usage| usage.whole);
    let costs: Vec<f64> = usages.iter().map(|usage| usage.cpu_s * 1e6 / usage.served as f64).collect();
    let cost_us = Spread::of(&costs).map_or(0.0, |spread| spread.median);
    let peak_kib = usages.iter().map(|usage| usage.peak_kib).max().unwrap_or(0);
    let known = |count: Option<u64>| count.map_or_else(|| "–".to_owned(), grouped);
    vec![
        format!("{}: {}", work.name(), watcher.name()),
        grouped(served),
        known(sum(|usage| usage.told)),
        known(whole),
        grouped(usages.iter().map(|usage| usage.lost).sum()),
        format!("{cost_us:.2}"),
        grouped((1e6 / cost_us) as u64),
        whole.map_or_else(String::new, |whole| targets(served, whole, cost_us, work.target_per_core_s())),
        format!("{:.1}", peak_kib as f64 / 1024.0),
    ]
}

/// That every request is there, and how many are to be audited in a second of one core.
fn targets(served: u64, whole: u64, cost_us: f64, per_core_s: Option<f64>) -> String {
    let every = if whole == served { "every one" } else { "every one, missed" };
    match per_core_s {
        Some(least) => {
            let verdict = if 1e6 / cost_us >= least { "" } else { ", missed" };
            format!("{every}; ≥ {}/s{verdict}", grouped(least as u64))
        }
        None => every.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::targets;

    #[test]
    fn each_target_is_judged() {
        assert_eq!(targets(7, 7, 2.0, Some(500_000.0)), "every one; ≥ 500,000/s");
        assert_eq!(targets(7, 6, 2.1, Some(500_000.0)), "every one, missed; ≥ 500,000/s, missed");
        assert_eq!(targets(7, 8, 9.0, None), "every one, missed");
    }
}
