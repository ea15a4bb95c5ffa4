//! The programs and maps of `bpf/veth.bpf.c`, loaded.

mod load;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use libbpf_rs::skel::{OpenSkel, Skel};
use libbpf_rs::{MapCore, MapHandle};
use weir_core::event::{Event, Hook};
use weir_core::loss::EventLosses;

use load::{load_pinned, open, with_log};

use crate::abi::VERSION;
use crate::attach;
use crate::carry::Carry;
use crate::flows::FlowTable;
use crate::payloads::{Captures, PayloadConsumer, PayloadListener};
use crate::pins::{Former, LinkFolders, Owned, PinDirectory, PinError};
use crate::reader::{EventBatch, Naps, Reader, ReaderError, SleepFlag};
use crate::redirects::{Counted, RedirectMaps, Redirects};
use crate::skeleton::abi::types::event_kind;
use crate::skeleton::veth::VethSkel;
use crate::texts::{RuleTexts, TextsError};

pub use load::LoadError;

/// What is decided before the programs are loaded.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Entries of the flow table; 1 or more.
    pub max_flows: u32,
    /// One event for each packet.
    pub packet_events: bool,
    /// Payload of flows that can be understood; none: it costs nothing.
    pub audit: Option<AuditOptions>,
    /// Redirect connections: see [`crate::Redirects`].
    pub redirects: bool,
    /// Packets between two containers of one bridge go past bridge and stack. Only
    /// with `redirects`, which know where containers are.
    pub accelerate: bool,
    /// Also load the programs for devices without a link layer (tun, WireGuard, IP tunnels). State that is taken over with
    /// such programs at work has them in any case.
    pub without_ethernet: bool,
}

/// How payload is copied.
#[derive(Debug, Clone, Copy)]
pub struct AuditOptions {
    /// Of the ring: a power of 2, and whole pages.
    pub ring_bytes: u32,
    /// Of what one end says before the other one speaks, copy no more than this.
    /// `None`: all.
    pub turn_bytes_max: Option<u32>,
}

/// One of the programs of `bpf/veth.bpf.c`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProgramName {
    /// Which direction of a device it is for.
    pub hook: Hook,
    /// Whether frames of that device begin with an Ethernet header.
    pub ethernet: bool,
}

impl ProgramName {
    /// Every program.
    pub const ALL: [Self; 4] = [
        Self { hook: Hook::Ingress, ethernet: true },
        Self { hook: Hook::Egress, ethernet: true },
        Self { hook: Hook::Ingress, ethernet: false },
        Self { hook: Hook::Egress, ethernet: false },
    ];

    /// By the function's name in C.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.to_string() == name)
    }
}

impl fmt::Display for ProgramName {
    /// The function's name in C.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.hook, self.ethernet) {
            (Hook::Ingress, true) => "weir_ingress",
            (Hook::Egress, true) => "weir_egress",
            (Hook::Ingress, false) => "weir_ingress_ip",
            (Hook::Egress, false) => "weir_egress_ip",
        })
    }
}

/// The loaded programs and their maps. Not attached to anything: see
/// [`crate::attach`]. Dropping it unloads them once nothing is attached.
pub struct Datapath {
    // First: they touch the skeleton's memory until they have ended.
    reader: Option<Reader>,
    payload_reader: Option<Reader>,
    /// Ring records that made no sense.
    undecodable: Arc<AtomicU64>,
    skeleton: VethSkel<'static>,
    /// Pinned state that this process owns.
    owned: Option<Owned>,
    /// State of other versions that is not carried over yet.
    carries: Vec<Carry>,
}

impl Datapath {
    /// Loads programs and maps.
    ///
    /// # Errors
    /// Missing privilege, no memory, or a kernel that refuses the programs.
    pub fn load(options: &Options) -> Result<Self, LoadError> {
        let skeleton = with_log(|| open(options, 0)?.load())?;
        Ok(Self {
            reader: None,
            payload_reader: None,
            undecodable: Arc::default(),
            skeleton,
            owned: None,
            carries: Vec::new(),
        })
    }

