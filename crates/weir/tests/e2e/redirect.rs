//! `weir redirect` by its command line: rules are added, listed, followed, and end.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use weir_testkit::engine::Engine;
use weir_testkit::traffic::{EchoServer, connect, exchange, tcp_echo, udp_echo};
use weir_testkit::{Bpffs, Daemon, Namespace, Stream, Topology, require_root, wait_until};

use crate::weir::{LIMIT, Weir, command, command_with_state, text};

/// A host, and where its weirs keep their state.
pub(crate) struct Host {
    pub(crate) topology: Topology,
    bpffs: Bpffs,
}

impl Host {
    pub(crate) fn new(names: &[&str]) -> Self {
        Self::of(Topology::with_containers(names))
    }

    pub(crate) fn of(topology: Topology) -> Self {
        Self { topology, bpffs: Bpffs::new() }
    }

    pub(crate) fn address(&self, name: &str, port: u16) -> SocketAddr {
        SocketAddr::new(self.topology.container(name).ipv4().into(), port)
    }

    pub(crate) fn namespace(&self, name: &str) -> &Namespace {
        self.topology.container(name).namespace()
    }

    /// The container's name as weir finds it, which is its network namespace's.
    pub(crate) fn name(&self, name: &str) -> String {
        self.namespace(name).name().to_owned()
    }

    pub(crate) fn weir(&self, args: &[&str]) -> Command {
        let mut command = command(self.topology.host(), args);
        command.env("WEIR_BPFFS", self.bpffs.path()).env("WEIR_SOCKET", self.socket());
        command.env_remove("SSH_CONNECTION");
        command
    }

    pub(crate) fn bpffs(&self) -> &Path {
        self.bpffs.path()
    }

    fn socket(&self) -> PathBuf {
        self.bpffs.path().with_extension("sock")
    }

    /// `weir redirect ARGS --engine none`, to its end.
    fn redirect(&self, args: &[&str]) -> Output {
        self.weir(&[&["redirect"], args, &["--engine", "none"]].concat()).output().unwrap()
    }

