//! Redirect rules, written into the kernel's maps.

mod counted;
mod in_force;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use libbpf_rs::{ErrorKind, MapCore, MapFlags, MapHandle};
use weir_core::flow::{FlowKey, Translation};
use weir_core::redirect::{
    Compiled, CompiledMatch, CompiledRule, InterfacePlace, MATCHES_MAX, Place, RuleId, SLOTS,
};

use crate::pins::PinDirectory;
use crate::{abi, translations};

pub use counted::RedirectCounters;
pub(crate) use counted::{Counted, RULE_BYTES, claim_places};

/// Rules cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum RedirectError {
    /// There are more of something than its map holds. Nothing was written.
    #[error("too many {what} for the kernel's tables: {wanted}, and there is room for {room}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many were to be written.
        wanted: usize,
        /// How many can be.
        room: usize,
    },
    /// A system call failed.
    #[error("cannot write the kernel's table of {what}: {source}")]
    Write {
        /// Of what.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A system call failed.
    #[error("cannot read the kernel's table of {what}: {source}")]
    Read {
        /// Of what.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// The maps, each with a name for error messages.
pub(crate) struct RedirectMaps {
    pub(crate) redirects: MapHandle,
    pub(crate) rules: MapHandle,
    pub(crate) targets: MapHandle,
    pub(crate) clients: MapHandle,
    pub(crate) askers: MapHandle,
    pub(crate) endpoints: MapHandle,
    pub(crate) interfaces: MapHandle,
    pub(crate) virtual_addresses: MapHandle,
    pub(crate) forged_sources: MapHandle,
    pub(crate) counted: Counted,
    pub(crate) translations: MapHandle,
}

/// The redirects of loaded programs.
pub struct Redirects {
    maps: RedirectMaps,
}

/// A map's content, as bytes.
type Content = BTreeMap<Vec<u8>, Vec<u8>>;

/// A map, and what is to stand in it.
struct Wanted<'maps> {
    what: &'static str,
    map: &'maps MapHandle,
    content: Content,
}

impl Redirects {
    pub(crate) fn new(maps: RedirectMaps) -> Self {
        Self { maps }
    }

    /// Those of pinned state, for reading, whoever owns it. `None`: there is no state.
    ///
    /// # Errors
    /// The kernel does not open the maps.
    pub fn pinned(pins: &PinDirectory) -> Result<Option<Self>, RedirectError> {
        if !pins.state().exists() {
            return Ok(None);
        }
        let open = |name: &str| {
            pins.open_map(name)
                .map_err(|error| RedirectError::Read { what: "redirects", source: io::Error::other(error) })
        };
        Ok(Some(Self::new(RedirectMaps {
            redirects: open("redirects")?,
            rules: open("redirect_rules")?,
            targets: open("redirect_targets")?,
            clients: open("redirect_clients")?,
            askers: open("redirect_askers")?,
            endpoints: open("endpoints")?,
            interfaces: open("interfaces")?,
            virtual_addresses: open("virtual_addresses")?,
            forged_sources: open("forged_sources")?,
            counted: Counted {
                counters: open("redirect_counters")?,
                bytes: open("rule_bytes")?,
                bytes_before: open("rule_bytes_before")?,
            },
            translations: open("translations")?,
        })))
    }

    /// Makes these the rules, and writes only what differs from those before.
    /// Whatever a connection's first packet meets meanwhile is either the rule before
    /// or the rule afterwards. Connections that are redirected already stay so.
    ///
    /// # Errors
    /// Too much of something, before anything is written; or the kernel refuses to
    /// read or to write, in the middle: then setting the same again completes it.
    pub fn set(&self, compiled: &Compiled) -> Result<(), RedirectError> {
        let tables = self.wanted(compiled)?;
        // What is referred to is there before what refers to it, and goes after it.
        self.maps.counted.begin(&compiled.numbers)?;
        let mut obsolete = Vec::new();
        for table in &tables {
            obsolete.push(table.write()?);
        }
        for (table, keys) in tables.iter().zip(&obsolete).rev() {
            table.delete(keys)?;
        }
        self.maps.counted.end_others(&compiled.numbers)
    }

    /// What happened because of each rule, by their numbers, since it was added.
    ///
    /// # Errors
    /// The kernel refuses to read.
    pub fn counters(&self) -> Result<BTreeMap<u32, RedirectCounters>, RedirectError> {
        self.maps.counted.read()
    }

    /// Every translated connection: the flow as its server names it, and what its
    /// client sees.
    ///
    /// # Errors
    /// The kernel refuses to read.
    pub fn translations(&self) -> Result<Vec<(FlowKey, Translation)>, RedirectError> {
        translations::all(&self.maps.translations)
            .map_err(|source| RedirectError::Read { what: "translations", source })
    }

    /// Ends the translation of one flow, as its server names it.
    ///
    /// # Errors
    /// The kernel refuses to remove.
    pub fn remove_translation(&self, key: &FlowKey) -> Result<(), RedirectError> {
        translations::remove(&self.maps.translations, key)
            .map_err(|source| RedirectError::Write { what: "translations", source })
    }

    /// Every map's content, in the order in which they are written.
    fn wanted(&self, compiled: &Compiled) -> Result<Vec<Wanted<'_>>, RedirectError> {
        let maps = &self.maps;
        let number = |number: u32| number.to_ne_bytes().to_vec();
        let rule_ids = || compiled.rules.keys().map(|rule| number(rule.0));
        let tables: [(&'static str, &MapHandle, Content); 9] = [
            ("targets", &maps.targets, {
                let target = |port_first, address| abi::redirect_target { address, port_first, pad: [0; 2] };
                let entry = |id: u32, port, address| (number(id), bytes(&target(port, mapped(address))));
                compiled.targets.iter().map(|(id, to)| entry(id.0, to.port_first, to.address)).collect()
            }),
            (
                "rules",
                &maps.rules,
                rule_ids().zip(compiled.rules.values().map(|to| bytes(&rule(to)))).collect(),
            ),
            ("clients", &maps.clients, {
                compiled.clients.iter().map(|(id, net)| (bytes(&client(*id, *net)), vec![1])).collect()
            }),
            ("askers", &maps.askers, {
                let asker = |rule: RuleId, veth: Option<u32>| abi::redirect_asker {
                    rule: rule.0,
                    ifindex: veth.unwrap_or(0),
                };
                compiled.askers.iter().map(|(id, veth)| (bytes(&asker(*id, *veth)), vec![1])).collect()
            }),
            ("endpoints", &maps.endpoints, {
                compiled.endpoints.iter().map(|(ip, at)| (mapped(*ip).to_vec(), bytes(&place(at)))).collect()
            }),
            ("interfaces", &maps.interfaces, {
                compiled
                    .interfaces
                    .iter()
                    .map(|(index, at)| (number(*index), bytes(&interface(at))))
                    .collect()
            }),
            ("virtual addresses", &maps.virtual_addresses, {
                let target = |at: Option<Place>| at.as_ref().map(place).unwrap_or_default();
                let all = compiled.virtual_addresses.iter();
                all.map(|(ip, to)| (mapped(*ip).to_vec(), bytes(&target(to.target)))).collect()
            }),
            ("forged sources", &maps.forged_sources, {
                let forged = |ifindex, ip| abi::forged_source { ifindex, address: mapped(ip) };
                compiled
                    .forged_sources
                    .iter()
                    .map(|(index, ip)| (bytes(&forged(*index, *ip)), vec![1]))
                    .collect()
            }),
            ("redirected addresses", &maps.redirects, {
                let all = compiled.matches.iter();
                all.map(|(ip, matches)| Ok((mapped(*ip).to_vec(), bytes(&set(matches)?))))
                    .collect::<Result<_, _>>()?
            }),
        ];
        tables
            .into_iter()
            .map(|(what, map, content)| {
                let (wanted, room) = (content.len(), map.max_entries() as usize);
                if wanted > room {
                    return Err(RedirectError::TooMany { what, wanted, room });
                }
                Ok(Wanted { what, map, content })
            })
            .collect()
    }
}

impl Wanted<'_> {
    /// Writes what is new or other than before. The keys that are to go.
    fn write(&self) -> Result<Vec<Vec<u8>>, RedirectError> {
        let mut obsolete = Vec::new();
        let mut same = 0;
        let mut there = BTreeMap::new();
        for key in self.map.keys() {
            match self.content.get(&key) {
                None => obsolete.push(key),
                Some(_) => {
                    let value =
                        self.map.lookup(&key, MapFlags::ANY).map_err(|error| self.read_failed(error))?;
                    there.insert(key, value);
                }
            }
        }
        for (key, value) in &self.content {
            let stands = match there.get(key) {
                Some(Some(now)) => now == value,
                _ => false,
            };
            if stands {
                same += 1;
                continue;
            }
            // Room for what comes is made by what goes, if it must be.
            if there.len().max(same) + obsolete.len() >= self.map.max_entries() as usize {
                self.delete(&std::mem::take(&mut obsolete))?;
            }
            self.map.update(key, value, MapFlags::ANY).map_err(|error| self.write_failed(error))?;
        }
        Ok(obsolete)
    }

    fn delete(&self, keys: &[Vec<u8>]) -> Result<(), RedirectError> {
        for key in keys {
            match self.map.delete(key) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(self.write_failed(error)),
                _ => {}
            }
        }
        Ok(())
    }

    fn read_failed(&self, error: libbpf_rs::Error) -> RedirectError {
        RedirectError::Read { what: self.what, source: io::Error::other(error) }
    }

    fn write_failed(&self, error: libbpf_rs::Error) -> RedirectError {
        RedirectError::Write { what: self.what, source: io::Error::other(error) }
    }
}

