//! Other programs on the same hooks: they keep working while weir comes, runs
//! and goes, and weir sees what they see.

use weir_testkit::tc::{self, CountingProgram, Hook};
use weir_testkit::traffic;
use weir_testkit::{Namespace, Topology, require_root};

use crate::weir::{Weir, number};

const DEVICE: &str = "veth-web";
const PINGS: usize = 4;

/// A program of somebody else's on each hook of `DEVICE`.
struct Others {
    ingress: CountingProgram,
    egress: CountingProgram,
}

impl Others {
    fn with_tcx(host: &Namespace) -> Option<Self> {
        let mut others = Self { ingress: CountingProgram::load(), egress: CountingProgram::load() };
        let attached = others.ingress.attach_tcx(host, DEVICE, Hook::Ingress)
            && others.egress.attach_tcx(host, DEVICE, Hook::Egress);
        attached.then_some(others)
    }

    fn with_filters(host: &Namespace, preference: u16) -> Self {
        if !tc::has_clsact(host, DEVICE) {
            host.run("tc", &["qdisc", "add", "dev", DEVICE, "clsact"]);
        }
        let others = Self { ingress: CountingProgram::load(), egress: CountingProgram::load() };
        others.ingress.attach_filter(host, DEVICE, Hook::Ingress, preference);
        others.egress.attach_filter(host, DEVICE, Hook::Egress, preference);
        others
    }

    fn packets(&self) -> [u64; 2] {
        [self.ingress.packets(), self.egress.packets()]
    }
}

/// Pings from web to the host, seen by all of `others` and, if there is one, by weir.
#[track_caller]
fn assert_all_see(topology: &Topology, others: &[&Others], weir: Option<Weir>) {
    let before: Vec<_> = others.iter().map(|others| others.packets()).collect();
    traffic::ping(topology.container("web").namespace(), Topology::HOST_IPV4, PINGS, 56);
    for (others, before) in others.iter().zip(before) {
        let now = others.packets();
        for hook in 0..2 {
            // Neighbour discovery may be among them.
            assert!(now[hook] >= before[hook] + PINGS as u64, "{before:?} {now:?}");
        }
    }
    if let Some(weir) = weir {
        let run = weir.finish();
        let flow = run.flow(|flow| flow["protocol"] == "icmp");
        assert_eq!((number(&flow["sent_packets"]), number(&flow["received_packets"])), (4, 4), "{flow}");
    }
}

fn listed(host: &Namespace) -> Vec<(usize, Vec<String>)> {
    Hook::BOTH
        .iter()
        .map(|&hook| (tc::tcx_programs(host, DEVICE, hook), tc::filters(host, DEVICE, hook)))
        .collect()
}

fn beside(attach: &str) {
    let topology = Topology::with_containers(&["web"]);
    let host = topology.host();
    let filters = Others::with_filters(host, 7);
    let tcx = Others::with_tcx(host);
    let mut others: Vec<&Others> = std::iter::once(&filters).chain(tcx.as_ref()).collect();
    let before = listed(host);
    assert_all_see(&topology, &others, None);

    let weir = Weir::observe(host, &["--attach", attach]);
    assert_ne!(listed(host), before, "weir is attached");
    // One more that comes later.
    let later = Others::with_filters(host, 8);
    others.push(&later);
    assert_all_see(&topology, &others, Some(weir));

    assert_all_see(&topology, &others, None);
    host.run("tc", &["filter", "del", "dev", DEVICE, "ingress", "pref", "8"]);
    host.run("tc", &["filter", "del", "dev", DEVICE, "egress", "pref", "8"]);
    assert_eq!(listed(host), before, "only weir's own is gone");
    assert!(tc::has_clsact(host, DEVICE), "a qdisc that others use stays");
}

#[test]
fn root_beside_others_by_default() {
    require_root!();
    beside("auto");
}

#[test]
fn root_beside_others_with_clsact() {
    require_root!();
    beside("clsact");
}

/// weir makes the qdisc, somebody else uses it too, weir goes first.
#[test]
fn root_a_qdisc_of_weirs_that_others_came_to_use_stays() {
    require_root!();
    let topology = Topology::with_containers(&["web"]);
    let host = topology.host();
    let weir = Weir::observe(host, &["--attach", "clsact"]);
    let others = Others::with_filters(host, 7);
    assert_all_see(&topology, &[&others], Some(weir));
    assert_eq!(tc::filters(host, DEVICE, Hook::Ingress).len(), 1);
    assert_all_see(&topology, &[&others], None);
}
