//! A weir that runs: from the kernel and the host to its observers, until it is told to end.
//!
//! `weir observe` runs one for itself, with maps that go when it ends. `weir run` runs one with pinned maps, and answers
//! other processes; so does a `weir observe` that finds pinned maps and nobody who runs them.

mod guests;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, at, bounded, never, select, tick};
use weir_core::event::Event;
use weir_core::filter::NamePattern;
use weir_kernel::attach::Attacher;
use weir_kernel::{Datapath, Options, PinDirectory, PinError};

use crate::audit::{AuditPlan, RequestsFound};
use crate::cli::AttachChoice;
use crate::containers::EngineChoice;
use crate::error::Error;
use crate::host::{self, HostEvent, WatchHandle, WatchOptions};
use crate::local::{Client, Message, Server};
use crate::observe::{self, OWN, Observer, Pace, Pipeline, Watched};
use crate::redirect::{self, Follower};
use crate::{notice, signals};

/// Batches of at most 1,024 events between the ring's reader and the pipeline:
/// with the ring, room for a burst of 160,000 openings. A full queue holds up the
/// reader, the ring fills, and the kernel counts what it cannot deliver.
const BATCHES_QUEUED: usize = 64;

/// How often the pinned programs are told that somebody keeps the table.
const KEEP_INTERVAL: Duration = Duration::from_secs(10);

/// What is decided before it starts.
#[derive(Clone)]
pub(crate) struct Plan<'a> {
    /// Where its maps are pinned; none: they are its own, and go with it.
    pub(crate) pins: Option<&'a PinDirectory>,
    /// Entries of the flow table, if the user said so.
    pub(crate) max_flows: Option<u32>,
    /// An event for each packet.
    pub(crate) packet_events: bool,
    /// It redirects connections, as every weir does whose maps are pinned.
    pub(crate) redirects: bool,
    /// Packets between containers of one bridge go past bridge and stack, where it redirects.
    pub(crate) accelerate: bool,
    /// It does not say what it watches.
    pub(crate) quiet: bool,
    /// Payload can be read, and requests in it; it is while an observer wants requests.
    pub(crate) audit: Option<AuditPlan>,
    pub(crate) attach: AttachChoice,
    pub(crate) engine: &'a EngineChoice,
    /// Interfaces to watch; none: the veths of all containers.
    pub(crate) interfaces: Vec<NamePattern>,
}

/// It runs.
pub(crate) struct Session {
    datapath: Datapath,
    pipeline: Pipeline,
    redirects: Option<Follower>,
    events: Receiver<Vec<Event>>,
    /// What payload gave; `None`: it is not read.
    requests: Option<Receiver<RequestsFound>>,
    /// Whether payload is copied.
    copies_payload: bool,
    host: Receiver<HostEvent>,
    _watch: WatchHandle,
    signals: Receiver<i32>,
    /// When the pinned programs are to hear of this process again.
    keep: Receiver<Instant>,
    /// What other processes ask, if it answers them.
    messages: Receiver<Message>,
    server: Option<Server>,
    guests: BTreeMap<u64, Client>,
    /// It ends when the last rule does.
    ends_with_rules: bool,
}

impl Session {
    /// Loads, attaches, begins to watch the host.
    ///
    /// # Errors
    /// What keeps it from starting.
    pub(crate) fn start(plan: Plan<'_>) -> Result<Self, Error> {
        let pinned = plan.pins.and_then(PinDirectory::max_flows);
        let max_flows = plan.max_flows.or(pinned).unwrap_or_else(observe::default_max_flows);
        // State that outlives the process is kept for their sake.
        let redirects = plan.redirects || plan.pins.is_some();
        let options = Options {
            max_flows,
            packet_events: plan.packet_events,
            audit: plan.audit.as_ref().map(AuditPlan::options),
            redirects,
            accelerate: plan.accelerate,
            // Which no container's interface is.
            without_ethernet: !plan.interfaces.is_empty(),
        };
        let of_another_version = plan.pins.is_some_and(PinDirectory::is_of_another_version);
        let mut datapath = match plan.pins {
            Some(pins) => Datapath::pinned(&options, pins)?,
            None => Datapath::load(&options)?,
        };
        let method = observe::choose_method(plan.attach, &plan.interfaces)?;
        let attacher = Attacher::of(method, &mut datapath)?;
        if of_another_version {
            notice(
                "the state was that of another version of weir: its rules and open connections were carried over",
            );
        }
        let table = datapath.flow_table().map_err(system("cannot open the flow table"))?;

        let signals = signals::channel().map_err(system("cannot listen for signals"))?;
        let (host, watch) = host::watch(WatchOptions { engines: plan.engine.clone() })?;
        let (deliver, events) = bounded::<Vec<Event>>(BATCHES_QUEUED);
        datapath.start_reader(move |batch| {
            // The pipeline hangs up only when it has read everything.
            let _ = deliver.send(batch);
        })?;
        let mut pipeline = Pipeline::new(table, max_flows, Watched::new(attacher, plan.interfaces))?;
        pipeline.quiet = plan.quiet;
        let redirects = match redirects {
            true => Some(Follower::new(&datapath, plan.engine.clone(), plan.accelerate)?),
            false => None,
        };
        let requests = match &plan.audit {
            Some(audit) => {
                let (listener, flow_news, requests) = audit.listener();
                datapath.start_payload_reader(listener)?;
                pipeline.tell_flow_news(flow_news);
                Some(requests)
            }
            None => None,
        };
        Ok(Self {
            datapath,
            pipeline,
            redirects,
            events,
            requests,
            copies_payload: false,
            host,
            _watch: watch,
            signals,
            keep: if plan.pins.is_some() { tick(KEEP_INTERVAL) } else { never() },
            messages: never(),
            server: None,
            guests: BTreeMap::new(),
            ends_with_rules: false,
        })
    }

