//! What a process has used, as the kernel accounts for it.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// CPU time of all living threads of a process so far. Threads that ended do
/// not count; those of the processes measured here live as long as they do.
pub(crate) fn cpu_time(pid: u32) -> Result<Duration> {
    let mut total_ns = 0;
    let tasks = format!("/proc/{pid}/task");
    for task in fs::read_dir(&tasks).with_context(|| format!("cannot list {tasks}"))?.flatten() {
        // In nanoseconds, where /proc/PID/stat counts ticks of 10 ms.
        let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else { continue };
        total_ns += text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(total_ns))
}

/// CPU time of all children of this process that have ended and been waited for,
/// and of theirs.
pub(crate) fn cpu_of_ended_children() -> Duration {
    // SAFETY: all zero is a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a rusage of our own. The call cannot fail: the
    // constant is one of its own.
    unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) };
    let duration = |time: libc::timeval| {
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        Duration::from_secs(seconds) + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
    };
    duration(usage.ru_utime) + duration(usage.ru_stime)
}

/// A process and those that it started itself.
pub(crate) fn with_children(pid: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_child = |id: &u32| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        parent(&stat) == Some(pid)
    };
    std::iter::once(pid).chain(ids.filter(is_child)).collect()
}

/// `7 (a name) S 5 …`: 5. A name may hold anything, brackets too.
fn parent(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// Resident memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resident {
    /// Now.
    pub(crate) now_kib: u64,
    /// The most there ever was.
    pub(crate) peak_kib: u64,
    /// Of `now_kib`: not shared with anything.
    pub(crate) anonymous_kib: u64,
}

/// Of a process, from `/proc/PID/status`.
pub(crate) fn resident(pid: u32) -> Result<Resident> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .with_context(|| format!("no {name} in {path}"))
    };
    Ok(Resident { now_kib: field("VmRSS:")?, peak_kib: field("VmHWM:")?, anonymous_kib: field("RssAnon:")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_found() {
        assert_eq!(parent("7 (a) b) S 5 7 7 0"), Some(5));
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let family = with_children(std::process::id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(family.starts_with(&[std::process::id()]) && family.contains(&child.id()), "{family:?}");
    }
}
