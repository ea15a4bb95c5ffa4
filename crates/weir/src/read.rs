//! `weir read`: requests, flows or packets out of capture files. Needs no root.

mod capture;
mod flows;
mod pipeline;
mod places;
mod reader;

use std::process::ExitCode;

use jiff::Timestamp;
use weir_core::filter::Filter;

use crate::cli::ReadArgs;
use crate::error::Error;
use crate::{notice, signals};
use capture::{Capture, Step};
use pipeline::Pipeline;
use places::Places;
use reader::Reader;

pub use capture::CaptureError;

/// Packets between two looks at whether the user wants to end.
const PACKETS_PER_LOOK: u64 = 1024;

/// Reads the files to their end, or until told to end.
///
/// # Errors
/// What keeps it from starting or going on; see [`Error`].
pub fn run(arguments: &ReadArgs) -> Result<ExitCode, Error> {
    let mut pipeline = pipeline(arguments)?;
    let signals =
        signals::channel().map_err(|source| Error::System { action: "cannot listen for signals", source })?;

    let mut unread = None;
    let mut result: Result<(), Error> = Ok(());
    let mut is_all_read = true;
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
            match capture.next(&mut |frame| pipeline.frame(frame)) {
                Ok(Step::Frame) => packets += 1,
                // Who writes it may take their time.
                Ok(Step::Pause) => pipeline.flush()?,
                Ok(Step::End) => break,
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
            pipeline.check()?;
            if pipeline.is_done() || packets.is_multiple_of(PACKETS_PER_LOOK) && !signals.is_empty() {
                is_all_read = false;
                break 'files;
            }
        }
        if let Some(number) = pipeline.link_not_read() {
            unread.get_or_insert(CaptureError::Link { path: path.clone(), number });
        }
    }
    // What was read before something failed is told all the same.
    pipeline.finish()?;
    result?;
    if let Some(error) = unread.filter(|_| pipeline.is_empty()) {
        return Err(error.into());
    }
    if is_all_read {
        pipeline.check_names()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What reads packets as the arguments say.
fn pipeline(arguments: &ReadArgs) -> Result<Pipeline, Error> {
    let now = Timestamp::now();
    let mut filter = arguments.filters.compile(now)?;
    arguments.audit.add_to(&mut filter, now)?;
    check(arguments, &filter)?;
    // Interfaces say which packets are read, and nothing of what is found in them.
    let places = Places::new(&arguments.filters)?;
    filter.take_interface_globs();
    let outlet = arguments.output.outlet(filter);
    let outlet = if arguments.stats { outlet.summing_up(arguments.sums.stats()) } else { outlet };
    let reader = if arguments.flows {
        Reader::of_flows(arguments.max_flows, arguments.updates)
    } else if arguments.packets {
        Reader::of_packets(arguments.max_flows)
    } else {
        Reader::of_requests(arguments.reveal.set())
    };
    Ok(Pipeline::new(outlet, reader, places, arguments.for_))
}

/// Whether what was asked for is in files, and in the records that are wanted.
fn check(arguments: &ReadArgs, filter: &Filter) -> Result<(), Error> {
    let filters = &arguments.filters;
    let usage = |text: &str| Err(Error::Usage(text.to_owned()));
    let is_given = |wanted: &[String], refused: &[String]| !wanted.is_empty() || !refused.is_empty();
    for (name, wanted, refused) in [
        ("container", &filters.container, &filters.not_container),
        ("service", &filters.service, &filters.not_service),
    ] {
        if is_given(wanted, refused) {
            return Err(Error::Usage(format!(
                "--{name}: files do not tell which containers there were; name addresses, with --ip, --from or --to"
            )));
        }
    }
    if is_given(&filters.verdict, &filters.not_verdict) {
        return usage("--verdict is about what weir does with flows: it did nothing with those in a file");
    }
    let ends = [&filters.from, &filters.not_from, &filters.to, &filters.not_to];
    if ends.into_iter().flatten().any(|end| end.split(':').next() == Some("virtual")) {
        return usage("virtual: nobody answers for addresses in a file by a rule of weir's");
    }
    if arguments.max_flows.is_some() && !arguments.flows && !arguments.packets {
        return usage("--max-flows is about flows: it needs --flows or --packets");
    }
    if !arguments.flows && is_given(&filters.state, &filters.not_state) {
        return usage("--state is about flows: it needs --flows");
    }
    if let Some(name) = filter.application().filter(|_| arguments.flows || arguments.packets) {
        return Err(Error::Usage(format!(
            "--protocol {name}: flows and packets are told by their transport (tcp, udp, ...); requests by \
             their application protocol, without --flows and --packets"
        )));
    }
    if filter.has_transport() && !arguments.flows && !arguments.packets {
        return usage(
            "--protocol: requests are told by their application protocol (http, redis, ...); flows and packets \
             by their transport, with --flows or --packets",
        );
    }
    if arguments.sums.by.is_some() && !arguments.stats {
        return usage("--by is about sums: it needs --stats");
    }
    Ok(())
}
