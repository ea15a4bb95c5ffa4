//! The newest of what has a key.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use foldhash::fast::RandomState;

/// A map with room for so many: the oldest gives way to a new one. In [`l7`](crate::l7) for protocols
/// whose answers carry their request's number.
#[derive(Debug)]
pub struct Keyed<K, T> {
    values: HashMap<K, (u64, T), RandomState>,
    order: VecDeque<(u64, K)>,
    next: u64,
    room: usize,
}

impl<K: Hash + Eq + Clone, T> Keyed<K, T> {
    /// With room for so many.
    #[must_use]
    pub fn new(room: usize) -> Self {
        Self { values: HashMap::default(), order: VecDeque::new(), next: 0, room: room.max(1) }
    }

    /// Takes a value; gives back the one that it drives out: an older one with this key,
    /// or the oldest of all when there are too many.
    pub fn insert(&mut self, key: K, value: T) -> Option<T> {
        let number = self.next;
        self.next += 1;
        let mut dropped = self.values.insert(key.clone(), (number, value)).map(|(_, older)| older);
        self.order.push_back((number, key));
        while self.values.len() > self.room {
            let Some((number, key)) = self.order.pop_front() else { break };
            if self.values.get(&key).is_some_and(|(current, _)| *current == number) {
                dropped = self.values.remove(&key).map(|(_, oldest)| oldest);
            }
        }
        if self.order.len() > 2 * self.room {
            let values = &self.values;
            self.order.retain(|(number, key)| values.get(key).is_some_and(|(current, _)| current == number));
        }
        dropped
    }

    /// Takes out what stands under this key.
    pub fn remove(&mut self, key: &K) -> Option<T> {
        self.values.remove(key).map(|(_, value)| value)
    }

    /// What stands under this key.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&T> {
        self.values.get(key).map(|(_, value)| value)
    }

    /// What stands under this key.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut T> {
        self.values.get_mut(key).map(|(_, value)| value)
    }

    /// Whether anything stands under this key.
    #[must_use]
    pub fn contains(&self, key: &K) -> bool {
        self.values.contains_key(key)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Takes out everything, in the order in which it came.
    pub fn drain(&mut self) -> Vec<T> {
        let values = &mut self.values;
        let in_order = self.order.drain(..).filter_map(|(number, key)| {
            let current = values.get(&key).is_some_and(|(current, _)| *current == number);
            if current { values.remove(&key).map(|(_, value)| value) } else { None }
        });
        in_order.collect()
    }

    /// How many there are, and how many places are kept for their order.
    #[cfg(test)]
    pub(crate) fn lengths(&self) -> (usize, usize) {
        (self.values.len(), self.order.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tell_which() {
        let mut keyed = Keyed::new(2);
        assert_eq!(keyed.insert(7, "a"), None);
        assert_eq!(keyed.insert(7, "b"), Some("a"), "asked again");
        assert_eq!(keyed.insert(8, "c"), None);
        assert_eq!(keyed.insert(9, "d"), Some("b"), "no room");
        assert_eq!((keyed.remove(&9), keyed.remove(&7)), (Some("d"), None));
        assert_eq!(keyed.drain(), ["c"]);
        for key in 0..100 {
            keyed.insert(key, "e");
            keyed.remove(&key);
        }
        assert!(keyed.order.len() <= 4 && keyed.is_empty());
    }
}
