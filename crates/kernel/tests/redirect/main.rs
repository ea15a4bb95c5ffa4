//! Redirected connections, packet by packet, through the real programs
//! (BPF_PROG_TEST_RUN). What comes out is compared with a frame built from scratch
//! by an implementation that shares nothing with the programs: addresses, ports,
//! MACs and every checksum.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod bytes;
mod decisions;
mod errors;
mod held;
mod lab;
mod neighbors;
mod onward;
mod property;
mod real;
mod sctp;
mod shortcut;
mod table;
mod transport;
