//! `weir audit`.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{AuditFilterArgs, FilterArgs, HostArgs, OutputArgs, RevealArgs, StatsArgs, parse_duration};

/// `weir audit`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_help_heading = "Instead of requests",
    subcommand_value_name = "WHAT",
    disable_help_subcommand = true,
    after_help = "Examples:
  weir audit                                    every request of every container, with its answer
  weir audit --to shop/db --statement 'DELETE*'
  weir audit --status 5xx --not --path '/health*'
  weir audit --slow 100ms --errors -o jsonl --for 5m
  weir audit stats --by route --for 1m          how many, how many failed, how long they took
Filters repeat (either may match) and combine (all must match); --not before one turns it round."
)]
pub struct AuditArgs {
    /// In place of the requests.
    #[command(subcommand)]
    pub instead: Option<AuditStats>,

    /// Which requests.
    #[command(flatten)]
    pub requests: RequestsArgs,
}

impl AuditArgs {
    /// Which requests, printed or summed up.
    #[must_use]
    pub fn requests(&self) -> &RequestsArgs {
        match &self.instead {
            Some(AuditStats::Stats { requests, .. }) => requests,
            None => &self.requests,
        }
    }
}

/// What `weir audit` can tell in place of the requests.
#[derive(Debug, Subcommand)]
pub enum AuditStats {
    /// Sums of the requests, at the end: how many, how many failed, how long they took.
    Stats {
        /// By what to sum up.
        #[command(flatten)]
        sums: StatsArgs,

        /// Which requests.
        #[command(flatten)]
        requests: Box<RequestsArgs>,
    },
}

/// Which requests, and how they are found and printed.
#[derive(Debug, Args)]
#[command(
    mut_arg("protocol", |arg| arg.help("The application protocol: http, redis, dns, ...")),
    mut_arg("since", |arg| arg.help("Requests that began since then: an age (5m) or a time (RFC 3339)")),
    // Requests have none.
    mut_arg("state", |arg| arg.hide(true)),
)]
pub struct RequestsArgs {
    /// Which requests to print.
    #[command(flatten)]
    pub audit: AuditFilterArgs,

    /// Between whom.
    #[command(flatten)]
    pub filters: FilterArgs,

    /// What records may show.
    #[command(flatten)]
    pub reveal: RevealArgs,

    /// How to print them.
    #[command(flatten)]
    pub output: OutputArgs,

    /// End after this time (30s, 5m).
    #[arg(long = "for", value_parser = parse_duration, value_name = "TIME", help_heading = "When to end")]
    pub for_: Option<Duration>,

    /// How to watch this host.
    #[command(flatten)]
    pub host: HostArgs,

    /// How much to read.
    #[command(flatten)]
    pub payload: PayloadArgs,
}

/// How much payload is read.
#[derive(Debug, Clone, Args)]
pub struct PayloadArgs {
    /// Of what one end says before the other one speaks, copy no more than this (64KiB, 1MiB); lengths
    /// stay exact [default: all that is not skipped].
    #[arg(long, value_name = "SIZE", value_parser = parse_turn, help_heading = "Payload")]
    pub max_turn: Option<u32>,

    /// Of one connection, read no more than this.
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = "Payload")]
    pub max_connection: Option<u64>,

    /// Room for payload on its way out of the kernel: a power of two.
    #[arg(long, value_name = "SIZE", default_value = "8MiB", value_parser = parse_ring, help_heading = "Payload")]
    pub payload_ring: u32,
}

impl PayloadArgs {
    /// Room for payload where nobody says how much.
    pub const RING_BYTES: u32 = 8 << 20;

    /// Whether nothing was said of it.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.max_turn.is_none() && self.max_connection.is_none() && self.payload_ring == Self::RING_BYTES
    }
}

/// `1500`, `64KiB`, `1MiB`, `2GiB`; more than nothing.
fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => 64,
    };
    number
        .parse()
        .ok()
        .and_then(|number: u64| number.checked_mul(1u64.checked_shl(shift)?))
        .filter(|size| *size > 0)
        .ok_or_else(|| format!("{text:?} is not a size: write 1500, 64KiB, 1MiB or 2GiB"))
}

fn parse_turn(text: &str) -> Result<u32, String> {
    u32::try_from(parse_size(text)?).map_err(|_| "no more than 4 GiB can be told apart".to_owned())
}

/// The kernel wants a power of two and whole pages, which are 64 kB on some machines.
fn parse_ring(text: &str) -> Result<u32, String> {
    let size = parse_size(text)?;
    let fits = size.is_power_of_two() && (64 << 10..=1 << 30).contains(&size);
    u32::try_from(size)
        .ok()
        .filter(|_| fits)
        .ok_or_else(|| "a ring has a power of two of bytes, from 64KiB to 1GiB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_unit() {
        assert_eq!(parse_size("1500"), Ok(1500));
        assert_eq!(parse_size("64KiB"), Ok(64 << 10));
        assert_eq!(parse_size("3GiB"), Ok(3 << 30));
        for bad in ["", "0", "KiB", "1kB", "1.5MiB", "-1", "99999999999999999999", "17179869184GiB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_ring("16MiB"), Ok(16 << 20));
        assert!(parse_ring("3MiB").is_err() && parse_ring("4KiB").is_err() && parse_ring("2GiB").is_err());
        assert!(parse_turn("5GiB").is_err());
    }
}
