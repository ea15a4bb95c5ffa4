//! For weir's tests only: network namespaces as containers, traffic between
//! them, frames byte by byte, waiting for conditions.
//!
//! Nothing here touches the machine's own network: every device is made in a
//! namespace of the test's own, and goes with it. A failure is a panic, since
//! that is how a test fails.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod bpffs;
mod counters;
mod daemon;
pub mod engine;
mod maps;
mod namespace;
mod other;
pub mod packet;
mod root;
pub mod tc;
mod topology;
pub mod traffic;
mod wait;

pub use bpffs::Bpffs;
pub use counters::Counters;
pub use daemon::{Daemon, Stream};
pub use maps::map_has_entries;
pub use namespace::Namespace;
pub use other::OtherVersion;
pub use root::has_root;
pub use topology::{Container, Topology};
pub use wait::{uninterrupted, wait_until};
