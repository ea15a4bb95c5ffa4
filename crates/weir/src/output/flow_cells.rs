//! The pieces of a flow that lines and tables show.

use std::borrow::Cow;

use anstyle::Style;
use weir_core::flow::Protocol;
use weir_core::record::{FlowEvent, FlowRecord, State};
use weir_core::text;

use super::cell::{BAD, Cell, DIM, GOOD, WARN};

/// Where the flow stands, coloured by whether that is good.
pub(super) fn state(cell: Cell, state: State) -> Cell {
    let style = match state {
        State::New => DIM,
        State::Established | State::Closed => GOOD,
        State::Closing | State::Idle => WARN,
        State::Reset => BAD,
    };
    cell.styled(style, state.name())
}

/// What went wrong with the flow, and what is not sure; each only if so.
pub(super) fn notes(cell: Cell, flow: &FlowRecord) -> Cell {
    let counts = [
        (u64::from(flow.retransmits), "retransmit", "retransmits"),
        (u64::from(flow.resets), "reset", "resets"),
        (u64::from(flow.zero_windows), "zero window", "zero windows"),
        (u64::from(flow.icmp_errors), "ICMP error", "ICMP errors"),
    ];
    let cell = match &flow.rule {
        Some(rule) => cell.part(DIM, &format!("{} by {rule}", flow.verdict.name())),
        None => cell,
    };
    let mut cell = counts.into_iter().fold(cell, |cell, (count, one, many)| match count {
        0 => cell,
        1 => cell.part(WARN, &format!("1 {one}")),
        _ => cell.part(WARN, &format!("{} {many}", text::count(count))),
    });
    let missing = not_delivered_packets(flow);
    if missing > 0 {
        cell = cell.part(BAD, &format!("not delivered: {}", text::count(missing)));
    }
    if flow.midstream { cell.part(DIM, "midstream") } else { cell }
}

/// Packets that one hook of this host saw and the next one did not. A flow's
/// first packet is on its way yet when it opens: nothing is said then.
fn not_delivered_packets(flow: &FlowRecord) -> u64 {
    if flow.event == FlowEvent::Open {
        return 0;
    }
    let missing = |packets: u64, delivered: Option<u64>| packets.saturating_sub(delivered.unwrap_or(packets));
    missing(flow.sent_packets, flow.sent_delivered_packets)
        + missing(flow.received_packets, flow.received_delivered_packets)
}

/// `TCP`, `ICMP echo`, `protocol 89`.
pub(super) fn protocol(cell: Cell, protocol: Protocol, icmp_type: Option<u8>) -> Cell {
    let name = match protocol {
        Protocol::ICMPV6 => "ICMPv6".to_owned(),
        _ => protocol.to_string().to_uppercase(),
    };
    let name = if name.bytes().all(|byte| byte.is_ascii_digit()) { format!("protocol {name}") } else { name };
    let cell = cell.plain(&name);
    match icmp_type {
        Some(number) => cell.plain(" ").styled(Style::new(), &icmp_type_name(protocol, number)),
        None => cell,
    }
}

/// As IANA's registries call them, shortened where they are long.
fn icmp_type_name(protocol: Protocol, number: u8) -> Cow<'static, str> {
    let name = match (protocol, number) {
        (Protocol::ICMP, 8) | (Protocol::ICMPV6, 128) => "echo",
        (Protocol::ICMP, 0) | (Protocol::ICMPV6, 129) => "echo reply",
        (Protocol::ICMP, 3) | (Protocol::ICMPV6, 1) => "unreachable",
        (Protocol::ICMPV6, 2) => "packet too big",
        (Protocol::ICMP, 4) => "source quench",
        (Protocol::ICMP, 5) | (Protocol::ICMPV6, 137) => "redirect",
        (Protocol::ICMP, 9) | (Protocol::ICMPV6, 134) => "router advertisement",
        (Protocol::ICMP, 10) | (Protocol::ICMPV6, 133) => "router solicitation",
        (Protocol::ICMP, 11) | (Protocol::ICMPV6, 3) => "time exceeded",
        (Protocol::ICMP, 12) | (Protocol::ICMPV6, 4) => "parameter problem",
        (Protocol::ICMP, 13) => "timestamp",
        (Protocol::ICMP, 14) => "timestamp reply",
        (Protocol::ICMP, 42) | (Protocol::ICMPV6, 160) => "extended echo",
        (Protocol::ICMP, 43) | (Protocol::ICMPV6, 161) => "extended echo reply",
        (Protocol::ICMPV6, 130) => "multicast query",
        (Protocol::ICMPV6, 131 | 143) => "multicast report",
        (Protocol::ICMPV6, 132) => "multicast done",
        (Protocol::ICMPV6, 135) => "neighbor solicitation",
        (Protocol::ICMPV6, 136) => "neighbor advertisement",
        _ => return Cow::Owned(format!("type {number}")),
    };
    Cow::Borrowed(name)
}
