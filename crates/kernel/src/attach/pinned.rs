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

use super::clsact::{self, Clsact};
use super::survey::{AttachedProgram, Owner, Removal};
use super::tcx::{self, PinnedLink};
use super::{AttachError, Method, Program, Programs, interface_name};
use crate::datapath::ProgramName;
use crate::pins::{self, LinkFolders, Owned, PinDirectory, PinError};

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
        programs: [Program<'_>; 2],
    ) -> Result<Attached, AttachError> {
        if !self.held().contains(&ifindex) {
            match self.method {
                Method::Tcx => self.pin_links(ifindex, programs)?,
                // The filters stay when this goes, as their number says.
                Method::Clsact => drop(self.clsact.attach(ifindex, programs)?),
            }
            self.held().insert(ifindex);
        }
        let files = programs.map(|program| self.file(ifindex, program.name));
        Ok(Attached { pinned: Arc::clone(self), ifindex, files })
    }

    fn pin_links(&self, ifindex: u32, programs: [Program<'_>; 2]) -> Result<(), AttachError> {
        let mut links = Vec::new();
        for program in programs {
            let path = self.file(ifindex, program.name);
            // Of an interface that had this index before, and of which nobody told.
            remove_pin_if_gone(&path)?;
            // Dropping it on the way out detaches: either both are pinned, or none.
            let link = super::link(ifindex, program)?;
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

/// Whether programs for devices without Ethernet are at work, which the state's next owner must replace.
pub(crate) fn are_without_ethernet(owned: &Owned) -> Result<bool, AttachError> {
    let links = links(owned.versions());
    let files = links.filter_map(|path| parse(&path).map(|(_, name)| name.to_owned()));
    let mut names = files.chain(clsact::pinned_names()?);
    Ok(names.any(|name| ProgramName::parse(&name).is_some_and(|name| !name.ethernet)))
}

/// The kernel's numbers of all pinned links.
pub(super) fn link_ids(pins: &PinDirectory) -> HashSet<u32> {
    links(pins.versions()).filter_map(|path| Some(tcx::open_pin(&path).ok()?.id)).collect()
}

/// The files of all links of these versions, in every network namespace.
fn links(versions: Vec<PathBuf>) -> impl Iterator<Item = PathBuf> {
    let folders = versions.into_iter().flat_map(|version| pins::entries(&pins::links(&version)));
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
    for path in links(pins.versions()) {
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
    removal.add_filters(clsact::clean_all(super::instance::is_pinned)?);
    removal.state_removed = pins.exists();
    pins::remove_tree(&pins.path())?;
    Ok(removal)
}

/// For people. `None`: the interface has gone.
fn described(link: &PinnedLink, path: &Path) -> Option<AttachedProgram> {
    let (_, name) = parse(path)?;
    let hook = ProgramName::parse(name)?.hook;
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
        self.get(ProgramName::parse(name)?)
    }
}
