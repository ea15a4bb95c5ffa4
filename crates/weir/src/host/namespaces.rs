//! Who may be behind the network namespaces of this host, without asking any
//! container engine: the processes in them, and the files that name them.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::cgroup;
use super::netlink::{Namespace, Requests};

/// Where `ip netns` and the engines leave files that stand for namespaces.
const NAMED: [&str; 2] = ["/run/netns", "/run/docker/netns"];
/// Processes of a namespace whose cgroups are read, the oldest first: its
/// container's first process is among them.
const PROCESSES_READ: usize = 16;
/// A cgroup file has a line of some 100 bytes for each of a dozen hierarchies.
const CGROUP_FILE_BYTES: u64 = 16 * 1024;

/// What was found out about a network namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// The container for which it was made.
    pub(super) container_id: Option<String>,
    /// The name of a file that stands for it.
    pub(super) name: Option<String>,
}

/// Looks at all processes and all named namespaces; the result is by the number
/// that a namespace has in this thread's one. Those without a number have no
/// interface's other end in them and are left out.
///
/// Takes some 10 µs for each process: for a thread that may wait.
///
/// # Errors
/// No netlink socket, or `/proc` cannot be read.
pub(super) fn scan() -> io::Result<HashMap<i32, Found>> {
    let mut requests = Requests::open()?;
    let mut found: HashMap<i32, Found> = HashMap::new();
    for processes in processes_by_namespace()?.into_values() {
        if let Some(nsid) =
            processes.iter().find_map(|pid| requests.nsid(Namespace::Pid(*pid)).ok()).flatten()
        {
            found.entry(nsid).or_default().container_id = container_of(&processes);
        }
    }
    for folder in NAMED {
        // Most hosts have not both of them, some neither.
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if let Ok(Some(nsid)) = nsid_of_file(&mut requests, &entry.path()) {
                let name = &mut found.entry(nsid).or_default().name;
                name.get_or_insert_with(|| entry.file_name().to_string_lossy().into_owned());
            }
        }
    }
    Ok(found)
}

/// The number here of the namespace that a file stands for.
///
/// # Errors
/// The file cannot be opened, or is no namespace.
pub(super) fn nsid_of_file(requests: &mut Requests, path: &Path) -> io::Result<Option<i32>> {
    // What lies there may be anything: opening a FIFO must not block.
    let file =
        fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    requests.nsid(Namespace::File(file.as_fd()))
}

/// The container id in a process's cgroup.
pub(super) fn container_of_process(pid: u32) -> Option<String> {
    let mut cgroups = Vec::new();
    let file = fs::File::open(format!("/proc/{pid}/cgroup")).ok()?;
    file.take(CGROUP_FILE_BYTES).read_to_end(&mut cgroups).ok()?;
    cgroup::container_id(&String::from_utf8_lossy(&cgroups)).map(str::to_owned)
}

/// Processes, in ascending order, by the inode of their network namespace;
/// without those of this thread's own.
fn processes_by_namespace() -> io::Result<HashMap<u64, Vec<u32>>> {
    let own = fs::metadata("/proc/thread-self/ns/net").map(|file| file.ino()).ok();
    let mut namespaces: HashMap<u64, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // Gone meanwhile, or (without the right to trace it) not to be seen.
        let Ok(file) = fs::metadata(format!("/proc/{pid}/ns/net")) else { continue };
        if Some(file.ino()) != own {
            namespaces.entry(file.ino()).or_default().push(pid);
        }
    }
    namespaces.values_mut().for_each(|processes| processes.sort_unstable());
    Ok(namespaces)
}

/// Containers may share a namespace: it was made for the one whose process is
/// the oldest.
fn container_of(processes: &[u32]) -> Option<String> {
    let candidates = processes.iter().take(PROCESSES_READ);
    let by_age: BTreeMap<(u64, u32), String> = candidates
        .filter_map(|pid| Some(((started_ticks(*pid)?, *pid), container_of_process(*pid)?)))
        .collect();
    by_age.into_values().next()
}

/// When a process started, in clock ticks since boot.
fn started_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses, which may itself
    // hold spaces and parentheses; the time of start is the 22nd.
    let after_name = stat.iter().rposition(|byte| *byte == b')')?;
    std::str::from_utf8(&stat[after_name + 1..]).ok()?.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_when_this_process_started() {
        let own = started_ticks(std::process::id()).unwrap();
        let first = started_ticks(1).unwrap();
        assert!(own > first, "{own} {first}");
    }

    #[test]
    fn a_scan_needs_no_rights_and_no_containers() {
        scan().unwrap();
    }

    #[test]
    fn a_file_that_is_no_namespace_is_refused() {
        let mut requests = Requests::open().unwrap();
        assert!(nsid_of_file(&mut requests, Path::new("/proc/self/stat")).is_err());
        assert!(nsid_of_file(&mut requests, Path::new("/nonexistent")).is_err());
    }
}