    /// Runs for `observer`, which is the process's own. If that is by pinned maps, it answers other processes too; if
    /// those are another's to read, it runs by the plan `unkept`, and says what that means: `alone`.
    ///
    /// # Errors
    /// What keeps it from starting or going on; see [`Error`].
    pub(crate) fn run_for(
        observer: Observer,
        plan: Plan<'_>,
        unkept: Plan<'_>,
        alone: &str,
        socket: &Path,
    ) -> Result<(), Error> {
        let mut keeps = plan.pins.is_some();
        let mut session = match Self::start(plan) {
            Err(Error::Pin(error)) if is_anothers(&error) => {
                notice(&format!("{error}; {alone}"));
                keeps = false;
                Self::start(unkept)?
            }
            session => session?,
        };
        session.observe(observer)?;
        if keeps {
            session.answer(socket).unwrap_or_else(|error| notice(&error.to_string()));
        }
        session.run()
    }

    /// The process itself reads what comes out, and the session ends when it is done.
    ///
    /// # Errors
    /// The table cannot be read.
    pub(crate) fn observe(&mut self, observer: Observer) -> Result<(), Error> {
        self.pipeline.join(OWN, observer, &self.datapath.losses())?;
        self.copy_as_wanted()
    }

    /// Has payload copied while somebody wants to know of requests.
    fn copy_as_wanted(&mut self) -> Result<(), Error> {
        let wanted = self.pipeline.wants_requests();
        if std::mem::replace(&mut self.copies_payload, wanted) != wanted {
            if !wanted {
                self.pipeline.end_conversations()?;
            }
            self.datapath.copy_payload(wanted);
        }
        Ok(())
    }

