//! What a rule does, for the user.

use std::collections::{BTreeMap, HashMap};

use weir_core::flow::{FlowEntry, FlowState};
use weir_core::redirect::{Compiled, KeptRule, RuleId, TargetId};
use weir_kernel::RedirectCounters;

use super::request::{AddressStatus, RuleStatus, TargetStatus};

/// Open connections and their bytes, by the number of the rule.
#[derive(Debug, Default)]
pub(super) struct Traffic(HashMap<u32, (u64, u64)>);

impl Traffic {
    pub(super) fn add(&mut self, rule: u32, entry: &FlowEntry) {
        if matches!(entry.state, FlowState::Closed | FlowState::Reset) {
            return;
        }
        let bytes: u64 = entry.directions.iter().map(|one| one.points[0].counters.bytes).sum();
        let (connections, sum) = self.0.entry(rule).or_default();
        *connections += 1;
        *sum += bytes;
    }
}

/// What a rule stands for and what became of it; without warnings.
pub(super) fn of(
    number: u32,
    kept: &KeptRule,
    compiled: &Compiled,
    counters: impl Iterator<Item = RedirectCounters>,
    traffic: &Traffic,
) -> RuleStatus {
    let rule = &kept.rule;
    let mut hits = 0;
    let mut refused: BTreeMap<String, u64> = BTreeMap::new();
    for counters in counters {
        hits += counters.hits;
        for (reason, count) in [
            ("no_target", counters.refused_no_target),
            ("no_port", counters.refused_no_port),
            ("flows_full", counters.refused_flows_full),
            ("translations_full", counters.refused_translations_full),
        ] {
            if count > 0 {
                *refused.entry(reason.to_owned()).or_default() += count;
            }
        }
    }
    let (live_connections, live_bytes) = traffic.0.get(&number).copied().unwrap_or_default();
    RuleStatus {
        name: rule.name.clone(),
        protocol: rule.protocol().map_or_else(|| "any".to_owned(), |one| one.to_string()),
        from: rule.from.clone(),
        asked: rule.asked.clone(),
        target: rule.target.clone(),
        source: rule.source,
        added: kept.added,
        expires: kept.expires,
        addresses: addresses(number, compiled),
        warnings: Vec::new(),
        hits,
        refused,
        live_connections,
        live_bytes,
    }
}

/// Where the connections of a rule go.
pub(super) fn addresses(number: u32, compiled: &Compiled) -> Vec<AddressStatus> {
    let own = compiled.matches.iter().flat_map(|(address, matches)| {
        matches.iter().filter(|one| one.rule.number() == number).map(|one| (*address, one.rule))
    });
    own.map(|(address, id)| AddressStatus {
        address,
        is_virtual: compiled.virtual_addresses.contains_key(&address),
        targets: targets(id, compiled),
    })
    .collect()
}

fn targets(id: RuleId, compiled: &Compiled) -> Vec<TargetStatus> {
    let mut slots: BTreeMap<TargetId, usize> = BTreeMap::new();
    for slot in compiled.rules.get(&id).into_iter().flat_map(|rule| &rule.slots) {
        *slots.entry(*slot).or_default() += 1;
    }
    let mut targets: Vec<TargetStatus> = slots
        .into_iter()
        .filter_map(|(id, slots)| {
            let target = compiled.targets.get(&id)?;
            let port = (target.port_first != 0).then_some(target.port_first);
            Some(TargetStatus { address: target.address, port, slots })
        })
        .collect();
    targets.sort_by(|a, b| b.slots.cmp(&a.slots).then(a.address.cmp(&b.address)));
    targets
}
