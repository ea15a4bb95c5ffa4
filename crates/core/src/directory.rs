//! Who stands behind an address: containers, this host, names from DNS.

mod names;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::endpoint::{Container, Identity};
use names::NameCache;

/// Everything known of addresses. Times are CLOCK_MONOTONIC nanoseconds, and
/// given by the caller.
#[derive(Debug, Default)]
pub struct Directory {
    /// By the index of the veth that the container is behind.
    owners: HashMap<u32, Arc<Container>, RandomState>,
    /// By the key that the caller gave, with its addresses.
    containers: HashMap<String, (Arc<Container>, Vec<IpAddr>), RandomState>,
    /// The key of the container that has this address.
    by_address: HashMap<IpAddr, String, RandomState>,
    host: HashSet<IpAddr, RandomState>,
    names: NameCache,
}

impl Directory {
    /// Says which container is behind a veth; `None` when it or the veth is gone.
    pub fn set_owner(&mut self, ifindex: u32, owner: Option<Arc<Container>>) {
        match owner {
            Some(container) => self.owners.insert(ifindex, container),
            None => self.owners.remove(&ifindex),
        };
    }

    /// Which container is behind a veth.
    #[must_use]
    pub fn owner(&self, ifindex: u32) -> Option<&Arc<Container>> {
        self.owners.get(&ifindex)
    }

    /// Every container that is known now.
    #[must_use]
    pub fn containers(&self) -> Vec<Arc<Container>> {
        let described = self.containers.values().map(|(container, _)| container);
        let unique: HashSet<_> = self.owners.values().chain(described).cloned().collect();
        unique.into_iter().collect()
    }

    /// Every container whose addresses were told, with these.
    pub fn container_addresses(&self) -> impl Iterator<Item = (&Arc<Container>, &[IpAddr])> {
        self.containers.values().map(|(container, addresses)| (container, &addresses[..]))
    }

    /// Says what a container is and which addresses it has, in place of what
    /// was said under this key before. An address that another container still
    /// holds goes to this one: it is the newer.
    pub fn set_container_addresses(&mut self, key: &str, container: Arc<Container>, addresses: Vec<IpAddr>) {
        self.remove_container(key);
        let addresses: Vec<_> = addresses.into_iter().map(|ip| ip.to_canonical()).collect();
        for ip in &addresses {
            self.by_address.insert(*ip, key.to_owned());
        }
        self.containers.insert(key.to_owned(), (container, addresses));
    }

    /// Forgets a container and its addresses (not what it owns:
    /// [`Directory::set_owner`]).
    pub fn remove_container(&mut self, key: &str) {
        let Some((_, addresses)) = self.containers.remove(key) else {
            return;
        };
        for ip in addresses {
            if self.by_address.get(&ip).is_some_and(|holder| holder == key) {
                self.by_address.remove(&ip);
            }
        }
    }

    /// Says which addresses this host has, in place of what was said before.
    /// Loopback addresses need not be among them.
    pub fn set_host_addresses(&mut self, addresses: Vec<IpAddr>) {
        self.host = addresses.into_iter().map(|ip| ip.to_canonical()).collect();
    }

    /// Notes that a DNS answer gave this address for that name. `name` is to be
    /// escaped already, as [`crate::dns::parse`] does.
    pub fn learn_dns(&mut self, name: &str, ip: IpAddr, ttl_s: u32, now_ns: u64) {
        self.names.learn(name, ip.to_canonical(), ttl_s, now_ns);
    }

    /// How many names were dropped for want of room before their time was over.
    #[must_use]
    pub fn names_evicted(&self) -> u64 {
        self.names.evicted()
    }

    /// Who has this address. `owner_ifindex`: the veth out of which it came, or
    /// into which it went, if that is where this end is. What the engine and
    /// the kernel say goes before a name from DNS, which anyone may have made up.
    ///
    /// Takes `&mut self` because asking keeps a name from DNS from being dropped.
    pub fn identify(&mut self, ip: IpAddr, owner_ifindex: Option<u32>, now_ns: u64) -> Identity {
        let ip = ip.to_canonical();
        if is_group(ip) {
            return Identity::Group;
        }
        let owner = owner_ifindex.and_then(|ifindex| self.owners.get(&ifindex));
        if let Some(container) = owner.or_else(|| self.holder(ip)) {
            return Identity::Container(Arc::clone(container));
        }
        if ip.is_loopback() || self.host.contains(&ip) {
            return Identity::Host;
        }
        Identity::World(self.names.name(ip, now_ns))
    }

    fn holder(&self, ip: IpAddr) -> Option<&Arc<Container>> {
        let key = self.by_address.get(&ip)?;
        self.containers.get(key).map(|(container, _)| container)
    }
}

