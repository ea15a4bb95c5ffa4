//! What one packet costs in the kernel: the programs through BPF_PROG_TEST_RUN,
//! with an empty program as zero.

mod programs;
mod translated;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use programs::{empty_program, renewing};
use weir_core::event::Hook;
use weir_kernel::{Datapath, FlowTable, Options, ProgramName, test_run};
use weir_testkit::packet::{Frame, arp_request};
use weir_testkit::{Namespace, wait_until};

use crate::Plan;
use crate::link::Link;
use crate::report::{Table, at_most};
use crate::statistics::Spread;

/// As many as weir makes room for on a machine with some memory.
const MAX_FLOWS: u32 = 262_144;
/// Packet events fill the ring's 8 MiB with some 60,000 records: below that,
/// none is lost and each costs what it costs.
const PACKET_EVENTS: u32 = 40_000;
/// Flows that one sample of "first packet" opens: one source port each.
const OPENINGS: u16 = 4_000;

const INGRESS: ProgramName = ProgramName { hook: Hook::Ingress, ethernet: true };
const EGRESS: ProgramName = ProgramName { hook: Hook::Egress, ethernet: true };

/// Measures all rows, in a namespace of its own.
pub(crate) fn measure(plan: &Plan) -> Result<Vec<Table>> {
    // Two devices: the third hook on a packet's way needs one more than `lo`.
    let namespace = Namespace::new("cost");
    namespace.ip_batch("link add second type veth peer name third\n");
    let second = Link::of(&namespace, "second")?.index;
    namespace.enter(|| measure_here(plan, second))
}

struct Row {
    name: &'static str,
    /// In nanoseconds above the empty program.
    target_ns: Option<f64>,
    /// What it is compared with.
    zero: Zero,
    sample: Sample,
    samples_ns: Vec<f64>,
    above_ns: Vec<f64>,
}

/// One measurement, in nanoseconds.
type Sample = Box<dyn FnMut() -> Result<f64>>;

/// Which measurement of the empty program is subtracted.
#[derive(Clone, Copy)]
enum Zero {
    /// Many runs in one call.
    Repeated,
    /// One run a call: the timer's own cost and cold caches are in it.
    Single,
    /// Many runs in one call, each on the frame as it was before the first.
    Renewed,
}

fn measure_here(plan: &Plan, second: u32) -> Result<Vec<Table>> {
    let empty = empty_program()?;
    let mut rows = rows(second)?;
    for row in &mut rows {
        (row.sample)()?; // caches, and the event ring's reader
    }
    let probe = Frame::between("10.0.0.1", "10.0.0.2").udp(1, 2).payload(&[0; 18]).build();
    let renewing = renewing(&empty, &probe)?;
    for _ in 0..plan.cost_rounds {
        let repeated = f64::from(test_run(&empty, 1, &probe, REPEAT)?.duration_ns);
        let renewed = renewing.run(1, &probe, REPEAT)?;
        let single = single_runs(|_| Ok(test_run(&empty, 1, &probe, 1)?.duration_ns))?;
        for row in &mut rows {
            let zero = match row.zero {
                Zero::Repeated => repeated,
                Zero::Single => single,
                Zero::Renewed => renewed,
            };
            let sample = (row.sample)()?;
            row.samples_ns.push(sample);
            row.above_ns.push(sample - zero);
        }
    }
    let mut lines = Vec::new();
    for row in &rows {
        let (ns, above) = (spread(&row.samples_ns)?, spread(&row.above_ns)?);
        lines.push(vec![
            row.name.to_owned(),
            format!("{:.0}", ns.median),
            format!("{:.0}", above.median),
            format!("{:.0} to {:.0}", above.least, above.greatest),
            row.target_ns.map_or_else(String::new, |limit| at_most(above.median, limit, "")),
        ]);
    }
    Ok(vec![Table {
        title: "Cost of one packet".into(),
        note: format!(
            "BPF_PROG_TEST_RUN, nanoseconds a packet at one hook; medians of {} interleaved rounds. A packet \
             between two containers passes two hooks. \"Above\": above the empty program's time in the same \
             round. Frames carry 100 bytes of payload, UDP 18.",
            plan.cost_rounds
        ),
        columns: vec!["packet", "ns", "above empty", "min to max", "target"],
        rows: lines,
    }])
}

fn spread(samples: &[f64]) -> Result<Spread> {
    Spread::of(samples).context("nothing was measured: --rounds is 0")
}

/// Runs of a program in one call.
const REPEAT: u32 = 200_000;

