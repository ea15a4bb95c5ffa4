//! Something to do for some seconds.

use anyhow::Result;

/// A load between two containers. Its servers run as long as it lives.
pub(crate) trait Workload {
    /// For the table.
    fn name(&self) -> &'static str;

    /// The least ratio to nobody watching that weir is to reach.
    fn target(&self) -> f64;

    /// A rate of this work in words, with its unit.
    fn write(&self, rate: f64) -> String;

    /// Works for so many seconds; how much was done a second.
    fn run(&mut self, seconds: u32) -> Result<f64>;
}
