//! The command line: what the user typed, checked.

mod audit;
mod filters;
mod output;
mod read;
mod redirect;
mod reveal;
mod state;
mod stats;

use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use audit::{AuditArgs, AuditStats, PayloadArgs, RequestsArgs};
pub use filters::{AuditFilterArgs, FilterArgs, expand_not};
pub use output::{ColorChoice, OutputArgs};
pub use read::ReadArgs;
pub use redirect::{
    AddArgs, ListArgs, RedirectArgs, RedirectCommand, RedirectHostArgs, RemoveArgs, RuleFormat, ShowArgs,
};
pub use reveal::RevealArgs;
pub use state::StateArgs;
pub use stats::StatsArgs;

use crate::containers::EngineChoice;

/// Sees the traffic of a container host, and bends it.
#[derive(Debug, Parser)]
#[command(name = "weir", version, about, max_term_width = 100, subcommand_required = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show live flows, one line each.
    Observe(Box<ObserveArgs>),
    /// Show live requests (HTTP, Redis, PostgreSQL, ...), one line each.
    Audit(Box<AuditArgs>),
    /// Read requests, flows or packets out of capture files (pcap, pcapng), one line each.
    Read(Box<ReadArgs>),
    /// Send connections elsewhere: rules for ports and addresses.
    Redirect(RedirectArgs),
    /// Keep redirects: follow containers, name addresses, answer the other commands.
    Run(RunArgs),
    /// Tell what this host can do, what is missing, and who is attached where.
    Doctor(DoctorArgs),
    /// Take everything of weir's off this host: redirects, and what killed weirs have left.
    Down(DownArgs),
}

/// `weir doctor`.
#[derive(Debug, Args)]
#[command(after_help = "The exit code is 0 if `weir observe` works here, 3 if this user is not permitted,
4 if the kernel lacks something, 1 if it fails for another reason.")]
pub struct DoctorArgs {
    /// How to print what is found.
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub output: DoctorFormat,

    /// Which container engine to ask: `auto` (Docker, then Podman), `none`, or a socket.
    #[arg(long, default_value = "auto", value_name = "ENGINE", value_parser = parse_engine)]
    pub engine: EngineChoice,

    /// Where its state is.
    #[command(flatten)]
    pub state: StateArgs,
}

/// How `weir doctor` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DoctorFormat {
    /// For people.
    Text,
    /// One JSON object: works, checks, attached.
    Json,
}

/// `weir down`.
#[derive(Debug, Args)]
#[command(
    after_help = "Redirects hold whether a weir runs or not; this ends them, and connections that they carry
break. `weir observe` takes everything off by itself when it ends; what remains after a kill -9, on
kernels without TCX, the next start removes, or this command. Programs of others are never touched."
)]
pub struct DownArgs {
    /// Also take off what belongs to a weir that is still running.
    #[arg(long)]
    pub force: bool,

    /// Where its state is.
    #[command(flatten)]
    pub state: StateArgs,
}

/// `weir observe`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  weir observe                                  every flow of every container
  weir observe --service shop/web --not --port 53
  weir observe --from world --to web --state reset
  weir observe --updates 1s -o jsonl --for 30s
  weir observe --interface eth0 --packets --protocol icmp
Filters repeat (either may match) and combine (all must match); --not before one turns it round.")]
pub struct ObserveArgs {
    /// Which records to print.
    #[command(flatten)]
    pub filters: FilterArgs,

    /// How to print them.
    #[command(flatten)]
    pub output: OutputArgs,

    /// Also report a living flow when its counters moved, this often (1s, 500ms).
    #[arg(long, value_parser = parse_duration, value_name = "INTERVAL", help_heading = "Output")]
    pub updates: Option<Duration>,

    /// Print each packet instead of each flow.
    #[arg(long, help_heading = "Output")]
    pub packets: bool,

    /// End after this time (30s, 5m).
    #[arg(long = "for", value_parser = parse_duration, value_name = "TIME", help_heading = "When to end")]
    pub for_: Option<Duration>,

    /// How to watch this host.
    #[command(flatten)]
    pub host: HostArgs,
}

/// How to watch this host.
#[derive(Debug, Args)]
pub struct HostArgs {
    /// How to get at the packets.
    #[arg(long, value_enum, default_value = "auto", value_name = "METHOD", help_heading = "Host")]
    pub attach: AttachChoice,

    /// Where names come from: `auto` (Docker, then Podman), `none`, or a socket.
    #[arg(long, default_value = "auto", value_name = "ENGINE", value_parser = parse_engine, help_heading = "Host")]
    pub engine: EngineChoice,

    /// Room for this many flows in the kernel [default: 262144, less on small hosts].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(16..=16_777_216), help_heading = "Host")]
    pub max_flows: Option<u32>,

    /// Where state is that outlives it.
    #[command(flatten)]
    pub state: StateArgs,
}

impl HostArgs {
    /// Whether nothing was said that another weir that runs may do otherwise.
    pub(crate) fn is_as_it_is(&self) -> bool {
        self.attach == AttachChoice::Auto && self.max_flows.is_none() && self.engine == EngineChoice::Auto
    }
}

/// `weir run`.
#[derive(Debug, Args)]
#[command(
    after_help = "What it keeps is pinned in the BPF file system: rules hold and redirected connections go on when
it ends, however it ends. The next `weir run` takes over, of a newer version too. `weir down` ends all."
)]
pub struct RunArgs {
    /// How to get at the packets.
    #[arg(long, value_enum, default_value = "auto", value_name = "METHOD", help_heading = "Host")]
    pub attach: AttachChoice,

    /// Where names come from: `auto` (Docker, then Podman), `none`, or a socket.
    #[arg(long, default_value = "auto", value_name = "ENGINE", value_parser = parse_engine, help_heading = "Host")]
    pub engine: EngineChoice,

    /// Room for this many flows in the kernel [default: as it is, or 262144, less on small hosts].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(16..=16_777_216), help_heading = "Host")]
    pub max_flows: Option<u32>,

    /// Deliver packets between two containers of one bridge straight into the other's namespace,
    /// redirected or not, and redirected ones between two bridges: past the host's own rules about
    /// them, such as those by which Docker keeps networks apart.
    #[arg(long, help_heading = "Host")]
    pub accelerate: bool,

    /// Where its state is.
    #[command(flatten)]
    pub state: StateArgs,
}

/// How to get at the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AttachChoice {
    /// TCX where the kernel has it and interfaces are few, else clsact.
    Auto,
    /// BPF links in the kernel's own chain of programs (Linux 6.6).
    Tcx,
    /// Filters of a clsact qdisc.
    Clsact,
}

/// `30s`, `500ms`, `5m`, `1h30m`; more than nothing.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let explain = || format!("{text:?} is not a duration: write 30s, 500ms, 5m or 1h30m");
    let duration: jiff::SignedDuration = text.parse().map_err(|_| explain())?;
    match Duration::try_from(duration) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err(explain()),
    }
}

fn parse_engine(text: &str) -> Result<EngineChoice, String> {
    match text {
        "auto" => Ok(EngineChoice::Auto),
        "none" => Ok(EngineChoice::None),
        "" => Err("name a socket, or `auto`, or `none`".into()),
        socket => Ok(EngineChoice::Socket(socket.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_are_read_with_their_unit() {
        assert_eq!(parse_duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        for bad in ["", "30", "-1s", "0s", "soon"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
