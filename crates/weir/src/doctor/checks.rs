//! The things that are looked at.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use weir_kernel::attach::{self, AttachError, AttachedProgram, CLSACT_PRIORITY, Method, Owner};
use weir_kernel::{Datapath, LoadError, Options, PinDirectory, PinError};

use super::capabilities::{BPF, Capabilities, Capability, NET_ADMIN, PERFMON, SYS_ADMIN, SYS_PTRACE};
use super::{Check, Status};
use crate::containers::{EngineChoice, EngineStatus, engine_status};
use crate::error::MINIMUM_KERNEL;
use crate::kernel_release;

const TYPE_INFORMATION: &str = "/sys/kernel/btf/vmlinux";

/// From here on the kernel counts BPF's memory with the process's control group, and the limit on locked memory is
/// none for it.
const MEMORY_BY_CONTROL_GROUP: (u32, u32) = (5, 11);

const RUN_AS_ROOT: &str = "run it as root (sudo weir ...), or give weir these capabilities";

/// What can be said without trying anything.
pub(super) fn host(pins: &PinDirectory) -> Vec<Check> {
    let release = kernel_release::release();
    let version = kernel_release::version(&release);
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    vec![
        kernel(&release, version),
        type_information(Path::new(TYPE_INFORMATION).exists()),
        memory_limit(version, &limits),
        bpffs(pins),
    ]
}

fn kernel(release: &str, version: Option<(u32, u32)>) -> Check {
    let found = format!("Linux {release}");
    match (version, kernel_release::version(MINIMUM_KERNEL)) {
        (Some(version), Some(minimum)) if version < minimum => {
            Check::not_ok("kernel", Status::Missing, found)
                .cost("weir's programs do not load")
                .advice(format!("boot Linux {MINIMUM_KERNEL} or newer; every feature is there from 5.15 on"))
        }
        _ => Check::ok("kernel", found),
    }
}

fn type_information(exists: bool) -> Check {
    let found = if exists { TYPE_INFORMATION } else { "none; weir observe does without" };
    Check::ok("type information", found)
}

fn memory_limit(version: Option<(u32, u32)>, limits: &str) -> Check {
    const NAME: &str = "locked memory";
    if version.is_some_and(|version| version >= MEMORY_BY_CONTROL_GROUP) {
        return Check::ok(NAME, "this kernel does not count BPF's memory as locked");
    }
    let soft = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max locked memory"))
        .and_then(|values| values.split_whitespace().next());
    match soft {
        Some("unlimited") => Check::ok(NAME, "not limited"),
        // libbpf raises it where that is permitted; whether it was enough is seen when the programs are loaded.
        Some(bytes) => Check::ok(NAME, format!("limited to {bytes} bytes; weir raises it where it may")),
        None => Check::ok(NAME, "the limit is not known"),
    }
}

fn bpffs(pins: &PinDirectory) -> Check {
    const NAME: &str = "bpffs";
    let place = pins.bpffs().display();
    match pins.check() {
        Ok(()) => Check::ok(NAME, format!("mounted at {place}")),
        Err(error @ PinError::ReadOnly { .. }) => Check::not_ok(NAME, Status::Reduced, error.to_string())
            .cost("no redirects, no weir run: nothing can be pinned")
            .advice(format!("mount it for writing: mount -o remount,rw {place}")),
        Err(_) => Check::ok(
            NAME,
            format!("not mounted; weir observe does without, redirects need it: mount -t bpf bpf {place}"),
        ),
    }
}

/// What outlives its weir.
pub(super) fn state(pins: &PinDirectory) -> Check {
    let place = pins.path().display().to_string();
    Check::ok(
        "state",
        match (pins.exists(), pins.is_owned()) {
            (false, _) => "none: no redirect is in force".to_owned(),
            (true, true) => format!("pinned in {place}; a weir is running that keeps it"),
            (true, false) if pins.is_of_another_version() => {
                format!("pinned in {place} by another version of weir; the next `weir run` carries it over")
            }
            (true, false) => {
                format!("pinned in {place}; no weir is running: rules hold, and do not follow containers")
            }
        },
    )
}

