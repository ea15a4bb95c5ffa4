//! Who is attached where, and taking off what is weir's.

use std::collections::{HashMap, HashSet};
use std::io;

use weir_core::event::Hook;

use super::clsact::{self, Cleaned, Filter, NAME_PREFIX};
use super::instance::{is_alive, is_pinned};
use super::pinned::link_ids;
use super::rtnetlink::Netlink;
use super::{AttachError, Method, interface_name, tcx};
use crate::pins::PinDirectory;

/// Something that sees the packets of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachedProgram {
    /// Index of the interface.
    pub ifindex: u32,
    /// Name of the interface.
    pub interface: String,
    /// Which direction.
    pub hook: Hook,
    /// How it is attached.
    pub method: Method,
    /// The program's name; of a filter that is no BPF program, its kind (`u32`, `flower`, ...).
    pub name: String,
    /// The kernel's number of the program; none if it is no BPF program.
    pub program_id: Option<u32>,
    /// The filter's priority; none with TCX, where the order is that of the list.
    pub priority: Option<u16>,
    /// Who attached it.
    pub owner: Owner,
}

/// Who attached a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Owner {
    /// Not weir.
    Other,
    /// A weir that is running, this one or another.
    Weir,
    /// A weir that was killed; [`remove_ours`] takes it off.
    EndedWeir,
    /// Weir's pinned state, which holds whether a weir runs or not; [`super::remove_pinned`] takes it off.
    Pinned,
}

impl AttachedProgram {
    fn from_filter(filter: Filter) -> Self {
        Self {
            ifindex: filter.ifindex,
            interface: interface_name(filter.ifindex),
            hook: filter.hook,
            method: Method::Clsact,
            owner: match filter.tag() {
                None => Owner::Other,
                Some(tag) if is_pinned(tag.instance) => Owner::Pinned,
                Some(tag) if is_alive(tag.instance) => Owner::Weir,
                Some(_) => Owner::EndedWeir,
            },
            name: filter.program_name.unwrap_or(filter.kind),
            program_id: filter.program_id,
            priority: Some(filter.priority),
        }
    }

    fn from_tcx(ifindex: u32, hook: Hook, entry: tcx::Entry, name: String, pinned: &HashSet<u32>) -> Self {
        Self {
            ifindex,
            interface: interface_name(ifindex),
            hook,
            method: Method::Tcx,
            // weir attaches by links only, and those end with their process or are pinned.
            owner: match name.starts_with(NAME_PREFIX) && entry.link_id != 0 {
                true if pinned.contains(&entry.link_id) => Owner::Pinned,
                true => Owner::Weir,
                false => Owner::Other,
            },
            name,
            program_id: Some(entry.program_id),
            priority: None,
        }
    }
}

/// Everything at both hooks of an interface, in the order in which it runs: TCX first, then the filters. Empty if
/// there is no such interface. `pins` says which links are pinned.
///
/// # Errors
/// Not permitted (CAP_NET_ADMIN and CAP_SYS_ADMIN, which the kernel wants for looking at the programs of others).
pub fn survey(ifindex: u32, pins: &PinDirectory) -> Result<Vec<AttachedProgram>, AttachError> {
    survey_each(&[ifindex], pins)
}

/// [`survey`] of every interface in the network namespace of the calling thread.
///
/// # Errors
/// As [`survey`].
pub fn survey_all(pins: &PinDirectory) -> Result<Vec<AttachedProgram>, AttachError> {
    survey_each(&interface_indices()?, pins)
}

fn survey_each(interfaces: &[u32], pins: &PinDirectory) -> Result<Vec<AttachedProgram>, AttachError> {
    let pinned = link_ids(pins);
    let mut netlink =
        Netlink::open().map_err(|error| AttachError::new("ask the kernel for its filters", error))?;
    let mut names = ProgramNames::default();
    let mut found = Vec::new();
    for &ifindex in interfaces {
        for (hook, entry) in tcx_entries(ifindex)? {
            let name = names.get(entry.program_id)?;
            found.push(AttachedProgram::from_tcx(ifindex, hook, entry, name, &pinned));
        }
        let filters = clsact::filters(&mut netlink, ifindex).map_err(|refusal| {
            AttachError::refused_at(ifindex, |name| format!("list the filters of {name}"), refusal)
        })?;
        found.extend(filters.into_iter().map(AttachedProgram::from_filter));
    }
    Ok(found)
}

/// What [`remove_ours`] did.
#[derive(Debug, Default)]
pub struct Removal {
    /// Taken off.
    pub removed: Vec<AttachedProgram>,
    /// Names of the interfaces whose clsact qdisc, made by a weir, was removed as well.
    pub qdiscs: Vec<String>,
    /// Left, because the weir that attached it is still running.
    pub left: Vec<AttachedProgram>,
    /// Pinned state was removed.
    pub state_removed: bool,
    /// Pinned state was left, because a running weir owns it.
    pub state_left: bool,
}

