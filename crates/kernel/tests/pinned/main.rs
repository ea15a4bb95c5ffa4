//! State that outlives its process: made, taken over, removed; with the real programs.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod errors;
mod host;
mod takeover;
mod tend;
mod texts;
mod upgrade;
