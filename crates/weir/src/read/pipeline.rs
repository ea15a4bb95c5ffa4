//! From captured frames to records.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use weir_core::directory::Directory;
use weir_core::dns;
use weir_core::flow::Report;
use weir_core::frame::{Body, Decoder, Link, Packet};
use weir_core::l7::{Engine, Found, Limits};
use weir_core::loss::TallyReason;
use weir_core::record::{Record, SummaryRecord};
use weir_core::reveal::Reveal;
use weir_core::scene::{Clock, Scene};

use super::capture::Frame;
use super::flows::Flows;
use crate::error::Error;
use crate::outlet::Outlet;

const DNS_PORT: u16 = 53;

pub(super) struct Pipeline {
    decoder: Decoder,
    reader: Reader,
    scene: Scene,
    outlet: Outlet,
    packets: u64,
    bytes: u64,
    /// First and last packet.
    times_ns: Option<(u64, u64)>,
    not_decoded: BTreeMap<TallyReason, u64>,
    files_cut_off: u64,
}

/// What is read in packets.
enum Reader {
    Requests { engine: Box<Engine>, found: u64 },
    Flows(Box<Flows>),
}

impl Pipeline {
    pub(super) fn of_requests(outlet: Outlet, reveal: Reveal) -> Self {
        let engine = Box::new(Engine::new(Limits::default()).revealing(reveal));
        Self::new(outlet, Reader::Requests { engine, found: 0 })
    }

    pub(super) fn of_flows(outlet: Outlet) -> Self {
        Self::new(outlet, Reader::Flows(Box::default()))
    }

    fn new(outlet: Outlet, reader: Reader) -> Self {
        Self {
            decoder: Decoder::default(),
            reader,
            scene: Scene {
                directory: Directory::default(),
                devices: HashMap::default(),
                // Captures tell the calendar's time.
                rules: HashMap::new(),
                clock: Clock::new(Timestamp::UNIX_EPOCH, 0),
            },
            outlet,
            packets: 0,
            bytes: 0,
            times_ns: None,
            not_decoded: BTreeMap::new(),
            files_cut_off: 0,
        }
    }

    pub(super) fn packet(&mut self, link: Link, frame: Frame<'_>) {
        let Frame { bytes, sent_bytes, time_ns } = frame;
        let (first, last) = self.times_ns.unwrap_or((time_ns, time_ns));
        self.times_ns = Some((first.min(time_ns), last.max(time_ns)));
        let Self { decoder, reader, scene, outlet, .. } = self;
        let decoded = decoder.decode(link, bytes, sent_bytes, time_ns).and_then(|packet| {
            match reader {
                Reader::Requests { engine, found } => {
                    let Packet { key, from, body, .. } = packet;
                    let mut emit = |one| hand_on(scene, outlet, found, one);
                    match body {
                        Body::Tcp(segment) => engine.segment(key, from, &segment, time_ns, &mut emit),
                        Body::Udp { payload, payload_bytes } => {
                            engine.datagram(key, from, payload, payload_bytes, time_ns, &mut emit);
                        }
                        Body::Other | Body::Fragment | Body::Stray => {}
                    }
                }
                Reader::Flows(flows) => {
                    let mut told = |report: Report<'_>| tell(scene, outlet, report);
                    flows.packet(&packet, sent_bytes, time_ns, &mut told)?;
                }
            }
            Ok(packet)
        });
        match decoded {
            Ok(packet) => {
                self.packets += 1;
                self.bytes += u64::from(sent_bytes);
                if let Body::Udp { payload, .. } = packet.body
                    && packet.key.port(packet.from) == Some(DNS_PORT)
                {
                    learn_names(&mut self.scene.directory, payload, time_ns);
                }
            }
            Err(reason) => *self.not_decoded.entry(reason).or_default() += 1,
        }
    }

    pub(super) fn file_cut_off(&mut self) {
        self.files_cut_off += 1;
    }

    /// Whether no packet has come yet.
    pub(super) fn is_empty(&self) -> bool {
        self.times_ns.is_none()
    }

    pub(super) fn is_done(&self) -> bool {
        self.outlet.is_done()
    }

    pub(super) fn check(&mut self) -> Result<(), Error> {
        self.outlet.check()
    }

    pub(super) fn flush(&mut self) -> Result<(), Error> {
        self.outlet.flush();
        self.outlet.check()
    }

    /// Tells of what has no end in the files, and the sums.
    pub(super) fn finish(&mut self) -> Result<(), Error> {
        let Self { decoder, reader, scene, outlet, .. } = self;
        let (flows, requests, tally) = match reader {
            Reader::Requests { engine, found } => {
                engine.finish(&mut |one| hand_on(scene, outlet, found, one));
                let tally = engine.tally();
                (tally.conversations, Some(*found), Some(tally))
            }
            Reader::Flows(flows) => {
                let totals = flows.finish(&mut |report| tell(scene, outlet, report));
                (totals.flows, None, None)
            }
        };
        let mut not_flows = BTreeMap::new();
        let mut lost = BTreeMap::new();
        for (reason, count) in &self.not_decoded {
            let counts = if reason.is_loss() { &mut lost } else { &mut not_flows };
            counts.insert(reason.name(), *count);
        }
        // A request is read in whole datagrams; to a flow each fragment counts.
        let unjoined = if requests.is_some() { decoder.unjoined() } else { 0 };
        let more = [
            (TallyReason::FragmentUnjoined.name(), unjoined),
            ("dns_names_evicted", scene.directory.names_evicted()),
            ("file_cut_off", self.files_cut_off),
        ];
        for (name, count) in tally.iter().flat_map(|tally| tally.losses()).chain(more) {
            if count > 0 {
                *lost.entry(name).or_default() += count;
            }
        }
        let bypassed = tally.iter().flat_map(|tally| &tally.bypassed);
        let (first_ns, last_ns) = self.times_ns.unwrap_or_default();
        let duration_us = last_ns.saturating_sub(first_ns) / 1_000;
        outlet.finish(|records| SummaryRecord {
            time: Timestamp::now(),
            duration_ms: duration_us as f64 / 1_000.0,
            flows,
            packets: self.packets,
            bytes: self.bytes,
            requests,
            captured_bytes: None,
            left_out_bytes: None,
            records,
            not_flows,
            not_parsed: bypassed.map(|(why, count)| (why.name(), *count)).collect(),
            lost,
            interfaces: Vec::new(),
        });
        outlet.check()
    }
}

fn hand_on(scene: &mut Scene, outlet: &mut Outlet, requests: &mut u64, mut found: Found) {
    *requests += 1;
    outlet.record(Record::Request(scene.request_record(&mut found, None)));
}

fn tell(scene: &mut Scene, outlet: &mut Outlet, report: Report<'_>) {
    outlet.record(Record::Flow(Box::new(scene.flow_record(report))));
}

/// As with live traffic: answers of name servers name addresses outside.
fn learn_names(directory: &mut Directory, payload: &[u8], time_ns: u64) {
    if let Some(answer) = dns::parse(payload) {
        for address in &answer.addresses {
            directory.learn_dns(&answer.name, address.ip, address.ttl_s, time_ns);
        }
    }
}
