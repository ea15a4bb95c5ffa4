//! TCX (Linux 6.6 and newer): one BPF link per interface and direction. The link's file descriptor owns the
//! attachment, so whatever ends weir also detaches it.
//!
//! Each attaching and each detaching waits for an RCU grace period under the kernel's lock for network devices:
//! measured 11 ms on an idle machine with HZ=250, hence some 23 ms an interface, one after the other, however
//! many threads ask. (With `/sys/kernel/rcu_expedited` it is below 0.1 ms; weir changes no setting of the host.)

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use libbpf_rs::libbpf_sys as sys;

use weir_core::event::Hook;

use crate::pins::c_path;

/// The most programs that the kernel takes at one hook of one interface (`BPF_MPROG_MAX`).
const CHAIN_MAX: usize = 64;

/// Index of `lo`: the first interface of every network namespace, and not removable.
pub(super) const LOOPBACK_IFINDEX: u32 = 1;

fn attach_type(hook: Hook) -> sys::bpf_attach_type {
    match hook {
        Hook::Ingress => sys::BPF_TCX_INGRESS,
        Hook::Egress => sys::BPF_TCX_EGRESS,
    }
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result) }
}

/// Whether this kernel has TCX. See [`super::probe`].
pub(super) fn is_supported() -> io::Result<bool> {
    match query(LOOPBACK_IFINDEX, Hook::Ingress) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Holds a program at a hook until dropped, or until the process ends.
#[derive(Debug)]
pub(super) struct Link(OwnedFd);

impl Link {
    /// Gives it a file on a BPF file system, which then holds the program at the hook as well.
    pub(super) fn pin(&self, path: &Path) -> io::Result<()> {
        pin(&self.0, path)
    }

    /// Lets go of it without detaching: its file holds it.
    pub(super) fn keep(self) {
        // SAFETY: `self` is forgotten, so that this is the descriptor's only owner, and closes it.
        drop(unsafe { OwnedFd::from_raw_fd(self.0.as_raw_fd()) });
        std::mem::forget(self);
    }
}

fn pin(link: &OwnedFd, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: the path ends in zero and outlives the call.
    check(unsafe { sys::bpf_obj_pin(link.as_raw_fd(), path.as_ptr()) }).map(|_| ())
}

/// A link that has a file.
#[derive(Debug)]
pub(super) struct PinnedLink {
    fd: OwnedFd,
    pub(super) id: u32,
    pub(super) program_id: u32,
    /// 0 when the interface has gone.
    pub(super) ifindex: u32,
}

/// Opens the link that is pinned at `path`.
///
/// # Errors
/// `ENOENT` without that file; `InvalidData` if it is something else than a TCX link.
pub(super) fn open_pin(path: &Path) -> io::Result<PinnedLink> {
    let path = c_path(path)?;
    // SAFETY: the path ends in zero and outlives the call.
    let fd = check(unsafe { sys::bpf_obj_get(path.as_ptr()) })?;
    // SAFETY: a new descriptor, which nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut info = sys::bpf_link_info::default();
    let mut info_bytes = size_of::<sys::bpf_link_info>() as u32;
    // SAFETY: `info` is zeroed, has `info_bytes` bytes and outlives the call.
    check(unsafe { sys::bpf_link_get_info_by_fd(fd.as_raw_fd(), &mut info, &mut info_bytes) })?;
    if info.type_ != sys::BPF_LINK_TYPE_TCX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // SAFETY: of a TCX link the kernel has filled in this member; it consists of integers.
    let ifindex = unsafe { info.__bindgen_anon_1.tcx.ifindex };
    Ok(PinnedLink { fd, id: info.id, program_id: info.prog_id, ifindex })
}

impl PinnedLink {
    /// Gives it another file.
    pub(super) fn pin(&self, path: &Path) -> io::Result<()> {
        pin(&self.fd, path)
    }

    /// Has it run another program from the next packet on.
    pub(super) fn update(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        // SAFETY: the call takes no pointer but that of options, of which there are none.
        match check(unsafe {
            sys::bpf_link_update(self.fd.as_raw_fd(), program.as_raw_fd(), std::ptr::null())
        }) {
            // The interface has gone since: nothing runs there.
            Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => Ok(()),
            result => result.map(|_| ()),
        }
    }

    /// Takes it off its hook; fine when the interface has gone.
    pub(super) fn detach(&self) -> io::Result<()> {
        // SAFETY: the call takes no pointer.
        match check(unsafe { sys::bpf_link_detach(self.fd.as_raw_fd()) }) {
            Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => Ok(()),
            result => result.map(|_| ()),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Closing alone would not do while a process that was just forked has the descriptor as well, for the moment
        // until it becomes another program. It fails when the interface has gone, and then there is nothing to do.
        // SAFETY: the call takes no pointer.
        unsafe { sys::bpf_link_detach(self.0.as_raw_fd()) };
    }
}

/// Puts `program` at the head of the chain at `hook` of the interface.
pub(super) fn attach(program: BorrowedFd<'_>, ifindex: u32, hook: Hook) -> io::Result<Link> {
    let target = i32::try_from(ifindex).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
    let options = sys::bpf_link_create_opts {
        sz: size_of::<sys::bpf_link_create_opts>() as sys::size_t,
        // Head of the chain: at ingress a program before us could drop what the device has counted already,
        // at egress one that ends the chain would hide packets from us.
        flags: sys::BPF_F_BEFORE,
        ..Default::default()
    };
    // SAFETY: `options` lives through the call, says its own size and holds no pointer; the call keeps none.
    let link =
        check(unsafe { sys::bpf_link_create(program.as_raw_fd(), target, attach_type(hook), &options) })?;
    // SAFETY: bpf_link_create returned a new descriptor, which nobody else owns.
    Ok(Link(unsafe { OwnedFd::from_raw_fd(link) }))
}

/// A program in a TCX chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) program_id: u32,
    /// 0 when it was attached without a link.
    pub(super) link_id: u32,
}

/// The programs at a hook, in the order in which they run.
///
/// # Errors
/// `EINVAL` without TCX in the kernel, `EPERM` without CAP_NET_ADMIN, `ENODEV` without that interface.
pub(super) fn query(ifindex: u32, hook: Hook) -> io::Result<Vec<Entry>> {
    let target = i32::try_from(ifindex).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
    let mut program_ids = [0u32; CHAIN_MAX];
    let mut link_ids = [0u32; CHAIN_MAX];
    let mut options = sys::bpf_prog_query_opts {
        sz: size_of::<sys::bpf_prog_query_opts>() as sys::size_t,
        prog_ids: program_ids.as_mut_ptr(),
        link_ids: link_ids.as_mut_ptr(),
        __bindgen_anon_1: sys::bpf_prog_query_opts__bindgen_ty_1 { count: CHAIN_MAX as u32 },
        ..Default::default()
    };
    // SAFETY: both arrays have room for `count` ids and outlive the call; `options` says its own size.
    check(unsafe { sys::bpf_prog_query_opts(target, attach_type(hook), &mut options) })?;
    // SAFETY: both members of the union are a u32, so any bits are a valid `count`.
    let count = unsafe { options.__bindgen_anon_1.count } as usize;
    Ok(std::iter::zip(program_ids, link_ids)
        .take(count)
        .map(|(program_id, link_id)| Entry { program_id, link_id })
        .collect())
}

/// The name that a loaded program has in the kernel; cut to 15 bytes there.
pub(super) fn program_name(program_id: u32) -> io::Result<String> {
    // SAFETY: the call takes no pointer.
    let program = check(unsafe { sys::bpf_prog_get_fd_by_id(program_id) })?;
    // SAFETY: a new descriptor, which nobody else owns.
    let program = unsafe { OwnedFd::from_raw_fd(program) };
    let mut info = sys::bpf_prog_info::default();
    let mut info_bytes = size_of::<sys::bpf_prog_info>() as u32;
    // SAFETY: `info` is zeroed, has `info_bytes` bytes and outlives the call.
    check(unsafe { sys::bpf_prog_get_info_by_fd(program.as_raw_fd(), &mut info, &mut info_bytes) })?;
    let name = info.name.map(|byte| byte as u8);
    let name = CStr::from_bytes_until_nul(&name).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok(name.to_string_lossy().into_owned())
}

/// Takes a link of another process off its hook. That process keeps its descriptor, which then holds nothing.
pub(super) fn detach(link_id: u32) -> io::Result<()> {
    // SAFETY: the call takes no pointer.
    let link = check(unsafe { sys::bpf_link_get_fd_by_id(link_id) })?;
    // SAFETY: a new descriptor, which nobody else owns.
    let link = unsafe { OwnedFd::from_raw_fd(link) };
    // SAFETY: the call takes no pointer.
    check(unsafe { sys::bpf_link_detach(link.as_raw_fd()) }).map(|_| ())
}
