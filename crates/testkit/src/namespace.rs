//! A network namespace with a name, gone when the test is.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// Where iproute2 keeps namespaces that have a name.
const DIRECTORY: &str = "/run/netns";

/// A named network namespace of its own, with `lo` up. Dropping it kills the
/// processes in it and removes it with all its devices.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes one called `weir-PID-N-ROLE`: PID of this process, N unique in it.
    #[must_use]
    pub fn new(role: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        static SWEEP: Once = Once::new();
        SWEEP.call_once(remove_leftovers);
        let name = format!("weir-{}-{}-{role}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        ip(&["netns", "add", &name]);
        let namespace = Self { name };
        namespace.ip_batch("link set lo up");
        namespace
    }

    /// As `ip netns` lists it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it; `setns` and `nsenter --net=` take it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new(DIRECTORY).join(&self.name)
    }

    /// Runs `closure` in a thread of its own inside this namespace and returns
    /// what it returns; a panic in it goes on here. Sockets made in it stay in
    /// this namespace wherever they are used later.
    pub fn enter<T: Send>(&self, closure: impl FnOnce() -> T + Send) -> T {
        let path = self.path();
        thread::scope(|scope| {
            // The thread keeps the test's name: `require_root!` and panics show it.
            let name = thread::current().name().unwrap_or("netns").to_owned();
            let run = move || {
                join(&path).unwrap_or_else(|e| panic!("cannot enter {}: {e}", path.display()));
                closure()
            };
            match thread::Builder::new().name(name).spawn_scoped(scope, run).expect("a thread starts").join()
            {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// A command that will run in this namespace. The process that is started
    /// becomes `program` itself, so its id and its exit status are the
    /// program's. Mounts stay as they are (`ip netns exec` would hide bpffs).
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program).stdin(Stdio::null());
        command
    }

    /// Runs `program` in this namespace to its end and returns its standard
    /// output. Panics if it fails.
    #[track_caller]
    pub fn run(&self, program: &str, args: &[&str]) -> String {
        let mut command = self.command(program);
        command.args(args);
        finish(&mut command)
    }

    /// Runs lines of `ip` in this namespace, without the word `ip`.
    #[track_caller]
    pub fn ip_batch(&self, lines: &str) {
        let mut command = Command::new("ip");
        command.args(["-netns", &self.name, "-batch", "-"]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("ip (Debian package iproute2) runs");
        child.stdin.take().expect("stdin is piped").write_all(lines.as_bytes()).expect("ip reads its lines");
        let output = child.wait_with_output().expect("ip ends");
        assert!(
            output.status.success(),
            "ip in {} failed: {}of:\n{lines}",
            self.name,
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Writes `value` to the file below `/proc/sys/net` of this namespace.
    #[track_caller]
    pub fn sysctl(&self, key: &str, value: &str) {
        // /proc/sys/net shows the namespace of whoever opens it.
        self.enter(|| {
            std::fs::write(Path::new("/proc/sys/net").join(key), value)
                .unwrap_or_else(|e| panic!("cannot set net/{key} to {value}: {e}"));
        });
    }

    /// Switches offloads of a device, such as `("eth0", &["tso", "gso"], false)`.
    #[track_caller]
    pub fn set_offloads(&self, device: &str, features: &[&str], on: bool) {
        let state = if on { "on" } else { "off" };
        let mut args = vec!["-K", device];
        for feature in features {
            args.push(feature);
            args.push(state);
        }
        self.run("ethtool", &args);
    }

    /// Ids of the processes in this namespace.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        process_ids(&self.name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

fn remove(name: &str) {
    for id in process_ids(name) {
        if id != std::process::id() {
            // SAFETY: kill has no memory effects. The process is in a namespace
            // that only tests enter.
            unsafe { libc::kill(id.cast_signed(), libc::SIGKILL) };
        }
    }
    // A test may have removed it itself.
    let _ = Command::new("ip").args(["netns", "delete", name]).stderr(Stdio::null()).status();
}

/// Removes what a test process left behind that was killed before it could.
fn remove_leftovers() {
    let Ok(entries) = std::fs::read_dir(DIRECTORY) else { return };
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let id = name.strip_prefix("weir-").and_then(|rest| rest.split('-').next());
        if id
            .and_then(|id| id.parse::<u32>().ok())
            .is_some_and(|id| !Path::new(&format!("/proc/{id}")).exists())
        {
            remove(&name);
        }
    }
}

fn process_ids(name: &str) -> Vec<u32> {
    let output = Command::new("ip").args(["netns", "pids", name]).stderr(Stdio::null()).output();
    let listed = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&listed).split_whitespace().filter_map(|id| id.parse().ok()).collect()
}

/// Moves the calling thread into the namespace at `path`.
fn join(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    // SAFETY: setns takes a descriptor that is open, and changes this thread only.
    if unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[track_caller]
pub(crate) fn ip(args: &[&str]) -> String {
    finish(Command::new("ip").args(args))
}

/// Runs a command to its end; its standard output. Panics if it fails.
#[track_caller]
pub(crate) fn finish(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait_until;
    use std::net::TcpListener;
    use std::time::Duration;

    #[test]
    fn root_namespace_comes_and_goes() {
        crate::require_root!();
        let namespace = Namespace::new("ns");
        let (path, name) = (namespace.path(), namespace.name().to_owned());
        assert!(path.exists());
        let mut child = namespace.command("sleep").arg("60").spawn().unwrap();
        wait_until(Duration::from_secs(5), "the process is in the namespace", || {
            namespace.processes() == [child.id()]
        });
        drop(namespace);
        assert!(!path.exists(), "{name} is still there");
        assert!(!child.wait().unwrap().success(), "the process was not killed");
    }

    #[test]
    fn root_enter_is_elsewhere_and_back() {
        crate::require_root!();
        let inode = || std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        let (before, namespace) = (inode(), Namespace::new("ns"));
        assert_ne!(namespace.enter(inode), before);
        assert_eq!(inode(), before);
        // lo is up, and nothing else is there.
        let listener = namespace.enter(|| TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        assert!(namespace.enter(|| std::net::TcpStream::connect(address)).is_ok());
        assert_eq!(namespace.run("ls", &["/proc/sys/net/ipv4/conf"]), "all\ndefault\nlo\n");
    }

    #[test]
    fn root_leftovers_of_the_dead_go() {
        crate::require_root!();
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let name = format!("weir-{}-0-left", child.id());
        ip(&["netns", "add", &name]);
        remove_leftovers();
        assert!(!Path::new(DIRECTORY).join(&name).exists());
    }

    #[test]
    fn root_panics_pass_through() {
        crate::require_root!();
        let namespace = Namespace::new("ns");
        let panic = std::panic::catch_unwind(|| namespace.enter(|| panic!("from inside"))).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"from inside"));
    }
}
