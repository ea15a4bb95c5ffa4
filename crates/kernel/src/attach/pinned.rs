//! What stays at the interfaces when its weir ends: TCX links with a file in the state's folder, filters with a
//! number that no process holds.
//!
//! A link's file is called `IFINDEX-PROGRAM`. The next owner gives it its own program of that name: the kernel swaps
//! them between two packets. A filter's program is replaced in the same way.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use weir_core::event::Hook;

use super::clsact::Clsact;
use super::survey::{AttachedProgram, Owner, Removal};
use super::tcx::{self, PinnedLink};
use super::{AttachError, Method, Programs, interface_name};
use crate::datapath::ProgramName;
use crate::pins::{self, LinkFolders, PinDirectory, PinError};

const BOTH: [Hook; 2] = [Hook::Ingress, Hook::Egress];

/// The links and filters of one network namespace that stay.
#[derive(Debug)]
pub(super) struct Pinned {
    method: Method,
    /// Of the links' files.
    folder: PathBuf,
    clsact: Arc<Clsact>,
    /// Interfaces with links or filters that are of this process's programs by now.
    held: Mutex<HashSet<u32>>,
}

impl Pinned {
    /// Puts `programs` in the place of those that are attached.
    pub(super) fn take_over(
        method: Method,
        folders: LinkFolders,
        programs: &Programs,
    ) -> Result<Self, AttachError> {
        let LinkFolders { now, place, formers } = folders;
        let clsact = Arc::new(Clsact::pinned()?);
        let mut held: HashSet<u32> = clsact.replace(|name| programs.named(name))?.into_iter().collect();
        for path in formers.iter().chain([&now]).flat_map(|folder| pins::entries(folder)) {
            let Some((ifindex, name)) = parse(&path) else { continue };
            let Some(program) = programs.named(name) else { continue };
            let link = tcx::open_pin(&path).map_err(refused("open", &path))?;
            link.update(program).map_err(refused("replace the program of", &path))?;
            if let Some(file) = path.file_name().map(|file| now.join(file)).filter(|file| !file.exists()) {
                link.pin(&file).map_err(refused("pin a link at", &file))?;
            }
            held.insert(ifindex);
        }
        Ok(Self { method, folder: place, clsact, held: Mutex::new(held) })
    }

    pub(super) fn method(&self) -> Method {
        self.method
    }

    /// Attaches what is not attached yet, at both directions, or nothing.
    pub(super) fn attach(
        self: &Arc<Self>,
        ifindex: u32,
        ethernet: bool,
        programs: &Programs,
    ) -> Result<Attached, AttachError> {
        let names = BOTH.map(|hook| ProgramName { hook, ethernet });
        if !self.held().contains(&ifindex) {
            match self.method {
                Method::Tcx => self.pin_links(ifindex, names, programs)?,
                Method::Clsact => {
                    let programs = names.map(|name| (name.hook, name.to_string(), programs.get(name)));
                    // The filters stay when this goes, as their number says.
                    drop(self.clsact.attach(ifindex, programs)?);
                }
            }
            self.held().insert(ifindex);
        }
        let files = names.map(|name| self.file(ifindex, name));
        Ok(Attached { pinned: Arc::clone(self), ifindex, files })
    }

    fn pin_links(
        &self,
        ifindex: u32,
        names: [ProgramName; 2],
        programs: &Programs,
    ) -> Result<(), AttachError> {
        let mut links = Vec::new();
        for name in names {
            let path = self.file(ifindex, name);
            // Of an interface that had this index before, and of which nobody told.
            remove_pin_if_gone(&path)?;
            // Dropping it on the way out detaches: either both are pinned, or none.
            let link = super::link(programs, ifindex, name)?;
            links.push((link, path));
        }
        for (link, path) in &links {
            if let Err(error) = link.pin(path) {
                links.iter().for_each(|(_, path)| drop(fs::remove_file(path)));
                return Err(refused("pin a link at", path)(error));
            }
        }
        links.into_iter().for_each(|(link, _)| link.keep());
        Ok(())
    }

    fn file(&self, ifindex: u32, name: ProgramName) -> PathBuf {
        self.folder.join(format!("{ifindex}-{name}"))
    }