fn rows(second: u32) -> Result<Vec<Row>> {
    let row = |name, target_ns, zero, sample| Row {
        name,
        target_ns,
        zero,
        sample,
        samples_ns: Vec::new(),
        above_ns: Vec::new(),
    };
    let datapath = Arc::new(load(false)?);
    let known = |name, frame: Vec<u8>| {
        let datapath = Arc::clone(&datapath);
        let sample = move || Ok(f64::from(datapath.test_run(INGRESS, 1, &frame, REPEAT)?.duration_ns));
        row(name, Some(70.0), Zero::Repeated, Box::new(sample) as Box<dyn FnMut() -> Result<f64>>)
    };
    let tcp4 = || Frame::between("10.0.0.1", "10.0.0.2").tcp(43122, 80, "A").payload(&[0; 100]).build();
    let tcp6 = Frame::between("fd00::1", "fd00::2").tcp(43122, 80, "A").payload(&[0; 100]).build();
    let udp4 = Frame::between("10.0.0.1", "10.0.0.2").udp(5000, 5001).payload(&[0; 18]).build();

    let (empty, frame) = (empty_program()?, tcp4());
    let zero = move || Ok(f64::from(test_run(&empty, 1, &frame, REPEAT)?.duration_ns));
    let mut rows = vec![row("empty program", None, Zero::Repeated, Box::new(zero))];
    rows.push(known("known flow, TCP over IPv4", tcp4()));
    rows.push(known("known flow, TCP over IPv6", tcp6));
    rows.push(known("known flow, UDP over IPv4", udp4));

    // The other end of the way: counted as delivered, its TCP state not followed again.
    let (path, frame) = (Arc::clone(&datapath), tcp4());
    let sample = move || Ok(f64::from(path.test_run(EGRESS, second, &frame, REPEAT)?.duration_ns));
    rows.push(row("known flow, second hook", Some(70.0), Zero::Repeated, Box::new(sample)));
    // After the two above have taken their places: one more hook on the way.
    let (path, frame) = (Arc::clone(&datapath), tcp4());
    let sample = move || Ok(f64::from(path.test_run(INGRESS, second, &frame, REPEAT)?.duration_ns));
    rows.push(row("known flow, further hook (tallied)", None, Zero::Repeated, Box::new(sample)));
    let (path, frame) = (Arc::clone(&datapath), arp_request([10, 0, 0, 1], [10, 0, 0, 2]));
    let sample = move || Ok(f64::from(path.test_run(INGRESS, 1, &frame, REPEAT)?.duration_ns));
    rows.push(row("ARP (tallied)", None, Zero::Repeated, Box::new(sample)));

    rows.push(row("known flow with --packets", None, Zero::Repeated, packet_events(tcp4())?));
    rows.push(row("first packet of a flow", Some(800.0), Zero::Single, first_packets(tcp4())?));
    rows.extend(translated::rows(second, row)?);
    let (path, frame) = (Arc::clone(&datapath), tcp4());
    let sample = move || single_runs(|_| Ok(path.test_run(INGRESS, 1, &frame, 1)?.duration_ns));
    rows.push(row("one run a call: known flow, redirects off", None, Zero::Single, Box::new(sample)));
    Ok(rows)
}

fn load(packet_events: bool) -> Result<Datapath> {
    Datapath::load(&Options { max_flows: MAX_FLOWS, packet_events, ..Options::default() })
        .context("the programs do not load")
}

/// A datapath whose events are read and counted, as weir reads them.
fn load_with_reader(packet_events: bool) -> Result<(Datapath, Arc<AtomicU64>)> {
    let mut datapath = load(packet_events)?;
    let delivered = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&delivered);
    datapath
        .start_reader(move |events| {
            counter.fetch_add(events.len() as u64, Ordering::Relaxed);
        })
        .context("the event ring's reader does not start")?;
    Ok((datapath, delivered))
}

fn wait_for_events(delivered: &AtomicU64, expected: u64) {
    wait_until(Duration::from_secs(10), "every event is delivered", || {
        delivered.load(Ordering::Relaxed) >= expected
    });
}

fn packet_events(frame: Vec<u8>) -> Result<Box<dyn FnMut() -> Result<f64>>> {
    let (datapath, delivered) = load_with_reader(true)?;
    // The flow's opening is an event as well.
    let mut expected = 1;
    Ok(Box::new(move || {
        let ns = f64::from(datapath.test_run(INGRESS, 1, &frame, PACKET_EVENTS)?.duration_ns);
        expected += u64::from(PACKET_EVENTS);
        wait_for_events(&delivered, expected);
        if datapath.losses().packet_ring_full > 0 {
            bail!("the event ring ran full, which is cheaper than a delivered event");
        }
        Ok(ns)
    }))
}

/// Every frame another flow: one run of the program each, in a table of the
/// usual size that was emptied again.
fn first_packets(mut frame: Vec<u8>) -> Result<Box<dyn FnMut() -> Result<f64>>> {
    let (datapath, delivered) = load_with_reader(false)?;
    let table = datapath.flow_table().context("the flow table cannot be opened")?;
    let mut expected = 0;
    Ok(Box::new(move || {
        let ns = single_runs(|port| {
            frame[34..36].copy_from_slice(&(1024 + port).to_be_bytes());
            Ok(datapath.test_run(INGRESS, 1, &frame, 1)?.duration_ns)
        })?;
        expected += u64::from(OPENINGS);
        wait_for_events(&delivered, expected);
        empty_table(&table)?;
        Ok(ns)
    }))
}

/// Median of single runs.
fn single_runs(mut run: impl FnMut(u16) -> Result<u32>) -> Result<f64> {
    let samples = (0..OPENINGS).map(|number| run(number).map(f64::from)).collect::<Result<Vec<_>>>()?;
    Ok(spread(&samples)?.median)
}

fn empty_table(table: &FlowTable) -> Result<()> {
    let mut keys = Vec::new();
    table.visit(|key, _| keys.push(key))?;
    for key in keys {
        table.remove(&key)?;
    }
    Ok(())
}
