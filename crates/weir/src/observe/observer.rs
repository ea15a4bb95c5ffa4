//! Somebody who reads records: what of the pipeline's reports is for them, since when, and how it is written.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use weir_core::filter::Filter;
use weir_core::flow::{ConnectionId, Totals};
use weir_core::l7::{Tally, Why};
use weir_core::loss::{EventLosses, Tallies};
use weir_core::record::{FlowEvent, FlowRecord, PacketRecord, Record, RequestRecord, SummaryRecord};
use weir_core::scene::Scene;

use crate::cli::ObserveArgs;
use crate::error::Error;
use crate::outlet::Outlet;

/// All that was counted until some moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sums {
    pub(super) totals: Totals,
    pub(super) tallies: Tallies,
    pub(super) losses: EventLosses,
    pub(super) names_evicted: u64,
    /// Of requests, where they are read.
    pub(super) audit: AuditSums,
}

/// What came of reading payload.
#[derive(Debug, Clone, Default)]
pub(super) struct AuditSums {
    pub(super) requests: u64,
    pub(super) tally: Tally,
    /// Flows of which nothing was copied, for what they said began like no known protocol.
    pub(super) not_understood: u64,
    /// Flows of which nothing was copied, for there was no room.
    pub(super) refused: u64,
}

impl AuditSums {
    fn since(&self, before: &Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(before.requests),
            tally: self.tally.since(&before.tally),
            not_understood: self.not_understood.saturating_sub(before.not_understood),
            refused: self.refused.saturating_sub(before.refused),
        }
    }
}

/// What an observer is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shows {
    Flows,
    Packets,
    Requests,
}

/// One reader of records.
pub(crate) struct Observer {
    outlet: Outlet,
    shows: Shows,
    /// Whether flows that outlive the reading get a last record: programs want their
    /// counters, a person would have to read a line for each.
    leftovers: bool,
    finishing: bool,
    updates: Option<Updates>,
    /// Ends after this time, which begins when it is known who is there.
    lasts: Option<Duration>,
    ends: Option<Instant>,
    came: Came,
    /// Whether the reader keeps up; if not, records are lost to them, and counted.
    backlog: Option<Backlog>,
    untaken: u64,
}

/// Tells whether there is room for what is written to an observer that must not hold up the others.
pub(crate) type Backlog = Box<dyn Fn() -> bool + Send>;

/// When an observer came, and how things stood.
struct Came {
    at: Instant,
    /// Flows without a packet since are none of its business.
    at_ns: u64,
    before: Sums,
}

/// Reports of living flows, at the observer's own pace.
struct Updates {
    every: Duration,
    next: Instant,
    /// The newest of each flow, by its id.
    waiting: HashMap<ConnectionId, FlowRecord>,
}

impl Observer {
    pub(crate) fn of_flows(outlet: Outlet, arguments: &ObserveArgs) -> Self {
        let now = Instant::now();
        let shows = if arguments.packets { Shows::Packets } else { Shows::Flows };
        Self {
            leftovers: arguments.output.format.is_for_programs(),
            updates: arguments.updates.map(|every| Updates {
                every,
                next: now + every,
                waiting: HashMap::new(),
            }),
            ..Self::new(outlet, shows, arguments.for_)
        }
    }

    pub(crate) fn of_requests(outlet: Outlet, lasts: Option<Duration>) -> Self {
        Self::new(outlet, Shows::Requests, lasts)
    }

    fn new(outlet: Outlet, shows: Shows, lasts: Option<Duration>) -> Self {
        Self {
            outlet,
            shows,
            leftovers: false,
            finishing: false,
            updates: None,
            lasts,
            ends: None,
            came: Came { at: Instant::now(), at_ns: 0, before: Sums::default() },
            backlog: None,
            untaken: 0,
        }
    }

    /// The same, for a reader that is not waited for: without room, records are dropped and counted.
    pub(crate) fn not_waited_for(self, has_room: Backlog) -> Self {
        Self { backlog: Some(has_room), ..self }
    }

    pub(super) fn shows_flows(&self) -> bool {
        self.shows == Shows::Flows
    }

    pub(super) fn shows_requests(&self) -> bool {
        self.shows == Shows::Requests && !self.outlet.is_done()
    }

    pub(super) fn filter(&self) -> &Filter {
        self.outlet.filter()
    }

    /// It begins now; `before` is what was counted until now.
    pub(super) fn begin(&mut self, now_ns: u64, before: Sums) {
        let now = Instant::now();
        self.came = Came { at: now, at_ns: now_ns, before };
        if let Some(updates) = &mut self.updates {
            updates.next = now + updates.every;
        }
    }

    pub(super) fn update_interval(&self) -> Option<Duration> {
        self.updates.as_ref().map(|updates| updates.every)
    }

    /// It is known who is there: its time passes from now on.
    pub(super) fn begin_time(&mut self) {
        self.ends = self.lasts.map(|lasts| Instant::now() + lasts);
    }

    /// When it ends by itself.
    pub(super) fn ends(&self) -> Option<Instant> {
        self.ends
    }

    /// Whether all that was asked for is printed, nobody reads it any more, or the time is over.
    pub(super) fn is_done(&self) -> bool {
        self.outlet.is_done() || self.ends().is_some_and(|ends| ends <= Instant::now())
    }

