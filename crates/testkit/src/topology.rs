//! A container host in miniature: a namespace that plays the host, a bridge or
//! two, containers on them. Nothing of it is joined to the machine's uplink.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, OnceLock};

use crate::{Counters, Namespace};

/// A "host" namespace with the bridge `br0` (10.99.0.1/24, fd99::1/64).
///
/// IPv6 is kept from talking on its own: no duplicate address detection, no
/// router discovery, no link-local addresses, no multicast snooping.
#[derive(Debug)]
pub struct Topology {
    // Dropped before the host: a container's devices go with its namespace.
    containers: BTreeMap<String, Container>,
    world: OnceLock<Namespace>,
    host: Arc<Namespace>,
    second_bridge: bool,
    next_address: u8,
}

/// A container: a namespace with `eth0`, whose other end is a bridge port of the host.
#[derive(Debug)]
pub struct Container {
    namespace: Namespace,
    host_veth: String,
    ipv4: Ipv4Addr,
    ipv6: Ipv6Addr,
}

impl Container {
    /// Its network namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The host's end of its veth: `veth-NAME`.
    #[must_use]
    pub fn host_veth(&self) -> &str {
        &self.host_veth
    }

    /// Its address 10.99.0.N, or 10.98.0.N on the second bridge.
    #[must_use]
    pub fn ipv4(&self) -> Ipv4Addr {
        self.ipv4
    }

    /// Its address fd99::N, or fd98::N on the second bridge.
    #[must_use]
    pub fn ipv6(&self) -> Ipv6Addr {
        self.ipv6
    }
}

impl Default for Topology {
    fn default() -> Self {
        Self::new()
    }
}

