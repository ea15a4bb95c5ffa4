//! Two namespaces and a cable between them.

use std::net::Ipv4Addr;

use libbpf_rs::{TC_EGRESS, TC_INGRESS, TcHookBuilder};
use weir_core::event::Hook;
use weir_kernel::PinDirectory;
use weir_kernel::attach::survey;
use weir_testkit::Namespace;
use weir_testkit::traffic::ping;

use crate::program::Counting;

const HOST: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const HOST_MAC: &str = "02:00:00:00:09:01";
const FAR: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const FAR_MAC: &str = "02:00:00:00:09:02";

/// The interface that weir is attached to is `v0` in `host`; the other end is in `far`.
pub(crate) struct Wire {
    pub(crate) host: Namespace,
    far: Namespace,
}

impl Wire {
    /// Nothing passes but what the tests send: no IPv6, no ARP.
    pub(crate) fn new() -> Self {
        let wire = Self { host: Namespace::new("host"), far: Namespace::new("far") };
        for namespace in [&wire.host, &wire.far] {
            namespace.sysctl("ipv6/conf/default/disable_ipv6", "1");
        }
        wire.host.ip_batch(&format!(
            "link add v0 address {HOST_MAC} type veth peer name e0 address {FAR_MAC} netns {}\n\
             addr add {HOST}/24 dev v0\nlink set v0 up\nneigh add {FAR} lladdr {FAR_MAC} dev v0\n",
            wire.far.name()
        ));
        wire.far.ip_batch(&format!(
            "addr add {FAR}/24 dev e0\nlink set e0 up\nneigh add {HOST} lladdr {HOST_MAC} dev e0\n"
        ));
        wire
    }

    /// Sends packets both ways; each must arrive.
    pub(crate) fn ping(&self) {
        ping(&self.far, HOST, 2, 56);
    }

    /// Names of what is attached at `v0`, with its hook, in the order in which it runs.
    pub(crate) fn attached(&self) -> Vec<(Hook, String)> {
        self.host.enter(|| {
            let found = survey(index("v0"), &PinDirectory::default()).unwrap();
            found.into_iter().map(|program| (program.hook, program.name)).collect()
        })
    }

    pub(crate) fn has_clsact(&self) -> bool {
        self.host.run("tc", &["qdisc", "show", "dev", "v0"]).contains("clsact")
    }
}

/// The interface's number in the network namespace of this thread.
pub(crate) fn index(name: &str) -> u32 {
    let name = std::ffi::CString::new(name).unwrap();
    // SAFETY: the name ends with a NUL.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    assert_ne!(index, 0, "no interface {name:?}");
    index
}

/// Somebody else's filter at `v0` of this thread's namespace, made by libbpf, with the qdisc if there is none.
pub(crate) fn other_filter(program: &Counting, hook: Hook, priority: u32, handle: u32) {
    let point = match hook {
        Hook::Ingress => TC_INGRESS,
        Hook::Egress => TC_EGRESS,
    };
    let mut builder = TcHookBuilder::new(program.fd());
    builder.ifindex(index("v0").cast_signed()).handle(handle).priority(priority);
    let mut hook = builder.hook(point);
    // libbpf prints the kernel's answer when there is a qdisc already.
    libbpf_rs::set_print(None);
    hook.create().unwrap();
    hook.attach().unwrap();
}
