//! The way of the data: events and table readings in, records out.

use std::time::{Duration, Instant};

use weir_core::directory::Directory;
use weir_core::dns;
use weir_core::event::{DnsSeen, Event};
use weir_core::flow::{EntrySource, FlowEntry, FlowKey, Pressure, Table};
use weir_core::loss::EventLosses;
use weir_core::scene::{Clock, Scene};
use weir_kernel::{FlowTable, TableError, monotonic_now_ns};

use super::greet;
use super::printer::Printer;
use super::watched::Watched;
use crate::error::Error;
use crate::host::{HostEvent, container_key};
use crate::notice;

/// Sweeps find what events did not tell, and what is idle, which takes 30 s at
/// the least, or 2 s while the table is nearly full.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);
const SWEEP_INTERVAL_PRESSED: Duration = Duration::from_secs(1);

/// Everything between the kernel and the output.
pub(super) struct Pipeline {
    source: KernelTable,
    table: Table,
    table_size: u64,
    scene: Scene,
    watched: Watched,
    printer: Printer,
    updates: Option<Duration>,
    next_sweep: Option<Instant>,
    /// Interfaces whose flows are to be ended: many may go at once (`docker
    /// compose down`), and each look at the table is at all of it.
    gone: Vec<u32>,
    ready: bool,
}

impl Pipeline {
    pub(super) fn new(
        source: FlowTable,
        max_flows: u32,
        updates: Option<Duration>,
        watched: Watched,
        printer: Printer,
    ) -> Self {
        let scene = Scene {
            directory: Directory::default(),
            devices: std::collections::HashMap::new(),
            clock: Clock::new(jiff::Timestamp::now(), monotonic_now_ns()),
        };
        Self {
            source: KernelTable(source),
            table: Table::default(),
            table_size: u64::from(max_flows),
            scene,
            watched,
            printer,
            updates,
            next_sweep: None,
            gone: Vec::new(),
            ready: false,
        }
    }

    /// Whether all that was asked for is printed, or nobody reads it any more.
    pub(super) fn is_done(&self) -> bool {
        self.printer.is_done()
    }

    /// When [`Pipeline::tick`] has work; never, while nothing flows.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let end = self
            .table
            .next_end_ns()
            .map(|due_ns| Instant::now() + Duration::from_nanos(due_ns.saturating_sub(monotonic_now_ns())));
        [end, self.next_sweep].into_iter().flatten().min()
    }

    pub(super) fn events(&mut self, batch: &[Event]) -> Result<(), Error> {
        batch.iter().try_for_each(|event| self.event(event))
    }

    fn event(&mut self, event: &Event) -> Result<(), Error> {
        let Self { table, source, printer, scene, .. } = self;
        match event {
            Event::Open(open) => table.opened(open, source, &mut |report| printer.flow(scene, report))?,
            Event::Reopen(open, before) => {
                table.reopened(open, before, source, &mut |report| printer.flow(scene, report))?;
            }
            Event::Close(close) => table.closed(close),
            Event::Packet(packet) => printer.packet(scene, packet),
            Event::Dns(answer) => learn_names(&mut scene.directory, answer),
        }
        if self.next_sweep.is_none() && !self.table.is_empty() {
            self.next_sweep = Some(Instant::now() + self.sweep_interval());
        }
        self.printer.check()
    }

    pub(super) fn host_event(&mut self, event: HostEvent) -> Result<(), Error> {
        let directory = &mut self.scene.directory;
        match event {
            HostEvent::Interface(interface) => {
                self.scene.devices.insert(interface.ifindex, Watched::device(&interface));
                if self.watched.interface(&interface)? && self.ready {
                    notice(&format!("watching {} too", interface.name));
                }
            }
            HostEvent::InterfaceGone { ifindex } => {
                if self.watched.gone(ifindex) {
                    self.gone.push(ifindex);
                }
                self.scene.directory.set_owner(ifindex, None);
            }
            HostEvent::HostAddresses(addresses) => directory.set_host_addresses(addresses),
            HostEvent::Owner { ifindex, container } => directory.set_owner(ifindex, container),
            HostEvent::Addresses { container, addresses } => {
                let key = container_key(&container).to_owned();
                directory.set_container_addresses(&key, container, addresses);
            }
            HostEvent::ContainerGone { id } => directory.remove_container(&id),
            HostEvent::Notice(text) => notice(&text),
            HostEvent::Ready if !self.ready => {
                self.ready = true;
                self.watched.check_names(self.printer.filter(), &directory.containers())?;
                greet(self.watched.method(), &self.watched.names(directory));
            }
            HostEvent::Ready => {}
        }
        self.printer.check()
    }

    /// Ends what has ended, reads the table when its time has come.
    pub(super) fn tick(&mut self) -> Result<(), Error> {
        let now_ns = monotonic_now_ns();
        let Self { table, source, printer, scene, .. } = self;
        table.end_closed(now_ns, source, &mut |report| printer.flow(scene, report))?;
        if !self.gone.is_empty() {
            let gone = std::mem::take(&mut self.gone);
            table.interfaces_gone(&gone, now_ns, source, &mut |report| printer.flow(scene, report))?;
        }
        if self.next_sweep.is_some_and(|due| due <= Instant::now()) {
            let updates = self.updates.is_some();
            table
                .sweep(now_ns, self.table_size, updates, source, &mut |report| printer.flow(scene, report))?;
            // An empty table stays as it is until an event says otherwise.
            let more = !self.table.is_empty();
            self.next_sweep = more.then(|| Instant::now() + self.sweep_interval());
        }
        self.printer.check()
    }

    pub(super) fn flush(&mut self) -> Result<(), Error> {
        self.printer.flush();
        self.printer.check()
    }

    /// Takes weir's programs off the interfaces: counters stand still from now on.
    pub(super) fn detach(&mut self) {
        self.watched.detach();
    }

    /// Tells of the flows that still live, and the sums.
    pub(super) fn finish(&mut self, losses: &EventLosses, duration: Duration) -> Result<(), Error> {
        self.printer.begin_finish();
        let Self { table, source, printer, scene, .. } = self;
        table.finish(monotonic_now_ns(), source, &mut |report| printer.flow(scene, report))?;
        let tallies = source.0.tallies()?;
        printer.summary(scene, table.totals(), &tallies, losses, duration);
        printer.check()
    }

    fn sweep_interval(&self) -> Duration {
        let interval = match self.table.pressure() {
            Pressure::Low => SWEEP_INTERVAL,
            Pressure::High => SWEEP_INTERVAL_PRESSED,
        };
        self.updates.map_or(interval, |updates| updates.min(interval))
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
