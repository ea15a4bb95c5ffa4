//! `weir observe`: live flows. Alone, leaving nothing behind; or, where redirects are in force, by the weir that keeps
//! them, so that a redirected connection is one row.

mod method;
mod observer;
mod observers;
mod pace;
mod pipeline;
mod watched;

use std::process::ExitCode;

use jiff::Timestamp;
use weir_core::filter::Filter;

use crate::audit::AuditPlan;
use crate::cli::ObserveArgs;
use crate::error::Error;
use crate::kernel_release;
use crate::local::{self, Request};
use crate::session::{Plan, Session};

pub(crate) use method::choose as choose_method;
pub(crate) use observer::Observer;
pub(crate) use observers::OWN;
pub(crate) use pace::Pace;
pub(crate) use pipeline::Pipeline;
pub(crate) use watched::Watched;

/// Runs the command until it is told to end.
///
/// # Errors
/// What keeps it from starting or going on; see [`Error`].
pub fn run(arguments: &ObserveArgs) -> Result<ExitCode, Error> {
    let filter = compile(arguments)?;
    kernel_release::check()?;
    let interfaces: Vec<_> = filter.interface_globs().cloned().collect();
    // These are about programs of its own; the weir that runs has its programs and interfaces already.
    let shares = !arguments.packets && interfaces.is_empty();
    if shares
        && arguments.host.is_as_it_is()
        && let Some(weir) = local::connect(&arguments.host.state.socket)
    {
        return weir.ask(&Request::typed(arguments.output.color.for_stdout())?);
    }
    let pins = arguments.host.state.pins();
    let keeps = shares && pins.exists();
    let plan = Plan {
        pins: keeps.then_some(&pins),
        max_flows: arguments.host.max_flows,
        packet_events: arguments.packets,
        // For others who may ask.
        audit: keeps.then(AuditPlan::default),
        redirects: false,
        accelerate: false,
        quiet: false,
        attach: arguments.host.attach,
        engine: &arguments.host.engine,
        interfaces,
    };
    let alone = "this weir counts on its own, and shows a redirected connection as two: as its client and as its server see it";
    let observer = Observer::of_flows(arguments.output.outlet(filter), arguments);
    let unkept = Plan { pins: None, audit: None, ..plan.clone() };
    Session::run_for(observer, plan, unkept, alone, &arguments.host.state.socket)?;
    Ok(ExitCode::SUCCESS)
}

/// Checks the filter.
pub(crate) fn compile(arguments: &ObserveArgs) -> Result<Filter, Error> {
    let filter = arguments.filters.compile(Timestamp::now())?;
    match filter.application() {
        None => Ok(filter),
        Some(name) => Err(Error::Usage(format!(
            "--protocol {name}: flows are told by their transport (tcp, udp, ...); requests by their \
             application protocol, by weir audit"
        ))),
    }
}

/// As the kernel sizes its own connection tracking: 262,144 flows from 4 GiB of
/// memory on, below it one for every 16 kiB, of which an entry takes a fiftieth.
pub(crate) fn default_max_flows() -> u32 {
    let memory = rustix::system::sysinfo();
    let bytes = memory.totalram.saturating_mul(u64::from(memory.mem_unit));
    u32::try_from((bytes / (16 << 10)).clamp(16_384, 262_144)).unwrap_or(262_144)
}
