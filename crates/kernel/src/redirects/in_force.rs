//! What the programs follow, read back.

use std::io;
use std::net::{IpAddr, Ipv6Addr};

use libbpf_rs::{MapCore, MapFlags, MapHandle};
use weir_core::redirect::{
    Compiled, CompiledMatch, CompiledRule, CompiledTarget, RuleId, TargetId, VirtualAddress,
};

use super::{RedirectError, Redirects};
use crate::abi;

impl Redirects {
    /// The rules as they are in force, whoever wrote them: where connections go. Clients, interfaces and places are
    /// left out.
    ///
    /// # Errors
    /// The kernel refuses to read.
    pub fn in_force(&self) -> Result<Compiled, RedirectError> {
        let mut compiled = Compiled::default();
        for (key, set) in entries::<16, abi::redirect_set>(&self.maps.redirects, "redirected addresses")? {
            let used = set.r#match.iter().take_while(|one| one.rule != 0);
            let matches = used.map(|one| CompiledMatch {
                rule: RuleId(one.rule),
                protocol: one.protocol,
                port_first: one.port_first,
                port_last: one.port_last,
                limited: one.limited != 0,
            });
            compiled.matches.insert(address(key), matches.collect());
        }
        for (id, rule) in entries::<4, abi::redirect_rule>(&self.maps.rules, "rules")? {
            let source = address(rule.source);
            let slots = rule.slot.iter().filter(|slot| **slot != 0).map(|slot| TargetId(*slot));
            let rule = CompiledRule {
                expires_ns: rule.expires_ns,
                source: Some(source).filter(|source| !source.is_unspecified()),
                slots: slots.collect(),
                fast_path: rule.fast_path != 0,
            };
            compiled.rules.insert(RuleId(u32::from_ne_bytes(id)), rule);
        }
        for (id, to) in entries::<4, abi::redirect_target>(&self.maps.targets, "targets")? {
            let target = CompiledTarget { address: address(to.address), port_first: to.port_first };
            compiled.targets.insert(TargetId(u32::from_ne_bytes(id)), target);
        }
        for (key, _) in entries::<16, abi::place>(&self.maps.virtual_addresses, "virtual addresses")? {
            compiled.virtual_addresses.insert(address(key), VirtualAddress { target: None });
        }
        Ok(compiled)
    }
}

fn entries<const KEY_BYTES: usize, V: abi::Pod>(
    map: &MapHandle,
    what: &'static str,
) -> Result<Vec<([u8; KEY_BYTES], V)>, RedirectError> {
    let mut found = Vec::new();
    for key in map.keys() {
        let failed = |error| RedirectError::Read { what, source: io::Error::other(error) };
        // It may go meanwhile.
        let value = map.lookup(&key, MapFlags::ANY).map_err(failed)?;
        found.extend(key.try_into().ok().zip(value.as_deref().and_then(abi::from_bytes)));
    }
    Ok(found)
}

fn address(mapped: [u8; 16]) -> IpAddr {
    IpAddr::from(Ipv6Addr::from(mapped)).to_canonical()
}
