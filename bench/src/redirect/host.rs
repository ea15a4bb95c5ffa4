//! The hosts that redirects are measured on.

use anyhow::Result;
use weir_testkit::Topology;

use super::method::Method;
use crate::tables::Tables;

/// What lies between client and server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A bridge, and what Docker has on it by default: frames between two of its
    /// ports go through iptables and connection tracking.
    DockerBridge,
    /// Two bridges, routed; not filtered.
    TwoBridges,
}

impl Kind {
    /// Those that this kernel can be.
    pub(super) fn here() -> Vec<Self> {
        let mut kinds = vec![Self::TwoBridges];
        if std::path::Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables").exists() {
            kinds.insert(0, Self::DockerBridge);
        }
        kinds
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::DockerBridge => "one bridge, as Docker sets it up",
            Self::TwoBridges => "two bridges",
        }
    }

    pub(super) fn note(self) -> &'static str {
        match self {
            Self::DockerBridge => {
                "Bridge netfilter is on, and Docker's rules of the filter and nat tables are there, so every frame \
                 passes connection tracking, redirected or not."
            }
            Self::TwoBridges => {
                "The host routes between client and server and filters nothing: only nftables and iptables bring \
                 connection tracking with them."
            }
        }
    }

    /// What is compared there; the first is what the others are compared with.
    pub(super) fn methods(self) -> &'static [Method] {
        &[Method::Nothing, Method::NothingAgain, Method::Nftables, Method::Iptables]
    }
}

/// A host with the containers `client`, `front` and `server`.
pub(super) struct Host {
    kind: Kind,
    topology: Topology,
}

impl Host {
    pub(super) fn new(kind: Kind) -> Self {
        let topology = match kind {
            Kind::TwoBridges => {
                let mut topology = Topology::with_two_bridges();
                topology.add_container("client");
                topology.add_container_on_second_bridge("front");
                topology.add_container_on_second_bridge("server");
                topology
            }
            Kind::DockerBridge => {
                let topology = Topology::with_containers(&["client", "front", "server"]);
                topology.host().sysctl("ipv4/ip_forward", "1");
                topology
            }
        };
        let host = Self { kind, topology };
        host.set_bridge_netfilter();
        host
    }

    pub(super) fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The tables as they are without any redirect.
    pub(super) fn tables(&self) -> Result<Tables<'_>> {
        let tables = Tables::new(self.topology.host());
        if self.kind == Kind::DockerBridge {
            tables.fill_like_docker()?;
        }
        Ok(tables)
    }

    /// A new network namespace has it on where the kernel has it at all.
    fn set_bridge_netfilter(&self) {
        if std::path::Path::new("/proc/sys/net/bridge").exists() {
            let value = if self.kind == Kind::DockerBridge { "1" } else { "0" };
            self.topology.host().sysctl("bridge/bridge-nf-call-iptables", value);
        }
    }
}
