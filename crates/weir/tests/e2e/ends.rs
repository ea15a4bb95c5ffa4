//! However weir ends, nothing of it is left.

use std::os::unix::process::ExitStatusExt;

use weir_testkit::tc::{self, CountingProgram, Hook};
use weir_testkit::traffic;
use weir_testkit::{Namespace, Topology, require_root};

use crate::weir::{LIMIT, Weir, command};

const DEVICES: [&str; 2] = ["veth-web", "veth-db"];

/// What hangs at the containers' devices: TCX programs, filters, clsact qdiscs.
fn attached(host: &Namespace) -> [usize; 3] {
    let mut counts = [0; 3];
    for device in DEVICES {
        for hook in Hook::BOTH {
            counts[0] += tc::tcx_programs(host, device, hook);
            counts[1] += tc::filters(host, device, hook).len();
        }
        counts[2] += usize::from(tc::has_clsact(host, device));
    }
    counts
}

fn signals_leave_nothing(attach: &str) {
    let topology = Topology::with_containers(&["web", "db"]);
    let host = topology.host();
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGQUIT, libc::SIGHUP] {
        let weir = Weir::observe(host, &["--attach", attach]);
        assert_ne!(attached(host), [0, 0, 0], "weir is attached");
        traffic::ping(topology.container("web").namespace(), Topology::HOST_IPV4, 1, 56);
        let run = weir.finish_by(signal);
        assert_eq!(attached(host), [0, 0, 0], "after signal {signal}");
        run.flow(|flow| flow["protocol"] == "icmp");
    }
}

#[test]
fn root_signals_leave_nothing() {
    require_root!();
    signals_leave_nothing("auto");
}

#[test]
fn root_signals_leave_nothing_with_clsact() {
    require_root!();
    signals_leave_nothing("clsact");
}

#[track_caller]
fn kill(mut weir: Weir) {
    let status = weir.daemon.stop(libc::SIGKILL, LIMIT);
    assert_eq!(status.signal(), Some(libc::SIGKILL));
}

#[test]
fn root_sigkill_leaves_nothing() {
    require_root!();
    let topology = Topology::with_containers(&["web", "db"]);
    let host = topology.host();
    if !CountingProgram::load().attach_tcx(host, "veth-web", Hook::Ingress) {
        return; // without TCX it is as with clsact, below
    }
    let weir = Weir::observe(host, &[]);
    assert_eq!(attached(host), [4, 0, 0]);
    kill(weir);
    // The kernel takes the links apart when the last descriptor is closed.
    weir_testkit::wait_until(LIMIT, "the links are gone", || attached(host) == [0, 0, 0]);
}

/// Two devices with what a killed weir left on them, and a filter of somebody else's.
fn leave_filters(topology: &Topology) -> CountingProgram {
    let host = topology.host();
    kill(Weir::observe(host, &["--attach", "clsact"]));
    assert_eq!(attached(host), [0, 4, 2]);
    let other = CountingProgram::load();
    other.attach_filter(host, "veth-web", Hook::Egress, 9);
    other
}

#[track_caller]
fn assert_only_the_other_is_left(topology: &Topology, other: &CountingProgram) {
    let host = topology.host();
    assert_eq!(attached(host), [0, 1, 1]);
    assert_eq!(tc::filters(host, "veth-web", Hook::Egress).len(), 1);
    let before = other.packets();
    traffic::ping(topology.container("web").namespace(), Topology::HOST_IPV4, 1, 56);
    assert!(other.packets() > before);
}

#[test]
fn root_the_next_start_removes_what_sigkill_left() {
    require_root!();
    let topology = Topology::with_containers(&["web", "db"]);
    let other = leave_filters(&topology);
    let weir = Weir::observe(topology.host(), &["--attach", "clsact"]);
    assert_eq!(attached(topology.host()), [0, 5, 2], "its own four, and somebody else's");
    weir.finish();
    assert_only_the_other_is_left(&topology, &other);
}

#[test]
fn root_down_removes_what_sigkill_left() {
    require_root!();
    let topology = Topology::with_containers(&["web", "db"]);
    let other = leave_filters(&topology);
    let output = command(topology.host(), &["down"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_only_the_other_is_left(&topology, &other);

    // Nothing to do is no failure.
    assert!(command(topology.host(), &["down"]).status().unwrap().success());
}

/// What a living weir uses is not left over.
#[test]
fn root_the_next_start_leaves_a_living_weir_alone() {
    require_root!();
    let topology = Topology::with_containers(&["web", "db"]);
    let first = Weir::observe(topology.host(), &["--attach", "clsact"]);
    Weir::observe(topology.host(), &["--attach", "clsact"]).finish();
    assert_eq!(attached(topology.host()), [0, 4, 2]);
    traffic::ping(topology.container("web").namespace(), Topology::HOST_IPV4, 1, 56);
    first.finish().flow(|flow| flow["protocol"] == "icmp");
    assert_eq!(attached(topology.host()), [0, 0, 0]);
}
