//! What can be wrong with a filter.

use thiserror::Error;

use crate::record::{State, Verdict};

/// A value of a filter flag that cannot be used: what was given, and what is
/// accepted. Control characters in it are written out.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FilterError {
    /// Nothing given.
    #[error("the {0} is empty: give a name, or a glob such as \"web*\"")]
    Empty(&'static str),
    /// Not a glob.
    #[error(
        "{text:?} is not a {what} pattern: {reason}; accepted are names and globs \
         (\"*\" any characters, \"?\" one, \"[ab]\" one of these, \"{{a,b}}\" either)"
    )]
    Glob {
        /// Of what.
        what: &'static str,
        /// What was given.
        text: String,
        /// What the glob compiler says.
        reason: String,
    },
    /// Neither an address nor a range.
    #[error(
        "{0:?} is not an address range: accepted are addresses (10.0.0.7, 2001:db8::1) and \
         ranges (10.0.0.0/8, fd00::/8)"
    )]
    Address(String),
    /// A range with an impossible prefix.
    #[error("{text:?} is not an address range: after \"/\" a number from 0 to {bits} is accepted")]
    Prefix {
        /// What was given.
        text: String,
        /// 32 or 128.
        bits: u8,
    },
    /// Neither a port nor a range.
    #[error("{0:?} is not a port: accepted are a number from 0 to 65535, or a range such as 8000-8080")]
    Port(String),
    /// A range of ports from high to low.
    #[error("{0:?} is not a range of ports: the lower number stands first")]
    PortOrder(String),
    /// Colons without brackets.
    #[error(
        "{0:?} is ambiguous: an IPv6 address with a port is written in brackets, \
         [2001:db8::1]:443 or [fd00::/8]:443"
    )]
    Brackets(String),
    /// No such protocol.
    #[error(
        "{0:?} is not a protocol: accepted are names (tcp, udp, icmp, icmpv6, sctp, gre, esp, ...), \
         numbers from 0 to 255, and for requests {applications}",
        applications = crate::l7::names().collect::<Vec<_>>().join(", ")
    )]
    Protocol(String),
    /// No such state.
    #[error("{0:?} is not a state: accepted are {states}", states = state_names())]
    State(String),
    /// No such verdict.
    #[error("{0:?} is not a verdict: accepted are {verdicts}", verdicts = Verdict::ALL.map(Verdict::name).join(", "))]
    Verdict(String),
    /// Neither 4 nor 6.
    #[error("{0:?} is not a version of IP: accepted are 4 and 6")]
    IpVersion(String),
    /// No status.
    #[error(
        "{0:?} is not a status: accepted are numbers (404), classes (5xx), comparisons (\">=400\", \"<300\") \
         and names (NXDOMAIN)"
    )]
    Status(String),
    /// No duration.
    #[error("{0:?} is not a duration: accepted are 100ms, 2s, 1m30s")]
    Duration(String),
    /// Neither a duration nor a time.
    #[error(
        "{0:?} is not a time: accepted are how long ago (90s, 15m, 2h 30m, 1d) and times with \
         their offset (2026-11-22T12:00:00Z, 2026-11-22T13:00:00+01:00)"
    )]
    Since(String),
}

fn state_names() -> String {
    State::ALL.map(State::name).join(", ")
}
