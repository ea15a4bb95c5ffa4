//! What follows IP: ports, or what stands for them, and the payload.

use std::net::SocketAddr;

use super::cursor::Cursor;
use super::{Body, Datagram, Packet, TcpHeader, ipv4, ipv6};
use crate::flow::{FlowKey, Protocol, Side};
use crate::loss::TallyReason;
use crate::stream::Segment;

const ICMP_ECHO: u8 = 8;
const ICMP_TIMESTAMP: u8 = 13;
/// With the type of the request that it answers.
const ICMP_REPLIES: [(u8, u8); 2] = [(0, ICMP_ECHO), (14, ICMP_TIMESTAMP)];
/// Unreachable, source quench, redirect, time exceeded, parameter problem.
const ICMP_ERRORS: [u8; 5] = [3, 4, 5, 11, 12];
const ICMPV6_ERROR_MAX: u8 = 127;
const ICMPV6_ECHO: u8 = 128;
const ICMPV6_ECHO_REPLY: u8 = 129;
const ICMPV6_NEIGHBOR_DISCOVERY: std::ops::RangeInclusive<u8> = 130..=137;
const ICMPV6_LISTENER_REPORT_2: u8 = 143;

/// The flow that a datagram belongs to, and who sent it.
pub(super) fn ends(datagram: &Datagram<'_>, ports: [u16; 2], icmp_type: u8) -> (FlowKey, Side) {
    let [source, destination] = ports;
    let (key, from) = FlowKey::between(
        SocketAddr::new(datagram.source.to_canonical(), source),
        SocketAddr::new(datagram.destination.to_canonical(), destination),
        datagram.protocol,
    );
    (FlowKey { icmp_type, ..key }, from)
}

/// Reads the transport protocol's header. `is_piece`: more of the datagram is in
/// other frames.
pub(super) fn transport<'a>(
    datagram: &Datagram<'_>,
    mut cursor: Cursor<'a>,
    is_piece: bool,
) -> Result<Packet<'a>, TallyReason> {
    let (mut icmp_type, mut tcp, mut quote) = (0, None, None);
    let (ports, body) = match datagram.protocol {
        Protocol::TCP => {
            let ports = [cursor.u16()?, cursor.u16()?];
            let header = tcp_header(&mut cursor)?;
            tcp = Some(header);
            let segment = Segment {
                seq: header.seq,
                ack: (header.flags & TcpHeader::ACK != 0).then_some(header.ack),
                syn: header.flags & TcpHeader::SYN != 0,
                fin: header.flags & TcpHeader::FIN != 0,
                rst: header.flags & TcpHeader::RST != 0,
                payload: cursor.rest,
                payload_bytes: cursor.sent_bytes(),
            };
            (ports, Body::Tcp(segment))
        }
        Protocol::UDP => {
            let ports = [cursor.u16()?, cursor.u16()?];
            let length = usize::from(cursor.u16()?);
            cursor.skip(2)?;
            // 0 is a jumbogram, or segmentation offload.
            if length != 0 && !is_piece {
                let payload = length.checked_sub(8).ok_or(TallyReason::Malformed)?;
                if payload > cursor.sent {
                    return Err(TallyReason::Malformed);
                }
                cursor.limit(payload);
            }
            (ports, Body::Udp { payload: cursor.rest, payload_bytes: cursor.sent_bytes() })
        }
        Protocol::SCTP | Protocol::UDPLITE => {
            let ports = [cursor.u16()?, cursor.u16()?];
            cursor.skip(if datagram.protocol == Protocol::UDPLITE { 4 } else { 8 })?;
            (ports, Body::Other)
        }
        Protocol::ICMP | Protocol::ICMPV6 => {
            let icmp = icmp_header(datagram.protocol, &mut cursor)?;
            icmp_type = icmp.kind;
            quote = icmp.is_error.then(|| quoted(datagram.protocol, cursor)).flatten();
            ([icmp.number; 2], Body::Other)
        }
        _ => ([0, 0], Body::Other),
    };
    let (key, from) = ends(datagram, ports, icmp_type);
    Ok(Packet { key, from, payload_bytes: cursor.sent_bytes(), tcp, quote, body })
}

/// After the ports.
fn tcp_header(cursor: &mut Cursor<'_>) -> Result<TcpHeader, TallyReason> {
    let (seq, ack) = (cursor.u32()?, cursor.u32()?);
    let [words, flags, high, low, ..] = *cursor.array::<8>()?;
    let header = usize::from(words >> 4) * 4;
    if header < 20 || header - 20 > cursor.sent {
        return Err(TallyReason::Malformed);
    }
    cursor.skip(header - 20)?;
    Ok(TcpHeader { seq, ack, window: u16::from_be_bytes([high, low]), flags })
}

struct IcmpHeader {
    /// A reply's is that of its request.
    kind: u8,
    /// What stands for the ports: an identifier, or else the code.
    number: u16,
    is_error: bool,
}

fn icmp_header(protocol: Protocol, cursor: &mut Cursor<'_>) -> Result<IcmpHeader, TallyReason> {
    let [kind, code, _, _, high, low, ..] = *cursor.array::<8>()?;
    let (kind, has_identifier, is_error) = if protocol == Protocol::ICMP {
        let kind = ICMP_REPLIES.iter().find(|(reply, _)| *reply == kind).map_or(kind, |(_, asked)| *asked);
        (kind, matches!(kind, ICMP_ECHO | ICMP_TIMESTAMP), ICMP_ERRORS.contains(&kind))
    } else {
        if ICMPV6_NEIGHBOR_DISCOVERY.contains(&kind) || kind == ICMPV6_LISTENER_REPORT_2 {
            return Err(TallyReason::NeighborDiscovery);
        }
        let kind = if kind == ICMPV6_ECHO_REPLY { ICMPV6_ECHO } else { kind };
        (kind, kind == ICMPV6_ECHO, kind <= ICMPV6_ERROR_MAX)
    };
    let number = if has_identifier { u16::from_be_bytes([high, low]) } else { u16::from(code) };
    Ok(IcmpHeader { kind, number, is_error })
}

/// The flow of the packet that an ICMP error quotes. It may be cut anywhere.
fn quoted(protocol: Protocol, cursor: Cursor<'_>) -> Option<FlowKey> {
    let cursor = Cursor { rest: cursor.rest, sent: usize::MAX };
    let mut quote = if protocol == Protocol::ICMP { ipv4(cursor) } else { ipv6(cursor) }.ok()?;
    if quote.fragment.is_some_and(|fragment| fragment.place > 0) {
        return None;
    }
    let (ports, icmp_type) = match quote.protocol {
        protocol if protocol.has_ports() => ([quote.cursor.u16().ok()?, quote.cursor.u16().ok()?], 0),
        protocol if protocol.is_icmp() => {
            let icmp = icmp_header(protocol, &mut quote.cursor).ok()?;
            ([icmp.number; 2], icmp.kind)
        }
        _ => ([0, 0], 0),
    };
    Some(ends(&quote, ports, icmp_type).0)
}
