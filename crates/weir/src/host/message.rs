//! What weir understands of the kernel's routing messages (rtnetlink).
//!
//! Only the attributes that weir uses are looked at: an attribute that a newer
//! kernel adds, or that has another length there, costs nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use libc::{
    ARPHRD_ETHER, ARPHRD_LOOPBACK, IFA_ADDRESS, IFA_LOCAL, RT_TABLE_MAIN, RTA_DST, RTA_MULTIPATH, RTA_OIF,
    RTM_DELADDR, RTM_DELLINK, RTM_DELNSID, RTM_DELROUTE, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWNSID, RTM_NEWROUTE,
    RTN_UNICAST,
};
use netlink_packet_core::{
    NLA_HEADER_SIZE, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NlasIterator,
};

use super::{Interface, InterfaceKind};

/// Attributes that libc has not (linux/if_link.h, linux/if_addr.h, linux/net_namespace.h).
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
pub(super) const IFLA_EXT_MASK: u16 = 29;
const IFLA_LINK_NETNSID: u16 = 37;
pub(super) const IFLA_TARGET_NETNSID: u16 = 46;
pub(super) const IFA_TARGET_NETNSID: u16 = 10;
const NETNSA_NSID: u16 = 1;
pub(super) const NETNSA_PID: u16 = 2;
pub(super) const NETNSA_FD: u16 = 3;

/// Lengths of the fixed parts of the messages.
pub(super) const IFINFOMSG_BYTES: usize = 16;
pub(super) const IFADDRMSG_BYTES: usize = 8;
pub(super) const RTGENMSG_BYTES: usize = 4;
pub(super) const RTMSG_BYTES: usize = 12;
/// `struct rtnexthop`, one of several ways that a route has.
const NEXT_HOP_BYTES: usize = 8;

const IFF_UP: u32 = 1;

/// An interface, with what only this module's neighbours need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) interface: Interface,
    /// Index of the other end (of a veth), in the namespace where that is.
    pub(super) peer_ifindex: Option<u32>,
    /// Its hardware address, where that is as long as Ethernet's.
    pub(super) mac: Option<[u8; 6]>,
}

/// A route that leads somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    /// Where it leads; all addresses: the default route.
    pub(super) destination: IpNet,
    /// The interfaces that it goes through.
    pub(super) ifindexes: Vec<u32>,
}

impl Route {
    pub(super) fn is_default(&self) -> bool {
        self.destination.prefix_len() == 0
    }
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) ifindex: u32,
    pub(super) ip: IpAddr,
    /// The namespace that was asked for, where one was.
    pub(super) nsid: Option<i32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    Link(Link),
    LinkGone {
        ifindex: u32,
    },
    Address(Address),
    AddressGone(Address),
    /// A namespace has, or was just given, this number; `None`: it has none.
    Nsid(Option<i32>),
    NsidGone(i32),
    /// A route of the main table is there, came or went.
    Route(Route),
    /// The end of a dump.
    Done,
    /// An errno; 0 acknowledges.
    Error(i32),
    /// Not for weir.
    Other,
}

/// A message and the parts of its header that a reader of replies checks.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) message: Message,
    pub(super) sequence: u32,
    /// The dump it belongs to was disturbed by a change and may be incomplete.
    pub(super) interrupted: bool,
}

/// Reads all messages of a datagram. What does not hold together ends it.
pub(super) fn parse(mut datagram: &[u8]) -> Vec<Received> {
    let mut messages = Vec::new();
    while let Ok(buffer) = NetlinkBuffer::new_checked(datagram) {
        let message = message(buffer.message_type(), buffer.payload()).unwrap_or(Message::Other);
        messages.push(Received {
            message,
            sequence: buffer.sequence_number(),
            interrupted: buffer.flags() & NLM_F_DUMP_INTR != 0,
        });
        // Messages start at multiples of four bytes; the last may lack padding.
        let length = (buffer.length() as usize).next_multiple_of(4);
        datagram = datagram.get(length..).unwrap_or_default();
    }
    messages
}

