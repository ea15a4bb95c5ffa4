//! By the number that an answer has of its request.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use foldhash::fast::RandomState;

/// For protocols whose answers carry their request's number.
#[derive(Debug)]
pub struct Keyed<K, T> {
    pending: HashMap<K, (u64, T), RandomState>,
    order: VecDeque<(u64, K)>,
    next: u64,
    pending_max: usize,
}

impl<K: Hash + Eq + Clone, T> Keyed<K, T> {
    /// With room for so many requests without an answer.
    #[must_use]
    pub fn new(pending_max: usize) -> Self {
        Self { pending: HashMap::default(), order: VecDeque::new(), next: 0, pending_max: pending_max.max(1) }
    }

    /// A request; gives back one that will not be paired any more: an older one
    /// with this key, or the oldest of all when there are too many.
    pub fn ask(&mut self, key: K, request: T) -> Option<T> {
        let number = self.next;
        self.next += 1;
        let mut dropped = self.pending.insert(key.clone(), (number, request)).map(|(_, older)| older);
        self.order.push_back((number, key));
        while self.pending.len() > self.pending_max {
            let Some((number, key)) = self.order.pop_front() else { break };
            if self.pending.get(&key).is_some_and(|(current, _)| *current == number) {
                dropped = self.pending.remove(&key).map(|(_, oldest)| oldest);
            }
        }
        if self.order.len() > 2 * self.pending_max {
            let pending = &self.pending;
            self.order.retain(|(number, key)| pending.get(key).is_some_and(|(current, _)| current == number));
        }
        dropped
    }

    /// An answer: the request that it belongs to.
    pub fn answer(&mut self, key: &K) -> Option<T> {
        self.pending.remove(key).map(|(_, request)| request)
    }

    /// The request that waits under this key.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&T> {
        self.pending.get(key).map(|(_, request)| request)
    }

    /// The request that waits under this key.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut T> {
        self.pending.get_mut(key).map(|(_, request)| request)
    }

    /// Whether a request waits under this key.
    #[must_use]
    pub fn contains(&self, key: &K) -> bool {
        self.pending.contains_key(key)
    }

    /// How many requests wait for their answer.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pending.len()
    }

    /// Whether no request waits for its answer.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Everything that still waits, in the order of asking.
    pub fn drain(&mut self) -> Vec<T> {
        let pending = &mut self.pending;
        let in_order = self.order.drain(..).filter_map(|(number, key)| {
            let current = pending.get(&key).is_some_and(|(current, _)| *current == number);
            if current { pending.remove(&key).map(|(_, request)| request) } else { None }
        });
        in_order.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tell_which() {
        let mut keyed = Keyed::new(2);
        assert_eq!(keyed.ask(7, "a"), None);
        assert_eq!(keyed.ask(7, "b"), Some("a"), "asked again");
        assert_eq!(keyed.ask(8, "c"), None);
        assert_eq!(keyed.ask(9, "d"), Some("b"), "no room");
        assert_eq!((keyed.answer(&9), keyed.answer(&7)), (Some("d"), None));
        assert_eq!(keyed.drain(), ["c"]);
        for key in 0..100 {
            keyed.ask(key, "e");
            keyed.answer(&key);
        }
        assert!(keyed.order.len() <= 4 && keyed.is_empty());
    }
}
