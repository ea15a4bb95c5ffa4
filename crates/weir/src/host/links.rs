//! The interfaces of this network namespace, and their addresses, as last told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::message::Link;
use super::{HostEvent, Interface, InterfaceKind};

#[derive(Debug, Default)]
pub(super) struct Links {
    links: BTreeMap<u32, Link>,
    addresses: BTreeSet<(u32, IpAddr)>,
    /// The interfaces that default routes go through.
    default_routes: BTreeSet<u32>,
    /// Something was added to or taken from the addresses since they were told.
    addresses_changed: bool,
}

impl Links {
    /// Takes note of an interface; says so if it is new or not as it was.
    pub(super) fn put(&mut self, mut link: Link) -> Option<HostEvent> {
        link.interface.default_route = self.default_routes.contains(&link.interface.ifindex);
        let interface = link.interface.clone();
        let before = self.links.insert(interface.ifindex, link);
        let same = before.is_some_and(|before| before.interface == interface);
        (!same).then_some(HostEvent::Interface(interface))
    }

    pub(super) fn remove(&mut self, ifindex: u32) -> Option<HostEvent> {
        self.links.remove(&ifindex)?;
        self.default_routes.remove(&ifindex);
        let before = self.addresses.len();
        self.addresses.retain(|(of, _)| *of != ifindex);
        self.addresses_changed |= self.addresses.len() != before;
        Some(HostEvent::InterfaceGone { ifindex })
    }

    /// Takes what there is now for what there was; says what differs, first
    /// what is gone.
    pub(super) fn replace(&mut self, links: Vec<Link>) -> Vec<HostEvent> {
        let present: BTreeSet<u32> = links.iter().map(|link| link.interface.ifindex).collect();
        let gone: Vec<u32> =
            self.links.keys().filter(|ifindex| !present.contains(ifindex)).copied().collect();
        let mut events: Vec<HostEvent> =
            gone.into_iter().filter_map(|ifindex| self.remove(ifindex)).collect();
        events.extend(links.into_iter().filter_map(|link| self.put(link)));
        events
    }

    /// Default routes go through these interfaces; says which are not as they were.
    pub(super) fn put_default_routes(&mut self, ifindexes: BTreeSet<u32>) -> Vec<HostEvent> {
        self.default_routes = ifindexes;
        let links: Vec<Link> = self.links.values().cloned().collect();
        links.into_iter().filter_map(|link| self.put(link)).collect()
    }

    /// Whether a default route goes through an interface, as last told.
    pub(super) fn has_default_route(&self, ifindex: u32) -> bool {
        self.default_routes.contains(&ifindex)
    }

    pub(super) fn put_address(&mut self, ifindex: u32, ip: IpAddr) {
        self.addresses_changed |= self.addresses.insert((ifindex, ip));
    }

    pub(super) fn remove_address(&mut self, ifindex: u32, ip: IpAddr) {
        self.addresses_changed |= self.addresses.remove(&(ifindex, ip));
    }

    pub(super) fn replace_addresses(&mut self, addresses: Vec<(u32, IpAddr)>) {
        let addresses = BTreeSet::from_iter(addresses);
        self.addresses_changed |= self.addresses != addresses;
        self.addresses = addresses;
    }

    /// All addresses, each once, if they changed since this was last asked.
    pub(super) fn take_changed_addresses(&mut self) -> Option<HostEvent> {
        std::mem::take(&mut self.addresses_changed).then(|| {
            let addresses: BTreeSet<IpAddr> = self.addresses.iter().map(|(_, ip)| *ip).collect();
            HostEvent::HostAddresses(addresses.into_iter().collect())
        })
    }

    /// Veths that were last told to have their other end here, under this index.
    pub(super) fn with_peer_here(&self, peer_ifindex: u32) -> Vec<u32> {
        let veths = self.links.values().filter(|link| link.interface.kind == InterfaceKind::Veth);
        veths
            .filter(|link| link.peer_ifindex == Some(peer_ifindex) && link.interface.peer_netns.is_none())
            .map(|link| link.interface.ifindex)
            .collect()
    }

    /// The veth at whose other end this one is, if that was last told to be in
    /// another namespace.
    pub(super) fn with_peer_elsewhere(&self, other: &Link) -> Option<u32> {
        let here = other.peer_ifindex.filter(|_| other.interface.peer_netns.is_none());
        let peer = self.links.get(&here?)?;
        (peer.peer_ifindex == Some(other.interface.ifindex) && peer.interface.peer_netns.is_some())
            .then_some(peer.interface.ifindex)
    }

