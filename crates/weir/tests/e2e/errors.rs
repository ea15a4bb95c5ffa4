//! What cannot work says what failed, why, and what to do; its exit code says
//! which kind it is.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use weir_testkit::{Daemon, Namespace, Stream, Topology, require_root, traffic};

use crate::weir::{LIMIT, Weir, command, text};

const FAILED: i32 = 1;
const USAGE: i32 = 2;
const NOT_PERMITTED: i32 = 3;
const KERNEL_LACKS: i32 = 4;

/// Holds an exit code and words of the message against what a command did. It
/// must not have printed a record.
#[track_caller]
fn assert_error(output: &Output, code: i32, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "no {word:?} in: {said}");
    }
    assert!(!said.contains("panicked") && !said.contains("RUST_BACKTRACE"), "{said}");
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// A folder that is gone when the test is.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("weir-test-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// `weir observe` started through another program.
fn through(host: &Namespace, program: &str, args: &[&str]) -> Command {
    let mut command = host.command(program);
    command.args(args).args([env!("CARGO_BIN_EXE_weir"), "observe", "--engine", "none", "--for", "1s"]);
    command
}

#[test]
fn wrong_values_are_usage_errors() {
    // (arguments, words of the message)
    let cases: [(&[&str], &[&str]); 12] = [
        (&["--ip", "10.0.0.0/33"], &["10.0.0.0/33"]),
        (&["--ip", "300.1.1.1"], &["300.1.1.1"]),
        (&["--port", "70000"], &["70000"]),
        (&["--port", "90-80"], &["90-80"]),
        (&["--protocol", "tpc"], &["tpc"]),
        (&["--state", "open"], &["open", "established"]),
        (&["--for", "3"], &["30s"]),
        (&["--count", "0"], &["0"]),
        (&["--since", "yesterday"], &["yesterday"]),
        (&["--not", "--for", "3s"], &["--not stands before a filter"]),
        (&["-o", "xml"], &["xml", "jsonl"]),
        (&["--attach", "kprobe"], &["kprobe", "clsact"]),
    ];
    for (args, words) in cases {
        // None of them needs root: they are refused before anything is done.
        let output = Command::new(env!("CARGO_BIN_EXE_weir")).arg("observe").args(args).output().unwrap();
        assert_error(&output, USAGE, words);
    }
    let output = Command::new(env!("CARGO_BIN_EXE_weir")).arg("obsreve").output().unwrap();
    assert_error(&output, USAGE, &["obsreve", "observe"]);
}

#[test]
fn root_an_unknown_interface() {
    require_root!();
    let topology = Topology::with_containers(&["web"]);
    let output =
        command(topology.host(), &["observe", "--engine", "none", "--interface", "eht0", "--for", "1s"])
            .output()
            .unwrap();
    assert_ne!(output.status.code(), Some(0));
    assert_error(&output, output.status.code().unwrap(), &["eht0"]);
}

#[test]
fn root_an_unknown_container_or_service() {
    require_root!();
    let topology = Topology::with_containers(&["web"]);
    // --from and --to may mean a name that DNS answers will give.
    for filter in ["--container", "--service"] {
        let args = ["observe", "--engine", "none", "--for", "1s", filter, "no-such-thing"];
        let output = command(topology.host(), &args).output().unwrap();
        assert_error(&output, USAGE, &["no-such-thing"]);
    }
}

/// Its containers could be there: however short the look, that is known before its end.
#[test]
fn root_an_unknown_container_beside_a_silent_engine() {
    require_root!();
    let topology = Topology::with_containers(&["web"]);
    let folder = Folder::new("silent");
    let socket = folder.0.join("engine.sock");
    let _engine = UnixListener::bind(&socket).unwrap();
    let engine = socket.to_str().unwrap();
    let args = ["observe", "--engine", engine, "--for", "100ms", "--container", "no-such-thing"];
    let output = command(topology.host(), &args).output().unwrap();
    assert_error(&output, USAGE, &["no-such-thing"]);
}

