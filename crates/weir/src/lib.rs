//! The parts of the `weir` command, as a library so that each can be tested
//! on its own. Not a stable interface: the binary is its only user.
#![forbid(unsafe_code)]

use std::io::Write;

pub mod audit;
pub mod cli;
pub mod containers;
pub mod doctor;
pub mod down;
pub mod error;
pub mod host;
pub mod kernel_release;
mod local;
pub mod observe;
mod outlet;
pub mod output;
pub mod read;
pub mod redirect;
pub mod run;
mod session;
pub mod signals;

/// Tells the user something beside the data: on standard error, escaped.
pub(crate) fn notice(text: &str) {
    let line = format!("weir: {}\n", weir_core::text::escape(text));
    // Where standard error is closed there is nobody to tell.
    let _ = std::io::stderr().write_all(line.as_bytes());
}
