//! A weir that is killed, and who cleans up.

use std::env;
use std::thread;
use std::time::Duration;

use weir_kernel::PinDirectory;
use weir_kernel::attach::{Method, Owner, remove_ours, survey};
use weir_testkit::{Daemon, Stream, require_root};

use crate::methods;
use crate::program::Weir;
use crate::wire::{Wire, index};

const LIMIT: Duration = Duration::from_secs(60);
const METHOD: &str = "WEIR_TEST_METHOD";
const ATTACHED: &str = "attached";

/// Another process that is attached to `v0` until it is killed.
fn attached_process(wire: &Wire, method: Method) -> Daemon {
    let mut command = wire.host.command(env::current_exe().unwrap());
    command.args(["--exact", "killed::child", "--ignored", "--nocapture"]).env(METHOD, method.to_string());
    let process = Daemon::start("child", &mut command);
    process.wait_for_line(Stream::Out, LIMIT, |line| line.contains(ATTACHED));
    process
}

#[test]
#[ignore = "the other process of the tests in this file"]
fn child() {
    let Ok(wanted) = env::var(METHOD) else { return };
    let method = methods().into_iter().find(|method| method.to_string() == wanted).unwrap();
    let weir = Weir::load();
    let _attachment = weir.attacher(method).attach(index("v0"), true).unwrap();
    println!("{ATTACHED}");
    loop {
        thread::park();
    }
}

#[test]
fn root_a_killed_weir_leaves_nothing_with_tcx() {
    require_root!();
    if !methods().contains(&Method::Tcx) {
        return;
    }
    let wire = Wire::new();
    let mut process = attached_process(&wire, Method::Tcx);
    assert_eq!(wire.attached().len(), 2);
    process.stop(libc::SIGKILL, LIMIT);
    assert_eq!(wire.attached(), []);
}

#[test]
fn root_the_next_start_cleans_up_after_a_killed_one() {
    require_root!();
    let wire = Wire::new();
    let mut process = attached_process(&wire, Method::Clsact);
    process.stop(libc::SIGKILL, LIMIT);
    let left = wire.host.enter(|| survey(index("v0"), &PinDirectory::default()).unwrap());
    assert_eq!(left.len(), 2);
    assert!(left.iter().all(|program| program.owner == Owner::EndedWeir), "{left:?}");
    assert!(wire.has_clsact());

    let weir = Weir::load();
    let attacher = wire.host.enter(|| weir.attacher(Method::Clsact));
    assert_eq!(wire.attached(), []);
    assert!(!wire.has_clsact());
    drop(attacher);
}

/// With one that lives beside it, which then has the qdisc to remove.
#[test]
fn root_a_living_weir_keeps_its_own() {
    require_root!();
    let wire = Wire::new();
    let mut dead = attached_process(&wire, Method::Clsact);
    let mut living = attached_process(&wire, Method::Clsact);
    dead.stop(libc::SIGKILL, LIMIT);
    assert_eq!(wire.attached().len(), 4);

    let weir = Weir::load();
    let attachment = wire.host.enter(|| weir.attacher(Method::Clsact).attach(index("v0"), true).unwrap());
    assert_eq!(wire.attached().len(), 4, "the dead one's are gone, ours are there");
    wire.ping();
    assert!(weir.runs().0 > 0 && weir.runs().1 > 0);
    drop(attachment);
    assert_eq!(wire.attached().len(), 2);

    living.stop(libc::SIGKILL, LIMIT);
    let removal = wire.host.enter(|| remove_ours(false, &PinDirectory::default()).unwrap());
    assert_eq!(removal.removed.len(), 2);
    assert_eq!(removal.qdiscs, ["v0"]);
    assert_eq!(wire.attached(), []);
    assert!(!wire.has_clsact());
}

#[test]
fn root_a_weir_killed_after_our_start_is_cleaned_up_where_we_attach() {
    require_root!();
    let wire = Wire::new();
    let weir = Weir::load();
    let attacher = wire.host.enter(|| weir.attacher(Method::Clsact));
    attached_process(&wire, Method::Clsact).stop(libc::SIGKILL, LIMIT);
    let attachment = wire.host.enter(|| attacher.attach(index("v0"), true).unwrap());
    assert_eq!(wire.attached().len(), 2);
    drop(attachment);
    assert_eq!(wire.attached(), []);
    assert!(!wire.has_clsact());
}

#[test]
fn root_removing_spares_the_living_unless_forced() {
    require_root!();
    for method in methods() {
        let wire = Wire::new();
        let mut process = attached_process(&wire, method);
        let removal = wire.host.enter(|| remove_ours(false, &PinDirectory::default()).unwrap());
        assert!(removal.removed.is_empty(), "{method}: {removal:?}");
        assert_eq!(removal.left.len(), 2, "{method}: {removal:?}");
        assert!(removal.left.iter().all(|program| program.owner == Owner::Weir && program.method == method));
        assert_eq!(wire.attached().len(), 2, "{method}");

        let removal = wire.host.enter(|| remove_ours(true, &PinDirectory::default()).unwrap());
        assert_eq!(removal.removed.len(), 2, "{method}: {removal:?}");
        assert_eq!(wire.attached(), [], "{method}");
        assert!(!wire.has_clsact(), "{method}");
        assert!(process.is_running(), "{method}");
    }
}
