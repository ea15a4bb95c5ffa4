//! What the verifier has to do for the programs, held against `testdata/budget.toml`.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use libbpf_rs::libbpf_sys;
use weir_kernel::{AuditOptions, Datapath, Options, PinDirectory, ProgramName};
use weir_testkit::{Bpffs, require_root};

const BUDGET: &str = include_str!("../../../testdata/budget.toml");

/// The number of `program` in a section of the budget.
fn budget(section: &str, program: &str) -> u32 {
    let line = BUDGET
        .lines()
        .skip_while(|line| *line != format!("[{section}]"))
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .find_map(|line| line.strip_prefix(program)?.trim_start().strip_prefix('='))
        .unwrap_or_else(|| panic!("no {program} in [{section}]"));
    line.trim().replace('_', "").parse().unwrap()
}

fn info(program: BorrowedFd<'_>) -> libbpf_sys::bpf_prog_info {
    let mut info = libbpf_sys::bpf_prog_info::default();
    let mut length = size_of_val(&info) as u32;
    // SAFETY: `info` is plain numbers, as long as is said, and outlives the call.
    let status = unsafe {
        libbpf_sys::bpf_obj_get_info_by_fd(program.as_raw_fd(), (&raw mut info).cast(), &raw mut length)
    };
    assert_eq!(status, 0);
    info
}

const AUDIT: AuditOptions = AuditOptions { ring_bytes: 1 << 20, turn_bytes_max: Some(1 << 20) };
const OBSERVING: Options = Options {
    max_flows: 64,
    packet_events: false,
    audit: None,
    redirects: false,
    accelerate: false,
    without_ethernet: true,
};

#[test]
fn root_programs_stay_within_their_budget() {
    require_root!();
    measure(&OBSERVING, "");
    measure(&Options { audit: Some(AUDIT), ..OBSERVING }, ".audit");
    measure(&Options { redirects: true, ..OBSERVING }, ".redirect");
    measure(&Options { redirects: true, audit: Some(AUDIT), ..OBSERVING }, ".redirect_audit");
}

/// Programs that outlive their weir care for the table: within the same limits.
#[test]
fn root_pinned_programs_stay_within_their_budget() {
    require_root!();
    let pinned = |options: &Options, suffix| {
        let bpffs = Bpffs::new();
        measure_loaded(&Datapath::pinned(options, &PinDirectory::new(bpffs.path())).unwrap(), suffix);
    };
    pinned(&Options { redirects: true, ..OBSERVING }, ".redirect");
    pinned(&Options { redirects: true, audit: Some(AUDIT), ..OBSERVING }, ".redirect_audit");
}

/// Against the sections whose names end so.
fn measure(options: &Options, suffix: &str) {
    measure_loaded(&Datapath::load(options).unwrap(), suffix);
}

fn measure_loaded(datapath: &Datapath, suffix: &str) {
    for name in ProgramName::ALL {
        let info = info(datapath.program(name).unwrap());
        let name = name.to_string();
        // One instruction is 8 bytes. What the verifier walked is told from Linux 5.16 on.
        let measured =
            [("verified_instructions", info.verified_insns), ("instructions", info.xlated_prog_len / 8)];
        for (section, value) in measured {
            let section = format!("{section}{suffix}");
            let allowed = budget(&section, &name);
            println!("{name}: {value} {section} of {allowed}");
            assert!(value <= allowed, "{name}: {value} {section}, testdata/budget.toml allows {allowed}");
        }
    }
}

/// What `--packets` and `--accelerate` add is not in the budget, but it must load.
#[test]
fn root_programs_load_with_every_switch_on() {
    require_root!();
    let options =
        Options { packet_events: true, redirects: true, accelerate: true, audit: Some(AUDIT), ..OBSERVING };
    Datapath::load(&options).unwrap();
    let bpffs = Bpffs::new();
    Datapath::pinned(&options, &PinDirectory::new(bpffs.path())).unwrap();
}

/// The verifier gives up when a signal comes.
#[test]
fn root_programs_load_under_signals() {
    require_root!();
    extern "C" fn nothing(_signal: libc::c_int) {}
    let handler: extern "C" fn(libc::c_int) = nothing;
    // SAFETY: the handler does nothing, and no other test here has a use for this signal.
    unsafe { libc::signal(libc::SIGUSR1, handler as libc::sighandler_t) };
    let done = AtomicBool::new(false);
    // SAFETY: takes no arguments.
    let id = unsafe { libc::pthread_self() };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // SAFETY: that thread waits for this one before it ends.
                unsafe { libc::pthread_kill(id, libc::SIGUSR1) };
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let loaded = Datapath::load(&OBSERVING);
        done.store(true, Ordering::Relaxed);
        assert!(loaded.is_ok(), "{:?}", loaded.err());
    });
}
