//! Payload that the kernel side hands over, and what is wanted of it.

use std::num::NonZeroU32;

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
    /// TCP: up to here the other end has sent, as far as the sender had heard; with a RST, as far as was seen.
    pub peer_next_seq: u32,
    /// TCP flags.
    pub tcp_flags: u8,
    /// As sent; more than `payload.len()` if not all was copied.
    pub payload_bytes: u32,
    /// What was copied.
    pub payload: &'a [u8],
    /// TCP: so many of the bytes that come after `payload_bytes` are the content of a frame, and not copied.
    pub left_out_bytes: u32,
    /// TCP: a chain of frames is presumed to begin, or to go on, at `seq`: its number.
    pub frame_chain: Option<NonZeroU32>,
}

/// What is wanted of a flow's payload: everything but what this takes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Of which connection: others with the same key are not meant.
    pub flow_first_ns: u64,
    /// By [`Side::index`] of the sender: bytes before this sequence number need
    /// not be copied.
    pub skip_until_seq: [Option<u32>; 2],
    /// By [`Side::index`] of the sender: it sends frames of HTTP/2, of which long
    /// contents need not be copied.
    pub frames: [Option<Frames>; 2],
    /// Nothing more, of either end.
    pub off: bool,
}

/// Where frames of HTTP/2 begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frames {
    /// One began, or begins, at this sequence number.
    pub seq: u32,
    /// How long the one before it was, header included.
    pub bytes: u32,
    /// The chain that led to a place where one really begins.
    pub chain: Option<NonZeroU32>,
}
