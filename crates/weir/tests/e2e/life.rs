//! What outlives a weir: `weir run` killed, started again, asked by others; and what is told of it.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use weir_testkit::tc::{self, Hook};
use weir_testkit::traffic::{self, EchoServer};
use weir_testkit::{Bpffs, Daemon, Namespace, Stream, Topology, require_root, wait_until};

use crate::weir::{LIMIT, Run, Weir, has_port, number};

/// A host whose weirs share a place for what outlives them.
pub(crate) struct Host {
    topology: Topology,
    bpffs: Bpffs,
    folder: PathBuf,
}

impl Host {
    pub(crate) fn new(containers: &[&str]) -> Self {
        let bpffs = Bpffs::new();
        let mut folder = bpffs.path().as_os_str().to_owned();
        folder.push("-run");
        Self { topology: Topology::with_containers(containers), bpffs, folder: folder.into() }
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        self.topology.host()
    }

    pub(crate) fn bpffs(&self) -> &std::path::Path {
        self.bpffs.path()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = crate::weir::command(self.namespace(), args);
        command.env("WEIR_BPFFS", self.bpffs.path()).env("WEIR_SOCKET", self.folder.join("weir.sock"));
        command
    }

    pub(crate) fn output(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// `weir run`, which watches.
    pub(crate) fn run(&self) -> Daemon {
        self.run_with(&[])
    }

    pub(crate) fn run_with(&self, args: &[&str]) -> Daemon {
        let args = [&["run", "--engine", "none"], args].concat();
        let daemon = Daemon::start("weir run", &mut self.command(&args));
        daemon.wait_for_line(Stream::Err, LIMIT, |line| line.contains("answering at"));
        daemon.wait_for_line(Stream::Err, LIMIT, |line| line.contains("watching"));
        daemon
    }

    /// `weir observe -o jsonl`, which asks the weir that runs, or runs itself.
    pub(crate) fn observe(&self, args: &[&str]) -> Weir {
        Weir::start(&mut self.command(&[&["observe", "-o", "jsonl"], args].concat()))
    }

    pub(crate) fn address(&self, container: &str) -> std::net::IpAddr {
        self.topology.container(container).ipv4().into()
    }

    pub(crate) fn container(&self, name: &str) -> &Namespace {
        self.topology.container(name).namespace()
    }

    /// Programs at the hooks of web's interface.
    pub(crate) fn programs(&self) -> usize {
        let host = self.namespace();
        let count =
            |hook| tc::tcx_programs(host, "veth-web", hook) + tc::filters(host, "veth-web", hook).len();
        Hook::BOTH.map(count).iter().sum()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[track_caller]
pub(crate) fn kill(mut daemon: Daemon) {
    assert_eq!(daemon.stop(libc::SIGKILL, LIMIT).signal(), Some(libc::SIGKILL));
}

#[track_caller]
pub(crate) fn end(mut daemon: Daemon) {
    let status = daemon.stop(libc::SIGTERM, LIMIT);
    assert!(status.success(), "{status}: {:?}", daemon.stderr());
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What the last records of flows say that is the same whoever counted. (An opening shows what had come until it was
/// read; times differ by what lies between two programs at one hook.)
fn facts(run: &Run) -> Vec<String> {
    const FACTS: [&str; 8] = [
        "event",
        "client",
        "server",
        "protocol",
        "sent_packets",
        "sent_bytes",
        "received_bytes",
        "interfaces",
    ];
    let flows = run.flows(|flow| flow["protocol"] != "icmpv6");
    let mut facts: Vec<String> =
        flows.iter().map(|flow| FACTS.map(|fact| flow[fact].to_string()).join(" ")).collect();
    facts.sort();
    facts
}

#[test]
fn root_asked_it_tells_what_weir_observe_tells_alone() {
    require_root!();
    let host = Host::new(&["web", "db"]);
    let run = host.run();
    let alone = Weir::observe(host.namespace(), &[]);
    let asked = host.observe(&[]);
    let filtered = host.observe(&["--protocol", "udp"]);
    let tcp = EchoServer::tcp(host.container("db"), host.address("db"));
    let udp = EchoServer::udp(host.container("db"), host.address("db"));
    traffic::tcp_echo(host.container("web"), tcp.address(), 5, 20_000);
    traffic::udp_echo(host.container("web"), udp.address(), 7, 300);
    traffic::ping(host.container("web"), host.address("db"), 3, 56);
    for weir in [&alone, &asked] {
        wait_until(LIMIT, "five ends", || {
            let closed = |line: &String| line.contains("\"tcp\"") && line.contains("\"close\"");
            weir.daemon.stdout().iter().filter(|line| closed(line)).count() == 5
        });
    }
    let (alone, asked, filtered) = (alone.finish(), asked.finish(), filtered.finish());
    assert_eq!(facts(&asked), facts(&alone));
    for field in ["flows", "packets", "bytes", "records", "lost", "interfaces"] {
        assert_eq!(asked.summary[field], alone.summary[field], "{field}");
    }
    let udp = |fact: &String| fact.contains("\"udp\"");
    assert_eq!(facts(&filtered), facts(&alone).into_iter().filter(udp).collect::<Vec<_>>());
    end(run);
}

#[test]
fn root_each_observer_has_its_own_beginning_pace_and_end() {
    require_root!();
    let host = Host::new(&["web", "db"]);
    let run = host.run();
    let server = EchoServer::tcp(host.container("db"), host.address("db"));
    let port = server.address().port();
    let mut stream = traffic::connect(host.container("web"), server.address());
    traffic::exchange(&mut stream, 1_000);

    // Opened before it came: told when it moves, not before.
    let eager = host.observe(&["--updates", "100ms", "--protocol", "tcp"]);
    let patient = host.observe(&["--protocol", "tcp"]);
    traffic::exchange(&mut stream, 1_000);
    let update = eager.wait_for_record(|record| record["event"] == "update" && has_port(record, "tcp", port));
    assert!(number(&update["sent_bytes"]) > 2_000, "totals since the flow began: {update}");
    drop(stream);
    patient.wait_for_record(|record| record["event"] == "close" && has_port(record, "tcp", port));
    let patient = patient.finish();
    assert_eq!(patient.records.len(), 1, "{}", patient.lines());

    // What it counted begins where it began.
    let late = host.observe(&["--for", "300ms"]).wait();
    assert_eq!(late.summary["packets"], 0, "{}", late.lines());
    let counted = host.observe(&["--count", "1", "--protocol", "icmp"]);
    traffic::ping(host.container("web"), host.address("db"), 1, 56);
    assert_eq!(counted.wait().records.len(), 1);
    assert!(eager.finish().summary["packets"].as_u64() > Some(0));
    end(run);
}

#[test]
fn root_formats_and_errors_come_through() {
    require_root!();
    let host = Host::new(&["web"]);
    let run = host.run();
    let mut command = host.command(&["observe", "--color", "always", "--count", "1", "--protocol", "icmp"]);
    let people = Weir::start(&mut command);
    traffic::ping(host.container("web"), Topology::HOST_IPV4, 1, 56);
    people.daemon.wait_for_line(Stream::Out, LIMIT, |line| line.contains("\x1b[") && line.contains("ICMP"));

    let unknown = host.output(&["observe", "--container", "nobody"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(stderr(&unknown).contains("no container or service is named \"nobody\""), "{unknown:?}");
    let nonsense = host.output(&["observe", "--port", "0x"]);
    assert_eq!(nonsense.status.code(), Some(2), "{nonsense:?}");

    // A reader that has enough.
    let mut head = host
        .command(&["observe", "-o", "jsonl"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    drop(head.stdout.take());
    wait_until(LIMIT, "it ends quietly", || {
        traffic::ping(host.container("web"), Topology::HOST_IPV4, 1, 56);
        head.try_wait().unwrap().is_some_and(|status| status.success())
    });
    end(run);
}

#[test]
fn root_there_is_one_weir_run() {
    require_root!();
    let host = Host::new(&["web"]);
    let run = host.run();
    let second = host.output(&["run"]);
    assert_eq!(second.status.code(), Some(1));
    assert!(stderr(&second).contains("a weir is running already"), "{second:?}");
    // Not even where it would answer at another place.
    let third = host.command(&["run"]).env("WEIR_SOCKET", host.folder.join("other.sock")).output().unwrap();
    assert!(stderr(&third).contains("another weir that is running owns the state"), "{third:?}");
    end(run);
}

#[test]
fn root_without_weir_run_an_observer_keeps_the_state_and_leaves_it() {
    require_root!();
    let host = Host::new(&["web", "db"]);
    kill(host.run());
    let programs = host.programs();
    assert_ne!(programs, 0);
    let first = host.observe(&["--engine", "none"]);
    // The second one asks the first.
    let second = host.observe(&[]);
    assert_eq!(host.programs(), programs, "neither has programs of its own");
    traffic::ping(host.container("web"), host.address("db"), 2, 56);
    for weir in [&first, &second] {
        weir.wait_for_record(|record| record["protocol"] == "icmp");
    }
    second.finish();
    first.finish();
    assert_eq!(host.programs(), programs);
    // Packets are looked at by programs of one's own.
    let packets = host.observe(&["--packets", "--engine", "none"]);
    assert_eq!(host.programs(), programs + 2);
    packets.finish();
    assert_eq!(host.programs(), programs);
    end(host.run());
}

#[test]
fn root_weir_run_follows_containers() {
    require_root!();
    let mut host = Host::new(&["web"]);
    let run = host.run();
    let links = host.bpffs.path().to_owned();
    let pins = || {
        let versions = fs::read_dir(links.join("weir")).unwrap().flatten().map(|entry| entry.path());
        let namespaces = versions.flat_map(|version| fs::read_dir(version.join("links")).unwrap().flatten());
        namespaces.flat_map(|folder| fs::read_dir(folder.path()).unwrap().flatten()).count()
    };
    let before = pins();
    host.topology.add_container("late");
    run.wait_for_line(Stream::Err, LIMIT, |line| line.contains("watching veth-late too"));
    let observer = host.observe(&["--protocol", "icmp"]);
    traffic::ping(host.container("late"), Topology::HOST_IPV4, 1, 56);
    observer.wait_for_record(|record| record["protocol"] == "icmp");
    host.topology.remove_container("late");
    wait_until(LIMIT, "its links are gone", || pins() == before);
    observer.finish();
    end(run);
}

#[test]
fn root_down_ends_it_all() {
    require_root!();
    let host = Host::new(&["web"]);
    let run = host.run();
    let refused = host.output(&["down"]);
    assert!(refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stdout).contains("end it first"), "{refused:?}");
    assert_ne!(host.programs(), 0);
    let doctor = host.output(&["doctor", "--engine", "none"]);
    assert!(
        String::from_utf8_lossy(&doctor.stdout).contains("a weir is running that keeps it"),
        "{doctor:?}"
    );
    end(run);

    let doctor = host.output(&["doctor", "--engine", "none"]);
    let page = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(page.contains("no weir is running") && page.contains("(weir's, pinned)"), "{page}");
    let down = host.output(&["down"]);
    let said = String::from_utf8_lossy(&down.stdout).into_owned();
    assert!(said.contains("veth-web: removed weir_") && said.contains("Removed all rules"), "{said}");
    assert_eq!(host.programs(), 0);
    assert!(!host.bpffs.path().join("weir").exists());

    // Also under a weir that goes on.
    let run = host.run();
    assert!(host.output(&["down", "--force"]).status.success());
    assert_eq!(host.programs(), 0);
    let asked = format!("{}:8080", host.address("web"));
    let add = host.output(&["redirect", "add", &asked, ":80"]);
    assert!(stderr(&add).contains("was removed") && stderr(&add).contains("start it again"), "{add:?}");
    assert_eq!(add.status.code(), Some(1));
    end(run);
}

#[test]
fn root_where_nothing_can_be_pinned_it_is_said() {
    require_root!();
    let host = Host::new(&["web"]);
    let missing = host.command(&["run"]).env("WEIR_BPFFS", "/nowhere").output().unwrap();
    assert_eq!(missing.status.code(), Some(1));
    let said = stderr(&missing);
    assert!(said.contains("no BPF file system is mounted at /nowhere"), "{said}");
    assert!(said.contains("mount -t bpf bpf /sys/fs/bpf"), "{said}");
    host.bpffs.make_read_only();
    let said = stderr(&host.output(&["run"]));
    assert!(said.contains("is mounted read-only") && said.contains("remount,rw"), "{said}");
    assert_eq!(host.programs(), 0);
}

/// State that is not this weir's to read keeps nobody from looking.
#[test]
fn root_an_observer_does_without_state_that_it_cannot_read() {
    require_root!();
    let host = Host::new(&["web"]);
    fs::create_dir_all(host.bpffs.path().join("weir/v99999")).unwrap();
    let weir = host.observe(&["--engine", "none"]);
    weir.daemon.wait_for_line(Stream::Err, LIMIT, |line| line.contains("version 99999 of the maps"));
    traffic::ping(host.container("web"), Topology::HOST_IPV4, 1, 56);
    weir.finish().flow(|flow| flow["protocol"] == "icmp");
    assert_eq!(host.programs(), 0);
    let run = host.output(&["run"]);
    assert!(stderr(&run).contains("version 99999") && stderr(&run).contains("weir down"), "{run:?}");

    // Beside a weir that runs, for options of its own.
    assert!(host.output(&["down"]).status.success());
    let run = host.run();
    let weir = host.observe(&["--max-flows", "64"]);
    weir.daemon.wait_for_line(Stream::Err, LIMIT, |line| line.contains("counts on its own"));
    assert_eq!(host.programs(), 4);
    weir.finish();
    assert_eq!(host.programs(), 2);
    end(run);
}
