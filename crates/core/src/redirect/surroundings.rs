//! What a rule meets on this host: containers, their addresses and interfaces.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{InterfacePlace, Place, Rule, RuleError};
use crate::endpoint::Container;

/// A shorter piece of an id would match too many containers by chance.
const ID_DIGITS_MIN: usize = 4;

/// Who and what is on this host now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Containers that run.
    pub residents: Vec<Resident>,
    /// Containers that do not, as far as an engine was asked for them.
    pub stopped: Vec<Arc<Container>>,
    /// This host's own addresses.
    pub host_addresses: BTreeSet<IpAddr>,
    /// Interfaces at which redirects are done, by index.
    pub interfaces: BTreeMap<u32, InterfacePlace>,
    /// Where this host's own routes lead by an interface at which redirects are done, or by its bridge, and the index of
    /// that.
    pub networks: BTreeSet<(IpNet, u32)>,
    /// Whether redirected connections go from one network of this host to another past the host's own rules
    /// (`weir run --accelerate`).
    pub accelerated: bool,
}

/// A container that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resident {
    /// Which.
    pub container: Arc<Container>,
    /// Its addresses, and where each is, as far as that is known. Link-local
    /// and loopback addresses are not among them.
    pub addresses: Vec<(IpAddr, Option<Place>)>,
}

/// Whom a name meant when a rule was added. It means nobody else afterwards: when
/// the container `web` is restarted, a service `web` is not in its place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Meaning {
    /// The container of this name.
    Container(String),
    /// The containers of this compose service, `shop/web`.
    Service(String),
    /// The container of this id.
    Id(String),
}

impl Surroundings {
    /// Whom the names in a rule mean, as far as anybody has them.
    #[must_use]
    pub fn meanings(&self, rule: &Rule) -> BTreeMap<String, Meaning> {
        rule.names().filter_map(|name| Some((name.to_owned(), self.meaning(name).ok()?))).collect()
    }

    /// Whose name this is: a container's by the engine, then a service's, then
    /// a container's as weir shows it, then the beginning of an id.
    ///
    /// # Errors
    /// Nobody's, or that of several who have nothing to do with each other.
    pub(super) fn meaning(&self, name: &str) -> Result<Meaning, RuleError> {
        // Containers of one service belong together; so do those to which an
        // engine's name, or a network namespace's, was given twice.
        let ways: [fn(&Container, &str) -> Option<Meaning>; 4] = [
            |container, name| (container.name == name).then(|| Meaning::Container(name.to_owned())),
            |container, name| {
                let full = container.full_service().filter(|full| !full.is_empty())?;
                let is_named = full == name || container.service.as_deref() == Some(name);
                is_named.then_some(Meaning::Service(full))
            },
            |container, name| (container.to_string() == name).then(|| Meaning::Container(name.to_owned())),
            |container, name| is_id(container, name).then(|| Meaning::Id(container.id.clone())),
        ];
        for way in ways {
            let found: BTreeMap<Meaning, String> =
                self.all().filter_map(|one| Some((way(one, name)?, one.to_string()))).collect();
            let mut found = found.into_iter();
            match (found.next(), found.next()) {
                (None, _) => {}
                (Some((meaning, _)), None) => return Ok(meaning),
                (Some(first), Some(second)) => {
                    let candidates = [first, second].into_iter().chain(found);
                    let unique = |(meaning, shown)| match meaning {
                        Meaning::Service(full) => full,
                        Meaning::Container(_) | Meaning::Id(_) => shown,
                    };
                    let candidates = candidates.map(unique).collect();
                    return Err(RuleError::Ambiguous { name: name.to_owned(), candidates });
                }
            }
        }
        Err(RuleError::UnknownName { name: name.to_owned(), known: self.known_names() })
    }

    /// Those who are meant, and run.
    pub(super) fn meant(&self, meaning: &Meaning) -> Vec<&Resident> {
        let is_meant = |container: &Container| match meaning {
            Meaning::Container(name) => container.name == *name || container.to_string() == *name,
            Meaning::Service(full) => container.full_service().as_ref() == Some(full),
            Meaning::Id(id) => container.id == *id,
        };
        self.residents.iter().filter(|resident| is_meant(&resident.container)).collect()
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Container>> {
        self.residents.iter().map(|resident| &resident.container).chain(&self.stopped)
    }

    /// Where an address is, if a container has it.
    pub(super) fn place(&self, address: IpAddr) -> Option<Place> {
        self.addresses().find(|(_, one, _)| *one == address).and_then(|(_, _, place)| place)
    }

    /// Whose address it is.
    pub(super) fn resident(&self, address: IpAddr) -> Option<&Resident> {
        self.addresses().find(|(_, one, _)| *one == address).map(|(resident, _, _)| resident)
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = (&Resident, IpAddr, Option<Place>)> {
        self.residents.iter().flat_map(|resident| {
            resident.addresses.iter().map(move |(address, place)| (resident, *address, *place))
        })
    }

    fn known_names(&self) -> String {
        let names: BTreeSet<String> = self.all().map(|one| one.to_string()).collect();
        match names.is_empty() {
            true => "none".to_owned(),
            false => names.into_iter().collect::<Vec<_>>().join(", "),
        }
    }
}

fn is_id(container: &Container, text: &str) -> bool {
    text.len() >= ID_DIGITS_MIN
        && text.bytes().all(|digit| digit.is_ascii_hexdigit())
        && container.id.get(..text.len()).is_some_and(|start| start.eq_ignore_ascii_case(text))
}
