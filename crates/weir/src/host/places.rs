//! Where each container's addresses are: behind which veth, in which bridge,
//! with which MAC address.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use weir_core::directory::Directory;
use weir_core::endpoint::Container;
use weir_core::redirect::{InterfacePlace, Place, Resident, Surroundings};

use super::message::{Link, Route};
use super::netlink::Requests;
use super::{WatchError, container_key};

/// Asks the kernel of the network namespace in which it was made.
pub struct Places {
    requests: Requests,
}

impl Places {
    /// # Errors
    /// The kernel gives no netlink socket.
    pub fn open() -> Result<Self, WatchError> {
        Ok(Self { requests: Requests::open().map_err(WatchError::Netlink)? })
    }

    /// Everything that redirects need to know of this host, as it is now. Who is
    /// behind a veth, and what only a container engine knows, comes from the
    /// directory.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn read(&mut self, directory: &Directory) -> Result<Surroundings, WatchError> {
        self.ask(directory).map_err(WatchError::Netlink)
    }

    fn ask(&mut self, directory: &Directory) -> io::Result<Surroundings> {
        let mut links: BTreeMap<u32, Link> =
            self.requests.links()?.into_iter().map(|link| (link.interface.ifindex, link)).collect();
        let routes = self.routes(&links)?;
        for (ifindex, link) in &mut links {
            let through = |route: &Route| route.is_default() && route.ifindexes.contains(ifindex);
            link.interface.default_route = routes.iter().any(through);
        }
        let host_addresses = self.requests.addresses()?;
        let mut found = Found { directory, links: &links, residents: BTreeMap::new() };
        let mut interfaces = BTreeMap::new();
        let mut namespaces: HashMap<i32, Vec<&Link>> = HashMap::new();
        for link in links.values() {
            if let Some(nsid) = link.interface.container_netns() {
                namespaces.entry(nsid).or_default().push(link);
                interfaces.insert(link.interface.ifindex, found.interface(link));
            }
        }
        for (nsid, veths) in namespaces {
            // A namespace may go while it is looked at; then its veths go too.
            let Ok(inside) = self.requests.links_in(nsid) else { continue };
            let Ok(addresses) = self.requests.addresses_in(nsid) else { continue };
            for veth in veths {
                found.veth(veth, &inside, &addresses);
            }
        }
        found.engine_only();
        Ok(Surroundings {
            residents: found.residents.into_values().collect(),
            stopped: Vec::new(),
            host_addresses: host_addresses.into_iter().map(|(_, ip)| ip).filter(is_usable).collect(),
            interfaces,
            networks: routes
                .into_iter()
                .filter(|route| !route.is_default() && is_usable(&route.destination.addr()))
                .flat_map(|Route { destination, ifindexes }| {
                    ifindexes.into_iter().map(move |ifindex| (destination, ifindex))
                })
                .collect(),
            accelerated: false,
        })
    }

    /// The default routes, and those through what containers may be behind.
    fn routes(&mut self, links: &BTreeMap<u32, Link>) -> io::Result<Vec<Route>> {
        let veths = links.values().map(|link| &link.interface).filter(|one| one.container_netns().is_some());
        let ways: BTreeSet<u32> = veths.map(|veth| veth.master_ifindex.unwrap_or(veth.ifindex)).collect();
        self.requests.routes(|route| {
            route.is_default() || route.ifindexes.iter().any(|ifindex| ways.contains(ifindex))
        })
    }
}

struct Found<'a> {
    directory: &'a Directory,
    links: &'a BTreeMap<u32, Link>,
    /// By [`container_key`].
    residents: BTreeMap<String, Resident>,
}

