//! weir's analysis, from kernel events to records.
//!
//! Pure: no I/O, no async, no unsafe, no clock (time is a parameter), so that
//! it runs, is tested and is fuzzed anywhere.
//!
//! The parts, in the order in which data meets them:
//! - [`event`]: what the kernel side reports, decoded and checked;
//! - [`capture`]: payload that it hands over, and what is wanted of it;
//! - [`flow`]: one row per connection, built from events and table readings;
//! - [`endpoint`], [`directory`]: who stands behind an address;
//! - [`scene`]: what turns reports into records: names, devices, the calendar;
//! - [`frame`]: segments and datagrams out of captured frames;
//! - [`stream`]: TCP streams, put together from segments;
//! - [`l7`]: application protocols: requests with their answers;
//! - [`record`]: what leaves weir: flows, packets, requests, the summary;
//! - [`dns`]: what DNS messages say;
//! - [`sql`]: SQL without its literals;
//! - [`redirect`]: where connections go instead;
//! - [`reveal`]: what may be shown although it is somebody's data;
//! - [`filter`]: which records the user wants;
//! - [`stats`]: requests summed up;
//! - [`text`]: units and names as people read them.
#![forbid(unsafe_code)]

pub mod capture;
pub mod directory;
pub mod dns;
pub mod endpoint;
pub mod event;
pub mod filter;
pub mod flow;
pub mod frame;
mod keyed;
pub mod l7;
pub mod loss;
pub mod record;
pub mod redirect;
pub mod reveal;
pub mod scene;
pub mod sql;
pub mod stats;
pub mod stream;
pub mod text;
