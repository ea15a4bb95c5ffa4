//! What is attached to a device's TC hooks, and a program of somebody else's to
//! attach there. Straight system calls: nothing here shares code with weir.

mod filter;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::Namespace;

pub(crate) use filter::replace_programs;

const BPF_MAP_CREATE: u32 = 0;
const BPF_MAP_LOOKUP_ELEM: u32 = 1;
const BPF_PROG_LOAD: u32 = 5;
const BPF_OBJ_PIN: u32 = 6;
const BPF_PROG_QUERY: u32 = 16;
const BPF_LINK_CREATE: u32 = 28;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;

/// One of the two hooks of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Frames that the device received.
    Ingress,
    /// Frames that it is to send.
    Egress,
}

impl Hook {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Ingress, Self::Egress];

    /// As `tc` calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    /// `BPF_TCX_INGRESS`, `BPF_TCX_EGRESS`.
    fn attach_type(self) -> u32 {
        match self {
            Self::Ingress => 46,
            Self::Egress => 47,
        }
    }
}

/// How many TCX programs are attached to `device` at `hook`. None where the
/// kernel has no TCX.
#[track_caller]
#[must_use]
pub fn tcx_programs(namespace: &Namespace, device: &str, hook: Hook) -> usize {
    namespace.enter(|| {
        let mut ids = [0u32; 64];
        let mut query = ProgQuery {
            target_ifindex: interface_index(device),
            attach_type: hook.attach_type(),
            prog_ids: ids.as_mut_ptr() as u64,
            count: 64,
            ..Default::default()
        };
        match bpf(BPF_PROG_QUERY, &mut query) {
            Ok(_) => query.count as usize,
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => 0,
            Err(e) => panic!("cannot list TCX programs of {device}: {e}"),
        }
    })
}

/// The BPF filters at `device`'s clsact qdisc, one line of `tc filter show` each.
#[track_caller]
#[must_use]
pub fn filters(namespace: &Namespace, device: &str, hook: Hook) -> Vec<String> {
    let text = namespace.run("tc", &["filter", "show", "dev", device, hook.name()]);
    text.lines().filter(|line| line.contains(" handle ")).map(str::to_owned).collect()
}

/// Whether `device` has a clsact qdisc.
#[track_caller]
#[must_use]
pub fn has_clsact(namespace: &Namespace, device: &str) -> bool {
    namespace.run("tc", &["qdisc", "show", "dev", device]).contains("clsact")
}

/// A program of somebody else's: counts packets and lets the next one decide.
#[derive(Debug)]
pub struct CountingProgram {
    program: OwnedFd,
    map: OwnedFd,
    /// Keeps it attached with TCX.
    links: Vec<OwnedFd>,
}

impl Default for CountingProgram {
    fn default() -> Self {
        Self::load()
    }
}

