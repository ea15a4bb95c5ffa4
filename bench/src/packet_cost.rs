//! What one packet costs in the kernel: the programs through BPF_PROG_TEST_RUN,
//! with an empty program as zero.

use std::net::IpAddr;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use libbpf_rs::libbpf_sys;
use weir_core::event::Hook;
use weir_core::redirect::{
    Compiled, CompiledMatch, CompiledRule, CompiledTarget, InterfacePlace, Place, RuleId, SLOTS, TargetId,
};
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
}

fn measure_here(plan: &Plan, second: u32) -> Result<Vec<Table>> {
    let empty = empty_program()?;
    let mut rows = rows(second)?;
    for row in &mut rows {
        (row.sample)()?; // caches, and the event ring's reader
    }
    let probe = Frame::between("10.0.0.1", "10.0.0.2").udp(1, 2).payload(&[0; 18]).build();
    for _ in 0..plan.cost_rounds {
        let repeated = f64::from(test_run(&empty, 1, &probe, REPEAT)?.duration_ns);
        let single = single_runs(|_| Ok(test_run(&empty, 1, &probe, 1)?.duration_ns))?;
        for row in &mut rows {
            let zero = match row.zero {
                Zero::Repeated => repeated,
                Zero::Single => single,
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
    rows.extend(translated(second, row)?);
    Ok(rows)
}

/// Translated packets, one run a call: the next would get what the first has made of
/// it. The same of an untranslated one stands beside them.
fn translated(second: u32, row: impl Fn(&'static str, Option<f64>, Zero, Sample) -> Row) -> Result<Vec<Row>> {
    let options = Options { max_flows: MAX_FLOWS, redirects: true, ..Options::default() };
    let datapath = Arc::new(Datapath::load(&options).context("the programs do not load")?);
    let redirects = datapath.redirects().context("the redirects cannot be opened")?;
    redirects.set(&one_redirect(second)?).context("the redirect cannot be written")?;
    let frame = |from: &str, to: &str, ports: (u16, u16), flags| {
        Frame::between(from, to).tcp(ports.0, ports.1, flags).payload(&[0; 100]).build()
    };
    let (client, asked, server) = ("10.0.0.1", "10.0.0.2", "10.0.0.3");
    // The two connections begin.
    for frame in [frame(client, asked, (43122, 8080), "S"), frame(client, server, (43123, 80), "S")] {
        datapath.test_run(INGRESS, second, &frame, 1)?;
    }
    for frame in [frame(server, client, (80, 43122), "SA"), frame(server, client, (80, 43123), "SA")] {
        datapath.test_run(EGRESS, second, &frame, 1)?;
    }
    let there = frame(client, asked, (43122, 8080), "A");
    let back = frame(server, client, (80, 43122), "A");
    let plain = frame(client, server, (43123, 80), "A");
    let rows = [
        ("one run a call: known flow, redirects on", None, INGRESS, plain),
        ("one run a call: translated, to the server", Some(110.0), INGRESS, there),
        ("one run a call: translated, to the client", Some(110.0), EGRESS, back),
    ];
    Ok(rows
        .into_iter()
        .map(|(name, target_ns, program, frame)| {
            let datapath = Arc::clone(&datapath);
            let sample =
                move || single_runs(|_| Ok(datapath.test_run(program, second, &frame, 1)?.duration_ns));
            row(name, target_ns, Zero::Single, Box::new(sample))
        })
        .collect())
}

/// Port 8080 of 10.0.0.2 goes to port 80 of 10.0.0.3, for the container behind this interface.
fn one_redirect(ifindex: u32) -> Result<Compiled> {
    let (asked, server) = (IpAddr::from([10, 0, 0, 2]), IpAddr::from([10, 0, 0, 3]));
    let rule = RuleId::new(1, 0).context("1 is the number of a rule")?;
    let mut compiled = Compiled::default();
    let ports = CompiledMatch { rule, protocol: 0, port_first: 8080, port_last: 8080, limited: false };
    compiled.matches.insert(asked, vec![ports]);
    let slots = vec![TargetId(1); SLOTS];
    compiled.rules.insert(rule, CompiledRule { expires_ns: 0, source: None, slots, fast_path: false });
    compiled.targets.insert(TargetId(1), CompiledTarget { address: server, port_first: 80 });
    let (host_mac, mac) = ([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 3]);
    compiled.interfaces.insert(ifindex, InterfacePlace { bridge_ifindex: 1, host_mac, container_side: true });
    compiled.endpoints.insert(server, Place { ifindex: ifindex + 1, bridge_ifindex: 1, mac });
    Ok(compiled)
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

/// A TC program that does nothing but let the next one run.
fn empty_program() -> Result<OwnedFd> {
    let instruction = |code: u8, imm: i32| libbpf_sys::bpf_insn { code, imm, ..Default::default() };
    // r0 = -1; return r0
    let instructions = [instruction(0xb7, -1), instruction(0x95, 0)];
    // SAFETY: name, licence and instructions outlive the call; no options.
    let fd = unsafe {
        libbpf_sys::bpf_prog_load(
            libbpf_sys::BPF_PROG_TYPE_SCHED_CLS,
            c"empty".as_ptr(),
            c"GPL".as_ptr(),
            instructions.as_ptr(),
            instructions.len() as libbpf_sys::size_t,
            std::ptr::null_mut(),
        )
    };
    if fd < 0 {
        bail!("the empty program does not load: {}", std::io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: just opened, and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
