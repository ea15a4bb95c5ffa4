//! `weir doctor` and `weir down`, run as a user runs them.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use weir_kernel::attach::{Method, probe};
use weir_testkit::{Daemon, Namespace, Stream, require_root};

const WEIR: &str = env!("CARGO_BIN_EXE_weir");
const LIMIT: Duration = Duration::from_secs(60);

/// A host with one interface, `v0`.
fn host() -> Namespace {
    let host = Namespace::new("host");
    host.ip_batch("link add v0 type veth peer name p0\nlink set v0 up\n");
    host
}

fn doctor(command: &mut Command) -> (Option<i32>, Value) {
    let output = command.args(["doctor", "--engine", "none", "-o", "json"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let report = serde_json::from_str(&text)
        .unwrap_or_else(|e| panic!("{e}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), report)
}

fn down(host: &Namespace, arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = host.command(WEIR).arg("down").args(arguments).output().unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

fn status<'a>(report: &'a Value, check: &str) -> Option<&'a str> {
    report["checks"].as_array().unwrap().iter().find(|one| one["check"] == check)?["status"].as_str()
}

/// A weir that watches `v0` through clsact.
fn observing(host: &Namespace) -> Daemon {
    let mut command = host.command(WEIR);
    command.args(["observe", "--interface", "v0", "--attach", "clsact", "--engine", "none"]);
    let weir = Daemon::start("weir", &mut command);
    weir.wait_for_line(Stream::Err, LIMIT, |line| line.contains("watching v0"));
    weir
}

#[test]
fn root_doctor_finds_that_it_works() {
    require_root!();
    let host = host();
    let (code, report) = doctor(&mut host.command(WEIR));
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(report["works"], true);
    let attaching = if probe().unwrap() == Method::Tcx { "ok" } else { "reduced" };
    assert_eq!(status(&report, "attaching"), Some(attaching), "{report:#}");
    assert_eq!(report["attached"], Value::Array(Vec::new()));
}

#[test]
fn root_doctor_tells_who_is_not_permitted() {
    require_root!();
    // Root by its number only, as in a container.
    let host = host();
    let mut command = host.command("setpriv");
    command.args(["--bounding-set=-all", "--inh-caps=-all", "--", WEIR]);
    let (code, report) = doctor(&mut command);
    assert_eq!(code, Some(3), "{report:#}");
    assert_eq!(report["works"], false);
    assert_eq!(status(&report, "permissions"), Some("not_permitted"), "{report:#}");
    assert!(report.get("attached").is_none(), "{report:#}");
}

#[test]
fn root_doctor_tells_who_else_is_attached() {
    require_root!();
    let host = host();
    host.run("tc", &["qdisc", "add", "dev", "v0", "clsact"]);
    let filter = "filter add dev v0 egress prio 1 protocol ip bpf flowid 1:1 bytecode";
    let mut arguments: Vec<&str> = filter.split(' ').collect();
    arguments.push("1,6 0 0 0");
    host.run("tc", &arguments);

    let (code, report) = doctor(&mut host.command(WEIR));
    assert_eq!(code, Some(0), "{report:#}");
    let attached = report["attached"].as_array().unwrap();
    assert_eq!(attached.len(), 1, "{report:#}");
    for (field, value) in [("interface", "v0"), ("hook", "egress"), ("method", "clsact"), ("owner", "other")]
    {
        assert_eq!(attached[0][field], value, "{report:#}");
    }
    assert_eq!(attached[0]["priority"], 1);
    // It concerns weir only where weir cannot go first.
    let order = (probe().unwrap() == Method::Clsact).then_some("reduced");
    assert_eq!(status(&report, "order"), order, "{report:#}");
    assert!(down(&host, &["--force"]).contains("nothing of weir's"));
    assert_eq!(doctor(&mut host.command(WEIR)).1["attached"].as_array().unwrap().len(), 1);
}

#[test]
fn root_down_removes_what_a_killed_weir_left() {
    require_root!();
    let host = host();
    let mut weir = observing(&host);
    assert!(down(&host, &[]).contains("left weir_ingress"));
    assert_eq!(doctor(&mut host.command(WEIR)).1["attached"][0]["owner"], "weir");

    weir.stop(libc::SIGKILL, LIMIT);
    let (code, report) = doctor(&mut host.command(WEIR));
    assert_eq!(code, Some(0));
    assert_eq!(status(&report, "left behind"), Some("reduced"), "{report:#}");

    let said = down(&host, &[]);
    assert!(said.contains("v0: removed weir_ingress") && said.contains("clsact qdisc"), "{said}");
    assert!(!host.run("tc", &["qdisc", "show", "dev", "v0"]).contains("clsact"));
    assert_eq!(down(&host, &[]), "There is nothing of weir's on the interfaces here.\n");
}

#[test]
fn root_down_takes_from_the_living_only_by_force() {
    require_root!();
    let host = host();
    let mut weir = observing(&host);
    assert!(down(&host, &["--force"]).contains("v0: removed weir_ingress"));
    assert_eq!(doctor(&mut host.command(WEIR)).1["attached"], Value::Array(Vec::new()));
    // It ends as it would have.
    assert!(weir.is_running());
    assert!(weir.stop(libc::SIGINT, LIMIT).success());
}