/// What is tried out: loading and attaching. Also tells how weir would attach, if it could.
pub(super) fn kernel_side() -> (Vec<Check>, Option<Method>) {
    let capabilities = Capabilities::of_this_process();
    let max_flows = crate::observe::default_max_flows();
    let loaded = Datapath::load(&Options { max_flows, packet_events: false, ..Options::default() });
    let mut checks = vec![permissions(capabilities, loaded.is_ok())];
    let datapath = match loaded {
        Ok(datapath) => datapath,
        Err(error) => {
            checks.push(not_loaded(error));
            return (checks, None);
        }
    };
    checks.push(Check::ok("programs", "load"));
    let (attaching, method) = attaching(&datapath);
    checks.push(attaching);
    (checks, method)
}

fn permissions(capabilities: Capabilities, loaded: bool) -> Check {
    const NAME: &str = "permissions";
    let lacks = |wanted: &[Capability]| -> Vec<&str> {
        wanted.iter().filter(|&&one| !capabilities.has(one)).map(|one| one.name()).collect()
    };
    let needed = lacks(&[BPF, NET_ADMIN, PERFMON]);
    if !needed.is_empty() {
        let status = if loaded { Status::Reduced } else { Status::NotPermitted };
        return Check::not_ok(NAME, status, format!("without {}", needed.join(", ")))
            .cost("weir's programs cannot be loaded or attached")
            .advice(RUN_AS_ROOT);
    }
    let useful = lacks(&[SYS_ADMIN, SYS_PTRACE]);
    if !useful.is_empty() {
        return Check::not_ok(NAME, Status::Reduced, format!("without {}", useful.join(", ")))
            .cost(
                "containers that no container engine names may stay without a name, and weir doctor cannot \
                 tell who else is attached",
            )
            .advice(RUN_AS_ROOT);
    }
    Check::ok(NAME, "all that weir uses")
}

fn not_loaded(error: LoadError) -> Check {
    let (status, advice) = match &error {
        LoadError::NotPermitted(_) => (Status::NotPermitted, RUN_AS_ROOT),
        LoadError::NoMemory(_) => (
            Status::Failed,
            "raise the limit on memory, or on locked memory (ulimit -l), or try weir observe --max-flows 16384",
        ),
        LoadError::Refused { .. } => {
            (Status::Missing, "if nothing above explains it, this is a bug: please report it with this page")
        }
    };
    Check::not_ok("programs", status, error.to_string()).cost("weir observe does not start").advice(advice)
}

fn attaching(datapath: &Datapath) -> (Check, Option<Method>) {
    let tried = attach::probe().and_then(|method| {
        match attach::rehearse(method, |name| datapath.program(name)) {
            // Making a namespace to try in takes more than attaching does.
            Err(AttachError::NotPermitted { .. }) => Ok((method, " (not tried out)")),
            result => result.map(|()| (method, "")),
        }
    });
    let (method, note) = match tried {
        Ok(tried) => tried,
        Err(error) => return (not_attached(&error), None),
    };
    let found = format!("{method}{note}");
    let check = match method {
        Method::Tcx => Check::ok("attaching", found),
        Method::Clsact => Check::not_ok("attaching", Status::Reduced, found)
            .cost(format!(
                "this kernel has no TCX: weir's programs are filters of priority {CLSACT_PRIORITY} then, which \
                 outlive a weir that is killed (kill -9) until the next one starts"
            ))
            .advice("after a kill -9, `weir down` removes them at once; Linux 6.6 and newer have TCX"),
    };
    (check, Some(method))
}

fn not_attached(error: &AttachError) -> Check {
    let (status, advice) = match error {
        AttachError::NotPermitted { .. } => (Status::NotPermitted, RUN_AS_ROOT),
        AttachError::MissingInKernel { .. } | AttachError::NoTcx => {
            (Status::Missing, "load the modules sch_ingress and cls_bpf, or boot a kernel that has them")
        }
        _ => (Status::Failed, "this is unexpected: please report it with this page"),
    };
    Check::not_ok("attaching", status, error.to_string()).cost("weir observe sees no packet").advice(advice)
}

/// The container engine.
pub(super) fn engine(choice: &EngineChoice) -> Check {
    const NAME: &str = "container engine";
    match engine_status(choice) {
        EngineStatus::Connected { socket, product, version, api_version, running } => Check::ok(
            NAME,
            format!("{product} {version} at {socket} (API {api_version}), containers running: {running}"),
        ),
        EngineStatus::Off => Check::ok(NAME, "not asked (--engine none)"),
        EngineStatus::Failed { reason, cost, remedy } => {
            Check::not_ok(NAME, Status::Reduced, reason).cost(cost).advice(remedy)
        }
    }
}

