//! Which answer belongs to which request.
//!
//! - `fifo`: by their order;
//! - `doubt`: when that order is not known, and what makes it known again.
//!
//! Or by their numbers, in a [`Keyed`].

mod doubt;
mod fifo;
#[cfg(test)]
mod tests;

pub use crate::keyed::Keyed;
pub use doubt::Trust;
pub use fifo::Fifo;
