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
//! them, and the filters where there is no TCX. Whoever takes over loads its own programs for the same maps.

use std::ffi::CString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use libbpf_rs::{MapCore, MapHandle};

use crate::abi::VERSION;
use crate::attach::AttachError;
use crate::datapath::LoadError;

/// Where the kernel's documentation and systemd mount the BPF file system.
pub const DEFAULT_BPFFS: &str = "/sys/fs/bpf";

/// The folder in it.
const FOLDER: &str = "weir";
/// State that is not whole yet.
const IN_THE_MAKING: &str = "new";
const MAPS: &str = "maps";
const LINKS: &str = "links";

/// The network namespace of the calling thread.
const THREAD_NAMESPACE: &str = "/proc/thread-self/ns/net";

/// Loading the programs takes a second on a slow machine; whoever does it holds the lock.
const TURN_LIMIT: Duration = Duration::from_secs(20);
/// How long to wait for an owner that may be about to end (`weir redirect add` is one for a second).
const OWNER_LIMIT: Duration = Duration::from_secs(2);
const LOCK_INTERVAL: Duration = Duration::from_millis(10);

/// Why state cannot be made or taken over.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// Nothing of the kind is mounted there.
    #[error("no BPF file system is mounted at {}", bpffs.display())]
    NotMounted {
        /// Where it should be.
        bpffs: PathBuf,
    },
    /// It is mounted, and cannot be written to.
    #[error("the BPF file system at {} is mounted read-only", bpffs.display())]
    ReadOnly {
        /// Where it is mounted.
        bpffs: PathBuf,
    },
    /// The process lacks the right to.
    #[error("not permitted to {action}")]
    NotPermitted {
        /// What was tried, as in "cannot ...".
        action: String,
    },
    /// A weir with other maps made it.
    #[error(
        "{} holds rules and connections of another version of weir (version {found} of the maps; this weir has \
         version {expected})", path.display()
    )]
    OtherVersion {
        /// The folder of that version.
        path: PathBuf,
        /// Its version, as its name says.
        found: String,
        /// The version of this build.
        expected: &'static str,
    },
    /// A map in it is not as this build wants it.
    #[error("the map {map} in {} is not as this weir makes it: {difference}", path.display())]
    OtherMap {
        /// The folder of the state.
        path: PathBuf,
        /// The map's name.
        map: String,
        /// In what it differs.
        difference: String,
    },
    /// The flow table has another size than was asked for.
    #[error("the flow table in {} has room for {found} flows, not for {wanted}", path.display())]
    OtherTableSize {
        /// The folder of the state.
        path: PathBuf,
        /// Entries that it has.
        found: u32,
        /// Entries that were asked for.
        wanted: u32,
    },
    /// Its interfaces are those of another network namespace.
    #[error("the state in {} belongs to another network namespace", path.display())]
    OtherNamespace {
        /// The folder of the state.
        path: PathBuf,
    },
    /// Another process owns it.
    #[error("another weir that is running owns the state in {}", path.display())]
    InUse {
        /// The folder of the state.
        path: PathBuf,
    },
    /// The programs do not load.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Programs cannot be attached or taken off.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// Everything else.
    #[error("cannot {action}: {source}")]
    System {
        /// What was tried.
        action: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl PinError {
    pub(crate) fn new(action: impl Into<String>, source: io::Error) -> Self {
        let action = action.into();
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::NotPermitted { action },
            _ => Self::System { action, source },
        }
    }
}

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

    /// Entries of the pinned flow table, if there is one.
    #[must_use]
    pub fn max_flows(&self) -> Option<u32> {
        let map = MapHandle::from_pinned_path(self.map("flows")).ok()?;
        Some(map.max_entries())
    }

    /// Where a map of this build's state is pinned.
    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.state().join(MAPS).join(name)
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

    /// Makes this process the owner of the state, which is made if there is none.
    pub(crate) fn own(&self) -> Result<Taken, PinError> {
        check_mount(&self.bpffs)?;
        let deadline = Instant::now() + OWNER_LIMIT;
        loop {
            make_folder(&self.path())?;
            let Some(turn) = self.turn()? else { continue };
            if let Some((path, found)) = self.other_version() {
                return Err(PinError::OtherVersion { path, found, expected: VERSION });
            }
            let path = self.state();
            if !path.exists() {
                return self.begin(turn);
            }
            let folder = open(&path)?;
            if try_lock(&folder) {
                return Ok(Taken { turn, owned: Owned { _folder: folder, path: path.clone() }, at: path });
            }
            if Instant::now() >= deadline {
                return Err(PinError::InUse { path });
            }
            drop(turn);
            sleep(LOCK_INTERVAL);
        }
    }

    fn begin(&self, turn: Turn) -> Result<Taken, PinError> {
        let at = self.path().join(IN_THE_MAKING);
        // Left by a process that was killed at this.
        remove_tree(&at)?;
        for folder in [at.clone(), at.join(MAPS), at.join(LINKS)] {
            make_folder(&folder)?;
        }
        let folder = open(&at)?;
        if !try_lock(&folder) {
            return Err(PinError::InUse { path: at });
        }
        Ok(Taken { turn, owned: Owned { _folder: folder, path: self.state() }, at })
    }

    fn other_version(&self) -> Option<(PathBuf, String)> {
        self.versions().into_iter().find_map(|path| {
            let found = version_of(&path)?.to_owned();
            (found != VERSION).then_some((path, found))
        })
    }
}