impl CountingProgram {
    /// Loads it; it counts nothing until it is attached.
    #[must_use]
    pub fn load() -> Self {
        // Before Linux 5.11 maps and programs are counted as locked memory.
        let unlimited = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: a pointer to a struct that lives across the call. Where it is
        // refused it is not needed.
        unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const unlimited) };
        let mut create =
            MapCreate { map_type: BPF_MAP_TYPE_ARRAY, key_size: 4, value_size: 8, max_entries: 1 };
        let map = descriptor(bpf(BPF_MAP_CREATE, &mut create).expect("an array is made"));
        // code, registers (source << 4 | destination), offset, immediate
        let instructions: [(u8, u8, i16, i32); 11] = [
            (0x62, 0x0a, -4, 0),              // *(u32 *)(r10 - 4) = 0
            (0xbf, 0xa2, 0, 0),               // r2 = r10
            (0x07, 0x02, 0, -4),              // r2 += -4
            (0x18, 0x11, 0, map.as_raw_fd()), // r1 = map
            (0x00, 0x00, 0, 0),               // (second half)
            (0x85, 0x00, 0, 1),               // r0 = bpf_map_lookup_elem(r1, r2)
            (0x15, 0x00, 2, 0),               // if r0 == 0 skip two
            (0xb7, 0x01, 0, 1),               // r1 = 1
            (0xdb, 0x10, 0, 0),               // lock *(u64 *)r0 += r1
            (0xb7, 0x00, 0, -1),              // r0 = TC_ACT_UNSPEC: the next one decides
            (0x95, 0x00, 0, 0),               // return r0
        ];
        let bytes: Vec<u8> = instructions
            .iter()
            .flat_map(|&(code, registers, offset, immediate)| {
                let mut instruction = vec![code, registers];
                instruction.extend(offset.to_ne_bytes());
                instruction.extend(immediate.to_ne_bytes());
                instruction
            })
            .collect();
        let license = c"GPL";
        let mut load = ProgLoad {
            prog_type: BPF_PROG_TYPE_SCHED_CLS,
            insn_cnt: u32::try_from(instructions.len()).expect("few"),
            insns: bytes.as_ptr() as u64,
            license: license.as_ptr() as u64,
            prog_name: *b"somebody_else\0\0\0",
            ..Default::default()
        };
        let program =
            descriptor(bpf(BPF_PROG_LOAD, &mut load).expect("the verifier takes eleven instructions"));
        Self { program, map, links: Vec::new() }
    }

    /// Attaches it with TCX, for as long as it lives. False: the kernel has no TCX.
    #[track_caller]
    pub fn attach_tcx(&mut self, namespace: &Namespace, device: &str, hook: Hook) -> bool {
        let program = self.program.as_raw_fd().cast_unsigned();
        let created = namespace.enter(|| {
            let mut create = LinkCreate {
                prog_fd: program,
                target_ifindex: interface_index(device),
                attach_type: hook.attach_type(),
                ..Default::default()
            };
            bpf(BPF_LINK_CREATE, &mut create)
        });
        match created {
            Ok(link) => {
                self.links.push(descriptor(link));
                true
            }
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => false,
            Err(e) => panic!("cannot attach to {device}: {e}"),
        }
    }

    /// Attaches it by `tc filter`, as the filter `handle 1` of this preference.
    /// Needs a clsact qdisc there.
    #[track_caller]
    pub fn attach_filter(&self, namespace: &Namespace, device: &str, hook: Hook, preference: u16) {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // The only way to hand a program to tc is by a name in bpffs.
        let path =
            format!("/sys/fs/bpf/weir-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let name = CString::new(path.as_str()).expect("no zero in it");
        let mut pin = ObjPin {
            pathname: name.as_ptr() as u64,
            bpf_fd: self.program.as_raw_fd().cast_unsigned(),
            file_flags: 0,
        };
        bpf(BPF_OBJ_PIN, &mut pin).unwrap_or_else(|e| panic!("cannot pin {path}: {e}"));
        let mut command = namespace.command("tc");
        command.args([
            "filter",
            "add",
            "dev",
            device,
            hook.name(),
            "pref",
            &preference.to_string(),
            "handle",
            "1",
        ]);
        let output = command.args(["bpf", "da", "object-pinned", &path]).output().expect("tc runs");
        std::fs::remove_file(&path).expect("the pin can be removed");
        assert!(output.status.success(), "tc filter: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Packets that it has seen.
    #[must_use]
    pub fn packets(&self) -> u64 {
        let (key, mut value) = (0u32, 0u64);
        let mut lookup = MapLookup {
            map_fd: self.map.as_raw_fd().cast_unsigned(),
            key: &raw const key as u64,
            value: &raw mut value as u64,
            ..Default::default()
        };
        bpf(BPF_MAP_LOOKUP_ELEM, &mut lookup).expect("the array has element 0");
        value
    }
}

// The beginnings of `union bpf_attr`, one for each command.

#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

#[repr(C)]
#[derive(Default)]
struct MapLookup {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

#[repr(C)]
struct ObjPin {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct ProgQuery {
    target_ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    count: u32,
    padding: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
    relative_fd: u32,
    padding: u32,
    expected_revision: u64,
}

fn bpf<T>(command: u32, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: `attributes` is a prefix of union bpf_attr, of the size that is
    // told; the pointers in it are to memory that the callers own and that
    // lives across the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), std::mem::size_of::<T>())
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(i32::try_from(result).expect("a descriptor"))
    }
}

fn descriptor(number: i32) -> OwnedFd {
    // SAFETY: the kernel has just made it, for the caller alone.
    unsafe { OwnedFd::from_raw_fd(number) }
}

#[track_caller]
fn interface_index(device: &str) -> u32 {
    let name = CString::new(device).expect("no zero in a device's name");
    // SAFETY: `name` is a string that ends in zero.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    assert_ne!(index, 0, "no device {device} here");
    index
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Topology, traffic};

    #[test]
    fn root_a_program_counts_and_is_listed() {
        crate::require_root!();
        let topology = Topology::with_containers(&["web", "db"]);
        let host = topology.host();
        let mut tcx = CountingProgram::load();
        let filter = CountingProgram::load();
        host.run("tc", &["qdisc", "add", "dev", "veth-web", "clsact"]);
        filter.attach_filter(host, "veth-web", Hook::Ingress, 10);
        let has_tcx = tcx.attach_tcx(host, "veth-web", Hook::Ingress);

        let before = topology.counters("web");
        traffic::ping(topology.container("web").namespace(), topology.container("db").ipv4(), 3, 56);
        let received = (topology.counters("web") - before).rx_packets;
        assert!(received >= 3);
        assert_eq!(filter.packets(), received);
        assert_eq!(tcx.packets(), if has_tcx { received } else { 0 });

        assert!(has_clsact(host, "veth-web") && !has_clsact(host, "veth-db"));
        assert_eq!(filters(host, "veth-web", Hook::Ingress).len(), 1);
        assert_eq!(filters(host, "veth-web", Hook::Egress).len(), 0);
        assert_eq!(tcx_programs(host, "veth-web", Hook::Ingress), usize::from(has_tcx));
        assert_eq!(tcx_programs(host, "veth-web", Hook::Egress), 0);
        drop(tcx);
        assert_eq!(tcx_programs(host, "veth-web", Hook::Ingress), 0);
    }
}
