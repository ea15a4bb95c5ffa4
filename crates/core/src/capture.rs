//! Payload that the kernel side hands over, and what is wanted of it.

use crate::event::Seen;
use crate::flow::Side;

/// A piece of a flow's payload, or the end of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayloadSeen<'a> {
    /// When, where, which flow.
    pub seen: Seen,
    /// When the flow began, CLOCK_MONOTONIC: with the key it names the connection.
    pub flow_first_ns: u64,
    /// Which end sent it.
    pub from: Side,
    /// TCP: who opened the connection, where that was seen.
    pub client: Option<Side>,
    /// TCP, by [`Side::index`]: the sequence number of the stream's first byte,
    /// where its SYN was seen.
    pub first_seq: [Option<u32>; 2],
    /// TCP: sequence number of the first of `payload_bytes`; without any, where
    /// the stream has come to.
    pub seq: u32,
    /// TCP: acknowledgement number.
    pub ack: u32,
    /// TCP: up to here the other end was seen to have sent.
    pub peer_next_seq: u32,
    /// TCP flags.
    pub tcp_flags: u8,
    /// As sent; more than `payload.len()` if not all was copied.
    pub payload_bytes: u32,
    /// What was copied.
    pub payload: &'a [u8],
}

/// What is wanted of a flow's payload: everything but what this takes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Of which connection: others with the same key are not meant.
    pub flow_first_ns: u64,
    /// By [`Side::index`] of the sender: bytes before this sequence number need
    /// not be copied.
    pub skip_until_seq: [Option<u32>; 2],
    /// Nothing more, of either end.
    pub off: bool,
}
