//! All rules together: kept, checked, compiled.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::conflict::{contradiction, find_loop, most_specific_first};
use super::resolve::{Names, resolve};
use super::resolved::{Resolved, ResolvedTarget, Variant};
use super::slots::{self, Candidate};
use super::{
    Clients, Compiled, CompiledMatch, CompiledRule, CompiledTarget, Concern, MATCHES_MAX, Meaning, Place,
    Rule, RuleError, RuleId, RuleName, Surroundings, TargetId, VirtualAddress, Warning,
};
use crate::flow::Protocol;

/// A rule that is in force, as it is kept beside the kernel's tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptRule {
    /// What the user said.
    pub rule: Rule,
    /// Whom the names in it meant then; without: whoever has them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub means: BTreeMap<String, Meaning>,
    /// When that was.
    pub added: Timestamp,
    /// When it ends by itself, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// When it ends, for the kernel: CLOCK_MONOTONIC; 0 is never.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub expires_ns: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde wants it
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl KeptRule {
    /// Whether it has ended by itself.
    #[must_use]
    pub fn is_expired(&self, now_ns: u64) -> bool {
        self.expires_ns != 0 && self.expires_ns <= now_ns
    }
}

/// The rules in force, by their numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleSet {
    rules: BTreeMap<u32, KeptRule>,
    last_number: u32,
}

/// An SSH connection that a rule could cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SshConnection {
    client: SocketAddr,
    server: SocketAddr,
}

impl SshConnection {
    /// From the environment variable SSH_CONNECTION, as sshd writes it: the
    /// client's address and port, then the server's.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let mut end = || {
            let address: IpAddr = words.next()?.split('%').next()?.parse().ok()?;
            Some(SocketAddr::new(address.to_canonical(), words.next()?.parse().ok()?))
        };
        Some(Self { client: end()?, server: end()? })
    }
}

impl RuleSet {
    /// Rules that are in force already. `last_number`: the highest that was
    /// given to a rule so far, which may be gone.
    #[must_use]
    pub fn new(rules: BTreeMap<u32, KeptRule>, last_number: u32) -> Self {
        let highest = rules.keys().next_back().copied().unwrap_or(0);
        Self { rules, last_number: last_number.max(highest) }
    }

    /// Rules and their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &KeptRule)> {
        self.rules.iter().map(|(number, rule)| (*number, rule))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The highest number that was given to a rule so far. None is given twice:
    /// connections outlive their rule, and still say by which they were redirected.
    #[must_use]
    pub fn last_number(&self) -> u32 {
        self.last_number
    }

    /// One rule.
    #[must_use]
    pub fn get(&self, number: u32) -> Option<&KeptRule> {
        self.rules.get(&number)
    }

    /// A rule by its name.
    ///
    /// # Errors
    /// There is none.
    pub fn find(&self, name: &str) -> Result<(u32, &KeptRule), RuleError> {
        self.iter().find(|(_, kept)| kept.rule.name.as_str() == name).ok_or_else(|| {
            let known: Vec<_> = self.rules.values().map(|kept| kept.rule.name.as_str()).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            RuleError::NoSuchRule { name: name.to_owned(), known }
        })
    }

    /// A name for a rule that the user gave none.
    #[must_use]
    pub fn free_name(&self) -> RuleName {
        let mut number = self.last_number.saturating_add(1);
        loop {
            let name = RuleName::numbered(number);
            if self.find(name.as_str()).is_err() {
                return name;
            }
            number = number.saturating_add(1);
        }
    }

    /// Adds a rule; gives its number. Not checked: see [`RuleSet::check`].
    ///
    /// # Errors
    /// The name is taken.
    pub fn add(&mut self, rule: KeptRule) -> Result<u32, RuleError> {
        if self.find(rule.rule.name.as_str()).is_ok() {
            return Err(RuleError::NameTaken(rule.rule.name.to_string()));
        }
        let number = self.free_number().ok_or(RuleError::NumbersUsedUp)?;
        self.last_number = number;
        self.rules.insert(number, rule);
        Ok(number)
    }

    /// The next number whose place no other rule has. Of so many numbers in a row one is that, unless there are more
    /// rules than places.
    fn free_number(&self) -> Option<u32> {
        let place = |number: u32| number % RuleId::PLACES;
        let taken: BTreeSet<u32> = self.rules.keys().copied().map(place).collect();
        let next = self.last_number.checked_add(1)?;
        (next..=RuleId::NUMBER_MAX)
            .take(RuleId::PLACES as usize)
            .find(|number| !taken.contains(&place(*number)))
    }

    /// Removes a rule by its number.
    pub fn remove(&mut self, number: u32) -> Option<KeptRule> {
        self.rules.remove(&number)
    }