impl Topology {
    /// The address of the host on `br0`.
    pub const HOST_IPV4: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
    /// The address of the host on `br0`.
    pub const HOST_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 1);

    /// The address of the machine in [`Topology::world`].
    pub const WORLD_IPV4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
    /// The address of the machine in [`Topology::world`].
    pub const WORLD_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd97, 0, 0, 0, 0, 0, 0, 7);
    /// The host's address on the uplink of [`Topology::world`].
    pub const UPLINK_IPV4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
    /// The host's address on the uplink of [`Topology::world`].
    pub const UPLINK_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd97, 0, 0, 0, 0, 0, 0, 1);

    /// A host with one bridge and no container.
    #[must_use]
    pub fn new() -> Self {
        let host = Arc::new(Namespace::new("host"));
        quiet(&host);
        let topology = Self {
            containers: BTreeMap::new(),
            world: OnceLock::new(),
            host,
            second_bridge: false,
            next_address: 2,
        };
        topology.add_bridge("br0", 99);
        topology
    }

    /// A host with a second bridge, `br1` (10.98.0.1/24, fd98::1/64), that routes
    /// between the two.
    #[must_use]
    pub fn with_two_bridges() -> Self {
        let mut topology = Self::new();
        topology.add_bridge("br1", 98);
        topology.host.sysctl("ipv4/ip_forward", "1");
        topology.host.sysctl("ipv6/conf/all/forwarding", "1");
        topology.second_bridge = true;
        topology
    }

    /// A host with one bridge and containers of these names.
    #[must_use]
    pub fn with_containers(names: &[&str]) -> Self {
        let mut topology = Self::new();
        for name in names {
            topology.add_container(name);
        }
        topology
    }

    // Without the link-local address a router asks for no neighbour.
    fn add_bridge(&self, name: &str, subnet: u8) {
        self.host.ip_batch(&format!(
            "link add {name} type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
             link set {name} up\n\
             address add 10.{subnet}.0.1/24 dev {name}\n\
             address add fd{subnet}::1/64 dev {name} nodad\n\
             address add fe80::1/64 dev {name} nodad\n"
        ));
    }

    /// The namespace that plays the host.
    #[must_use]
    pub fn host(&self) -> &Namespace {
        &self.host
    }

    /// The same, for a thread that looks at it while containers come and go.
    #[must_use]
    pub fn shared_host(&self) -> Arc<Namespace> {
        Arc::clone(&self.host)
    }

    /// The container of this name; panics if there is none.
    #[must_use]
    pub fn container(&self, name: &str) -> &Container {
        self.containers.get(name).unwrap_or_else(|| panic!("no container {name}"))
    }

    /// Makes a container on `br0`. Its name has at most ten letters, since
    /// `veth-NAME` is a device's name.
    #[track_caller]
    pub fn add_container(&mut self, name: &str) -> &Container {
        self.add_container_on("br0", 99, name)
    }

    /// Makes a container on `br1` of [`Topology::with_two_bridges`].
    #[track_caller]
    pub fn add_container_on_second_bridge(&mut self, name: &str) -> &Container {
        assert!(self.second_bridge, "the host has one bridge only");
        self.add_container_on("br1", 98, name)
    }

    #[track_caller]
    fn add_container_on(&mut self, bridge: &str, subnet: u8, name: &str) -> &Container {
        let namespace = Namespace::new(name);
        quiet(&namespace);
        let number = self.next_address;
        self.next_address += 1;
        let host_veth = format!("veth-{name}");
        // The container's end is ready before the host's end appears to be up:
        // what watches the host may act at once.
        self.host.ip_batch(&format!(
            "link add {host_veth} type veth peer name eth0 netns {}\n\
             link set {host_veth} master {bridge}\n",
            namespace.name()
        ));
        namespace.ip_batch(&format!(
            "link set eth0 up\n\
             address add 10.{subnet}.0.{number}/24 dev eth0\n\
             address add fd{subnet}::{number}/64 dev eth0 nodad\n\
             route add default via 10.{subnet}.0.1\n\
             route add ::/0 via fd{subnet}::1\n"
        ));
        self.host.ip_batch(&format!("link set {host_veth} up\n"));
        let container = Container {
            namespace,
            host_veth,
            ipv4: Ipv4Addr::new(10, subnet, 0, number),
            ipv6: format!("fd{subnet}::{number}").parse().expect("an address"),
        };
        assert!(
            self.containers.insert(name.to_owned(), container).is_none(),
            "there is a container {name} already"
        );
        self.container(name)
    }

    /// Makes an outside world: one machine with [`Topology::WORLD_IPV4`] and
    /// [`Topology::WORLD_IPV6`] on the host's device `uplink`, which is no
    /// container's veth. The host routes. Returns that machine's namespace, the
    /// same each time.
    #[track_caller]
    pub fn world(&self) -> &Namespace {
        let host = &self.host;
        self.world.get_or_init(|| {
            let world = Namespace::new("world");
            quiet(&world);
            // A veth with both ends here is a cable; the other machine is
            // plugged in at its far end by a macvlan.
            host.ip_batch(&format!(
                "link add uplink type veth peer name cable\n\
                 link set uplink up\n\
                 link set cable up\n\
                 address add {}/24 dev uplink\n\
                 address add {}/64 dev uplink nodad\n\
                 address add fe80::1/64 dev uplink nodad\n\
                 link add outside link cable type macvlan mode bridge\n\
                 link set outside netns {} name eth0\n",
                Self::UPLINK_IPV4,
                Self::UPLINK_IPV6,
                world.name()
            ));
            world.ip_batch(&format!(
                "link set eth0 up\n\
                 address add {}/24 dev eth0\n\
                 address add {}/64 dev eth0 nodad\n\
                 route add default via {}\n\
                 route add ::/0 via {}\n",
                Self::WORLD_IPV4,
                Self::WORLD_IPV6,
                Self::UPLINK_IPV4,
                Self::UPLINK_IPV6,
            ));
            host.sysctl("ipv4/ip_forward", "1");
            host.sysctl("ipv6/conf/all/forwarding", "1");
            world
        })
    }

    /// Removes a container: its processes, its namespace and its veth.
    #[track_caller]
    pub fn remove_container(&mut self, name: &str) {
        let container = self.containers.remove(name).unwrap_or_else(|| panic!("no container {name}"));
        // The kernel takes a namespace apart some time after its last user is
        // gone; a container engine removes the veth itself.
        self.host.ip_batch(&format!("link delete {}\n", container.host_veth));
    }

    /// The counters of the host's end of a container's veth.
    #[track_caller]
    #[must_use]
    pub fn counters(&self, name: &str) -> Counters {
        Counters::of(&self.host, self.container(name).host_veth())
    }
}

