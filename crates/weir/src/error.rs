//! What ends weir before its time, and the exit code for it.

use std::io;
use std::process::ExitCode;

use weir_core::filter::FilterError;
use weir_kernel::attach::AttachError;
use weir_kernel::{LoadError, ReaderError, TableError};

use crate::host::WatchError;
use crate::read::CaptureError;

/// Why a command ended. `Display` says what failed and why; [`Error::advice`]
/// what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line does not make sense.
    #[error("{0}")]
    Usage(String),
    /// A filter does not make sense.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The name of a container or service that is not there.
    #[error("{0}")]
    UnknownName(String),
    /// The kernel is older than what the programs need.
    #[error("this kernel is {found}; weir needs Linux {MINIMUM_KERNEL} or newer")]
    OldKernel {
        /// The kernel's release.
        found: String,
    },
    /// The host's interfaces cannot be watched.
    #[error(transparent)]
    Host(#[from] WatchError),
    /// The programs do not load.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The programs do not attach.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The kernel's events cannot be read.
    #[error(transparent)]
    Reader(#[from] ReaderError),
    /// The kernel's table cannot be read.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A capture cannot be read.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(#[source] io::Error),
    /// Something of the operating system's.
    #[error("{action}: {source}")]
    System {
        /// What was tried: "cannot ...".
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// The oldest kernel that the tests run on.
pub const MINIMUM_KERNEL: &str = "5.10";

impl Error {
    /// What the user can do about it.
    #[must_use]
    pub fn advice(&self) -> Option<&'static str> {
        Some(match self {
            Self::Load(LoadError::NotPermitted(_)) => {
                "run it as root (sudo weir ...), or give it CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
            }
            Self::Load(LoadError::NoMemory(_)) => {
                "ask for a smaller table (--max-flows 16384), or raise the memory or memlock limit (ulimit -l)"
            }
            Self::Load(LoadError::Refused { .. }) => {
                "`weir doctor` tells what this kernel lacks; if it finds nothing, this is a bug: \
                 please report it with the lines above"
            }
            Self::OldKernel { .. } => "boot a newer kernel: every feature is there from 5.15 on",
            Self::Capture(CaptureError::NotACapture { .. }) => {
                "give it what `tcpdump -w FILE` or Wireshark writes: pcap or pcapng, perhaps gzipped"
            }
            Self::Output(source) if source.kind() == io::ErrorKind::StorageFull => {
                "make room, or write elsewhere"
            }
            _ => return None,
        })
    }

    /// 1 something failed, 2 usage, 3 not permitted, 4 the kernel lacks something.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Usage(_) | Self::Filter(_) | Self::UnknownName(_) => 2,
            Self::Load(LoadError::NotPermitted(_)) | Self::Attach(AttachError::NotPermitted { .. }) => 3,
            Self::OldKernel { .. }
            | Self::Load(LoadError::Refused { .. })
            | Self::Attach(AttachError::MissingInKernel { .. } | AttachError::NoTcx) => 4,
            _ => 1,
        })
    }
}
