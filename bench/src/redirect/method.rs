//! The ways to redirect.

use std::net::SocketAddr;

use anyhow::Result;
use weir_testkit::Daemon;

use super::host::Host;
use crate::observer::stop;
use crate::tables::Tables;

/// Who asks `asked` shall reach `server`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    pub(super) asked: SocketAddr,
    pub(super) server: SocketAddr,
}

/// How it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// Not at all: the client asks the server.
    Nothing,
    /// Shows how far two runs of the same lie apart: what is within it is noise.
    NothingAgain,
    Nftables,
    Iptables,
    /// By rules that stay in the kernel, with no weir running.
    Weir,
    /// Not redirected, but past the bridge: `weir run --accelerate`.
    Accelerate,
    /// Redirected while `weir run --accelerate` runs: from one bridge to another past the host's own tables.
    WeirAccelerated,
}

impl Method {
    /// For the table.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nothing | Self::NothingAgain => "no redirect",
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
            Self::Weir => "weir",
            Self::Accelerate => "no redirect, weir run --accelerate",
            Self::WeirAccelerated => "weir, weir run --accelerate",
        }
    }

    pub(super) fn redirects(self) -> bool {
        matches!(self, Self::Nftables | Self::Iptables | Self::Weir | Self::WeirAccelerated)
    }

    pub(super) fn apply(self, host: &Host, rule: Rule) -> Result<Applied<'_>> {
        let tables = host.tables()?;
        match self {
            Self::Nothing | Self::NothingAgain => {}
            Self::Nftables => tables.redirect_by_nftables(rule.asked, rule.server)?,
            Self::Iptables => tables.redirect_by_iptables(rule.asked, rule.server),
            Self::Weir => {
                redirect_by_weir(host, rule)?;
                return Ok(Applied { asked: rule.asked, tables, weir: Some((host, None)) });
            }
            Self::Accelerate | Self::WeirAccelerated => {
                let daemon = host.accelerate();
                if self == Self::WeirAccelerated {
                    redirect_by_weir(host, rule)?;
                }
                return Ok(Applied { asked: rule.asked, tables, weir: Some((host, Some(daemon))) });
            }
        }
        Ok(Applied { asked: rule.asked, tables, weir: None })
    }
}

fn redirect_by_weir(host: &Host, rule: Rule) -> Result<()> {
    let (asked, server) = (rule.asked.to_string(), rule.server.to_string());
    ["tcp", "udp"].into_iter().try_for_each(|protocol| {
        host.weir(&["redirect", "add", "--engine", "none", "--protocol", protocol, &asked, &server])
    })
}

/// It is in force.
pub(crate) struct Applied<'a> {
    asked: SocketAddr,
    tables: Tables<'a>,
    /// The host with weir's state, and the weir that runs, if one does.
    weir: Option<(&'a Host, Option<Daemon>)>,
}

impl Applied<'_> {
    /// The address that leads to the server.
    pub(crate) fn asked(&self) -> SocketAddr {
        self.asked
    }

    /// Nothing of it is left for the next turn.
    pub(crate) fn take_back(self) -> Result<()> {
        self.tables.empty();
        let Some((host, daemon)) = self.weir else { return Ok(()) };
        daemon.map_or(Ok(()), stop)?;
        host.weir(&["down"])
    }
}
