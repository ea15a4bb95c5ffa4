//! Loading the programs, and what the kernel says against it.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Mutex;

use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};
use libbpf_rs::{MapCore, MapHandle, MapType, OpenMapMut, PrintLevel};

use super::Options;
use crate::pins::{Owned, PinError};
use crate::reader::{self, ReaderError};
use crate::redirects::RULE_BYTES;
use crate::skeleton::veth::{OpenVethSkel, VethSkel, VethSkelBuilder};

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

/// The ring of payload where nobody wants any: the least that the kernel takes on
/// every architecture.
const NO_PAYLOAD_RING_BYTES: u32 = 64 << 10;

/// libbpf has one place for its messages; loading borrows it.
static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// A verifier's log may have a hundred thousand lines; its end says why.
const LOG_LINES_KEPT: usize = 40;

/// Loads programs for the maps of pinned state; what of them is not there yet is pinned.
pub(super) fn load_pinned(options: &Options, owned: &Owned) -> Result<VethSkel<'static>, PinError> {
    let mut open = with_log(|| open(options, options.max_flows))?;
    let mut new = Vec::new();
    for mut map in open.open_object_mut().maps_mut() {
        let name = map.name().to_string_lossy().into_owned();
        // Constants and totals (`.rodata`, `.bss`), room to work in and what the programs care for alone belong to
        // the programs of one load, payload and what is wanted of it to the process that reads it.
        if name.contains('.')
            || (map.map_type() == MapType::PercpuArray && name != RULE_BYTES)
            || ["payloads", "captures", "tended", "held_names"].contains(&name.as_str())
        {
            continue;
        }
        let path = owned.map(&name);
        match path.exists() {
            true => reuse(&mut map, &name, &path, owned.path())?,
            false => new.push(name),
        }
    }
    let mut skeleton = with_log(|| open.load())?;
    for mut map in skeleton.object_mut().maps_mut() {
        let name = map.name().to_string_lossy().into_owned();
        if new.contains(&name) {
            let path = owned.map(&name);
            map.pin(&path).map_err(|error| {
                PinError::new(format!("pin a map at {}", path.display()), io::Error::other(error))
            })?;
        }
    }
    if !owned.is_new() {
        let events = MapHandle::try_from(&skeleton.maps.events).map_err(ReaderError::Ring);
        events
            .and_then(|events| reader::discard(&events))
            .map_err(|error| PinError::new("read the pinned event ring", io::Error::other(error)))?;
    }
    Ok(skeleton)
}

/// `tended_flows`: so many flows do the programs care for while nobody keeps the table.
pub(super) fn open(options: &Options, tended_flows: u32) -> libbpf_rs::Result<OpenVethSkel<'static>> {
    // Lives as long as the process: only the empty shell of an object
    // remains when the skeleton is dropped.
    let storage = Box::leak(Box::new(MaybeUninit::uninit()));
    let mut open = VethSkelBuilder::default().open(storage)?;
    // They are a large part of what the verifier has to do, for devices that few hosts want watched.
    for program in [&mut open.progs.weir_ingress_ip, &mut open.progs.weir_egress_ip] {
        program.set_autoload(options.without_ethernet);
    }
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
        open.maps.recent_translations.set_max_entries(1)?;
        open.maps.rule_bytes.set_max_entries(1)?;
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
pub(super) fn with_log<T>(step: impl FnOnce() -> libbpf_rs::Result<T>) -> Result<T, LoadError> {
    let previous = libbpf_rs::set_print(Some((PrintLevel::Info, remember)));
    if let Ok(mut log) = LOG.lock() {
        log.clear();
    }
    let held = SignalsHeld::new();
    let result = step();
    drop(held);
    libbpf_rs::set_print(previous);
    result.map_err(|error| {
        let log = LOG.lock().map(|log| log.clone()).unwrap_or_default();
        explain(&error, &log)
    })
}

/// No signal comes to this thread as long as it lives. The verifier gives up when one does (EAGAIN), be it one that is
/// ignored, and libbpf tries five times: too few where it takes seconds, and children of the process end meanwhile.
struct SignalsHeld {
    before: libc::sigset_t,
}

impl SignalsHeld {
    fn new() -> Self {
        // SAFETY: sets of signals are plain bits; both outlive the calls, which cannot fail with such arguments.
        unsafe {
            let (mut all, mut before) = std::mem::zeroed::<(libc::sigset_t, libc::sigset_t)>();
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
            Self { before }
        }
    }
}

impl Drop for SignalsHeld {
    fn drop(&mut self) {
        // SAFETY: the set is what the kernel gave, and outlives the call.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut()) };
    }
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