fn message(kind: u16, payload: &[u8]) -> Option<Message> {
    Some(match kind {
        NLMSG_DONE => Message::Done,
        NLMSG_ERROR => Message::Error(i32_at(payload, 0)?.checked_neg()?),
        RTM_NEWLINK => match link(payload)? {
            Some(link) => Message::Link(link),
            None => Message::Other,
        },
        // A port that leaves a bridge is told as the removal of a link too,
        // in the bridge's address family.
        RTM_DELLINK if payload.first() == Some(&0) => Message::LinkGone { ifindex: u32_at(payload, 4)? },
        RTM_NEWADDR => Message::Address(address(payload)?),
        RTM_DELADDR => Message::AddressGone(address(payload)?),
        RTM_NEWNSID => Message::Nsid(nsid(payload)),
        RTM_DELNSID => nsid(payload).map_or(Message::Other, Message::NsidGone),
        RTM_NEWROUTE | RTM_DELROUTE => route(payload)?,
        _ => Message::Other,
    })
}

/// `Some(None)`: well-formed, but of another family than "unspecified", as
/// bridges use it to tell of their ports.
fn link(payload: &[u8]) -> Option<Option<Link>> {
    let body = payload.get(IFINFOMSG_BYTES..)?;
    if payload.first() != Some(&0) {
        return Some(None);
    }
    let layer = u16::from_ne_bytes(payload.get(2..4)?.try_into().ok()?);
    let mut link = Link {
        interface: Interface {
            ifindex: u32_at(payload, 4)?,
            name: String::new(),
            kind: InterfaceKind::Other,
            ethernet: matches!(layer, ARPHRD_ETHER | ARPHRD_LOOPBACK),
            peer_netns: None,
            master_ifindex: None,
            default_route: false,
            up: u32_at(payload, 8)? & IFF_UP != 0,
        },
        peer_ifindex: None,
        mac: None,
    };
    for (kind, value) in attributes(body) {
        match kind {
            IFLA_ADDRESS => link.mac = value.try_into().ok(),
            IFLA_IFNAME => link.interface.name = text(value),
            IFLA_MASTER => {
                link.interface.master_ifindex = u32_at(value, 0).filter(|ifindex| *ifindex != 0);
            }
            IFLA_LINK => link.peer_ifindex = u32_at(value, 0).filter(|ifindex| *ifindex != 0),
            IFLA_LINK_NETNSID => link.interface.peer_netns = i32_at(value, 0).filter(|nsid| *nsid >= 0),
            IFLA_LINKINFO if attributes(value).any(|(k, v)| k == IFLA_INFO_KIND && text(v) == "veth") => {
                link.interface.kind = InterfaceKind::Veth;
            }
            _ => {}
        }
    }
    // Other kinds (macvlan, tunnels) say with these what lies under them.
    if link.interface.kind != InterfaceKind::Veth {
        link.interface.peer_netns = None;
        link.peer_ifindex = None;
    }
    Some(Some(link))
}

fn address(payload: &[u8]) -> Option<Address> {
    let body = payload.get(IFADDRMSG_BYTES..)?;
    let (mut local, mut other, mut nsid) = (None, None, None);
    for (kind, value) in attributes(body) {
        match kind {
            // On a point-to-point interface the other attribute is the peer's.
            IFA_LOCAL => local = ip(value),
            IFA_ADDRESS => other = ip(value),
            IFA_TARGET_NETNSID => nsid = i32_at(value, 0),
            _ => {}
        }
    }
    Some(Address { ifindex: u32_at(payload, 4)?, ip: local.or(other)?, nsid })
}

fn nsid(payload: &[u8]) -> Option<i32> {
    attributes(payload.get(RTGENMSG_BYTES..)?)
        .find(|(kind, _)| *kind == NETNSA_NSID)
        .and_then(|(_, value)| i32_at(value, 0))
        .filter(|nsid| *nsid >= 0)
}

