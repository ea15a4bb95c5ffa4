//! `weir read`: requests or flows out of capture files. Needs no root.

mod capture;
mod flows;
mod pipeline;

use std::process::ExitCode;

use jiff::Timestamp;
use weir_core::filter::Filter;

use crate::cli::ReadArgs;
use crate::error::Error;
use crate::{notice, signals};
use capture::Capture;
use pipeline::Pipeline;

pub use capture::CaptureError;

/// Packets between two looks at whether the user wants to end.
const PACKETS_PER_LOOK: u64 = 1024;

/// Reads the files to their end, or until told to end.
///
/// # Errors
/// What keeps it from starting or going on; see [`Error`].
pub fn run(arguments: &ReadArgs) -> Result<ExitCode, Error> {
    let now = Timestamp::now();
    let mut filter = arguments.filters.compile(now)?;
    arguments.audit.add_to(&mut filter, now)?;
    check(arguments, &filter)?;
    let signals =
        signals::channel().map_err(|source| Error::System { action: "cannot listen for signals", source })?;
    let outlet = arguments.output.outlet(filter);
    let outlet = if arguments.stats { outlet.summing_up(arguments.sums.stats()) } else { outlet };
    let mut pipeline = match arguments.flows {
        true => Pipeline::of_flows(outlet),
        false => Pipeline::of_requests(outlet, arguments.reveal.set()),
    };

    let mut result = Ok(());
    'files: for path in &arguments.files {
        let mut capture = match Capture::open(path) {
            Ok(capture) => capture,
            // Nothing was read yet that could be told.
            Err(error) if pipeline.is_empty() => return Err(error.into()),
            Err(error) => {
                result = Err(error.into());
                break;
            }
        };
        let mut packets = 0u64;
        loop {
            match capture.next(&mut |link, packet| pipeline.packet(link, packet)) {
                Ok(true) => {}
                Ok(false) => break,
                Err(CaptureError::CutOff { .. }) => {
                    pipeline.file_cut_off();
                    notice(&format!(
                        "{}; it is read up to there",
                        CaptureError::CutOff { path: path.clone() }
                    ));
                    break;
                }
                Err(error) => {
                    pipeline.file_cut_off();
                    result = Err(error.into());
                    break 'files;
                }
            }
            packets += 1;
            pipeline.check()?;
            if packets.is_multiple_of(PACKETS_PER_LOOK) {
                if capture.is_live() {
                    pipeline.flush()?;
                }
                if !signals.is_empty() {
                    break 'files;
                }
            }
            if pipeline.is_done() {
                break 'files;
            }
        }
    }
    // What was read before something failed is told all the same.
    pipeline.finish()?;
    result.map(|()| ExitCode::SUCCESS)
}

/// Whether what was asked for is in files, and in the records that are wanted.
fn check(arguments: &ReadArgs, filter: &Filter) -> Result<(), Error> {
    let filters = &arguments.filters;
    if !filters.interface.is_empty() || !filters.not_interface.is_empty() {
        return Err(Error::Usage(
            "--interface is about the devices of this host: files have none".to_owned(),
        ));
    }
    if !arguments.flows && (!filters.state.is_empty() || !filters.not_state.is_empty()) {
        return Err(Error::Usage("--state is about flows: it needs --flows".to_owned()));
    }
    if let Some(name) = filter.application().filter(|_| arguments.flows) {
        return Err(Error::Usage(format!(
            "--protocol {name}: flows are told by their transport (tcp, udp, ...); requests by their \
             application protocol, without --flows"
        )));
    }
    if arguments.sums.by.is_some() && !arguments.stats {
        return Err(Error::Usage("--by is about sums: it needs --stats".to_owned()));
    }
    Ok(())
}
