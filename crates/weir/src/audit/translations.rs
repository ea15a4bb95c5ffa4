//! Which flows were redirected, and how their clients see them: requests are found
//! under the name that the server sees.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use weir_core::flow::{ConnectionId, EntrySource, FlowEntry, FlowKey, Report, Translation};
use weir_core::record::FlowEvent;

/// Requests without an answer are told only when the connection's end has come
/// through the ring and through the parsers, which may be behind by as much.
const KEPT_AFTER_END_NS: u64 = Duration::from_secs(30).as_nanos() as u64;

/// Translations by their flows' ids, those of flows that ended lately included.
#[derive(Default)]
pub(crate) struct Translations {
    of: HashMap<ConnectionId, Translation>,
    /// When each flow that ended is forgotten, the earliest first.
    ended: VecDeque<(u64, ConnectionId)>,
}

impl Translations {
    /// Learns of a flow that lives already.
    pub(crate) fn adopt(&mut self, key: &FlowKey, entry: &FlowEntry) {
        self.learn(key.connection_id(entry.first_ns), entry);
    }

    /// Learns from what is told of a flow.
    pub(crate) fn note(&mut self, report: &Report<'_>) {
        if report.entry.translation.is_none() {
            return;
        }
        self.learn(report.id, &report.entry);
        if report.event == FlowEvent::Close {
            self.ended.push_back((report.time_ns.saturating_add(KEPT_AFTER_END_NS), report.id));
        }
    }

    /// Learns of a flow whose beginning was not told yet.
    ///
    /// # Errors
    /// The table cannot be read.
    pub(crate) fn look_up<S: EntrySource>(
        &mut self,
        source: &mut S,
        key: &FlowKey,
        first_ns: u64,
    ) -> Result<(), S::Error> {
        let id = key.connection_id(first_ns);
        if !self.of.contains_key(&id)
            && let Some(entry) = source.read(key)?.filter(|entry| entry.first_ns == first_ns)
        {
            self.learn(id, &entry);
        }
        Ok(())
    }

    fn learn(&mut self, id: ConnectionId, entry: &FlowEntry) {
        if let Some(translation) = entry.translation {
            self.of.insert(id, translation);
        }
    }

    /// How the client sees the flow, if it is not as the server does.
    pub(crate) fn of(&self, key: &FlowKey, first_ns: u64) -> Option<&Translation> {
        if self.of.is_empty() {
            return None;
        }
        self.of.get(&key.connection_id(first_ns))
    }

    /// Forgets what ended long ago.
    pub(crate) fn forget_ended(&mut self, now_ns: u64) {
        while self.ended.front().is_some_and(|(due_ns, _)| *due_ns <= now_ns) {
            if let Some((_, id)) = self.ended.pop_front() {
                self.of.remove(&id);
            }
        }
    }
}
