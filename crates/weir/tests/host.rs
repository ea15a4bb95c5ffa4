//! Watching a host of the test's own: interfaces, addresses, and who is behind
//! a veth, without any container engine.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use weir::containers::EngineChoice;
use weir::host::{HostEvent, Interface, InterfaceKind, WatchHandle, WatchOptions, container_key, watch};
use weir_testkit::{Namespace, Topology, require_root, wait_until};

const LIMIT: Duration = Duration::from_secs(60);

/// A watched host, and all that was told of it.
struct Watched {
    events: Receiver<HostEvent>,
    told: Vec<HostEvent>,
    _handle: WatchHandle,
}

impl Watched {
    fn new(host: &Namespace) -> Self {
        let options = WatchOptions { engines: EngineChoice::None };
        let (events, handle) = host.enter(|| watch(options)).unwrap();
        let mut watched = Self { events, told: Vec::new(), _handle: handle };
        watched.until(|event| *event == HostEvent::Ready);
        watched
    }

    /// Waits for an event; returns how long that took.
    #[track_caller]
    fn until(&mut self, wanted: impl Fn(&HostEvent) -> bool) -> Duration {
        let begin = Instant::now();
        loop {
            let Ok(event) = self.events.recv_timeout(LIMIT.saturating_sub(begin.elapsed())) else {
                panic!(
                    "it was not told; the last that was: {:#?}",
                    self.told.iter().rev().take(8).collect::<Vec<_>>()
                );
            };
            self.told.push(event);
            if self.told.last().is_some_and(&wanted) {
                return begin.elapsed();
            }
        }
    }

    #[track_caller]
    fn until_interface(&mut self, wanted: impl Fn(&Interface) -> bool) -> Interface {
        self.until(|event| matches!(event, HostEvent::Interface(interface) if wanted(interface)));
        match self.told.last() {
            Some(HostEvent::Interface(interface)) => interface.clone(),
            _ => unreachable!(),
        }
    }

    #[track_caller]
    fn until_owner(&mut self, veth: u32, name: &str) {
        self.until(|event| is_owner(event, veth, name));
    }

    /// The interface of this name, as last told.
    #[track_caller]
    fn interface(&self, name: &str) -> &Interface {
        let named = self.told.iter().rev().find_map(|event| match event {
            HostEvent::Interface(interface) if interface.name == name => Some(interface),
            _ => None,
        });
        named.unwrap_or_else(|| panic!("no interface {name} was told"))
    }

    fn was_told(&self, wanted: impl Fn(&HostEvent) -> bool) -> bool {
        self.told.iter().any(wanted)
    }
}

fn is_owner(event: &HostEvent, veth: u32, name: &str) -> bool {
    matches!(event, HostEvent::Owner { ifindex, container: Some(container) }
        if *ifindex == veth && container.name == name)
}

fn are_addresses(event: &HostEvent, key: &str, wanted: &[IpAddr]) -> bool {
    matches!(event, HostEvent::Addresses { container, addresses }
        if container_key(container) == key && wanted.iter().all(|ip| addresses.contains(ip)))
}

#[test]
fn root_the_state_at_the_start_is_told() {
    require_root!();
    let topology = Topology::with_containers(&["web", "db"]);
    let watched = Watched::new(topology.host());
    let web = topology.container("web");
    let veth = watched.interface("veth-web").clone();
    assert_eq!(veth.kind, InterfaceKind::Veth);
    assert!(veth.ethernet && veth.up && veth.peer_netns.is_some());
    assert_ne!(veth.peer_netns, watched.interface("veth-db").peer_netns);
    let bridge = watched.interface("br0");
    assert_eq!((bridge.kind, bridge.ethernet, bridge.peer_netns), (InterfaceKind::Other, true, None));
    assert!(watched.interface("lo").ethernet);
    assert!(watched.was_told(|event| matches!(event, HostEvent::HostAddresses(addresses)
        if addresses.contains(&Topology::HOST_IPV4.into()) && addresses.contains(&Topology::HOST_IPV6.into()))));
    let name = web.namespace().name();
    assert!(watched.was_told(|event| is_owner(event, veth.ifindex, name)));
    let addresses = [web.ipv4().into(), web.ipv6().into()];
    assert!(watched.was_told(|event| are_addresses(event, name, &addresses)));
    assert!(!watched.was_told(|event| are_addresses(event, name, &[IpAddr::from([127, 0, 0, 1])])));
}

