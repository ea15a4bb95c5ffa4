//! `weir read`.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{AuditFilterArgs, FilterArgs, OutputArgs, RevealArgs, StatsArgs, parse_duration};

/// `weir read`.
#[derive(Debug, Args)]
#[command(
    mut_arg("interface", |arg| arg.help("Read what was captured at these interfaces, by name or pattern, where the file names them")),
    mut_arg("from", |arg| arg.help("The client: address, range, name that a DNS answer gave, `host` (loopback), `world` or `multicast`, with or without `:port`")),
    mut_arg("protocol", |arg| arg.help("Requests: http, redis, dns, ...; flows and packets: tcp, udp, icmp, ... or an IANA number")),
    mut_arg("state", |arg| arg.help("Flows: new, established, closing, closed, reset or idle")),
    mut_arg("since", |arg| arg.help("What began since then: an age (5m) or a time (RFC 3339)")),
    mut_arg("container", |arg| arg.hide(true)),
    mut_arg("service", |arg| arg.hide(true)),
    mut_arg("verdict", |arg| arg.hide(true)),
    after_help = "Examples:
  weir read trace.pcap                          every request, with its answer
  weir read --protocol http --status 5xx old.pcapng.gz new.pcapng
  tcpdump -w - port 80 | weir read -            as it is captured
  weir read trace.pcap --slow 100ms --not --path '/health*' -o jsonl
  weir read trace.pcap --stats --by route       how many, how many failed, how long they took
  weir read trace.pcap --flows --state reset    connections, as weir observe tells them
  weir read trace.pcap --flows --updates 1s     and how far they are, each second of the capture
  weir read trace.pcapng --packets --interface eth0 --protocol icmp
Needs no root. Several files are read one after the other, as one capture, by its time.
Filters repeat (either may match) and combine (all must match); --not before one turns it round."
)]
pub struct ReadArgs {
    /// Captures to read, gzipped or not; `-` is standard input.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// Which requests to print.
    #[command(flatten)]
    pub audit: AuditFilterArgs,

    /// Between whom.
    #[command(flatten)]
    pub filters: FilterArgs,

    /// Print flows in place of requests, as `weir observe` does: each when it begins and when it ends.
    #[arg(
        long,
        conflicts_with_all = ["stats", "AuditFilterArgs", "RevealArgs"],
        help_heading = "Output"
    )]
    pub flows: bool,

    /// With --flows: also report a living flow when its counters moved, this often (1s, 500ms) by the
    /// capture's time.
    #[arg(long, requires = "flows", conflicts_with_all = ["packets", "stats"], value_parser = parse_duration, value_name = "INTERVAL", help_heading = "Output")]
    pub updates: Option<Duration>,

    /// Print packets in place of requests, as `weir observe --packets` does.
    #[arg(
        long,
        conflicts_with_all = ["flows", "stats", "AuditFilterArgs", "RevealArgs"],
        help_heading = "Output"
    )]
    pub packets: bool,

    /// Print sums of the requests in place of them: how many, how many failed, how long they took.
    #[arg(long, conflicts_with = "last", help_heading = "Sums")]
    pub stats: bool,

    /// By what to sum up.
    #[command(flatten)]
    pub sums: StatsArgs,

    /// What records may show.
    #[command(flatten)]
    pub reveal: RevealArgs,

    /// How to print them.
    #[command(flatten)]
    pub output: OutputArgs,

    /// Read no further than so long after the first packet (30s, 5m), by the capture's time.
    #[arg(long = "for", value_parser = parse_duration, value_name = "TIME", help_heading = "When to end")]
    pub for_: Option<Duration>,

    /// With --flows or --packets: room for this many flows at a time [default: 262144].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(16..=16_777_216), help_heading = "Memory")]
    pub max_flows: Option<u32>,

    /// What a file cannot have.
    #[command(flatten)]
    pub live_only: LiveOnlyArgs,
}

/// Options of `weir observe` and `weir audit` that make no sense for a file. They are
/// known only to say why.
#[derive(Debug, Args)]
pub struct LiveOnlyArgs {
    /// Programs.
    #[arg(long, hide = true, value_parser = no_programs)]
    attach: Option<Infallible>,
    /// Names.
    #[arg(long, hide = true, value_parser = no_engine)]
    engine: Option<Infallible>,
    /// Pins.
    #[arg(long, hide = true, value_parser = no_programs)]
    bpffs: Option<Infallible>,
    /// The weir that runs.
    #[arg(long, hide = true, value_parser = no_weir)]
    socket: Option<Infallible>,
    /// Payload.
    #[arg(long, hide = true, value_parser = no_copies)]
    max_turn: Option<Infallible>,
    /// Payload.
    #[arg(long, hide = true, value_parser = no_copies)]
    max_connection: Option<Infallible>,
    /// Payload.
    #[arg(long, hide = true, value_parser = no_copies)]
    payload_ring: Option<Infallible>,
}

fn no_programs(_: &str) -> Result<Infallible, &'static str> {
    Err("this is about programs in the kernel, and a file is read without any")
}

fn no_engine(_: &str) -> Result<Infallible, &'static str> {
    Err("a container engine knows who has which address now and here, not when and where a file was captured")
}

fn no_weir(_: &str) -> Result<Infallible, &'static str> {
    Err("this is about the weir that runs, and a file is read without it")
}

fn no_copies(_: &str) -> Result<Infallible, &'static str> {
    Err("this limits how much payload is copied out of the kernel, and a file has what it has")
}
