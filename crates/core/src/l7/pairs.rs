//! Which answer belongs to which request.
//!
//! - `fifo`: by their order;
//! - `doubt`: when that order is not known, and what makes it known again;
//! - `keyed`: by their numbers.

mod doubt;
mod fifo;
mod keyed;
#[cfg(test)]
mod tests;

pub use doubt::Trust;
pub use fifo::Fifo;
pub use keyed::Keyed;
