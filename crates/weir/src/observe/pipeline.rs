//! The way of the data: events and table readings in, records out, to one observer or several.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use weir_core::directory::Directory;
use weir_core::dns;
use weir_core::event::{DnsSeen, Event};
use weir_core::flow::{CaptureState, EntrySource, FlowEntry, FlowKey, Pressure, Report, Table};
use weir_core::loss::EventLosses;
use weir_core::record::FlowEvent;
use weir_core::scene::{Clock, Scene};
use weir_kernel::{FlowTable, TableError, monotonic_now_ns};

use super::observer::{AuditSums, Observer, Sums};
use super::observers::{OWN, ObserverId, Observers};
use super::pace::{EVENTS_AT_ONCE, Pace, REQUESTS_AT_ONCE};
use super::watched::Watched;
use crate::audit::{FlowNews, RequestsFound, Translations};
use crate::error::Error;
use crate::host::HostEvent;
use crate::notice;

/// Sweeps find what events did not tell, and what is idle, which takes 30 s at
/// the least, or 2 s while the table is nearly full.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);
const SWEEP_INTERVAL_PRESSED: Duration = Duration::from_secs(1);

/// Everything between the kernel and the outputs.
pub(crate) struct Pipeline {
    source: KernelTable,
    table: Table,
    table_size: u64,
    scene: Scene,
    watched: Watched,
    observers: Observers,
    next_sweep: Option<Instant>,
    /// Interfaces whose flows are to be ended: many may go at once (`docker
    /// compose down`), and each look at the table is at all of it.
    gone: Vec<u32>,
    ready: bool,
    /// Does not say what it watches.
    pub(crate) quiet: bool,
    /// Who reads payload is told of flows.
    flow_news: Option<Sender<FlowNews>>,
    audit: AuditSums,
    translations: Translations,
}

impl Pipeline {
    /// # Errors
    /// The table cannot be read.
    pub(crate) fn new(source: FlowTable, max_flows: u32, watched: Watched) -> Result<Self, Error> {
        let scene = Scene {
            directory: Directory::default(),
            devices: HashMap::default(),
            rules: HashMap::new(),
            clock: Clock::new(jiff::Timestamp::now(), monotonic_now_ns()),
        };
        let mut source = KernelTable(source);
        let (mut table, mut translations) = (Table::default(), Translations::default());
        source.visit(&mut |key, entry| {
            table.adopt(key, &entry);
            translations.adopt(&key, &entry);
        })?;
        Ok(Self {
            source,
            next_sweep: (!table.is_empty()).then(|| Instant::now() + SWEEP_INTERVAL),
            table,
            table_size: u64::from(max_flows),
            scene,
            watched,
            observers: Observers::default(),
            gone: Vec::new(),
            ready: false,
            quiet: false,
            flow_news: None,
            audit: AuditSums::default(),
            translations,
        })
    }

