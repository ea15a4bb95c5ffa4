//! What surrounds a flow: who stands where, what devices are called, what time
//! it is. With it, what the kernel reports becomes a record.

use std::collections::{BTreeMap, HashMap};
use std::mem::take;
use std::sync::Arc;

use foldhash::fast::RandomState;
use jiff::{SignedDuration, Timestamp};

use crate::directory::Directory;
use crate::endpoint::{Endpoint, Identity};
use crate::event::{Hook, HookId, PacketSeen};
use crate::flow::{Counters, FlowEntry, FlowKey, Protocol, Report, Side, Translation};
use crate::l7::Found;
use crate::record::{
    FlowRecord, InterfaceCounters, Matched, PacketDirection, PacketRecord, RequestRecord, Translated,
    Verdict, tcp_flag_letters,
};
use crate::reveal::Class;

/// From the kernel's clock to the calendar.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    time: Timestamp,
    monotonic_ns: u64,
}

impl Clock {
    /// Both clocks, read at the same moment.
    #[must_use]
    pub fn new(time: Timestamp, monotonic_ns: u64) -> Self {
        Self { time, monotonic_ns }
    }

    /// The calendar's time at a moment of CLOCK_MONOTONIC.
    #[must_use]
    pub fn time(&self, monotonic_ns: u64) -> Timestamp {
        let ahead = i128::from(monotonic_ns) - i128::from(self.monotonic_ns);
        let ahead = SignedDuration::from_nanos_i128(ahead);
        self.time.saturating_add(ahead).unwrap_or(self.time)
    }
}

/// A network device that packets are seen at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// As in `ip link`.
    pub name: String,
    /// It is the host side of a container's veth.
    pub container_side: bool,
}

/// All that is known besides the packets themselves.
#[derive(Debug)]
pub struct Scene {
    /// Who stands behind an address.
    pub directory: Directory,
    /// Devices by index, those that are gone included: records still name them.
    pub devices: HashMap<u32, Device, RandomState>,
    /// The calendar.
    pub clock: Clock,
    /// Names of rules by their numbers, those that are gone included: connections
    /// outlive them.
    pub rules: HashMap<u32, Arc<str>>,
}

impl Scene {
    /// The record of what the flow table reports. Remembers in the report who
    /// stands at the ends, and takes from there what is known no more.
    pub fn flow_record(&mut self, report: Report<'_>) -> FlowRecord {
        let Report { id, event, state, time_ns, key, entry, ends } = report;
        let identities = [Side::Low, Side::High].map(|side| {
            let owner = self.owner_index(&key, &entry, side);
            let fresh = self.directory.identify(key.address(side), owner, time_ns);
            let known = &mut ends[side.index()];
            match (&fresh, &known) {
                (Identity::Host | Identity::World(_), Some(Identity::Container(_))) => {}
                (Identity::World(None), Some(Identity::World(Some(_)))) => {}
                _ => *known = Some(fresh.clone()),
            }
            known.clone().unwrap_or(fresh)
        });
        let [low, high] = identities;
        let low = Endpoint { ip: key.address(Side::Low), port: key.port(Side::Low), identity: low };
        let high = Endpoint { ip: key.address(Side::High), port: key.port(Side::High), identity: high };
        let (client, server) = match entry.initiator {
            Side::Low => (low, high),
            Side::High => (high, low),
        };
        let (client, server, rule, translated) = match &entry.translation {
            Some(translation) => self.translated(translation, client, server, time_ns),
            None => (client, server, None, None),
        };
        let sent = &entry.directions[entry.initiator.index()];
        let received = &entry.directions[entry.initiator.other().index()];
        let delivered = |direction: &crate::flow::DirectionEntry| {
            direction.points[1].hook.map(|_| direction.points[1].counters.packets)
        };
        FlowRecord {
            time: self.clock.time(time_ns),
            id,
            event,
            client,
            server,
            protocol: key.protocol,
            icmp_type: key.protocol.is_icmp().then_some(key.icmp_type),
            state,
            verdict: if rule.is_some() { Verdict::Redirected } else { Verdict::Forwarded },
            rule,
            translated,
            midstream: entry.midstream,
            start: self.clock.time(entry.first_ns),
            duration_ms: milliseconds(entry.last_ns.saturating_sub(entry.first_ns)),
            sent_packets: sent.points[0].counters.packets,
            sent_bytes: sent.points[0].counters.bytes,
            received_packets: received.points[0].counters.packets,
            received_bytes: received.points[0].counters.bytes,
            sent_delivered_packets: delivered(sent),
            received_delivered_packets: delivered(received),
            rtt_us: entry.rtt_us,
            retransmits: sent.retransmits.saturating_add(received.retransmits),
            resets: entry.resets,
            zero_windows: sent.zero_windows.saturating_add(received.zero_windows),
            icmp_errors: entry.icmp_errors,
            tcp_flags: (key.protocol == Protocol::TCP)
                .then(|| [tcp_flag_letters(sent.tcp_flags), tcp_flag_letters(received.tcp_flags)]),
            interfaces: self.interface_counters(entry.points().map(|(_, hook, counters)| (hook, counters))),
        }
    }

