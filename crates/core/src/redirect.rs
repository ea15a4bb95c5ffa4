//! Redirects: what a rule says, whether it makes sense, and what the kernel
//! needs to know of it.
//!
//! - [`Rule`]: what the user says, as text and as JSON; checked for itself;
//! - [`Surroundings`]: who is on this host;
//! - [`RuleSet`]: all rules, checked against each other and the surroundings;
//! - [`Compiled`]: all rules as the kernel's maps hold them.

mod compiled;
mod conflict;
mod error;
mod resolve;
mod resolved;
mod rule;
mod set;
mod slots;
mod surroundings;
#[cfg(test)]
mod tests;
mod warning;
mod who;

pub use compiled::{
    Compiled, CompiledMatch, CompiledRule, CompiledTarget, InterfacePlace, MATCHES_MAX, Place, RuleId, SLOTS,
    TargetId, VirtualAddress,
};
pub use error::{RuleError, SyntaxError};
pub use rule::{Rule, RuleName, Source, Transport};
pub use set::{KeptRule, RuleSet, SshConnection};
pub use surroundings::{Meaning, Resident, Surroundings};
pub use warning::{Absence, Concern, Warning};
pub use who::{Clients, Match, Ports, Target, Targets, Who};
