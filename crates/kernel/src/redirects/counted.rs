//! What happened because of rules, by their numbers: counted by the programs, whether a weir runs or not, from the
//! moment a rule is there until it is removed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use libbpf_rs::{ErrorKind, MapCore, MapFlags, MapHandle};
use weir_core::redirect::RuleId;

use super::RedirectError;
use crate::abi;

/// What happened because of a rule, since it was added.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RedirectCounters {
    /// Connections that were redirected.
    pub hits: u64,
    /// What these have brought, both ways, whether they are open or not: the bytes of their frames, each counted where
    /// it was seen first, which is also what their flows hold.
    pub bytes: u64,
    /// New connections dropped: no target of the rule is there.
    pub refused_no_target: u64,
    /// New connections dropped: the server would have taken them for others, from every port that was tried.
    pub refused_no_port: u64,
    /// New connections dropped: the flow table is full.
    pub refused_flows_full: u64,
    /// New connections dropped: the table of translations is full.
    pub refused_translations_full: u64,
}

impl RedirectCounters {
    fn add(&mut self, raw: &abi::redirect_counters) {
        let refused = |why: abi::refusal| raw.refused.get(why.0 as usize).copied().unwrap_or(0);
        self.hits += raw.hits;
        self.refused_no_target += refused(abi::refusal::REFUSED_NO_TARGET);
        self.refused_no_port += refused(abi::refusal::REFUSED_NO_PORT);
        self.refused_flows_full += refused(abi::refusal::REFUSED_FLOWS_FULL);
        self.refused_translations_full += refused(abi::refusal::REFUSED_TRANSLATIONS_FULL);
    }
}

/// The map of what is counted packet by packet.
pub(crate) const RULE_BYTES: &str = "rule_bytes";

/// The maps.
pub(crate) struct Counted {
    /// By the first of a rule's ids; those of older versions by each of them.
    pub(crate) counters: MapHandle,
    pub(crate) bytes: MapHandle,
    pub(crate) bytes_before: MapHandle,
}

impl Counted {
    /// Begins to count for those of these rules that are new.
    pub(super) fn begin(&self, numbers: &BTreeSet<u32>) -> Result<(), RedirectError> {
        for id in numbers.iter().filter_map(|number| RuleId::new(*number, 0)) {
            let zero = abi::redirect_counters::default();
            match self.counters.update(&id.0.to_ne_bytes(), abi::as_bytes(&zero), MapFlags::NO_EXIST) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                    return Err(write_failed("counters")(error));
                }
                _ => {}
            }
        }
        claim_places(&self.bytes, numbers).map_err(write_failed("bytes"))
    }

    /// Forgets what was counted for all others.
    pub(super) fn end_others(&self, numbers: &BTreeSet<u32>) -> Result<(), RedirectError> {
        let ids: Vec<u32> = self.counters.keys().filter_map(|key| number_in(&key)).collect();
        for id in ids.into_iter().filter(|id| !numbers.contains(&RuleId(*id).number())) {
            let number = RuleId(id).number();
            let place = place_of(&self.bytes, number);
            if number_at(&self.bytes, place).map_err(read_failed("bytes"))? == number {
                set_place(&self.bytes, place, 0).map_err(write_failed("bytes"))?;
            }
            delete(&self.bytes_before, number, "bytes")?;
            // Last: by it the others are found.
            delete(&self.counters, id, "counters")?;
        }
        Ok(())
    }

    /// By the rules' numbers.
    pub(super) fn read(&self) -> Result<BTreeMap<u32, RedirectCounters>, RedirectError> {
        let mut read: BTreeMap<u32, RedirectCounters> = BTreeMap::new();
        for key in self.counters.keys() {
            // It may go meanwhile.
            let value = self.counters.lookup(&key, MapFlags::ANY).map_err(read_failed("counters"))?;
            let raw = value.as_deref().and_then(abi::from_bytes);
            if let Some((id, raw)) = number_in(&key).zip(raw) {
                read.entry(RuleId(id).number()).or_default().add(&raw);
            }
        }
        for (number, counters) in &mut read {
            counters.bytes = self.bytes_of(*number)?;
        }
        Ok(read)
    }

    fn bytes_of(&self, number: u32) -> Result<u64, RedirectError> {
        let key = number.to_ne_bytes();
        let before = self.bytes_before.lookup(&key, MapFlags::ANY).map_err(read_failed("bytes"))?;
        let before = before.and_then(|bytes| Some(u64::from_ne_bytes(bytes.try_into().ok()?))).unwrap_or(0);
        let place = place_of(&self.bytes, number);
        let now = processors(&self.bytes, place).map_err(read_failed("bytes"))?;
        let own = now.iter().filter(|one| one.number == number);
        Ok(own.fold(before, |sum, one| sum.saturating_add(one.bytes)))
    }
}

/// Gives each of these rules, by their numbers, its place in `rule_bytes`, unless it has it.
pub(crate) fn claim_places(bytes: &MapHandle, numbers: &BTreeSet<u32>) -> libbpf_rs::Result<()> {
    // Rules of before ABI 8 may share one: then it is the newest's.
    let owners: BTreeMap<u32, u32> =
        numbers.iter().map(|number| (place_of(bytes, *number), *number)).collect();
    for (place, number) in owners {
        if number_at(bytes, place)? != number {
            set_place(bytes, place, number)?;
        }
    }
    Ok(())
}

/// Programs that do not redirect have a map with one place.
fn place_of(bytes: &MapHandle, number: u32) -> u32 {
    number % RuleId::PLACES % bytes.max_entries().max(1)
}

/// Whose place it is; 0: nobody's.
fn number_at(bytes: &MapHandle, place: u32) -> libbpf_rs::Result<u32> {
    Ok(processors(bytes, place)?.first().map_or(0, |one| one.number))
}

fn set_place(bytes: &MapHandle, place: u32, number: u32) -> libbpf_rs::Result<()> {
    let value = abi::as_bytes(&abi::rule_bytes { number, ..Default::default() }).to_vec();
    let values = vec![value; libbpf_rs::num_possible_cpus()?];
    bytes.update_percpu(&place.to_ne_bytes(), &values, MapFlags::ANY)
}

/// What each processor has there.
fn processors(bytes: &MapHandle, place: u32) -> libbpf_rs::Result<Vec<abi::rule_bytes>> {
    let values = bytes.lookup_percpu(&place.to_ne_bytes(), MapFlags::ANY)?.unwrap_or_default();
    Ok(values.iter().filter_map(|value| abi::from_bytes(value)).collect())
}

fn number_in(key: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(key.try_into().ok()?))
}

fn delete(map: &MapHandle, key: u32, what: &'static str) -> Result<(), RedirectError> {
    match map.delete(&key.to_ne_bytes()) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(write_failed(what)(error)),
        _ => Ok(()),
    }
}

fn read_failed(what: &'static str) -> impl FnOnce(libbpf_rs::Error) -> RedirectError {
    move |error| RedirectError::Read { what, source: io::Error::other(error) }
}

fn write_failed(what: &'static str) -> impl FnOnce(libbpf_rs::Error) -> RedirectError {
    move |error| RedirectError::Write { what, source: io::Error::other(error) }
}
