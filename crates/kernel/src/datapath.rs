//! The programs and maps of `bpf/veth.bpf.c`, loaded.

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};
use libbpf_rs::{MapCore, MapHandle, OpenMapMut, PrintLevel};
use weir_core::event::{Event, Hook};
use weir_core::loss::EventLosses;

use crate::flows::FlowTable;
use crate::payloads::{Captures, PayloadConsumer, PayloadListener};
use crate::pins::{Owned, PinDirectory, PinError, Taken};
use crate::reader::{self, EventBatch, Naps, Reader, ReaderError, SleepFlag};
use crate::redirects::{RedirectMaps, Redirects};
use crate::skeleton::abi::types::event_kind;
use crate::skeleton::veth::{OpenVethSkel, VethSkel, VethSkelBuilder};
use crate::texts::{RuleTexts, TextsError};

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

/// The ring of payload where nobody wants any: the least that the kernel takes on
/// every architecture.
const NO_PAYLOAD_RING_BYTES: u32 = 64 << 10;

/// Why the programs are not in the kernel.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The kernel wants more privilege.
    #[error("the kernel refuses BPF programs to this user ({0})")]
    NotPermitted(#[source] io::Error),
    /// Not enough memory for the maps.
    #[error("no memory for the kernel's tables ({0})")]
    NoMemory(#[source] io::Error),
    /// Anything else, with what libbpf and the verifier said.
    #[error("the kernel did not take the BPF programs: {reason}\n{log}")]
    Refused {
        /// libbpf's error.
        reason: String,
        /// The last lines of libbpf's and the verifier's log.
        log: String,
    },
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
}

/// libbpf has one place for its messages; loading borrows it.
static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// A verifier's log may have a hundred thousand lines; its end says why.
const LOG_LINES_KEPT: usize = 40;

impl Datapath {
    /// Loads programs and maps.
    ///
    /// # Errors
    /// Missing privilege, no memory, or a kernel that refuses the programs.
    pub fn load(options: &Options) -> Result<Self, LoadError> {
        let skeleton = with_log(|| open(options, 0)?.load())?;
        Ok(Self { reader: None, payload_reader: None, undecodable: Arc::default(), skeleton, owned: None })
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
        let taken = pins.own()?;
        match Self::load_pinned(options, &taken) {
            Ok(skeleton) => {
                let owned = Some(taken.complete()?);
                let mut datapath =
                    Self { reader: None, payload_reader: None, undecodable: Arc::default(), skeleton, owned };
                datapath.keep();
                Ok(datapath)
            }
            Err(error) => {
                taken.abandon();
                Err(error)
            }
        }
    }

    fn load_pinned(options: &Options, taken: &Taken) -> Result<VethSkel<'static>, PinError> {
        let mut open = with_log(|| open(options, options.max_flows))?;
        let mut new = Vec::new();
        for mut map in open.open_object_mut().maps_mut() {
            let name = map.name().to_string_lossy().into_owned();
            // Constants and totals (`.rodata`, `.bss`) and what the programs care for alone belong to the
            // programs of one load, payload and what is wanted of it to the process that reads it.
            if name.contains('.') || ["payloads", "captures", "tended", "held_names"].contains(&name.as_str())
            {
                continue;
            }
            let path = taken.map(&name);
            match path.exists() {
                true => reuse(&mut map, &name, &path, taken.path())?,
                false => new.push(name),
            }
        }
        let mut skeleton = with_log(|| open.load())?;
        for mut map in skeleton.object_mut().maps_mut() {
            let name = map.name().to_string_lossy().into_owned();
            if new.contains(&name) {
                let path = taken.map(&name);
                map.pin(&path).map_err(|error| {
                    PinError::new(format!("pin a map at {}", path.display()), io::Error::other(error))
                })?;
            }
        }
        if !taken.is_new() {
            let events = MapHandle::try_from(&skeleton.maps.events).map_err(ReaderError::Ring);
            events
                .and_then(|events| reader::discard(&events))
                .map_err(|error| PinError::new("read the pinned event ring", io::Error::other(error)))?;
        }
        Ok(skeleton)
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

    /// The state that this process owns, if these maps are pinned.
    pub(crate) fn owned(&self) -> Option<&Owned> {
        self.owned.as_ref()
    }

    /// Entries that the flow table has room for.
    #[must_use]
    pub fn max_flows(&self) -> u32 {
        self.skeleton.maps.flows.max_entries()
    }

    /// The descriptor of one program.
    #[must_use]
    pub fn program(&self, name: ProgramName) -> BorrowedFd<'_> {
        let programs = &self.skeleton.progs;
        match (name.hook, name.ethernet) {
            (Hook::Ingress, true) => programs.weir_ingress.as_fd(),
            (Hook::Egress, true) => programs.weir_egress.as_fd(),
            (Hook::Ingress, false) => programs.weir_ingress_ip.as_fd(),
            (Hook::Egress, false) => programs.weir_egress_ip.as_fd(),
        }
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
            endpoints: handle(&maps.endpoints)?,
            interfaces: handle(&maps.interfaces)?,
            virtual_addresses: handle(&maps.virtual_addresses)?,
            forged_sources: handle(&maps.forged_sources)?,
            counters: handle(&maps.redirect_counters)?,
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
    /// [`Options::audit`]. Flows that began before are read as joined late.
    pub fn copy_payload(&mut self, wanted: bool) {
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

/// `tended_flows`: so many flows do the programs care for while nobody keeps the table.
fn open(options: &Options, tended_flows: u32) -> libbpf_rs::Result<OpenVethSkel<'static>> {
    // Lives as long as the process: only the empty shell of an object
    // remains when the skeleton is dropped.
    let storage = Box::leak(Box::new(MaybeUninit::uninit()));
    let mut open = VethSkelBuilder::default().open(storage)?;
    open.maps.flows.set_max_entries(options.max_flows)?;
    if let Some(rodata) = open.maps.rodata_data.as_deref_mut() {
        rodata.config.packet_events = u8::from(options.packet_events);
        if let Some(audit) = options.audit {
            rodata.config.audit = 1;
            rodata.config.payload_ring_bytes = audit.ring_bytes;
            rodata.config.turn_bytes_max = audit.turn_bytes_max.unwrap_or(0);
        }
        rodata.config.tended_flows = tended_flows;
        rodata.config.redirect = u8::from(options.redirects);
        rodata.config.accelerate = u8::from(options.redirects && options.accelerate);
    }
    if options.redirects {
        open.maps.translations.set_max_entries(options.max_flows.saturating_mul(2))?;
    } else {
        open.maps.held_names.set_max_entries(1)?;
    }
    open.maps
        .payloads
        .set_max_entries(options.audit.map_or(NO_PAYLOAD_RING_BYTES, |audit| audit.ring_bytes))?;
    open.maps.tended.set_max_entries(tended_flows.max(1))?;
    open.maps.captures.set_max_entries(if options.audit.is_some() { options.max_flows } else { 1 })?;
    Ok(open)
}

/// Has the programs use a pinned map, if it is as they would make it.
fn reuse(map: &mut OpenMapMut<'_>, name: &str, path: &Path, state: &Path) -> Result<(), PinError> {
    let opened = |error: libbpf_rs::Error| {
        PinError::new(format!("open the map pinned at {}", path.display()), io::Error::other(error))
    };
    let pinned = MapHandle::from_pinned_path(path).map_err(opened)?;
    if name == "flows" && pinned.max_entries() != map.max_entries() {
        return Err(PinError::OtherTableSize {
            path: state.to_owned(),
            found: pinned.max_entries(),
            wanted: map.max_entries(),
        });
    }
    let facts = [
        ("kind", u64::from(u32::from(pinned.map_type())), u64::from(u32::from(map.map_type()))),
        ("key's size", u64::from(pinned.key_size()), u64::from(map.key_size())),
        ("value's size", u64::from(pinned.value_size()), u64::from(map.value_size())),
        ("number of entries", u64::from(pinned.max_entries()), u64::from(map.max_entries())),
    ];
    if let Some((fact, found, wanted)) = facts.into_iter().find(|(_, found, wanted)| found != wanted) {
        return Err(PinError::OtherMap {
            path: state.to_owned(),
            map: name.to_owned(),
            difference: format!("its {fact} is {found}, not {wanted}"),
        });
    }
    map.reuse_fd(pinned.as_fd()).map_err(opened)
}

/// Runs a step of loading; what libbpf and the verifier say meanwhile is in the error.
fn with_log<T>(step: impl FnOnce() -> libbpf_rs::Result<T>) -> Result<T, LoadError> {
    let previous = libbpf_rs::set_print(Some((PrintLevel::Info, remember)));
    if let Ok(mut log) = LOG.lock() {
        log.clear();
    }
    let result = step();
    libbpf_rs::set_print(previous);
    result.map_err(|error| {
        let log = LOG.lock().map(|log| log.clone()).unwrap_or_default();
        explain(&error, &log)
    })
}

fn remember(_level: PrintLevel, message: String) {
    if let Ok(mut log) = LOG.lock() {
        log.extend(message.lines().map(str::to_owned));
        let surplus = log.len().saturating_sub(LOG_LINES_KEPT);
        log.drain(..surplus);
    }
}

/// What libbpf says after a verifier's reasons.
const VERIFIER_LOG_ENDS: &str = "-- END PROG LOAD LOG --";

fn explain(error: &libbpf_rs::Error, log: &[String]) -> LoadError {
    use libbpf_rs::ErrorKind;
    // The verifier says "permission denied" too, but with reasons: what is
    // "prohibited" would be allowed with CAP_PERFMON.
    let said = |words: &str| log.iter().any(|line| line.contains(words));
    let verifier_refused = said(VERIFIER_LOG_ENDS) && !said("prohibited");
    match error.kind() {
        ErrorKind::PermissionDenied if !verifier_refused => {
            LoadError::NotPermitted(io::Error::from(io::ErrorKind::PermissionDenied))
        }
        ErrorKind::OutOfMemory => LoadError::NoMemory(io::Error::from(io::ErrorKind::OutOfMemory)),
        _ => LoadError::Refused { reason: format!("{error:#}"), log: log.join("\n") },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_the_verifier_is_told_from_a_want_of_privilege() {
        let error = libbpf_rs::Error::from_raw_os_error(13); // EACCES
        let explained = |lines: &[&str]| {
            explain(&error, &lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>())
        };
        assert!(matches!(explained(&[]), LoadError::NotPermitted(_)));
        let refused = explained(&["R2 min value is negative", VERIFIER_LOG_ENDS]);
        assert!(matches!(refused, LoadError::Refused { log, .. } if log.contains("negative")));
        let prohibited =
            explained(&["R3 pointer arithmetic with it prohibited for !root", VERIFIER_LOG_ENDS]);
        assert!(matches!(prohibited, LoadError::NotPermitted(_)));
    }
}
