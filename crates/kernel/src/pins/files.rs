//! Files and folders of a BPF file system.

use std::ffi::CString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::PinError;

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

pub(super) fn open(folder: &Path) -> Result<File, PinError> {
    File::open(folder).map_err(|error| PinError::new(format!("open {}", folder.display()), error))
}

/// For root's eyes only.
pub(super) fn make_folder(path: &Path) -> Result<(), PinError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result.map_err(|error| PinError::new(format!("make {}", path.display()), error)),
    }
}

pub(super) fn try_lock(folder: &File) -> bool {
    // SAFETY: the call takes no pointer.
    unsafe { libc::flock(folder.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) == 0 }
}

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

pub(super) fn check_mount(bpffs: &Path) -> Result<(), PinError> {
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