    /// Loads programs for maps that outlive the process, and becomes their owner: those that are pinned, or new
    /// ones, which are then pinned. What a former owner left unread in the event ring is dropped; the flows that it
    /// was about are in the table. Attaching by [`Attacher::of`](crate::attach::Attacher::of) puts these programs
    /// in the place of the former owner's.
    ///
    /// # Errors
    /// As [`Datapath::load`]; no BPF file system to write to; state of another version or with another
    /// [`Options::max_flows`]; another process that owns it.
    pub fn pinned(options: &Options, pins: &PinDirectory) -> Result<Self, PinError> {
        let mut owned = pins.own()?;
        match Self::prepare(options, &mut owned) {
            Ok((skeleton, carries)) => {
                let mut datapath = Self {
                    reader: None,
                    payload_reader: None,
                    undecodable: Arc::default(),
                    skeleton,
                    owned: Some(owned),
                    carries,
                };
                datapath.keep();
                Ok(datapath)
            }
            Err(error) => {
                owned.abandon();
                Err(error)
            }
        }
    }

    fn prepare(options: &Options, owned: &mut Owned) -> Result<(VethSkel<'static>, Vec<Carry>), PinError> {
        let without_ethernet = options.without_ethernet || attach::are_without_ethernet(owned)?;
        let skeleton = load_pinned(&Options { without_ethernet, ..options.clone() }, owned)?;
        let mut carries = Vec::new();
        for Former { path, version, .. } in owned.formers() {
            let maps = skeleton.object().maps();
            let maps = maps.filter_map(|map| {
                Some((map.name().to_string_lossy().into_owned(), MapHandle::try_from(&map).ok()?))
            });
            let mut carry = Carry::open(path, maps).map_err(|reason| PinError::OtherVersion {
                path: path.clone(),
                found: version.clone(),
                expected: VERSION,
                reason,
            })?;
            if let Some(found) = carry.max_flows().filter(|found| *found != options.max_flows) {
                let path = path.clone();
                return Err(PinError::OtherTableSize { path, found, wanted: options.max_flows });
            }
            carry.copy()?;
            carries.push(carry);
        }
        if carries.is_empty() {
            owned.complete()?;
        }
        Ok((skeleton, carries))
    }

    /// Puts this process's programs in the place of others, if the maps are pinned: that is up to `replace`, which is
    /// told where the links are. State of another version is carried over meanwhile.
    pub(crate) fn change_over<T>(
        &mut self,
        replace: impl FnOnce(LinkFolders) -> Result<T, PinError>,
    ) -> Result<Option<T>, PinError> {
        let Some(owned) = &mut self.owned else { return Ok(None) };
        let links = owned.links()?;
        let held = self.carries.iter_mut().try_for_each(Carry::hold);
        let replaced = held.and_then(|()| replace(links)).inspect_err(|_| {
            self.carries.iter().for_each(Carry::release);
        })?;
        for carry in self.carries.drain(..) {
            carry.settle()?;
        }
        owned.complete()?;
        Ok(Some(replaced))
    }

    /// Whether what is pinned, if anything is, is still in its place. If not, no packet comes by these programs.
    ///
    /// # Errors
    /// It was removed.
    pub fn check_in_place(&self) -> Result<(), PinError> {
        match &self.owned {
            Some(owned) if !owned.is_in_place() => Err(PinError::Removed { path: owned.path().to_owned() }),
            _ => Ok(()),
        }
    }

    /// Tells the programs that this process keeps the flow table: takes out of it what has ended. To be told anew
    /// at least every 10 s; after 30 s without it, pinned programs begin to do that themselves, less exactly.
    pub fn keep(&mut self) {
        self.set_keeper_ns(crate::monotonic_now_ns());
    }

    /// Tells them that it does so no more.
    pub fn stop_keeping(&mut self) {
        self.set_keeper_ns(0);
    }

