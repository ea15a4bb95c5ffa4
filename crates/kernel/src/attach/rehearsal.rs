//! Attaching where it disturbs nobody.

use std::io;
use std::os::fd::BorrowedFd;
use std::thread;

use super::tcx::LOOPBACK_IFINDEX;
use super::{AttachError, Attacher, Method};
use crate::datapath::ProgramName;

/// Attaches the programs to the `lo` of a network namespace made for it, and takes them off again: whether attaching
/// works on this kernel, tried out without touching an interface of the host.
///
/// # Errors
/// As [`Attacher::attach`]; also [`AttachError::NotPermitted`] without CAP_SYS_ADMIN, which making a network
/// namespace takes and attaching to the host's interfaces does not.
pub fn rehearse<'a>(
    method: Method,
    program: impl Fn(ProgramName) -> Option<BorrowedFd<'a>> + Send,
) -> Result<(), AttachError> {
    let in_a_namespace = || {
        // SAFETY: the call takes no pointer, and concerns only this thread, which ends below.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            return Err(AttachError::new("make a network namespace to try in", io::Error::last_os_error()));
        }
        Attacher::new(method, program)?.attach(LOOPBACK_IFINDEX, true).map(drop)
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("rehearsal".to_owned())
            .spawn_scoped(scope, in_a_namespace)
            .map_err(|error| AttachError::new("start a thread", error))?;
        // It returns its errors; what it panics with would be ours, too.
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
