//! A rule as the user says it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Clients, Match, SyntaxError, Target, Targets, Who};
use crate::flow::Protocol;

/// Longest name of a rule, in bytes.
const NAME_BYTES: usize = 64;

/// A rule as the user says it, on the command line or in a file. As JSON:
/// `{"name": "canary", "match": "web:80", "target": "web-v1=9,web-v2=1"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What the rule is called.
    pub name: RuleName,
    /// `tcp`, `udp` or `sctp`; see [`Rule::protocol`] for what none means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Transport>,
    /// Clients that the rule is about; none: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Clients>,
    /// What they ask for.
    #[serde(rename = "match")]
    pub asked: Match,
    /// What they get.
    pub target: Targets,
    /// What the server sees as client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
}

impl Rule {
    /// What is redirected: the protocol given; else TCP where ports are given,
    /// as everybody means it, and everything (`None`) where only an address is.
    #[must_use]
    pub fn protocol(&self) -> Option<Transport> {
        self.protocol.or(self.asked.ports.is_some().then_some(Transport::Tcp))
    }

    /// Names of containers and services in it.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let asked = std::iter::once(&self.asked.who);
        let whos = asked.chain(self.target.iter().filter_map(|target| target.who.as_ref()));
        let named = whos.filter_map(|who| match who {
            Who::Named(name) => Some(name.as_str()),
            Who::Address(_) => None,
        });
        named.chain(self.from.iter().filter_map(|from| match from {
            Clients::Named(name) => Some(name.as_str()),
            Clients::Host | Clients::Range(_) => None,
        }))
    }

    /// Checks what can be checked without knowing the host.
    ///
    /// # Errors
    /// Ports that do not fit each other, or versions of IP.
    pub fn check(&self) -> Result<(), SyntaxError> {
        for target in self.target.iter() {
            self.check_ports(target)?;
            if let (Some(from), Some(to)) = (self.asked.who.address(), target.address())
                && from.is_ipv4() != to.is_ipv4()
            {
                return Err(SyntaxError::Versions(from, to));
            }
        }
        if let (Some(from), Some(source)) = (self.asked.who.address(), self.source)
            && from.is_ipv4() != source.0.is_ipv4()
        {
            return Err(SyntaxError::Versions(from, source.0));
        }
        Ok(())
    }

    fn check_ports(&self, target: &Target) -> Result<(), SyntaxError> {
        let Some(to) = target.ports else { return Ok(()) };
        let Some(from) = self.asked.ports else { return Err(SyntaxError::PortOfAll(target.to_string())) };
        if from.count() != to.count() {
            let to_are = match to.count() {
                1 => "is 1".to_owned(),
                count => format!("are {count}"),
            };
            return Err(SyntaxError::RangeSizes {
                from: from.to_string(),
                from_count: from.count(),
                to: to.to_string(),
                to_are,
            });
        }
        Ok(())
    }
}

/// `web:8080 ⇒ api:80`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ⇒ {}", self.asked, self.target)
    }
}

/// Text on both sides of `serde`, by `Display` and `FromStr`.
macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl TryFrom<String> for $name {
            type Error = SyntaxError;

            fn try_from(text: String) -> Result<Self, SyntaxError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    )*};
}
pub(super) use as_text;

/// What a rule is called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RuleName(String);

impl RuleName {
    /// The name of a rule that was given none.
    #[must_use]
    pub fn numbered(number: u32) -> Self {
        Self(format!("redirect-{number}"))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RuleName {
    type Err = SyntaxError;

    fn from_str(text: &str) -> Result<Self, SyntaxError> {
        let mut bytes = text.bytes();
        let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        let rest = bytes.all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
        match first && rest && text.len() <= NAME_BYTES {
            true => Ok(Self(text.to_owned())),
            false => Err(SyntaxError::RuleName(text.to_owned())),
        }
    }
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A protocol with ports that can be redirected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Transport {
    /// Its IANA number.
    #[must_use]
    pub fn protocol(self) -> Protocol {
        match self {
            Self::Tcp => Protocol::TCP,
            Self::Udp => Protocol::UDP,
            Self::Sctp => Protocol::SCTP,
        }
    }
}

impl FromStr for Transport {
    type Err = SyntaxError;

    fn from_str(text: &str) -> Result<Self, SyntaxError> {
        [Self::Tcp, Self::Udp, Self::Sctp]
            .into_iter()
            .find(|one| one.to_string().eq_ignore_ascii_case(text))
            .ok_or_else(|| SyntaxError::Protocol(text.to_owned()))
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.protocol().fmt(f)
    }
}

/// What a server is to see as client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Source(pub IpAddr);

impl FromStr for Source {
    type Err = SyntaxError;

    fn from_str(text: &str) -> Result<Self, SyntaxError> {
        let address =
            text.parse::<IpAddr>().map_err(|_| SyntaxError::Address(text.to_owned()))?.to_canonical();
        match super::who::unusable(address) {
            Some(what) => Err(SyntaxError::UnusableSource { address, what }),
            None => Ok(Self(address)),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

as_text!(RuleName, Transport, Source);
