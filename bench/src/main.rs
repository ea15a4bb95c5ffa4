//! Measures what weir costs, side by side with nothing and with what one would
//! otherwise use, and prints everything that docs/benchmarks.md says. All traffic
//! stays in network namespaces of its own; every load is bounded in time and count.

mod at_work;
mod attach;
mod audit;
mod burst;
mod end_to_end;
mod flood;
mod link;
mod machine;
mod memory;
mod observer;
mod packet_cost;
mod parsers;
mod process;
mod reading;
mod redirect;
mod report;
mod statistics;
mod tables;
mod told;
mod turns;
mod workload;

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use machine::Machine;
use report::Table;

/// Measures what weir costs.
#[derive(Debug, Parser)]
#[command(name = "weir-bench", max_term_width = 100)]
struct Cli {
    /// The program to measure: a release build.
    #[arg(long, value_name = "FILE", default_value = "target/release/weir")]
    weir: PathBuf,
    /// Measure these sections only.
    #[arg(long, value_enum, value_name = "SECTION")]
    only: Vec<Section>,
    /// Rounds of the sections at-work, end-to-end, reading, redirect and audit [default: 5; at-work,
    /// reading and redirect 3].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Seconds of each load in each round.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Everything once and briefly: whether it works, not how fast it is.
    #[arg(long)]
    quick: bool,
    /// Also write the tables into this page, in the place of those it has; with
    /// --only, in the place of the same sections.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    /// One packet in the kernel, with BPF_PROG_TEST_RUN.
    Packet,
    /// The programs under load, as the kernel counts their time.
    AtWork,
    /// Parsers alone: from segments to exchanges.
    Parsers,
    /// Captures read from files, beside tshark.
    Reading,
    /// Throughput and rates between two containers.
    EndToEnd,
    /// Redirects, beside nftables and iptables.
    Redirect,
    /// Requests told one by one, beside tcpdump and tshark.
    Audit,
    /// Resident memory, and CPU when nothing flows.
    Memory,
    /// Openings in a burst.
    Burst,
    /// Time until attached.
    Attach,
}

/// How much of everything.
#[derive(Debug)]
struct Plan {
    weir: PathBuf,
    rounds: usize,
    redirect_rounds: usize,
    seconds: u32,
    cost_rounds: usize,
    idle_seconds: u64,
    burst_flows: u32,
    burst_rounds: usize,
    veths: u32,
    new_veths: u32,
    attach_rounds: usize,
    parser_samples: usize,
    parser_sample: Duration,
    reading_rounds: usize,
    /// Requests, or pipelines of them, in a capture, at most.
    reading_turns: u32,
}

impl Plan {
    fn new(cli: &Cli) -> Result<Self> {
        let weir = cli.weir.canonicalize().with_context(|| {
            format!("there is no {}: build it with  cargo build --release -p weir", cli.weir.display())
        })?;
        let rounds = |default| usize::from(cli.rounds.unwrap_or(default));
        let full = Self {
            weir,
            rounds: rounds(5),
            redirect_rounds: rounds(3),
            seconds: cli.seconds,
            cost_rounds: 41,
            idle_seconds: 10,
            burst_flows: 200_000,
            burst_rounds: 3,
            veths: 1000,
            new_veths: 21,
            attach_rounds: 3,
            parser_samples: 7,
            parser_sample: Duration::from_millis(200),
            reading_rounds: rounds(3),
            reading_turns: 20_000,
        };
        Ok(if cli.quick {
            Self {
                rounds: 1,
                redirect_rounds: 1,
                seconds: 1,
                cost_rounds: 3,
                idle_seconds: 1,
                burst_rounds: 1,
                veths: 50,
                new_veths: 3,
                attach_rounds: 1,
                parser_samples: 1,
                parser_sample: Duration::from_millis(50),
                reading_rounds: 1,
                reading_turns: 1_000,
                ..full
            }
        } else {
            full
        })
    }
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    if !weir_testkit::has_root("weir-bench") {
        bail!("network namespaces and BPF programs need root: try  make bench, which asks for it");
    }
    let plan = Plan::new(&cli)?;
    let machine = Machine::here();
    say(&machine.text())?;
    type Measure = fn(&Plan) -> Result<Vec<Table>>;
    let sections: [(Section, Measure); 10] = [
        (Section::Packet, packet_cost::measure),
        (Section::AtWork, at_work::measure),
        (Section::Parsers, parsers::measure),
        (Section::Reading, reading::measure),
        (Section::EndToEnd, end_to_end::measure),
        (Section::Redirect, redirect::measure),
        (Section::Audit, audit::measure),
        (Section::Memory, memory::measure),
        (Section::Burst, burst::measure),
        (Section::Attach, attach::measure),
    ];
    let mut tables = Vec::new();
    for (section, measure) in sections {
        if cli.only.is_empty() || cli.only.contains(&section) {
            for table in measure(&plan)? {
                say(&table.text())?;
                tables.push(table);
            }
        }
    }
    let Some(page) = cli.markdown else { return Ok(()) };
    if cli.only.is_empty() {
        report::write_page(&page, &machine, &tables)
    } else {
        report::write_sections(&page, &machine, &tables)
    }
}

/// To standard output, at once: a whole run takes ten minutes.
fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot print")
}
