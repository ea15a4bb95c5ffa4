//! `weir observe`: live flows, alone, without a daemon, leaving nothing behind.

mod method;
mod observer;
mod pipeline;
mod watched;

use std::io;
use std::process::ExitCode;

use crossbeam_channel::{Receiver, at, bounded, never, select};
use jiff::Timestamp;
use weir_core::event::Event;
use weir_kernel::attach::Attacher;
use weir_kernel::{Datapath, Options};

use crate::cli::ObserveArgs;
use crate::error::Error;
use crate::host::{self, HostEvent, WatchOptions};
use crate::{kernel_release, signals};
use observer::Observer;
use pipeline::{OWN, Pipeline};
use watched::Watched;

/// Batches of at most 1,024 events between the ring's reader and the pipeline:
/// with the ring, room for a burst of 160,000 openings. A full queue holds up the
/// reader, the ring fills, and the kernel counts what it cannot deliver.
const BATCHES_QUEUED: usize = 64;

/// Runs the command until it is told to end.
///
/// # Errors
/// What keeps it from starting or going on; see [`Error`].
pub fn run(arguments: &ObserveArgs) -> Result<ExitCode, Error> {
    let filter = arguments.filters.compile(Timestamp::now())?;
    if let Some(name) = filter.application() {
        return Err(Error::Usage(format!(
            "--protocol {name}: flows are told by their transport (tcp, udp, ...); requests by their \
             application protocol, by weir read"
        )));
    }
    kernel_release::check()?;

    let max_flows = arguments.max_flows.unwrap_or_else(default_max_flows);
    let mut datapath = Datapath::load(&Options { max_flows, packet_events: arguments.packets, audit: None })?;
    let method = method::choose(arguments.attach, &filter)?;
    let attacher = Attacher::new(method, |name| datapath.program(name))?;
    let table = datapath.flow_table().map_err(system("cannot open the flow table"))?;

    let signals = signals::channel().map_err(system("cannot listen for signals"))?;
    let (changes, _watch) = host::watch(WatchOptions { engines: arguments.engine.clone() })?;
    let (deliver, events) = bounded::<Vec<Event>>(BATCHES_QUEUED);
    datapath.start_reader(move |batch| {
        // The pipeline hangs up only when it has read everything.
        let _ = deliver.send(batch);
    })?;

    let watched = Watched::new(attacher, filter.interface_globs().cloned().collect());
    let mut pipeline = Pipeline::new(table, max_flows, watched)?;
    let observer = Observer::new(arguments.output.outlet(filter), arguments);
    pipeline.join(OWN, observer, &datapath.losses())?;

    let result = observe(&mut pipeline, &events, &changes, &signals);
    // Nothing more is counted from here on; what was is delivered and told.
    pipeline.detach();
    let mut drained = Ok(());
    std::thread::scope(|scope| {
        scope.spawn(|| datapath.stop_reader());
        // To the end, come what may: the reader waits for room to deliver.
        for batch in &events {
            if drained.is_ok() {
                drained = pipeline.events(&batch);
            }
        }
    });
    result.and(drained)?;
    pipeline.leave(OWN, &datapath.losses())?;
    Ok(ExitCode::SUCCESS)
}

/// The loop: whatever comes first, until the end.
fn observe(
    pipeline: &mut Pipeline,
    events: &Receiver<Vec<Event>>,
    host: &Receiver<HostEvent>,
    signals: &Receiver<i32>,
) -> Result<(), Error> {
    // A host whose watch has ended has said so; there is nothing to wait for.
    let mut host = host.clone();
    while !pipeline.is_done() {
        let due = pipeline.next_due().map_or_else(never, at);
        select! {
            recv(events) -> batch => match batch {
                Ok(batch) => pipeline.events(&batch)?,
                Err(_) => return Ok(()),
            },
            recv(host) -> event => match event {
                Ok(event) => {
                    std::iter::once(event).chain(host.try_iter()).try_for_each(|event| pipeline.host_event(event))?;
                }
                Err(_) => host = never(),
            },
            recv(signals) -> _ => return Ok(()),
            recv(due) -> _ => {}
        }
        pipeline.tick()?;
        if events.is_empty() {
            pipeline.flush()?;
        }
    }
    Ok(())
}

/// As the kernel sizes its own connection tracking: 262,144 flows from 4 GiB of
/// memory on, below it one for every 16 kiB, of which an entry takes a fiftieth.
pub(crate) fn default_max_flows() -> u32 {
    let memory = rustix::system::sysinfo();
    let bytes = memory.totalram.saturating_mul(u64::from(memory.mem_unit));
    u32::try_from((bytes / (16 << 10)).clamp(16_384, 262_144)).unwrap_or(262_144)
}

fn system(action: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::System { action, source }
}