/// Keeps IPv6 of every device to come from talking on its own.
fn quiet(namespace: &Namespace) {
    namespace.enter(|| {
        let settings = [
            ("accept_dad", "0"),
            ("dad_transmits", "0"),
            ("accept_ra", "0"),
            ("autoconf", "0"),
            ("router_solicitations", "0"),
            ("use_tempaddr", "0"),
            ("addr_gen_mode", "1"), // no link-local address
        ];
        for (key, value) in settings {
            let path = format!("/proc/sys/net/ipv6/conf/default/{key}");
            std::fs::write(&path, value).unwrap_or_else(|e| panic!("cannot write {path}: {e}"));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ping(from: &Container, to: &str) {
        from.namespace().run("ping", &["-n", "-c", "1", "-W", "5", to]);
    }

    #[test]
    fn root_containers_reach_each_other_and_the_host() {
        crate::require_root!();
        let topology = Topology::with_containers(&["web", "db"]);
        let (web, db) = (topology.container("web"), topology.container("db"));
        assert_eq!(web.ipv4().to_string(), "10.99.0.2");
        assert_eq!(db.ipv6().to_string(), "fd99::3");
        for address in [
            db.ipv4().to_string(),
            db.ipv6().to_string(),
            Topology::HOST_IPV4.to_string(),
            Topology::HOST_IPV6.to_string(),
        ] {
            ping(web, &address);
        }
    }

    #[test]
    fn root_two_bridges_are_routed() {
        crate::require_root!();
        let mut topology = Topology::with_two_bridges();
        topology.add_container("web");
        topology.add_container_on_second_bridge("db");
        assert_eq!(topology.container("db").ipv4().to_string(), "10.98.0.3");
        ping(topology.container("web"), &topology.container("db").ipv4().to_string());
        ping(topology.container("web"), &topology.container("db").ipv6().to_string());
    }

    #[test]
    fn root_the_world_is_beyond_the_uplink() {
        crate::require_root!();
        let topology = Topology::with_containers(&["web"]);
        topology.world();
        ping(topology.container("web"), &Topology::WORLD_IPV4.to_string());
        ping(topology.container("web"), &Topology::WORLD_IPV6.to_string());
        assert!(!topology.host().run("ip", &["address"]).contains(&Topology::WORLD_IPV4.to_string()));
    }

    #[test]
    fn root_counters_count_both_ways() {
        crate::require_root!();
        let topology = Topology::with_containers(&["web", "db"]);
        ping(topology.container("web"), "10.99.0.3");
        let before = topology.counters("web");
        topology
            .container("web")
            .namespace()
            .run("ping", &["-n", "-c", "3", "-i", "0.01", "-s", "100", "10.99.0.3"]);
        let added = topology.counters("web") - before;
        // 100 bytes in 8 of ICMP, 20 of IPv4, 14 of Ethernet.
        assert!(added.rx_packets >= 3 && added.rx_bytes >= 3 * 142, "{added:?}");
        assert!(added.tx_packets >= 3 && added.tx_bytes >= 3 * 142, "{added:?}");
        assert_eq!((added.rx_dropped, added.tx_dropped), (0, 0));
    }

    #[test]
    fn root_a_removed_container_is_gone_at_once() {
        crate::require_root!();
        let mut topology = Topology::with_containers(&["web", "db"]);
        let path = topology.container("web").namespace().path();
        topology.remove_container("web");
        assert!(!path.exists());
        assert!(!topology.host().run("ip", &["-br", "link"]).contains("veth-web"));
        topology.add_container("web");
        ping(topology.container("web"), "10.99.0.3");
    }

    #[test]
    fn root_offloads_switch() {
        crate::require_root!();
        let topology = Topology::with_containers(&["web"]);
        let state = || topology.host().run("ethtool", &["-k", "veth-web"]);
        assert!(state().contains("tcp-segmentation-offload: on"));
        topology.host().set_offloads("veth-web", &["tso", "gso"], false);
        assert!(state().contains("tcp-segmentation-offload: off"));
    }
}
