//! From captured frames to records.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use weir_core::directory::Directory;
use weir_core::dns;
use weir_core::frame::{Body, Decoder, Link};
use weir_core::loss::TallyReason;
use weir_core::record::SummaryRecord;
use weir_core::scene::{Clock, Scene};

use super::capture::{Frame, Interface, LINKS};
use super::places::{Place, Places};
use super::reader::{Reader, Seeing, Sums};
use crate::error::Error;
use crate::notice;
use crate::outlet::Outlet;

const DNS_PORT: u16 = 53;
/// So often at the most the user is told that frames of some link type are not read.
const LINKS_TOLD_MAX: usize = 16;

pub(super) struct Pipeline {
    decoder: Decoder,
    reader: Reader,
    scene: Scene,
    outlet: Outlet,
    places: Places,
    /// So long after the first packet nothing more is read.
    lasts_ns: Option<u64>,
    is_over: bool,
    packets: u64,
    bytes: u64,
    /// First and last packet.
    times_ns: Option<(u64, u64)>,
    not_decoded: BTreeMap<TallyReason, u64>,
    /// Frames of link types that are not read.
    not_read: u64,
    /// Which link types those are, and where; the user was told.
    links_told: BTreeSet<(Option<Arc<str>>, i32)>,
    files_cut_off: u64,
}

impl Pipeline {
    /// `lasts`: so long after the first packet nothing more is read.
    pub(super) fn new(outlet: Outlet, reader: Reader, places: Places, lasts: Option<Duration>) -> Self {
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
            places,
            lasts_ns: lasts.map(|lasts| u64::try_from(lasts.as_nanos()).unwrap_or(u64::MAX)),
            is_over: false,
            packets: 0,
            bytes: 0,
            times_ns: None,
            not_decoded: BTreeMap::new(),
            not_read: 0,
            links_told: BTreeSet::new(),
            files_cut_off: 0,
        }
    }

    pub(super) fn frame(&mut self, frame: Frame<'_>) {
        let place = self.places.of(&frame);
        if self.is_over || !self.places.want(&place) {
            return;
        }
        let time_ns = frame.time_ns;
        let (first_ns, last_ns) = self.times_ns.unwrap_or((time_ns, time_ns));
        if self.lasts_ns.is_some_and(|lasts_ns| time_ns.saturating_sub(first_ns) >= lasts_ns) {
            self.is_over = true;
            return;
        }
        let Some(link) = frame.interface.link else {
            self.leave_out(frame.interface);
            return;
        };
        self.times_ns = Some((first_ns.min(time_ns), last_ns.max(time_ns)));
        match self.packet(link, &frame, &place) {
            Ok(()) => {
                self.packets += 1;
                self.bytes += u64::from(frame.sent_bytes);
            }
            Err(reason) => *self.not_decoded.entry(reason).or_default() += 1,
        }
    }

    fn packet(&mut self, link: Link, frame: &Frame<'_>, place: &Place) -> Result<(), TallyReason> {
        let Self { decoder, reader, scene, outlet, .. } = self;
        let (length_bytes, time_ns) = (frame.sent_bytes, frame.time_ns);
        let packet = decoder.decode(link, frame.bytes, length_bytes, time_ns)?;
        reader.packet(Seeing { packet: &packet, length_bytes, time_ns, place }, scene, outlet)?;
        if let Body::Udp { payload, .. } = packet.body
            && packet.key.port(packet.from) == Some(DNS_PORT)
        {
            learn_names(&mut scene.directory, payload, time_ns);
        }
        Ok(())
    }

    /// Counts a frame that is not read, for its link type, and tells of the first one.
    fn leave_out(&mut self, interface: &Interface) {
        self.not_read += 1;
        let one = (interface.name.clone(), interface.link_number);
        if self.links_told.len() == LINKS_TOLD_MAX || !self.links_told.insert(one) {
            return;
        }
        let at = interface.name.as_ref().map(|name| format!(" of {name}")).unwrap_or_default();
        notice(&format!(
            "frames{at} have link type {}, and are counted as lost; weir reads {LINKS}",
            interface.link_number
        ));
    }

    /// A link type of frames that were not read.
    pub(super) fn link_not_read(&self) -> Option<i32> {
        self.links_told.first().map(|(_, number)| *number)
    }

    pub(super) fn file_cut_off(&mut self) {
        self.files_cut_off += 1;
    }

    /// Whether no packet has come yet.
    pub(super) fn is_empty(&self) -> bool {
        self.times_ns.is_none()
    }

    pub(super) fn is_done(&self) -> bool {
        self.is_over || self.outlet.is_done()
    }

    pub(super) fn check(&mut self) -> Result<(), Error> {
        self.outlet.check()
    }

    pub(super) fn flush(&mut self) -> Result<(), Error> {
        self.outlet.flush();
        self.outlet.check()
    }

    /// All files were read to their end: refuses interfaces that were in none of them.
    pub(super) fn check_names(&self) -> Result<(), Error> {
        self.places.check()
    }

    /// Tells of what has no end in the files, and the sums.
    pub(super) fn finish(&mut self) -> Result<(), Error> {
        let Self { decoder, reader, scene, outlet, .. } = self;
        let Sums { flows, requests } = reader.finish(scene, outlet);
        let tally = requests.as_ref().map(|(_, tally)| tally);
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
            ("link_type_unknown", self.not_read),
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
            requests: requests.as_ref().map(|(found, _)| *found),
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

/// As with live traffic: answers of name servers name addresses outside.
fn learn_names(directory: &mut Directory, payload: &[u8], time_ns: u64) {
    if let Some(answer) = dns::parse(payload) {
        for address in &answer.addresses {
            directory.learn_dns(&answer.name, address.ip, address.ttl_s, time_ns);
        }
    }
}
