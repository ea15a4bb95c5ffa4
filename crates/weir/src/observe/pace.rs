//! How a thread shares its processor with those who are watched.

use crossbeam_channel::Receiver;

/// What takes some 20 to 50 µs: so long others wait at most, and so much is gained by asking seldom.
pub(crate) const REQUESTS_AT_ONCE: usize = 32;
pub(crate) const EVENTS_AT_ONCE: usize = 8;

/// Schedulers let a thread finish its slice of milliseconds before one that has just woken (EEVDF, Linux 6.6). A
/// server that waits so long leaves the other processor idle, when its client is there. So a thread that works
/// through a batch gives way now and then, as long as it keeps up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// As long as little waits.
    GivesWay,
    /// It is behind.
    Hurries,
}

impl Pace {
    /// For who takes batches out of this queue. Its other end is held up only when it is full.
    pub(crate) fn toward<T>(queue: &Receiver<T>) -> Self {
        let keeps_up = queue.capacity().is_some_and(|room| queue.len() < room / 8);
        if keeps_up { Self::GivesWay } else { Self::Hurries }
    }

    /// After the item of that index in a batch.
    pub(crate) fn after(self, index: usize, at_once: usize) {
        if self == Self::GivesWay && index % at_once == at_once - 1 {
            std::thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::bounded;

    use super::Pace;

    #[test]
    fn who_is_behind_hurries() {
        let (sender, queue) = bounded(64);
        assert_eq!(Pace::toward(&queue), Pace::GivesWay);
        (0..8).for_each(|batch| sender.send(batch).unwrap());
        assert_eq!(Pace::toward(&queue), Pace::Hurries);
        queue.recv().unwrap();
        assert_eq!(Pace::toward(&queue), Pace::GivesWay);
    }
}
