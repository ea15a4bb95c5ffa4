//! Sums of what was counted.

use std::collections::BTreeMap;

use crate::event::HookId;
use crate::flow::{Counters, FlowEntry};

/// Sums over all flows, each packet once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Connections.
    pub flows: u64,
    /// What the counting hooks saw.
    pub counted: Counters,
    /// What each hook saw.
    pub hooks: BTreeMap<HookId, Counters>,
}

impl Totals {
    pub(super) fn add(&mut self, entry: &FlowEntry) {
        for direction in &entry.directions {
            self.counted += direction.points[0].counters;
        }
        for (_, hook, counters) in entry.points() {
            *self.hooks.entry(hook).or_default() += counters;
        }
    }

    /// What was added since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let earlier = |hook| before.hooks.get(hook).copied().unwrap_or_default();
        Self {
            flows: self.flows.saturating_sub(before.flows),
            counted: self.counted.since(before.counted),
            hooks: self.hooks.iter().map(|(hook, counters)| (*hook, counters.since(earlier(hook)))).collect(),
        }
    }
}