/// `Message::Other`: a route of another table, or one that leads nowhere.
fn route(payload: &[u8]) -> Option<Message> {
    let attributes_at = payload.get(RTMSG_BYTES..)?;
    if payload.get(4) != Some(&RT_TABLE_MAIN) || payload.get(7) != Some(&RTN_UNICAST) {
        return Some(Message::Other);
    }
    // Without the attribute it is all zeros: the default route.
    let mut destination: IpAddr = match i32::from(*payload.first()?) {
        libc::AF_INET => Ipv4Addr::UNSPECIFIED.into(),
        libc::AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return Some(Message::Other),
    };
    let mut ifindexes = Vec::new();
    for (kind, value) in attributes(attributes_at) {
        match kind {
            RTA_DST => destination = ip(value)?,
            RTA_OIF => ifindexes.extend(u32_at(value, 0)),
            RTA_MULTIPATH => ifindexes.extend(next_hops(value)),
            _ => {}
        }
    }
    let destination = IpNet::new(destination, *payload.get(1)?).ok()?;
    Some(Message::Route(Route { destination, ifindexes }))
}

/// The interfaces of a route that has several ways.
fn next_hops(mut bytes: &[u8]) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let ifindex = u32_at(bytes, 4).filter(|_| length >= NEXT_HOP_BYTES)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(ifindex)
    })
}

fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(|attribute| {
        let attribute = attribute.ok()?;
        let (kind, length) = (attribute.kind(), usize::from(attribute.length()));
        Some((kind, attribute.into_inner().get(NLA_HEADER_SIZE..length)?))
    })
}

/// An interface's or kind's name: ends at a zero byte, at most 15 bytes for
/// interfaces (the kernel's limit).
fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

fn ip(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
        _ => None,
    }
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}

