//! The loaded programs run on frames of the caller's own, without any device:
//! for tests and for measuring.

use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use libbpf_rs::libbpf_sys;

use crate::datapath::{Datapath, ProgramName};
use crate::skeleton::veth::types::__sk_buff;

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestRun {
    /// What the program returned to the kernel.
    pub verdict: i32,
    /// The frame as the program left it.
    pub frame: Vec<u8>,
    /// The mark that the program left on the packet.
    pub mark: u32,
    /// Mean time of one run.
    pub duration_ns: u32,
}

impl Datapath {
    /// Runs a program `repeat` times on `frame`, which the kernel wants to be 14
    /// bytes or longer. To the program it is at device `ifindex`, which must be
    /// in the network namespace of the calling thread.
    ///
    /// # Errors
    /// No such device, a program that is not loaded, a frame that is too short or too long, a missing privilege.
    pub fn test_run(
        &self,
        program: ProgramName,
        ifindex: u32,
        frame: &[u8],
        repeat: u32,
    ) -> io::Result<TestRun> {
        test_run(&self.loaded(program)?, ifindex, frame, repeat)
    }

    /// The same, once, for a packet with a mark.
    ///
    /// # Errors
    /// As there.
    pub fn test_run_marked(
        &self,
        program: ProgramName,
        ifindex: u32,
        frame: &[u8],
        mark: u32,
    ) -> io::Result<TestRun> {
        run(&self.loaded(program)?, [ifindex, mark], frame, 1)
    }

    fn loaded(&self, program: ProgramName) -> io::Result<BorrowedFd<'_>> {
        Ok(self.program(program).ok_or(io::ErrorKind::NotFound)?)
    }
}

/// As [`Datapath::test_run`], for any TC program.
///
/// # Errors
/// As there.
pub fn test_run(program: &impl AsFd, ifindex: u32, frame: &[u8], repeat: u32) -> io::Result<TestRun> {
    run(program, [ifindex, 0], frame, repeat)
}

fn run(program: &impl AsFd, [ifindex, mark]: [u32; 2], frame: &[u8], repeat: u32) -> io::Result<TestRun> {
    // As bytes: the kernel refuses a context whose padding is not zero.
    let mut context = [0u8; size_of::<__sk_buff>()];
    let mark_at = offset_of!(__sk_buff, mark)..offset_of!(__sk_buff, mark) + size_of::<u32>();
    for (field, value) in [(offset_of!(__sk_buff, ifindex), ifindex), (mark_at.start, mark)] {
        context[field..field + size_of::<u32>()].copy_from_slice(&value.to_ne_bytes());
    }
    let mut context_out = context;
    let mut out = vec![0; frame.len()];
    let length = u32::try_from(frame.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut options = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as libbpf_sys::size_t,
        data_in: frame.as_ptr().cast(),
        data_size_in: length,
        data_out: out.as_mut_ptr().cast(),
        data_size_out: length,
        ctx_in: context.as_mut_ptr().cast(),
        ctx_size_in: context.len() as u32,
        ctx_out: context_out.as_mut_ptr().cast(),
        ctx_size_out: context_out.len() as u32,
        repeat: i32::try_from(repeat).unwrap_or(i32::MAX),
        ..Default::default()
    };
    // SAFETY: the descriptor is a program's; data and context are valid for the
    // lengths given here and outlive the call.
    let status = unsafe { libbpf_sys::bpf_prog_test_run_opts(program.as_fd().as_raw_fd(), &raw mut options) };
    if status != 0 {
        return Err(io::Error::from_raw_os_error(-status));
    }
    out.truncate(options.data_size_out as usize);
    let mut mark = [0; size_of::<u32>()];
    mark.copy_from_slice(&context_out[mark_at]);
    Ok(TestRun {
        verdict: options.retval.cast_signed(),
        frame: out,
        mark: u32::from_ne_bytes(mark),
        duration_ns: options.duration,
    })
}
