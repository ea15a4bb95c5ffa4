//! The ways to redirect.

use std::net::SocketAddr;

use anyhow::Result;

use super::host::Host;
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
}

impl Method {
    /// For the table.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nothing | Self::NothingAgain => "no redirect",
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }

    pub(super) fn redirects(self) -> bool {
        !matches!(self, Self::Nothing | Self::NothingAgain)
    }

    pub(super) fn apply(self, host: &Host, rule: Rule) -> Result<Applied<'_>> {
        let tables = host.tables()?;
        match self {
            Self::Nothing | Self::NothingAgain => {}
            Self::Nftables => tables.redirect_by_nftables(rule.asked, rule.server)?,
            Self::Iptables => tables.redirect_by_iptables(rule.asked, rule.server),
        }
        Ok(Applied { tables })
    }
}

/// A redirect in force.
pub(super) struct Applied<'a> {
    tables: Tables<'a>,
}

impl Applied<'_> {
    /// Nothing of it is left for the next one's turn.
    pub(super) fn take_back(self) -> Result<()> {
        self.tables.empty();
        Ok(())
    }
}
