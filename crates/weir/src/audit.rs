//! `weir audit`: live requests. The pipeline is that of `weir observe`; a second
//! thread reads payload out of the kernel and requests out of payload.

mod listener;
mod translations;

use std::io::Write;
use std::process::ExitCode;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use weir_core::filter::{Filter, NamePattern};
use weir_core::flow::FlowKey;
use weir_core::l7::{Engine, Found, Limits, Tally};
use weir_core::reveal::Reveal;
use weir_kernel::AuditOptions;

use crate::cli::{AuditArgs, AuditStats, PayloadArgs, RequestsArgs};
use crate::error::Error;
use crate::local::{self, Request};
use crate::observe::Observer;
use crate::outlet::Outlet;
use crate::session::{Plan, Session};
use crate::{kernel_release, notice};
use listener::Listener;
pub(crate) use translations::Translations;

/// Batches of requests between the two threads. A full queue holds up the reader of
/// payload; then its ring fills, bodies are left out, and the kernel counts.
const BATCHES_QUEUED: usize = 64;

/// Runs the command until it is told to end.
///
/// # Errors
/// What keeps it from starting or going on; see [`Error`].
pub fn run(arguments: &AuditArgs) -> Result<ExitCode, Error> {
    let requests = arguments.requests();
    let (filter, interfaces) = compile(requests)?;
    kernel_release::check()?;
    let host = &requests.host;
    // These are about programs and a reader of its own; the weir that runs has them already.
    let shares = interfaces.is_empty() && requests.reveal.is_empty() && requests.payload.is_default();
    if shares
        && host.is_as_it_is()
        && let Some(weir) = local::connect(&host.state.socket)
    {
        return weir.ask(&Request::typed(requests.output.color.for_stdout())?);
    }
    let pins = host.state.pins();
    let plan = Plan {
        pins: (interfaces.is_empty() && pins.exists()).then_some(&pins),
        max_flows: host.max_flows,
        packet_events: false,
        audit: Some(AuditPlan::new(requests)),
        redirects: false,
        quiet: false,
        accelerate: false,
        attach: host.attach,
        engine: &host.engine,
        interfaces,
    };
    let alone = "this weir reads on its own, and of a redirected connection it may see each end's half only";
    if plan.pins.is_none() && pins.exists() {
        notice(&format!("redirects are in force here; {alone}"));
    }
    let outlet = summed_up(requests.output.outlet(filter), arguments);
    let unkept = Plan { pins: None, ..plan.clone() };
    Session::run_for(Observer::of_requests(outlet, requests.for_), plan, unkept, alone, &host.state.socket)?;
    Ok(ExitCode::SUCCESS)
}

/// Another process's `weir audit`, which writes to `out` in these colours.
pub(crate) fn observer_for(
    arguments: &AuditArgs,
    zone: TimeZone,
    color: bool,
    out: Box<dyn Write + Send>,
) -> Result<Observer, Error> {
    let requests = arguments.requests();
    let outlet = requests.output.outlet_to(compile(requests)?.0, zone, color, out);
    Ok(Observer::of_requests(summed_up(outlet, arguments), requests.for_))
}

fn summed_up(outlet: Outlet, arguments: &AuditArgs) -> Outlet {
    match &arguments.instead {
        Some(AuditStats::Stats { sums, .. }) => outlet.summing_up(sums.stats()),
        None => outlet,
    }
}

/// Checks the filters: which requests are shown, and at which interfaces they are looked for.
fn compile(requests: &RequestsArgs) -> Result<(Filter, Vec<NamePattern>), Error> {
    let filters = &requests.filters;
    if !filters.state.is_empty() || !filters.not_state.is_empty() {
        return Err(Error::Usage("--state is about flows: requests have none".to_owned()));
    }
    if !filters.not_interface.is_empty() {
        return Err(Error::Usage(
            "--not --interface: requests are of no interface; name those to watch with --interface"
                .to_owned(),
        ));
    }
    let now = Timestamp::now();
    let mut filter = filters.compile(now)?;
    // Interfaces say where to watch, and nothing of what is seen there.
    let interfaces = filter.take_interface_globs();
    requests.audit.add_to(&mut filter, now)?;
    if filter.has_transport() {
        return Err(Error::Usage(
            "--protocol: requests are told by their application protocol (http, redis, ...); flows by their \
             transport, by weir observe"
                .to_owned(),
        ));
    }
    Ok((filter, interfaces))
}

/// How payload is read.
#[derive(Clone)]
pub(crate) struct AuditPlan {
    options: AuditOptions,
    limits: Limits,
    reveal: Reveal,
}

impl Default for AuditPlan {
    /// As for those who say nothing of it.
    fn default() -> Self {
        Self {
            options: AuditOptions { ring_bytes: PayloadArgs::RING_BYTES, turn_bytes_max: None },
            limits: Limits::default(),
            reveal: Reveal::default(),
        }
    }
}

impl AuditPlan {
    fn new(arguments: &RequestsArgs) -> Self {
        let payload = &arguments.payload;
        let unlimited = Limits::default();
        Self {
            options: AuditOptions { ring_bytes: payload.payload_ring, turn_bytes_max: payload.max_turn },
            limits: Limits {
                connection_bytes: payload.max_connection.unwrap_or(unlimited.connection_bytes),
                ..unlimited
            },
            reveal: arguments.reveal.set(),
        }
    }

    pub(crate) fn options(&self) -> AuditOptions {
        self.options
    }

    /// Who listens to payload, where it is told of flows, and where its findings come out.
    pub(crate) fn listener(&self) -> (Listener, Sender<FlowNews>, Receiver<RequestsFound>) {
        let (found, requests) = bounded(BATCHES_QUEUED);
        // The pipeline must never wait for the reader, which may be waiting for it.
        let (flow_news, news) = unbounded();
        let engine = Engine::new(self.limits).revealing(self.reveal);
        (Listener::new(engine, news, found), flow_news, requests)
    }
}

/// What the flow table says of a flow whose payload may be read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FlowNews {
    pub(crate) key: FlowKey,
    /// When it began.
    pub(crate) first_ns: u64,
    /// When this was said, CLOCK_MONOTONIC.
    pub(crate) told_ns: u64,
    /// Up to where its ends have sent: TCP sequence numbers, by [`weir_core::flow::Side::index`].
    pub(crate) next_seq: [u32; 2],
    /// Nothing more comes of it. Otherwise weir ends first.
    pub(crate) is_over: bool,
}

/// What comes out of payload.
#[derive(Debug)]
pub(crate) struct RequestsFound {
    /// Some requests.
    pub(crate) found: Vec<Found>,
    /// The sums until now.
    pub(crate) tally: Tally,
    /// Takes back `found`. Memory that one thread takes and another one gives back costs both: each waits
    /// for the other.
    pub(crate) used: Sender<Vec<Found>>,
}
