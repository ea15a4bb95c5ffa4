//! Who is behind each veth: puts together what the interfaces, the namespaces
//! and the container engine say. Asks nobody itself.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use weir_core::endpoint::Container;

use super::namespaces::Found;
use super::{HostEvent, container_key};

/// Digits of a container's id that stand for its name where nobody knows that.
const SHORT_ID_DIGITS: usize = 12;

#[derive(Debug, Default)]
pub(super) struct Owners {
    veths: BTreeMap<u32, Veth>,
    /// By the number that they have here.
    namespaces: HashMap<i32, Netns>,
    /// Those of the engine, by id.
    containers: HashMap<String, Known>,
    /// What was said of containers and their addresses, by [`container_key`].
    told: HashMap<String, (Arc<Container>, Vec<IpAddr>)>,
    events: Vec<HostEvent>,
}

#[derive(Debug)]
struct Veth {
    name: String,
    nsid: Option<i32>,
    told: Option<Arc<Container>>,
}

#[derive(Debug, Default)]
struct Netns {
    veths: BTreeSet<u32>,
    /// The container that the engine says is in it.
    engine_id: Option<String>,
    /// What was found by looking, once it was looked for.
    found: Option<Found>,
    /// Addresses of the interfaces in it, without loopback.
    addresses: BTreeSet<IpAddr>,
    owner: Option<Arc<Container>>,
    /// Its container has stopped: nothing more is said of that one's addresses.
    ended: bool,
}

#[derive(Debug)]
struct Known {
    container: Arc<Container>,
    nsid: Option<i32>,
    addresses: BTreeSet<IpAddr>,
}

impl Owners {
    /// Hands out what is to be told since the last time.
    pub(super) fn take_events(&mut self) -> Vec<HostEvent> {
        std::mem::take(&mut self.events)
    }

    /// A veth is there, or not as it was. `nsid`: the namespace of its other
    /// end, if a container is there.
    pub(super) fn put_veth(&mut self, ifindex: u32, name: &str, nsid: Option<i32>) {
        let told = match self.veths.get(&ifindex) {
            Some(veth) if veth.name == name && veth.nsid == nsid => return,
            Some(veth) if veth.nsid != nsid => {
                let (told, before) = (veth.told.clone(), veth.nsid);
                self.remove_veth(ifindex);
                if let Some(before) = before {
                    // Who is there may be nobody's container any more.
                    self.settle(before);
                }
                told
            }
            Some(veth) => veth.told.clone(),
            None => None,
        };
        self.veths.insert(ifindex, Veth { name: name.to_owned(), nsid, told });
        match nsid {
            Some(nsid) => {
                self.namespaces.entry(nsid).or_default().veths.insert(ifindex);
                self.settle(nsid);
            }
            None => self.tell_owner(ifindex, None),
        }
    }

    pub(super) fn remove_veth(&mut self, ifindex: u32) {
        let Some(nsid) = self.veths.remove(&ifindex).and_then(|veth| veth.nsid) else { return };
        if let Some(netns) = self.namespaces.get_mut(&nsid) {
            netns.veths.remove(&ifindex);
            if netns.veths.is_empty() {
                // Others may keep it, but nothing comes from there any more.
                netns.addresses.clear();
            }
        }
    }

    /// The number is free again: what gets it next is another namespace.
    pub(super) fn remove_namespace(&mut self, nsid: i32) {
        for known in self.containers.values_mut().filter(|known| known.nsid == Some(nsid)) {
            known.nsid = None;
        }
        let Some(netns) = self.namespaces.remove(&nsid) else { return };
        // Its veths are about to go too. Until then their owner stays.
        for ifindex in netns.veths {
            if let Some(veth) = self.veths.get_mut(&ifindex) {
                veth.nsid = None;
            }
        }
        if let Some(owner) = netns.owner {
            self.forget_unless_needed(container_key(&owner));
        }
    }

    /// What was known of namespaces may have become untrue unnoticed: returns
    /// those to look at again. Until then their owners stay.
    pub(super) fn doubt_namespaces(&mut self) -> Vec<i32> {
        for known in self.containers.values_mut() {
            known.nsid = None;
        }
        for netns in self.namespaces.values_mut() {
            netns.engine_id = None;
            netns.found = None;
            netns.addresses.clear();
        }
        self.namespaces.keys().copied().collect()
    }

