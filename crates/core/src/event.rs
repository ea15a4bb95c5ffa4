//! What the kernel side reports, decoded and checked.

use std::fmt;

use crate::flow::{FlowEntry, FlowKey, FlowState, Side};

/// A direction at a device. At the host side of a container's veth, ingress is
/// what the container sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hook {
    /// Received by the device.
    Ingress,
    /// Sent by the device.
    Egress,
}

impl Hook {
    /// The hook that the kernel wrote as a number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Ingress),
            2 => Some(Self::Egress),
            _ => None,
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

/// One hook of one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HookId {
    /// Index of the device in weir's network namespace.
    pub ifindex: u32,
    /// Which of its two directions.
    pub hook: Hook,
}

/// A record of the ring buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A flow's first packet.
    Open(FlowOpened),
    /// The key of a closed connection is used again.
    Reopen(FlowOpened, Box<FlowEntry>),
    /// The connection ended by FIN or RST; its entry holds the final counters.
    Close(FlowClosed),
    /// One packet (`--packets`).
    Packet(PacketSeen),
    /// A datagram from port 53.
    Dns(DnsSeen),
}

/// What every event says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// Where.
    pub hook: HookId,
    /// Of which flow.
    pub key: FlowKey,
}

/// A flow began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowOpened {
    /// When, where, which.
    pub seen: Seen,
    /// 0 for the first use of the key.
    pub incarnation: u32,
    /// Length of the first packet's frame.
    pub length_bytes: u32,
    /// Where it stands after its first packet.
    pub state: FlowState,
    /// Which end opened it.
    pub initiator: Side,
    /// Which end sent the first packet.
    pub source: Side,
    /// TCP, and its beginning was not seen.
    pub midstream: bool,
    /// Of the first packet.
    pub tcp_flags: u8,
}

/// A connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowClosed {
    /// When, where, which.
    pub seen: Seen,
    /// Of the connection that ended.
    pub incarnation: u32,
    /// [`FlowState::Closed`] or [`FlowState::Reset`].
    pub state: FlowState,
}

/// One packet at one hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketSeen {
    /// When, where, which flow.
    pub seen: Seen,
    /// Of the frame, link layer included.
    pub length_bytes: u32,
    /// Payload of the transport protocol.
    pub payload_bytes: u32,
    /// TCP sequence number.
    pub tcp_seq: u32,
    /// TCP acknowledgement number.
    pub tcp_ack: u32,
    /// TCP window, not scaled.
    pub tcp_window: u16,
    /// TCP flags.
    pub tcp_flags: u8,
    /// Which end sent it.
    pub source: Side,
    /// Whether this hook counts the flow (or sees the packet a second time).
    pub counted: bool,
}

/// A datagram from port 53.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsSeen {
    /// When, where, which flow.
    pub seen: Seen,
    /// As sent; more than `payload.len()` if it was cut.
    pub payload_bytes: u32,
    /// The DNS message.
    pub payload: Vec<u8>,
}