impl Removal {
    /// Adds what another one did.
    pub fn add(&mut self, other: Self) {
        self.removed.extend(other.removed);
        self.qdiscs.extend(other.qdiscs);
        self.left.extend(other.left);
        self.state_removed |= other.state_removed;
        self.state_left |= other.state_left;
    }

    pub(super) fn add_filters(&mut self, cleaned: Cleaned) {
        let programs = |filters: Vec<Filter>| filters.into_iter().map(AttachedProgram::from_filter);
        self.removed.extend(programs(cleaned.removed));
        self.qdiscs.extend(cleaned.qdiscs.into_iter().map(interface_name));
        self.left.extend(programs(cleaned.kept));
    }
}

/// Takes off what weirs have left in the network namespace of the calling thread. With `force` also what weirs that
/// are still running have attached there; those go on, and see nothing any more. Pinned state stays, see
/// [`super::remove_pinned`].
///
/// # Errors
/// Not permitted, or the kernel refused.
pub fn remove_ours(force: bool, pins: &PinDirectory) -> Result<Removal, AttachError> {
    let mut removal = Removal::default();
    removal
        .add_filters(clsact::clean_all(|instance| !is_pinned(instance) && (force || !is_alive(instance)))?);
    removal.left.retain(|program| program.owner != Owner::Pinned);
    let pinned = link_ids(pins);
    // A TCX link that is not pinned ends with its process, so each one has a weir that runs.
    let mut names = ProgramNames::default();
    for ifindex in interface_indices()? {
        for (hook, entry) in tcx_entries(ifindex)? {
            let name = names.get(entry.program_id)?;
            let program = AttachedProgram::from_tcx(ifindex, hook, entry, name, &pinned);
            if program.owner != Owner::Weir {
                continue;
            }
            if force {
                tcx::detach(entry.link_id).or_else(gone_is_fine).map_err(|error| {
                    AttachError::new(format!("take {} off {}", program.name, program.interface), error)
                })?;
                removal.removed.push(program);
            } else {
                removal.left.push(program);
            }
        }
    }
    Ok(removal)
}

fn gone_is_fine(error: io::Error) -> io::Result<()> {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOLINK | libc::ENODEV) => Ok(()),
        _ => Err(error),
    }
}

/// What is in the TCX chains of an interface. None where there is no interface, or no TCX.
fn tcx_entries(ifindex: u32) -> Result<Vec<(Hook, tcx::Entry)>, AttachError> {
    let mut found = Vec::new();
    for hook in [Hook::Ingress, Hook::Egress] {
        match tcx::query(ifindex, hook) {
            Ok(entries) => found.extend(entries.into_iter().map(|entry| (hook, entry))),
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENODEV | libc::ENOENT)) => {}
            Err(error) => {
                let action = format!("list the programs at {}", interface_name(ifindex));
                return Err(AttachError::new(action, error));
            }
        }
    }
    Ok(found)
}

/// Names of loaded programs, asked for once each: the same few are attached to every interface.
#[derive(Default)]
struct ProgramNames(HashMap<u32, String>);

impl ProgramNames {
    fn get(&mut self, program_id: u32) -> Result<String, AttachError> {
        if let Some(name) = self.0.get(&program_id) {
            return Ok(name.clone());
        }
        let name = match tcx::program_name(program_id) {
            Ok(name) => name,
            // Unloaded since it was listed.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => String::new(),
            Err(error) => {
                return Err(AttachError::new(format!("ask for the name of program {program_id}"), error));
            }
        };
        self.0.insert(program_id, name.clone());
        Ok(name)
    }
}

/// Every interface of the calling thread's network namespace.
fn interface_indices() -> Result<Vec<u32>, AttachError> {
    // SAFETY: the call takes nothing and returns an array that belongs to the caller, or null.
    let array = unsafe { libc::if_nameindex() };
    if array.is_null() {
        return Err(AttachError::new("list the interfaces", io::Error::last_os_error()));
    }
    let mut indices = Vec::new();
    let mut entry = array;
    // SAFETY: the array ends with an entry of index 0, and the loop reads no entry after it.
    while let index @ 1.. = unsafe { (*entry).if_index } {
        indices.push(index);
        // SAFETY: this entry was not the last one.
        entry = unsafe { entry.add(1) };
    }
    // SAFETY: it came from if_nameindex, and nothing refers to it any more.
    unsafe { libc::if_freenameindex(array) };
    Ok(indices)
}
