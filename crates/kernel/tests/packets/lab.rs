//! Where frames meet the programs.

use std::ffi::CString;
use std::fs::File;
use std::num::NonZeroU32;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

use weir_core::capture::{Frames, PayloadSeen, Wanted};
use weir_core::event::{Event, Hook, HookId};
use weir_core::flow::{Counters, FlowEntry, FlowKey, Side};
use weir_core::loss::{EventLosses, Tallies, TallyReason};
use weir_kernel::{AuditOptions, Captures, Datapath, FlowTable, Options, PayloadListener, ProgramName};

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

/// Small, because looking at the whole table looks at every bucket.
const MAX_FLOWS: u32 = 64;

/// The ring for payload, and what is copied of a turn.
pub(crate) const PAYLOAD_RING_BYTES: u32 = 128 << 10;
pub(crate) const TURN_BYTES_MAX: u32 = 100_000;

/// A record of payload, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) hook: HookId,
    pub(crate) key: FlowKey,
    pub(crate) from: Side,
    pub(crate) client: Option<Side>,
    pub(crate) first_seq: [Option<u32>; 2],
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) peer_next_seq: u32,
    pub(crate) tcp_flags: u8,
    pub(crate) payload_bytes: u32,
    pub(crate) payload: Vec<u8>,
    pub(crate) left_out_bytes: u32,
    pub(crate) frame_chain: Option<NonZeroU32>,
}

struct Collector(Arc<Mutex<Vec<Piece>>>);

impl PayloadListener for Collector {
    fn payload(&mut self, seen: &PayloadSeen<'_>, _captures: &Captures) {
        self.0.lock().unwrap().push(Piece {
            hook: seen.seen.hook,
            key: seen.seen.key,
            from: seen.from,
            client: seen.client,
            first_seq: seen.first_seq,
            seq: seen.seq,
            ack: seen.ack,
            peer_next_seq: seen.peer_next_seq,
            tcp_flags: seen.tcp_flags,
            payload_bytes: seen.payload_bytes,
            payload: seen.payload.to_vec(),
            left_out_bytes: seen.left_out_bytes,
            frame_chain: seen.frame_chain,
        });
    }

    fn rest(&mut self, _captures: &Captures) {}

    fn idle(&mut self, _captures: &Captures) {}

    fn finish(&mut self) {}
}

/// Loaded programs, and a network namespace with devices to name. Loading takes
/// half a second here and far more on an emulated machine, so that tests share
/// labs, one after the other; each finds an empty table and counters of zero.
pub(crate) struct Lab {
    datapath: Datapath,
    table: FlowTable,
    /// Goes with the last descriptor of it.
    namespace: File,
    devices: Vec<u32>,
    /// What stood there when the running test began.
    tallied: Tallies,
    lost: EventLosses,
}

impl Lab {
    /// Runs `test` without events for each packet.
    pub(crate) fn plain(test: impl FnOnce(&mut Self) + Send) {
        static LAB: OnceLock<Mutex<Lab>> = OnceLock::new();
        Self::shared(
            &LAB,
            &Options { max_flows: MAX_FLOWS, packet_events: false, ..Options::default() },
            test,
        );
    }

    /// Runs `test` with an event for each packet.
    pub(crate) fn with_packet_events(test: impl FnOnce(&mut Self) + Send) {
        static LAB: OnceLock<Mutex<Lab>> = OnceLock::new();
        Self::shared(
            &LAB,
            &Options { max_flows: MAX_FLOWS, packet_events: true, ..Options::default() },
            test,
        );
    }

    /// Runs `test` with payload copied.
    pub(crate) fn with_payload(test: impl FnOnce(&mut Self) + Send) {
        static LAB: OnceLock<Mutex<Lab>> = OnceLock::new();
        let audit = AuditOptions { ring_bytes: PAYLOAD_RING_BYTES, turn_bytes_max: Some(TURN_BYTES_MAX) };
        let options =
            Options { max_flows: MAX_FLOWS, packet_events: false, audit: Some(audit), ..Options::default() };
        Self::shared(&LAB, &options, |lab| {
            lab.copy_payload(true);
            test(lab);
        });
    }

    /// Whether payload is copied, and flows that began before are joined late.
    pub(crate) fn copy_payload(&mut self, wanted: bool) {
        self.datapath.copy_payload(wanted);
    }

    /// Runs `test` with a table of this size.
    pub(crate) fn with_table_of(max_flows: u32, test: impl FnOnce(&mut Self) + Send) {
        Self::shared(
            &OnceLock::new(),
            &Options { max_flows, packet_events: true, ..Options::default() },
            test,
        );
    }

    fn shared(lab: &OnceLock<Mutex<Self>>, options: &Options, test: impl FnOnce(&mut Self) + Send) {
        let lab = lab.get_or_init(|| Mutex::new(Self::set_up(options)));
        thread::scope(|scope| {
            // The namespace is the thread's, so that it ends with the test.
            let run = scope.spawn(|| {
                // A test that failed has poisoned it, and left nothing that the next does not clear.
                let mut lab = lab.lock().unwrap_or_else(PoisonError::into_inner);
                lab.enter();
                lab.begin();
                test(&mut lab);
            });
            if let Err(panic) = run.join() {
                std::panic::resume_unwind(panic);
            }
        });
    }

