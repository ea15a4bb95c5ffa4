//! The kernel's flow table once more, for packets out of files: what `bpf/flow.h`
//! does, without hooks, payload and translations.

use std::collections::HashMap;
use std::convert::Infallible;

use crate::event::{Event, FlowClosed, FlowOpened, Hook, HookId, Seen};
use crate::flow::{
    CaptureState, Counters, DirectionEntry, EntrySource, FlowEntry, FlowKey, FlowState, Protocol, Side,
};
use crate::frame::{Packet, TcpHeader};

/// As many as the kernel's table has room for by default: some 100 MB.
pub const TRACKED_FLOWS_MAX: usize = 262_144;

/// Files know no devices of this host.
const NOWHERE: HookId = HookId { ifindex: 0, hook: Hook::Ingress };

/// Follows flows from packet to packet.
#[derive(Debug)]
pub struct Tracker {
    flows: HashMap<FlowKey, Tracked>,
    flows_max: usize,
}

impl Default for Tracker {
    fn default() -> Self {
        Self::with_room(TRACKED_FLOWS_MAX)
    }
}

/// What a packet was to its flow.
#[derive(Debug, Default)]
pub struct Step {
    /// It was the first one: [`Event::Open`] or [`Event::Reopen`].
    pub opened: Option<Event>,
    /// It ended the connection.
    pub closed: Option<FlowClosed>,
    /// There was no room for its flow, and it stands nowhere.
    pub is_table_full: bool,
}

#[derive(Debug)]
struct Tracked {
    entry: FlowEntry,
    /// When SYN was sent, if it was sent once.
    syn_ns: Option<u64>,
    /// Whether the other end acknowledged FIN, by [`Side::index`].
    fin_acked: [bool; 2],
}

impl Tracker {
    /// For so many flows at a time.
    #[must_use]
    pub fn with_room(flows: usize) -> Self {
        Self { flows: HashMap::new(), flows_max: flows }
    }

    /// How many flows at a time there is room for.
    #[must_use]
    pub fn room(&self) -> usize {
        self.flows_max
    }

    /// Takes a packet whose flow is known: all but [`Body::Stray`](crate::frame::Body::Stray).
    pub fn packet(&mut self, packet: &Packet<'_>, length_bytes: u32, time_ns: u64) -> Step {
        let mut step = Step::default();
        let key = packet.key;
        let flags = packet.tcp.map_or(0, |tcp| tcp.flags);
        let is_full = self.flows.len() >= self.flows_max;
        match self.flows.get_mut(&key) {
            Some(flow)
                if flow.entry.state >= FlowState::Closed
                    && flags & (TcpHeader::SYN | TcpHeader::ACK) == TcpHeader::SYN =>
            {
                let before = Box::new(flow.entry);
                flow.begin_again(packet, time_ns);
                step.opened = Some(Event::Reopen(flow.opened(packet, length_bytes, time_ns), before));
            }
            Some(_) => {}
            None if is_full => return Step { is_table_full: true, ..step },
            None => {
                let flow = Tracked::begin(packet, time_ns);
                step.opened = Some(Event::Open(flow.opened(packet, length_bytes, time_ns)));
                self.flows.insert(key, flow);
            }
        }
        if let Some(flow) = self.flows.get_mut(&key) {
            let ended = flow.count(packet, length_bytes, time_ns);
            step.closed = ended.map(|state| FlowClosed {
                seen: Seen { time_ns, hook: NOWHERE, key },
                incarnation: flow.entry.incarnation,
                state,
            });
        }
        if let Some(quoted) = packet.quote.and_then(|quote| self.flows.get_mut(&quote)) {
            quoted.entry.icmp_errors += 1;
        }
        step
    }
}

impl Tracked {
    fn begin(packet: &Packet<'_>, time_ns: u64) -> Self {
        let mut flow = Self {
            entry: FlowEntry {
                incarnation: 0,
                first_ns: time_ns,
                last_ns: time_ns,
                rtt_us: None,
                resets: 0,
                icmp_errors: 0,
                state: FlowState::New,
                initiator: packet.from,
                midstream: false,
                capture: CaptureState::Undecided,
                translation: None,
                directions: [DirectionEntry::default(); 2],
            },
            syn_ns: None,
            fin_acked: [false; 2],
        };
        flow.look_at_the_first(packet, time_ns);
        flow
    }

    /// A connection that ended begins anew with the same addresses and ports. Counters
    /// go on, as they do in the kernel's entry.
    fn begin_again(&mut self, packet: &Packet<'_>, time_ns: u64) {
        let before = &self.entry;
        let directions = before.directions.map(|direction| DirectionEntry { tcp_flags: 0, ..direction });
        let (incarnation, resets, icmp_errors) = (before.incarnation + 1, before.resets, before.icmp_errors);
        *self = Self::begin(packet, time_ns);
        self.entry = FlowEntry { incarnation, resets, icmp_errors, directions, ..self.entry };
    }

    fn look_at_the_first(&mut self, packet: &Packet<'_>, time_ns: u64) {
        if packet.key.protocol != Protocol::TCP {
            return;
        }
        let flags = packet.tcp.map_or(0, |tcp| tcp.flags);
        let entry = &mut self.entry;
        match (flags & TcpHeader::SYN != 0, flags & TcpHeader::ACK != 0) {
            (true, false) => self.syn_ns = Some(time_ns),
            (true, true) => (entry.midstream, entry.initiator) = (true, packet.from.other()),
            (false, _) => {
                // Who opened it was not seen: servers listen on the lower port.
                let [low, high] = packet.key.ports;
                entry.initiator = if low < high { Side::High } else { Side::Low };
                (entry.midstream, entry.state) = (true, FlowState::Established);
            }
        }
    }

