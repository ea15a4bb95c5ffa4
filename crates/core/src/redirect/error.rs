//! What can be wrong with a rule.

use std::net::IpAddr;

use thiserror::Error;

use super::{MATCHES_MAX, Match, RuleId, Source};

/// Why a text is not a rule, or no part of one: what was given, and what is
/// accepted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SyntaxError {
    /// Nothing before, between or after the punctuation.
    #[error(
        "{0:?} does not say what to redirect: accepted are web:8080, web:8000-8099, 172.17.0.3:8080, [fd00::3]:53, \
         and without a port for everything that is sent to an address"
    )]
    NoMatch(String),
    /// A target that is empty.
    #[error(
        "{0:?} does not say where to: accepted are :80, api:8080, 172.18.0.4, [fd00::4]:53, and several with \
         their weights: web-v1=9,web-v2=1"
    )]
    NoTarget(String),
    /// Not a port or a range of ports.
    #[error("{0:?} is not a port: accepted are a number from 1 to 65535, or a range such as 8000-8099")]
    Port(String),
    /// A range of ports from high to low.
    #[error("{0:?} is not a range of ports: the lower number stands first")]
    PortOrder(String),
    /// Colons without brackets.
    #[error("{0:?} is ambiguous: an IPv6 address with a port is written in brackets, [2001:db8::1]:443")]
    Brackets(String),
    /// It looks like an address and is none.
    #[error("{0:?} is not an address: accepted are IPv4 (172.17.0.3) and IPv6 (fd00::3)")]
    Address(String),
    /// An address that no connection can be redirected from or to.
    #[error("{address} is {what}; connections to it cannot be redirected, nor to it")]
    Unusable {
        /// Which.
        address: IpAddr,
        /// What it is.
        what: &'static str,
    },
    /// A source that no packet may have.
    #[error("{address} is {what}: no server would answer to it")]
    UnusableSource {
        /// Which.
        address: IpAddr,
        /// What it is.
        what: &'static str,
    },
    /// A range where only an address can stand.
    #[error("{0:?} is a range of addresses: name one address, or a container")]
    RangeOfAddresses(String),
    /// Something that no container is called.
    #[error("{0:?} is not a name of a container or a compose service (shop/web)")]
    Name(String),
    /// Neither an address nor a range, where clients are named.
    #[error(
        "{0:?} does not name clients: accepted are a container, a compose service (shop/web), `host`, an address \
         and a range (10.0.0.0/8, fd00::/8); a rule has no port of clients"
    )]
    Clients(String),
    /// `host`, `world` where an address must stand.
    #[error("{0:?} is not one address: write the address that is meant")]
    NotOneAddress(String),
    /// Not a weight.
    #[error("{0:?} is not a weight: accepted are numbers from 1 to 100")]
    Weight(String),
    /// The same target twice.
    #[error("the target {0} stands there twice: give it a weight ({0}=2) instead")]
    TargetTwice(String),
    /// More targets than a rule has room for.
    #[error("{0} targets are more than a rule has room for, which is {1}")]
    TargetsMany(usize, usize),
    /// Not tcp, udp or sctp.
    #[error("{0:?} is not a protocol that can be redirected: accepted are tcp, udp and sctp")]
    Protocol(String),
    /// Not a name for a rule.
    #[error(
        "{0:?} is not a name for a rule: accepted are up to 64 letters, digits, dots, dashes and underscores, \
         a letter or digit first"
    )]
    RuleName(String),
    /// Ports of a target where the match has none.
    #[error(
        "the target {0} has a port, but not what is redirected: name the port there too, as in web:8080 or \
         [fd00::3]:8080"
    )]
    PortOfAll(String),
    /// Ranges that do not fit each other.
    #[error(
        "{from} are {from_count} ports, {to} {to_are}: a range goes to a range of the same size, port by port"
    )]
    RangeSizes {
        /// Ports of the match.
        from: String,
        /// How many.
        from_count: u32,
        /// Ports of the target.
        to: String,
        /// `is 1`, `are 8`.
        to_are: String,
    },
    /// IPv4 and IPv6 in one rule.
    #[error(
        "{0} and {1} are of different versions of IP: a connection cannot be redirected from one to the other"
    )]
    Versions(IpAddr, IpAddr),
}

