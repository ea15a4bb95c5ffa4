//! One row per connection.

mod entry;
mod key;
mod table;
mod timeout;
mod translation;

pub use entry::{CaptureState, Counters, DirectionEntry, FlowEntry, FlowState, Point};
pub use key::{ConnectionId, FlowKey, Protocol, Side};
pub use table::{EntrySource, Report, Table, Totals};
pub use timeout::{LINGER_NS, Pressure};
pub use translation::Translation;