    /// Removes rules that have ended by themselves; gives their numbers.
    pub fn remove_expired(&mut self, now_ns: u64) -> Vec<u32> {
        let expired: Vec<u32> =
            self.iter().filter(|(_, kept)| kept.is_expired(now_ns)).map(|(number, _)| number).collect();
        for number in &expired {
            self.rules.remove(number);
        }
        expired
    }

    /// Whether a rule that was just added makes sense on this host, alone and
    /// beside the others. Says what the user should know all the same.
    ///
    /// # Errors
    /// It does not.
    pub fn check(&self, number: u32, surroundings: &Surroundings) -> Result<Vec<Warning>, RuleError> {
        let Some(kept) = self.get(number) else { return Ok(Vec::new()) };
        let mut warnings = Vec::new();
        let new = resolve(number, kept, surroundings, Names::MustExist, &mut warnings)?;
        // What is wrong with the others was told when it became so.
        let others = self.iter().filter(|(other, _)| *other != number).filter_map(|(other, kept)| {
            resolve(other, kept, surroundings, Names::MayBeGone, &mut Vec::new()).ok()
        });
        let mut all: Vec<Resolved<'_>> = others.collect();
        if let Some((other, what)) = all.iter().find_map(|other| Some((other, contradiction(other, &new)?))) {
            let (one, other) = (other.rule.name.to_string(), new.rule.name.to_string());
            return Err(RuleError::Contradiction { one, other, what });
        }
        all.push(new);
        if let Some(error) = find_loop(all.len() - 1, &all) {
            return Err(error);
        }
        let compiled = compile(&all, surroundings, |_| 0);
        match compiled.matches.iter().find(|(_, matches)| matches.len() > MATCHES_MAX) {
            Some((address, matches)) => {
                Err(RuleError::MatchesMany { address: *address, count: matches.len() })
            }
            None => {
                warnings.extend(
                    all.last().into_iter().flat_map(|new| host_left_out(new, &compiled, surroundings)),
                );
                Ok(warnings)
            }
        }
    }

    /// Whether a rule would take new SSH connections like the user's own
    /// somewhere else.
    ///
    /// # Errors
    /// It would.
    pub fn check_ssh(
        &self,
        number: u32,
        surroundings: &Surroundings,
        ssh: SshConnection,
    ) -> Result<(), RuleError> {
        let Some(kept) = self.get(number) else { return Ok(()) };
        let SshConnection { client, server } = ssh;
        let rule = resolve(number, kept, surroundings, Names::MayBeGone, &mut Vec::new())?;
        let protocol = [0, Protocol::TCP.0].contains(&rule.protocol);
        let port = (rule.ports.first()..=rule.ports.last()).contains(&server.port());
        let address = rule.variants.iter().any(|variant| variant.address == server.ip());
        match protocol && port && address && rule.is_client(client.ip()) {
            true => Err(RuleError::CutsSsh { client: client.to_string(), server: server.to_string() }),
            false => Ok(()),
        }
    }

    /// All rules as the kernel needs them. A rule that makes no sense any more
    /// (because containers changed) is left out with a warning, not an error.
    #[must_use]
    pub fn compile(&self, surroundings: &Surroundings) -> (Compiled, Vec<Warning>) {
        let mut warnings = Vec::new();
        let mut rules = Vec::new();
        for (number, kept) in self.iter() {
            match resolve(number, kept, surroundings, Names::MayBeGone, &mut warnings) {
                Ok(rule) => rules.push(rule),
                Err(reason) => {
                    let rule = kept.rule.name.to_string();
                    warnings.push(Warning { rule, concern: Concern::NoEffect(reason) });
                }
            }
        }
        for (index, rule) in rules.iter().enumerate() {
            for other in rules.iter().skip(index + 1) {
                if let Some(what) = contradiction(rule, other) {
                    let concern = Concern::NowContradict { first: rule.rule.name.to_string(), what };
                    warnings.push(Warning { rule: other.rule.name.to_string(), concern });
                }
            }
        }
        let expires_ns = |number| self.get(number).map_or(0, |kept| kept.expires_ns);
        let mut compiled = compile(&rules, surroundings, expires_ns);
        compiled.numbers = self.rules.keys().copied().collect();
        for (address, matches) in &mut compiled.matches {
            if matches.len() > MATCHES_MAX {
                let reason = RuleError::MatchesMany { address: *address, count: matches.len() };
                for left_out in matches.drain(MATCHES_MAX..) {
                    let name = self.get(left_out.rule.number()).map(|kept| kept.rule.name.to_string());
                    let rule = name.unwrap_or_default();
                    warnings.push(Warning { rule, concern: Concern::NoEffect(reason.clone()) });
                }
            }
        }
        (compiled, warnings)
    }
}

