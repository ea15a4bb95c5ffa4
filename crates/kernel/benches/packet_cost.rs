//! What one packet costs in the kernel: the programs through BPF_PROG_TEST_RUN,
//! with an empty program as zero. Needs root. Rounds are interleaved, so that
//! whatever else the machine does meets all rows alike; medians are printed.
//!
//!     cargo bench -p weir-kernel

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used, reason = "a benchmark of our own")]

use std::ffi::CStr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Instant;

use etherparse::PacketBuilder;
use libbpf_rs::libbpf_sys;
use weir_core::event::Hook;
use weir_kernel::{Datapath, Options, ProgramName, test_run};

/// Rounds over all rows, and runs of the program in each of them.
const ROUNDS: usize = 41;
const REPEAT: u32 = 200_000;
/// Flows that are opened to time a first packet; far below the table's size.
const OPENINGS: u32 = 20_000;
/// Loopback: there in every network namespace.
const IFINDEX: u32 = 1;

const INGRESS: ProgramName = ProgramName { hook: Hook::Ingress, ethernet: true };

struct Row {
    name: &'static str,
    /// Nanoseconds a packet, one for each round.
    measure: Box<dyn FnMut() -> f64>,
    samples: Vec<f64>,
}

impl Row {
    fn new(name: &'static str, measure: impl FnMut() -> f64 + 'static) -> Self {
        Self { name, measure: Box::new(measure), samples: Vec::new() }
    }

    /// Packets of a flow that is in the table already.
    fn known(name: &'static str, packet_events: bool, frame: Vec<u8>) -> Self {
        let datapath = load(packet_events);
        // Nobody takes packet events out of the ring, which is soon full: the
        // row without it has that cost too, and the drained one is a bound from above.
        Self::new(name, move || {
            f64::from(datapath.test_run(INGRESS, IFINDEX, &frame, REPEAT).unwrap().duration_ns)
        })
    }

    fn median(&mut self) -> f64 {
        self.samples.sort_by(f64::total_cmp);
        self.samples[self.samples.len() / 2]
    }
}

fn load(packet_events: bool) -> Datapath {
    Datapath::load(&Options { max_flows: 65_536, packet_events }).expect("the programs load (as root)")
}

/// A TC program that does nothing but let the next one run.
fn empty_program() -> OwnedFd {
    const NAME: &CStr = c"empty";
    const LICENCE: &CStr = c"GPL";
    let instruction =
        |code: u8, imm: i32| libbpf_sys::bpf_insn { code, imm, ..libbpf_sys::bpf_insn::default() };
    // r0 = -1; exit
    let instructions = [instruction(0xb7, -1), instruction(0x95, 0)];
    // SAFETY: name, licence and instructions outlive the call; no options.
    let fd = unsafe {
        libbpf_sys::bpf_prog_load(
            libbpf_sys::BPF_PROG_TYPE_SCHED_CLS,
            NAME.as_ptr(),
            LICENCE.as_ptr(),
            instructions.as_ptr(),
            instructions.len() as libbpf_sys::size_t,
            std::ptr::null_mut(),
        )
    };
    assert!(fd >= 0, "the empty program does not load (as root): {fd}");
    // SAFETY: just opened, and owned by nobody else.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn frame(builder: etherparse::PacketBuilderStep<etherparse::TcpHeader>) -> Vec<u8> {
    let mut frame = Vec::new();
    builder.write(&mut frame, &[0; 100]).unwrap();
    frame
}

fn tcp4() -> Vec<u8> {
    frame(
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .tcp(43122, 80, 1, 1000)
            .ack(1),
    )
}

fn tcp6() -> Vec<u8> {
    let address = |last| [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
    frame(
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv6(address(1), address(2), 64)
            .tcp(43122, 80, 1, 1000)
            .ack(1),
    )
}

fn udp4() -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .udp(5000, 5001)
        .write(&mut frame, &[0; 18])
        .unwrap();
    frame
}

fn arp() -> Vec<u8> {
    let mut frame = vec![0; 42];
    frame[12..14].copy_from_slice(&[0x08, 0x06]);
    frame
}

/// Every frame another flow, one run of the program each: the time of the
/// system call is taken out by running the empty program the same way.
fn first_packet() -> Row {
    let empty = empty_program();
    let table = load(false);
    let mut next = 0u32;
    let flows = table.flow_table().unwrap();
    let mut frame = tcp4();
    Row::new("first packet of a flow (insert, event)", move || {
        let mut time = |program: &dyn Fn(&[u8])| {
            let start = Instant::now();
            for port in next..next + OPENINGS {
                frame[34..36].copy_from_slice(&(port as u16).to_be_bytes());
                program(&frame);
            }
            start.elapsed().as_nanos() as f64 / f64::from(OPENINGS)
        };
        let bare = time(&|frame| {
            test_run(&empty, IFINDEX, frame, 1).unwrap();
        });
        let opening = time(&|frame| {
            table.test_run(INGRESS, IFINDEX, frame, 1).unwrap();
        });
        next = (next + OPENINGS) % 40_000;
        let mut keys = Vec::new();
        flows.visit(|key, _| keys.push(key)).unwrap();
        for key in keys {
            flows.remove(&key).unwrap();
        }
        opening - bare
    })
}

fn main() {
    let empty = empty_program();
    assert!(empty.as_raw_fd() >= 0);
    let zero_frame = tcp4();
    let mut rows = vec![
        Row::new("empty program", move || {
            f64::from(test_run(&empty, IFINDEX, &zero_frame, REPEAT).unwrap().duration_ns)
        }),
        Row::known("known flow, TCP over IPv4", false, tcp4()),
        Row::known("known flow, TCP over IPv6", false, tcp6()),
        Row::known("known flow, UDP over IPv4", false, udp4()),
        Row::known("no flow (ARP)", false, arp()),
        Row::known("known flow, TCP over IPv4, ring full of packet events", true, tcp4()),
        first_packet(),
    ];
    for _ in 0..ROUNDS {
        for row in &mut rows {
            let sample = (row.measure)();
            row.samples.push(sample);
        }
    }
    let zero = rows[0].median();
    println!("{:<56} {:>7} {:>12}", "one packet, median", "ns", "above empty");
    for row in &mut rows {
        let median = row.median();
        println!("{:<56} {median:>7.0} {:>12.0}", row.name, median - zero);
    }
}
