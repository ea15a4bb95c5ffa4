//! The kernel side's clock.

use libbpf_rs::libbpf_sys as sys;

/// CLOCK_MONOTONIC now, the clock of every `time_ns` that the programs write.
#[must_use]
pub fn monotonic_now_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place to write to; the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// Whether this kernel lets the programs read the time of the last scheduler
/// tick (from Linux 5.11 on), as they do for each packet of a known flow.
/// Without it they read the precise clock, which takes longer. Tried out by
/// loading a program; says no when the process may not load one.
#[must_use]
pub fn has_coarse_clock() -> bool {
    // SAFETY: takes two numbers, and no options.
    let found = unsafe {
        sys::libbpf_probe_bpf_helper(
            sys::BPF_PROG_TYPE_SCHED_CLS,
            sys::BPF_FUNC_ktime_get_coarse_ns,
            std::ptr::null(),
        )
    };
    found == 1
}
