//! Whose datagrams are, as their first fragments said: the others have no ports.

use std::collections::{HashMap, VecDeque};

use super::fragments::Key;
use crate::flow::{FlowKey, Side};

/// As many as the map `fragments` of the programs has room for.
pub(super) const FIRSTS_MAX: usize = 8_192;

/// First fragments, the oldest forgotten when there are too many. As with the programs, a
/// datagram that is complete is remembered like any other: a fragment of it may come again.
#[derive(Debug, Default)]
pub(super) struct Firsts {
    ends: HashMap<Key, Remembered>,
    /// Each time that one was remembered, the last one of it with its present number.
    order: VecDeque<(Key, u64)>,
    next: u64,
}

#[derive(Debug)]
struct Remembered {
    ends: (FlowKey, Side),
    number: u64,
}

impl Firsts {
    pub(super) fn remember(&mut self, key: Key, ends: (FlowKey, Side)) {
        self.ends.insert(key, Remembered { ends, number: self.next });
        self.order.push_back((key, self.next));
        self.next += 1;
        if self.order.len() > 2 * FIRSTS_MAX {
            let known = &self.ends;
            self.order.retain(|(key, number)| known.get(key).is_some_and(|one| one.number == *number));
        }
        while self.ends.len() > FIRSTS_MAX {
            let Some((key, number)) = self.order.pop_front() else { return };
            if self.ends.get(&key).is_some_and(|one| one.number == number) {
                self.ends.remove(&key);
            }
        }
    }

    pub(super) fn of(&self, key: &Key) -> Option<(FlowKey, Side)> {
        self.ends.get(key).map(|one| one.ends)
    }

    #[cfg(test)]
    pub(super) fn lengths(&self) -> (usize, usize) {
        (self.ends.len(), self.order.len())
    }
}