    /// Whether all that is known at the start has been told: who is there, by name.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready
    }

    /// An observer comes; it is told of what happens from now on. `losses`: the kernel's until now.
    ///
    /// # Errors
    /// Its filter names what is not there, as far as that is known yet; the table cannot be read.
    pub(crate) fn join(
        &mut self,
        id: ObserverId,
        mut observer: Observer,
        losses: &EventLosses,
    ) -> Result<(), Error> {
        if self.ready {
            self.watched.check_names(observer.filter(), &self.scene.directory.containers())?;
        }
        let mut audit = self.audit.clone();
        if observer.shows_requests() {
            self.source.visit(&mut |_, entry| audit.count(&entry))?;
        }
        let before = Sums { totals: self.table.sums(&mut self.source)?, audit, ..self.sums(losses)? };
        observer.begin(monotonic_now_ns(), before);
        if self.ready {
            observer.begin_time();
        }
        self.observers.0.insert(id, observer);
        if self.next_sweep.is_some() {
            self.next_sweep = Some(Instant::now() + self.sweep_interval());
        }
        Ok(())
    }

    /// An observer goes: it is told of the flows that still live, and the sums. `losses`: the kernel's until now.
    ///
    /// # Errors
    /// The table cannot be read; what the process's own observer wrote cannot be written.
    pub(crate) fn leave(&mut self, id: ObserverId, losses: &EventLosses) -> Result<(), Error> {
        let Some(mut observer) = self.observers.0.remove(&id) else { return Ok(()) };
        observer.begin_finish();
        let mut sums = self.sums(losses)?;
        let Self { table, source, scene, .. } = self;
        let mut audit = self.audit.clone();
        sums.totals = table.tell_all(monotonic_now_ns(), source, &mut |report| {
            audit.count(&report.entry);
            let last_ns = report.entry.last_ns;
            if observer.shows_flows() {
                observer.flow(&scene.flow_record(report), last_ns);
            }
        })?;
        sums.audit = audit;
        observer.finish(&self.scene, &sums);
        match observer.check() {
            Err(error) if id == OWN => Err(error),
            _ => Ok(()),
        }
    }

    /// All observers but the process's own that are done or whose reader has gone.
    pub(crate) fn done(&self) -> Vec<ObserverId> {
        let done = self.observers.0.iter().filter(|(_, observer)| observer.is_done());
        done.map(|(id, _)| *id).filter(|id| *id != OWN).collect()
    }

    /// All observers of other processes.
    pub(crate) fn guests(&self) -> Vec<ObserverId> {
        self.observers.0.keys().copied().filter(|id| *id != OWN).collect()
    }

    /// Payload is read: `flow_news` gets what is to be known of its flows.
    pub(crate) fn tell_flow_news(&mut self, flow_news: Sender<FlowNews>) {
        self.flow_news = Some(flow_news);
    }

    /// Whether somebody reads payload.
    pub(crate) fn reads_payload(&self) -> bool {
        self.flow_news.is_some()
    }

    /// Whether an observer wants to be told of requests.
    pub(crate) fn wants_requests(&self) -> bool {
        self.observers.0.values().any(Observer::shows_requests)
    }

    /// Tells how far the flows have come that still live, before payload is read to its end.
    ///
    /// # Errors
    /// The table cannot be read.
    pub(crate) fn tell_progress(&mut self) -> Result<(), Error> {
        self.tell_flow_states(false)
    }

    /// Tells that no more payload comes of the flows that live: what comes later begins anew, and nothing of what
    /// passes meanwhile is missed.
    ///
    /// # Errors
    /// The table cannot be read.
    pub(crate) fn end_conversations(&mut self) -> Result<(), Error> {
        self.tell_flow_states(true)
    }

    fn tell_flow_states(&mut self, is_over: bool) -> Result<(), Error> {
        let Some(flow_news) = &self.flow_news else { return Ok(()) };
        self.source.visit(&mut |key, entry| {
            if entry.capture == CaptureState::On {
                // Who does not listen any more has failed, and that is told elsewhere.
                let _ = flow_news.send(flow_news_of(key, &entry, is_over));
            }
        })?;
        Ok(())
    }

    /// What was read out of payload.
    pub(crate) fn requests(&mut self, batch: RequestsFound, pace: Pace) -> Result<(), Error> {
        let Self { source, table, observers, scene, audit, translations, .. } = self;
        let RequestsFound { mut found, tally, used } = batch;
        audit.requests += found.len() as u64;
        audit.tally = tally;
        for (index, one) in found.iter_mut().enumerate() {
            // Payload and events come by two ways: a flow's first request may overtake its opening.
            if !scene.rules.is_empty() && !table.knows(&one.key, one.first_ns) {
                translations.look_up(source, &one.key, one.first_ns)?;
            }
            observers.request(scene, translations, one);
            pace.after(index, REQUESTS_AT_ONCE);
        }
        // If there is no room, the memory is given back from here.
        let _ = used.try_send(found);
        self.observers.check()
    }

    /// Whether the process's own observer is done.
    pub(crate) fn is_done(&self) -> bool {
        self.observers.0.get(&OWN).is_some_and(Observer::is_done)
    }

    /// Who is known to be where.
    pub(crate) fn directory(&self) -> &Directory {
        &self.scene.directory
    }

    /// These are rules' names, by their numbers. Those of before stay known.
    pub(crate) fn name_rules(&mut self, names: impl Iterator<Item = (u32, Arc<str>)>) {
        self.scene.rules.extend(names);
    }

    /// When [`Pipeline::tick`] has work, or an observer ends; never, while nothing flows.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let end = self
            .table
            .next_end_ns()
            .map(|due_ns| Instant::now() + Duration::from_nanos(due_ns.saturating_sub(monotonic_now_ns())));
        let leaving = self.observers.0.values().filter_map(Observer::ends).min();
        [end, self.next_sweep, leaving].into_iter().flatten().min()
    }

    pub(crate) fn events(&mut self, batch: &[Event], pace: Pace) -> Result<(), Error> {
        for (index, event) in batch.iter().enumerate() {
            self.event(event)?;
            pace.after(index, EVENTS_AT_ONCE);
        }
        Ok(())
    }

    fn event(&mut self, event: &Event) -> Result<(), Error> {
        let Self { table, source, observers, scene, flow_news, audit, translations, .. } = self;
        let mut told = |report: Report<'_>| {
            audit.note(&report, flow_news.as_ref());
            translations.note(&report);
            observers.flow(scene, report);
        };
        match event {
            Event::Open(open) => table.opened(open, source, &mut told)?,
            Event::Reopen(open, before) => table.reopened(open, before, source, &mut told)?,
            Event::Close(close) => table.closed(close),
            Event::Packet(packet) => observers.packet(scene, packet),
            Event::Dns(answer) => learn_names(&mut scene.directory, answer),
        }
        if self.next_sweep.is_none() && !self.table.is_empty() {
            self.next_sweep = Some(Instant::now() + self.sweep_interval());
        }
        self.observers.check()
    }

    pub(crate) fn host_event(&mut self, event: HostEvent) -> Result<(), Error> {
        match event {
            HostEvent::Interface(interface) => {
                self.scene.devices.insert(interface.ifindex, Watched::device(&interface));
                if self.watched.interface(&interface)? && self.ready && !self.quiet {
                    notice(&format!("watching {} too", interface.name));
                }
            }
            HostEvent::InterfaceGone { ifindex } => {
                if self.watched.gone(ifindex) {
                    self.gone.push(ifindex);
                }
                event.tell(&mut self.scene.directory);
            }
            HostEvent::Notice(text) => notice(&text),
            HostEvent::Ready if !self.ready => {
                self.ready = true;
                if let Some(own) = self.observers.0.get_mut(&OWN) {
                    own.begin_time();
                    self.watched.check_names(own.filter(), &self.scene.directory.containers())?;
                }
                if !self.quiet {
                    notice(&self.greeting());
                }
            }
            HostEvent::Ready => {}
            event => event.tell(&mut self.scene.directory),
        }
        self.observers.check()
    }

    /// Whom there is to watch.
    pub(crate) fn greeting(&self) -> String {
        self.watched.greeting(&self.scene.directory)
    }

    /// Ends what has ended, reads the table when its time has come.
    pub(crate) fn tick(&mut self) -> Result<(), Error> {
        let now_ns = monotonic_now_ns();
        let Self { table, source, observers, scene, flow_news, audit, translations, .. } = self;
        let mut told = |report: Report<'_>| {
            audit.note(&report, flow_news.as_ref());
            translations.note(&report);
            observers.flow(scene, report);
        };
        table.end_closed(now_ns, source, &mut told)?;
        if !self.gone.is_empty() {
            let gone = std::mem::take(&mut self.gone);
            table.interfaces_gone(&gone, now_ns, source, &mut told)?;
        }
        if self.next_sweep.is_some_and(|due| due <= Instant::now()) {
            let updates = self.observers.update_interval().is_some();
            let Self { table, source, observers, scene, flow_news, audit, translations, .. } = self;
            table.sweep(now_ns, self.table_size, updates, source, &mut |report| {
                audit.note(&report, flow_news.as_ref());
                translations.note(&report);
                observers.flow(scene, report);
            })?;
            observers.0.values_mut().for_each(Observer::table_was_read);
            // An empty table stays as it is until an event says otherwise.
            let more = !self.table.is_empty();
            self.next_sweep = more.then(|| Instant::now() + self.sweep_interval());
        }
        self.translations.forget_ended(now_ns);
        self.observers.check()
    }

    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        self.observers.0.values_mut().for_each(Observer::flush);
        self.observers.check()
    }

    /// Takes weir's programs off the interfaces, if they are not pinned: counters stand still from now on.
    pub(crate) fn detach(&mut self) {
        self.watched.detach();
    }

    /// All that was counted until now, but for the flows.
    fn sums(&self, losses: &EventLosses) -> Result<Sums, TableError> {
        Ok(Sums {
            tallies: self.source.0.tallies()?,
            losses: *losses,
            names_evicted: self.scene.directory.names_evicted(),
            ..Sums::default()
        })
    }

    fn sweep_interval(&self) -> Duration {
        let interval = match self.table.pressure() {
            Pressure::Low => SWEEP_INTERVAL,
            Pressure::High => SWEEP_INTERVAL_PRESSED,
        };
        self.observers.update_interval().map_or(interval, |updates| updates.min(interval))
    }
}

