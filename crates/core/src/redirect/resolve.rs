//! From a rule's names to addresses, as they are on this host now.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::resolved::{Resolved, ResolvedTarget, Variant};
use super::surroundings::{Resident, Surroundings};
use super::{
    Absence, Clients, Concern, KeptRule, Meaning, Place, Ports, Rule, RuleError, RuleId, Target, Warning, Who,
};

/// Divides evenly among as many containers of a service as most have.
const WEIGHT_SCALE: u32 = 5040;

/// Whether names that nobody has are an error (of a user who adds a rule) or
/// just not there at the moment (a container that was removed, and comes back).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    MustExist,
    MayBeGone,
}

/// Finds the addresses of everything in a rule.
///
/// # Errors
/// Names and addresses that do not fit the rule or each other.
pub(super) fn resolve<'a>(
    number: u32,
    kept: &'a KeptRule,
    surroundings: &Surroundings,
    names: Names,
    warnings: &mut Vec<Warning>,
) -> Result<Resolved<'a>, RuleError> {
    let rule = &kept.rule;
    let resolver = Resolver { rule, means: &kept.means, surroundings, names };
    let clients = resolver.clients(warnings)?;
    let addresses = resolver.asked(warnings)?;
    let down = resolver.targets_down(warnings)?;
    let mut variants = Vec::new();
    let mut left_out = Vec::new();
    for address in &addresses {
        match resolver.variant(*address, clients.as_deref(), down) {
            Ok(variant) => variants.push(variant),
            Err(reason) => left_out.push((*address, reason)),
        }
    }
    for (address, reason) in left_out {
        if variants.is_empty() {
            return Err(reason);
        }
        // Whatever is wrong with one version of IP is worth a word; anything
        // else is wrong with the whole rule.
        match &reason {
            RuleError::NoCommonVersion { .. }
            | RuleError::SourceVersion { .. }
            | RuleError::FromVersion { .. } => {
                let reason = match &reason {
                    RuleError::NoCommonVersion { to, from_version, .. } => {
                        format!("{to} has no {from_version} address")
                    }
                    RuleError::FromVersion { from, version } => {
                        format!("{from} (--from) has no {version} address")
                    }
                    reason => reason.to_string(),
                };
                warnings.push(resolver.warning(Concern::AddressLeftOut { address, reason }));
            }
            _ => return Err(reason),
        }
    }
    for variant in variants.iter().filter(|one| surroundings.host_addresses.contains(&one.address)) {
        warnings.push(resolver.warning(Concern::HostAddress { address: variant.address }));
    }
    warnings.extend(variants.iter().flat_map(|variant| resolver.other_networks(variant)));
    let of_itself = variants.iter().filter(|variant| resolver.asks_itself(variant, clients.as_deref()));
    warnings.extend(of_itself.map(|one| resolver.warning(Concern::AsksItself { address: one.address })));
    let same = |target: &ResolvedTarget, variant: &Variant| {
        target.address == variant.address && target.port_first == 0 && variant.source.is_none()
    };
    let to_itself = |variant: &Variant| {
        !variant.targets.is_empty() && variant.targets.iter().all(|target| same(target, variant))
    };
    if variants.iter().any(to_itself) {
        return Err(RuleError::ToItself(rule.asked.clone()));
    }
    Ok(Resolved {
        number,
        rule,
        protocol: rule.protocol().map_or(0, |transport| transport.protocol().0),
        ports: rule.asked.ports.unwrap_or(Ports::ALL),
        clients,
        variants,
    })
}

struct Resolver<'a> {
    rule: &'a Rule,
    means: &'a BTreeMap<String, Meaning>,
    surroundings: &'a Surroundings,
    names: Names,
}

