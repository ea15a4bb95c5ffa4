//! What is redirected, and where to, as the user says it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::rule::as_text;
use super::{SLOTS, SyntaxError};

/// Highest weight of a target: of two targets with 1 and 100, the first still
/// has two of the [`SLOTS`].
const WEIGHT_MAX: u32 = 100;
/// With more, one of them might have no slot at all.
const TARGETS_MAX: usize = SLOTS / 4;

/// Whose address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Who {
    /// This address.
    Address(IpAddr),
    /// A container or a compose service, by a name of its.
    Named(String),
}

impl Who {
    /// The address, if that is how it is named.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Named(_) => None,
        }
    }

    fn parse(text: &str) -> Result<Self, SyntaxError> {
        if let Ok(address) = text.parse::<IpAddr>() {
            let address = address.to_canonical();
            return match unusable(address) {
                Some(what) => Err(SyntaxError::Unusable { address, what }),
                None => Ok(Self::Address(address)),
            };
        }
        if text.split_once('/').is_some_and(|(address, _)| address.parse::<IpAddr>().is_ok()) {
            return Err(SyntaxError::RangeOfAddresses(text.to_owned()));
        }
        if ["host", "world", "virtual", "multicast"].contains(&text) {
            return Err(SyntaxError::NotOneAddress(text.to_owned()));
        }
        name(text).map(Self::Named)
    }

    /// In brackets, if it is an IPv6 address and a port follows.
    fn write(&self, f: &mut fmt::Formatter<'_>, port_follows: bool) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(address)) if port_follows => write!(f, "[{address}]"),
            Self::Address(address) => write!(f, "{address}"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, false)
    }
}

/// A name that a container may have; not what only looks like an address.
fn name(text: &str) -> Result<String, SyntaxError> {
    if text.contains('.') && text.bytes().all(|byte| byte == b'.' || byte.is_ascii_digit()) {
        return Err(SyntaxError::Address(text.to_owned()));
    }
    let strange = |c: char| c.is_whitespace() || c.is_control() || ":=,*?[]{}".contains(c);
    match text.is_empty() || text.contains(strange) {
        true => Err(SyntaxError::Name(text.to_owned())),
        false => Ok(text.to_owned()),
    }
}

/// Why nobody can be reached at this address.
pub(super) fn unusable(address: IpAddr) -> Option<&'static str> {
    if address.is_unspecified() {
        return Some("no address at all");
    }
    if address.is_loopback() {
        return Some("a loopback address, which never leaves its container");
    }
    if address.is_multicast() {
        return Some("a multicast address");
    }
    match address {
        IpAddr::V4(address) if address.is_broadcast() => Some("the broadcast address"),
        IpAddr::V6(address) if address.is_unicast_link_local() => Some("a link-local address"),
        _ => None,
    }
}

/// One port, or a range of them; none is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ports {
    first: u16,
    last: u16,
}

impl Ports {
    /// All ports.
    pub const ALL: Self = Self { first: 0, last: u16::MAX };

    /// The first.
    #[must_use]
    pub fn first(self) -> u16 {
        self.first
    }

    /// The last, not below the first.
    #[must_use]
    pub fn last(self) -> u16 {
        self.last
    }

    /// How many.
    #[must_use]
    pub fn count(self) -> u32 {
        u32::from(self.last) - u32::from(self.first) + 1
    }

    /// As many, from this one on. `None`: there are not so many.
    #[must_use]
    pub fn from(self, first: u16) -> Option<Self> {
        Some(Self { first, last: first.checked_add(self.last - self.first)? })
    }

    /// Those that are in both.
    #[must_use]
    pub fn common(self, other: Self) -> Option<Self> {
        let both = Self { first: self.first.max(other.first), last: self.last.min(other.last) };
        (both.first <= both.last).then_some(both)
    }

