//! Watching containers through an engine, good or bad.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod fake_engine;

use std::net::IpAddr;
use std::path::Path;
use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use fake_engine::{Fake, FakeEngine, Manner};
use weir::containers::{EngineChoice, EngineStatus, engine_status};
use weir::host::{HostEvent, WatchHandle, WatchOptions, watch};
use weir_core::endpoint::Container;
use weir_testkit::{Namespace, Topology, require_root, wait_until};

const LIMIT: Duration = Duration::from_secs(60);

struct Watched {
    events: Receiver<HostEvent>,
    told: Vec<HostEvent>,
    _handle: WatchHandle,
}

impl Watched {
    fn new(socket: &Path) -> Self {
        let engines = EngineChoice::Socket(socket.display().to_string());
        let (events, handle) = watch(WatchOptions { engines }).unwrap();
        let mut watched = Self { events, told: Vec::new(), _handle: handle };
        watched.until(|event| *event == HostEvent::Ready);
        watched
    }

    fn in_namespace(namespace: &Namespace, socket: &Path) -> Self {
        namespace.enter(|| Self::new(socket))
    }

    #[track_caller]
    fn until(&mut self, wanted: impl Fn(&HostEvent) -> bool) {
        let begin = Instant::now();
        loop {
            let Ok(event) = self.events.recv_timeout(LIMIT.saturating_sub(begin.elapsed())) else {
                panic!("it was not told; the last that was: {:#?}", self.told.iter().rev().take(8));
            };
            self.told.push(event);
            if self.told.last().is_some_and(&wanted) {
                return;
            }
        }
    }

    /// Waits until a container of this name is told with this address.
    #[track_caller]
    fn until_named(&mut self, name: &str, ip: &str) -> Arc<Container> {
        let ip: IpAddr = ip.parse().unwrap();
        self.until(|event| is_named(event, name, ip));
        match self.told.last() {
            Some(HostEvent::Addresses { container, .. }) => Arc::clone(container),
            _ => unreachable!(),
        }
    }

    #[track_caller]
    fn until_gone(&mut self, container: &Fake) {
        let id = container.id.clone();
        self.until(|event| *event == HostEvent::ContainerGone { id: id.clone() });
    }

    #[track_caller]
    fn until_notice(&mut self, words: &str) {
        self.until(|event| matches!(event, HostEvent::Notice(text) if text.contains(words)));
    }

    fn notices(&self) -> Vec<&String> {
        let notices = self.told.iter().filter_map(|event| match event {
            HostEvent::Notice(text) => Some(text),
            _ => None,
        });
        notices.collect()
    }

    fn was_named(&self, name: &str, ip: &str) -> bool {
        let ip: IpAddr = ip.parse().unwrap();
        self.told.iter().any(|event| is_named(event, name, ip))
    }
}

fn is_named(event: &HostEvent, name: &str, ip: IpAddr) -> bool {
    matches!(event, HostEvent::Addresses { container, addresses }
        if container.name == name && addresses.contains(&ip))
}

#[test]
fn the_running_containers_are_told_before_ready() {
    let engine = FakeEngine::start(Manner::Well);
    let mut web = Fake::new('a', "shop-web-2", "172.17.0.2");
    for (key, value) in [("project", "shop"), ("service", "web"), ("container-number", "2")] {
        web.labels.push((format!("com.docker.compose.{key}"), value.into()));
    }
    engine.put(&web);
    engine.put(&Fake { running: false, ..Fake::new('b', "old", "172.17.0.3") });
    engine.put(&Fake { network_mode: "host".into(), ..Fake::new('c', "agent", "172.17.0.4") });
    let watched = Watched::new(&engine.socket());
    assert!(watched.was_named("shop-web-2", "172.17.0.2"));
    assert!(!watched.was_named("old", "172.17.0.3") && !watched.was_named("agent", "172.17.0.4"));
    let container = watched.told.iter().find_map(|event| match event {
        // The machine may have containers of its own.
        HostEvent::Addresses { container, .. } if container.name == "shop-web-2" => Some(container),
        _ => None,
    });
    assert_eq!(container.unwrap().to_string(), "shop/web-2");
    assert_eq!(container.unwrap().image.as_deref(), Some("image:1"));
    assert!(watched.notices().is_empty());
}

