//! Waiting for a condition, never for a time.

use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Between two looks at the condition.
const INTERVAL: Duration = Duration::from_millis(5);

/// Returns as soon as `condition` holds, with the time that it took. Panics with
/// `what` if it does not within `limit`; it is looked at once more at the end.
#[track_caller]
pub fn wait_until(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    loop {
        let late = start.elapsed() >= limit;
        if condition() {
            return start.elapsed();
        }
        assert!(!late, "waited {limit:?} in vain: {what}");
        sleep(INTERVAL);
    }
}

/// Makes a call again that a signal has interrupted, which the kernel does by itself unless a socket has a
/// limit of waiting. It need not be one that is handled: the end of another thread's child may do it.
pub fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_when_it_holds() {
        let mut looks = 0;
        wait_until(Duration::from_secs(5), "the third look", || {
            looks += 1;
            looks == 3
        });
        assert_eq!(looks, 3);
    }

    #[test]
    #[should_panic(expected = "in vain: the moon")]
    fn names_what_did_not_come() {
        wait_until(Duration::from_millis(20), "the moon", || false);
    }
}