    /// The ends of a translated flow as its client sees them, the rule's name, and the ends as the server sees
    /// them, which are given.
    fn translated(
        &mut self,
        translation: &Translation,
        client: Endpoint,
        server: Endpoint,
        time_ns: u64,
    ) -> (Endpoint, Endpoint, Option<Arc<str>>, Option<Box<Translated>>) {
        let (seen_client, seen_server) = self.as_the_client_sees(translation, &client, &server, time_ns);
        let rule = translation.rule.map(|rule| self.rule_name(rule.number()));
        (seen_client, seen_server, rule, Some(Box::new(Translated { client, server })))
    }

    /// The ends of a translated flow, given what the server sees.
    fn as_the_client_sees(
        &mut self,
        translation: &Translation,
        client: &Endpoint,
        server: &Endpoint,
        time_ns: u64,
    ) -> (Endpoint, Endpoint) {
        let Translation { asked, client: side, .. } = translation;
        let end = |side: Side, identity: Identity| Endpoint {
            ip: asked.address(side),
            port: asked.port(side),
            identity,
        };
        let address = asked.address(side.other());
        let identity = match address == server.ip {
            true => server.identity.clone(),
            false => match self.directory.identify(address, None, time_ns) {
                // No container's and not the host's: it is there by its rule.
                Identity::World(None) if translation.rule.is_some() => Identity::Virtual,
                known => known,
            },
        };
        (end(*side, client.identity.clone()), end(side.other(), identity))
    }

    fn rule_name(&self, number: u32) -> Arc<str> {
        self.rules.get(&number).cloned().unwrap_or_else(|| number.to_string().into())
    }

    /// The record of a request. Takes what was found out of its exchange.
    pub fn request_record(
        &mut self,
        found: &mut Found,
        translation: Option<&Translation>,
    ) -> Box<RequestRecord> {
        let Found { key, first_ns: _, flow, client, hooks, protocol, time_ns, ref mut exchange } = *found;
        let owners = [Side::Low, Side::High].map(|side| {
            let at = |hook: Option<HookId>, way: Hook| {
                hook.filter(|hook| hook.hook == way && self.is_container_side(hook.ifindex))
            };
            let own = at(hooks[side.index()], Hook::Ingress);
            own.or(at(hooks[side.other().index()], Hook::Egress)).map(|hook| hook.ifindex)
        });
        let mut endpoint = |side: Side| {
            let ip = key.address(side);
            let owner = owners[side.index()].filter(|_| !ip.is_multicast());
            let identity = self.directory.identify(ip, owner, time_ns);
            Endpoint { ip, port: key.port(side), identity }
        };
        let (client, server) = (endpoint(client), endpoint(client.other()));
        let (client, server, rule, translated) = match translation {
            Some(translation) => self.translated(translation, client, server, time_ns),
            None => (client, server, None, None),
        };
        let (request, response) = (exchange.request, exchange.response);
        let begun_ns = request.or(response).map_or(time_ns, |part| part.first_ns);
        let both = request.zip(response);
        let microseconds = |ns: u64| ns / 1_000;
        Box::new(RequestRecord {
            time: self.clock.time(begun_ns),
            flow,
            client,
            server,
            rule,
            translated,
            protocol,
            operation: take(&mut exchange.operation),
            target: exchange.target.take(),
            status: exchange.status.take(),
            ok: exchange.ok,
            error: exchange.error.take(),
            request_bytes: request.map_or(0, |part| part.bytes),
            response_bytes: response.map_or(0, |part| part.bytes),
            latency_us: both
                .map(|(asked, answered)| microseconds(answered.first_ns.saturating_sub(asked.last_ns))),
            total_us: both
                .map(|(asked, answered)| microseconds(answered.last_ns.saturating_sub(asked.first_ns))),
            matched: match (request, response) {
                (Some(_), Some(_)) => Matched::Yes,
                (Some(_), None) => Matched::NoResponse,
                (None, _) => Matched::NoRequest,
            },
            capture: exchange.capture,
            attributes: take(&mut exchange.attributes),
            revealed: exchange.revealed.classes().map(Class::name).collect(),
        })
    }

