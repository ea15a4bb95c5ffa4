//! What names a flow.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// One end of a [`FlowKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The end that sorts first, by address, then by port.
    Low,
    /// The other one.
    High,
}

impl Side {
    /// Any number other than 0 is the high side: what the kernel wrote is
    /// either 0 or 1.
    #[must_use]
    pub fn from_index(index: u8) -> Self {
        if index == 0 { Self::Low } else { Self::High }
    }

    /// The other end.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Low => Self::High,
            Self::High => Self::Low,
        }
    }

    /// 0 or 1, to index arrays.
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Self::Low => 0,
            Self::High => 1,
        }
    }
}

/// An IANA protocol number. `Display` gives the usual lower-case name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Protocol(pub u8);

impl Protocol {
    /// ICMP (RFC 792).
    pub const ICMP: Self = Self(1);
    /// TCP (RFC 9293).
    pub const TCP: Self = Self(6);
    /// UDP (RFC 768).
    pub const UDP: Self = Self(17);
    /// ICMPv6 (RFC 4443).
    pub const ICMPV6: Self = Self(58);
    /// SCTP (RFC 9260).
    pub const SCTP: Self = Self(132);
    /// UDP-Lite (RFC 3828).
    pub const UDPLITE: Self = Self(136);

    /// Names that users may write and read; other protocols are numbers.
    const NAMES: [(Self, &'static str); 12] = [
        (Self::ICMP, "icmp"),
        (Self(2), "igmp"),
        (Self(4), "ipip"),
        (Self::TCP, "tcp"),
        (Self::UDP, "udp"),
        (Self(41), "ipv6"),
        (Self(47), "gre"),
        (Self(50), "esp"),
        (Self::ICMPV6, "icmpv6"),
        (Self(112), "vrrp"),
        (Self::SCTP, "sctp"),
        (Self::UDPLITE, "udplite"),
    ];

    /// The protocol of that name (case does not matter) or number.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::NAMES
            .iter()
            .find(|(_, name)| name.eq_ignore_ascii_case(text))
            .map(|(protocol, _)| *protocol)
            .or_else(|| text.parse().ok().map(Self))
    }

    /// Whether the ports in a [`FlowKey`] are ports.
    #[must_use]
    pub fn has_ports(self) -> bool {
        matches!(self, Self::TCP | Self::UDP | Self::SCTP | Self::UDPLITE)
    }

    /// ICMP or ICMPv6.
    #[must_use]
    pub fn is_icmp(self) -> bool {
        matches!(self, Self::ICMP | Self::ICMPV6)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.iter().find(|(protocol, _)| protocol == self) {
            Some((_, name)) => f.pad(name),
            None => f.pad(&self.0.to_string()),
        }
    }
}

impl serde::Serialize for Protocol {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The five facts that name a flow, the same for both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey {
    /// Both ends' addresses, IPv4 mapped (`::ffff:a.b.c.d`), low side first.
    pub addresses: [Ipv6Addr; 2],
    /// Both ends' ports. ICMP echo: the identifier, twice. Other ICMP: the code.
    pub ports: [u16; 2],
    /// IANA protocol number.
    pub protocol: Protocol,
    /// ICMP only: the type; an echo reply carries that of its request.
    pub icmp_type: u8,
}

impl FlowKey {
    /// The key of packets between two ends, and the side of the first of them.
    #[must_use]
    pub fn between(source: SocketAddr, destination: SocketAddr, protocol: Protocol) -> (Self, Side) {
        let plain = |end: SocketAddr| match end.ip() {
            IpAddr::V4(ip) => (ip.to_ipv6_mapped(), end.port()),
            IpAddr::V6(ip) => (ip, end.port()),
        };
        let (source, destination) = (plain(source), plain(destination));
        let (low, high, side) = if source <= destination {
            (source, destination, Side::Low)
        } else {
            (destination, source, Side::High)
        };
        let key = Self { addresses: [low.0, high.0], ports: [low.1, high.1], protocol, icmp_type: 0 };
        (key, side)
    }

    /// What names a connection in records, given when its first packet came.
    #[must_use]
    pub fn connection_id(&self, first_ns: u64) -> ConnectionId {
        let mut hasher = DefaultHasher::new();
        (self, first_ns).hash(&mut hasher);
        ConnectionId(hasher.finish())
    }

    /// The address of one end.
    #[must_use]
    pub fn address(&self, side: Side) -> IpAddr {
        self.addresses[side.index()].to_canonical()
    }

    /// The port of one end, if the protocol has ports.
    #[must_use]
    pub fn port(&self, side: Side) -> Option<u16> {
        self.protocol.has_ports().then(|| self.ports[side.index()])
    }

    /// Address and port of one end; port 0 where the protocol has none.
    #[must_use]
    pub fn socket(&self, side: Side) -> SocketAddr {
        SocketAddr::new(self.address(side), self.port(side).unwrap_or(0))
    }
}

/// Names a connection in records: the same in all of its records, and another one
/// when its [`FlowKey`] is used again. `Display` gives 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId(pub u64);

impl ConnectionId {
    /// One stands in every record: written without a formatter's detours.
    fn digits(self) -> [u8; 16] {
        let mut digits = [0; 16];
        for (place, digit) in digits.iter_mut().enumerate() {
            let value = (self.0 >> (60 - 4 * place)) as u8 & 0xf;
            *digit = if value < 10 { b'0' + value } else { b'a' + value - 10 };
        }
        digits
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl serde::Serialize for ConnectionId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let digits = self.digits();
        serializer.serialize_str(std::str::from_utf8(&digits).map_err(serde::ser::Error::custom)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_sixteen_digits() {
        for (id, text) in
            [(0, "0000000000000000"), (0x0abc, "0000000000000abc"), (u64::MAX, "ffffffffffffffff")]
        {
            assert_eq!(ConnectionId(id).to_string(), text);
            assert_eq!(serde_json::to_value(ConnectionId(id)).unwrap(), text);
        }
    }

    #[test]
    fn protocols_are_read_by_name_and_number() {
        assert_eq!(Protocol::parse("TCP"), Some(Protocol::TCP));
        assert_eq!(Protocol::parse("132"), Some(Protocol::SCTP));
        assert_eq!(Protocol::parse("256"), None);
        assert_eq!(Protocol::parse("quic"), None);
        assert_eq!(Protocol(89).to_string(), "89");
        assert_eq!(format!("{:<6}|", Protocol::UDP), "udp   |");
    }

    #[test]
    fn ipv4_comes_out_as_ipv4() {
        let key = FlowKey {
            addresses: ["::ffff:10.0.0.1".parse().unwrap(), "::ffff:10.0.0.2".parse().unwrap()],
            ports: [80, 43122],
            protocol: Protocol::TCP,
            icmp_type: 0,
        };
        assert_eq!(key.socket(Side::High).to_string(), "10.0.0.2:43122");
        assert_eq!(FlowKey { protocol: Protocol::ICMP, ..key }.port(Side::Low), None);
    }
}
