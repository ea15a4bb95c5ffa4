//! What tests expect of a key, written down without the programs' own rules of
//! thumb: addresses and ports as users know them.

use std::net::{IpAddr, Ipv6Addr};

use weir_core::flow::{FlowKey, Protocol, Side};

/// The flow from one end to another, and which of the key's sides the first is.
pub(crate) fn key(protocol: u8, source: (&str, u16), destination: (&str, u16)) -> (FlowKey, Side) {
    ends(protocol, 0, (mapped(source.0), source.1), (mapped(destination.0), destination.1))
}

/// The same for ICMP and ICMPv6, where `number` is the identifier or the code.
pub(crate) fn icmp_key(kind: u8, number: u16, source: &str, destination: &str) -> (FlowKey, Side) {
    let protocol = if source.contains(':') { 58 } else { 1 };
    ends(protocol, kind, (mapped(source), number), (mapped(destination), number))
}

pub(crate) fn ends(
    protocol: u8,
    icmp_type: u8,
    source: (Ipv6Addr, u16),
    destination: (Ipv6Addr, u16),
) -> (FlowKey, Side) {
    let side = if source <= destination { Side::Low } else { Side::High };
    let (low, high) = if side == Side::Low { (source, destination) } else { (destination, source) };
    let key = FlowKey {
        addresses: [low.0, high.0],
        ports: [low.1, high.1],
        protocol: Protocol(protocol),
        icmp_type,
    };
    (key, side)
}

pub(crate) fn mapped(address: &str) -> Ipv6Addr {
    match address.parse().unwrap() {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

/// Addresses for packets without a link layer. BPF_PROG_TEST_RUN takes the
/// ethertype from bytes 12 and 13 of any frame, so that an IP packet is taken
/// for one only if its source address has the ethertype's value there.
pub(crate) mod without_link {
    pub(crate) const IPV4: &str = "8.0.0.1";
    pub(crate) const IPV6: &str = "2001:db8:86dd::1";
}

pub(crate) const A: &str = "10.0.0.1";
pub(crate) const B: &str = "10.0.0.2";
pub(crate) const A6: &str = "fd00::1";
pub(crate) const B6: &str = "fd00::2";
