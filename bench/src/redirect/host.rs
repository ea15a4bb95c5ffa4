//! The hosts that redirects are measured on.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use weir_testkit::{Bpffs, Daemon, Topology};

use super::method::Method;
use crate::Plan;
use crate::observer::wait_until_attached;
use crate::tables::Tables;
use crate::workload::Folder;

const BRIDGE_NETFILTER: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// What lies between client and server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A bridge, and nothing else.
    Bridge,
    /// A bridge, and what Docker has on it by default: frames between two of its
    /// ports go through iptables and connection tracking.
    DockerBridge,
    /// Two bridges, routed; not filtered.
    TwoBridges,
}

impl Kind {
    /// Those that this kernel can be.
    pub(super) fn here() -> Vec<Self> {
        let mut kinds = vec![Self::Bridge, Self::TwoBridges];
        if Path::new(BRIDGE_NETFILTER).exists() {
            kinds.insert(1, Self::DockerBridge);
        }
        kinds
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Bridge => "one bridge",
            Self::DockerBridge => "one bridge, as Docker sets it up",
            Self::TwoBridges => "two bridges",
        }
    }

    pub(super) fn note(self) -> &'static str {
        match self {
            Self::Bridge => {
                "Bridge netfilter is off: nftables and iptables see no frame that goes from one port of the bridge to \
                 another. Weir takes its fast path, past the bridge."
            }
            Self::DockerBridge => {
                "Bridge netfilter is on, and Docker's rules of the filter and nat tables are there, so every frame \
                 passes connection tracking, redirected or not; but for weir's fast path, past the bridge."
            }
            Self::TwoBridges => {
                "The host routes between client and server and filters nothing: only nftables and iptables bring \
                 connection tracking with them."
            }
        }
    }

    /// What is compared there; the first is what the others are compared with.
    pub(super) fn methods(self) -> &'static [Method] {
        match self {
            Self::Bridge => &[Method::Nothing, Method::NothingAgain, Method::Weir, Method::Accelerate],
            Self::DockerBridge => &[
                Method::Nothing,
                Method::NothingAgain,
                Method::Nftables,
                Method::Iptables,
                Method::Weir,
                Method::Accelerate,
            ],
            Self::TwoBridges => &[
                Method::Nothing,
                Method::NothingAgain,
                Method::Nftables,
                Method::Iptables,
                Method::Weir,
                Method::WeirAccelerated,
            ],
        }
    }

    /// The least ratios of a method to no redirect and to nftables.
    pub(super) fn targets(self, method: Method) -> Option<(f64, Option<f64>)> {
        match (self, method) {
            (Self::Bridge, Method::Weir) => Some((1.20, None)),
            (Self::DockerBridge, Method::Weir) => Some((1.20, Some(1.30))),
            (Self::DockerBridge, Method::Accelerate) => Some((1.10, None)),
            (Self::TwoBridges, Method::Weir) => Some((0.97, Some(1.05))),
            (Self::TwoBridges, Method::WeirAccelerated) => Some((1.20, Some(1.30))),
            _ => None,
        }
    }
}

/// A host with the containers `client`, `front` and `server`.
pub(crate) struct Host {
    kind: Kind,
    topology: Topology,
    weir: PathBuf,
    /// For what weir pins: not the machine's own.
    bpffs: Bpffs,
    /// For the socket at which it answers.
    folder: Folder,
}

impl Host {
    pub(super) fn new(kind: Kind, plan: &Plan) -> Result<Self> {
        let topology = match kind {
            Kind::TwoBridges => {
                let mut topology = Topology::with_two_bridges();
                topology.add_container("client");
                topology.add_container_on_second_bridge("front");
                topology.add_container_on_second_bridge("server");
                topology
            }
            Kind::Bridge | Kind::DockerBridge => {
                let topology = Topology::with_containers(&["client", "front", "server"]);
                topology.host().sysctl("ipv4/ip_forward", "1");
                topology
            }
        };
        let (bpffs, folder) = (Bpffs::new(), Folder::new()?);
        let host = Self { kind, topology, weir: plan.weir.clone(), bpffs, folder };
        host.set_bridge_netfilter();
        Ok(host)
    }

    pub(crate) fn topology(&self) -> &Topology {
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

    /// Runs `weir` to its end.
    pub(super) fn weir(&self, args: &[&str]) -> Result<()> {
        let output = self.command(args).output().context("cannot run weir")?;
        if !output.status.success() {
            bail!("weir {}: {}{}", args.join(" "), String::from_utf8_lossy(&output.stderr), output.status);
        }
        Ok(())
    }

    /// `weir run --accelerate`, which watches.
    pub(super) fn accelerate(&self) -> Daemon {
        let daemon =
            Daemon::start("weir run", &mut self.command(&["run", "--engine", "none", "--accelerate"]));
        wait_until_attached(&daemon);
        daemon
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.topology.host().command(&self.weir);
        command.args(args).env("WEIR_BPFFS", self.bpffs.path());
        command.env("WEIR_SOCKET", self.folder.path().join("socket"));
        command
    }

    /// A new network namespace has it on where the kernel has it at all.
    fn set_bridge_netfilter(&self) {
        if Path::new(BRIDGE_NETFILTER).exists() {
            let value = if self.kind == Kind::DockerBridge { "1" } else { "0" };
            self.topology.host().sysctl("bridge/bridge-nf-call-iptables", value);
        }
    }
}