    pub(super) fn get(&self, ifindex: u32) -> Option<&Interface> {
        self.links.get(&ifindex).map(|link| &link.interface)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Interface> {
        self.links.values().map(|link| &link.interface)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(ifindex: u32, name: &str, peer_ifindex: u32, peer_netns: Option<i32>) -> Link {
        let interface = Interface {
            ifindex,
            name: name.into(),
            kind: InterfaceKind::Veth,
            ethernet: true,
            peer_netns,
            master_ifindex: None,
            default_route: false,
            up: true,
        };
        Link { interface, peer_ifindex: Some(peer_ifindex), mac: None }
    }

    #[test]
    fn tells_only_what_changed() {
        let mut links = Links::default();
        assert!(links.put(link(3, "a", 2, None)).is_some());
        assert!(links.put(link(3, "a", 2, None)).is_none());
        assert!(links.put(link(3, "b", 2, None)).is_some());
        assert!(links.put(link(3, "b", 2, Some(0))).is_some());
        assert_eq!(links.remove(3), Some(HostEvent::InterfaceGone { ifindex: 3 }));
        assert_eq!(links.remove(3), None);
    }

    #[test]
    fn replacing_tells_the_difference() {
        let mut links = Links::default();
        links.put(link(3, "a", 2, None));
        links.put(link(4, "b", 2, None));
        let events = links.replace(vec![link(4, "b", 2, None), link(5, "c", 2, None)]);
        let [HostEvent::InterfaceGone { ifindex: 3 }, HostEvent::Interface(new)] = &events[..] else {
            panic!("{events:?}");
        };
        assert_eq!(new.ifindex, 5);
    }

    #[test]
    fn an_address_that_two_interfaces_have_is_told_once() {
        let mut links = Links::default();
        links.put(link(3, "a", 2, None));
        let (one, two) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        links.put_address(3, one);
        links.put_address(4, one);
        links.put_address(4, two);
        assert_eq!(links.take_changed_addresses(), Some(HostEvent::HostAddresses(vec![one, two])));
        assert_eq!(links.take_changed_addresses(), None);
        links.put_address(4, two);
        assert_eq!(links.take_changed_addresses(), None);
        links.remove(3);
        assert_eq!(links.take_changed_addresses(), Some(HostEvent::HostAddresses(vec![one, two])));
        links.remove_address(4, two);
        assert_eq!(links.take_changed_addresses(), Some(HostEvent::HostAddresses(vec![one])));
    }

    #[test]
    fn a_veth_that_leads_out_has_no_container_behind_it() {
        let mut links = Links::default();
        links.put(link(3, "eth0", 8, Some(0)));
        links.put(link(4, "pod", 2, Some(1)));
        links.put(Link {
            interface: Interface { master_ifindex: Some(9), ..link(5, "port", 2, Some(2)).interface },
            ..link(5, "port", 2, Some(2))
        });
        assert!(links.iter().all(Interface::is_container_side));
        let told = |events: Vec<HostEvent>| -> Vec<(u32, bool)> {
            let told = events.into_iter().map(|event| match event {
                HostEvent::Interface(interface) => (interface.ifindex, interface.is_container_side()),
                event => panic!("{event:?}"),
            });
            told.collect()
        };
        assert_eq!(told(links.put_default_routes(BTreeSet::from([3, 7]))), [(3, false)]);
        assert_eq!(told(links.put_default_routes(BTreeSet::from([3, 7]))), []);
        // The bridge has the route, whatever is said of its port.
        assert_eq!(told(links.put_default_routes(BTreeSet::from([3, 5]))), [(5, true)]);
        // What is told of it otherwise does not know of routes.
        assert!(links.put(link(3, "eth0", 8, Some(0))).is_none());
        assert!(links.has_default_route(3));
        assert_eq!(told(links.put_default_routes(BTreeSet::new())), [(3, true), (5, true)]);
        // Another one may get its number.
        links.put_default_routes(BTreeSet::from([3]));
        links.remove(3);
        assert!(!links.has_default_route(3));
    }

    #[test]
    fn finds_the_veth_whose_other_end_left_or_came() {
        let mut links = Links::default();
        links.put(link(3, "a", 2, None));
        links.put(link(4, "b", 2, Some(1)));
        assert_eq!(links.with_peer_here(2), [3]);
        assert_eq!(links.with_peer_elsewhere(&link(2, "c", 4, None)), Some(4));
        assert_eq!(links.with_peer_elsewhere(&link(2, "c", 4, Some(7))), None);
        assert_eq!(links.with_peer_elsewhere(&link(2, "c", 3, None)), None);
    }
}
