//! A host with four containers on two bridges, as far as the programs can see:
//! devices to name, places in the maps, and frames run through the hooks.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use ipnet::IpNet;
use libbpf_rs::{MapCore, MapFlags, MapHandle, libbpf_sys};
use weir_core::event::{Event, Hook};
use weir_core::flow::{FlowEntry, FlowKey};
use weir_core::redirect::{
    Compiled, CompiledMatch, CompiledRule, CompiledTarget, InterfacePlace, Place, RuleId, SLOTS, TargetId,
    VirtualAddress,
};
use weir_kernel::{Datapath, FlowTable, Options, ProgramName, RedirectCounters, Redirects, TestRun};
use weir_testkit::packet::Frame;

/// Let the next program run; drop; as `bpf_redirect()` says.
pub(crate) const NEXT: i32 = -1;
pub(crate) const DROPPED: i32 = 2;
pub(crate) const REDIRECTED: i32 = 7;

/// A container, by the device that is the host's end of its veth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Container {
    device: usize,
    pub(crate) ipv4: &'static str,
    pub(crate) ipv6: &'static str,
    pub(crate) mac: [u8; 6],
    bridge: usize,
}

const fn container(device: usize, ipv4: &'static str, ipv6: &'static str, bridge: usize) -> Container {
    Container { device, ipv4, ipv6, mac: [2, 0, 0, 0, 1, device as u8], bridge }
}

/// Who asks, and the addresses that the rules are about; on one bridge.
pub(crate) const CLIENT: Container = container(0, "10.0.0.2", "fd00::2", 0);
pub(crate) const WEB: Container = container(1, "10.0.0.3", "fd00::3", 0);
pub(crate) const API: Container = container(2, "10.0.0.4", "fd00::4", 0);
/// On the other bridge.
pub(crate) const FAR: Container = container(3, "10.1.0.5", "fd01::5", 1);

/// Somebody beyond the host, who is no container.
pub(crate) const OUTSIDE: &str = "192.0.2.9";
pub(crate) const OUTSIDE6: &str = "2001:db8::9";
/// An address that no one has.
pub(crate) const VIRTUAL: &str = "10.0.0.200";
pub(crate) const VIRTUAL6: &str = "fd00::200";

/// The MACs of the two bridges, which are the host's.
pub(crate) const HOST: [[u8; 6]; 2] = [[2, 0, 0, 0, 9, 0], [2, 0, 0, 0, 9, 1]];

const DEVICES: [&str; 4] = ["client", "web", "api", "far"];
const PEERS: [&str; 4] = ["client0", "web0", "api0", "far0"];
/// Beyond those of the veths, and never used: nothing is sent.
const BRIDGES: [u32; 2] = [1000, 1001];

pub(crate) struct Lab {
    datapath: Datapath,
    pub(crate) table: FlowTable,
    pub(crate) redirects: Redirects,
    namespace: File,
    devices: Vec<u32>,
}

/// One rule as a test says it; all connections to an address unless it says more.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub(crate) asked: (&'static str, u16, u16),
    pub(crate) targets: Vec<(&'static str, u16)>,
    pub(crate) protocol: u8,
    pub(crate) source: Option<&'static str>,
    pub(crate) clients: Vec<&'static str>,
    /// Whether the host is a client, or forwards what clients send.
    pub(crate) host_asks: bool,
    pub(crate) fast_path: bool,
    pub(crate) expires_ns: u64,
}

impl Rule {
    /// One port to one port.
    pub(crate) fn port(asked: (&'static str, u16), target: (&'static str, u16)) -> Self {
        Self::ports((asked.0, asked.1, asked.1), target)
    }

    /// A range of ports to one that begins there.
    pub(crate) fn ports(asked: (&'static str, u16, u16), target: (&'static str, u16)) -> Self {
        Self {
            asked,
            targets: vec![target],
            protocol: 0,
            source: None,
            clients: Vec::new(),
            host_asks: false,
            fast_path: false,
            expires_ns: 0,
        }
    }

    /// All ports, and what has none.
    pub(crate) fn address(asked: &'static str, target: &'static str) -> Self {
        Self::ports((asked, 0, u16::MAX), (target, 0))
    }

    pub(crate) fn source(mut self, source: &'static str) -> Self {
        self.source = Some(source);
        self
    }

    pub(crate) fn fast(mut self) -> Self {
        self.fast_path = true;
        self
    }
}

/// The id of the rule at that place in a test's list.
pub(crate) fn id(index: usize) -> RuleId {
    RuleId::new(index as u32 + 1, 0).unwrap()
}

