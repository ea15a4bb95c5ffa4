//! From captured frames to segments and datagrams: link layer, VLAN tags, IPv4
//! with options, IPv6 with extension headers, fragments. What names a flow is what
//! the kernel side takes for it.

mod cursor;
mod fragments;
mod sighting;
#[cfg(test)]
mod tests;
mod transport;

use std::net::IpAddr;

use crate::event::{HookId, PacketSeen, Seen};
use crate::flow::{FlowKey, Protocol, Side};
use crate::keyed::Keyed;
use crate::loss::TallyReason;
use crate::stream::Segment;
use cursor::Cursor;
use fragments::{FIRSTS_MAX, Fragment, Fragments};
pub use sighting::Sighting;
use transport::{ends as ends_of, transport};

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPES_VLAN: [u16; 3] = [0x8100, 0x88a8, 0x9100];
const VLAN_TAGS_MAX: usize = 4;
const EXTENSION_HEADERS_MAX: usize = 8;
/// The shortest one.
const TCP_HEADER_BYTES: usize = 20;

/// What stands before the IP header of captured frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Ethernet.
    Ethernet,
    /// Nothing.
    Ip,
    /// Linux "cooked", as from the interface `any`.
    Cooked,
    /// The same, newer.
    Cooked2,
    /// BSD loopback: an address family.
    Loopback,
}

impl Link {
    /// By the number that capture files use (LINKTYPE_...).
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        match number {
            0 | 108 => Some(Self::Loopback),
            1 => Some(Self::Ethernet),
            12 | 14 | 101 | 228 | 229 => Some(Self::Ip),
            113 => Some(Self::Cooked),
            276 => Some(Self::Cooked2),
            _ => None,
        }
    }
}

/// What a frame carries, and between whom.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    /// The two ends.
    pub key: FlowKey,
    /// Which of them sent it.
    pub from: Side,
    /// What follows the transport protocol's header in this frame, as much as was
    /// sent.
    pub payload_bytes: u32,
    /// TCP, where its header is in this frame.
    pub tcp: Option<TcpHeader>,
    /// ICMP errors: the flow of the packet that they quote.
    pub quote: Option<FlowKey>,
    /// What it carries.
    pub body: Body<'a>,
}

impl Packet<'_> {
    /// What the programs tell of such a packet, at a hook that counts it.
    #[must_use]
    pub fn seen(&self, hook: HookId, length_bytes: u32, time_ns: u64) -> PacketSeen {
        // A fragment that is not the first one has no header.
        let TcpHeader { seq, ack, window, flags } = self.tcp.unwrap_or_default();
        PacketSeen {
            seen: Seen { time_ns, hook, key: self.key },
            length_bytes,
            payload_bytes: self.payload_bytes,
            tcp_seq: seq,
            tcp_ack: ack,
            tcp_window: window,
            tcp_flags: flags,
            source: self.from,
            counted: true,
        }
    }
}

/// What a TCP header says besides the ports (RFC 9293, 3.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TcpHeader {
    /// Sequence number of the first byte, or of SYN.
    pub seq: u32,
    /// The next sequence number that is expected, if the flags have ACK.
    pub ack: u32,
    /// Window, not scaled.
    pub window: u16,
    /// Its flags, FIN the lowest.
    pub flags: u8,
}

impl TcpHeader {
    pub(crate) const FIN: u8 = 0x01;
    pub(crate) const SYN: u8 = 0x02;
    pub(crate) const RST: u8 = 0x04;
    pub(crate) const ACK: u8 = 0x10;
}

/// What an IP packet carries.
#[derive(Debug, Clone, Copy)]
pub enum Body<'a> {
    /// TCP.
    Tcp(Segment<'a>),
    /// UDP.
    Udp {
        /// As much as was captured.
        payload: &'a [u8],
        /// As much as was sent.
        payload_bytes: u32,
    },
    /// Another protocol.
    Other,
    /// A piece of a datagram that is not complete yet.
    Fragment,
    /// The same, and its ports are not known: they stand in a piece that did not come
    /// before it.
    Stray,
}

