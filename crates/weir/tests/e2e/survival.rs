//! Connections that are open while weir is killed, ended and started again, in one version or another.

use std::cell::Cell;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use weir_testkit::traffic::{self, EchoServer};
use weir_testkit::{Daemon, OtherVersion, Stream, require_root};

use crate::life::{Host, end, kill};
use crate::weir::{LIMIT, has_port, number};

/// In all; one gigabyte would show no more than that.
const PIECES: usize = 800;

/// A connection over which data go piece by piece, when they are told to.
struct Transfer {
    piece: Vec<u8>,
    go: SyncSender<()>,
    quarters: Cell<u32>,
    sender: JoinHandle<()>,
    receiver: JoinHandle<Vec<u8>>,
}

impl Transfer {
    /// From web to `asked`, where whatever listens at `listener` answers.
    fn begin(host: &Host, listener: &TcpListener, asked: SocketAddr) -> Self {
        // No piece looks like itself moved by some bytes.
        let piece: Vec<u8> = (0..65_536u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let (go, wait) = sync_channel(0);
        let sent = piece.clone();
        let mut stream: TcpStream = traffic::connect(host.container("web"), asked);
        let sender = thread::spawn(move || {
            while wait.recv().is_ok() {
                stream.write_all(&sent).unwrap();
            }
        });
        let (mut stream, _) = listener.accept().unwrap();
        let receiver = thread::spawn(move || {
            let mut received = Vec::new();
            stream.read_to_end(&mut received).unwrap();
            received
        });
        Self { piece, go, quarters: Cell::new(0), sender, receiver }
    }

    /// A quarter of all: returns when most of it is on its way, and some still to be sent.
    fn quarter(&self) {
        self.quarters.set(self.quarters.get() + 1);
        (0..PIECES / 4).for_each(|_| self.go.send(()).unwrap());
    }

    /// Sends what is left: all of it has arrived as it was sent. How many bytes.
    fn finish(self) -> u64 {
        while self.quarters.get() < 4 {
            self.quarter();
        }
        drop(self.go);
        self.sender.join().unwrap();
        let received = self.receiver.join().unwrap();
        assert_eq!(received.len(), PIECES * self.piece.len());
        assert!(received.chunks(self.piece.len()).all(|chunk| chunk == self.piece));
        received.len() as u64
    }
}

fn listen(host: &Host, port: u16) -> TcpListener {
    host.container("db").enter(|| TcpListener::bind((host.address("db"), port))).unwrap()
}

/// A weir that runs with these arguments, and an address: what is asked of it at db goes to port 80 there, by the rule
/// `moved`.
fn redirecting(args: &[&str]) -> (Host, Daemon, SocketAddr) {
    let host = Host::new(&["web", "db"]);
    let run = host.run_with(args);
    let asked = SocketAddr::new(host.address("db"), 8080);
    let add = host.output(&["redirect", "add", "--name", "moved", &asked.to_string(), ":80"]);
    assert!(add.status.success(), "{add:?}");
    (host, run, asked)
}

/// Killed, taken over, ended, taken over: everything arrives, and all of it is counted in one flow.
fn a_connection_survives(attach: &str) {
    let host = Host::new(&["web", "db"]);
    let run = host.run_with(&["--attach", attach]);
    let listener = listen(&host, 0);
    let address = listener.local_addr().unwrap();
    let transfer = Transfer::begin(&host, &listener, address);
    transfer.quarter();
    kill(run);
    assert_ne!(host.programs(), 0);
    transfer.quarter();
    let run = host.run_with(&["--attach", attach]);
    transfer.quarter();
    end(run);
    let run = host.run_with(&["--attach", attach]);
    assert_eq!(host.programs(), 2, "replaced, not added");
    let observer = host.observe(&["--protocol", "tcp"]);
    let bytes = transfer.finish();

    let close = observer
        .wait_for_record(|record| record["event"] == "close" && has_port(record, "tcp", address.port()));
    assert!(number(&close["sent_bytes"]) >= bytes, "{close}");
    assert_eq!(close["midstream"], false, "{close}");
    observer.finish();
    end(run);
}

#[test]
fn root_a_connection_survives_weirs() {
    require_root!();
    a_connection_survives("auto");
}

#[test]
fn root_a_connection_survives_weirs_with_clsact() {
    require_root!();
    a_connection_survives("clsact");
}

/// The same with a connection that nobody but the pinned programs can lead to its server.
#[test]
fn root_a_redirected_connection_survives_weirs() {
    require_root!();
    let (host, run, asked) = redirecting(&[]);
    let listener = listen(&host, 80);
    let transfer = Transfer::begin(&host, &listener, asked);
    transfer.quarter();
    kill(run);
    transfer.quarter();
    // Neither old connections nor new ones need a weir.
    let second = Transfer::begin(&host, &listener, asked);
    second.quarter();
    let run = host.run();
    transfer.quarter();
    second.quarter();
    end(run);
    let run = host.run();
    let observer = host.observe(&["--protocol", "tcp"]);
    for transfer in [transfer, second] {
        transfer.finish();
    }
    let close = |record: &serde_json::Value| record["event"] == "close" && record["rule"] == "moved";
    observer.wait_for_record(close);
    assert_eq!(observer.finish().flows(close).len(), 2);
    let listed = host.output(&["redirect", "list"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("moved"), "{listed:?}");
    end(run);
}

/// The weir that comes back is another one, twice: first its programs have other code, then its tables other layouts.
/// What it finds are the rules and connections of the one before.
fn redirected_connections_survive_upgrades(attach: &str) {
    let (host, run, asked) = redirecting(&["--attach", attach]);
    let listener = listen(&host, 80);
    let first = Transfer::begin(&host, &listener, asked);
    first.quarter();
    kill(run);
    let other = OtherVersion::of_programs(host.bpffs(), host.namespace());
    first.quarter();
    assert!(other.packets() > 100);
    let second = Transfer::begin(&host, &listener, asked);
    second.quarter();
    let run = host.run_with(&["--attach", attach]);
    let seen = other.packets();
    [&first, &second].into_iter().for_each(Transfer::quarter);
    assert_eq!(other.packets(), seen, "they run no more");
    end(run);
    for transfer in [first, second] {
        transfer.finish();
    }

    let other = OtherVersion::of_layouts(host.bpffs(), host.namespace());
    let third = Transfer::begin(&host, &listener, asked);
    third.quarter();
    assert!(other.packets() > 100);
    // While data flow.
    let run = thread::scope(|scope| {
        let run = scope.spawn(|| host.run_with(&["--attach", attach]));
        third.quarter();
        run.join().unwrap()
    });
    run.wait_for_line(Stream::Err, LIMIT, |line| line.contains("of another version of weir"));
    let fourth = Transfer::begin(&host, &listener, asked);
    [&third, &fourth].into_iter().for_each(Transfer::quarter);
    let rules = host.output(&["redirect", "list", "-o", "json"]);
    let rules: serde_json::Value = serde_json::from_slice(&rules.stdout).unwrap();
    assert_eq!((&rules[0]["name"], &rules[0]["live_connections"]), (&"moved".into(), &2.into()), "{rules}");
    assert_eq!(rules[0]["hits"], 4, "{rules}");
    // All of the first two, three quarters of the third and one of the fourth, of which some may not be sent yet.
    let quarters = |count: usize| (count * PIECES / 4 * 65_536) as u64;
    assert!((quarters(11)..quarters(13)).contains(&number(&rules[0]["bytes"])), "{rules}");
    let observer = host.observe(&["--protocol", "tcp"]);
    for transfer in [third, fourth] {
        transfer.finish();
    }
    let close = |record: &serde_json::Value| record["event"] == "close" && record["rule"] == "moved";
    let told = observer.wait_for_record(close);
    assert_eq!(told["midstream"], false, "{told}");
    weir_testkit::wait_until(LIMIT, "both ends", || {
        observer.daemon.stdout().iter().filter(|line| line.contains("\"close\"")).count() == 2
    });
    let told = observer.finish();
    for flow in told.flows(close) {
        assert!(number(&flow["sent_bytes"]) >= (PIECES * 65_536) as u64, "{flow}");
    }
    end(run);
}

#[test]
fn root_redirected_connections_survive_upgrades() {
    require_root!();
    redirected_connections_survive_upgrades("auto");
}

#[test]
fn root_redirected_connections_survive_upgrades_with_clsact() {
    require_root!();
    redirected_connections_survive_upgrades("clsact");
}

/// Killed in the middle of carrying over: while the tables are made, and while programs are replaced.
#[test]
fn root_who_is_killed_while_carrying_over_is_followed_by_who_finishes_it() {
    require_root!();
    let (host, run, asked) = redirecting(&[]);
    let _server = EchoServer::tcp_at(host.container("db"), SocketAddr::new(host.address("db"), 80));
    let mut run = Some(run);
    for moment in ["maps", "links"] {
        end(run.take().unwrap());
        let _other = OtherVersion::of_layouts(host.bpffs(), host.namespace());
        let mut open = traffic::connect(host.container("web"), asked);
        traffic::exchange(&mut open, 1000);
        let killed = Daemon::start("weir run", &mut host.command(&["run", "--engine", "none"]));
        let folder = host.bpffs().join("weir/new").join(moment);
        let begun = || match moment {
            // Of the network namespace, with the first link.
            "links" => fs::read_dir(&folder).is_ok_and(|namespaces| {
                namespaces
                    .flatten()
                    .any(|one| fs::read_dir(one.path()).is_ok_and(|mut links| links.next().is_some()))
            }),
            _ => folder.exists(),
        };
        let deadline = Instant::now() + LIMIT;
        // The moment may be over before it is seen: then all of it is.
        while !begun() && host.bpffs().join("weir/v99").exists() {
            assert!(Instant::now() < deadline, "{moment}");
        }
        kill(killed);
        traffic::exchange(&mut open, 1000);
        run = Some(host.run());
        traffic::exchange(&mut open, 1000);
        traffic::tcp_echo(host.container("web"), asked, 5, 1000);
        assert!(
            !host.bpffs().join("weir/v99").exists() && !host.bpffs().join("weir/new").exists(),
            "{moment}"
        );
    }
    end(run.unwrap());
}

/// A command that finds the state of another version carries it over itself, where no weir runs.
#[test]
fn root_redirect_carries_over_what_another_version_left() {
    require_root!();
    let (host, run, asked) = redirecting(&[]);
    end(run);
    let _other = OtherVersion::of_layouts(host.bpffs(), host.namespace());
    let _server = EchoServer::tcp_at(host.container("db"), SocketAddr::new(host.address("db"), 80));
    let mut open = traffic::connect(host.container("web"), asked);
    traffic::exchange(&mut open, 1000);
    let doctor = host.output(&["doctor", "--engine", "none"]);
    assert!(String::from_utf8_lossy(&doctor.stdout).contains("by another version of weir"), "{doctor:?}");

    // Whoever comes while program after program is replaced may wait a moment, and is redirected.
    let listed = thread::scope(|scope| {
        scope.spawn(|| traffic::tcp_echo(host.container("web"), asked, 500, 100));
        host.output(&["redirect", "list", "--engine", "none"])
    });
    let said = String::from_utf8_lossy(&listed.stderr).into_owned();
    assert!(listed.status.success() && said.contains("of another version of weir"), "{listed:?}");
    assert!(String::from_utf8_lossy(&listed.stdout).contains("moved"), "{listed:?}");
    traffic::exchange(&mut open, 1000);
    let again = host.output(&["redirect", "add", "--name", "moved", "10.1.2.3", "--engine", "none", ":1"]);
    assert_eq!(again.status.code(), Some(2), "{again:?}");
    let add = host.output(&["redirect", "add", &asked.to_string(), ":81", "--engine", "none"]);
    assert!(String::from_utf8_lossy(&add.stderr).contains("\"moved\" and"), "{add:?}");
    traffic::exchange(&mut open, 1000);
}

/// Three times as many redirected connections as the table has room for, while no weir runs that would clear it. One that
/// finds no room is refused, and its client asks again after a second, as TCP does.
#[test]
fn root_a_small_table_goes_round_without_a_weir() {
    require_root!();
    let (host, run, asked) = redirecting(&["--max-flows", "64"]);
    let _server = EchoServer::tcp_at(host.container("db"), SocketAddr::new(host.address("db"), 80));
    end(run);
    assert_eq!(traffic::tcp_echo(host.container("web"), asked, 192, 100).len(), 192);
    // Flows that the programs have taken out brought bytes, too.
    let rules = host.output(&["redirect", "list", "-o", "json"]);
    let rules: serde_json::Value = serde_json::from_slice(&rules.stdout).unwrap();
    let frames = 2 * 74 + 2 * 66 + 2 * 166;
    assert!(number(&rules[0]["bytes"]) >= 192 * frames && rules[0]["hits"] == 192, "{rules}");
    // The table keeps its size.
    let other = host.output(&["run", "--max-flows", "128", "--engine", "none"]);
    let said = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(said.contains("has room for 64 flows, not for 128"), "{said}");
}
