//! When to look again at a namespace that is not explained yet: its container's
//! first process or its addresses may come a moment after its interface.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// Waiting times before each look, from the one before. After the last, what
/// was found stands until something happens.
const DELAYS: [Duration; 8] = [
    Duration::ZERO,
    Duration::from_millis(10),
    Duration::from_millis(30),
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(10),
];

#[derive(Debug, Default)]
pub(super) struct Pending {
    /// By the namespaces' numbers: looks so far, and when the next is due.
    looks: HashMap<i32, (usize, Instant)>,
}

impl Pending {
    /// Something happened to this namespace: the looks begin anew.
    pub(super) fn put(&mut self, nsid: i32, now: Instant) {
        self.looks.insert(nsid, (0, now + DELAYS[0]));
    }

    pub(super) fn remove(&mut self, nsid: i32) {
        self.looks.remove(&nsid);
    }

    /// When the next look is due, if one is.
    pub(super) fn next(&self) -> Option<Instant> {
        self.looks.values().map(|(_, due)| *due).min()
    }

    /// Those that are due, or nearly so; their next looks are planned.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<i32> {
        let due: Vec<i32> =
            self.looks.iter().filter(|(_, (_, due))| *due <= now).map(|(nsid, _)| *nsid).collect();
        for nsid in &due {
            if let Some((looks, due)) = self.looks.get_mut(nsid) {
                *looks += 1;
                match DELAYS.get(*looks) {
                    Some(delay) => *due = now + *delay,
                    None => self.remove(*nsid),
                }
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_become_rarer_and_end() {
        let start = Instant::now();
        let mut pending = Pending::default();
        assert_eq!(pending.next(), None);
        pending.put(5, start);
        let (mut now, mut looks) = (start, 0);
        while let Some(due) = pending.next() {
            assert!(pending.take_due(due - Duration::from_nanos(1)).is_empty());
            assert_eq!(pending.take_due(due), [5]);
            now = due;
            looks += 1;
        }
        assert_eq!(looks, DELAYS.len());
        assert_eq!(now - start, DELAYS.iter().sum());
        pending.put(5, now);
        pending.remove(5);
        assert_eq!(pending.next(), None);
    }
}
