//! Where weir's programs meet the packets: the two TC hooks of an interface, through TCX or clsact.
//!
//! Whatever else is attached there keeps running and is never removed. Interface indices are those of the
//! network namespace that the calling thread is in.

mod clsact;
mod instance;
mod pinned;
mod rehearsal;
mod rtnetlink;
mod survey;
mod tcx;

use std::ffi::{CStr, c_char};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use weir_core::event::Hook;

use clsact::{Clsact, Filters};
use instance::is_alive;
use pinned::Pinned;
use rtnetlink::Refusal;
use tcx::Link;

use crate::datapath::{Datapath, ProgramName};
use crate::pins::PinError;

pub use clsact::PRIORITY as CLSACT_PRIORITY;
pub use pinned::remove_pinned;
pub(crate) use pinned::{are_without_ethernet, remove_pins_of_gone};
pub use rehearsal::rehearse;
pub use survey::{AttachedProgram, Owner, Removal, remove_ours, survey, survey_all};

/// How a program gets to an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// BPF links in the kernel's own chain of programs (Linux 6.6 and newer). They end with the process.
    Tcx,
    /// Filters of a clsact qdisc, at a priority of weir's own. They outlive a killed process; the next start
    /// and [`remove_ours`] clean up.
    Clsact,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Method::Tcx => "TCX",
            Method::Clsact => "clsact",
        })
    }
}

/// The best method that this kernel has, found by trying and not by its version, since distributions move
/// features into older kernels and configurations leave them out.
///
/// The trial asks which TCX programs `lo` has, which changes nothing. A kernel without TCX refuses the question
/// with `EINVAL`, be it too old to know it or built without it; a kernel with TCX answers. Every other refusal
/// means something else and is an error.
///
/// # Errors
/// [`AttachError::NotPermitted`] without CAP_NET_ADMIN (the kernel checks that before it looks at the question).
pub fn probe() -> Result<Method, AttachError> {
    match tcx::is_supported() {
        Ok(true) => Ok(Method::Tcx),
        Ok(false) => Ok(Method::Clsact),
        Err(error) => Err(AttachError::new("find out whether the kernel has TCX", error)),
    }
}

/// Why something could not be attached or removed.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The interface does not exist (any more). A container that ended in the meantime is no failure of weir's.
    #[error("interface number {ifindex} does not exist any more")]
    Gone {
        /// Index of the interface.
        ifindex: u32,
    },
    /// The process lacks a capability.
    #[error("not permitted to {action}: run weir as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON")]
    NotPermitted {
        /// What was tried, as in "cannot ...".
        action: String,
    },
    /// The device has no link layer, and the programs for such are not loaded.
    #[error("{interface} is a device without Ethernet, and the programs for such are not loaded")]
    WithoutEthernet {
        /// Name of the interface.
        interface: String,
    },
    /// TCX was asked for, and the kernel has none.
    #[error("this kernel has no TCX (Linux 6.6 and newer have it); attach with clsact")]
    NoTcx,
    /// The kernel was built without a part of clsact, or cannot find its module.
    #[error("this kernel has no {part} ({reason}), which clsact needs; install or enable that module")]
    MissingInKernel {
        /// The kernel's name for the part.
        part: &'static str,
        /// The kernel's answer.
        reason: String,
    },
    /// The interface has the qdisc that clsact replaces.
    #[error(
        "cannot attach to {interface}: its qdisc `ingress` leaves no room for clsact; attach with TCX if the kernel \
         has it, or let whoever added that qdisc use clsact (tc qdisc show dev {interface})"
    )]
    IngressQdisc {
        /// Name of the interface.
        interface: String,
    },
    /// Everything else.
    #[error("cannot {action}: {reason}")]
    Refused {
        /// What was tried.
        action: String,
        /// The kernel's answer.
        reason: String,
    },
}

impl AttachError {
    fn new(action: impl Into<String>, error: io::Error) -> Self {
        Self::refused(action, error.into())
    }

    fn refused(action: impl Into<String>, refusal: Refusal) -> Self {
        let action = action.into();
        match refusal.errno() {
            libc::EPERM | libc::EACCES => AttachError::NotPermitted { action },
            _ => AttachError::Refused { action, reason: refusal.to_string() },
        }
    }

    fn refused_at(ifindex: u32, action: impl FnOnce(&str) -> String, refusal: Refusal) -> Self {
        match refusal.errno() {
            libc::ENODEV => AttachError::Gone { ifindex },
            _ => AttachError::refused(action(&interface_name(ifindex)), refusal),
        }
    }

    /// Whether the interface has simply ceased to exist.
    pub fn is_gone(&self) -> bool {
        matches!(self, AttachError::Gone { .. })
    }
}

