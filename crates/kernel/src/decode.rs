//! From the kernel's bytes to the checked types of `weir_core`.
//!
//! `None` means bytes that the programs of this build cannot have written; the
//! caller counts them.

use std::net::Ipv6Addr;
use std::num::NonZeroU32;

use weir_core::capture::PayloadSeen;
use weir_core::event::{DnsSeen, Event, FlowClosed, FlowOpened, Hook, HookId, PacketSeen, Seen};
use weir_core::flow::{
    CaptureState, Counters, DirectionEntry, FlowEntry, FlowKey, FlowState, Point, Protocol, Side, Translation,
};
use weir_core::loss::TallyReason;
use weir_core::redirect::RuleId;

use crate::abi;

pub(crate) fn event(bytes: &[u8]) -> Option<Event> {
    let header: abi::event = abi::from_bytes(bytes)?;
    match abi::event_kind(u32::from(header.kind)) {
        abi::event_kind::EVENT_OPEN => opened(&abi::from_bytes(bytes)?).map(Event::Open),
        abi::event_kind::EVENT_REOPEN => {
            let record: abi::event_reopen = abi::from_bytes(bytes)?;
            Some(Event::Reopen(opened(&record.open)?, Box::new(entry(&record.before)?)))
        }
        abi::event_kind::EVENT_CLOSE => {
            let record: abi::event_close = abi::from_bytes(bytes)?;
            Some(Event::Close(FlowClosed {
                seen: seen(&record.event)?,
                incarnation: record.incarnation,
                state: FlowState::from_number(record.state)?,
            }))
        }
        abi::event_kind::EVENT_PACKET => {
            let record: abi::event_packet = abi::from_bytes(bytes)?;
            Some(Event::Packet(PacketSeen {
                seen: seen(&record.event)?,
                length_bytes: record.length_bytes,
                payload_bytes: record.payload_bytes,
                tcp_seq: record.tcp_seq,
                tcp_ack: record.tcp_ack,
                tcp_window: record.tcp_window,
                tcp_flags: record.tcp_flags,
                source: Side::from_index(record.source),
                counted: record.counted != 0,
            }))
        }
        abi::event_kind::EVENT_DNS => {
            let record: abi::event_dns = abi::from_bytes(bytes)?;
            let captured = usize::try_from(record.captured_bytes).ok()?;
            Some(Event::Dns(DnsSeen {
                seen: seen(&record.event)?,
                payload_bytes: record.payload_bytes,
                payload: record.payload.get(..captured)?.to_vec(),
            }))
        }
        _ => None,
    }
}

/// A record of the ring `payloads`.
pub(crate) fn payload(bytes: &[u8]) -> Option<PayloadSeen<'_>> {
    let record: abi::event_payload = abi::from_bytes(bytes)?;
    if abi::event_kind(u32::from(record.event.kind)) != abi::event_kind::EVENT_PAYLOAD {
        return None;
    }
    let begun = |side: Side| record.begun & 1 << side.index() != 0;
    let captured = usize::try_from(record.captured_bytes).ok()?;
    let payload = bytes.get(size_of::<abi::event_payload>()..)?.get(..captured)?;
    Some(PayloadSeen {
        seen: seen(&record.event)?,
        flow_first_ns: record.flow_first_ns,
        from: Side::from_index(record.source),
        client: (record.begun != 0).then(|| Side::from_index(record.initiator)),
        first_seq: [Side::Low, Side::High].map(|side| begun(side).then(|| record.first_seq[side.index()])),
        seq: record.seq,
        ack: record.ack,
        peer_next_seq: record.peer_next_seq,
        tcp_flags: record.tcp_flags,
        payload_bytes: record.payload_bytes,
        payload,
        left_out_bytes: record.left_out_bytes,
        frame_chain: NonZeroU32::new(record.frame_chain),
    })
}

fn seen(event: &abi::event) -> Option<Seen> {
    Some(Seen {
        time_ns: event.time_ns,
        hook: HookId::from_numbers(event.ifindex, event.hook)?,
        key: key(&event.key),
    })
}

fn opened(open: &abi::event_open) -> Option<FlowOpened> {
    Some(FlowOpened {
        seen: seen(&open.event)?,
        incarnation: open.incarnation,
        length_bytes: open.length_bytes,
        state: FlowState::from_number(open.state)?,
        initiator: Side::from_index(open.initiator),
        source: Side::from_index(open.source),
        midstream: open.midstream != 0,
        tcp_flags: open.tcp_flags,
    })
}

fn rule(number: u32) -> Option<RuleId> {
    (number != 0).then_some(RuleId(number))
}

/// What the client sees of a flow, from the entry for what is sent to it.
pub(crate) fn translation(back: &abi::translation) -> Translation {
    Translation {
        rule: rule(back.rule),
        asked: key(&back.other),
        client: Side::from_index(back.other_sender).other(),
    }
}

pub(crate) fn key(key: &abi::flow_key) -> FlowKey {
    FlowKey {
        addresses: key.address.map(Ipv6Addr::from),
        ports: key.port,
        protocol: Protocol(key.protocol),
        icmp_type: key.icmp_type,
    }
}

pub(crate) fn encode_key(key: &FlowKey) -> abi::flow_key {
    abi::flow_key {
        address: key.addresses.map(|address| address.octets()),
        port: key.ports,
        protocol: key.protocol.0,
        icmp_type: key.icmp_type,
        way: 0,
        pad: 0,
    }
}

pub(crate) fn entry(flow: &abi::flow) -> Option<FlowEntry> {
    let [low, high] = &flow.direction;
    Some(FlowEntry {
        incarnation: flow.incarnation,
        first_ns: flow.first_ns,
        // Coarse time may lie up to a tick before exact time.
        last_ns: flow.last_ns.max(flow.first_ns),
        rtt_us: (flow.rtt_us != 0).then_some(flow.rtt_us),
        resets: flow.resets,
        icmp_errors: flow.icmp_errors,
        state: FlowState::from_number(flow.state)?,
        initiator: Side::from_index(flow.initiator),
        midstream: flow.midstream != 0,
        capture: CaptureState::from_number(flow.capture)?,
        translation: (flow.edge[abi::way::WAY_TO_CLIENT.0 as usize] != 0).then(|| Translation {
            rule: rule(flow.rule),
            asked: key(&flow.asked),
            client: Side::from_index(flow.asked_source),
        }),
        directions: [
            direction(low, flow.retransmits[0], flow.zero_windows[0]),
            direction(high, flow.retransmits[1], flow.zero_windows[1]),
        ],
    })
}

fn direction(direction: &abi::flow_direction, retransmits: u32, zero_windows: u32) -> DirectionEntry {
    DirectionEntry {
        points: direction.point.each_ref().map(|point| Point {
            // The lower half is the interface, the next byte the hook.
            hook: HookId::from_numbers(point.owner as u32, (point.owner >> 32) as u8),
            counters: Counters { packets: point.packets, bytes: point.bytes },
        }),
        retransmits,
        zero_windows,
        tcp_flags: direction.tcp_flags,
        next_seq: direction.next_seq,
        looked_at: direction.turns_looked_at != 0,
    }
}

pub(crate) fn tally_key(key: &abi::tally_key) -> Option<(HookId, TallyReason)> {
    let hook = HookId { ifindex: key.ifindex, hook: Hook::from_number(key.hook)? };
    Some((hook, TallyReason::from_number(key.reason)?))
}
