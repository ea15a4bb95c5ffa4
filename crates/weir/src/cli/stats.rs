//! Sums of requests in place of the requests.

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use weir_core::stats::{By, Stats};

/// So many sums are kept apart; the rest is one. With the longest texts and
/// times that is some 12 MB.
const SERIES_MAX: usize = 1_000;

/// By what requests are summed up.
#[derive(Debug, Clone, Args)]
pub struct StatsArgs {
    /// Sum up for each server [default: service], or there for each route
    /// (`GET /orders/{id}`), statement, or key.
    #[arg(long, value_name = "WHAT", value_parser = by_parser(), help_heading = "Sums")]
    pub by: Option<By>,
}

impl StatsArgs {
    /// Sums, with nothing in them yet: for [`crate::outlet::Outlet::summing_up`].
    pub(crate) fn stats(&self) -> Stats {
        Stats::new(self.by.unwrap_or_default(), SERIES_MAX)
    }
}

fn by_parser() -> impl clap::builder::TypedValueParser<Value = By> {
    PossibleValuesParser::new(By::ALL.map(By::name))
        .map(|name| By::ALL.into_iter().find(|by| by.name() == name).unwrap_or_default())
}
