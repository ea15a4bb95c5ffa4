//! How records are printed: the same for every command that prints any.

use std::io::{self, IsTerminal as _, Write};

use clap::{Args, ValueEnum};
use jiff::tz::TimeZone;
use weir_core::filter::Filter;

use crate::outlet::Outlet;
use crate::output::{self, Format};

/// How to print records, and how many.
#[derive(Debug, Clone, Args)]
pub struct OutputArgs {
    /// How to print them.
    #[arg(
        short = 'o',
        long = "output",
        value_enum,
        default_value = "compact",
        value_name = "FORMAT",
        help_heading = "Output"
    )]
    pub format: Format,

    /// Print the last N records only, at the end.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Output")]
    pub last: Option<u32>,

    /// When to use colours.
    #[arg(long, value_enum, default_value = "auto", value_name = "WHEN", help_heading = "Output")]
    pub color: ColorChoice,

    /// End after N records.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "When to end")]
    pub count: Option<u64>,
}

impl OutputArgs {
    /// The way to standard output, for records that pass the filter.
    pub(crate) fn outlet(&self, filter: Filter) -> Outlet {
        let sink = output::sink(self.format, self.color.for_stdout(), Box::new(io::stdout()));
        Outlet::new(filter, sink, self.count, self.last)
    }

    /// The way to another process's standard output; it says whether that wants colours.
    pub(crate) fn outlet_to(
        &self,
        filter: Filter,
        zone: TimeZone,
        color: bool,
        out: Box<dyn Write + Send>,
    ) -> Outlet {
        let sink = output::sink_in(zone, self.format, color, out);
        Outlet::new(filter, sink, self.count, self.last)
    }
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl ColorChoice {
    /// Whether standard output gets colours.
    #[must_use]
    pub fn for_stdout(self) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => {
                let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
                io::stdout().is_terminal() && !refused
            }
        }
    }
}