    fn set_keeper_ns(&mut self, time_ns: u64) {
        if let Some(bss) = self.skeleton.maps.bss_data.as_deref_mut() {
            // SAFETY: the kernel lays out an aligned __u64, which the programs read at any time; one store.
            unsafe { AtomicU64::from_ptr(&raw mut bss.keeper_ns) }.store(time_ns, Ordering::Relaxed);
        }
    }

    /// Entries that the flow table has room for.
    #[must_use]
    pub fn max_flows(&self) -> u32 {
        self.skeleton.maps.flows.max_entries()
    }

    /// The descriptor of one program. `None`: it is not loaded; see [`Options::without_ethernet`].
    #[must_use]
    pub fn program(&self, name: ProgramName) -> Option<BorrowedFd<'_>> {
        let programs = &self.skeleton.progs;
        let program = match (name.hook, name.ethernet) {
            (Hook::Ingress, true) => &programs.weir_ingress,
            (Hook::Egress, true) => &programs.weir_egress,
            (Hook::Ingress, false) => &programs.weir_ingress_ip,
            (Hook::Egress, false) => &programs.weir_egress_ip,
        };
        program.autoload().then(|| program.as_fd())
    }

    /// The flow table and the tallies.
    ///
    /// # Errors
    /// No descriptor is left for the process.
    pub fn flow_table(&self) -> io::Result<FlowTable> {
        let maps = &self.skeleton.maps;
        Ok(FlowTable::new(
            MapHandle::try_from(&maps.flows).map_err(io::Error::other)?,
            MapHandle::try_from(&maps.tallies).map_err(io::Error::other)?,
            MapHandle::try_from(&maps.translations).map_err(io::Error::other)?,
        ))
    }

    /// The rules in force, in their user's own words.
    ///
    /// # Errors
    /// No descriptor is left for the process.
    pub fn rule_texts(&self) -> Result<RuleTexts, TextsError> {
        RuleTexts::of(&self.skeleton.maps.redirect_texts)
    }

    /// What is wanted of each flow's payload.
    ///
    /// # Errors
    /// No descriptor is left for the process.
    pub fn captures(&self) -> io::Result<Captures> {
        Ok(Captures::new(MapHandle::try_from(&self.skeleton.maps.captures).map_err(io::Error::other)?))
    }

    /// The maps of the redirects. They do something if [`Options::redirects`] was set.
    ///
    /// # Errors
    /// No descriptor is left for the process.
    pub fn redirects(&self) -> io::Result<Redirects> {
        let maps = &self.skeleton.maps;
        let handle = |map| MapHandle::try_from(map).map_err(io::Error::other);
        Ok(Redirects::new(RedirectMaps {
            redirects: handle(&maps.redirects)?,
            rules: handle(&maps.redirect_rules)?,
            targets: handle(&maps.redirect_targets)?,
            clients: handle(&maps.redirect_clients)?,
            askers: handle(&maps.redirect_askers)?,
            endpoints: handle(&maps.endpoints)?,
            interfaces: handle(&maps.interfaces)?,
            virtual_addresses: handle(&maps.virtual_addresses)?,
            forged_sources: handle(&maps.forged_sources)?,
            counted: Counted {
                counters: handle(&maps.redirect_counters)?,
                bytes: handle(&maps.rule_bytes)?,
                bytes_before: handle(&maps.rule_bytes_before)?,
            },
            translations: handle(&maps.translations)?,
        }))
    }

    /// Starts the thread that reads the event ring. `deliver` gets every event, in
    /// batches, on that thread. It may block: then the ring fills, and the kernel
    /// counts what finds no room.
    ///
    /// # Errors
    /// The ring cannot be mapped, or there is no thread.
    pub fn start_reader(
        &mut self,
        deliver: impl FnMut(Vec<Event>) + Send + 'static,
    ) -> Result<(), ReaderError> {
        let events = MapHandle::try_from(&self.skeleton.maps.events).map_err(ReaderError::Ring)?;
        let flag = match self.skeleton.maps.bss_data.as_deref_mut() {
            Some(bss) => SleepFlag(&raw mut bss.reader_sleeps),
            None => return Err(ReaderError::NoSharedMemory),
        };
        let undecodable = self.undecodable.clone();
        self.reader =
            Some(Reader::start("ring", events, flag, Naps::Alone, EventBatch::new(undecodable, deliver))?);
        Ok(())
    }

    /// Starts the thread that reads the payload ring, and hands every record to
    /// `listener`, on that thread. It may take its time: then the ring fills, and
    /// the kernel leaves out bodies, refuses new flows, and counts what finds no room.
    ///
    /// # Errors
    /// The ring cannot be mapped, or there is no thread.
    pub fn start_payload_reader(
        &mut self,
        listener: impl PayloadListener + 'static,
    ) -> Result<(), ReaderError> {
        let maps = &self.skeleton.maps;
        let payloads = MapHandle::try_from(&maps.payloads).map_err(ReaderError::Ring)?;
        let captures = Captures::new(MapHandle::try_from(&maps.captures).map_err(ReaderError::Ring)?);
        let flag = match self.skeleton.maps.bss_data.as_deref_mut() {
            Some(bss) => SleepFlag(&raw mut bss.payload_reader_sleeps),
            None => return Err(ReaderError::NoSharedMemory),
        };
        let consumer = PayloadConsumer::new(self.undecodable.clone(), captures, listener);
        self.payload_reader = Some(Reader::start("payload", payloads, flag, Naps::UntilFilling, consumer)?);
        Ok(())
    }

    /// Whether the programs copy payload, from now on: of no use but to a reader of payload, and with
    /// [`Options::audit`]. Flows that began before are read as joined late, and all of them is wanted.
    pub fn copy_payload(&mut self, wanted: bool) {
        if wanted && let Ok(captures) = self.captures() {
            // If they stay, less is copied of some connections, which are understood later then.
            let _ = captures.clear();
        }
        let since_ns = if wanted { crate::monotonic_now_ns() } else { 0 };
        if let Some(bss) = self.skeleton.maps.bss_data.as_deref_mut() {
            // SAFETY: as in set_keeper_ns().
            unsafe { AtomicU64::from_ptr(&raw mut bss.payload_since_ns) }.store(since_ns, Ordering::Relaxed);
        }
    }

    /// Hands over what is in the payload ring and ends its reader's thread.
    pub fn stop_payload_reader(&mut self) {
        self.payload_reader = None;
    }

    /// Delivers what is in the ring and ends the reader's thread.
    pub fn stop_reader(&mut self) {
        self.reader = None;
    }

    /// What was not delivered since loading.
    #[must_use]
    pub fn losses(&self) -> EventLosses {
        let Some(bss) = self.skeleton.maps.bss_data.as_deref() else { return EventLosses::default() };
        // SAFETY: the map is shared with the kernel, which adds to these words
        // at any time; a volatile read of aligned integers is all that is done.
        let losses = unsafe { std::ptr::read_volatile(&raw const bss.losses) };
        let ring_full = |kind: event_kind| losses.ring_full.get(kind.0 as usize).copied().unwrap_or(0);
        EventLosses {
            open_ring_full: ring_full(event_kind::EVENT_OPEN),
            reopen_ring_full: ring_full(event_kind::EVENT_REOPEN),
            close_ring_full: ring_full(event_kind::EVENT_CLOSE),
            packet_ring_full: ring_full(event_kind::EVENT_PACKET),
            dns_ring_full: ring_full(event_kind::EVENT_DNS),
            payload_ring_full: ring_full(event_kind::EVENT_PAYLOAD),
            dns_truncated: losses.dns_truncated,
            payload_shed_bytes: losses.payload_shed_bytes,
            tally_full: losses.tally_full,
            undecodable: self.undecodable.load(Ordering::Relaxed),
        }
    }
}