    /// The same, and it works; its standard output.
    #[track_caller]
    pub(crate) fn redirects(&self, args: &[&str]) -> String {
        let output = self.redirect(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn rules(&self) -> Vec<Value> {
        let list = self.redirects(&["list", "-o", "json"]);
        serde_json::from_str::<Vec<Value>>(&list).unwrap()
    }

    pub(crate) fn run(&self) -> Daemon {
        let daemon = Daemon::start("weir run", &mut self.weir(&["run", "--engine", "none"]));
        daemon.wait_for_line(Stream::Err, LIMIT, |line| line.contains("answering at"));
        daemon
    }
}

/// Whether a connection is accepted and brings back what it sends.
pub(crate) fn answers(client: &Namespace, address: SocketAddr) -> bool {
    let connected = client.enter(|| TcpStream::connect_timeout(&address, Duration::from_secs(2)));
    connected.is_ok_and(|mut stream| {
        let mut back = [0; 4];
        stream.set_read_timeout(Some(LIMIT)).is_ok()
            && stream.write_all(b"ping").is_ok()
            && stream.read_exact(&mut back).is_ok()
            && &back == b"ping"
    })
}

#[test]
fn root_another_port_is_added_listed_shown_and_removed() {
    require_root!();
    let host = Host::new(&["web", "client"]);
    let (web, client) = (host.topology.container("web"), host.topology.container("client"));
    let _server = EchoServer::tcp_at(web.namespace(), host.address("web", 80));
    let asked = host.address("web", 8080);
    assert!(!answers(client.namespace(), asked), "nobody listens there yet");

    let what = format!("{}:8080", host.name("web"));
    let dry = host.redirects(&["add", "--name", "second", "--dry-run", &what, ":80"]);
    assert!(dry.contains("would be added; nothing was changed"), "{dry}");
    assert!(dry.contains(&format!("{asked} ⇒ {}", host.address("web", 80))), "{dry}");
    assert!(!answers(client.namespace(), asked));
    assert_eq!(host.rules(), [] as [Value; 0]);

    let added = host.redirect(&["add", "--name", "second", &what, ":80"]);
    let notice = String::from_utf8_lossy(&added.stderr).into_owned();
    assert!(added.status.success() && notice.contains("only while `weir run` runs"), "{notice}");
    assert!(answers(client.namespace(), asked), "redirected");
    assert!(answers(client.namespace(), host.address("web", 80)), "and asked directly");
    let mut open = connect(client.namespace(), asked);
    exchange(&mut open, 1000);

    let rules = host.rules();
    assert_eq!(rules.len(), 1);
    let rule = &rules[0];
    assert_eq!((text(&rule["name"]), text(&rule["match"]), text(&rule["target"])), ("second", &*what, ":80"));
    assert_eq!((&rule["hits"], &rule["protocol"]), (&2.into(), &"tcp".into()), "{rule}");
    assert_eq!(rule["live_connections"], 1, "{rule}");
    assert!(rule["bytes"].as_u64().unwrap() > 2000, "{rule}");
    let table = host.redirects(&["list"]);
    assert!(table.starts_with("NAME") && table.contains("second") && table.lines().count() == 2, "{table}");
    let page = host.redirects(&["show", "second"]);
    assert!(page.contains(&format!("{asked} ⇒ ")), "{page}");

    assert_eq!(host.redirects(&["remove", "second"]), "Removed second.\n");
    assert!(!answers(client.namespace(), asked));
    exchange(&mut open, 1000);
    assert_eq!(host.redirects(&["list"]), "There are no rules.\n");
    assert_eq!(host.redirects(&["remove", "--all"]), "There are no rules.\n");
    let down = host.weir(&["down"]).output().unwrap();
    assert!(down.status.success());
    assert!(!host.bpffs.path().join("weir").exists());
}

#[test]
fn root_what_makes_no_sense_is_refused_and_leaves_nothing() {
    require_root!();
    let host = Host::new(&["web", "api"]);
    let (web, api) = (host.name("web"), host.name("api"));
    let pair = |from: &str, to: &str| [format!("{web}{from}"), format!("{api}{to}")];
    for (args, expected, code) in [
        (
            ["nobody:80", ":81"].map(str::to_owned),
            "no container or service is named \"nobody\"; there are: ",
            2,
        ),
        (pair(":0", ":80"), "\"0\" is not a port: accepted are a number from 1 to 65535", 2),
        (pair(":8000-8099", ":80"), "8000-8099 are 100 ports, 80 is 1", 2),
        ([format!("{web}:80"), format!("{web}:80")], "would be redirected to itself", 2),
        ([format!("{web}:80"), "[fd00::99]:80".to_owned()], "stay as they are", 0),
        (["10.1.2.3:80".to_owned(), "[fd00::99]:80".to_owned()], "different versions of IP", 2),
        ([format!("{web}:80"), "192.0.2.7:80".to_owned()], "", 0),
    ] {
        let output =
            host.redirect(&[&["add", "--dry-run"], &args.each_ref().map(String::as_str)[..]].concat());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains(expected), "{args:?}: {stderr}");
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
    }
    assert!(!host.bpffs.path().join("weir").exists(), "nothing was made");

    host.redirects(&["add", "--name", "there", &format!("{web}:80"), &format!("{api}:80")]);
    for (args, expected) in [
        (vec!["add", "--name", "there", "10.1.2.3:80", &api], "there is a rule named \"there\" already"),
        (
            vec!["add", "--name", "back", &format!("{api}:80"), &format!("{web}:80")],
            "a loop: \"back\" redirects",
        ),
        (
            vec!["add", "--name", "two", &format!("{web}:80"), ":81"],
            "the rules \"there\" and \"two\" contradict",
        ),
        (vec!["remove", "there", "nowhere"], "there is no rule named \"nowhere\"; there are: there"),
        (vec!["show", "nowhere"], "there is no rule named \"nowhere\""),
    ] {
        let output = host.redirect(&args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains(expected) && output.status.code() == Some(2), "{args:?}: {stderr}");
        assert_eq!(host.rules().len(), 1, "{args:?}");
    }
    let ssh = format!("192.0.2.9 50000 {} 22", host.address("web", 22).ip());
    let args = ["redirect", "add", &format!("{web}:22"), &format!("{api}:22"), "--engine", "none"];
    let output = host.weir(&args).env("SSH_CONNECTION", &ssh).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("the very way of your SSH connection"));
    assert_eq!(output.status.code(), Some(2));
    // sudo takes the variable out of the environment.
    let script = "env -u SSH_CONNECTION -- \"$@\"; exit $?";
    let mut sudo = host.topology.host().command("sh");
    let weir = host.weir(&args);
    sudo.args(["-c", script, "sh"]).arg(weir.get_program()).args(weir.get_args());
    sudo.envs(weir.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = sudo.env("SSH_CONNECTION", &ssh).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("the very way of your SSH connection"));
    let output = host.weir(&[&args[..], &["--yes"]].concat()).env("SSH_CONNECTION", &ssh).output().unwrap();
    assert!(output.status.success());
}

