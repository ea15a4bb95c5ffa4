//! A BPF file system of a test's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::namespace::finish;

const PREFIX: &str = "weir-bpffs-";

/// A BPF file system, mounted at a folder of its own. Dropping it unmounts it: what is pinned there goes with it.
#[derive(Debug)]
pub struct Bpffs {
    path: PathBuf,
}

impl Default for Bpffs {
    fn default() -> Self {
        Self::new()
    }
}

impl Bpffs {
    /// Mounts one.
    #[must_use]
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        static SWEEP: Once = Once::new();
        SWEEP.call_once(remove_leftovers);
        let name = format!("{PREFIX}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let bpffs = Self { path: std::env::temp_dir().join(name) };
        fs::create_dir(&bpffs.path).expect("a folder to mount at");
        finish(Command::new("mount").args(["-t", "bpf", "bpf"]).arg(&bpffs.path));
        bpffs
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// From now on nothing can be pinned there.
    #[track_caller]
    pub fn make_read_only(&self) {
        finish(Command::new("mount").args(["-o", "remount,ro"]).arg(&self.path));
    }

    /// From now on it can again.
    #[track_caller]
    pub fn make_writable(&self) {
        finish(Command::new("mount").args(["-o", "remount,rw"]).arg(&self.path));
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

fn remove(path: &Path) {
    // Lazily: a process that is about to end may have a folder open.
    let _ = Command::new("umount").arg("-l").arg(path).stderr(Stdio::null()).status();
    let _ = fs::remove_dir(path);
}

/// Unmounts what a test process left behind that was killed before it could.
fn remove_leftovers() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let id = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if id.is_some_and(|id| !Path::new("/proc").join(id).exists()) {
            remove(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_each_is_its_own() {
        crate::require_root!();
        let (first, second) = (Bpffs::new(), Bpffs::new());
        fs::create_dir(first.path().join("a")).unwrap();
        assert!(!second.path().join("a").exists());
        let path = first.path().to_owned();
        drop(first);
        assert!(!path.exists());
        second.make_read_only();
        assert!(fs::create_dir(second.path().join("a")).is_err());
    }
}
