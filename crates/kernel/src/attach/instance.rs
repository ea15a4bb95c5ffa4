//! Which running weir a clsact filter belongs to, and whether that one still runs.
//!
//! Every weir that uses clsact holds a number: the abstract unix socket name `weir/clsact/NUMBER`. Such names exist
//! per network namespace, as interfaces do, and vanish with the process, however it ends. So a filter that
//! carries a number nobody holds was left by a weir that was killed. One number stands for filters that are
//! meant to stay without a process.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The highest number. Far more weirs than make sense in one network namespace; the bound is for a hostile local
/// user, who may hold names too.
const LAST: u32 = 1024;

/// The number on filters that stay when their weir ends.
const PINNED: u32 = LAST + 1;

/// The network namespace of the calling thread.
const THREAD_NAMESPACE: &str = "/proc/thread-self/ns/net";

/// How long to wait for another weir that is attaching or detaching, which takes some milliseconds.
const TURN_LIMIT: Duration = Duration::from_secs(2);
const TURN_INTERVAL: Duration = Duration::from_millis(2);

/// A number that is this process's until dropped.
#[derive(Debug)]
pub(super) struct Instance {
    number: u32,
    /// None for the number that is nobody's.
    _name: Option<UnixDatagram>,
}

impl Instance {
    /// Takes the lowest number that is free in the network namespace of the calling thread.
    pub(super) fn claim() -> io::Result<Self> {
        for number in 1..=LAST {
            match UnixDatagram::bind_addr(&name(number)?) {
                Ok(socket) => return Ok(Self { number, _name: Some(socket) }),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other(format!(
            "all {LAST} instance numbers (sockets named weir/clsact/...) are taken"
        )))
    }

    /// That of filters that stay.
    pub(super) fn pinned() -> Self {
        Self { number: PINNED, _name: None }
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }
}

/// Whether filters of that number stay when their weir ends.
pub(super) fn is_pinned(number: u32) -> bool {
    number == PINNED
}

/// Whether somebody holds that number, or none needs to. In doubt yes: nothing of a living weir must be removed.
pub(super) fn is_alive(number: u32) -> bool {
    if is_pinned(number) {
        return true;
    }
    let connect = || UnixDatagram::unbound()?.connect_addr(&name(number)?);
    !matches!(connect(), Err(error) if error.kind() == io::ErrorKind::ConnectionRefused)
}

fn name(number: u32) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("weir/clsact/{number}"))
}

/// Lets one weir at a time look at an interface's qdisc and change it: otherwise one that leaves could remove the
/// qdisc that another has just found.
#[derive(Debug)]
pub(super) struct Turns {
    namespace: File,
}

impl Turns {
    /// Turns in the network namespace of the calling thread.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { namespace: File::open(THREAD_NAMESPACE)? })
    }

    /// Waits for this process's turn, which lasts until the guard is dropped. Goes on without it after
    /// 2 s: any local user can lock that file, and must not keep weir from detaching.
    pub(super) fn take(&self) -> Turn<'_> {
        let start = Instant::now();
        while !self.try_lock() && start.elapsed() < TURN_LIMIT {
            sleep(TURN_INTERVAL);
        }
        Turn { turns: self }
    }

    fn try_lock(&self) -> bool {
        // SAFETY: the call takes no pointer.
        unsafe { libc::flock(self.namespace.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) == 0 }
    }
}

pub(super) struct Turn<'a> {
    turns: &'a Turns,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // SAFETY: the call takes no pointer. It fails only on what is no descriptor.
        unsafe { libc::flock(self.turns.namespace.as_raw_fd(), libc::LOCK_UN) };
    }
}

#[cfg(test)]
mod tests {
    use weir_testkit::wait_until;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    // Another run of these tests may hold a number or the turn at the same time, for a moment.
    #[test]
    fn a_number_lives_as_long_as_it_is_held() {
        let instance = Instance::claim().unwrap();
        let number = instance.number();
        assert!(is_alive(number));
        assert_ne!(Instance::claim().unwrap().number(), number);
        drop(instance);
        wait_until(SOON, "the number to be free", || !is_alive(number));
    }

    #[test]
    fn only_one_has_the_turn() {
        let (first, second) = (Turns::new().unwrap(), Turns::new().unwrap());
        wait_until(SOON, "the turn", || first.try_lock());
        assert!(!second.try_lock());
        drop(Turn { turns: &first });
        wait_until(SOON, "the next turn", || second.try_lock());
    }
}