/// Reads frames, one after the other, and joins fragments.
#[derive(Debug)]
pub struct Decoder {
    fragments: Fragments,
    /// Whose datagrams are, as their first fragments said: the others have no ports. As with the programs, one
    /// that is complete is remembered like any other: a fragment of it may come again.
    firsts: Keyed<fragments::Key, (FlowKey, Side)>,
    joined: Vec<u8>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { fragments: Fragments::default(), firsts: Keyed::new(FIRSTS_MAX), joined: Vec::new() }
    }
}

impl Decoder {
    /// Reads one frame of `sent_bytes` bytes, of which these were captured.
    ///
    /// # Errors
    /// Why there is no packet to be had.
    pub fn decode<'a>(
        &'a mut self,
        link: Link,
        frame: &'a [u8],
        sent_bytes: u32,
        time_ns: u64,
    ) -> Result<Packet<'a>, TallyReason> {
        let sent = usize::try_from(sent_bytes).unwrap_or(usize::MAX).max(frame.len());
        let mut cursor = Cursor { rest: frame, sent };
        let network = match link {
            Link::Ethernet => {
                cursor.skip(12)?;
                ethertype(&mut cursor)?
            }
            Link::Cooked => {
                cursor.skip(14)?;
                ethertype(&mut cursor)?
            }
            Link::Cooked2 => {
                let network = cursor.u16()?;
                cursor.skip(18)?;
                network
            }
            Link::Loopback => match cursor.take(4)? {
                [2, 0, 0, 0] | [0, 0, 0, 2] => ETHERTYPE_IPV4,
                [24 | 28 | 30 | 10, 0, 0, 0] | [0, 0, 0, 24 | 28 | 30 | 10] => ETHERTYPE_IPV6,
                _ => return Err(TallyReason::NonIp),
            },
            Link::Ip => match cursor.rest.first().map(|byte| byte >> 4) {
                Some(4) => ETHERTYPE_IPV4,
                Some(6) => ETHERTYPE_IPV6,
                Some(_) => return Err(TallyReason::NonIp),
                None => return Err(TallyReason::Truncated),
            },
        };
        let datagram = match network {
            ETHERTYPE_IPV4 => ipv4(cursor)?,
            ETHERTYPE_IPV6 => ipv6(cursor)?,
            ETHERTYPE_ARP => return Err(TallyReason::Arp),
            _ => return Err(TallyReason::NonIp),
        };
        let Some(fragment) = datagram.fragment else { return transport(&datagram, datagram.cursor, false) };
        let own =
            (fragment.place == 0).then(|| transport(&datagram, datagram.cursor, true)).and_then(Result::ok);
        let name = fragments::key(&datagram, fragment);
        if let Some(first) = own {
            self.firsts.insert(name, (first.key, first.from));
        }
        let ends = self.firsts.get(&name).copied();
        let is_whole = self.fragments.add(name, datagram.cursor, fragment, time_ns, &mut self.joined);
        let whole = match is_whole {
            true => {
                let cursor = Cursor { rest: &self.joined, sent: self.joined.len() };
                Some(transport(&datagram, cursor, false)?)
            }
            false => None,
        };
        // As much is told of a fragment as is in its own frame; but what is whole is told with the last one.
        let body = whole.map_or(Body::Fragment, |whole| whole.body);
        if let Some(first) = own {
            return Ok(Packet { body, ..first });
        }
        let payload_bytes = datagram.cursor.sent_bytes();
        let protocol = datagram.protocol;
        let is_known = ends.is_some() || whole.is_some() || !(protocol.has_ports() || protocol.is_icmp());
        let (key, from) = ends
            .or(whole.map(|whole| (whole.key, whole.from)))
            .unwrap_or_else(|| ends_of(&datagram, [0, 0], 0));
        let body = if is_known { body } else { Body::Stray };
        Ok(Packet { key, from, payload_bytes, tcp: None, quote: None, body })
    }

    /// Fragments that never became whole datagrams, those included that are
    /// still waiting.
    #[must_use]
    pub fn unjoined(&self) -> u64 {
        self.fragments.unjoined()
    }
}

