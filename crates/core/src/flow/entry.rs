//! The kernel's entry for one flow, as read from its table.

use crate::event::{Hook, HookId};
use crate::flow::{Side, Translation};

/// The life of a flow, as the kernel side follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FlowState {
    /// One direction seen.
    New,
    /// TCP: handshake complete, or joined midstream. Others: both directions seen.
    Established,
    /// TCP: one FIN seen.
    Closing,
    /// TCP: both FINs seen and acknowledged.
    Closed,
    /// TCP: ended by RST.
    Reset,
}

impl FlowState {
    /// The state that the kernel wrote as a number, if there is such a state.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::New, Self::Established, Self::Closing, Self::Closed, Self::Reset]
            .get(usize::from(number))
            .copied()
    }
}

/// Whether a flow's payload is copied to user space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CaptureState {
    /// Nothing was said yet that could be understood.
    Undecided,
    /// It is.
    On,
    /// User space wants no more of it.
    OffAsked,
    /// Neither end begins like a protocol that weir reads.
    NotUnderstood,
    /// It began when the ring for payload was nearly full.
    Overload,
}

impl CaptureState {
    /// The state that the kernel wrote as a number, if there is such a state.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Undecided, Self::On, Self::OffAsked, Self::NotUnderstood, Self::Overload]
            .get(usize::from(number))
            .copied()
    }
}

/// Packets, and bytes of whole frames as the device counts them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counters {
    /// Frames, segmentation-offload frames counted once.
    pub packets: u64,
    /// Their bytes, link layer included.
    pub bytes: u64,
}

impl Counters {
    /// What was added since `base`. Never below zero.
    #[must_use]
    pub fn since(self, base: Self) -> Self {
        Self {
            packets: self.packets.saturating_sub(base.packets),
            bytes: self.bytes.saturating_sub(base.bytes),
        }
    }
}

impl std::ops::AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

/// What one hook saw of one direction of a flow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Point {
    /// `None`: no hook took this place yet.
    pub hook: Option<HookId>,
    /// Since the entry was made, over all incarnations.
    pub counters: Counters,
}

/// One direction of a flow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DirectionEntry {
    /// `[0]` counts the flow, `[1]` is the other end of its way in this host.
    pub points: [Point; 2],
    /// TCP segments whose data had passed before (or overtook others).
    pub retransmits: u32,
    /// TCP segments that closed the window.
    pub zero_windows: u32,
    /// All TCP flags seen, ORed.
    pub tcp_flags: u8,
    /// TCP: highest sequence number seen, plus one.
    pub next_seq: u32,
    /// Something was said, in which no protocol was found.
    pub looked_at: bool,
}

/// The kernel's entry for one flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowEntry {
    /// Goes up when a closed connection's key is used again.
    pub incarnation: u32,
    /// First packet of this incarnation, CLOCK_MONOTONIC.
    pub first_ns: u64,
    /// Last packet, at the resolution of a scheduler tick.
    pub last_ns: u64,
    /// TCP handshake, SYN to its last ACK. `None`: not known.
    pub rtt_us: Option<u32>,
    /// RST segments.
    pub resets: u32,
    /// ICMP errors that quoted this flow.
    pub icmp_errors: u32,
    /// Where it stands.
    pub state: FlowState,
    /// Which end opened it.
    pub initiator: Side,
    /// TCP, and its beginning was not seen.
    pub midstream: bool,
    /// Whether its payload is copied.
    pub capture: CaptureState,
    /// What its client sees, where that is something else.
    pub translation: Option<Translation>,
    /// What each end sends, by [`Side::index`].
    pub directions: [DirectionEntry; 2],
}

impl FlowEntry {
    /// All places of this flow at hooks: sender's side, counters.
    pub fn points(&self) -> impl Iterator<Item = (Side, HookId, Counters)> + '_ {
        [Side::Low, Side::High].into_iter().flat_map(|side| {
            self.directions[side.index()]
                .points
                .iter()
                .filter_map(move |point| point.hook.map(|hook| (side, hook, point.counters)))
        })
    }
}

impl FlowEntry {
    /// Whether something was said that could not be understood, without a look at
    /// it from user space.
    #[must_use]
    pub fn is_not_understood(&self) -> bool {
        match self.capture {
            CaptureState::NotUnderstood => true,
            CaptureState::Undecided => self.directions.iter().any(|direction| direction.looked_at),
            CaptureState::On | CaptureState::OffAsked | CaptureState::Overload => false,
        }
    }
}

impl HookId {
    /// The hook that the kernel wrote down; `None` where nobody stands.
    #[must_use]
    pub fn from_numbers(ifindex: u32, hook: u8) -> Option<Self> {
        (ifindex != 0).then_some(Self { ifindex, hook: Hook::from_number(hook)? })
    }
}