/// A word on each address whose rule is about containers' connections only, unless it says so itself.
fn host_left_out(new: &Resolved<'_>, compiled: &Compiled, surroundings: &Surroundings) -> Vec<Warning> {
    if let Some(Clients::Named(_)) = &new.rule.from {
        return Vec::new();
    }
    let concern = |variant: &Variant| {
        let address = variant.address;
        let leads_to = |place: Place| {
            let mut networks = surroundings.networks.iter();
            networks.any(|(network, way)| network.contains(&address) && *way == place.bridge_ifindex)
        };
        match compiled.virtual_addresses.get(&address)?.target {
            None => Some(Concern::NoInterface { address }),
            Some(place) if !leads_to(place) => Some(Concern::NoRoute { address }),
            Some(_) => None,
        }
    };
    let served = new.variants.iter().filter(|variant| !variant.targets.is_empty());
    served.filter_map(concern).map(|concern| Warning { rule: new.rule.name.to_string(), concern }).collect()
}

fn compile(rules: &[Resolved<'_>], surroundings: &Surroundings, expires_ns: impl Fn(u32) -> u64) -> Compiled {
    let mut compiled = Compiled { interfaces: surroundings.interfaces.clone(), ..Compiled::default() };
    for (_, address, place) in surroundings.addresses() {
        compiled.endpoints.extend(place.map(|place| (address, place)));
    }
    let mut ids = TargetIds::default();
    let mut asked: BTreeMap<IpAddr, Vec<(&Resolved<'_>, RuleId)>> = BTreeMap::new();
    for rule in rules {
        // At most [`RuleId::VARIANTS`], as was checked.
        let numbered = rule
            .variants
            .iter()
            .zip(0..)
            .filter_map(|(variant, index)| RuleId::new(rule.number, index).map(|id| (variant, id)));
        for (variant, id) in numbered {
            asked.entry(variant.address).or_default().push((rule, id));
            compile_variant(&mut compiled, &mut ids, rule, variant, id, expires_ns(rule.number));
            if variant.is_virtual {
                let askers = rule.askers(variant.address, surroundings);
                compiled.askers.extend(askers.map(|asker| (id, asker)));
            }
        }
    }
    for (address, mut rules) in asked {
        rules.sort_by(|(a, _), (b, _)| most_specific_first(a, b, address));
        let matches = rules.into_iter().map(|(rule, id)| CompiledMatch {
            rule: id,
            protocol: rule.protocol,
            port_first: rule.ports.first(),
            port_last: rule.ports.last(),
            limited: rule.clients.is_some(),
        });
        compiled.matches.insert(address, matches.collect());
    }
    compiled
}

fn compile_variant(
    compiled: &mut Compiled,
    ids: &mut TargetIds,
    rule: &Resolved<'_>,
    variant: &Variant,
    id: RuleId,
    expires_ns: u64,
) {
    let candidates: Vec<Candidate> = variant
        .targets
        .iter()
        .map(|target| Candidate {
            identity: target.identity.clone(),
            id: ids.get(&mut compiled.targets, target),
            weight: target.weight,
        })
        .collect();
    compiled.clients.extend(rule.clients_of(variant.address).map(|range| (id, *range)));
    compiled.rules.insert(
        id,
        CompiledRule {
            expires_ns,
            source: variant.source,
            slots: slots::fill(&candidates),
            fast_path: variant.source.is_none(),
        },
    );
    let places = variant.targets.iter().filter_map(|target| target.place);
    if variant.is_virtual {
        let answer = compiled.virtual_addresses.entry(variant.address);
        let answer = answer.or_insert(VirtualAddress { target: None });
        answer.target = answer.target.or(places.clone().next());
    }
    if let Some(source) = variant.source {
        compiled.forged_sources.extend(places.map(|place| (place.ifindex, source)));
    }
}

/// Ids that have been given to targets.
#[derive(Default)]
struct TargetIds(HashMap<CompiledTarget, TargetId>);

impl TargetIds {
    fn get(&mut self, targets: &mut BTreeMap<TargetId, CompiledTarget>, of: &ResolvedTarget) -> TargetId {
        let target = CompiledTarget { address: of.address, port_first: of.port_first };
        *self.0.entry(target).or_insert_with(|| {
            let text = format!("{}/{}", target.address, target.port_first);
            let mut id = TargetId(slots::hash(text.as_bytes()) as u32);
            // Two with one hash are rare, but must not become one.
            while id.0 == 0 || targets.contains_key(&id) {
                id = TargetId(id.0.wrapping_add(1));
            }
            targets.insert(id, target);
            id
        })
    }
}