#[test]
fn starts_renames_networks_and_stops_are_told() {
    let engine = FakeEngine::start(Manner::Well);
    let mut watched = Watched::new(&engine.socket());
    wait_until(LIMIT, "weir listens to the events", || engine.is_heard());
    let mut web = Fake::new('a', "web", "172.17.0.2");
    engine.put(&web);
    engine.tell("create", &web);
    engine.tell("start", &web);
    watched.until_named("web", "172.17.0.2");
    web.name = "front".into();
    engine.put(&web);
    engine.tell("rename", &web);
    watched.until_named("front", "172.17.0.2");
    web.ip = "172.18.0.9".into();
    engine.put(&web);
    engine.tell_network("connect", &web);
    watched.until_named("front", "172.18.0.9");
    web.running = false;
    engine.put(&web);
    engine.tell("exec_die", &web);
    engine.tell("die", &web);
    watched.until_gone(&web);
    engine.remove(&web);
    engine.tell("destroy", &web);
    // As Podman calls it, and a container that is gone when it is asked about.
    let db = Fake::new('d', "db", "172.17.0.4");
    engine.put(&db);
    engine.tell("start", &db);
    watched.until_named("db", "172.17.0.4");
    engine.remove(&db);
    engine.tell("died", &db);
    watched.until_gone(&db);
    assert!(watched.notices().is_empty(), "{:?}", watched.notices());
}

#[test]
fn weir_reads_only_and_asks_only_when_told() {
    let engine = FakeEngine::start(Manner::Well);
    let web = Fake::new('a', "web", "172.17.0.2");
    engine.put(&web);
    let mut watched = Watched::new(&engine.socket());
    wait_until(LIMIT, "weir listens to the events", || engine.is_heard());
    let inspection = format!("GET /containers/{}/json", web.id);
    let mut expected = vec!["GET /version", "GET /containers/json", "GET /events", &inspection];
    let mut requests = engine.requests();
    requests.sort();
    expected.sort_unstable();
    assert_eq!(requests, expected);
    // What changes nothing is not asked about.
    for action in
        ["create", "attach", "exec_create: sh", "exec_start: sh", "exec_die", "top", "health_status: healthy"]
    {
        engine.tell(action, &web);
    }
    engine.tell_line(
        r#"{"Type":"network","Action":"connect","Actor":{"ID":"n","Attributes":{"container":"../../x"}}}"#,
    );
    engine.put(&Fake { name: "front".into(), ..web.clone() });
    engine.tell("rename", &web);
    watched.until_named("front", "172.17.0.2");
    assert_eq!(engine.requests()[4..], [inspection]);
}

#[test]
fn a_broken_stream_is_told_once_and_made_up_for() {
    let engine = FakeEngine::start(Manner::Well);
    let (web, mut db) = (Fake::new('a', "web", "172.17.0.2"), Fake::new('b', "db", "172.17.0.3"));
    engine.put(&web);
    engine.put(&db);
    let mut watched = Watched::new(&engine.socket());
    wait_until(LIMIT, "weir listens to the events", || engine.is_heard());
    engine.behave(Manner::Error);
    engine.break_streams();
    watched.until_notice("does not tell any more");
    // Meanwhile one stops, one is renamed, one starts, and no one hears of it.
    engine.remove(&web);
    db.name = "database".into();
    engine.put(&db);
    engine.put(&Fake::new('c', "cache", "172.17.0.4"));
    engine.behave(Manner::Well);
    watched.until_notice("answers now");
    watched.until_gone(&web);
    watched.until_named("database", "172.17.0.3");
    if !watched.was_named("cache", "172.17.0.4") {
        watched.until_named("cache", "172.17.0.4");
    }
    assert_eq!(watched.notices().len(), 2, "{:?}", watched.notices());
}

#[test]
fn an_event_that_is_garbage_is_a_broken_stream() {
    let engine = FakeEngine::start(Manner::Well);
    let web = Fake::new('a', "web", "172.17.0.2");
    let mut watched = Watched::new(&engine.socket());
    wait_until(LIMIT, "weir listens to the events", || engine.is_heard());
    engine.tell_line("}garbage{");
    watched.until_notice("is not understood");
    engine.put(&web);
    watched.until_named("web", "172.17.0.2");
}

#[test]
fn an_engine_that_answers_badly_costs_only_names() {
    for (manner, words) in [
        (Manner::Noise, "is not understood"),
        (Manner::Page, "is not understood"),
        (Manner::Error, "reports an error: 500: out of order"),
    ] {
        let engine = FakeEngine::start(manner);
        let watched = Watched::new(&engine.socket());
        let notices = watched.notices();
        assert!(notices.len() == 1 && notices[0].contains(words), "{manner:?}: {notices:?}");
        // What, why, what it costs, what to do.
        assert!(notices[0].contains(&engine.socket().display().to_string()), "{notices:?}");
        assert!(notices[0].contains("without name, image and compose service"), "{notices:?}");
    }
}

#[test]
fn an_engine_that_never_answers_does_not_hold_up() {
    let engine = FakeEngine::start(Manner::Never);
    let mut watched = Watched::new(&engine.socket());
    // It is ready before it has given the engine up.
    assert!(watched.notices().is_empty(), "{:?}", watched.notices());
    watched.until_notice("does not answer");
}