    fn set_up(options: &Options) -> Self {
        let devices = thread::spawn(|| {
            // SAFETY: takes no pointers, and moves this thread only.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "a network namespace of its own");
            for (one, other) in [("one", "two"), ("three", "four")] {
                let made = Command::new("ip")
                    .args(["link", "add", one, "type", "veth", "peer", "name", other])
                    .status()
                    .unwrap();
                assert!(made.success());
            }
            (File::open("/proc/thread-self/ns/net").unwrap(), ["one", "two", "three"].map(index).to_vec())
        });
        let (namespace, devices) = devices.join().unwrap();
        let datapath = Datapath::load(&Options { without_ethernet: true, ..options.clone() }).unwrap();
        let table = datapath.flow_table().unwrap();
        Self { datapath, table, namespace, devices, tallied: Tallies::new(), lost: EventLosses::default() }
    }

    /// Moves this thread to where the devices are; running a frame asks for it.
    pub(crate) fn enter(&self) {
        // SAFETY: the descriptor is open; only this thread moves.
        assert_eq!(unsafe { libc::setns(self.namespace.as_raw_fd(), libc::CLONE_NEWNET) }, 0);
    }

    /// Leaves nothing of the test before.
    fn begin(&mut self) {
        self.clear();
        self.events();
        self.payloads();
        self.tallied = self.table.tallies().unwrap();
        self.lost = self.datapath.losses();
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
        self.run_all(at, ethernet, [frame]);
    }

    /// The same for many frames: the table is looked at before the first and
    /// after the last. Looking at it for each takes long on an emulated machine.
    #[track_caller]
    pub(crate) fn run_all<'a>(&self, at: At, ethernet: bool, frames: impl IntoIterator<Item = &'a [u8]>) {
        let before = self.total();
        let program = ProgramName { hook: at.hook, ethernet };
        let mut expected = Counters::default();
        let mut last = None;
        for frame in frames {
            let run = self.datapath.test_run(program, self.devices[at.device], frame, 1).unwrap();
            assert_eq!(run.verdict, -1, "the verdict of {program} for {frame:02x?}");
            assert_eq!(run.frame, frame, "{program} changed a frame");
            expected += Counters { packets: 1, bytes: frame.len() as u64 };
            last = Some(frame);
        }
        let counted = self.total().since(before);
        assert_eq!(counted, expected, "what {program} counted, up to {last:02x?}");
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

    /// What was tallied in this test.
    pub(crate) fn tallies(&self) -> Tallies {
        let mut tallies = self.table.tallies().unwrap();
        tallies.retain(|key, counters| {
            *counters = counters.since(self.tallied.get(key).copied().unwrap_or_default());
            counters.packets > 0
        });
        tallies
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
        assert_eq!(self.datapath.losses().undecodable, 0);
        std::mem::take(&mut *events.lock().unwrap())
    }

    /// What is in the payload ring, through the real reader.
    pub(crate) fn payloads(&mut self) -> Vec<Piece> {
        let pieces = Arc::new(Mutex::new(Vec::new()));
        self.datapath.start_payload_reader(Collector(pieces.clone())).unwrap();
        self.datapath.stop_payload_reader();
        assert_eq!(self.datapath.losses().undecodable, 0);
        std::mem::take(&mut *pieces.lock().unwrap())
    }

    /// Tells the programs what is wanted of a flow that is in the table.
    pub(crate) fn want(&self, key: &FlowKey, skip_until_seq: [Option<u32>; 2], off: bool) {
        self.tell_wanted(key, &Wanted { skip_until_seq, off, ..self.all_wanted(key) });
    }

    /// The same of frames.
    pub(crate) fn want_frames(&self, key: &FlowKey, frames: [Option<Frames>; 2]) {
        self.tell_wanted(key, &Wanted { frames, ..self.all_wanted(key) });
    }

    fn all_wanted(&self, key: &FlowKey) -> Wanted {
        let flow_first_ns = self.flow(key).first_ns;
        Wanted { flow_first_ns, skip_until_seq: [None; 2], frames: [None; 2], off: false }
    }

    fn tell_wanted(&self, key: &FlowKey, wanted: &Wanted) {
        self.datapath.captures().unwrap().want(key, wanted).unwrap();
    }

    /// Takes back all that [`Lab::want`] said of a flow.
    pub(crate) fn forget_wanted(&self, key: &FlowKey) {
        self.datapath.captures().unwrap().forget(key).unwrap();
    }

    /// A count of [`EventLosses::named`] in this test.
    pub(crate) fn lost(&self, name: &str) -> u64 {
        let count = |losses: &EventLosses| {
            losses.named().into_iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("{name}")).1
        };
        count(&self.datapath.losses()) - count(&self.lost)
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