#[test]
fn root_a_new_container_is_told_and_its_end() {
    require_root!();
    let mut topology = Topology::new();
    let mut watched = Watched::new(topology.host());
    let web = topology.add_container("web");
    let (name, ipv4) = (web.namespace().name().to_owned(), web.ipv4());
    let veth =
        watched.until_interface(|interface| interface.name == "veth-web" && interface.peer_netns.is_some());
    watched.until_owner(veth.ifindex, &name);
    watched.until(|event| are_addresses(event, &name, &[ipv4.into()]));
    if !watched.interface("veth-web").up {
        watched.until_interface(|interface| interface.ifindex == veth.ifindex && interface.up);
    }
    topology.remove_container("web");
    let gone = HostEvent::InterfaceGone { ifindex: veth.ifindex };
    if !watched.was_told(|event| *event == gone) {
        watched.until(|event| *event == gone);
    }
    // The namespace's number is free only when the kernel has taken it apart.
    let ended = HostEvent::ContainerGone { id: name };
    if !watched.was_told(|event| *event == ended) {
        watched.until(|event| *event == ended);
    }
    // The number is used again, for another.
    let db = topology.add_container("db");
    let db_name = db.namespace().name().to_owned();
    let db =
        watched.until_interface(|interface| interface.name == "veth-db" && interface.peer_netns.is_some());
    assert_eq!(db.peer_netns, veth.peer_netns);
    watched.until_owner(db.ifindex, &db_name);
}

#[test]
fn root_a_veth_is_told_within_milliseconds() {
    require_root!();
    let topology = Topology::with_containers(&["web"]);
    let mut watched = Watched::new(topology.host());
    let namespace = topology.container("web").namespace().name();
    let mut times = Vec::new();
    for round in 0..20 {
        let name = format!("new{round}");
        topology.host().ip_batch(&format!("link add {name} type veth peer name {name} netns {namespace}\n"));
        // Counted from the end of `ip`: what is told by then took no time.
        times.push(
            watched.until(
                |event| matches!(event, HostEvent::Interface(Interface { name: n, .. }) if *n == name),
            ),
        );
    }
    times.sort();
    eprintln!("told {:?} after `ip` had ended, at most {:?}", times[times.len() / 2], times[times.len() - 1]);
    // A machine under load may keep the watcher waiting now and then.
    assert!(times[times.len() / 2] < Duration::from_millis(100), "{times:?}");
}

