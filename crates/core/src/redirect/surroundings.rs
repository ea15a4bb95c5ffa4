//! What a rule meets on this host: containers, their addresses and interfaces.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::{InterfacePlace, Place, RuleError};
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

/// Whom a name means.
#[derive(Debug, Clone)]
pub(super) enum Named<'a> {
    /// The container, or those of the service, that run.
    Running(Vec<&'a Resident>),
    /// None of them does.
    Stopped,
}

impl Surroundings {
    /// Whose name this is: a container's by the engine, then a service's, then
    /// a container's as weir shows it, then the beginning of an id.
    ///
    /// # Errors
    /// Nobody's, or that of several who have nothing to do with each other.
    pub(super) fn named(&self, name: &str) -> Result<Named<'_>, RuleError> {
        let ways: [fn(&Container, &str) -> bool; 4] = [
            |container, name| container.name == name,
            |container, name| {
                container.full_service().as_deref() == Some(name)
                    || container.service.as_deref() == Some(name)
            },
            |container, name| container.to_string() == name,
            is_id,
        ];
        for (way, is_named) in ways.into_iter().enumerate() {
            let running: Vec<_> =
                self.residents.iter().filter(|resident| is_named(&resident.container, name)).collect();
            let stopped = self.stopped.iter().filter(|container| is_named(container, name));
            let found = running.iter().map(|resident| &resident.container).chain(stopped);
            // Containers of one service belong together; so do those to which an
            // engine's name, or a network namespace's, was given twice.
            let label = |container: &Arc<Container>| match way {
                0 => container.name.clone(),
                1 => container.full_service().unwrap_or_default(),
                _ => container.to_string(),
            };
            let candidates: BTreeSet<String> = found.map(label).collect();
            match candidates.len() {
                0 => {}
                1 if running.is_empty() => return Ok(Named::Stopped),
                1 => return Ok(Named::Running(running)),
                _ => {
                    return Err(RuleError::Ambiguous {
                        name: name.to_owned(),
                        candidates: candidates.into_iter().collect(),
                    });
                }
            }
        }
        Err(RuleError::UnknownName { name: name.to_owned(), known: self.known_names() })
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
        let running = self.residents.iter().map(|resident| &resident.container);
        let names: BTreeSet<String> = running.chain(&self.stopped).map(|one| one.to_string()).collect();
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
