//! What the connections of each rule have brought. It stands in an array of each processor, which programs count in
//! packet by packet: so what others have counted is not written there, but beside it.

use std::collections::{BTreeMap, BTreeSet};

use libbpf_rs::{MapCore, MapFlags};

use super::Carried;
use crate::abi;
use crate::pins::PinError;
use crate::redirects::claim_places;

/// This version's programs count for the same rules, as soon as they run.
pub(super) fn begin(bytes: &Carried) -> Result<(), PinError> {
    let numbers: BTreeSet<u32> = counted(bytes)?.into_keys().collect();
    claim_places(&bytes.to, &numbers).map_err(|error| bytes.refused("write", error))
}

/// The former's programs have counted all that they ever will.
pub(super) fn settle(bytes: &Carried, before: &Carried) -> Result<(), PinError> {
    for (number, counted) in counted(bytes)? {
        let key = number.to_ne_bytes();
        let earlier = before.read(&key)?.and_then(|value| Some(u64::from_ne_bytes(value.try_into().ok()?)));
        let sum = earlier.unwrap_or(0).saturating_add(counted);
        before.write(&key, &sum.to_ne_bytes(), MapFlags::ANY)?;
    }
    Ok(())
}

/// By the rules' numbers: what the former's programs have counted so far.
fn counted(bytes: &Carried) -> Result<BTreeMap<u32, u64>, PinError> {
    let mut counted = BTreeMap::new();
    for place in 0..bytes.from.max_entries() {
        let key = place.to_ne_bytes();
        let values = bytes.from.lookup_percpu(&key, MapFlags::ANY);
        for value in values.map_err(|error| bytes.refused("read", error))?.unwrap_or_default() {
            let (_, value) = bytes.convert(&key, &value)?;
            let one: abi::rule_bytes = abi::from_bytes(&value).unwrap_or_default();
            if one.number != 0 {
                let sum: &mut u64 = counted.entry(one.number).or_default();
                *sum = sum.saturating_add(one.bytes);
            }
        }
    }
    Ok(counted)
}