fn flow_news_of(key: FlowKey, entry: &FlowEntry, is_over: bool) -> FlowNews {
    let next_seq = entry.directions.each_ref().map(|direction| direction.next_seq);
    FlowNews { key, first_ns: entry.first_ns, told_ns: monotonic_now_ns(), next_seq, is_over }
}

impl AuditSums {
    /// A flow that is over: its conversation is, too.
    fn note(&mut self, report: &Report<'_>, flow_news: Option<&Sender<FlowNews>>) {
        let Some(flow_news) = flow_news.filter(|_| report.event == FlowEvent::Close) else { return };
        self.count(&report.entry);
        // Who does not listen any more has failed, and that is told elsewhere.
        let _ = flow_news.send(flow_news_of(report.key, &report.entry, true));
    }

    fn count(&mut self, entry: &FlowEntry) {
        self.not_understood += u64::from(entry.is_not_understood());
        self.refused += u64::from(entry.capture == CaptureState::Overload);
    }
}

/// A datagram from port 53 is believed only so far as it names the outside
/// world: the directory never lets it rename a container or this host.
fn learn_names(directory: &mut Directory, seen: &DnsSeen) {
    if let Some(answer) = dns::parse(&seen.payload) {
        for address in &answer.addresses {
            directory.learn_dns(&answer.name, address.ip, address.ttl_s, seen.seen.time_ns);
        }
    }
}

struct KernelTable(FlowTable);

impl EntrySource for KernelTable {
    type Error = TableError;

    fn read(&mut self, key: &FlowKey) -> Result<Option<FlowEntry>, TableError> {
        self.0.read(key)
    }

    fn remove(&mut self, key: &FlowKey) -> Result<Option<FlowEntry>, TableError> {
        self.0.remove(key)
    }

    fn visit(&mut self, visit: &mut dyn FnMut(FlowKey, FlowEntry)) -> Result<(), TableError> {
        self.0.visit(visit)
    }
}
