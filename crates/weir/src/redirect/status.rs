//! What a rule does, for the user.

use std::collections::{BTreeMap, HashMap};

use weir_core::flow::{FlowEntry, FlowState};
use weir_core::redirect::{Compiled, KeptRule, RuleId, TargetId};
use weir_kernel::RedirectCounters;

use super::request::{AddressStatus, RuleStatus, TargetStatus};

/// Open connections, by the number of the rule.
pub(super) type Live = HashMap<u32, u64>;

/// Whether a redirected connection with this entry is open.
pub(super) fn is_open(entry: &FlowEntry) -> bool {
    !matches!(entry.state, FlowState::Closed | FlowState::Reset)
}

/// What a rule stands for and what became of it; without warnings.
pub(super) fn of(
    number: u32,
    kept: &KeptRule,
    compiled: &Compiled,
    counters: &RedirectCounters,
    live_connections: u64,
) -> RuleStatus {
    let rule = &kept.rule;
    let refused = [
        ("no_target", counters.refused_no_target),
        ("no_port", counters.refused_no_port),
        ("flows_full", counters.refused_flows_full),
        ("translations_full", counters.refused_translations_full),
    ];
    let refused = refused.into_iter().filter(|(_, count)| *count > 0);
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
        hits: counters.hits,
        bytes: counters.bytes,
        refused: refused.map(|(reason, count)| (reason.to_owned(), count)).collect(),
        live_connections,
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
