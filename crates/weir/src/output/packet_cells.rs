//! The pieces of a packet that lines and tables show.

use weir_core::record::{PacketDirection, PacketRecord};

use super::cell::{BAD, Cell, GOOD};

/// `veth1a2b ↑`: up is sent, down is received, by the container behind a veth
/// and by this host at any other device. Of packets out of captures either may not
/// be known.
pub(super) fn interface(cell: Cell, packet: &PacketRecord) -> Cell {
    let arrow = packet.direction.map(|direction| match direction {
        PacketDirection::FromContainer | PacketDirection::Egress => "↑",
        PacketDirection::ToContainer | PacketDirection::Ingress => "↓",
    });
    let parts: Vec<&str> = packet.interface.as_deref().into_iter().chain(arrow).collect();
    cell.plain(&parts.join(" "))
}

/// `[SA]`: a connection's beginning in green, its breaking off in red.
pub(super) fn flags(cell: Cell, packet: &PacketRecord) -> Cell {
    let Some(flags) = &packet.tcp_flags else {
        return cell;
    };
    let text = format!("[{flags}]");
    if flags.contains('R') {
        cell.styled(BAD, &text)
    } else if flags.contains('S') {
        cell.styled(GOOD, &text)
    } else {
        cell.plain(&text)
    }
}

/// The acknowledgement number, where the packet says that it has one.
pub(super) fn acknowledged(packet: &PacketRecord) -> Option<u32> {
    let has_ack = packet.tcp_flags.as_ref().is_some_and(|flags| flags.contains('A'));
    packet.tcp_ack.filter(|_| has_ack)
}
