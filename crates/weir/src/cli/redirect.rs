//! `weir redirect`: what the user typed.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use weir_core::redirect::{Clients, Match, RuleName, Source, Targets, Transport};

use super::state::StateArgs;
use super::{parse_duration, parse_engine};
use crate::containers::EngineChoice;

/// `weir redirect`.
#[derive(Debug, Args)]
pub struct RedirectArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: RedirectCommand,
}

/// What can be done with redirects.
#[derive(Debug, Subcommand)]
pub enum RedirectCommand {
    /// Send connections elsewhere from now on.
    Add(Box<AddArgs>),
    /// List the rules, and what became of them.
    List(ListArgs),
    /// Show one rule, with the addresses that it stands for now.
    Show(ShowArgs),
    /// Remove rules. Connections that are redirected stay so until they end.
    Remove(RemoveArgs),
}

/// `weir redirect add`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  weir redirect add web:8080 :80                     another port of a container that runs
  weir redirect add web:80 api:8080 --from shop/web  only for some clients
  weir redirect add 10.99.0.1:80 web-v1=9,web-v2=1   an address that nobody has, shared 9 to 1
  weir redirect add web:8000-8099 api:9000-9099      port by port
  weir redirect add --protocol udp '[fd00::3]:53' '[fd00::4]:5353' --for 10m
  weir redirect add db:5432 :5432 --source 10.9.9.9  what the server sees as client
The most specific rule wins: one port before a range before all ports, then with --from before
without, then one protocol before any. Connections that are open stay as they are.")]
pub struct AddArgs {
    /// What clients ask for: a container, a compose service or an address, and a port or a range
    /// of ports; without a port, everything that is sent to the address.
    #[arg(value_name = "MATCH")]
    pub asked: Match,

    /// Where to: `:80` (another port), `api:8080`, `172.18.0.4`, or several, with their weights.
    #[arg(value_name = "TARGET")]
    pub target: Targets,

    /// What to call the rule [default: redirect-N].
    #[arg(long, value_name = "NAME")]
    pub name: Option<RuleName>,

    /// tcp, udp or sctp [default: tcp, and everything where MATCH has no port].
    #[arg(long, value_name = "PROTOCOL")]
    pub protocol: Option<Transport>,

    /// Only for these clients: a container, a compose service, `host`, an address or a range.
    #[arg(long, value_name = "WHO")]
    pub from: Option<Clients>,

    /// What the server sees as the client's address.
    #[arg(long, value_name = "ADDRESS")]
    pub source: Option<Source>,

    /// End the rule after this time (10m, 1h30m), whether weir runs then or not.
    #[arg(long = "for", value_parser = parse_duration, value_name = "TIME")]
    pub for_: Option<Duration>,

    /// Check it and say what it would do, and do nothing.
    #[arg(long)]
    pub dry_run: bool,

    /// Keep the rule in force only as long as this command runs.
    #[arg(long, conflicts_with = "dry_run")]
    pub foreground: bool,

    /// Add it even if it takes new SSH connections like yours elsewhere.
    #[arg(long)]
    pub yes: bool,

    /// The SSH connection of the user who types this, for the weir that runs.
    #[arg(long, env = "SSH_CONNECTION", hide = true, overrides_with = "ssh_connection")]
    pub ssh_connection: Option<String>,

    /// Where the rules are.
    #[command(flatten)]
    pub host: RedirectHostArgs,
}

/// `weir redirect list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// How to print them.
    #[arg(short, long, value_enum, default_value = "table", value_name = "FORMAT")]
    pub output: RuleFormat,

    /// Where the rules are.
    #[command(flatten)]
    pub host: RedirectHostArgs,
}

/// `weir redirect show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Which rule.
    pub name: String,

    /// How to print it.
    #[arg(short, long, value_enum, default_value = "table", value_name = "FORMAT")]
    pub output: RuleFormat,

    /// Where the rules are.
    #[command(flatten)]
    pub host: RedirectHostArgs,
}

/// `weir redirect remove`.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// Which rules.
    #[arg(required_unless_present = "all")]
    pub names: Vec<String>,

    /// All of them.
    #[arg(long, conflicts_with = "names")]
    pub all: bool,

    /// Where the rules are.
    #[command(flatten)]
    pub host: RedirectHostArgs,
}

/// What every command about redirects needs.
#[derive(Debug, Clone, Args)]
pub struct RedirectHostArgs {
    /// Where names come from: `auto` (Docker, then Podman), `none`, or a socket.
    #[arg(long, default_value = "auto", value_name = "ENGINE", value_parser = parse_engine, help_heading = "Host")]
    pub engine: EngineChoice,

    /// Where the state is.
    #[command(flatten)]
    pub state: StateArgs,
}

/// How rules are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RuleFormat {
    /// For people.
    Table,
    /// JSON: an array of rules, or one.
    Json,
}

impl RedirectCommand {
    /// Where the rules are.
    #[must_use]
    pub fn host(&self) -> &RedirectHostArgs {
        match self {
            Self::Add(arguments) => &arguments.host,
            Self::List(arguments) => &arguments.host,
            Self::Show(arguments) => &arguments.host,
            Self::Remove(arguments) => &arguments.host,
        }
    }
}