    fn held(&self) -> MutexGuard<'_, HashSet<u32>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// weir's programs at one interface, which stay there. Dropping it removes the pins if the interface has gone.
#[derive(Debug)]
pub(super) struct Attached {
    pinned: Arc<Pinned>,
    ifindex: u32,
    files: [PathBuf; 2],
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.pinned.held().remove(&self.ifindex);
        for file in &self.files {
            // What cannot be removed now is removed by the next start.
            let _ = remove_pin_if_gone(file);
        }
    }
}

/// Interface and program of a link's file.
fn parse(path: &Path) -> Option<(u32, &str)> {
    let (ifindex, program) = path.file_name()?.to_str()?.split_once('-')?;
    Some((ifindex.parse().ok()?, program))
}

fn refused<'a>(action: &'a str, path: &'a Path) -> impl FnOnce(io::Error) -> AttachError + 'a {
    move |error| AttachError::new(format!("{action} {}", path.display()), error)
}

fn remove_pin_if_gone(path: &Path) -> Result<(), AttachError> {
    match tcx::open_pin(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(refused("open", path)(error)),
        Ok(link) if link.ifindex == 0 => fs::remove_file(path).map_err(refused("remove", path)),
        Ok(_) => Ok(()),
    }
}

/// Removes the pins, in a folder of them, of links whose interfaces have gone.
pub(crate) fn remove_pins_of_gone(folder: &Path) -> Result<(), AttachError> {
    pins::entries(folder).iter().try_for_each(|path| remove_pin_if_gone(path))
}

/// The kernel's numbers of all pinned links.
pub(super) fn link_ids(pins: &PinDirectory) -> HashSet<u32> {
    links(pins).filter_map(|path| Some(tcx::open_pin(&path).ok()?.id)).collect()
}

/// The files of all links, of every version and network namespace.
fn links(pins: &PinDirectory) -> impl Iterator<Item = PathBuf> {
    let folders = pins.versions().into_iter().flat_map(|version| pins::entries(&pins::links(&version)));
    folders.flat_map(|folder| pins::entries(&folder))
}

/// Takes pinned programs off and removes rules, connections and all other pinned state, of whatever version. Without
/// `force` nothing, if a running process owns it: then all of it is in [`Removal::left`]. With it, that process goes
/// on, and sees nothing any more. Filters are removed in the network namespace of the calling thread.
///
/// # Errors
/// Not permitted, or the kernel refused.
pub fn remove_pinned(pins: &PinDirectory, force: bool) -> Result<Removal, PinError> {
    let mut removal = Removal::default();
    let Some(_turn) = pins.turn()? else { return Ok(removal) };
    pins.check()?;
    let owned = pins.is_owned();
    for path in links(pins) {
        let link = tcx::open_pin(&path).map_err(refused("open", &path))?;
        let program = described(&link, &path);
        if owned && !force {
            removal.left.extend(program);
            continue;
        }
        link.detach().map_err(refused("detach", &path))?;
        fs::remove_file(&path).map_err(refused("remove", &path))?;
        removal.removed.extend(program);
    }
    if owned && !force {
        removal.state_left = true;
        return Ok(removal);
    }
    removal.add_filters(super::clsact::clean_all(super::instance::is_pinned)?);
    removal.state_removed = pins.exists();
    pins::remove_tree(&pins.path())?;
    Ok(removal)
}

/// For people. `None`: the interface has gone.
fn described(link: &PinnedLink, path: &Path) -> Option<AttachedProgram> {
    let (_, name) = parse(path)?;
    let hook = ProgramName::ALL.into_iter().find(|known| known.to_string() == name)?.hook;
    (link.ifindex != 0).then(|| AttachedProgram {
        ifindex: link.ifindex,
        interface: interface_name(link.ifindex),
        hook,
        method: Method::Tcx,
        name: name.to_owned(),
        program_id: Some(link.program_id),
        priority: None,
        owner: Owner::Pinned,
    })
}

impl Programs {
    fn named(&self, name: &str) -> Option<BorrowedFd<'_>> {
        let known = ProgramName::ALL.into_iter().find(|known| known.to_string() == name)?;
        Some(self.get(known))
    }
}