/// Rules over the lab's host.
pub(crate) fn compiled(lab: &Lab, rules: &[Rule]) -> Compiled {
    let mut compiled = lab.host();
    for (index, rule) in rules.iter().enumerate() {
        let id = id(index);
        compiled.numbers.insert(id.number());
        let targets: Vec<TargetId> = rule
            .targets
            .iter()
            .enumerate()
            .map(|(number, (address, port_first))| {
                let target = TargetId((index * 100 + number + 1) as u32);
                let address = address.parse().unwrap();
                compiled.targets.insert(target, CompiledTarget { address, port_first: *port_first });
                target
            })
            .collect();
        let slots = (0..SLOTS).filter_map(|slot| targets.get(slot % targets.len().max(1)).copied()).collect();
        compiled.rules.insert(
            id,
            CompiledRule {
                expires_ns: rule.expires_ns,
                source: rule.source.map(|source| source.parse().unwrap()),
                slots,
                fast_path: rule.fast_path,
            },
        );
        compiled.matches.entry(rule.asked.0.parse().unwrap()).or_default().push(CompiledMatch {
            rule: id,
            protocol: rule.protocol,
            port_first: rule.asked.1,
            port_last: rule.asked.2,
            limited: !rule.clients.is_empty(),
        });
        for client in &rule.clients {
            let client: IpNet =
                client.parse().unwrap_or_else(|_| IpNet::from(client.parse::<IpAddr>().unwrap()));
            compiled.clients.insert((id, client));
            let places = compiled.endpoints.iter().filter(|(address, _)| client.contains(*address));
            compiled.askers.extend(places.map(|(_, place)| (id, Some(place.ifindex))));
        }
        if rule.host_asks {
            compiled.askers.insert((id, None));
        }
        if let Some(source) = rule.source {
            for (target, _) in &rule.targets {
                if let Some(place) = compiled.endpoints.get(&target.parse().unwrap()) {
                    compiled.forged_sources.insert((place.ifindex, source.parse().unwrap()));
                }
            }
        }
        for (virtual_address, target) in [(VIRTUAL, API.ipv4), (VIRTUAL6, API.ipv6)] {
            if rule.asked.0 == virtual_address {
                let target = compiled.endpoints.get(&target.parse().unwrap()).copied();
                compiled
                    .virtual_addresses
                    .insert(virtual_address.parse().unwrap(), VirtualAddress { target });
            }
        }
    }
    compiled
}

impl Lab {
    /// Runs `test` with these rules on a host that has not seen a packet.
    pub(crate) fn with(rules: &[Rule], test: impl FnOnce(&mut Self) + Send) {
        static LAB: OnceLock<Mutex<Lab>> = OnceLock::new();
        let options = Options { max_flows: 256, redirects: true, ..Options::default() };
        Self::shared(&LAB, &options, rules, test);
    }

    /// The same with a flow table of that size.
    pub(crate) fn with_table_of(max_flows: u32, rules: &[Rule], test: impl FnOnce(&mut Self) + Send) {
        let options = Options { max_flows, redirects: true, ..Options::default() };
        Self::shared(&OnceLock::new(), &options, rules, test);
    }

    /// The same where packets between containers take the short way.
    pub(crate) fn accelerated(rules: &[Rule], test: impl FnOnce(&mut Self) + Send) {
        static LAB: OnceLock<Mutex<Lab>> = OnceLock::new();
        let options = Options { max_flows: 64, redirects: true, accelerate: true, ..Options::default() };
        Self::shared(&LAB, &options, rules, test);
    }

    fn shared(
        lab: &OnceLock<Mutex<Self>>,
        options: &Options,
        rules: &[Rule],
        test: impl FnOnce(&mut Self) + Send,
    ) {
        let lab = lab.get_or_init(|| Mutex::new(Self::set_up(options)));
        thread::scope(|scope| {
            // The namespace is the thread's, so that it ends with the test.
            let run = scope.spawn(|| {
                let mut lab = lab.lock().unwrap_or_else(PoisonError::into_inner);
                // SAFETY: the descriptor is open; only this thread moves.
                let entered = unsafe { libc::setns(lab.namespace.as_raw_fd(), libc::CLONE_NEWNET) };
                assert_eq!(entered, 0);
                lab.clear();
                lab.events();
                // Once with nothing, so that counters begin at 0.
                lab.redirects.set(&Compiled::default()).unwrap();
                lab.set(rules);
                test(&mut lab);
            });
            if let Err(panic) = run.join() {
                std::panic::resume_unwind(panic);
            }
        });
    }

    fn set_up(options: &Options) -> Self {
        let (namespace, devices) = thread::spawn(|| {
            // SAFETY: takes no pointers, and moves this thread only.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "a network namespace of its own");
            for (device, peer) in DEVICES.iter().zip(PEERS) {
                let made = Command::new("ip")
                    .args(["link", "add", device, "type", "veth", "peer", "name", peer])
                    .status()
                    .unwrap();
                assert!(made.success());
            }
            (File::open("/proc/thread-self/ns/net").unwrap(), DEVICES.map(index).to_vec())
        })
        .join()
        .unwrap();
        let datapath = Datapath::load(options).unwrap();
        let table = datapath.flow_table().unwrap();
        let redirects = datapath.redirects().unwrap();
        Self { datapath, table, redirects, namespace, devices }
    }