#[test]
fn root_renames_states_and_departures_are_told() {
    require_root!();
    let topology = Topology::with_containers(&["web"]);
    let host = topology.host();
    let mut watched = Watched::new(host);
    // Both ends here: nobody's.
    host.ip_batch("link add near type veth peer name far\n");
    let a = watched.until_interface(|interface| interface.name == "near");
    assert_eq!((a.kind, a.peer_netns, a.up), (InterfaceKind::Veth, None, false));
    // Then one end leaves, which the kernel does not tell of the other.
    let namespace = topology.container("web").namespace();
    host.ip_batch(&format!("link set far netns {}\n", namespace.name()));
    let a = watched.until_interface(|interface| interface.name == "near" && interface.peer_netns.is_some());
    watched.until_owner(a.ifindex, namespace.name());
    host.ip_batch("link set near name other\nlink set other up\n");
    watched.until_interface(|interface| interface.ifindex == a.ifindex && interface.name == "other");
    watched.until_interface(|interface| interface.ifindex == a.ifindex && interface.up);
    // And comes back.
    namespace.ip_batch(&format!("link set far netns {}\n", host.name()));
    watched.until(|event| *event == HostEvent::Owner { ifindex: a.ifindex, container: None });
    assert_eq!(watched.interface("other").peer_netns, None);
    // Leaving a bridge is not leaving the host.
    host.ip_batch("link set veth-web nomaster\naddress add 192.0.2.1/32 dev lo\n");
    watched.until(
        |event| matches!(event, HostEvent::HostAddresses(all) if all.contains(&[192, 0, 2, 1].into())),
    );
    let veth = watched.interface("veth-web").ifindex;
    assert!(!watched.was_told(|event| *event == HostEvent::InterfaceGone { ifindex: veth }));
    host.ip_batch("address del 192.0.2.1/32 dev lo\n");
    watched.until(
        |event| matches!(event, HostEvent::HostAddresses(all) if !all.contains(&[192, 0, 2, 1].into())),
    );
    host.ip_batch("link delete other\n");
    watched.until(|event| *event == HostEvent::InterfaceGone { ifindex: a.ifindex });
}

#[test]
fn root_a_thousand_veths_are_no_problem() {
    require_root!();
    const VETHS: usize = 1000;
    let topology = Topology::with_containers(&["web"]);
    let mut watched = Watched::new(topology.host());
    let namespace = topology.container("web").namespace().name();
    let lines = (0..VETHS).map(|n| format!("link add m{n} type veth peer name m{n} netns {namespace}\n"));
    topology.host().ip_batch(&lines.collect::<String>());
    let mut named = 0;
    let took =
        watched.until(|event| matches!(event, HostEvent::Interface(interface) if interface.name == "m999"));
    for event in &watched.told {
        named +=
            usize::from(matches!(event, HostEvent::Interface(interface) if interface.name.starts_with('m')));
    }
    assert_eq!(named, VETHS);
    let last = watched.interface("m999").ifindex;
    watched.until_owner(last, namespace);
    eprintln!("{VETHS} veths were told {took:?} after `ip` had ended");
    // A new watcher finds them all at its start, quickly.
    let begin = Instant::now();
    let second = Watched::new(topology.host());
    let owners = second.told.iter().filter(|event| matches!(event, HostEvent::Owner { .. })).count();
    assert_eq!(owners, VETHS + 1);
    eprintln!("and a new watcher was ready in {:?}", begin.elapsed());
}

#[test]
fn root_a_container_is_named_by_its_cgroup() {
    require_root!();
    let mut topology = Topology::new();
    let mut watched = Watched::new(topology.host());
    let web = topology.add_container("web");
    let veth =
        watched.until_interface(|interface| interface.name == "veth-web" && interface.peer_netns.is_some());
    watched.until_owner(veth.ifindex, web.namespace().name());
    // Its process starts a moment after its interface.
    let id = format!("{:064x}", std::process::id());
    let process = InCgroup::start(web.namespace(), &id);
    let name: String = id.chars().take(12).collect();
    watched.until_owner(veth.ifindex, &name);
    watched.until(|event| are_addresses(event, &id, &[web.ipv4().into()]));
    // What was said for want of better knowledge is taken back.
    assert!(
        watched.was_told(|event| *event == HostEvent::ContainerGone { id: web.namespace().name().into() })
    );
    drop(process);
    topology.remove_container("web");
    watched.until(|event| *event == HostEvent::ContainerGone { id: id.clone() });
}

/// A process in a network namespace and in a cgroup named like a container's.
struct InCgroup {
    process: Child,
    cgroup: PathBuf,
}

impl InCgroup {
    fn start(namespace: &Namespace, id: &str) -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mount = mounts.lines().find(|line| line.contains(" - cgroup2 ")).expect("a cgroup2 mount");
        let root = mount.split_whitespace().nth(4).unwrap();
        let cgroup = PathBuf::from(root).join(format!("docker-{id}.scope"));
        fs::create_dir(&cgroup).unwrap();
        let process = namespace.command("sleep").arg("600").spawn().unwrap();
        fs::write(cgroup.join("cgroup.procs"), process.id().to_string()).unwrap();
        Self { process, cgroup }
    }
}

