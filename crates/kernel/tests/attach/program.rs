//! Tiny TC programs that count their runs and let the next program run.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libbpf_rs::libbpf_sys as sys;
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType};
use weir_core::event::Hook;
use weir_kernel::ProgramName;
use weir_kernel::attach::{Attacher, Method};

/// `return TC_ACT_UNSPEC`, which is also TCX_NEXT.
pub(crate) const NEXT: i32 = -1;

pub(crate) struct Counting {
    fd: OwnedFd,
    map: MapHandle,
}

impl Counting {
    /// Loads a program of that name which adds 1 to a counter and returns `verdict`.
    pub(crate) fn load(name: &str, verdict: i32) -> Self {
        let options = sys::bpf_map_create_opts {
            sz: size_of::<sys::bpf_map_create_opts>() as sys::size_t,
            ..Default::default()
        };
        let map = MapHandle::create(MapType::Array, Some("runs"), 4, 8, 1, &options).unwrap();
        let instruction = |code: u32, dst: u8, src: u8, imm: i32| {
            let mut instruction = sys::bpf_insn { code: code as u8, imm, ..Default::default() };
            instruction.set_dst_reg(dst);
            instruction.set_src_reg(src);
            instruction
        };
        let map_value = sys::BPF_PSEUDO_MAP_VALUE as u8;
        let program = [
            // r1 = &runs[0], two slots; r2 = 1; lock *(u64 *)r1 += r2
            instruction(sys::BPF_LD | sys::BPF_DW | sys::BPF_IMM, 1, map_value, map.as_fd().as_raw_fd()),
            instruction(0, 0, 0, 0),
            instruction(sys::BPF_ALU64 | sys::BPF_MOV | sys::BPF_K, 2, 0, 1),
            instruction(sys::BPF_STX | sys::BPF_DW | sys::BPF_ATOMIC, 1, 2, sys::BPF_ADD as i32),
            instruction(sys::BPF_ALU64 | sys::BPF_MOV | sys::BPF_K, 0, 0, verdict),
            instruction(sys::BPF_JMP | sys::BPF_EXIT, 0, 0, 0),
        ];
        let name = CString::new(name).unwrap();
        // SAFETY: the name is NUL-terminated, the instructions are `len` long, and no options are given.
        let fd = unsafe {
            sys::bpf_prog_load(
                sys::BPF_PROG_TYPE_SCHED_CLS,
                name.as_ptr(),
                c"GPL".as_ptr(),
                program.as_ptr(),
                program.len() as sys::size_t,
                std::ptr::null_mut(),
            )
        };
        assert!(fd >= 0, "loading {name:?}: {}", std::io::Error::from_raw_os_error(-fd));
        // SAFETY: a new descriptor, which nobody else owns.
        Self { fd: unsafe { OwnedFd::from_raw_fd(fd) }, map }
    }

    pub(crate) fn runs(&self) -> u64 {
        let value = self.map.lookup(&0u32.to_ne_bytes(), MapFlags::ANY).unwrap().unwrap();
        u64::from_ne_bytes(value.try_into().unwrap())
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// weir's four programs, each with a count of its own.
pub(crate) struct Weir(Vec<(ProgramName, Counting)>);

impl Weir {
    pub(crate) fn load() -> Self {
        let load = |name: ProgramName| (name, Counting::load(&name.to_string(), NEXT));
        Self(ProgramName::ALL.into_iter().map(load).collect())
    }

    pub(crate) fn program(&self, name: ProgramName) -> &Counting {
        &self.0.iter().find(|(known, _)| *known == name).unwrap().1
    }

    /// An attacher of these programs in this thread's network namespace.
    pub(crate) fn attacher(&self, method: Method) -> Attacher {
        Attacher::new(method, |name| Some(self.program(name).fd())).unwrap()
    }

    /// Runs at ingress and at egress of Ethernet devices.
    pub(crate) fn runs(&self) -> (u64, u64) {
        let runs = |hook| self.program(ProgramName { hook, ethernet: true }).runs();
        (runs(Hook::Ingress), runs(Hook::Egress))
    }
}
