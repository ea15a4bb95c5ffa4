//! Redirected traffic beside traffic that is not: by nftables,
//! iptables and weir.

mod host;
mod method;

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};

use crate::Plan;
use crate::report::{Table, at_least};
use crate::turns::{Samples, by_turns};
use crate::workload::{Workload, network_loads};
pub(crate) use host::Host;
use host::Kind;
pub(crate) use method::Applied;
use method::{Method, Rule};

/// What `weir run --accelerate` does; on one kind of host one of them is measured.
const ACCELERATED: [Method; 2] = [Method::Accelerate, Method::WeirAccelerated];

/// Nothing listens there: who asks it is redirected.
const ASKED_PORT: u16 = 7777;

/// A workload, and what was measured.
struct Contest<'a> {
    workload: Box<dyn Workload + 'a>,
    rates: Samples,
}

/// Measures all workloads on all kinds of host.
pub(crate) fn measure(plan: &Plan) -> Result<Vec<Table>> {
    Kind::here().into_iter().map(|kind| measure_on(plan, kind)).collect()
}

/// A host on which weir takes its fast path.
pub(crate) fn host_for_fast_path(plan: &Plan) -> Result<Host> {
    Host::new(Kind::Bridge, plan)
}

/// `weir redirect` to that server.
pub(crate) fn by_weir(host: &Host, server: SocketAddr) -> Result<Applied<'_>> {
    Method::Weir.apply(host, rule(host, server))
}

fn rule(host: &Host, server: SocketAddr) -> Rule {
    let asked = IpAddr::V4(host.topology().container("front").ipv4());
    Rule { asked: SocketAddr::new(asked, ASKED_PORT), server }
}

fn measure_on(plan: &Plan, kind: Kind) -> Result<Table> {
    let host = Host::new(kind, plan)?;
    let topology = host.topology();
    let methods = kind.methods();
    let contest = |workload| Contest { workload, rates: Samples::of(methods.len()) };
    let mut contests = network_loads(topology)?.map(contest);
    for round in 0..plan.redirect_rounds {
        for contest in &mut contests {
            contest
                .run_round(plan, &host, methods, round)
                .with_context(|| format!("while measuring: {}, {}", kind.title(), contest.workload.name()))?;
        }
    }
    let mut columns = vec!["work", "no redirect"];
    columns.extend(methods.iter().skip(1).map(|method| method.name()));
    columns.push("targets for weir");
    if ACCELERATED.iter().any(|method| methods.contains(method)) {
        columns.push("targets for --accelerate");
    }
    Ok(Table {
        title: format!("Redirect, {}", kind.title()),
        note: format!(
            "{} Client, the address it asks and the server are three containers; address and port are rewritten. \
             {} rounds of {} s for each, in turns that begin with another one each round. Ratios to no redirect \
             in the same round: median (min to max). \"No redirect\" is measured twice, hence the noise.",
            kind.note(),
            plan.redirect_rounds,
            plan.seconds
        ),
        columns,
        rows: contests.iter().map(|contest| contest.line(kind)).collect::<Result<_>>()?,
    })
}

impl Contest<'_> {
    fn run_round(&mut self, plan: &Plan, host: &Host, methods: &[Method], round: usize) -> Result<()> {
        by_turns(round, methods, |which, method| {
            let server = self.workload.server();
            let rule = rule(host, server);
            let applied = method.apply(host, rule)?;
            let address = if method.redirects() { rule.asked } else { server };
            self.rates.add(which, self.workload.run(plan.seconds, address)?);
            applied.take_back()
        })
    }

    fn line(&self, kind: Kind) -> Result<Vec<String>> {
        let methods = kind.methods();
        let bare = self.rates.spread(0).context("nothing was measured")?;
        let mut cells = vec![self.workload.name().to_owned(), self.workload.write(bare.median)];
        for index in 1..methods.len() {
            cells.push(self.rates.ratio(index, 0)?.to_string());
        }
        cells.push(self.verdict(kind, Method::Weir)?);
        if let Some(method) = ACCELERATED.into_iter().find(|method| methods.contains(method)) {
            cells.push(self.verdict(kind, method)?);
        }
        Ok(cells)
    }

    /// Whether a method reaches its targets on that kind of host; empty where it has none.
    fn verdict(&self, kind: Kind, method: Method) -> Result<String> {
        let place = |method| kind.methods().iter().position(|it| *it == method);
        let (Some((to_bare, to_nftables)), Some(which), Some(same)) =
            (kind.targets(method), place(method), place(Method::NothingAgain))
        else {
            return Ok(String::new());
        };
        let same = self.rates.ratio(same, 0)?.median;
        let mut targets = at_least(self.rates.ratio(which, 0)?.median, to_bare, same);
        if let (Some(limit), Some(nftables)) = (to_nftables, place(Method::Nftables)) {
            let ratio = self.rates.ratio(which, nftables)?.median;
            let verdict = at_least(ratio, limit, same);
            let _ = write!(targets, "; to nftables {ratio:.3}, {verdict}");
        }
        Ok(targets)
    }
}