    fn parse(text: &str) -> Result<Self, SyntaxError> {
        let number = |digits: &str| match digits.bytes().all(|byte| byte.is_ascii_digit()) {
            true => digits.parse::<u16>().ok().filter(|port| *port != 0),
            false => None,
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match number(first).zip(number(last)) {
            None => Err(SyntaxError::Port(text.to_owned())),
            Some((first, last)) if first > last => Err(SyntaxError::PortOrder(text.to_owned())),
            Some((first, last)) => Ok(Self { first, last }),
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

/// Who, and which of its ports. `None` where nothing stands before the port.
fn split(text: &str) -> Result<(Option<Who>, Option<Ports>), SyntaxError> {
    let (who, ports) = if let Some(rest) = text.strip_prefix('[') {
        let bracketed = rest.split_once(']').filter(|(who, _)| who.parse::<IpAddr>().is_ok());
        match bracketed {
            Some((who, "")) => (who, None),
            Some((who, after)) => match after.strip_prefix(':') {
                Some(ports) => (who, Some(ports)),
                None => return Err(SyntaxError::Brackets(text.to_owned())),
            },
            None => return Err(SyntaxError::Address(text.to_owned())),
        }
    } else if text.parse::<IpAddr>().is_ok() {
        (text, None)
    } else {
        match text.rsplit_once(':') {
            None => (text, None),
            Some((who, _)) if who.contains(':') => return Err(SyntaxError::Brackets(text.to_owned())),
            Some((who, ports)) => (who, Some(ports)),
        }
    };
    let ports = ports.map(Ports::parse).transpose()?;
    let who = (!who.is_empty()).then(|| Who::parse(who)).transpose()?;
    Ok((who, ports))
}

fn write(f: &mut fmt::Formatter<'_>, who: Option<&Who>, ports: Option<Ports>) -> fmt::Result {
    if let Some(who) = who {
        who.write(f, ports.is_some())?;
    }
    match ports {
        Some(ports) => write!(f, ":{ports}"),
        None => Ok(()),
    }
}

/// What clients ask for: `web:8080`, `10.99.0.1:80`, `web:8000-8099`, `[fd00::3]:53`,
/// `10.99.0.1` (all ports, and ICMP).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Match {
    /// Whose address.
    pub who: Who,
    /// Which ports; none: everything.
    pub ports: Option<Ports>,
}

impl FromStr for Match {
    type Err = SyntaxError;

    fn from_str(text: &str) -> Result<Self, SyntaxError> {
        match split(text)? {
            (Some(who), ports) => Ok(Self { who, ports }),
            (None, _) => Err(SyntaxError::NoMatch(text.to_owned())),
        }
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, Some(&self.who), self.ports)
    }
}

/// One of the places where connections go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// Whose address; none: as asked, only the port is another.
    pub who: Option<Who>,
    /// Which ports, as many as the match has; none: as asked.
    pub ports: Option<Ports>,
    /// Its share of the connections, 1 to 100.
    pub weight: u32,
}

impl Target {
    /// The address, if that is how it is named.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.who.as_ref().and_then(Who::address)
    }

    fn parse(text: &str, whole: &str) -> Result<Self, SyntaxError> {
        let (place, weight) = match text.split_once('=') {
            Some((place, weight)) => (place, weight_of(weight)?),
            None => (text, 1),
        };
        match split(place)? {
            (None, None) => Err(SyntaxError::NoTarget(whole.to_owned())),
            (who, ports) => Ok(Self { who, ports, weight }),
        }
    }
}

fn weight_of(text: &str) -> Result<u32, SyntaxError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let weight = text.parse().ok().filter(|weight| digits && (1..=WEIGHT_MAX).contains(weight));
    weight.ok_or_else(|| SyntaxError::Weight(text.to_owned()))
}

/// Without the weight: `api:8080`, `:80`, `172.18.0.4`.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, self.who.as_ref(), self.ports)
    }
}

/// Where connections go: one target, or several that share them:
/// `web-v1=9,web-v2=1`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Targets(Vec<Target>);

impl Targets {
    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = &Target> {
        self.0.iter()
    }

    /// How many; never none.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

impl FromStr for Targets {
    type Err = SyntaxError;

    fn from_str(text: &str) -> Result<Self, SyntaxError> {
        let targets: Vec<_> =
            text.split(',').map(|target| Target::parse(target, text)).collect::<Result<_, _>>()?;
        for (index, target) in targets.iter().enumerate() {
            let same = |other: &Target| other.who == target.who && other.ports == target.ports;
            if targets.iter().skip(index + 1).any(same) {
                return Err(SyntaxError::TargetTwice(target.to_string()));
            }
        }
        match targets.len() {
            count if count > TARGETS_MAX => Err(SyntaxError::TargetsMany(count, TARGETS_MAX)),
            _ => Ok(Self(targets)),
        }
    }
}

impl fmt::Display for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let weighted = self.0.iter().any(|target| target.weight != 1);
        for (index, target) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{target}")?;
            if weighted {
                write!(f, "={}", target.weight)?;
            }
        }
        Ok(())
    }
}

/// Who may be a client of a rule: a container, a compose service, an address or
/// a range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Clients {
    /// A container or a service, by a name of its.
    Named(String),
    /// This machine.
    Host,
    /// Every address in this range.
    Range(IpNet),
}

impl FromStr for Clients {
    type Err = SyntaxError;

    fn from_str(text: &str) -> Result<Self, SyntaxError> {
        match text {
            "host" => return Ok(Self::Host),
            "world" | "virtual" | "multicast" => return Err(SyntaxError::NotOneAddress(text.to_owned())),
            _ => {}
        }
        if let Ok(range) = crate::filter::parse_addresses(text) {
            return Ok(Self::Range(range.trunc()));
        }
        let looks_like_range =
            text.split_once('/').is_some_and(|(before, _)| before.parse::<IpAddr>().is_ok());
        if looks_like_range || text.contains(':') {
            return Err(SyntaxError::Clients(text.to_owned()));
        }
        name(text).map(Self::Named)
    }
}

impl fmt::Display for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => f.write_str(name),
            Self::Host => f.write_str("host"),
            Self::Range(range) if range.prefix_len() == range.max_prefix_len() => {
                write!(f, "{}", range.addr())
            }
            Self::Range(range) => write!(f, "{range}"),
        }
    }
}

as_text!(Match, Targets, Clients);
