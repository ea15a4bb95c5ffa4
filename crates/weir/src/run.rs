//! `weir run`: keeps what is pinned. It gives names to addresses, attaches to containers that come, clears the table of
//! what has ended, and answers other commands.

use std::process::ExitCode;

use weir_kernel::PinError;

use crate::audit::AuditPlan;
use crate::cli::RunArgs;
use crate::error::Error;
use crate::session::{Plan, Session};
use crate::{kernel_release, local, notice};

/// Runs the command until a signal.
///
/// # Errors
/// Another weir runs; or what keeps it from starting or going on.
pub fn run(arguments: &RunArgs) -> Result<ExitCode, Error> {
    kernel_release::check()?;
    let socket = &arguments.state.socket;
    let runs_already = || Error::RunsAlready { path: socket.clone() };
    if local::connect(socket).is_some() {
        return Err(runs_already());
    }
    let pins = arguments.state.pins();
    let taken_over = pins.exists();
    let plan = Plan {
        pins: Some(&pins),
        max_flows: arguments.max_flows,
        packet_events: false,
        redirects: true,
        accelerate: arguments.accelerate,
        quiet: false,
        // Read while somebody asks for it.
        audit: Some(AuditPlan::default()),
        attach: arguments.attach,
        engine: &arguments.engine,
        interfaces: Vec::new(),
    };
    let mut session = Session::start(plan).map_err(|error| match error {
        Error::Pin(PinError::InUse { .. }) if local::connect(socket).is_some() => runs_already(),
        error => error,
    })?;
    session.answer(socket)?;
    let place = pins.path().display().to_string();
    notice(&match taken_over {
        true => format!("took over rules and connections from {place}; answering at {}", socket.display()),
        false => format!("keeps rules and connections in {place}; answering at {}", socket.display()),
    });
    session.run()?;
    notice(
        "ended. Rules hold and redirected connections go on; they do not follow containers until the next `weir run`. \
         `weir down` ends them",
    );
    Ok(ExitCode::SUCCESS)
}
