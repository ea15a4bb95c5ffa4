//! One row per connection.

mod entry;
mod key;
mod table;
mod timeout;
mod tracker;
mod translation;

pub use entry::{CaptureState, Counters, DirectionEntry, FlowEntry, FlowState, Point};
pub use key::{ConnectionId, FlowKey, Protocol, Side};
pub use table::{EntrySource, Report, Table, Totals};
pub use timeout::{LINGER_NS, Pressure};
pub use tracker::{InOrder, Step, TRACKED_FLOWS_MAX, Tracker};
pub use translation::Translation;
