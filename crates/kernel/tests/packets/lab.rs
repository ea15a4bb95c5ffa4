//! Where frames meet the programs.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::sync::{Arc, Mutex};

use weir_core::event::{Event, Hook, HookId};
use weir_core::flow::{Counters, FlowEntry, FlowKey, Side};
use weir_core::loss::{EventLosses, TallyReason};
use weir_kernel::{Datapath, FlowTable, Options, ProgramName};
use weir_testkit::Namespace;

/// One hook of one of the lab's devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct At {
    device: usize,
    hook: Hook,
}

/// Where a container's packets come in, and where they leave for another one.
pub(crate) const FIRST: At = At { device: 0, hook: Hook::Ingress };
pub(crate) const SECOND: At = At { device: 1, hook: Hook::Egress };
/// A third hook on the same way, as of a bridge that is observed too.
pub(crate) const THIRD: At = At { device: 2, hook: Hook::Egress };
/// The way back.
pub(crate) const BACK_FIRST: At = At { device: 1, hook: Hook::Ingress };
pub(crate) const BACK_SECOND: At = At { device: 0, hook: Hook::Egress };

/// Loaded programs, and a network namespace with devices to name.
pub(crate) struct Lab {
    datapath: Datapath,
    table: FlowTable,
    devices: Vec<u32>,
}

/// Packets and bytes in no flow, by hook and reason.
pub(crate) type Tallies = BTreeMap<(HookId, TallyReason), Counters>;

/// Small, because looking at the whole table looks at every bucket.
pub(crate) const MAX_FLOWS: u32 = 64;

impl Lab {
    /// Runs `test` in a lab of its own.
    pub(crate) fn open(options: &Options, test: impl FnOnce(&mut Self) + Send) {
        let namespace = Namespace::new("packets");
        namespace.ip_batch("link add one type veth peer name two\nlink add three type veth peer name four\n");
        namespace.enter(|| {
            let datapath = Datapath::load(options).unwrap();
            let table = datapath.flow_table().unwrap();
            let devices = ["one", "two", "three"].map(index).to_vec();
            test(&mut Self { datapath, table, devices });
        });
    }

    /// With room for [`MAX_FLOWS`], and no event for each packet.
    pub(crate) fn open_plain(test: impl FnOnce(&mut Self) + Send) {
        Self::open(&Options { max_flows: MAX_FLOWS, packet_events: false }, test);
    }

    /// As the flow table and the tallies name the hook.
    pub(crate) fn hook(&self, at: At) -> HookId {
        HookId { ifindex: self.devices[at.device], hook: at.hook }
    }

    /// Runs a frame through the program of a hook, and holds it to what holds for
    /// every packet: go on, unchanged, counted exactly once (at a flow's point or
    /// in a tally), with the length that the device sees.
    #[track_caller]
    pub(crate) fn run(&self, at: At, frame: &[u8]) {
        self.run_in(at, true, frame);
    }

    /// The same without a link layer; see [`expect::without_link`](crate::expect::without_link).
    #[track_caller]
    pub(crate) fn run_ip(&self, at: At, frame: &[u8]) {
        self.run_in(at, false, frame);
    }

    #[track_caller]
    fn run_in(&self, at: At, ethernet: bool, frame: &[u8]) {
        let before = self.total();
        let program = ProgramName { hook: at.hook, ethernet };
        let run = self.datapath.test_run(program, self.devices[at.device], frame, 1).unwrap();
        assert_eq!(run.verdict, -1, "the verdict of {program} for {frame:02x?}");
        assert_eq!(run.frame, frame, "{program} changed a frame");
        let counted = self.total().since(before);
        let expected = Counters { packets: 1, bytes: frame.len() as u64 };
        assert_eq!(counted, expected, "what {program} counted of {frame:02x?}");
    }

    /// Runs a frame many times over.
    pub(crate) fn repeat(&self, at: At, frame: &[u8], times: u32) {
        let program = ProgramName { hook: at.hook, ethernet: true };
        self.datapath.test_run(program, self.devices[at.device], frame, times).unwrap();
    }

    /// All that stands in flows and tallies.
    fn total(&self) -> Counters {
        let mut total = Counters::default();
        for (_, entry) in self.flows() {
            for point in entry.directions.iter().flat_map(|direction| direction.points) {
                total += point.counters;
            }
        }
        for counters in self.tallies().into_values() {
            total += counters;
        }
        total
    }

    pub(crate) fn flows(&self) -> Vec<(FlowKey, FlowEntry)> {
        let mut flows = Vec::new();
        self.table.visit(|key, entry| flows.push((key, entry))).unwrap();
        flows
    }

    /// The entry of a flow that must be there.
    #[track_caller]
    pub(crate) fn flow(&self, key: &FlowKey) -> FlowEntry {
        self.table.read(key).unwrap().unwrap_or_else(|| panic!("no flow {key:?} in {:?}", self.flows()))
    }

    /// What a point of a direction counted.
    #[track_caller]
    pub(crate) fn point(&self, key: &FlowKey, side: Side, point: usize) -> (Option<HookId>, Counters) {
        let point = self.flow(key).directions[side.index()].points[point];
        (point.hook, point.counters)
    }

    pub(crate) fn tallies(&self) -> Tallies {
        self.table.tallies().unwrap()
    }

    pub(crate) fn tally(&self, at: At, reason: TallyReason) -> Counters {
        self.tallies().get(&(self.hook(at), reason)).copied().unwrap_or_default()
    }

    /// Takes every flow out of the table. Tallies stay.
    pub(crate) fn clear(&self) {
        for (key, _) in self.flows() {
            self.remove(&key);
        }
    }

    /// Takes one flow out of the table.
    pub(crate) fn remove(&self, key: &FlowKey) -> Option<FlowEntry> {
        self.table.remove(key).unwrap()
    }

    /// What is in the ring, through the real reader.
    pub(crate) fn events(&mut self) -> Vec<Event> {
        let events = Arc::new(Mutex::new(Vec::new()));
        let sink = events.clone();
        self.datapath.start_reader(move |batch| sink.lock().unwrap().extend(batch)).unwrap();
        self.datapath.stop_reader();
        let events = std::mem::take(&mut *events.lock().unwrap());
        assert_eq!(self.losses().undecodable, 0);
        events
    }

    pub(crate) fn losses(&self) -> EventLosses {
        self.datapath.losses()
    }
}

/// Whether BPF_PROG_TEST_RUN takes a frame: from Linux 6.13 on it refuses those
/// whose IP header is cut. Behind a VLAN tag it does not look.
pub(crate) fn runs(frame: &[u8]) -> bool {
    frame.len()
        >= match frame.get(12..14) {
            Some([0x08, 0x00]) => 14 + 20,
            Some([0x86, 0xdd]) => 14 + 40,
            _ => 14,
        }
}

/// The number of a device in this thread's network namespace.
pub(crate) fn index(device: &str) -> u32 {
    let name = CString::new(device).unwrap();
    // SAFETY: the name ends with a zero.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    assert_ne!(index, 0, "no device {device}");
    index
}
