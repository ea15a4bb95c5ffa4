//! Rules as the kernel's maps hold them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

/// Places in a rule's table of targets. Prime, so that any stride through the
/// table reaches all of them; a weight is exact to one part in so many.
pub const SLOTS: usize = 251;

/// Matches that one address may have.
pub const MATCHES_MAX: usize = 16;

/// What the kernel calls a rule. A rule that stands for several addresses (a
/// container with two networks) is one for each in the kernel, as each has
/// targets of its own: the same number, another variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(pub u32);

impl RuleId {
    /// Addresses that one rule may stand for.
    pub const VARIANTS: u32 = 256;
    /// Of rules that are there at a time, no two have a number with the same remainder by this: by it the kernel
    /// counts what each has brought.
    pub const PLACES: u32 = 4096;
    /// The highest number of a rule.
    pub const NUMBER_MAX: u32 = u32::MAX / Self::VARIANTS;

    /// The rule's number (1 to [`RuleId::NUMBER_MAX`]) and the variant (below
    /// [`RuleId::VARIANTS`]) as one; `None` beyond these.
    #[must_use]
    pub fn new(number: u32, variant: u32) -> Option<Self> {
        let valid = (1..=Self::NUMBER_MAX).contains(&number) && variant < Self::VARIANTS;
        valid.then(|| Self(number * Self::VARIANTS + variant))
    }

    /// The number under which the user's words are kept.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0 / Self::VARIANTS
    }
}

/// What the kernel calls a target: a hash of what it is, so that it has the same
/// id whatever else changes. 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetId(pub u32);

/// All rules, and what the kernel must know of the host to follow them. One
/// field for each map. All addresses are in canonical form (no IPv4 in IPv6's
/// clothes); the maps hold them mapped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compiled {
    /// All rules by their numbers, also those without effect at the moment: what was counted for them stays.
    pub numbers: BTreeSet<u32>,
    /// By the address that a client asks: its matches, the most specific first,
    /// [`MATCHES_MAX`] at the most. The first that fits decides.
    pub matches: BTreeMap<IpAddr, Vec<CompiledMatch>>,
    /// What follows from a match.
    pub rules: BTreeMap<RuleId, CompiledRule>,
    /// Where to.
    pub targets: BTreeMap<TargetId, CompiledTarget>,
    /// For the limited matches: from where.
    pub clients: BTreeSet<(RuleId, IpNet)>,
    /// For the limited matches of virtual addresses: who may ask who has them, beside those who ask from a client's
    /// address. By the index of the veth of a container that has one; none: the host, for itself or for others.
    pub askers: BTreeSet<(RuleId, Option<u32>)>,
    /// Addresses that nobody has, for which weir answers.
    pub virtual_addresses: BTreeMap<IpAddr, VirtualAddress>,
    /// Forged sources, by the index of the veth behind which a server sees them:
    /// when it asks there who has the address, the host answers.
    pub forged_sources: BTreeSet<(u32, IpAddr)>,
    /// Every address of a container.
    pub endpoints: BTreeMap<IpAddr, Place>,
    /// Every interface, by its index, at which redirects are done.
    pub interfaces: BTreeMap<u32, InterfacePlace>,
}

/// Which connections a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompiledMatch {
    /// What follows.
    pub rule: RuleId,
    /// IANA number; 0 is any.
    pub protocol: u8,
    /// First port; 0 where all ports, and protocols without, are meant.
    pub port_first: u16,
    /// Last port, not below the first; 65,535 where all are meant.
    pub port_last: u16,
    /// Only for clients in [`Compiled::clients`].
    pub limited: bool,
}

/// What becomes of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompiledRule {
    /// From then on the rule matches no more: CLOCK_MONOTONIC; 0 is never.
    pub expires_ns: u64,
    /// What the server sees as client; none: the client's own address.
    pub source: Option<IpAddr>,
    /// Target by hash of the connection; [`SLOTS`] of them, or none, where no
    /// target is there: then new connections are refused. A connection whose
    /// target is what it asked for (one of several) is left as it is.
    pub slots: Vec<TargetId>,
    /// Whether a redirected connection may go past bridge and stack if its ends
    /// are on one bridge.
    pub fast_path: bool,
}

/// Where a connection goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CompiledTarget {
    /// The server's address.
    pub address: IpAddr,
    /// Its port for a match's first port, the next for the next; 0: as asked.
    pub port_first: u16,
}

/// An address that no one has, in front of a rule. Containers that ask for it, and
/// are clients, are answered with the host's MAC address ([`InterfacePlace::host_mac`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VirtualAddress {
    /// Where the host's own packets to it go: a target's veth. None: no target
    /// is on this host, and only containers reach it.
    pub target: Option<Place>,
}

/// Where an address is on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The host side of the container's veth.
    pub ifindex: u32,
    /// Its bridge; itself, where it is in none.
    pub bridge_ifindex: u32,
    /// MAC address of the container's side.
    pub mac: [u8; 6],
}

/// An interface at which redirects are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InterfacePlace {
    /// Its bridge; itself, where it is in none.
    pub bridge_ifindex: u32,
    /// MAC address of the host as seen from there: the bridge's, else its own.
    pub host_mac: [u8; 6],
    /// Whether a container is behind it.
    pub container_side: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_holds_number_and_variant() {
        let id = RuleId::new(7, 3).unwrap();
        assert_eq!((id.number(), id), (7, RuleId(7 * 256 + 3)));
        assert_eq!(RuleId::new(RuleId::NUMBER_MAX, 255).map(|id| id.0), Some(u32::MAX));
        for (number, variant) in [(0, 0), (RuleId::NUMBER_MAX + 1, 0), (1, 256)] {
            assert_eq!(RuleId::new(number, variant), None, "{number} {variant}");
        }
    }
}
