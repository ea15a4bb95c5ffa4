//! State that outlives the process: a folder of the BPF file system (bpffs).
//!
//! ```text
//! BPFFS/weir/                       locked while state is made, taken over or removed
//! BPFFS/weir/v1/                    1 is ABI_VERSION; locked by its owner for as long as it lives
//! BPFFS/weir/v1/maps/MAP            every map of the programs, but their constants and totals
//! BPFFS/weir/v1/links/NETNS/IFINDEX-PROGRAM    TCX links of that network namespace
//! BPFFS/weir/new/                   state in the making; it becomes v1 by one rename, when it is whole
//! ```
//!
//! The locks are `flock`s of the folders themselves: the kernel gives them back however a process ends, and they
//! hold for whoever sees the same file system, from inside a container too. Programs have no file: the links hold
//! them, and the filters where there is no TCX. Whoever takes over loads its own programs for the same maps; where these
//! are another version's, for maps of its own, into which it carries what is there.

mod error;
mod files;
mod owned;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use libbpf_rs::{MapCore, MapHandle, libbpf_sys};

use crate::abi::VERSION;
use files::{check_mount, make_folder, open, try_lock};

pub use error::PinError;
pub(crate) use files::{c_path, entries, remove_tree};
pub(crate) use owned::{Former, LinkFolders, Owned, Turn, links, maps};

/// Where the kernel's documentation and systemd mount the BPF file system.
pub const DEFAULT_BPFFS: &str = "/sys/fs/bpf";

/// The folder in it.
const FOLDER: &str = "weir";
/// State that is not whole yet.
const IN_THE_MAKING: &str = "new";
const MAPS: &str = "maps";
const LINKS: &str = "links";

/// Loading the programs takes two seconds of a processor, more of them on a busy machine; whoever does it holds the
/// lock, and others may wait for it too.
const TURN_LIMIT: Duration = Duration::from_secs(60);
/// How long to wait for an owner that may be about to end (`weir redirect add` is one for a second).
const OWNER_LIMIT: Duration = Duration::from_secs(2);
const LOCK_INTERVAL: Duration = Duration::from_millis(10);

/// Where state is pinned: a folder of one BPF file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinDirectory {
    bpffs: PathBuf,
}

impl Default for PinDirectory {
    fn default() -> Self {
        Self::new(DEFAULT_BPFFS)
    }
}

impl PinDirectory {
    /// The folder `weir` in `bpffs`, which is the BPF file system's mount point or a folder of it.
    pub fn new(bpffs: impl Into<PathBuf>) -> Self {
        Self { bpffs: bpffs.into() }
    }

    /// Whether state can be made, changed and removed here.
    ///
    /// # Errors
    /// It is no BPF file system, or is mounted read-only.
    pub fn check(&self) -> Result<(), PinError> {
        check_mount(&self.bpffs)
    }

    /// The BPF file system.
    #[must_use]
    pub fn bpffs(&self) -> &Path {
        &self.bpffs
    }

    /// Opens a map of this build's state to read it, which also a file system allows that is mounted read-only.
    pub(crate) fn open_map(&self, name: &str) -> libbpf_rs::Result<MapHandle> {
        open_to_read(&self.map(name))
    }

    /// The folder that holds all of weir's.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.bpffs.join(FOLDER)
    }

    /// The folder of this build's state.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.path().join(format!("v{VERSION}"))
    }

    /// Whether there is state there, of this version or another.
    #[must_use]
    pub fn exists(&self) -> bool {
        !self.versions().is_empty()
    }

    /// Whether a running process owns the state.
    #[must_use]
    pub fn is_owned(&self) -> bool {
        self.versions().iter().any(|path| File::open(path).is_ok_and(|folder| !try_lock(&folder)))
    }

    /// Whether there is state of another version only, which the next owner carries over.
    #[must_use]
    pub fn is_of_another_version(&self) -> bool {
        self.exists() && !self.state().exists()
    }

    /// Entries of the pinned flow table, if there is one.
    #[must_use]
    pub fn max_flows(&self) -> Option<u32> {
        let tables = std::iter::once(self.state()).chain(self.versions());
        let mut tables = tables.filter_map(|version| open_to_read(&maps(&version).join("flows")).ok());
        tables.next().map(|map| map.max_entries())
    }

    /// Where a map of this build's state is pinned.
    fn map(&self, name: &str) -> PathBuf {
        maps(&self.state()).join(name)
    }

    /// The folders of all versions.
    pub(crate) fn versions(&self) -> Vec<PathBuf> {
        entries(&self.path()).into_iter().filter(|path| version_of(path).is_some()).collect()
    }

    /// Waits until no other process makes, takes over or removes state here. `None`: there is no folder.
    pub(crate) fn turn(&self) -> Result<Option<Turn>, PinError> {
        let path = self.path();
        let refused = |error| PinError::new(format!("lock {}", path.display()), error);
        let deadline = Instant::now() + TURN_LIMIT;
        loop {
            let folder = match File::open(&path) {
                Ok(folder) => folder,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(refused(error)),
            };
            if try_lock(&folder) {
                let here = folder.metadata().map_err(refused)?.ino();
                // Unless whoever had the lock has removed the folder.
                if fs::metadata(&path).is_ok_and(|there| there.ino() == here) {
                    return Ok(Some(Turn { _folder: folder }));
                }
            }
            if Instant::now() >= deadline {
                return Err(refused(io::ErrorKind::TimedOut.into()));
            }
            sleep(LOCK_INTERVAL);
        }
    }

    /// Makes this process the owner of the state, which is made if there is none, and of that of other versions,
    /// which is to be carried over.
    pub(crate) fn own(&self) -> Result<Owned, PinError> {
        self.check()?;
        let deadline = Instant::now() + OWNER_LIMIT;
        loop {
            make_folder(&self.path())?;
            let Some(turn) = self.turn()? else { continue };
            match self.formers().and_then(|formers| self.begin(formers, turn)) {
                Err(PinError::InUse { .. }) if Instant::now() < deadline => sleep(LOCK_INTERVAL),
                owned => return owned,
            }
        }
    }

    fn begin(&self, formers: Vec<Former>, turn: Turn) -> Result<Owned, PinError> {
        let path = self.state();
        let in_the_making = self.path().join(IN_THE_MAKING);
        // Left by a process that was killed at this.
        remove_tree(&in_the_making)?;
        let mut at = path.clone();
        if !path.exists() {
            at = in_the_making;
            for folder in [at.clone(), maps(&at), links(&at)] {
                make_folder(&folder)?;
            }
        }
        let folder = lock(&at)?;
        Ok(Owned { folder, path, at, formers, turn: Some(turn) })
    }

    fn formers(&self) -> Result<Vec<Former>, PinError> {
        let others = self.versions().into_iter().filter_map(|path| {
            let version = version_of(&path)?.to_owned();
            (version != VERSION).then_some((path, version))
        });
        others.map(|(path, version)| Ok(Former { _folder: lock(&path)?, path, version })).collect()
    }
}

fn open_to_read(path: &Path) -> libbpf_rs::Result<MapHandle> {
    MapHandle::from_pinned_path_with_file_flags(path, libbpf_sys::BPF_F_RDONLY)
}

/// Becomes the owner of the state in a folder.
fn lock(path: &Path) -> Result<File, PinError> {
    let folder = open(path)?;
    match try_lock(&folder) {
        true => Ok(folder),
        false => Err(PinError::InUse { path: path.to_owned() }),
    }
}

fn version_of(path: &Path) -> Option<&str> {
    let version = path.file_name()?.to_str()?.strip_prefix('v')?;
    (!version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit())).then_some(version)
}