/// An IP packet (or a fragment of one), its headers read.
struct Datagram<'a> {
    source: IpAddr,
    destination: IpAddr,
    protocol: Protocol,
    cursor: Cursor<'a>,
    fragment: Option<Fragment>,
}

/// The network protocol, after any VLAN tags.
fn ethertype(cursor: &mut Cursor<'_>) -> Result<u16, TallyReason> {
    for _ in 0..=VLAN_TAGS_MAX {
        let network = cursor.u16()?;
        if !ETHERTYPES_VLAN.contains(&network) {
            return Ok(network);
        }
        cursor.skip(2)?;
    }
    Err(TallyReason::HeadersTooDeep)
}

fn ipv4(mut cursor: Cursor<'_>) -> Result<Datagram<'_>, TallyReason> {
    let whole = cursor.sent;
    let [version_and_words, _, total_high, total_low, id_high, id_low, flags, offset, _, protocol, ..] =
        *cursor.array::<12>()?;
    let source = IpAddr::from(*cursor.array::<4>()?);
    let destination = IpAddr::from(*cursor.array::<4>()?);
    let header = usize::from(version_and_words & 0x0f) * 4;
    if version_and_words >> 4 != 4 || header < 20 {
        return Err(TallyReason::Malformed);
    }
    // Segmentation offload leaves it 0: then the frame says how long it is.
    let total = match u16::from_be_bytes([total_high, total_low]) {
        0 => whole,
        total => usize::from(total),
    };
    if total < header || total > whole {
        return Err(TallyReason::Malformed);
    }
    cursor.skip(header - 20)?;
    cursor.limit(total - header);
    let offset = u16::from_be_bytes([flags, offset]);
    let (place, more) = (usize::from(offset & 0x1fff) * 8, offset & 0x2000 != 0);
    let id = u32::from(u16::from_be_bytes([id_high, id_low]));
    let fragment = (more || place > 0).then_some(Fragment { id, place, more });
    Ok(Datagram { source, destination, protocol: Protocol(protocol), cursor, fragment })
}

fn ipv6(mut cursor: Cursor<'_>) -> Result<Datagram<'_>, TallyReason> {
    let [version, _, _, _, length_high, length_low, next, _] = *cursor.array::<8>()?;
    let source = IpAddr::from(*cursor.array::<16>()?);
    let destination = IpAddr::from(*cursor.array::<16>()?);
    if version >> 4 != 6 {
        return Err(TallyReason::Malformed);
    }
    // 0 is a jumbogram, or segmentation offload, if there is room for a segment; else the rest is padding.
    match usize::from(u16::from_be_bytes([length_high, length_low])) {
        0 if cursor.sent >= TCP_HEADER_BYTES => {}
        length if length > cursor.sent => return Err(TallyReason::Malformed),
        length => cursor.limit(length),
    }
    let mut next = next;
    let mut fragment = None;
    for _ in 0..=EXTENSION_HEADERS_MAX {
        match next {
            // Hop by hop, routing, destination options, mobility.
            0 | 43 | 60 | 135 => {
                let [following, words] = *cursor.array::<2>()?;
                cursor.skip(usize::from(words) * 8 + 6)?;
                next = following;
            }
            // Authentication.
            51 => {
                let [following, words] = *cursor.array::<2>()?;
                cursor.skip(usize::from(words) * 4 + 6)?;
                next = following;
            }
            44 => {
                let [following, _, high, low, id @ ..] = *cursor.array::<8>()?;
                let offset = u16::from_be_bytes([high, low]);
                let (place, more) = (usize::from(offset & 0xfff8), offset & 1 != 0);
                next = following;
                if place > 0 || more {
                    fragment = Some(Fragment { id: u32::from_be_bytes(id), place, more });
                    // What follows belongs to the whole datagram.
                    return Ok(Datagram { source, destination, protocol: Protocol(next), cursor, fragment });
                }
            }
            _ => {
                return Ok(Datagram { source, destination, protocol: Protocol(next), cursor, fragment });
            }
        }
    }
    Err(TallyReason::HeadersTooDeep)
}