    /// The host without rules.
    fn host(&self) -> Compiled {
        let mut compiled = Compiled::default();
        for container in [CLIENT, WEB, API, FAR] {
            let ifindex = self.ifindex(container);
            let bridge_ifindex = BRIDGES[container.bridge];
            let place = Place { ifindex, bridge_ifindex, mac: container.mac };
            for address in [container.ipv4, container.ipv6] {
                compiled.endpoints.insert(address.parse().unwrap(), place);
            }
            let host_mac = HOST[container.bridge];
            let interface = InterfacePlace { bridge_ifindex, host_mac, container_side: true };
            compiled.interfaces.insert(ifindex, interface);
        }
        compiled
    }

    /// Makes these the rules.
    pub(crate) fn set(&self, rules: &[Rule]) {
        self.redirects.set(&compiled(self, rules)).unwrap();
    }

    pub(crate) fn ifindex(&self, container: Container) -> u32 {
        self.devices[container.device]
    }

    /// A frame at a container's veth: the verdict, and the frame afterwards.
    #[track_caller]
    pub(crate) fn run(&self, at: Container, hook: Hook, frame: &Frame) -> (i32, Vec<u8>) {
        self.run_bytes(at, hook, &frame.build())
    }

    #[track_caller]
    pub(crate) fn run_bytes(&self, at: Container, hook: Hook, frame: &[u8]) -> (i32, Vec<u8>) {
        let program = ProgramName { hook, ethernet: true };
        let run = self.datapath.test_run(program, self.ifindex(at), frame, 1).unwrap();
        (run.verdict, run.frame)
    }

    /// The same for a packet with a mark.
    #[track_caller]
    pub(crate) fn run_marked(&self, at: Container, hook: Hook, frame: &[u8], mark: u32) -> TestRun {
        let program = ProgramName { hook, ethernet: true };
        self.datapath.test_run_marked(program, self.ifindex(at), frame, mark).unwrap()
    }

    /// A container sends a frame.
    #[track_caller]
    pub(crate) fn sends(&self, from: Container, frame: &Frame) -> (i32, Vec<u8>) {
        self.run(from, Hook::Ingress, frame)
    }

    /// A container is sent a frame.
    #[track_caller]
    pub(crate) fn gets(&self, to: Container, frame: &Frame) -> (i32, Vec<u8>) {
        self.run(to, Hook::Egress, frame)
    }

    pub(crate) fn flows(&self) -> Vec<(FlowKey, FlowEntry)> {
        let mut flows = Vec::new();
        self.table.visit(|key, entry| flows.push((key, entry))).unwrap();
        flows
    }

    pub(crate) fn counters(&self, index: usize) -> RedirectCounters {
        self.redirects.counters().unwrap().remove(&id(index).number()).unwrap_or_default()
    }

    /// Takes every flow, and every translation with it, out of the tables.
    pub(crate) fn clear(&self) {
        for (key, _) in self.flows() {
            self.table.remove(&key).unwrap();
        }
        for (key, _) in self.redirects.translations().unwrap() {
            self.redirects.remove_translation(&key).unwrap();
        }
    }

    /// Makes the servers' notes of the connections that they have ended so old. There are some.
    pub(crate) fn names_are_held_since(&self, ago: Duration) {
        let mut maps = [0u32; 64];
        let mut info = libbpf_sys::bpf_prog_info {
            nr_map_ids: maps.len() as u32,
            map_ids: maps.as_mut_ptr() as u64,
            ..Default::default()
        };
        let mut length = size_of_val(&info) as u32;
        let program = self.datapath.program(ProgramName { hook: Hook::Ingress, ethernet: true }).unwrap();
        // SAFETY: `info` has the length that is said, and says how much room for numbers there is; both outlive
        // the call.
        let status = unsafe {
            libbpf_sys::bpf_prog_get_info_by_fd(program.as_raw_fd(), &raw mut info, &raw mut length)
        };
        assert_eq!(status, 0);
        let mut maps = maps[..info.nr_map_ids as usize].iter().map(|id| MapHandle::from_map_id(*id).unwrap());
        let notes = maps.find(|map| map.name() == "held_names").unwrap();
        let since_ns = weir_kernel::monotonic_now_ns() - ago.as_nanos() as u64;
        let keys: Vec<_> = notes.keys().collect();
        assert!(!keys.is_empty());
        for key in keys {
            let mut note = notes.lookup(&key, MapFlags::ANY).unwrap().unwrap();
            note[..size_of::<u64>()].copy_from_slice(&since_ns.to_ne_bytes());
            notes.update(&key, &note, MapFlags::EXIST).unwrap();
        }
    }

    /// What is in the ring, through the real reader.
    pub(crate) fn events(&mut self) -> Vec<Event> {
        let events = Arc::new(Mutex::new(Vec::new()));
        let sink = events.clone();
        self.datapath.start_reader(move |batch| sink.lock().unwrap().extend(batch)).unwrap();
        self.datapath.stop_reader();
        assert_eq!(self.datapath.losses().undecodable, 0);
        std::mem::take(&mut *events.lock().unwrap())
    }
}

fn index(device: &str) -> u32 {
    let name = std::ffi::CString::new(device).unwrap();
    // SAFETY: the name ends with a zero.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    assert_ne!(index, 0, "no device {device}");
    index
}