#[test]
fn root_what_is_said_fits_a_command_that_is_over_soon() {
    require_root!();
    let host = Host::new(&["web"]);
    let args = ["redirect", "add", "nobody:80", ":81", "--engine", "/nowhere/docker.sock"];
    let output = host.weir(&args).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.contains("/nowhere/docker.sock") && !stderr.contains("weir goes on"), "{stderr}");
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    // A reader that has enough is no failure.
    host.redirects(&["add", &format!("{}:8080", host.name("web")), ":80"]);
    let mut list = host.weir(&["redirect", "list", "--engine", "none"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = list.stdout(writer).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn root_a_read_only_file_system_is_named_and_nothing_is_done() {
    require_root!();
    let host = Host::new(&["web"]);
    host.bpffs.make_read_only();
    let output = host.redirect(&["add", &format!("{}:8080", host.name("web")), ":80"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("is mounted read-only"), "{stderr}");
    assert!(host.redirect(&["list"]).status.success());
    host.bpffs.make_writable();

    // What is there can be read, and not be changed.
    host.redirects(&["add", "--name", "second", &format!("{}:8080", host.name("web")), ":80"]);
    host.bpffs.make_read_only();
    assert!(host.redirects(&["list"]).contains("second"));
    assert!(host.redirects(&["show", "second"]).contains("10.99.0.2:80"));
    for args in
        [&["redirect", "remove", "second", "--engine", "none"][..], &["down"], &["run", "--engine", "none"]]
    {
        let output = host.weir(args).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        let advice = format!("mount -o remount,rw {}", host.bpffs.path().display());
        assert!(stderr.contains("is mounted read-only") && stderr.contains(&advice), "{args:?}: {stderr}");
        assert_eq!(output.status.code(), Some(1), "{args:?}");
    }
    let doctor = host.weir(&["doctor", "--engine", "none"]).output().unwrap();
    assert!(String::from_utf8_lossy(&doctor.stdout).contains("is mounted read-only"), "{doctor:?}");
    host.bpffs.make_writable();
    assert_eq!(host.rules().len(), 1);
}

#[test]
fn root_rules_for_some_clients_for_some_time_and_for_udp() {
    require_root!();
    let host = Host::new(&["web", "one", "other"]);
    let web = host.topology.container("web");
    let _server = EchoServer::tcp_at(web.namespace(), host.address("web", 80));
    let _datagrams = EchoServer::udp(web.namespace(), web.ipv4());
    let (one, other) = (host.topology.container("one"), host.topology.container("other"));
    let what = format!("{}:8080", host.name("web"));
    host.redirects(&["add", &what, ":80", "--from", &host.name("one")]);
    assert!(answers(one.namespace(), host.address("web", 8080)));
    assert!(!answers(other.namespace(), host.address("web", 8080)), "not for this client");

    let port = format!(":{}", _datagrams.address().port());
    host.redirects(&["add", "--protocol", "udp", &what, &port]);
    udp_echo(other.namespace(), host.address("web", 8080), 3, 100);

    host.redirects(&["add", "--name", "short", "--for", "10s", &format!("{}:7000", host.name("web")), ":80"]);
    assert!(answers(one.namespace(), host.address("web", 7000)));
    let list = host.redirects(&["list"]);
    assert!(list.lines().any(|line| line.starts_with("short") && line.trim_end().ends_with(" s")), "{list}");
    wait_until(LIMIT, "the rule ends by itself", || !answers(one.namespace(), host.address("web", 7000)));
    assert!(host.rules().iter().all(|rule| rule["name"] != "short"));
}

#[test]
fn root_several_targets_share_connections_by_weight() {
    require_root!();
    let host = Host::new(&["v1", "v2", "client"]);
    let names = [host.name("v1"), host.name("v2")];
    let servers = ["v1", "v2"].map(|name| EchoServer::tcp_at(host.namespace(name), host.address(name, 80)));
    assert_eq!(servers.len(), 2);
    let target = format!("{}=9,{}=1", names[0], names[1]);
    host.redirects(&["add", "--name", "canary", "10.55.0.1:80", &target]);
    // Beyond the client's network: it goes to its gateway.
    let asked = SocketAddr::new(IpAddr::from([10, 55, 0, 1]), 80);
    tcp_echo(host.namespace("client"), asked, 200, 10);
    let rule = host.rules().remove(0);
    assert_eq!(rule["hits"], 200);
    assert_eq!(rule["addresses"][0]["virtual"], true);
    let slots: Vec<u64> = rule["addresses"][0]["targets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|target| target["slots"].as_u64().unwrap())
        .collect();
    assert_eq!(slots, [226, 25]);
}

#[test]
fn root_a_forged_source_is_what_the_server_sees() {
    require_root!();
    let host = Host::new(&["web", "client"]);
    let (web, client) = (host.topology.container("web"), host.topology.container("client"));
    let at = host.address("web", 80);
    let listener = web.namespace().enter(|| TcpListener::bind(at)).unwrap();
    let forged = IpAddr::from([10, 99, 0, 66]);
    host.redirects(&["add", &format!("{}:8080", host.name("web")), ":80", "--source", &forged.to_string()]);
    let mut asking = connect(client.namespace(), host.address("web", 8080));
    let (mut accepted, peer) = listener.accept().unwrap();
    assert_eq!(peer.ip(), forged);
    let mut received = [0; 5];
    asking.write_all(b"hello").unwrap();
    accepted.read_exact(&mut received).unwrap();
    accepted.write_all(b"world").unwrap();
    asking.read_exact(&mut received).unwrap();
    assert_eq!(&received, b"world", "and the answers find their way back");
}

#[test]
fn root_in_the_foreground_a_rule_ends_with_its_command() {
    require_root!();
    let host = Host::new(&["web", "client"]);
    let web = host.topology.container("web");
    let _server = EchoServer::tcp_at(web.namespace(), host.address("web", 80));
    let client = host.topology.container("client");
    let what = format!("{}:8080", host.name("web"));
    let args = ["redirect", "add", "--foreground", &what, ":80", "--engine", "none"];
    let mut foreground = Daemon::start("weir redirect", &mut host.weir(&args));
    foreground.wait_for_line(Stream::Err, LIMIT, |line| line.contains("until this command ends"));
    assert!(answers(client.namespace(), host.address("web", 8080)));
    assert!(!host.bpffs().join("weir").exists(), "nothing is pinned");
    foreground.stop(libc::SIGINT, LIMIT);
    assert!(!answers(client.namespace(), host.address("web", 8080)));
    // It must not contradict what is pinned.
    let pinned = host.redirect(&["add", "--for", "1h", "--name", "pinned", &what, ":81"]);
    let notice = String::from_utf8_lossy(&pinned.stderr).into_owned();
    assert!(notice.contains("holds until its time is over, or until `weir redirect remove`"), "{notice}");
    let refused = host.weir(&args).output().unwrap();
    let stderr = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(stderr.contains("\"pinned\" and \"redirect-2\" contradict each other"), "{stderr}");
    assert_eq!(refused.status.code(), Some(2));
    host.redirects(&["remove", "pinned"]);
    // And its command with the rule.
    let output = host.weir(&[&args[..], &["--for", "1s"]].concat()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("until its time is over"), "{output:?}");
}

#[test]
fn root_weir_run_follows_a_container_to_its_new_address() {
    require_root!();
    let host = Host::new(&["web", "client"]);
    let mut run = host.run();
    let what = format!("{}:8080", host.name("web"));
    let before = host.address("web", 8080);
    let added = host.redirect(&["add", "--name", "second", &what, ":80"]);
    assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    assert_eq!(String::from_utf8_lossy(&added.stderr), "", "weir run follows: nothing to warn of");
    {
        let _server = EchoServer::tcp_at(host.namespace("web"), host.address("web", 80));
        assert!(answers(host.namespace("client"), before));
    }
    // It is told of the SSH connection of whoever asks.
    let ssh = format!("192.0.2.9 50000 {} 22", before.ip());
    let args = ["redirect", "add", &format!("{}:22", host.name("web")), ":2222"];
    let refused = host.weir(&args).env("SSH_CONNECTION", &ssh).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("the very way of your SSH connection"));
    assert_eq!(refused.status.code(), Some(2));

    // What a restart may bring: another interface with another address.
    let moved = SocketAddr::new(IpAddr::from([10, 99, 0, 200]), 80);
    host.topology.host().ip_batch(&format!(
        "link delete veth-web\n\
         link add veth-web type veth peer name eth0 netns {}\n\
         link set veth-web master br0\n",
        host.name("web")
    ));
    host.namespace("web").ip_batch("link set eth0 up\naddress add 10.99.0.200/24 dev eth0\n");
    host.topology.host().ip_batch("link set veth-web up\n");
    let _server = EchoServer::tcp_at(host.namespace("web"), moved);
    let asked = SocketAddr::new(moved.ip(), 8080);
    wait_until(LIMIT, "the rule has followed", || answers(host.namespace("client"), asked));
    let rules = host.rules();
    assert_eq!(rules[0]["addresses"][0]["address"], "10.99.0.200", "{rules:?}");
    assert_eq!(rules[0]["addresses"].as_array().map(Vec::len), Some(1), "{rules:?}");

    // Both sides in one row, by the weir that runs.
    let observe = ["observe", "-o", "jsonl", "--verdict", "redirected", "--for", "20s", "--count", "1"];
    let mut observer = Weir::start(&mut host.weir(&observe));
    assert!(answers(host.namespace("client"), asked));
    let row = observer.wait_for_record(|record| record["verdict"] == "redirected");
    assert_eq!((text(&row["rule"]), &row["server"]["port"]), ("second", &8080.into()), "{row}");
    assert_eq!(row["translated"]["server"]["port"], 80, "{row}");
    observer.daemon.wait(LIMIT);
    run.stop(libc::SIGTERM, LIMIT);
    assert!(answers(host.namespace("client"), asked), "rules hold without weir run");
}

/// The wish of the tutorial's readers: another port of a container that runs.
#[test]
fn root_docker_another_port_and_a_restart() {
    require_root!();
    let engine = Engine::start();
    let bpffs = Bpffs::new();
    engine.docker(&["network", "create", "--subnet", "10.97.1.0/24", "redirects"]);
    engine.run("web", &["--network", "redirects"], &["httpd", "-f", "-p", "80"]);
    engine.run("visitor", &["--network", "redirects"], &["sleep", "1000"]);
    let socket = engine.socket().display().to_string();
    let weir = |args: &[&str]| command_with_state(engine.host(), &bpffs, args);
    let mut run = Daemon::start("weir run", &mut weir(&["run", "--engine", &socket]));
    run.wait_for_line(Stream::Err, LIMIT, |line| line.contains("answering at"));
    let added = weir(&["redirect", "add", "web:8080", ":80"]).output().unwrap();
    assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    let fetch = || {
        let url = format!("http://{}:8080/bin/busybox", engine.address("web", "redirects"));
        let args =
            ["exec", "visitor", "busybox", "timeout", "5", "busybox", "wget", "-q", "-O", "/dev/null", &url];
        engine.command(&args).status().unwrap().success()
    };
    assert!(fetch(), "redirected");
    engine.docker(&["restart", "-t", "0", "web"]);
    wait_until(LIMIT, "right again after the restart", fetch);
    // Another address: something else took the old one while it was away.
    engine.docker(&["stop", "-t", "0", "web"]);
    let down = weir(&["redirect", "list"]).output().unwrap();
    assert!(String::from_utf8_lossy(&down.stdout).contains("redirect-1"));
    engine.run("squatter", &["--network", "redirects"], &["sleep", "1000"]);
    engine.docker(&["start", "web"]);
    wait_until(LIMIT, "right again at another address", fetch);
    let down = weir(&["redirect", "add", "web:81", "squatter:80", "--dry-run"]).output().unwrap();
    assert!(down.status.success());
    engine.docker(&["stop", "-t", "0", "squatter"]);
    let down = weir(&["redirect", "add", "web:81", "squatter:80", "--dry-run"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&down.stderr);
    assert!(down.status.success() && stderr.contains("squatter is not running"), "{stderr}");
    run.stop(libc::SIGTERM, LIMIT);
}
