//! Names for everything that is not in a flow's counters, or was not delivered.

use std::collections::BTreeMap;

use crate::event::HookId;
use crate::flow::Counters;

/// Why packets are in no flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TallyReason {
    /// ARP.
    Arp,
    /// ICMPv6 neighbour discovery and multicast listener discovery.
    NeighborDiscovery,
    /// Any other ethertype.
    NonIp,
    /// Its flow counts it at two other hooks already.
    FurtherHook,
    /// A header contradicts itself.
    Malformed,
    /// A header reaches past the end of the packet.
    Truncated,
    /// A later fragment whose first one was not seen.
    FragmentUnjoined,
    /// No room in the flow table.
    TableFull,
    /// More VLAN tags or IPv6 extension headers than weir walks.
    HeadersTooDeep,
    /// A redirect could not be done: there is no room, no port, no target. The
    /// packet was dropped.
    RedirectRefused,
}

impl TallyReason {
    /// Every reason, in the order of the kernel's numbers, which begin with 1.
    pub const ALL: [Self; 10] = [
        Self::Arp,
        Self::NeighborDiscovery,
        Self::NonIp,
        Self::FurtherHook,
        Self::Malformed,
        Self::Truncated,
        Self::FragmentUnjoined,
        Self::TableFull,
        Self::HeadersTooDeep,
        Self::RedirectRefused,
    ];

    /// The reason that the kernel wrote as a number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }

    /// As in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Arp => "arp",
            Self::NeighborDiscovery => "neighbor_discovery",
            Self::NonIp => "non_ip",
            Self::FurtherHook => "further_hook",
            Self::Malformed => "malformed",
            Self::Truncated => "truncated",
            Self::FragmentUnjoined => "fragment_unjoined",
            Self::TableFull => "table_full",
            Self::HeadersTooDeep => "headers_too_deep",
            Self::RedirectRefused => "redirect_refused",
        }
    }

    /// Whether packets are missing from flows because of it. The others are no
    /// flows by their nature, or stand in their flow already.
    #[must_use]
    pub fn is_loss(self) -> bool {
        !matches!(self, Self::Arp | Self::NeighborDiscovery | Self::NonIp | Self::FurtherHook)
    }
}

/// Packets in no flow, by hook and reason. Totals since weir attached.
pub type Tallies = BTreeMap<(HookId, TallyReason), Counters>;

/// Events and names that were not delivered. Totals since weir attached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EventLosses {
    /// Openings without room in the ring; the flow is found in the table later.
    pub open_ring_full: u64,
    /// Reuses of a key without room in the ring: two connections became one row.
    pub reopen_ring_full: u64,
    /// Ends without room in the ring; the row ends when the table is read.
    pub close_ring_full: u64,
    /// Packet events without room in the ring.
    pub packet_ring_full: u64,
    /// DNS answers without room in the ring.
    pub dns_ring_full: u64,
    /// Payload without room in the ring: a hole in a stream.
    pub payload_ring_full: u64,
    /// DNS answers longer than what is captured.
    pub dns_truncated: u64,
    /// Bytes of bodies that were left out because the payload ring was half full.
    pub payload_shed_bytes: u64,
    /// Packets that could not even be tallied.
    pub tally_full: u64,
    /// Ring records that user space could not make sense of.
    pub undecodable: u64,
}

impl EventLosses {
    /// Each count with its name in records.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 10] {
        [
            ("open_ring_full", self.open_ring_full),
            ("reopen_ring_full", self.reopen_ring_full),
            ("close_ring_full", self.close_ring_full),
            ("packet_ring_full", self.packet_ring_full),
            ("dns_ring_full", self.dns_ring_full),
            ("payload_ring_full", self.payload_ring_full),
            ("dns_truncated", self.dns_truncated),
            ("payload_shed_bytes", self.payload_shed_bytes),
            ("tally_full", self.tally_full),
            ("undecodable", self.undecodable),
        ]
    }
}
