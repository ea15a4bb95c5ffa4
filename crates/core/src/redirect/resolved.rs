//! A rule with addresses in the place of names.

use std::net::IpAddr;

use ipnet::IpNet;

use super::surroundings::Surroundings;
use super::{Clients, Place, Ports, Rule};

/// A rule whose names are addresses.
#[derive(Debug, Clone)]
pub(super) struct Resolved<'a> {
    pub(super) number: u32,
    pub(super) rule: &'a Rule,
    /// IANA number; 0 is any.
    pub(super) protocol: u8,
    pub(super) ports: Ports,
    /// Where clients are; none: everywhere.
    pub(super) clients: Option<Vec<IpNet>>,
    pub(super) variants: Vec<Variant>,
}

/// A rule for one of the addresses that it is about.
#[derive(Debug, Clone)]
pub(super) struct Variant {
    pub(super) address: IpAddr,
    /// Nobody on this host has the address.
    pub(super) is_virtual: bool,
    /// Those that run.
    pub(super) targets: Vec<ResolvedTarget>,
    pub(super) source: Option<IpAddr>,
}

/// A target whose name is an address.
#[derive(Debug, Clone)]
pub(super) struct ResolvedTarget {
    /// What stays the same when its address changes.
    pub(super) identity: String,
    pub(super) weight: u32,
    pub(super) address: IpAddr,
    /// 0: as asked.
    pub(super) port_first: u16,
    pub(super) place: Option<Place>,
}

impl Resolved<'_> {
    /// Whether the rule is about this client.
    pub(super) fn is_client(&self, address: IpAddr) -> bool {
        self.clients.as_ref().is_none_or(|clients| clients.iter().any(|range| range.contains(&address)))
    }

    /// Its clients that could ask for this address, if it is limited to some.
    pub(super) fn clients_of(&self, asked: IpAddr) -> impl Iterator<Item = &IpNet> {
        let v4 = asked.is_ipv4();
        self.clients.iter().flatten().filter(move |range| range.addr().is_ipv4() == v4)
    }

    /// Who may ask who has this virtual address, if the rule is limited to some clients: the veths of containers that
    /// have a client's address of its version; none: the host, unless all clients are containers. It asks for those
    /// whose packets it forwards, too.
    pub(super) fn askers(
        &self,
        virtual_address: IpAddr,
        surroundings: &Surroundings,
    ) -> impl Iterator<Item = Option<u32>> {
        let v4 = virtual_address.is_ipv4();
        let is_named = move |address: IpAddr| address.is_ipv4() == v4 && self.is_client(address);
        let veths = surroundings.addresses().filter(|_| self.clients.is_some()).filter_map(
            move |(_, address, place)| place.filter(|_| is_named(address)).map(|place| Some(place.ifindex)),
        );
        let host = match &self.rule.from {
            None | Some(Clients::Named(_)) => false,
            Some(Clients::Host) => true,
            Some(Clients::Range(range)) => {
                range.prefix_len() < range.max_prefix_len() || surroundings.resident(range.addr()).is_none()
            }
        };
        veths.chain(host.then_some(None))
    }
}