/// Who else is attached, where that concerns weir.
pub(super) fn neighbours(attached: &[AttachedProgram], method: Option<Method>) -> Vec<Check> {
    let mut checks = Vec::new();
    let ended: Vec<_> = attached.iter().filter(|program| program.owner == Owner::EndedWeir).collect();
    if !ended.is_empty() {
        checks.push(
            Check::not_ok(
                "left behind",
                Status::Reduced,
                format!("by a weir that was killed: {}", count(&ended)),
            )
            .cost("they take a little time of each packet, for nothing")
            .advice("`weir down` removes them"),
        );
    }
    // With TCX weir runs first, whatever there is.
    let is_earlier = |program: &&AttachedProgram| {
        program.owner == Owner::Other && program.priority.is_some_and(|priority| priority < CLSACT_PRIORITY)
    };
    let earlier: Vec<_> = attached.iter().filter(is_earlier).collect();
    if method == Some(Method::Clsact) && !earlier.is_empty() {
        let found = format!("filters of others that run before weir's: {}", count(&earlier));
        checks.push(
            Check::not_ok("order", Status::Reduced, found)
                .cost("weir does not see the packets on which they decide: dropped, redirected or accepted")
                .advice(format!(
                    "if they can be configured, give them a priority above {CLSACT_PRIORITY}; on Linux 6.6 and \
                     newer weir runs first"
                )),
        );
    }
    checks
}

/// `12 programs at 6 interfaces`.
fn count(programs: &[&AttachedProgram]) -> String {
    let interfaces: BTreeSet<u32> = programs.iter().map(|program| program.ifindex).collect();
    let plural = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    format!("{} at {}", plural(programs.len(), "program"), plural(interfaces.len(), "interface"))
}

/// Why it cannot be told who is attached.
pub(super) fn no_survey(error: &AttachError) -> Check {
    Check::not_ok("neighbours", Status::Reduced, error.to_string())
        .cost("weir doctor cannot tell who else is attached to this host's interfaces")
}

#[cfg(test)]
mod tests {
    use weir_core::event::Hook;

    use super::*;

    #[test]
    fn old_kernels_are_named_as_such() {
        assert_eq!(kernel("4.19.0", Some((4, 19))).status, Status::Missing);
        assert_eq!(kernel("5.10.0-46", Some((5, 10))).status, Status::Ok);
        assert_eq!(kernel("custom", None).status, Status::Ok);
    }

    #[test]
    fn the_limit_on_memory_is_read() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max locked memory         65536                65536                bytes     \n";
        assert!(memory_limit(Some((5, 10)), limits).found.contains("65536 bytes"));
        assert!(memory_limit(Some((5, 11)), limits).found.contains("does not count"));
        assert!(memory_limit(None, "Max locked memory unlimited unlimited").found.contains("not limited"));
    }

    #[test]
    fn what_is_no_bpffs_is_told() {
        assert_eq!(
            bpffs(&PinDirectory::new("/proc")).found,
            "not mounted; weir observe does without, redirects need it: mount -t bpf bpf /proc"
        );
    }

    fn program(owner: Owner, priority: Option<u16>) -> AttachedProgram {
        AttachedProgram {
            ifindex: 3,
            interface: "veth1".to_owned(),
            hook: Hook::Ingress,
            method: if priority.is_some() { Method::Clsact } else { Method::Tcx },
            name: "one".to_owned(),
            program_id: Some(1),
            priority,
            owner,
        }
    }

    #[test]
    fn what_is_left_behind_is_told() {
        let quiet = [program(Owner::Other, Some(50)), program(Owner::Weir, Some(CLSACT_PRIORITY))];
        assert!(neighbours(&quiet, Some(Method::Clsact)).is_empty());
        let ended = program(Owner::EndedWeir, Some(CLSACT_PRIORITY));
        let checks = neighbours(&[ended.clone(), ended], Some(Method::Tcx));
        assert_eq!(checks[0].found, "by a weir that was killed: 2 programs at 1 interface");
    }

    #[test]
    fn those_who_run_first_matter_where_weir_cannot() {
        let earlier = [program(Owner::Other, Some(1)), program(Owner::Other, None)];
        assert!(neighbours(&earlier, Some(Method::Tcx)).is_empty());
        let checks = neighbours(&earlier, Some(Method::Clsact));
        assert_eq!(checks[0].found, "filters of others that run before weir's: 1 program at 1 interface");
    }
}