    /// A look at the namespace brought this. Returns a container id that is
    /// new and that the engine did not speak of.
    pub(super) fn put_found(&mut self, nsid: i32, found: Found) -> Option<String> {
        let netns = self.namespaces.entry(nsid).or_default();
        if netns.found.as_ref() == Some(&found) {
            return None;
        }
        // A look after the container's end does not see its process any more.
        let ended = netns.ended && found.container_id.is_none();
        if !ended {
            netns.ended = false;
            netns.found = Some(found.clone());
            self.settle(nsid);
        }
        found.container_id.filter(|id| !self.containers.contains_key(id))
    }

    /// Addresses of all interfaces in a namespace.
    pub(super) fn put_addresses(&mut self, nsid: i32, addresses: Vec<IpAddr>) {
        let netns = self.namespaces.entry(nsid).or_default();
        let addresses = addresses.into_iter().filter(|ip| !ip.is_loopback() && !ip.is_unspecified());
        netns.addresses = addresses.collect();
        self.settle(nsid);
    }

    /// The engine has a running container. `nsid`: its own network namespace,
    /// if the number of that is known.
    pub(super) fn put_container(&mut self, container: Container, nsid: Option<i32>, addresses: Vec<IpAddr>) {
        let id = container.id.clone();
        let before = self.containers.remove(&id);
        let nsid = nsid.or(before.as_ref().and_then(|known| known.nsid));
        let container = match before {
            Some(known) if *known.container == container => known.container,
            _ => Arc::new(container),
        };
        self.containers
            .insert(id.clone(), Known { container, nsid, addresses: addresses.into_iter().collect() });
        if let Some(nsid) = nsid {
            let netns = self.namespaces.entry(nsid).or_default();
            netns.engine_id = Some(id.clone());
            netns.ended = false;
        }
        for nsid in self.namespaces_of(&id) {
            self.settle(nsid);
        }
        self.tell_addresses(&id);
    }

    /// The engine's container is not running any more.
    pub(super) fn remove_container(&mut self, id: &str) {
        if self.containers.remove(id).is_none() && !self.told.contains_key(id) {
            return;
        }
        for nsid in self.namespaces_of(id) {
            if let Some(netns) = self.namespaces.get_mut(&nsid) {
                // Its last packets still go by its name: the owner stays.
                netns.engine_id = None;
                netns.found.get_or_insert_default().container_id = Some(id.to_owned());
                netns.ended = true;
            }
        }
        self.forget(id);
    }

    /// The engine's running containers are these and no others.
    pub(super) fn keep_containers(&mut self, running: &BTreeSet<String>) {
        let stopped: Vec<String> =
            self.containers.keys().filter(|id| !running.contains(*id)).cloned().collect();
        for id in stopped {
            self.remove_container(&id);
        }
    }

    /// Whether it is worth to look (again) for who is in a namespace.
    pub(super) fn wants_owner(&self, nsid: i32) -> bool {
        self.namespaces.get(&nsid).is_some_and(|netns| {
            let known = netns.engine_id.is_some()
                || netns.found.as_ref().is_some_and(|found| found.container_id.is_some());
            !netns.veths.is_empty() && !known
        })
    }

    /// Whether it is worth to ask (again) for a namespace's addresses.
    pub(super) fn wants_addresses(&self, nsid: i32) -> bool {
        self.namespaces.get(&nsid).is_some_and(|netns| {
            !netns.veths.is_empty() && !netns.ended && netns.addresses.iter().all(is_link_local)
        })
    }

    /// The namespace in which the engine says that a container is.
    pub(super) fn namespace_of(&self, id: &str) -> Option<i32> {
        self.containers.get(id)?.nsid.or_else(|| self.namespaces_of(id).first().copied())
    }

