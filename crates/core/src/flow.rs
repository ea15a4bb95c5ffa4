//! One row per connection.

mod entry;
mod key;

pub use entry::{Counters, DirectionEntry, FlowEntry, FlowState, Point};
pub use key::{FlowKey, Protocol, Side};