fn version_of(path: &Path) -> Option<&str> {
    let version = path.file_name()?.to_str()?.strip_prefix('v')?;
    (!version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit())).then_some(version)
}

/// The right to make, take over or remove state, until dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    _folder: File,
}

/// The state's owner is whoever has this, until it is dropped.
#[derive(Debug)]
pub(crate) struct Owned {
    _folder: File,
    path: PathBuf,
}

impl Owned {
    /// The folder of the links in the network namespace of the calling thread. Pins of links whose interfaces have
    /// gone are removed.
    pub(crate) fn links(&self) -> Result<PathBuf, PinError> {
        let namespace = fs::metadata(THREAD_NAMESPACE)
            .map_err(|error| PinError::new("look at the network namespace", error))?;
        let own = links(&self.path).join(namespace.ino().to_string());
        for folder in entries(&links(&self.path)) {
            crate::attach::remove_pins_of_gone(&folder)?;
            if folder != own && fs::remove_dir(&folder).is_err() {
                return Err(PinError::OtherNamespace { path: self.path.clone() });
            }
        }
        make_folder(&own)?;
        Ok(own)
    }
}

/// State that this process has just become the owner of.
pub(crate) struct Taken {
    turn: Turn,
    owned: Owned,
    /// Where it is now: its own place, or that of state in the making.
    at: PathBuf,
}

impl Taken {
    /// Whether there was none before.
    pub(crate) fn is_new(&self) -> bool {
        self.at != self.owned.path
    }

    /// Where the map of that name is pinned, or will be.
    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.at.join(MAPS).join(name)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.owned.path
    }

    /// All maps are pinned: from now on it is there, for others too.
    pub(crate) fn complete(self) -> Result<Owned, PinError> {
        if self.is_new() {
            fs::rename(&self.at, &self.owned.path)
                .map_err(|error| PinError::new(format!("make {}", self.owned.path.display()), error))?;
        }
        drop(self.turn);
        Ok(self.owned)
    }

    /// The state could not be completed: nothing of it remains if there was none before.
    pub(crate) fn abandon(self) {
        if self.is_new() {
            // What cannot be removed now is removed by the next start.
            let _ = remove_tree(&self.at);
        }
    }
}

/// Where the state in the folder of a version has its links, one folder a network namespace.
pub(crate) fn links(version: &Path) -> PathBuf {
    version.join(LINKS)
}

/// Files and folders in a folder; none if there is no such folder.
pub(crate) fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    entries.sort();
    entries
}

/// Removes a folder with all that is in it; that there is none is no failure.
pub(crate) fn remove_tree(folder: &Path) -> Result<(), PinError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(PinError::new(format!("remove {}", folder.display()), error))
        }
        _ => Ok(()),
    }
}

/// What pinning and opening pins by libbpf takes.
pub(crate) fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn open(folder: &Path) -> Result<File, PinError> {
    File::open(folder).map_err(|error| PinError::new(format!("open {}", folder.display()), error))
}

/// For root's eyes only.
fn make_folder(path: &Path) -> Result<(), PinError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result.map_err(|error| PinError::new(format!("make {}", path.display()), error)),
    }
}

fn try_lock(folder: &File) -> bool {
    // SAFETY: the call takes no pointer.
    unsafe { libc::flock(folder.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) == 0 }
}

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

fn check_mount(bpffs: &Path) -> Result<(), PinError> {
    let looked_at = |error| PinError::new(format!("look at {}", bpffs.display()), error);
    let path = c_path(bpffs).map_err(looked_at)?;
    // SAFETY: all zero is a valid statfs.
    let mut found: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends in zero, and `found` is a valid place to write to.
    if unsafe { libc::statfs(path.as_ptr(), &raw mut found) } != 0 {
        let error = io::Error::last_os_error();
        return match error.kind() {
            io::ErrorKind::NotFound => Err(PinError::NotMounted { bpffs: bpffs.to_owned() }),
            _ => Err(looked_at(error)),
        };
    }
    #[allow(clippy::unnecessary_cast, reason = "its width differs by architecture")]
    if found.f_type as i64 != BPF_FS_MAGIC {
        return Err(PinError::NotMounted { bpffs: bpffs.to_owned() });
    }
    // SAFETY: the path ends in zero.
    let writable = unsafe { libc::access(path.as_ptr(), libc::W_OK) } == 0;
    let error = io::Error::last_os_error();
    if !writable && error.kind() == io::ErrorKind::ReadOnlyFilesystem {
        return Err(PinError::ReadOnly { bpffs: bpffs.to_owned() });
    }
    Ok(())
}