impl Found<'_> {
    fn interface(&self, veth: &Link) -> InterfacePlace {
        let own = veth.interface.ifindex;
        let bridge = veth.interface.master_ifindex.filter(|master| self.links.contains_key(master));
        let speaker = bridge.and_then(|bridge| self.links.get(&bridge)).unwrap_or(veth);
        InterfacePlace {
            bridge_ifindex: bridge.unwrap_or(own),
            host_mac: speaker.mac.unwrap_or_default(),
            container_side: true,
        }
    }

    fn resident(&mut self, container: &Arc<Container>) -> &mut Resident {
        let key = container_key(container).to_owned();
        self.residents
            .entry(key)
            .or_insert_with(|| Resident { container: Arc::clone(container), addresses: Vec::new() })
    }

    /// The addresses at a veth's other end.
    fn veth(&mut self, veth: &Link, inside: &[Link], addresses: &[(u32, IpAddr)]) {
        let Some(container) = self.directory.owner(veth.interface.ifindex).cloned() else { return };
        let other_end = inside.iter().find(|link| Some(link.interface.ifindex) == veth.peer_ifindex);
        let Some((peer, mac)) = other_end.and_then(|link| Some((link.interface.ifindex, link.mac?))) else {
            return;
        };
        let place = Place {
            ifindex: veth.interface.ifindex,
            bridge_ifindex: self.interface(veth).bridge_ifindex,
            mac,
        };
        let resident = self.resident(&container);
        let at_peer = addresses.iter().filter(|(ifindex, _)| *ifindex == peer);
        for ip in at_peer.map(|(_, ip)| ip.to_canonical()).filter(is_usable) {
            if !resident.addresses.iter().any(|(known, _)| *known == ip) {
                resident.addresses.push((ip, Some(place)));
            }
        }
    }

    /// Containers and addresses that no veth leads to: macvlan, the host's
    /// network, or no network at all.
    fn engine_only(&mut self) {
        let directory = self.directory;
        for (container, addresses) in directory.container_addresses() {
            let resident = self.resident(container);
            for ip in addresses.iter().filter(|ip| is_usable(ip)) {
                if !resident.addresses.iter().any(|(known, _)| known == ip) {
                    resident.addresses.push((*ip, None));
                }
            }
        }
    }
}

/// Not one that is the same on every host.
fn is_usable(ip: &IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(link_local || ip.is_loopback() || ip.is_unspecified() || ip.is_multicast())
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_testkit::{Topology, require_root};

    #[test]
    fn root_addresses_are_found_where_they_are() {
        require_root!();
        let topology = Topology::with_containers(&["web", "db"]);
        topology.host().enter(|| {
            let mut requests = Requests::open().unwrap();
            let links = requests.links().unwrap();
            let named = |name: &str| links.iter().find(|link| link.interface.name == name).unwrap();
            let (veth, bridge) = (named("veth-web"), named("br0"));
            let mut directory = Directory::default();
            let container = Arc::new(Container { name: "web".into(), ..Container::default() });
            directory.set_owner(veth.interface.ifindex, Some(container));
            let elsewhere = Arc::new(Container { name: "macvlan".into(), ..Container::default() });
            directory.set_container_addresses("m", elsewhere, vec![IpAddr::from([192, 0, 2, 9])]);

            let surroundings = Places::open().unwrap().read(&directory).unwrap();
            let web = topology.container("web");
            let [macvlan, resident] = &surroundings.residents[..] else { panic!("{surroundings:#?}") };
            assert_eq!(macvlan.addresses, [(IpAddr::from([192, 0, 2, 9]), None)]);
            let addresses: Vec<IpAddr> = resident.addresses.iter().map(|(ip, _)| *ip).collect();
            assert!(addresses.contains(&web.ipv4().into()) && addresses.contains(&web.ipv6().into()));
            for (_, place) in &resident.addresses {
                let place = place.unwrap();
                assert_eq!(
                    (place.ifindex, place.bridge_ifindex),
                    (veth.interface.ifindex, bridge.interface.ifindex)
                );
                assert_ne!(Some(place.mac), veth.mac, "the container's end has another");
            }
            let at = surroundings.interfaces[&veth.interface.ifindex];
            assert_eq!(at.bridge_ifindex, bridge.interface.ifindex);
            assert_eq!(Some(at.host_mac), bridge.mac);
            assert_eq!(surroundings.interfaces.len(), 2);
            let networks = ["10.99.0.0/24", "fd99::/64"].map(|network| network.parse().unwrap());
            assert_eq!(surroundings.networks, networks.map(|one| (one, bridge.interface.ifindex)).into());
            assert!(surroundings.host_addresses.contains(&IpAddr::from(Topology::HOST_IPV4)));
        });
    }
}
