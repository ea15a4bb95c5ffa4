//! The parts of the `weir` command, as a library so that each can be tested
//! on its own. Not a stable interface: the binary is its only user.

pub mod containers;
pub mod host;