    pub(super) fn check(&mut self) -> Result<(), Error> {
        self.outlet.check()
    }

    /// Takes what is reported of a flow whose last packet came at `last_ns`.
    pub(super) fn flow(&mut self, record: &FlowRecord, last_ns: u64) {
        if self.shows != Shows::Flows || self.outlet.is_done() || last_ns < self.came.at_ns {
            return;
        }
        match record.event {
            FlowEvent::Update if self.finishing && !self.leftovers => return,
            FlowEvent::Update if !self.finishing => {
                if let Some(updates) = &mut self.updates {
                    updates.waiting.insert(record.id, record.clone());
                }
                return;
            }
            FlowEvent::Close => {
                if let Some(updates) = &mut self.updates {
                    updates.waiting.remove(&record.id);
                }
            }
            FlowEvent::Open | FlowEvent::Update => {}
        }
        self.write(Record::Flow(Box::new(record.clone())));
    }

    pub(super) fn packet(&mut self, record: &PacketRecord) {
        if self.shows == Shows::Packets && !self.outlet.is_done() {
            self.write(Record::Packet(Box::new(record.clone())));
        }
    }

    pub(super) fn request(&mut self, record: Box<RequestRecord>) {
        self.write(Record::Request(record));
    }

    /// The table was read: writes the updates that are due.
    pub(super) fn table_was_read(&mut self) {
        let now = Instant::now();
        let Some(updates) = &mut self.updates else { return };
        // The table is read as often as the most eager observer wants it: the nearest of these moments will do.
        if updates.next > now + updates.every / 2 {
            return;
        }
        updates.next = now + updates.every;
        let mut due: Vec<FlowRecord> = updates.waiting.drain().map(|(_, record)| record).collect();
        due.sort_by_key(|record| record.time);
        for record in due {
            self.write(Record::Flow(Box::new(record)));
        }
    }

    fn write(&mut self, record: Record) {
        match &self.backlog {
            Some(has_room) if !has_room() => self.untaken += 1,
            _ => self.outlet.record(record),
        }
    }

    /// From now on updates are of flows that outlive the reading.
    pub(super) fn begin_finish(&mut self) {
        self.finishing = true;
        // Each is told once more anyway, with its last counters.
        self.updates = None;
    }

    /// Writes the summary of what came since it began.
    pub(super) fn finish(&mut self, scene: &Scene, now: &Sums) {
        let before = &self.came.before;
        let totals = now.totals.since(&before.totals);
        let mut not_flows = BTreeMap::new();
        let mut lost = BTreeMap::new();
        let tallies: Vec<_> = now
            .tallies
            .iter()
            .map(|(key, counters)| {
                (*key, counters.since(before.tallies.get(key).copied().unwrap_or_default()))
            })
            .filter(|(_, counters)| counters.packets > 0)
            .collect();
        for ((_, reason), counters) in &tallies {
            let counts = if reason.is_loss() { &mut lost } else { &mut not_flows };
            *counts.entry(reason.name()).or_default() += counters.packets;
        }
        let events = std::iter::zip(now.losses.named(), before.losses.named())
            .map(|((name, now), (_, before))| (name, now.saturating_sub(before)));
        let names = now.names_evicted.saturating_sub(before.names_evicted);
        let audits = self.shows == Shows::Requests;
        let audit = audits.then(|| now.audit.since(&before.audit));
        let audit = audit.as_ref();
        let of_streams = audit.into_iter().flat_map(|audit| {
            audit.tally.losses().into_iter().chain([("conversations_refused", audit.refused)])
        });
        let own = [("dns_names_evicted", names), ("output_full", self.untaken)];
        for (name, count) in events.chain(own).chain(of_streams) {
            if count > 0 {
                lost.insert(name, count);
            }
        }
        let mut not_parsed: BTreeMap<&'static str, u64> = BTreeMap::new();
        if let Some(audit) = audit {
            let by_kernel =
                (audit.not_understood > 0).then_some((&Why::NotUnderstood, &audit.not_understood));
            for (why, count) in audit.tally.bypassed.iter().chain(by_kernel) {
                *not_parsed.entry(why.name()).or_default() += count;
            }
        }
        let in_flows = totals.hooks.iter().map(|(hook, counters)| (*hook, *counters));
        let in_none = tallies.iter().map(|((hook, _), counters)| (*hook, *counters));
        let mut interfaces = scene.interface_counters(in_flows.chain(in_none));
        interfaces.retain(|one| one.ingress_packets + one.egress_packets > 0);
        let duration = self.came.at.elapsed();
        self.outlet.finish(|records| SummaryRecord {
            time: jiff::Timestamp::now(),
            duration_ms: (duration.as_micros() as f64) / 1_000.0,
            flows: totals.flows,
            packets: totals.counted.packets,
            bytes: totals.counted.bytes,
            requests: audit.map(|audit| audit.requests),
            captured_bytes: audit.map(|audit| audit.tally.captured_bytes),
            left_out_bytes: audit.map(|audit| audit.tally.left_out_bytes),
            records,
            not_flows,
            not_parsed,
            lost,
            interfaces,
        });
    }

    pub(super) fn flush(&mut self) {
        self.outlet.flush();
    }
}
