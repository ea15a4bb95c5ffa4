//! `weir audit`: live requests. The pipeline is that of `weir observe`; a second
//! thread reads payload out of the kernel and requests out of payload.

mod listener;

use std::process::ExitCode;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use jiff::Timestamp;
use weir_core::flow::FlowKey;
use weir_core::l7::{Engine, Found, Limits, Tally};
use weir_core::reveal::Reveal;
use weir_kernel::AuditOptions;

use crate::cli::{AuditArgs, AuditStats, RequestsArgs};
use crate::error::Error;
use crate::observe::Observer;
use crate::session::{Plan, Session};
use crate::{kernel_release, notice};
use listener::Listener;

/// Batches of requests between the two threads. A full queue holds up the reader of
/// payload; then its ring fills, bodies are left out, and the kernel counts.
const BATCHES_QUEUED: usize = 64;

/// Runs the command until it is told to end.
///
/// # Errors
/// What keeps it from starting or going on; see [`Error`].
pub fn run(arguments: &AuditArgs) -> Result<ExitCode, Error> {
    let (requests, sums) = match &arguments.instead {
        Some(AuditStats::Stats { sums, requests }) => (&**requests, Some(sums)),
        None => (&arguments.requests, None),
    };
    let now = Timestamp::now();
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
    // Interfaces say where to watch, and nothing of what is seen there.
    let where_to = filters.compile(now)?;
    let mut shown = filters.clone();
    shown.interface.clear();
    let mut filter = shown.compile(now)?;
    requests.audit.add_to(&mut filter, now)?;
    let outlet = requests.output.outlet(filter);
    let outlet = match sums {
        Some(sums) => outlet.summing_up(sums.stats()),
        None => outlet,
    };
    kernel_release::check()?;
    let host = &requests.host;
    if host.state.pins().exists() {
        // Payload is read by programs of its own: pinned ones would copy it for nobody when this process is gone.
        notice(
            "redirects are in force here; this weir reads on its own, and shows requests on redirected connections \
             twice: as the client and as the server see them",
        );
    }
    let mut session = Session::start(Plan {
        pins: None,
        max_flows: host.max_flows,
        packet_events: false,
        audit: Some(AuditPlan::new(requests)),
        redirects: false,
        quiet: false,
        accelerate: false,
        attach: host.attach,
        engine: &host.engine,
        interfaces: where_to.interface_globs().cloned().collect(),
    })?;
    session.observe(Observer::of_requests(outlet, requests.for_))?;
    session.run()?;
    Ok(ExitCode::SUCCESS)
}

/// How payload is read.
#[derive(Clone)]
pub(crate) struct AuditPlan {
    options: AuditOptions,
    limits: Limits,
    reveal: Reveal,
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
pub(crate) enum RequestsFound {
    /// Some requests.
    Some(Vec<Found>),
    /// There will be no more; the sums.
    End(Box<Tally>),
}
