//! The binary, end to end: `weir observe` on a "host" that is a network
//! namespace with containers on a bridge, with real clients and servers.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod absence;
mod at_once;
mod audit;
mod beside;
mod devices;
mod docker;
mod ends;
mod errors;
mod filters;
mod life;
mod names;
mod onward;
mod output;
mod outside;
mod protocols;
mod redirect;
mod sctp;
mod sums;
mod survival;
mod totals;
mod virtual_addresses;
mod volume;
mod ways;
mod weir;
