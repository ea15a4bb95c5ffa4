//! What ends weir before its time, and the exit code for it.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use weir_core::filter::FilterError;
use weir_core::redirect::{RuleError, SyntaxError};
use weir_kernel::attach::AttachError;
use weir_kernel::{LoadError, PinError, ReaderError, RedirectError, TableError, TextsError};

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
    /// State that outlives weir cannot be made, taken over or removed.
    #[error(transparent)]
    Pin(PinError),
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
    /// A text that is no part of a redirect rule.
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
    /// A redirect rule that makes no sense here.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// The kernel's tables of redirects cannot be read or written.
    #[error(transparent)]
    Redirect(#[from] RedirectError),
    /// The table of rules cannot be read or written.
    #[error(transparent)]
    Texts(#[from] TextsError),
    /// A rule that somebody else wrote into the table of rules.
    #[error("rule number {number} in the kernel's table of rules is none of weir's: {reason}")]
    GarbledRule {
        /// Its number.
        number: u32,
        /// What is wrong with it.
        reason: String,
    },
    /// The output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(#[source] io::Error),
    /// The local socket cannot be made.
    #[error("cannot listen at {}: {source}", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A weir runs, and there can be only one.
    #[error("a weir is running already, and answers at {}", path.display())]
    RunsAlready {
        /// Its socket.
        path: PathBuf,
    },
    /// What the weir that runs has answered.
    #[error("{message}")]
    Answered {
        /// What failed and why.
        message: String,
        /// What to do.
        advice: Option<String>,
        /// The exit code.
        code: u8,
    },
    /// The weir that runs has ended, and did not finish its answer.
    #[error("the weir that did this has ended")]
    Ended,
    /// Something of the operating system's.
    #[error("{action}: {source}")]
    System {
        /// What was tried: "cannot ...".
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl From<PinError> for Error {
    fn from(error: PinError) -> Self {
        match error {
            PinError::Load(error) => Self::Load(error),
            PinError::Attach(error) => Self::Attach(error),
            error => Self::Pin(error),
        }
    }
}

/// The oldest kernel that the tests run on.
pub const MINIMUM_KERNEL: &str = "5.10";

impl Error {
    /// What the user can do about it.
    #[must_use]
    pub fn advice(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(match self {
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
            Self::Pin(PinError::NotMounted { .. }) => {
                "mount it: mount -t bpf bpf /sys/fs/bpf (or say where one is mounted: --bpffs, WEIR_BPFFS)"
            }
            Self::Pin(PinError::ReadOnly { bpffs }) => {
                let bpffs = bpffs.display();
                return Some(Cow::Owned(format!(
                    "mount it for writing: mount -o remount,rw {bpffs} (in a container: give it {bpffs} without `ro`)"
                )));
            }
            Self::Pin(PinError::NotPermitted { .. }) | Self::Texts(TextsError::NotPermitted { .. }) => {
                "run it as root (sudo weir ...): only root may use the BPF file system"
            }
            Self::Pin(PinError::OtherVersion { .. } | PinError::OtherMap { .. }) => {
                "`weir down` removes it (redirects end, and connections that they carry break); or go back to the weir \
                 that made it"
            }
            Self::Pin(PinError::OtherTableSize { .. }) => {
                "leave --max-flows away; or `weir down` first, which ends redirects and breaks connections that they carry"
            }
            Self::Pin(PinError::OtherNamespace { .. }) => {
                "run weir in the host's network namespace; or `weir down`, if that namespace is not used any more"
            }
            Self::Pin(PinError::InUse { .. }) => {
                "name its socket with --socket, or end it: `weir run` ends by SIGTERM"
            }
            Self::Pin(PinError::Removed { .. }) => {
                "end the weir that runs and start it again: since `weir down --force` it sees no packet"
            }
            Self::RunsAlready { .. } => {
                "use that one: `weir observe` and `weir redirect` do; or end it first"
            }
            Self::Socket { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                "another program answers there: name another place (--socket, WEIR_SOCKET)"
            }
            Self::Answered { advice, .. } => return advice.as_deref().map(Cow::Borrowed),
            Self::Ended => {
                "begin again: what is pinned goes on, and a `weir observe` without it reads on its own"
            }
            Self::GarbledRule { .. } => "`weir down` removes it, with all other rules",
            Self::Output(source) if source.kind() == io::ErrorKind::StorageFull => {
                "make room, or write elsewhere"
            }
            _ => return None,
        }))
    }

    /// 1 something failed, 2 usage, 3 not permitted, 4 the kernel lacks something.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code())
    }

    /// The number of [`Error::exit_code`].
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Answered { code, .. } => *code,
            Self::Usage(_) | Self::Filter(_) | Self::UnknownName(_) | Self::Syntax(_) | Self::Rule(_) => 2,
            Self::Load(LoadError::NotPermitted(_))
            | Self::Attach(AttachError::NotPermitted { .. })
            | Self::Pin(PinError::NotPermitted { .. })
            | Self::Texts(TextsError::NotPermitted { .. }) => 3,
            Self::OldKernel { .. }
            | Self::Load(LoadError::Refused { .. })
            | Self::Attach(AttachError::MissingInKernel { .. } | AttachError::NoTcx) => 4,
            _ => 1,
        }
    }
}
