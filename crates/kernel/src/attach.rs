//! Where weir's programs meet the packets: the two TC hooks of an interface, through TCX or clsact.
//!
//! Whatever else is attached there keeps running and is never removed. Interface indices are those of the
//! network namespace that the calling thread is in.

mod tcx;

use std::ffi::{CStr, c_char};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use weir_core::event::Hook;

use crate::datapath::ProgramName;

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
    /// Everything else.
    #[error("cannot {action}: {source}")]
    Refused {
        /// What was tried.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl AttachError {
    fn new(action: impl Into<String>, error: io::Error) -> Self {
        let action = action.into();
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => AttachError::NotPermitted { action },
            _ => AttachError::Refused { action, source: error },
        }
    }

    fn at_interface(ifindex: u32, action: impl FnOnce(&str) -> String, error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENODEV) => AttachError::Gone { ifindex },
            _ => AttachError::new(action(&interface_name(ifindex)), error),
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

/// Puts weir's programs on interfaces.
#[derive(Debug)]
pub struct Attacher {
    method: Method,
    programs: Programs,
}

#[derive(Debug)]
struct Programs {
    ingress: OwnedFd,
    egress: OwnedFd,
    ingress_ip: OwnedFd,
    egress_ip: OwnedFd,
}

impl Programs {
    fn get(&self, name: ProgramName) -> BorrowedFd<'_> {
        match (name.hook, name.ethernet) {
            (Hook::Ingress, true) => self.ingress.as_fd(),
            (Hook::Egress, true) => self.egress.as_fd(),
            (Hook::Ingress, false) => self.ingress_ip.as_fd(),
            (Hook::Egress, false) => self.egress_ip.as_fd(),
        }
    }
}

impl Attacher {
    /// `method` comes from [`probe`], `program` gives each program's descriptor, as
    /// [`Datapath::program`](crate::Datapath::program) does. They are duplicated: the programs stay loaded as long
    /// as the attacher or an attachment lives.
    ///
    /// # Errors
    /// The descriptors cannot be duplicated.
    pub fn new<'a>(
        method: Method,
        program: impl Fn(ProgramName) -> BorrowedFd<'a>,
    ) -> Result<Self, AttachError> {
        let duplicate = |hook, ethernet| {
            let fd = program(ProgramName { hook, ethernet });
            fd.try_clone_to_owned()
                .map_err(|error| AttachError::new("duplicate the programs' descriptors", error))
        };
        let programs = Programs {
            ingress: duplicate(Hook::Ingress, true)?,
            egress: duplicate(Hook::Egress, true)?,
            ingress_ip: duplicate(Hook::Ingress, false)?,
            egress_ip: duplicate(Hook::Egress, false)?,
        };
        Ok(Attacher { method, programs })
    }

    /// The method in use.
    #[must_use]
    pub fn method(&self) -> Method {
        self.method
    }

    /// Attaches both directions, or nothing. `ethernet` says whether packets of the device begin with an Ethernet
    /// header.
    ///
    /// # Errors
    /// [`AttachError::Gone`] when there is no such interface (any more); otherwise what the kernel refused.
    pub fn attach(&self, ifindex: u32, ethernet: bool) -> Result<Attachment, AttachError> {
        let link = |hook| {
            let attached = tcx::attach(self.programs.get(ProgramName { hook, ethernet }), ifindex, hook);
            attached.map_err(|error| {
                let action = |name: &str| format!("attach to {name} at {hook} with {}", self.method);
                AttachError::at_interface(ifindex, action, error)
            })
        };
        Ok(Attachment { _links: [link(Hook::Ingress)?, link(Hook::Egress)?] })
    }
}

/// weir's programs at both directions of one interface, until dropped.
#[derive(Debug)]
pub struct Attachment {
    _links: [OwnedFd; 2],
}
