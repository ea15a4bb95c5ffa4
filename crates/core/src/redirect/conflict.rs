//! Rules that do not go together: contradictions and loops.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::resolved::{Resolved, Variant};
use super::{Ports, RuleError};

/// The order in which an address's rules are looked at: the most specific first.
/// Exact port before range before all ports; then with `--from` before without,
/// and the smaller set of clients before the larger; then one protocol before
/// any. What is left is a contradiction, and there the older rule goes first.
pub(super) fn most_specific_first(a: &Resolved<'_>, b: &Resolved<'_>, asked: IpAddr) -> Ordering {
    a.ports
        .count()
        .cmp(&b.ports.count())
        .then_with(|| clients_count(a, asked).cmp(&clients_count(b, asked)))
        .then_with(|| (a.protocol == 0).cmp(&(b.protocol == 0)))
        .then_with(|| a.number.cmp(&b.number))
}

/// How many addresses clients may have that ask for this one; a limited rule has
/// always fewer than one that is not.
fn clients_count(rule: &Resolved<'_>, asked: IpAddr) -> (bool, u128) {
    let size = |range: &IpNet| {
        let bits = u32::from(range.max_prefix_len() - range.prefix_len());
        1_u128.checked_shl(bits).unwrap_or(u128::MAX)
    };
    (rule.clients.is_none(), rule.clients_of(asked).map(size).fold(0, u128::saturating_add))
}

/// What two rules are both about, neither more specific than the other.
pub(super) fn contradiction(a: &Resolved<'_>, b: &Resolved<'_>) -> Option<String> {
    let same_rank = a.ports.count() == b.ports.count() && (a.protocol == 0) == (b.protocol == 0);
    if !same_rank || !protocols_meet(a, b) {
        return None;
    }
    let ports = a.ports.common(b.ports)?;
    let theirs: HashSet<IpAddr> = b.variants.iter().map(|variant| variant.address).collect();
    let both = a.variants.iter().map(|variant| variant.address).filter(|address| theirs.contains(address));
    let address = both.into_iter().find(|address| clients_contradict(a, b, *address))?;
    Some(match (ports == Ports::ALL, address) {
        (true, address) => format!("everything sent to {address}"),
        (false, IpAddr::V4(address)) => format!("{address}:{ports}"),
        (false, IpAddr::V6(address)) => format!("[{address}]:{ports}"),
    })
}

fn protocols_meet(a: &Resolved<'_>, b: &Resolved<'_>) -> bool {
    a.protocol == b.protocol || a.protocol == 0 || b.protocol == 0
}

/// Whether some clients that ask for this address are of both rules, and neither
/// rule's are among the other's.
fn clients_contradict(a: &Resolved<'_>, b: &Resolved<'_>, asked: IpAddr) -> bool {
    match (&a.clients, &b.clients) {
        (None, None) => true,
        (Some(_), Some(_)) => {
            let [a, b] = [a, b].map(|rule| rule.clients_of(asked).copied().collect::<Vec<_>>());
            let (a_in_b, b_in_a) = (is_within(&a, &b), is_within(&b, &a));
            ranges_meet(&a, &b) && a_in_b == b_in_a
        }
        _ => false,
    }
}

fn clients_meet(a: &Resolved<'_>, b: &Resolved<'_>) -> bool {
    match (&a.clients, &b.clients) {
        (Some(a), Some(b)) => ranges_meet(a, b),
        _ => true,
    }
}

/// Of aggregated ranges.
fn is_within(inner: &[IpNet], outer: &[IpNet]) -> bool {
    inner.iter().all(|one| outer.iter().any(|range| range.contains(one)))
}

fn ranges_meet(a: &[IpNet], b: &[IpNet]) -> bool {
    a.iter().any(|one| b.iter().any(|other| one.contains(other) || other.contains(one)))
}

/// Finds a way from a rule over others' targets back to where it began: ports
/// included, so that `web:80 → web:81` and `web:81 → web:82` are none.
pub(super) fn find_loop(start: usize, rules: &[Resolved<'_>]) -> Option<RuleError> {
    let first = rules.get(start)?;
    let mut search = Search { rules, start, seen: HashSet::new(), path: vec![start] };
    let found = first.variants.iter().any(|variant| {
        let begin = At { address: variant.address, ports: whole(first.ports), shift: 0 };
        search.follow(first, variant, begin, variant.address)
    });
    found.then(|| {
        let say = |index: &usize| {
            rules.get(*index).map(|one| format!("\"{}\" redirects {}", one.rule.name, one.rule))
        };
        RuleError::Loop { rules: search.path.iter().filter_map(say).collect() }
    })
}

fn whole(ports: Ports) -> (i32, i32) {
    (i32::from(ports.first()), i32::from(ports.last()))
}

/// Where connections have got to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct At {
    address: IpAddr,
    /// First and last.
    ports: (i32, i32),
    /// By how much these are higher than those asked for at first.
    shift: i32,
}

struct Search<'a> {
    rules: &'a [Resolved<'a>],
    start: usize,
    seen: HashSet<(u32, At)>,
    path: Vec<usize>,
}

impl Search<'_> {
    /// Whether connections that a rule redirects come back to `home`.
    fn follow(&mut self, rule: &Resolved<'_>, variant: &Variant, at: At, home: IpAddr) -> bool {
        for target in &variant.targets {
            // A target that is what was asked for goes nowhere.
            if target.address == at.address && target.port_first == 0 {
                continue;
            }
            let move_by = match target.port_first {
                0 => 0,
                first => i32::from(first) - i32::from(rule.ports.first()),
            };
            let next = At {
                address: target.address,
                ports: (at.ports.0 + move_by, at.ports.1 + move_by),
                shift: at.shift + move_by,
            };
            if self.arrive(next, home) {
                return true;
            }
        }
        false
    }

    fn arrive(&mut self, at: At, home: IpAddr) -> bool {
        let Some(first) = self.rules.get(self.start) else { return false };
        for (index, rule) in self.rules.iter().enumerate() {
            let ports = whole(rule.ports);
            let common = (at.ports.0.max(ports.0), at.ports.1.min(ports.1));
            if common.0 > common.1 || !protocols_meet(first, rule) || !clients_meet(first, rule) {
                continue;
            }
            if index == self.start && at.address == home && at.shift == 0 {
                return true;
            }
            let here = At { ports: common, ..at };
            for variant in rule.variants.iter().filter(|variant| variant.address == at.address) {
                if !self.seen.insert((rule.number, here)) {
                    continue;
                }
                self.path.push(index);
                if self.follow(rule, variant, here, home) {
                    return true;
                }
                self.path.pop();
            }
        }
        false
    }
}