#[test]
fn an_engine_that_comes_later_is_found() {
    let engine = FakeEngine::absent();
    let mut watched = Watched::new(&engine.socket());
    assert!(watched.notices()[0].contains("there is no socket at"), "{:?}", watched.notices());
    engine.put(&Fake::new('a', "web", "172.17.0.2"));
    engine.appear();
    watched.until_named("web", "172.17.0.2");
    assert!(watched.notices()[1].contains("answers now"));
}

#[test]
fn podmans_deviations_cost_nothing() {
    let engine = FakeEngine::start(Manner::Podman);
    engine.put(&Fake::new('a', "web", "10.88.0.2"));
    let mut watched = Watched::new(&engine.socket());
    assert!(watched.was_named("web", "10.88.0.2"));
    wait_until(LIMIT, "weir listens to the events", || engine.is_heard());
    let db = Fake::new('b', "db", "10.88.0.3");
    engine.put(&db);
    engine.tell("start", &db);
    watched.until_named("db", "10.88.0.3");
    assert!(watched.notices().is_empty(), "{:?}", watched.notices());
}

#[test]
fn the_doctor_tells_how_the_engine_is() {
    let status = |socket: &Path| engine_status(&EngineChoice::Socket(format!("unix://{}", socket.display())));
    let engine = FakeEngine::start(Manner::Podman);
    engine.put(&Fake::new('a', "web", "10.88.0.2"));
    let socket = engine.socket().display().to_string();
    let expected = EngineStatus::Connected {
        socket,
        product: "Podman Engine".into(),
        version: "20.10.24".into(),
        api_version: "1.41".into(),
        running: 1,
    };
    assert_eq!(status(&engine.socket()), expected);
    for manner in [Manner::Noise, Manner::Page, Manner::Error, Manner::Never] {
        engine.behave(manner);
        assert!(matches!(status(&engine.socket()), EngineStatus::Failed { .. }), "{manner:?}");
    }
    let absent = FakeEngine::absent();
    let EngineStatus::Failed { reason, cost, remedy } = status(&absent.socket()) else {
        panic!("not absent")
    };
    assert!(reason.contains("there is no socket") && cost.contains("name") && remedy.contains("DOCKER_HOST"));
    // A socket that nobody listens at any more.
    drop(std::os::unix::net::UnixListener::bind(absent.socket()).unwrap());
    let EngineStatus::Failed { reason, .. } = status(&absent.socket()) else { panic!("not refused") };
    assert!(reason.contains("connection refused"), "{reason}");
    assert_eq!(engine_status(&EngineChoice::None), EngineStatus::Off);
}

#[test]
fn root_the_owner_of_a_veth_has_the_engines_name() {
    require_root!();
    let topology = Topology::with_containers(&["web"]);
    let engine = FakeEngine::start(Manner::Well);
    let process = Process::start(topology.container("web").namespace());
    let mut web = Fake { pid: process.0.id(), ..Fake::new('a', "web", "10.99.0.2") };
    engine.put(&web);
    // It is in the same namespace, which was not made for it.
    let mode = format!("container:{}", web.id);
    engine.put(&Fake { pid: web.pid, network_mode: mode, ..Fake::new('b', "sidecar", "10.99.0.2") });
    let mut watched = Watched::in_namespace(topology.host(), &engine.socket());
    let is_owner = |name: &'static str| move |event: &HostEvent| matches!(event, HostEvent::Owner { container: Some(c), .. } if c.name == name);
    assert!(watched.told.iter().any(is_owner("web")));
    assert!(!watched.told.iter().any(is_owner("sidecar")));
    // The engine did not say the IPv6 address, the namespace did.
    assert!(watched.was_named("web", &topology.container("web").ipv6().to_string()));
    wait_until(LIMIT, "weir listens to the events", || engine.is_heard());
    web.name = "front".into();
    engine.put(&web);
    engine.tell("rename", &web);
    watched.until(is_owner("front"));
    watched.until_named("front", "10.99.0.2");
    // It stops: its last packets are still its own.
    engine.remove(&web);
    engine.tell("die", &web);
    watched.until_gone(&web);
    assert!(is_owner("front")(
        watched.told.iter().rev().find(|e| matches!(e, HostEvent::Owner { .. })).unwrap()
    ));
}

struct Process(Child);

impl Process {
    fn start(namespace: &Namespace) -> Self {
        let child = namespace.command("sleep").arg("600").spawn().unwrap();
        let process = Self(child);
        wait_until(LIMIT, "the process is in the namespace", || namespace.processes() == [process.0.id()]);
        process
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