#[test]
fn root_not_root() {
    require_root!();
    let topology = Topology::with_containers(&["web"]);
    // Where nobody can read it.
    let folder = Folder::new("nobody");
    let binary = folder.0.join("weir");
    fs::copy(env!("CARGO_BIN_EXE_weir"), &binary).unwrap();
    let as_nobody = |args: &[&str]| {
        let mut command = topology.host().command("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all", "--"]);
        command.arg(&binary).args(args).args(["--engine", "none"]).output().unwrap()
    };
    assert_error(&as_nobody(&["observe", "--for", "1s"]), NOT_PERMITTED, &["root", "sudo"]);
    let redirect = as_nobody(&["redirect", "list"]);
    assert_error(&redirect, NOT_PERMITTED, &["not permitted to open the pinned table of rules", "sudo"]);

    // Root by its number only, as in a container; and with a part of what is needed.
    for capabilities in ["-all", "-all,+bpf,+net_admin"] {
        let bounding = format!("--bounding-set={capabilities}");
        let args = [bounding.as_str(), "--inh-caps=-all", "--"];
        let output = through(topology.host(), "setpriv", &args).output().unwrap();
        assert_error(&output, NOT_PERMITTED, &["CAP_PERFMON"]);
    }
    let args = ["--bounding-set=-all,+bpf,+net_admin,+perfmon", "--inh-caps=-all", "--"];
    let output = through(topology.host(), "setpriv", &args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn root_an_old_kernel() {
    require_root!();
    let topology = Topology::with_containers(&["web"]);
    let output = through(topology.host(), "setarch", &["--uname-2.6"]).output().unwrap();
    assert_error(&output, KERNEL_LACKS, &["this kernel is 2.6"]);
}

/// The kernel's type information (BTF) is not needed to observe.
#[test]
fn root_no_type_information() {
    require_root!();
    assert_works_without("/sys/kernel/btf");
}

/// bpffs is not needed to observe.
#[test]
fn root_no_bpffs() {
    require_root!();
    assert_works_without("/sys/fs/bpf");
}

#[track_caller]
fn assert_works_without(folder: &str) {
    let topology = Topology::with_containers(&["web"]);
    let script = format!("mount -t tmpfs none {folder} && exec \"$@\"");
    let output =
        through(topology.host(), "unshare", &["--mount", "sh", "-c", &script, "sh"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Memory for BPF is counted by cgroup since 5.11; before, by this limit, which
/// weir may raise.
#[test]
fn root_no_locked_memory() {
    require_root!();
    let topology = Topology::with_containers(&["web"]);
    let output = through(topology.host(), "prlimit", &["--memlock=0"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A socket at which nobody listens, one that is not there, and one that nobody may use:
/// weir says so once and goes on.
#[test]
fn root_an_engine_that_does_not_answer() {
    require_root!();
    let topology = Topology::with_containers(&["web"]);
    let folder = Folder::new("engine");
    let refused = folder.0.join("refused.sock");
    drop(UnixListener::bind(&refused).unwrap());
    let absent: &Path = &folder.0.join("absent.sock");
    for socket in [&refused, absent] {
        let path = socket.to_str().unwrap();
        let mut weir =
            Weir::start(&mut command(topology.host(), &["observe", "-o", "jsonl", "--engine", path]));
        traffic::ping(topology.container("web").namespace(), Topology::HOST_IPV4, 1, 56);
        let said = |daemon: &Daemon| daemon.stderr().iter().filter(|line| line.contains(path)).count();
        weir.daemon.wait_for_line(Stream::Err, LIMIT, |line| line.contains(path));
        assert_eq!(said(&weir.daemon), 1, "{:?}", weir.daemon.stderr());
        assert!(weir.daemon.is_running());
        let run = weir.finish();
        let flow = run.flow(|flow| flow["protocol"] == "icmp");
        assert_eq!(text(&flow["client"]["container"]), topology.container("web").namespace().name());
    }
}

/// The text output has somewhere to go before anything is attached.
#[test]
fn root_a_closed_output_from_the_start() {
    require_root!();
    let topology = Topology::with_containers(&["web"]);
    let script = "exec \"$@\" >&-";
    let output = through(topology.host(), "sh", &["-c", script, "sh"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(0 | FAILED)), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}
