//! What weir holds resident while many flows live, and what it computes while
//! nothing flows.

use std::time::Duration;

use anyhow::Result;
use weir_testkit::{Topology, wait_until};

use crate::Plan;
use crate::flood::Flood;
use crate::observer::CountedWeir;
use crate::process::{cpu_time, resident};
use crate::report::{Table, at_most, grouped};

/// Flows that live at once, and the most that weir may hold resident then, in MiB.
const STEPS: [(u32, f64); 2] = [(10_000, 32.0), (100_000, 96.0)];
/// Slow enough for flows to arrive over a second or more, as they do in life.
const FLOWS_PER_SECOND: u32 = 50_000;

/// Measures all rows.
pub(crate) fn measure(plan: &Plan) -> Result<Vec<Table>> {
    let mut rows = vec![row(plan, 0, None)?];
    for (flows, limit_mib) in STEPS {
        rows.push(row(plan, flows, Some(limit_mib))?);
    }
    Ok(vec![Table {
        title: "Memory, and CPU when nothing flows".into(),
        note: format!(
            "weir observe -o jsonl, with so many flows alive (UDP, one packet each). Resident: VmRSS of the \
             process, the mapped event ring in it; peak: VmHWM. CPU: of all its threads, over {} s in which \
             nothing flows, the flows still in the table; 10 ms in 10 s are 0.1 % of a core.",
            plan.idle_seconds
        ),
        columns: vec![
            "flows alive",
            "resident MiB",
            "of it own MiB",
            "peak MiB",
            "target",
            "CPU ms a second",
        ],
        rows,
    }])
}

fn row(plan: &Plan, flows: u32, limit_mib: Option<f64>) -> Result<Vec<String>> {
    let topology = Topology::with_containers(&["a", "b"]);
    let (a, b) = (topology.container("a"), topology.container("b"));
    let flood = Flood::new(a, b)?;
    let weir = CountedWeir::start(topology.host(), &plan.weir)?;
    flood.send(0..flows, Some(FLOWS_PER_SECOND))?;
    wait_until(Duration::from_secs(60), "weir has reported every flow", || weir.opened() >= u64::from(flows));
    settle(weir.daemon.id())?;

    let before = cpu_time(weir.daemon.id())?;
    std::thread::sleep(Duration::from_secs(plan.idle_seconds));
    let used = cpu_time(weir.daemon.id())?.saturating_sub(before);
    let memory = resident(weir.daemon.id())?;
    weir.stop()?;

    let mib = |kib: u64| kib as f64 / 1024.0;
    Ok(vec![
        grouped(u64::from(flows)),
        format!("{:.1}", mib(memory.now_kib)),
        format!("{:.1}", mib(memory.anonymous_kib)),
        format!("{:.1}", mib(memory.peak_kib)),
        limit_mib.map_or_else(String::new, |limit| at_most(mib(memory.now_kib), limit, "")),
        format!("{:.2}", used.as_secs_f64() * 1000.0 / plan.idle_seconds as f64),
    ])
}

/// Waits until the work that the flows' arrival made is done: the process uses
/// less than a twentieth of a core over a tenth of a second.
fn settle(pid: u32) -> Result<()> {
    const LOOK: Duration = Duration::from_millis(100);
    let mut before = cpu_time(pid)?;
    for _ in 0..50 {
        std::thread::sleep(LOOK);
        let now = cpu_time(pid)?;
        if now.saturating_sub(before) < LOOK / 20 {
            break;
        }
        before = now;
    }
    Ok(())
}