/// The interface's name, for messages; its number where it has none any more.
fn interface_name(ifindex: u32) -> String {
    let mut buffer = [0 as c_char; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the IF_NAMESIZE bytes that the call may write.
    let named = unsafe { libc::if_indextoname(ifindex, buffer.as_mut_ptr()) };
    let bytes = buffer.map(|byte| byte as u8);
    match CStr::from_bytes_until_nul(&bytes) {
        Ok(name) if !named.is_null() => name.to_string_lossy().into_owned(),
        _ => format!("interface number {ifindex}"),
    }
}

/// Puts weir's programs on interfaces of one network namespace: that of the thread that made it.
#[derive(Debug)]
pub struct Attacher {
    programs: Programs,
    chain: Chain,
}

#[derive(Debug)]
enum Chain {
    Tcx,
    Clsact(Arc<Clsact>),
    Pinned(Arc<Pinned>),
}

/// Those that are loaded.
#[derive(Debug)]
struct Programs(Vec<(ProgramName, OwnedFd)>);

impl Programs {
    fn duplicate<'a>(program: impl Fn(ProgramName) -> Option<BorrowedFd<'a>>) -> Result<Self, AttachError> {
        let loaded = ProgramName::ALL.into_iter().filter_map(|name| Some((name, program(name)?)));
        loaded
            .map(|(name, fd)| Ok((name, fd.try_clone_to_owned()?)))
            .collect::<io::Result<_>>()
            .map(Self)
            .map_err(|error| AttachError::new("duplicate the programs' descriptors", error))
    }

    fn get(&self, name: ProgramName) -> Option<BorrowedFd<'_>> {
        self.0.iter().find(|(loaded, _)| *loaded == name).map(|(_, fd)| fd.as_fd())
    }

    /// The two for a device, one a hook.
    fn both(&self, ifindex: u32, ethernet: bool) -> Result<[Program<'_>; 2], AttachError> {
        let program = |hook| {
            let name = ProgramName { hook, ethernet };
            let interface = || interface_name(ifindex);
            let fd = self.get(name).ok_or_else(|| AttachError::WithoutEthernet { interface: interface() })?;
            Ok(Program { name, fd })
        };
        Ok([program(Hook::Ingress)?, program(Hook::Egress)?])
    }
}

/// One that is loaded.
#[derive(Clone, Copy)]
struct Program<'a> {
    name: ProgramName,
    fd: BorrowedFd<'a>,
}

impl Attacher {
    /// `method` comes from [`probe`], `program` gives each program's descriptor, as
    /// [`Datapath::program`](crate::Datapath::program) does. They are duplicated: the programs stay loaded as long
    /// as the attacher or an attachment lives.
    ///
    /// This also removes the clsact filters that weirs that were killed have left in this network namespace.
    ///
    /// # Errors
    /// The descriptors cannot be duplicated, or what was left cannot be removed.
    pub fn new<'a>(
        method: Method,
        program: impl Fn(ProgramName) -> Option<BorrowedFd<'a>>,
    ) -> Result<Self, AttachError> {
        let programs = Programs::duplicate(program)?;
        let chain = match method {
            Method::Tcx => {
                clsact::clean_all(|instance| !is_alive(instance))?;
                Chain::Tcx
            }
            Method::Clsact => Chain::Clsact(Arc::new(Clsact::start()?)),
        };
        Ok(Attacher { programs, chain })
    }

    /// The programs of `datapath`. If its maps are pinned, what this attaches stays when the process ends, and
    /// programs that a former owner of the state has attached are replaced by these before this returns: each
    /// between two packets, so that none passes without a program. State of another version is carried over by this.
    ///
    /// # Errors
    /// As [`Attacher::new`]; state of another network namespace than the calling thread's, or that cannot be carried
    /// over.
    pub fn of(method: Method, datapath: &mut Datapath) -> Result<Self, PinError> {
        let programs = Programs::duplicate(|name| datapath.program(name))?;
        match datapath.change_over(|links| Ok(Pinned::take_over(method, links, &programs)?))? {
            Some(pinned) => Ok(Attacher { programs, chain: Chain::Pinned(Arc::new(pinned)) }),
            None => Ok(Self::new(method, |name| datapath.program(name))?),
        }
    }

    /// The method in use.
    #[must_use]
    pub fn method(&self) -> Method {
        match &self.chain {
            Chain::Tcx => Method::Tcx,
            Chain::Clsact(_) => Method::Clsact,
            Chain::Pinned(pinned) => pinned.method(),
        }
    }

    /// Attaches both directions, or nothing. `ethernet` says whether packets of the device begin with an Ethernet
    /// header.
    ///
    /// # Errors
    /// [`AttachError::Gone`] when there is no such interface (any more); [`AttachError::WithoutEthernet`] when the
    /// programs for it are not loaded; otherwise what the kernel refused.
    pub fn attach(&self, ifindex: u32, ethernet: bool) -> Result<Attachment, AttachError> {
        let programs = self.programs.both(ifindex, ethernet)?;
        let held = match &self.chain {
            Chain::Tcx => {
                let [ingress, egress] = programs;
                Held::Tcx { _ingress: link(ifindex, ingress)?, _egress: link(ifindex, egress)? }
            }
            Chain::Pinned(pinned) => Held::Pinned { _attached: pinned.attach(ifindex, programs)? },
            Chain::Clsact(clsact) => Held::Clsact { _filters: clsact.attach(ifindex, programs)? },
        };
        Ok(Attachment { _held: held })
    }
}

fn link(ifindex: u32, Program { name, fd }: Program<'_>) -> Result<Link, AttachError> {
    tcx::attach(fd, ifindex, name.hook).map_err(|error| {
        if error.raw_os_error() == Some(libc::EINVAL) && matches!(tcx::is_supported(), Ok(false)) {
            return AttachError::NoTcx;
        }
        let action = |interface: &str| format!("attach {name} to the {} of {interface} with TCX", name.hook);
        AttachError::refused_at(ifindex, action, error.into())
    })
}

/// weir's programs at both directions of one interface. Dropping it takes them off, unless they are pinned; and is
/// fine when the interface has gone.
#[derive(Debug)]
pub struct Attachment {
    _held: Held,
}

/// Held for what dropping does.
#[derive(Debug)]
enum Held {
    Tcx { _ingress: Link, _egress: Link },
    Clsact { _filters: Filters },
    Pinned { _attached: pinned::Attached },
}
