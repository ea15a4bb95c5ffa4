//! Programs to measure with, instruction by instruction.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result, bail, ensure};
use libbpf_rs::libbpf_sys::{self, bpf_insn};
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType};
use weir_kernel::test_run;

/// What is written anew: the headers of TCP over IPv4, in words of 8 bytes.
const RENEWED_BYTES: usize = 56;

fn instruction(code: u8, (to, from): (u8, u8), offset: i16, imm: i32) -> bpf_insn {
    let mut instruction = bpf_insn { code, off: offset, imm, ..Default::default() };
    instruction.set_dst_reg(to);
    instruction.set_src_reg(from);
    instruction
}

/// `to = value`.
fn set(to: u8, value: i32) -> bpf_insn {
    instruction(0xb7, (to, 0), 0, value)
}

/// `to = from`.
fn copy(to: u8, from: u8) -> bpf_insn {
    instruction(0xbf, (to, from), 0, 0)
}

fn call(helper: u32) -> bpf_insn {
    instruction(0x85, (0, 0), 0, helper.cast_signed())
}

fn exit() -> bpf_insn {
    instruction(0x95, (0, 0), 0, 0)
}

/// A TC program that does nothing but let the next one run.
pub(super) fn empty_program() -> Result<OwnedFd> {
    load(&[set(0, -1), exit()])
}

/// What the renewing program returns if it could not go on.
const STOPPED: i32 = 2;

/// A TC program that writes the beginning of a frame into its packet, and goes on as another program. One that
/// translates can be run so many times: it gets the same packet each time.
pub(super) struct Renewing {
    program: OwnedFd,
    /// Whom it goes on as: emptied by the kernel when nobody holds it.
    _next: MapHandle,
}

impl Renewing {
    /// Mean time of so many runs on `frame`, in nanoseconds.
    pub(super) fn run(&self, ifindex: u32, frame: &[u8], repeat: u32) -> Result<f64> {
        let run = test_run(&self.program, ifindex, frame, repeat)?;
        ensure!(run.verdict != STOPPED, "the measured program did not run");
        Ok(f64::from(run.duration_ns))
    }
}

/// For that program and the headers of that frame.
pub(super) fn renewing(program: &impl AsFd, frame: &[u8]) -> Result<Renewing> {
    let options = libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
        ..Default::default()
    };
    let next = MapHandle::create(MapType::ProgArray, Some("next"), 4, 4, 1, &options)?;
    let fd = program.as_fd().as_raw_fd();
    next.update(&[0; 4], &fd.to_ne_bytes(), MapFlags::ANY).context("the program cannot be gone on as")?;

    let headers = frame.get(..RENEWED_BYTES).context("a frame is shorter than its headers")?;
    let mut instructions = vec![copy(6, 1)];
    for (word, offset) in headers.chunks_exact(8).zip((-(RENEWED_BYTES as i16)..0).step_by(8)) {
        let (low, high) = word.split_at(4);
        let half = |bytes: &[u8]| bytes.try_into().map(i32::from_ne_bytes);
        // *(u64 *)(r10 + offset) = word
        instructions.push(instruction(0x18, (1, 0), 0, half(low)?));
        instructions.push(instruction(0, (0, 0), 0, half(high)?));
        instructions.push(instruction(0x7b, (10, 1), offset, 0));
    }
    // bpf_skb_store_bytes(context, 0, r10 - RENEWED_BYTES, RENEWED_BYTES, 0)
    instructions.extend([copy(1, 6), set(2, 0), copy(3, 10)]);
    instructions.push(instruction(0x07, (3, 0), 0, -(RENEWED_BYTES as i32)));
    instructions.extend([set(4, RENEWED_BYTES as i32), set(5, 0)]);
    instructions.push(call(libbpf_sys::BPF_FUNC_skb_store_bytes));
    // bpf_tail_call(context, next, 0)
    instructions.push(copy(1, 6));
    let map = libbpf_sys::BPF_PSEUDO_MAP_FD as u8;
    instructions.push(instruction(0x18, (2, map), 0, next.as_fd().as_raw_fd()));
    instructions.push(instruction(0, (0, 0), 0, 0));
    instructions.extend([set(3, 0), call(libbpf_sys::BPF_FUNC_tail_call), set(0, STOPPED), exit()]);
    Ok(Renewing { program: load(&instructions)?, _next: next })
}

fn load(instructions: &[bpf_insn]) -> Result<OwnedFd> {
    // SAFETY: name, licence and instructions outlive the call; no options.
    let fd = unsafe {
        libbpf_sys::bpf_prog_load(
            libbpf_sys::BPF_PROG_TYPE_SCHED_CLS,
            c"measuring".as_ptr(),
            c"GPL".as_ptr(),
            instructions.as_ptr(),
            instructions.len() as libbpf_sys::size_t,
            std::ptr::null_mut(),
        )
    };
    if fd < 0 {
        bail!("a program to measure with does not load: {}", std::io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: just opened, and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