    fn opened(&self, packet: &Packet<'_>, length_bytes: u32, time_ns: u64) -> FlowOpened {
        FlowOpened {
            seen: Seen { time_ns, hook: NOWHERE, key: packet.key },
            incarnation: self.entry.incarnation,
            length_bytes,
            state: self.entry.state,
            initiator: self.entry.initiator,
            source: packet.from,
            midstream: self.entry.midstream,
            tcp_flags: packet.tcp.map_or(0, |tcp| tcp.flags),
        }
    }

    /// Counts a packet; how the connection ended, if this was its end.
    fn count(&mut self, packet: &Packet<'_>, length_bytes: u32, time_ns: u64) -> Option<FlowState> {
        let point = &mut self.entry.directions[packet.from.index()].points[0];
        point.counters += Counters { packets: 1, bytes: u64::from(length_bytes) };
        // Files that were put together go back in time.
        self.entry.last_ns = self.entry.last_ns.max(time_ns);
        if packet.key.protocol == Protocol::TCP {
            return packet.tcp.and_then(|tcp| self.follow(packet.from, tcp, packet.payload_bytes, time_ns));
        }
        if packet.from != self.entry.initiator {
            self.advance(FlowState::Established);
        }
        None
    }

    fn follow(&mut self, from: Side, tcp: TcpHeader, payload_bytes: u32, time_ns: u64) -> Option<FlowState> {
        let TcpHeader { seq, ack, window, flags } = tcp;
        let has = |flag: u8| flags & flag != 0;
        let length = payload_bytes + u32::from(has(TcpHeader::SYN)) + u32::from(has(TcpHeader::FIN));
        let end = seq.wrapping_add(length);
        let own = &mut self.entry.directions[from.index()];
        let seen = own.tcp_flags;
        if seen == 0 || is_after(end, own.next_seq) {
            own.next_seq = end;
        } else if length > 0 {
            own.retransmits += 1;
        }
        own.tcp_flags |= flags;
        if window == 0 && !has(TcpHeader::SYN | TcpHeader::RST) {
            own.zero_windows += 1;
        }
        if has(TcpHeader::RST) {
            self.entry.resets += 1;
            return self.advance(FlowState::Reset).then_some(FlowState::Reset);
        }
        let peer = self.entry.directions[from.other().index()];
        if self.entry.state == FlowState::New {
            if has(TcpHeader::SYN) {
                // Sent twice: which of the two was answered cannot be told (Karn).
                if seen & TcpHeader::SYN != 0 {
                    self.syn_ns = None;
                }
            } else if from == self.entry.initiator
                && peer.tcp_flags & TcpHeader::SYN != 0
                && self.advance(FlowState::Established)
            {
                let us =
                    |syn_ns: u64| u32::try_from(time_ns.saturating_sub(syn_ns) / 1_000).unwrap_or(u32::MAX);
                // 0 is what the kernel's entry has for one that is not known.
                self.entry.rtt_us = self.syn_ns.map(us).filter(|us| *us > 0);
            }
        }
        if has(TcpHeader::FIN) {
            self.advance(FlowState::Closing);
        }
        let acked = &mut self.fin_acked[from.other().index()];
        if self.entry.state == FlowState::Closing
            && has(TcpHeader::ACK)
            && peer.tcp_flags & TcpHeader::FIN != 0
            && !is_after(peer.next_seq, ack)
            && !std::mem::replace(acked, true)
            && self.fin_acked == [true, true]
            && self.advance(FlowState::Closed)
        {
            return Some(FlowState::Closed);
        }
        None
    }

    /// A flow's state only goes forward.
    fn advance(&mut self, state: FlowState) -> bool {
        let advances = self.entry.state < state && self.entry.state < FlowState::Closed;
        if advances {
            self.entry.state = state;
        }
        advances
    }
}

/// For 32-bit sequence numbers that wrap (RFC 9293, 3.4).
fn is_after(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}

impl EntrySource for Tracker {
    type Error = Infallible;

    fn read(&mut self, key: &FlowKey) -> Result<Option<FlowEntry>, Infallible> {
        Ok(self.flows.get(key).map(|flow| flow.entry))
    }

    fn remove(&mut self, key: &FlowKey) -> Result<Option<FlowEntry>, Infallible> {
        Ok(self.flows.remove(key).map(|flow| flow.entry))
    }

    fn visit(&mut self, visit: &mut dyn FnMut(FlowKey, FlowEntry)) -> Result<(), Infallible> {
        for (key, flow) in &self.flows {
            visit(*key, flow.entry);
        }
        Ok(())
    }
}

/// The same flows, those first whose last packet came first: what is told of many at once
/// is told in the same order each time.
#[derive(Debug)]
pub struct InOrder<'a>(pub &'a mut Tracker);

impl EntrySource for InOrder<'_> {
    type Error = Infallible;

    fn read(&mut self, key: &FlowKey) -> Result<Option<FlowEntry>, Infallible> {
        self.0.read(key)
    }

    fn remove(&mut self, key: &FlowKey) -> Result<Option<FlowEntry>, Infallible> {
        self.0.remove(key)
    }

    fn visit(&mut self, visit: &mut dyn FnMut(FlowKey, FlowEntry)) -> Result<(), Infallible> {
        let mut flows: Vec<_> = self.0.flows.iter().collect();
        flows.sort_unstable_by_key(|(key, flow)| (flow.entry.last_ns, **key));
        for (key, flow) in flows {
            visit(*key, flow.entry);
        }
        Ok(())
    }
}
