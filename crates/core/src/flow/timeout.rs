//! When a flow that says nothing has ended.

use crate::flow::{FlowEntry, FlowState, Protocol};

const SECOND_NS: u64 = 1_000_000_000;

/// A closed connection stays in the table this long, so that what crosses its
/// end on the way (the last ACK, data behind a reset) is still counted in it.
pub const LINGER_NS: u64 = SECOND_NS / 2;

/// How full the kernel's table is: under pressure unanswered flows go early, as
/// connection tracking does it, so that a scan or a flood leaves room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pressure {
    /// Less than three quarters full.
    #[default]
    Low,
    /// Three quarters full, or more.
    High,
}

impl Pressure {
    /// Of a table with `used` of `size` entries.
    #[must_use]
    pub fn of(used: u64, size: u64) -> Self {
        if used.saturating_mul(4) >= size.saturating_mul(3) { Self::High } else { Self::Low }
    }
}

/// A flow that was quiet for so long has ended.
///
/// Established TCP: ten minutes; an observer loses nothing by it, for what
/// speaks again is shown again. A translated connection that is forgotten is a
/// broken one: it stays for the five days of nf_conntrack_tcp_timeout_established,
/// whatever the pressure. The others as Linux's connection tracking has
/// them (nf_conntrack_udp_timeout and its kin), where it has one.
pub(super) fn idle_ns(protocol: Protocol, entry: &FlowEntry, pressure: Pressure) -> u64 {
    let seconds = match (protocol, entry.state, pressure) {
        (Protocol::TCP, FlowState::Established, _) if entry.translation.is_some() => 5 * 24 * 3600,
        (_, FlowState::New, Pressure::High) => 2,
        (Protocol::TCP, FlowState::Established, Pressure::Low) => 600,
        (Protocol::TCP, FlowState::Established, Pressure::High) => 120,
        (Protocol::TCP, FlowState::New, _) => 60,
        (Protocol::TCP, FlowState::Closing, _) => 60,
        (Protocol::TCP, FlowState::Closed | FlowState::Reset, _) => 1,
        (Protocol::UDP | Protocol::SCTP, FlowState::Established, Pressure::Low) => 120,
        _ => 30,
    };
    seconds * SECOND_NS
}
