//! Why state is not made or taken over.

use std::io;
use std::path::PathBuf;

use crate::attach::AttachError;
use crate::datapath::LoadError;

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
    /// A weir with other maps made it, and this one cannot carry it over.
    #[error(
        "{} holds rules and connections of another version of weir (version {found} of the maps; this weir has \
         version {expected}), and they cannot be taken over: {reason}", path.display()
    )]
    OtherVersion {
        /// The folder of that version.
        path: PathBuf,
        /// Its version, as its name says.
        found: String,
        /// The version of this build.
        expected: &'static str,
        /// What is in the way.
        reason: String,
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
    /// Somebody has removed it while this process owned it.
    #[error("the state in {} was removed", path.display())]
    Removed {
        /// The folder that it had.
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
