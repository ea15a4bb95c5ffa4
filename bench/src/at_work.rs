//! What weir's programs take in the kernel while they work, as the kernel itself
//! counts it: what could be won at most if they cost nothing.

use std::collections::HashMap;
use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use libbpf_rs::libbpf_sys;
use libbpf_rs::query::ProgInfoIter;
use weir_testkit::{Daemon, Topology};

use crate::Plan;
use crate::observer::{start_audit, start_weir, stop};
use crate::redirect;
use crate::report::{Table, grouped};
use crate::statistics::Spread;
use crate::workload::keys::Keys;
use crate::workload::web::Web;
use crate::workload::{Workload, network_loads};

/// Runs of weir's programs, and their time.
#[derive(Debug, Clone, Copy, Default)]
struct Runs {
    count: u64,
    time: Duration,
}

/// The kernel counts while it lives (BPF_ENABLE_STATS, Linux 5.8).
struct Counting {
    _statistics: OwnedFd,
    before: HashMap<u32, Runs>,
}

impl Counting {
    fn begin() -> Result<Self> {
        // SAFETY: a system call without pointers.
        let fd = unsafe { libbpf_sys::bpf_enable_stats(libbpf_sys::BPF_STATS_RUN_TIME) };
        if fd < 0 {
            let error = std::io::Error::from_raw_os_error(-fd);
            bail!("the kernel does not count the time of BPF programs: {error}");
        }
        // SAFETY: just opened, and owned by nobody else.
        let statistics = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { _statistics: statistics, before: by_program() })
    }

    /// After a load of so many seconds: mean time of a run in ns, runs a second, and seconds in a second.
    fn end(self, seconds: u32) -> Result<[f64; 3]> {
        let seconds = f64::from(seconds);
        let mut runs = Runs::default();
        for (program, after) in by_program() {
            let before = self.before.get(&program).copied().unwrap_or_default();
            runs.count += after.count.saturating_sub(before.count);
            runs.time += after.time.saturating_sub(before.time);
        }
        ensure!(runs.count > 0, "none of weir's programs ran");
        let time_s = runs.time.as_secs_f64();
        Ok([time_s * 1e9 / runs.count as f64, runs.count as f64 / seconds, time_s / seconds])
    }
}

/// All programs on this machine with names as weir's.
fn by_program() -> HashMap<u32, Runs> {
    ProgInfoIter::default()
        .filter(|program| program.name.as_encoded_bytes().starts_with(b"weir_"))
        .map(|program| {
            let time = Duration::from_nanos(program.run_time_ns);
            (program.id, Runs { count: program.run_cnt, time })
        })
        .collect()
}

/// Measures `weir observe`, `weir audit` and `weir redirect` under loads of their own.
pub(crate) fn measure(plan: &Plan) -> Result<Vec<Table>> {
    let mut rows = Vec::new();
    let topology = Topology::with_containers(&["client", "server"]);
    for mut work in network_loads(&topology)? {
        let server = work.server();
        rows.push(row(plan, "weir observe", work.as_mut(), server, || {
            start_weir(topology.host(), &plan.weir).map(Some)
        })?);
    }
    let audited: [Box<dyn Workload + '_>; 3] = [
        Box::new(Web::start(&topology)?),
        Box::new(Keys::start(&topology, 1)?),
        Box::new(Keys::start(&topology, 16)?),
    ];
    for mut work in audited {
        let server = work.server();
        rows.push(row(plan, "weir audit", work.as_mut(), server, || {
            Ok(Some(start_audit(topology.host(), &plan.weir, File::create("/dev/null")?)))
        })?);
    }
    let host = redirect::host_for_fast_path(plan)?;
    for mut work in network_loads(host.topology())? {
        let applied = redirect::by_weir(&host, work.server())?;
        rows.push(row(plan, "weir redirect", work.as_mut(), applied.asked(), || Ok(None))?);
        applied.take_back()?;
    }
    Ok(vec![Table {
        title: "The programs at work".into(),
        note: format!(
            "Weir's programs in the kernel under the loads of the other sections, {} s each, medians of {} rounds; \
             redirected on one bridge, by the fast path. As the kernel counts them (BPF_ENABLE_STATS), its looks at \
             the clock included. Of a core: of one core's time, while a load may keep all of them busy.",
            plan.seconds, plan.redirect_rounds
        ),
        columns: vec!["work, with", "runs a second", "ns a run", "of a core"],
        rows,
    }])
}

fn row(
    plan: &Plan,
    with: &str,
    work: &mut dyn Workload,
    address: SocketAddr,
    start: impl Fn() -> Result<Option<Daemon>>,
) -> Result<Vec<String>> {
    let name = format!("{}: {with}", work.name());
    let mut samples: [Vec<f64>; 3] = Default::default();
    for _ in 0..plan.redirect_rounds {
        let daemon = start()?;
        let counting = Counting::begin()?;
        work.run(plan.seconds, address)?;
        let values = counting.end(plan.seconds).with_context(|| format!("while measuring: {name}"))?;
        for (samples, value) in samples.iter_mut().zip(values) {
            samples.push(value);
        }
        daemon.map_or(Ok(()), stop)?;
    }
    let [run_ns, runs_per_s, share] = samples.map(|it| Spread::of(&it).map_or(0.0, |spread| spread.median));
    Ok(vec![name, grouped(runs_per_s as u64), format!("{run_ns:.0}"), format!("{:.1} %", share * 100.0)])
}
