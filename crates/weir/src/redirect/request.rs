//! What is asked of whoever keeps the rules, and the answers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use weir_core::redirect::{Clients, Concern, Match, RuleName, Source, Targets, Transport, Warning};

use super::ssh;
use crate::cli::{AddArgs, RedirectCommand};

/// Something to do with the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    /// `weir redirect add`.
    Add(Box<Draft>),
    /// `weir redirect list`.
    List,
    /// `weir redirect show`.
    Show(String),
    /// `weir redirect remove`.
    Remove(Vec<String>),
    /// `weir redirect remove --all`.
    RemoveAll,
}

/// A rule that is to be added: see [`weir_core::redirect::Rule`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Draft {
    /// None: weir finds one.
    pub(crate) name: Option<RuleName>,
    pub(crate) protocol: Option<Transport>,
    pub(crate) from: Option<Clients>,
    pub(crate) asked: Match,
    pub(crate) target: Targets,
    pub(crate) source: Option<Source>,
    /// How long the rule is to last.
    pub(crate) lasts: Option<Duration>,
    /// Only say what it would do.
    pub(crate) dry_run: bool,
    /// The value of SSH_CONNECTION where the user sits, unless they do not mind.
    pub(crate) ssh_connection: Option<String>,
}

impl Request {
    /// What the user typed.
    pub(crate) fn new(command: &RedirectCommand) -> Self {
        match command {
            RedirectCommand::Add(arguments) => Self::Add(Box::new(Draft::new(arguments))),
            RedirectCommand::List(_) => Self::List,
            RedirectCommand::Show(arguments) => Self::Show(arguments.name.clone()),
            RedirectCommand::Remove(arguments) if arguments.all => Self::RemoveAll,
            RedirectCommand::Remove(arguments) => Self::Remove(arguments.names.clone()),
        }
    }
}

impl Draft {
    fn new(arguments: &AddArgs) -> Self {
        Self {
            name: arguments.name.clone(),
            protocol: arguments.protocol,
            from: arguments.from.clone(),
            asked: arguments.asked.clone(),
            target: arguments.target.clone(),
            source: arguments.source,
            lasts: arguments.for_,
            dry_run: arguments.dry_run,
            ssh_connection: ssh::connection(arguments).filter(|_| !arguments.yes),
        }
    }
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// To [`Request::Add`]: the rule as it is now, or would be, and what the user
    /// should know.
    Added(Box<RuleStatus>, Vec<Warning>),
    /// To [`Request::List`].
    Rules(Vec<RuleStatus>),
    /// To [`Request::Show`].
    Rule(Box<RuleStatus>),
    /// To [`Request::Remove`] and [`Request::RemoveAll`]: their names.
    Removed(Vec<String>),
}

/// A rule in force, and what it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct RuleStatus {
    /// What it is called.
    pub(crate) name: RuleName,
    /// `tcp`, `udp`, `sctp` or `any`.
    pub(crate) protocol: String,
    /// Clients that it is limited to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<Clients>,
    /// What they ask for.
    #[serde(rename = "match")]
    pub(crate) asked: Match,
    /// What they get.
    pub(crate) target: Targets,
    /// What the server sees as client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<Source>,
    /// When it was added.
    pub(crate) added: Timestamp,
    /// When it ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expires: Option<Timestamp>,
    /// Addresses that it stands for now; empty: it has no effect.
    pub(crate) addresses: Vec<AddressStatus>,
    /// What is to be known of it, and why it has no effect.
    #[serde(serialize_with = "texts")]
    pub(crate) warnings: Vec<Concern>,
    /// Connections that were redirected.
    pub(crate) hits: u64,
    /// What these have brought, both ways, those that have ended too.
    pub(crate) bytes: u64,
    /// New connections that were not, by the reason.
    pub(crate) refused: BTreeMap<String, u64>,
    /// Redirected connections that are open.
    pub(crate) live_connections: u64,
}

fn texts<S: Serializer>(concerns: &[Concern], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(concerns.iter().map(ToString::to_string))
}

/// One of the addresses that a rule stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct AddressStatus {
    /// What clients ask.
    pub(crate) address: IpAddr,
    /// Nobody has it.
    #[serde(rename = "virtual")]
    pub(crate) is_virtual: bool,
    /// Who answers; empty: nobody, new connections are refused.
    pub(crate) targets: Vec<TargetStatus>,
}

/// One of the targets of an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct TargetStatus {
    /// Where.
    pub(crate) address: IpAddr,
    /// The port for the first that is asked for; none: as asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<u16>,
    /// Its part of the new connections, of 251.
    pub(crate) slots: usize,
}