/// Why a rule cannot be added, on this host, beside the other rules.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RuleError {
    /// Nobody of that name.
    #[error("no container or service is named \"{name}\"; there are: {known}")]
    UnknownName {
        /// What was given.
        name: String,
        /// What there is.
        known: String,
    },
    /// Services of several projects.
    #[error("\"{name}\" may be {}: say which", candidates.join(" or "))]
    Ambiguous {
        /// What was given.
        name: String,
        /// Names that are unique.
        candidates: Vec<String>,
    },
    /// A container without an address of its own.
    #[error(
        "{name} has no address of its own (it is in the host's network or another container's): redirect that one's"
    )]
    NoAddress {
        /// Which.
        name: String,
    },
    /// No pair of addresses of one version of IP.
    #[error(
        "{from} has only {from_version} addresses and {to} only {to_version}: a connection cannot be redirected from \
         one version of IP to the other"
    )]
    NoCommonVersion {
        /// What is redirected.
        from: String,
        /// IPv4 or IPv6.
        from_version: &'static str,
        /// The target.
        to: String,
        /// IPv4 or IPv6.
        to_version: &'static str,
    },
    /// It goes where it comes from.
    #[error("{0} would be redirected to itself")]
    ToItself(Match),
    /// Round in circles.
    #[error("a loop: {}", rules.join(", and "))]
    Loop {
        /// `"a" redirects x to y`.
        rules: Vec<String>,
    },
    /// Two rules of which neither goes first.
    #[error(
        "the rules \"{one}\" and \"{other}\" contradict each other: both are about {what}, and neither says it more \
         exactly (a narrower range of ports goes first, then --from, then --protocol)"
    )]
    Contradiction {
        /// A rule's name.
        one: String,
        /// The other's.
        other: String,
        /// What both are about.
        what: String,
    },
    /// The name is taken.
    #[error("there is a rule named \"{0}\" already: remove it first, or choose another --name")]
    NameTaken(String),
    /// No such rule.
    #[error("there is no rule named \"{name}\"; there are: {known}")]
    NoSuchRule {
        /// What was given.
        name: String,
        /// What there is.
        known: String,
    },
    /// Too many rules for one address.
    #[error("{address} would have {count} rules; one address has room for {MATCHES_MAX}")]
    MatchesMany {
        /// Which.
        address: IpAddr,
        /// How many it would have.
        count: usize,
    },
    /// Too many addresses for one rule.
    #[error("{name} has {count} addresses; one rule has room for {}", RuleId::VARIANTS)]
    AddressesMany {
        /// Which.
        name: String,
        /// How many.
        count: usize,
    },
    /// A source rewritten for a server elsewhere.
    #[error(
        "--source {source_address} needs a target that is a container of this host, or the answers would not come \
         back: {target} is none"
    )]
    SourceElsewhere {
        /// The source.
        source_address: Source,
        /// The target.
        target: String,
    },
    /// The source is the server itself.
    #[error("--source {0} is the address of the target itself, which would take the packets for its own")]
    SourceIsTarget(Source),
    /// A source of the other version of IP.
    #[error("--source {source_address} is {source_version}, what is redirected {match_version}")]
    SourceVersion {
        /// The source.
        source_address: Source,
        /// IPv4 or IPv6.
        source_version: &'static str,
        /// IPv4 or IPv6.
        match_version: &'static str,
    },
    /// Clients of no version of IP that is redirected.
    #[error("--from {from} has no {version} address, and only {version} is redirected")]
    FromVersion {
        /// The clients.
        from: String,
        /// IPv4 or IPv6.
        version: &'static str,
    },
    /// The user would lock themselves out.
    #[error(
        "this rule is about the very way of your SSH connection ({client} to {server}): the connection stays, but \
         whoever connects like that anew would be redirected. Give --yes if that is what you want"
    )]
    CutsSsh {
        /// Address and port.
        client: String,
        /// Address and port.
        server: String,
    },
    /// More rules than numbers for them.
    #[error("there are no numbers left for rules")]
    NumbersUsedUp,
    /// The rule does not fit into the kernel.
    #[error("the rule is longer than the {max} bytes that are kept of it: name fewer targets")]
    TooLong {
        /// The limit.
        max: usize,
    },
}