    /// The record of one packet.
    pub fn packet_record(&mut self, packet: &PacketSeen) -> PacketRecord {
        let HookId { ifindex, hook } = packet.seen.hook;
        let interface = self.device_name(ifindex).into();
        let direction = PacketDirection::at(hook, self.is_container_side(ifindex));
        self.packet_record_at(packet, Some(interface), Some(direction))
    }

    /// The record of one packet that was seen there, as far as that is known.
    pub fn packet_record_at(
        &mut self,
        packet: &PacketSeen,
        interface: Option<Arc<str>>,
        direction: Option<PacketDirection>,
    ) -> PacketRecord {
        let hook = packet.seen.hook;
        let key = &packet.seen.key;
        let container_side = self.is_container_side(hook.ifindex);
        let owner = |owned: Hook| (hook.hook == owned && container_side).then_some(hook.ifindex);
        let directory = &mut self.directory;
        let mut endpoint = |side: Side, owner: Option<u32>| {
            let ip = key.address(side);
            let identity = directory.identify(ip, owner, packet.seen.time_ns);
            Endpoint { ip, port: key.port(side), identity }
        };
        let source = endpoint(packet.source, owner(Hook::Ingress));
        let destination = endpoint(packet.source.other(), owner(Hook::Egress));
        let tcp = key.protocol == Protocol::TCP;
        PacketRecord {
            time: self.clock.time(packet.seen.time_ns),
            source,
            destination,
            protocol: key.protocol,
            icmp_type: key.protocol.is_icmp().then_some(key.icmp_type),
            interface,
            direction,
            length_bytes: packet.length_bytes,
            payload_bytes: packet.payload_bytes,
            tcp_flags: tcp.then(|| tcp_flag_letters(packet.tcp_flags)),
            tcp_seq: tcp.then_some(packet.tcp_seq),
            tcp_ack: tcp.then_some(packet.tcp_ack),
            tcp_window: tcp.then_some(packet.tcp_window),
        }
    }

    /// Sums by device, in the order of their names.
    pub fn interface_counters(
        &self,
        hooks: impl Iterator<Item = (HookId, Counters)>,
    ) -> Vec<InterfaceCounters> {
        let mut devices: BTreeMap<u32, [Counters; 2]> = BTreeMap::new();
        for (hook, counters) in hooks {
            let sums = devices.entry(hook.ifindex).or_default();
            sums[usize::from(hook.hook == Hook::Egress)] += counters;
        }
        let mut rows: Vec<_> = devices
            .into_iter()
            .map(|(ifindex, [ingress, egress])| InterfaceCounters {
                name: self.device_name(ifindex),
                ingress_packets: ingress.packets,
                ingress_bytes: ingress.bytes,
                egress_packets: egress.packets,
                egress_bytes: egress.bytes,
            })
            .collect();
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        rows
    }

    /// The container's veth that one end of a flow stands behind: where its
    /// packets enter the host, or where packets to it leave.
    fn owner_index(&self, key: &FlowKey, entry: &FlowEntry, side: Side) -> Option<u32> {
        if key.address(side).is_multicast() {
            return None;
        }
        entry
            .points()
            .find(|(source, hook, _)| {
                let expected = if *source == side { Hook::Ingress } else { Hook::Egress };
                hook.hook == expected && self.is_container_side(hook.ifindex)
            })
            .map(|(_, hook, _)| hook.ifindex)
    }

    fn is_container_side(&self, ifindex: u32) -> bool {
        self.devices.get(&ifindex).is_some_and(|device| device.container_side)
    }

    fn device_name(&self, ifindex: u32) -> String {
        self.devices.get(&ifindex).map_or_else(|| format!("if{ifindex}"), |device| device.name.clone())
    }
}

fn milliseconds(ns: u64) -> f64 {
    // Microseconds are all that the kernel's coarse clock could justify.
    (ns / 1_000) as f64 / 1_000.0
}

#[cfg(test)]
mod tests;
