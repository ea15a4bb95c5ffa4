//! Signals that ask weir to end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crossbeam_channel::{Receiver, bounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

/// Each signal that asks weir to end, as it comes. The second one ends the
/// process at once, whatever it is waiting for (an output that nobody reads).
///
/// # Errors
/// The handlers or their thread cannot be set up.
pub fn channel() -> io::Result<Receiver<i32>> {
    let (sender, receiver) = bounded(1);
    let all = [SIGINT, SIGTERM, SIGQUIT, SIGHUP];
    let asked_before = Arc::new(AtomicBool::new(false));
    for signal in all {
        // In this order: the first signal finds the flag unset, then sets it.
        signal_hook::flag::register_conditional_shutdown(signal, 130, asked_before.clone())?;
        signal_hook::flag::register(signal, asked_before.clone())?;
    }
    let mut signals = Signals::new(all)?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            // Full: one is waiting to be seen already, and that is enough.
            let _ = sender.try_send(signal);
        }
    })?;
    Ok(receiver)
}