    /// Answers other processes at `socket`.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub(crate) fn answer(&mut self, socket: &Path) -> Result<(), Error> {
        let (server, messages) = Server::start(socket)?;
        (self.server, self.messages) = (Some(server), messages);
        Ok(())
    }

    /// Goes on until a signal, or until the process's own observer is done.
    ///
    /// # Errors
    /// What keeps it from going on; see [`Error`].
    pub(crate) fn run(mut self) -> Result<(), Error> {
        let result = self.go_on();
        self.end(result)
    }

    /// Goes on until a signal, or until no rule is in force any more.
    ///
    /// # Errors
    /// What keeps it from going on; see [`Error`].
    pub(crate) fn run_while_ruled(mut self) -> Result<(), Error> {
        self.ends_with_rules = true;
        self.run()
    }

    /// Waits until it is known who is there, and all that is there has programs.
    ///
    /// # Errors
    /// What keeps it from starting.
    pub(crate) fn until_ready(&mut self) -> Result<(), Error> {
        while !self.pipeline.is_ready() {
            let event = self.host.recv().map_err(|_| Error::System {
                action: "cannot watch the host",
                source: io::ErrorKind::BrokenPipe.into(),
            })?;
            self.host_event(event)?;
        }
        Ok(())
    }

    /// Does what is asked of the redirects, wholly or not at all.
    ///
    /// # Errors
    /// It makes no sense, or the kernel refuses.
    pub(crate) fn redirect(&mut self, request: &redirect::Request) -> Result<redirect::Answer, Error> {
        let Some(follower) = &mut self.redirects else {
            return Err(Error::Usage("this weir does not redirect".to_owned()));
        };
        self.datapath.check_in_place()?;
        let answer = follower.answer(request, self.pipeline.directory())?;
        self.pipeline.name_rules(follower.names());
        Ok(answer)
    }

    /// Ends, and tells what is left to tell. `result`: how it went until now.
    ///
    /// # Errors
    /// How it went, or how it ended.
    pub(crate) fn end(mut self, result: Result<(), Error>) -> Result<(), Error> {
        // Nobody is answered any more.
        self.server = None;
        // If nothing is pinned, nothing more is counted from here on; what was is delivered and told.
        self.pipeline.detach();
        let told = self.pipeline.tell_progress();
        // Not before: of what flows had sent until then, payload is in the ring. From here on nobody reads it, and
        // the table is the programs' own, if they are pinned.
        self.datapath.copy_payload(false);
        self.datapath.stop_keeping();
        let drained = self.drain();
        result.and(told).and(drained)?;
        for id in self.pipeline.guests() {
            self.leave(id)?;
        }
        self.pipeline.leave(OWN, &self.datapath.losses())
    }

    /// Ends the readers, and takes what they still deliver.
    fn drain(&mut self) -> Result<(), Error> {
        let Self { datapath, pipeline, events, requests, .. } = self;
        let mut drained = Ok(());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                datapath.stop_payload_reader();
                datapath.stop_reader();
            });
            // To the end, come what may: the readers wait for room to deliver.
            let (mut events, mut requests) = (events.clone(), requests.clone().unwrap_or_else(never));
            let (mut more_events, mut more_requests) = (true, pipeline.reads_payload());
            while more_events || more_requests {
                select! {
                    recv(events) -> batch => match batch {
                        Ok(batch) if drained.is_ok() => drained = pipeline.events(&batch, Pace::Hurries),
                        Ok(_) => {}
                        Err(_) => (events, more_events) = (never(), false),
                    },
                    recv(requests) -> batch => match batch {
                        Ok(batch) if drained.is_ok() => drained = pipeline.requests(batch, Pace::Hurries),
                        Ok(_) => {}
                        Err(_) => (requests, more_requests) = (never(), false),
                    },
                }
            }
        });
        drained
    }

    /// Whatever comes first, until the end.
    fn go_on(&mut self) -> Result<(), Error> {
        // A host whose watch has ended has said so; there is nothing to wait for.
        let mut host = self.host.clone();
        let requests = self.requests.clone().unwrap_or_else(never);
        while !self.is_done() {
            let follow = self.redirects.as_ref().and_then(Follower::next_due);
            let due = [self.pipeline.next_due(), follow].into_iter().flatten().min();
            let due = due.map_or_else(never, at);
            // Who asks before it is known who is there would be told that nobody is.
            let messages = if self.pipeline.is_ready() { self.messages.clone() } else { never() };
            select! {
                recv(self.events) -> batch => match batch {
                    Ok(batch) => self.pipeline.events(&batch, Pace::toward(&self.events))?,
                    Err(_) => return Ok(()),
                },
                recv(requests) -> batch => match batch {
                    Ok(batch) => self.pipeline.requests(batch, Pace::toward(&requests))?,
                    Err(_) => return Ok(()),
                },
                recv(host) -> event => match event {
                    Ok(event) => {
                        let more = host.try_iter();
                        std::iter::once(event).chain(more).try_for_each(|event| self.host_event(event))?;
                    }
                    Err(_) => host = never(),
                },
                recv(messages) -> message => match message {
                    Ok(Message::Asked { id, request, client }) => self.asked(id, &request, client),
                    Ok(Message::Gone { id }) => self.leave(id)?,
                    Err(_) => self.messages = never(),
                },
                recv(self.keep) -> _ => self.datapath.keep(),
                recv(self.signals) -> _ => return Ok(()),
                recv(due) -> _ => {}
            }
            self.pipeline.tick()?;
            if self.pipeline.is_ready()
                && let Some(follower) = &mut self.redirects
            {
                follower.tick(self.pipeline.directory());
                self.pipeline.name_rules(follower.names());
            }
            for id in self.pipeline.done() {
                self.leave(id)?;
            }
            if self.events.is_empty() && requests.is_empty() {
                self.pipeline.flush()?;
            }
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        let ruled = |follower: &Follower| follower.names().next().is_some();
        self.pipeline.is_done() || (self.ends_with_rules && !self.redirects.as_ref().is_some_and(ruled))
    }

    fn host_event(&mut self, event: HostEvent) -> Result<(), Error> {
        if let Some(follower) = &mut self.redirects {
            follower.changed();
        }
        self.pipeline.host_event(event)
    }
}

/// Whether the pinned state is there, and not for this weir to read.
fn is_anothers(error: &PinError) -> bool {
    matches!(
        error,
        PinError::InUse { .. }
            | PinError::OtherVersion { .. }
            | PinError::OtherMap { .. }
            | PinError::OtherTableSize { .. }
            | PinError::OtherNamespace { .. }
    )
}

fn system(action: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::System { action, source }
}
