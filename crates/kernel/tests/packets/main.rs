//! Packets through the real programs (BPF_PROG_TEST_RUN): what each does to the
//! flow table, the tallies and the ring. Whatever comes in, the verdict lets the
//! next program run, the bytes stay as they were, and the packet is in exactly
//! one place: see [`lab::Lab::run`].
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod dns;
mod expect;
mod fragments;
mod frames;
mod full;
mod headers;
mod icmp;
mod lab;
mod payload;
mod points;
mod property;
mod race;
mod real;
mod rows;
mod tcp;
mod tcp_end;
mod tracker;
mod truncated;
