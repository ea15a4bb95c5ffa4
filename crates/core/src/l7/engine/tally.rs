//! What was read, and what could not be.

use std::collections::BTreeMap;

use crate::l7::Why;
use crate::stream::Gap;

/// What could not be read, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Conversations.
    pub conversations: u64,
    /// Those that were not (or no longer) parsed, by reason.
    pub bypassed: BTreeMap<Why, u64>,
    /// Holes in streams, acknowledged by their receiver.
    pub gaps_lost: u64,
    /// Holes because packets were captured only in part.
    pub gaps_cut: u64,
    /// Holes that nobody acknowledged.
    pub gaps_not_seen: u64,
    /// Conversations that were dropped because their memory was needed.
    pub evicted: u64,
    /// Messages that were longer than what is kept of their protocol.
    pub messages_too_long: u64,
    /// Payload that was handed over.
    pub captured_bytes: u64,
    /// Payload that was not handed over, because nobody needed it.
    pub left_out_bytes: u64,
}

impl Tally {
    pub(in crate::l7) fn bypassed(&mut self, why: Why) {
        *self.bypassed.entry(why).or_default() += 1;
    }

    pub(super) fn gap(&mut self, gap: Gap) {
        *match gap {
            Gap::Cut => &mut self.gaps_cut,
            Gap::Lost => &mut self.gaps_lost,
            Gap::NotSeen => &mut self.gaps_not_seen,
        } += 1;
    }

    /// What was added since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let earlier = |why| before.bypassed.get(why).copied().unwrap_or_default();
        let bypassed = self.bypassed.iter().map(|(why, count)| (*why, count.saturating_sub(earlier(why))));
        Self {
            conversations: self.conversations.saturating_sub(before.conversations),
            bypassed: bypassed.filter(|(_, count)| *count > 0).collect(),
            gaps_lost: self.gaps_lost.saturating_sub(before.gaps_lost),
            gaps_cut: self.gaps_cut.saturating_sub(before.gaps_cut),
            gaps_not_seen: self.gaps_not_seen.saturating_sub(before.gaps_not_seen),
            evicted: self.evicted.saturating_sub(before.evicted),
            messages_too_long: self.messages_too_long.saturating_sub(before.messages_too_long),
            captured_bytes: self.captured_bytes.saturating_sub(before.captured_bytes),
            left_out_bytes: self.left_out_bytes.saturating_sub(before.left_out_bytes),
        }
    }

    /// What is missing because of a loss, with its name in records.
    #[must_use]
    pub fn losses(&self) -> [(&'static str, u64); 5] {
        [
            ("stream_gaps_lost", self.gaps_lost),
            ("stream_gaps_cut", self.gaps_cut),
            ("stream_gaps_not_seen", self.gaps_not_seen),
            ("conversations_evicted", self.evicted),
            ("messages_too_long", self.messages_too_long),
        ]
    }
}