impl Resolver<'_> {
    fn warning(&self, concern: Concern) -> Warning {
        Warning { rule: self.rule.name.to_string(), concern }
    }

    /// Whom a name means, of those who run.
    fn meant(&self, name: &str) -> Result<Vec<&Resident>, RuleError> {
        match self.means.get(name) {
            Some(meaning) => Ok(self.surroundings.meant(meaning)),
            None => Ok(self.surroundings.meant(&self.surroundings.meaning(name)?)),
        }
    }

    /// Whom a name means; none: nobody who can be reached now.
    fn running(&self, name: &str) -> Result<Vec<&Resident>, RuleError> {
        match self.meant(name) {
            // Of a rule in force: it was taken out of its network, and may come back.
            Ok(mut residents) if self.names == Names::MayBeGone => {
                residents.retain(|resident| !resident.addresses.is_empty());
                Ok(residents)
            }
            Err(RuleError::UnknownName { .. }) if self.names == Names::MayBeGone => Ok(Vec::new()),
            residents => residents,
        }
    }

    /// Why nobody of this name can be reached.
    fn absence(&self, name: &str) -> Absence {
        match self.meant(name) {
            Ok(residents) if !residents.is_empty() => Absence::NoAddress,
            _ => Absence::NotRunning,
        }
    }

    fn clients(&self, warnings: &mut Vec<Warning>) -> Result<Option<Vec<IpNet>>, RuleError> {
        let single = |address: &IpAddr| IpNet::from(*address);
        let ranges: Vec<IpNet> = match &self.rule.from {
            None => return Ok(None),
            Some(Clients::Range(range)) => vec![*range],
            Some(Clients::Host) => self.surroundings.host_addresses.iter().map(single).collect(),
            Some(Clients::Named(name)) => {
                let residents = self.running(name)?;
                if residents.is_empty() {
                    let (name, absence) = (name.clone(), self.absence(name));
                    warnings.push(self.warning(Concern::FromDown { name, absence }));
                }
                let ranges: Vec<_> =
                    residents.iter().flat_map(|one| one.addresses.iter().map(|(ip, _)| single(ip))).collect();
                if ranges.is_empty() && !residents.is_empty() {
                    return Err(RuleError::NoAddress { name: name.clone() });
                }
                ranges
            }
        };
        Ok(Some(IpNet::aggregate(&ranges)))
    }

    /// The addresses that are redirected.
    fn asked(&self, warnings: &mut Vec<Warning>) -> Result<Vec<IpAddr>, RuleError> {
        let name = match &self.rule.asked.who {
            Who::Address(address) => return Ok(vec![*address]),
            Who::Named(name) => name,
        };
        let residents = self.running(name)?;
        let addresses: Vec<IpAddr> =
            residents.iter().flat_map(|one| one.addresses.iter().map(|(address, _)| *address)).collect();
        match addresses.len() {
            0 if residents.is_empty() => {
                let (name, absence) = (name.clone(), self.absence(name));
                warnings.push(self.warning(Concern::MatchDown { name, absence }));
                Ok(addresses)
            }
            0 => Err(RuleError::NoAddress { name: name.clone() }),
            count if count > RuleId::VARIANTS as usize => {
                Err(RuleError::AddressesMany { name: name.clone(), count })
            }
            _ => Ok(addresses),
        }
    }

    /// Says which targets do not run; whether any does not.
    fn targets_down(&self, warnings: &mut Vec<Warning>) -> Result<bool, RuleError> {
        let (mut down, mut up) = (Vec::new(), 0);
        for target in self.rule.target.iter() {
            match &target.who {
                Some(Who::Named(name)) if self.running(name)?.is_empty() => down.push(name.clone()),
                _ => up += 1,
            }
        }
        let any = !down.is_empty();
        warnings.extend(down.into_iter().map(|name| {
            let absence = self.absence(&name);
            self.warning(Concern::TargetDown { name, absence, others: up > 0 })
        }));
        Ok(any)
    }

    /// The rule for one address; `down`: some target does not run.
    fn variant(&self, address: IpAddr, clients: Option<&[IpNet]>, down: bool) -> Result<Variant, RuleError> {
        let source = self.rule.source.map(|source| source.0);
        if let Some(source) = self.rule.source
            && source.0.is_ipv4() != address.is_ipv4()
        {
            return Err(RuleError::SourceVersion {
                source_address: source,
                source_version: version(source.0),
                match_version: version(address),
            });
        }
        if let (Some(clients), Some(from)) = (clients, &self.rule.from)
            && !clients.is_empty()
            && !clients.iter().any(|range| range.addr().is_ipv4() == address.is_ipv4())
        {
            return Err(RuleError::FromVersion { from: from.to_string(), version: version(address) });
        }
        let here = self.surroundings.place(address);
        let mut targets = Vec::new();
        for target in self.rule.target.iter() {
            targets.extend(self.targets(target, address, here)?);
        }
        if targets.is_empty() && !down {
            return Err(self.no_common_version(address));
        }
        for target in targets.iter().filter(|_| source.is_some()) {
            self.check_source(target)?;
        }
        let known = self.surroundings.resident(address).is_some()
            || self.surroundings.host_addresses.contains(&address);
        Ok(Variant { address, is_virtual: !known, targets, source })
    }

    /// One target, as far as connections to `asked` can go there: several, if it
    /// is a service; none, if it does not run or speaks the other version of IP.
    fn targets(
        &self,
        target: &Target,
        asked: IpAddr,
        here: Option<Place>,
    ) -> Result<Vec<ResolvedTarget>, RuleError> {
        let port_first = match target.ports {
            Some(ports) if target.ports != self.rule.asked.ports => ports.first(),
            _ => 0,
        };
        let resolved = |identity: String, weight: u32, address: IpAddr, place: Option<Place>| {
            ResolvedTarget { identity, weight, address, port_first, place }
        };
        let weight = target.weight * WEIGHT_SCALE;
        Ok(match &target.who {
            None => vec![resolved(target.to_string(), weight, asked, here)],
            Some(Who::Address(address)) if address.is_ipv4() == asked.is_ipv4() => {
                vec![resolved(target.to_string(), weight, *address, self.surroundings.place(*address))]
            }
            Some(Who::Address(_)) => Vec::new(),
            Some(Who::Named(name)) => {
                let residents = self.running(name)?;
                let count = u32::try_from(residents.len()).unwrap_or(u32::MAX).max(1);
                let weight = (weight / count).max(1);
                let port = target.ports.map_or_else(String::new, |ports| format!(":{ports}"));
                let mut targets = Vec::new();
                for resident in residents {
                    if resident.addresses.is_empty() {
                        return Err(RuleError::NoAddress { name: name.clone() });
                    }
                    if let Some((address, place)) = nearest(resident, asked, here) {
                        let identity = format!("{}{port}", resident.container);
                        targets.push(resolved(identity, weight, address, place));
                    }
                }
                targets
            }
        })
    }

    /// Whether nobody is a client but the container that has the address.
    fn asks_itself(&self, variant: &Variant, clients: Option<&[IpNet]>) -> bool {
        let Some(owner) = self.surroundings.resident(variant.address) else { return false };
        let is_own = |range: &IpNet| owner.addresses.iter().any(|(ip, _)| IpNet::from(*ip) == *range);
        clients.is_some_and(|clients| !clients.is_empty() && clients.iter().all(is_own))
    }

    /// A word on each target that clients reach by way of the host's own rules, as far as it is known where they are:
    /// in the network of what they ask for, unless the rule says who they are.
    fn other_networks(&self, variant: &Variant) -> Vec<Warning> {
        // A forged source goes from veth to veth in any case.
        if self.surroundings.accelerated || variant.source.is_some() {
            return Vec::new();
        }
        let bridges: Vec<u32> = match &self.rule.from {
            Some(Clients::Host) => Vec::new(),
            Some(Clients::Named(name)) => {
                let residents = self.running(name).unwrap_or_default();
                let places = residents.iter().flat_map(|one| &one.addresses).filter_map(|(_, place)| *place);
                places.map(|place| place.bridge_ifindex).collect()
            }
            _ => self
                .surroundings
                .place(variant.address)
                .map(|place| place.bridge_ifindex)
                .into_iter()
                .collect(),
        };
        let far = |target: &&ResolvedTarget| {
            target.place.is_some_and(|place| !bridges.contains(&place.bridge_ifindex)) && !bridges.is_empty()
        };
        let warning = |target: &ResolvedTarget| {
            self.warning(Concern::OtherNetwork { address: variant.address, target: target.address })
        };
        variant.targets.iter().filter(far).map(warning).collect()
    }

    fn check_source(&self, target: &ResolvedTarget) -> Result<(), RuleError> {
        let Some(source) = self.rule.source else { return Ok(()) };
        if target.place.is_none() {
            let target = target.identity.clone();
            return Err(RuleError::SourceElsewhere { source_address: source, target });
        }
        match target.address == source.0 {
            true => Err(RuleError::SourceIsTarget(source)),
            false => Ok(()),
        }
    }

    fn no_common_version(&self, asked: IpAddr) -> RuleError {
        let other = if asked.is_ipv4() { "IPv6" } else { "IPv4" };
        let targets = self.rule.target.iter().filter_map(|target| target.who.as_ref()).map(Who::to_string);
        RuleError::NoCommonVersion {
            from: self.rule.asked.who.to_string(),
            from_version: version(asked),
            to: targets.collect::<Vec<_>>().join(","),
            to_version: other,
        }
    }
}

/// The address of a container that is best for connections to `asked`: of the
/// same version, and in the same network if it has one there.
fn nearest(resident: &Resident, asked: IpAddr, here: Option<Place>) -> Option<(IpAddr, Option<Place>)> {
    let bridge = here.map(|place| place.bridge_ifindex);
    let fits = resident.addresses.iter().filter(|(address, _)| address.is_ipv4() == asked.is_ipv4());
    let in_same_network = |(_, place): &&(IpAddr, Option<Place>)| {
        bridge.is_some() && place.map(|place| place.bridge_ifindex) == bridge
    };
    fits.clone().find(in_same_network).or_else(|| fits.clone().next()).copied()
}

/// For the user.
pub(super) fn version(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}
