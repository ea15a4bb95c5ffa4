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