fn i32_at(bytes: &[u8], offset: usize) -> Option<i32> {
    Some(i32::from_ne_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((value.len() as u16 + 4).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn datagram(kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((payload.len() as u32 + 16).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(0u16.to_ne_bytes());
        bytes.extend(7u32.to_ne_bytes());
        bytes.extend(0u32.to_ne_bytes());
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn veth(family: u8) -> Vec<u8> {
        let mut payload = vec![family, 0];
        payload.extend(ARPHRD_ETHER.to_ne_bytes());
        payload.extend(12u32.to_ne_bytes());
        payload.extend(IFF_UP.to_ne_bytes());
        payload.extend(0u32.to_ne_bytes());
        payload.extend(attribute(IFLA_IFNAME, b"veth1234\0"));
        payload.extend(attribute(9999, &[1; 33]));
        payload.extend(attribute(IFLA_ADDRESS, &[2, 0, 0, 0, 0, 7]));
        payload.extend(attribute(IFLA_MASTER, &5u32.to_ne_bytes()));
        payload.extend(attribute(IFLA_LINK, &2u32.to_ne_bytes()));
        payload.extend(attribute(IFLA_LINK_NETNSID, &3i32.to_ne_bytes()));
        // Nested attributes may carry the flag that says so.
        payload.extend(attribute(IFLA_LINKINFO | 0x8000, &attribute(IFLA_INFO_KIND, b"veth\0")));
        payload
    }

    fn only(mut messages: Vec<Received>) -> Message {
        assert_eq!(messages.len(), 1);
        messages.remove(0).message
    }

    #[test]
    fn reads_a_veth() {
        let Message::Link(link) = only(parse(&datagram(RTM_NEWLINK, &veth(0)))) else { panic!("not a link") };
        assert_eq!((link.peer_ifindex, link.mac), (Some(2), Some([2, 0, 0, 0, 0, 7])));
        assert_eq!(
            link.interface,
            Interface {
                ifindex: 12,
                name: "veth1234".into(),
                kind: InterfaceKind::Veth,
                ethernet: true,
                peer_netns: Some(3),
                master_ifindex: Some(5),
                default_route: false,
                up: true
            }
        );
    }

    #[test]
    fn a_bridge_that_speaks_of_its_port_is_not_heard() {
        const AF_BRIDGE: u8 = 7;
        assert_eq!(only(parse(&datagram(RTM_NEWLINK, &veth(AF_BRIDGE)))), Message::Other);
        assert_eq!(only(parse(&datagram(RTM_DELLINK, &veth(AF_BRIDGE)))), Message::Other);
        assert_eq!(only(parse(&datagram(RTM_DELLINK, &veth(0)))), Message::LinkGone { ifindex: 12 });
    }

    #[test]
    fn the_local_address_counts_not_the_peers() {
        let mut payload = vec![2, 32, 0, 0];
        payload.extend(5u32.to_ne_bytes());
        payload.extend(attribute(IFA_ADDRESS, &[10, 0, 0, 2]));
        payload.extend(attribute(IFA_LOCAL, &[10, 0, 0, 1]));
        let expected = Address { ifindex: 5, ip: IpAddr::from([10, 0, 0, 1]), nsid: None };
        assert_eq!(only(parse(&datagram(RTM_NEWADDR, &payload))), Message::Address(expected));
    }

    #[test]
    fn several_messages_share_a_datagram() {
        let mut nsid = vec![0; 4];
        nsid.extend(attribute(NETNSA_NSID, &(-1i32).to_ne_bytes()));
        let mut bytes = datagram(RTM_NEWNSID, &nsid);
        bytes.extend(datagram(NLMSG_ERROR, &(-2i32).to_ne_bytes()));
        bytes.extend(datagram(NLMSG_DONE, &[]));
        let messages: Vec<_> = parse(&bytes).into_iter().map(|received| received.message).collect();
        assert_eq!(messages, [Message::Nsid(None), Message::Error(2), Message::Done]);
    }

    fn a_route(prefix_bits: u8, table: u8, kind: u8, attributes: &[u8]) -> Vec<u8> {
        [&[2, prefix_bits, 0, 0, table, 0, 0, kind, 0, 0, 0, 0], attributes].concat()
    }

    fn two_ways() -> Vec<u8> {
        let way =
            |length: u16, ifindex: u32| [&length.to_ne_bytes()[..], &[0; 2], &ifindex.to_ne_bytes()].concat();
        let ways = [way(16, 4), attribute(5, &[10, 0, 0, 1]), way(8, 6)].concat();
        a_route(0, RT_TABLE_MAIN, RTN_UNICAST, &attribute(RTA_MULTIPATH, &ways))
    }

    #[test]
    fn routes_of_the_main_table() {
        let told = |route: Vec<u8>| only(parse(&datagram(RTM_NEWROUTE, &route)));
        let way = attribute(RTA_OIF, &4u32.to_ne_bytes());
        let route = |destination: &str, ifindexes: &[u32]| {
            let (destination, ifindexes) = (destination.parse().unwrap(), ifindexes.to_vec());
            Message::Route(Route { destination, ifindexes })
        };
        assert_eq!(told(a_route(0, RT_TABLE_MAIN, RTN_UNICAST, &way)), route("0.0.0.0/0", &[4]));
        assert_eq!(told(two_ways()), route("0.0.0.0/0", &[4, 6]));
        let one = [&way[..], &attribute(RTA_DST, &[10, 9, 0, 0])].concat();
        assert_eq!(told(a_route(16, RT_TABLE_MAIN, RTN_UNICAST, &one)), route("10.9.0.0/16", &[4]));
        // Of another table; that leads nowhere.
        assert_eq!(told(a_route(0, 100, RTN_UNICAST, &way)), Message::Other);
        assert_eq!(told(a_route(0, RT_TABLE_MAIN, libc::RTN_UNREACHABLE, &way)), Message::Other);
    }

    #[test]
    fn no_cut_and_no_flipped_byte_panics() {
        no_cut_and_no_flipped_byte_of(&datagram(RTM_NEWLINK, &veth(0)));
        no_cut_and_no_flipped_byte_of(&datagram(RTM_NEWROUTE, &two_ways()));
    }

    fn no_cut_and_no_flipped_byte_of(whole: &[u8]) {
        for length in 0..whole.len() {
            parse(&whole[..length]);
        }
        for position in 0..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut changed = whole.to_vec();
                changed[position] = value;
                parse(&changed);
            }
        }
    }
}