    fn namespaces_of(&self, id: &str) -> Vec<i32> {
        let of = |netns: &Netns| {
            let found = netns.found.as_ref().and_then(|found| found.container_id.as_deref());
            netns.engine_id.as_deref().or(found) == Some(id)
        };
        self.namespaces.iter().filter(|(_, netns)| of(netns)).map(|(nsid, _)| *nsid).collect()
    }

    /// Decides anew who owns a namespace, and tells what follows from it.
    fn settle(&mut self, nsid: i32) {
        let Some(netns) = self.namespaces.get(&nsid) else { return };
        let owner = self.owner(netns);
        let veths: Vec<u32> = netns.veths.iter().copied().collect();
        let Some(netns) = self.namespaces.get_mut(&nsid) else { return };
        let before = std::mem::replace(&mut netns.owner, owner.clone());
        let ended = netns.ended;
        for ifindex in veths {
            self.tell_owner(ifindex, owner.clone());
        }
        let key = owner.as_deref().map(container_key);
        if let Some(before) = before.as_deref().map(container_key).filter(|before| Some(*before) != key) {
            self.forget_unless_needed(before);
        }
        if let Some(key) = key.filter(|_| !ended) {
            self.tell_addresses(key);
        }
    }

    fn owner(&self, netns: &Netns) -> Option<Arc<Container>> {
        let found = netns.found.as_ref();
        let id = netns.engine_id.as_deref().or(found.and_then(|found| found.container_id.as_deref()));
        let container = match id {
            Some(id) => match (self.containers.get(id), &netns.owner) {
                (Some(known), _) => return Some(known.container.clone()),
                (None, Some(owner)) if owner.id == id => return Some(owner.clone()),
                _ => Container {
                    id: id.to_owned(),
                    name: id.chars().take(SHORT_ID_DIGITS).collect(),
                    ..Container::default()
                },
            },
            None => {
                let Some(found) = found else { return netns.owner.clone() };
                let first_veth = || Some(self.veths.get(netns.veths.first()?)?.name.clone());
                let name = found.name.clone().or_else(first_veth)?;
                Container { name, ..Container::default() }
            }
        };
        match &netns.owner {
            Some(owner) if **owner == container => Some(owner.clone()),
            _ => Some(Arc::new(container)),
        }
    }

    fn tell_owner(&mut self, ifindex: u32, owner: Option<Arc<Container>>) {
        if let Some(veth) = self.veths.get_mut(&ifindex)
            && veth.told != owner
        {
            veth.told = owner.clone();
            self.events.push(HostEvent::Owner { ifindex, container: owner });
        }
    }

    /// Tells a container's addresses: those that the engine gave it, and those
    /// that are on the interfaces of namespaces that it owns.
    fn tell_addresses(&mut self, key: &str) {
        let mut addresses = BTreeSet::new();
        let mut container = None;
        if let Some(known) = self.containers.get(key) {
            container = Some(known.container.clone());
            addresses.extend(known.addresses.iter().copied());
        }
        for netns in self.namespaces.values().filter(|netns| !netns.ended) {
            if let Some(owner) = netns.owner.as_ref().filter(|owner| container_key(owner) == key) {
                container.get_or_insert_with(|| owner.clone());
                addresses.extend(netns.addresses.iter().copied());
            }
        }
        let Some(container) = container else { return };
        let addresses: Vec<IpAddr> = addresses.into_iter().collect();
        let told = self.told.get(key);
        let same = told.map_or(addresses.is_empty(), |(c, a)| *c == container && *a == addresses);
        if !same {
            self.told.insert(key.to_owned(), (container.clone(), addresses.clone()));
            self.events.push(HostEvent::Addresses { container, addresses });
        }
    }

    /// A namespace no longer speaks for this container.
    fn forget_unless_needed(&mut self, key: &str) {
        let owned = |netns: &Netns| netns.owner.as_deref().is_some_and(|owner| container_key(owner) == key);
        if !self.containers.contains_key(key) && !self.namespaces.values().any(owned) {
            self.forget(key);
        }
    }

    fn forget(&mut self, key: &str) {
        if self.told.remove(key).is_some() {
            self.events.push(HostEvent::ContainerGone { id: key.to_owned() });
        }
    }
}

fn is_link_local(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests;
