//! Redirects: what a rule says, whether it makes sense, and what the kernel
//! needs to know of it.
//!
//! - [`Compiled`]: all rules as the kernel's maps hold them.

mod compiled;

pub use compiled::{
    Compiled, CompiledMatch, CompiledRule, CompiledTarget, InterfacePlace, MATCHES_MAX, Place, RuleId, SLOTS,
    TargetId, VirtualAddress,
};