fn bytes<T: abi::Pod>(value: &T) -> Vec<u8> {
    abi::as_bytes(value).to_vec()
}

fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

fn set(matches: &[CompiledMatch]) -> Result<abi::redirect_set, RedirectError> {
    let mut set = abi::redirect_set::default();
    if matches.len() > MATCHES_MAX.min(set.r#match.len()) {
        return Err(RedirectError::TooMany {
            what: "rules for one address",
            wanted: matches.len(),
            room: MATCHES_MAX,
        });
    }
    for (to, from) in set.r#match.iter_mut().zip(matches) {
        *to = abi::redirect_match {
            rule: from.rule.0,
            port_first: from.port_first,
            port_last: from.port_last,
            protocol: from.protocol,
            limited: u8::from(from.limited),
            pad: [0; 2],
        };
    }
    Ok(set)
}

fn rule(rule: &CompiledRule) -> abi::redirect_rule {
    const { assert!(SLOTS == std::mem::size_of::<abi::redirect_rule>() / 4 - 7) };
    let mut raw = abi::redirect_rule {
        expires_ns: rule.expires_ns,
        source: rule.source.map(mapped).unwrap_or_default(),
        fast_path: u32::from(rule.fast_path),
        ..Default::default()
    };
    for (slot, target) in raw.slot.iter_mut().zip(&rule.slots) {
        *slot = target.0;
    }
    raw
}

fn client(rule: RuleId, net: IpNet) -> abi::redirect_client {
    let (address, prefix) = match net {
        IpNet::V4(net) => (IpAddr::V4(net.network()), 96 + u32::from(net.prefix_len())),
        IpNet::V6(net) => (IpAddr::V6(net.network()), u32::from(net.prefix_len())),
    };
    abi::redirect_client { prefix_bits: u32::BITS + prefix, rule: rule.0, address: mapped(address) }
}

fn place(place: &Place) -> abi::place {
    abi::place { ifindex: place.ifindex, bridge_ifindex: place.bridge_ifindex, mac: place.mac, pad: [0; 2] }
}

fn interface(at: &InterfacePlace) -> abi::interface_place {
    abi::interface_place {
        bridge_ifindex: at.bridge_ifindex,
        host_mac: at.host_mac,
        container_side: u8::from(at.container_side),
        pad: 0,
    }
}