impl Drop for InCgroup {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        // The kernel takes a moment to see that it is empty.
        wait_until(LIMIT, "the cgroup is removed", || fs::remove_dir(&self.cgroup).is_ok());
    }
}

#[test]
fn root_nothing_runs_while_nothing_happens() {
    require_root!();
    let topology = Topology::with_containers(&["web"]);
    let watched = Watched::new(topology.host());
    // The looks for a container behind the named namespace end by themselves.
    let switches = || {
        let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
        let watcher = tasks.map(|task| task.path()).find(|task| {
            let name = fs::read_to_string(task.join("comm")).unwrap_or_default();
            name.trim() == "weir-host" && fs::read_link(task.join("ns/net")).ok() == host_link(&topology)
        });
        let status = fs::read_to_string(watcher.unwrap().join("status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let mut before = (switches(), Instant::now());
    wait_until(Duration::from_secs(60), "four seconds of silence", || {
        let now = switches();
        if now != before.0 {
            before = (now, Instant::now());
        }
        before.1.elapsed() > Duration::from_secs(4)
    });
    drop(watched);
}

fn host_link(topology: &Topology) -> Option<PathBuf> {
    topology.host().enter(|| fs::read_link("/proc/thread-self/ns/net").ok())
}

/// The host is itself a container here: its way out is a veth whose other end is elsewhere.
#[test]
fn root_a_veth_that_leads_out_is_no_containers() {
    require_root!();
    let (host, outside, pod) = (Namespace::new("host"), Namespace::new("outside"), Namespace::new("pod"));
    for (veth, other) in [("uplink", &outside), ("pod", &pod)] {
        host.ip_batch(&format!(
            "link add {veth} type veth peer name eth0 netns {}\nlink set {veth} up\n",
            other.name()
        ));
        other.ip_batch("link set eth0 up\n");
    }
    outside.ip_batch("addr add 192.0.2.1/24 dev eth0\n");
    // As without a bridge: the container has one address, and the host a route to it.
    pod.ip_batch("addr add 10.1.0.2/32 dev eth0\n");
    host.ip_batch(
        "addr add 192.0.2.2/24 dev uplink\nroute add 10.1.0.2 dev pod\nroute add default via 192.0.2.1\n",
    );
    let mut watched = Watched::new(&host);
    let (up, container) = (watched.interface("uplink").clone(), watched.interface("pod").clone());
    assert!(up.peer_netns.is_some() && up.default_route && !up.is_container_side());
    assert!(container.is_container_side());
    assert!(watched.was_told(|event| is_owner(event, container.ifindex, pod.name())));
    let is_outside = |event: &HostEvent| {
        are_addresses(event, outside.name(), &[]) || is_owner(event, up.ifindex, outside.name())
    };
    assert!(!watched.was_told(is_outside));

    host.ip_batch("route del default\n");
    watched.until_interface(|interface| interface.name == "uplink" && interface.is_container_side());
    watched.until(|event| are_addresses(event, outside.name(), &[IpAddr::from([192, 0, 2, 1])]));
    host.ip_batch("route add ::/0 dev uplink\n");
    watched.until_interface(|interface| interface.name == "uplink" && !interface.is_container_side());
    watched.until(|event| {
        matches!(event, HostEvent::Addresses { container, addresses }
            if container.name == outside.name() && addresses.is_empty())
    });
    watched.until(|event| *event == HostEvent::Owner { ifindex: up.ifindex, container: None });
    // Routes that go with their interface.
    host.ip_batch("route add default via 192.0.2.1\nroute del ::/0\n");
    host.ip_batch("link set uplink down\n");
    watched.until_interface(|interface| interface.name == "uplink" && interface.is_container_side());
}
