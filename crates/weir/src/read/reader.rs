//! What packets are read for: requests, flows, or the packets themselves.

use std::time::Duration;

use weir_core::event::{Hook, HookId};
use weir_core::flow::{Protocol, Report};
use weir_core::frame::{Body, Packet};
use weir_core::l7::{Engine, Found, Limits, Tally};
use weir_core::loss::TallyReason;
use weir_core::record::{PacketDirection, PacketRecord, Record};
use weir_core::reveal::Reveal;
use weir_core::scene::Scene;

use super::flows::Flows;
use super::places::Place;
use crate::outlet::Outlet;

/// Reads packets one after the other, and tells what it finds.
pub(super) enum Reader {
    /// Requests.
    Requests {
        /// Finds them.
        engine: Box<Engine>,
        /// So many.
        found: u64,
    },
    /// Flows.
    Flows(Box<Flows>),
    /// Packets, as they stand in flows.
    Packets(Box<Flows>),
}

/// What was read, whatever the filter.
pub(super) struct Sums {
    pub(super) flows: u64,
    /// Of requests, where they are looked for.
    pub(super) requests: Option<(u64, Tally)>,
}

/// One packet, and where it was seen.
#[derive(Clone, Copy)]
pub(super) struct Seeing<'a> {
    pub(super) packet: &'a Packet<'a>,
    pub(super) length_bytes: u32,
    pub(super) time_ns: u64,
    pub(super) place: &'a Place,
}

impl Reader {
    pub(super) fn of_requests(reveal: Reveal) -> Self {
        let engine = Box::new(Engine::new(Limits::default()).revealing(reveal));
        Self::Requests { engine, found: 0 }
    }

    /// With room for so many; `updates` is how often living ones are told.
    pub(super) fn of_flows(room: Option<u32>, updates: Option<Duration>) -> Self {
        Self::Flows(Box::new(Flows::new(room, updates)))
    }

    /// With room for so many flows.
    pub(super) fn of_packets(room: Option<u32>) -> Self {
        Self::Packets(Box::new(Flows::new(room, None)))
    }

    /// Takes the next packet.
    ///
    /// # Errors
    /// Why it is in no flow.
    pub(super) fn packet(
        &mut self,
        seeing: Seeing<'_>,
        scene: &mut Scene,
        outlet: &mut Outlet,
    ) -> Result<(), TallyReason> {
        let Seeing { packet, length_bytes, time_ns, .. } = seeing;
        match self {
            Self::Requests { engine, found } => {
                let mut emit = |one| hand_on(scene, outlet, found, one);
                match packet.body {
                    Body::Tcp(segment) => {
                        engine.segment(packet.key, packet.from, &segment, time_ns, &mut emit);
                    }
                    Body::Udp { payload, payload_bytes } => {
                        engine.datagram(packet.key, packet.from, payload, payload_bytes, time_ns, &mut emit);
                    }
                    Body::Other | Body::Fragment | Body::Stray => {}
                }
            }
            Self::Flows(flows) => {
                flows.packet(packet, length_bytes, time_ns, &mut |report| tell(scene, outlet, report))?;
            }
            Self::Packets(flows) => {
                flows.packet(packet, length_bytes, time_ns, &mut |_| {})?;
                outlet.record(Record::Packet(Box::new(record(seeing, scene))));
            }
        }
        Ok(())
    }

    /// Tells of what has no end in the files, and gives the sums.
    pub(super) fn finish(&mut self, scene: &mut Scene, outlet: &mut Outlet) -> Sums {
        match self {
            Self::Requests { engine, found } => {
                engine.finish(&mut |one| hand_on(scene, outlet, found, one));
                let tally = engine.tally();
                Sums { flows: tally.conversations, requests: Some((*found, tally.clone())) }
            }
            Self::Flows(flows) => {
                let totals = flows.finish(&mut |report| tell(scene, outlet, report));
                Sums { flows: totals.flows, requests: None }
            }
            Self::Packets(flows) => Sums { flows: flows.finish(&mut |_| {}).flows, requests: None },
        }
    }
}

fn hand_on(scene: &mut Scene, outlet: &mut Outlet, requests: &mut u64, mut found: Found) {
    *requests += 1;
    outlet.record(Record::Request(scene.request_record(&mut found, None)));
}

fn tell(scene: &mut Scene, outlet: &mut Outlet, report: Report<'_>) {
    outlet.record(Record::Flow(Box::new(scene.flow_record(report))));
}

/// The packet's record: as of a live one, but seen where its file says.
fn record(seeing: Seeing<'_>, scene: &mut Scene) -> PacketRecord {
    let Seeing { packet, length_bytes, time_ns, place } = seeing;
    // The scene knows no devices; the place does.
    let nowhere = HookId { ifindex: 0, hook: Hook::Ingress };
    let seen = packet.seen(nowhere, length_bytes, time_ns);
    let direction = place.hook.map(|hook| PacketDirection::at(hook, false));
    let record = scene.packet_record_at(&seen, place.interface.clone(), direction);
    // A later fragment has no header of its own.
    match packet.key.protocol == Protocol::TCP && packet.tcp.is_none() {
        true => PacketRecord { tcp_flags: None, tcp_seq: None, tcp_ack: None, tcp_window: None, ..record },
        false => record,
    }
}