/// Multicast, or the broadcast of the local network. A broadcast address of a
/// single subnet looks like any other and is not told here.
fn is_group(ip: IpAddr) -> bool {
    ip.is_multicast() || matches!(ip, IpAddr::V4(ip) if ip.is_broadcast())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn container(name: &str) -> Arc<Container> {
        Arc::new(Container { name: name.into(), ..Container::default() })
    }

    fn is(name: &str) -> Identity {
        Identity::Container(container(name))
    }

    fn world(name: &str) -> Identity {
        Identity::World(Some(name.into()))
    }

    #[test]
    fn what_the_kernel_and_the_engine_say_goes_first() {
        let mut directory = Directory::default();
        directory.set_owner(7, Some(container("behind-veth")));
        directory.set_container_addresses(
            "1",
            container("by-address"),
            vec![ip("172.17.0.2"), ip("fd00::2")],
        );
        directory.set_host_addresses(vec![ip("172.17.0.1"), ip("172.17.0.2")]);
        for address in ["172.17.0.2", "172.17.0.1", "127.0.0.1", "192.0.2.7", "224.0.0.1"] {
            directory.learn_dns("made.up", ip(address), 60, 0);
        }
        for (address, owner, expected) in [
            ("172.17.0.2", None, is("by-address")),
            ("fd00::2", None, is("by-address")),
            ("::ffff:172.17.0.2", None, is("by-address")),
            ("172.17.0.2", Some(7), is("behind-veth")),
            ("192.0.2.7", Some(7), is("behind-veth")),
            ("0.0.0.0", Some(7), is("behind-veth")),
            ("172.17.0.2", Some(8), is("by-address")),
            ("172.17.0.1", None, Identity::Host),
            ("127.0.0.53", None, Identity::Host),
            ("::1", Some(8), Identity::Host),
            ("192.0.2.7", None, world("made.up")),
            ("192.0.2.8", None, Identity::World(None)),
            ("224.0.0.1", Some(7), Identity::Group),
            ("255.255.255.255", None, Identity::Group),
            ("ff02::fb", Some(7), Identity::Group),
        ] {
            assert_eq!(directory.identify(ip(address), owner, SECOND_NS), expected, "{address} {owner:?}");
        }
        directory.set_owner(7, None);
        assert_eq!(directory.identify(ip("192.0.2.8"), Some(7), 0), Identity::World(None));
    }

    #[test]
    fn addresses_move_between_containers() {
        let mut directory = Directory::default();
        let mut who = |change: &dyn Fn(&mut Directory), address| {
            change(&mut directory);
            directory.identify(ip(address), None, 0)
        };
        assert_eq!(
            who(&|d| d.set_container_addresses("1", container("old"), vec![ip("10.0.0.2")]), "10.0.0.2"),
            is("old")
        );
        assert_eq!(
            who(&|d| d.set_container_addresses("1", container("renamed"), vec![ip("10.0.0.2")]), "10.0.0.2"),
            is("renamed")
        );
        assert_eq!(
            who(&|d| d.set_container_addresses("2", container("new"), vec![ip("10.0.0.2")]), "10.0.0.2"),
            is("new")
        );
        assert_eq!(who(&|d| d.remove_container("1"), "10.0.0.2"), is("new"), "the old one's end");
        assert_eq!(
            who(&|d| d.set_container_addresses("2", container("new"), vec![ip("10.0.0.3")]), "10.0.0.2"),
            Identity::World(None)
        );
        assert_eq!(who(&|d| d.remove_container("2"), "10.0.0.3"), Identity::World(None));
        assert_eq!(who(&|d| d.remove_container("2"), "10.0.0.3"), Identity::World(None), "twice");
    }

    #[test]
    fn every_container_is_listed_once() {
        let mut directory = Directory::default();
        directory.set_container_addresses("1", container("web"), vec![ip("10.0.0.2"), ip("fd00::2")]);
        directory.set_container_addresses("2", container("db"), Vec::new());
        directory.set_owner(7, Some(container("web")));
        directory.set_owner(8, Some(container("web")));
        directory.set_owner(9, Some(container("netns")));
        let mut names: Vec<_> = directory.containers().iter().map(|one| one.name.clone()).collect();
        names.sort();
        assert_eq!(names, ["db", "netns", "web"]);
        assert_eq!(directory.owner(9), Some(&container("netns")));
        assert_eq!(directory.owner(10), None);
    }

    #[test]
    fn names_end_and_the_newest_counts() {
        let mut directory = Directory::default();
        let address = ip("192.0.2.7");
        directory.learn_dns("first.example", address, 0, 0);
        assert_eq!(directory.identify(address, None, 9 * 60 * SECOND_NS), world("first.example"));
        assert_eq!(directory.identify(address, None, 10 * 60 * SECOND_NS), Identity::World(None));
        directory.learn_dns("first.example", address, 3_600, 0);
        directory.learn_dns("second.example", address, 3_600, 0);
        assert_eq!(directory.identify(address, None, 3_599 * SECOND_NS), world("second.example"));
        assert_eq!(directory.identify(address, None, 3_600 * SECOND_NS), Identity::World(None));
        assert_eq!(directory.names_evicted(), 0);
    }
}
