//! What is to be known of rules that are in force.

use std::fmt;
use std::net::IpAddr;

use thiserror::Error;

use super::RuleError;

/// What the user should know of a rule that is added, or in force, all the same.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the rule \"{rule}\": {concern}")]
pub struct Warning {
    /// The rule's name.
    pub rule: String,
    /// What is to be known.
    pub concern: Concern,
}

/// Why somebody whom a rule names cannot be reached now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absence {
    /// None of those with that name runs.
    NotRunning,
    /// They run, and are in no network.
    NoAddress,
}

impl fmt::Display for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotRunning => "is not running; until it runs",
            Self::NoAddress => "is in no network; until it is in one",
        })
    }
}

/// What is to be known of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Concern {
    /// A container that does not run.
    #[error(
        "{name} {absence}, connections to it are {}",
        if *others { "shared by the other targets" } else { "refused" }
    )]
    TargetDown {
        /// The target.
        name: String,
        /// Why.
        absence: Absence,
        /// Whether the rule has other targets.
        others: bool,
    },
    /// What is redirected does not run.
    #[error("{name} {absence}, the rule has no effect")]
    MatchDown {
        /// The container.
        name: String,
        /// Why.
        absence: Absence,
    },
    /// Clients that do not run.
    #[error("{name} (--from) {absence}, the rule has no effect")]
    FromDown {
        /// The container.
        name: String,
        /// Why.
        absence: Absence,
    },
    /// One version of IP is left out.
    #[error("connections to {address} stay as they are: {reason}")]
    AddressLeftOut {
        /// Of what is redirected.
        address: IpAddr,
        /// Why.
        reason: String,
    },
    /// The host's own address.
    #[error(
        "{address} is this host's: connections of containers to it are redirected, those of the \
         host itself and from outside are not"
    )]
    HostAddress {
        /// Of what is redirected.
        address: IpAddr,
    },
    /// An address that nobody has, and targets that are no containers: there is no interface at which the host's own
    /// packets could be redirected.
    #[error(
        "neither {address} nor a target is a container's: connections of containers are redirected, \
         those of the host itself and from outside are not"
    )]
    NoInterface {
        /// Of what is redirected.
        address: IpAddr,
    },
    /// An address that nobody has, and to which the host has no route by the target's bridge.
    #[error(
        "no route of this host leads to {address} by the bridge of its target: connections of containers are \
         redirected, those of the host itself and from outside are not, until there is one (`ip route add {address} \
         dev BRIDGE`)"
    )]
    NoRoute {
        /// Of what is redirected.
        address: IpAddr,
    },
    /// A container that asks for its own address.
    #[error(
        "{address} is the address of the only client: connections of a container to its own address never leave it, \
         and are not redirected"
    )]
    AsksItself {
        /// Of what is redirected.
        address: IpAddr,
    },
    /// A target in another network of this host.
    #[error(
        "clients of {address} reach {target} in another network, by way of this host's own rules; \
         Docker's drop what goes from one network to another. `weir run --accelerate` carries these connections past \
         such rules"
    )]
    OtherNetwork {
        /// Of what is redirected.
        address: IpAddr,
        /// Of the target.
        target: IpAddr,
    },
    /// Containers changed so that two rules contradict each other.
    #[error("the rule \"{first}\" is now about {what} too, and goes first")]
    NowContradict {
        /// The older rule.
        first: String,
        /// What both are about.
        what: String,
    },
    /// Containers changed, and nobody follows them.
    #[error(
        "containers have changed since somebody looked: it is in force for the addresses that they had then, until \
         `weir run` runs"
    )]
    NotFollowed,
    /// Something that the rule needs is not there any more.
    #[error("the rule has no effect: {0}")]
    NoEffect(RuleError),
}

impl Concern {
    /// Whether it may pass: it is not of the rule itself, but of what is on the host now.
    #[must_use]
    pub fn is_of_now(&self) -> bool {
        match self {
            Self::TargetDown { .. }
            | Self::MatchDown { .. }
            | Self::FromDown { .. }
            | Self::NowContradict { .. }
            | Self::NotFollowed
            | Self::NoEffect(_) => true,
            Self::AddressLeftOut { .. }
            | Self::HostAddress { .. }
            | Self::NoInterface { .. }
            | Self::NoRoute { .. }
            | Self::AsksItself { .. }
            | Self::OtherNetwork { .. } => false,
        }
    }
}
