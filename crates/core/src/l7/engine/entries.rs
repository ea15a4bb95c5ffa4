//! What the engine holds, found by its key and by how long it was silent.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::flow::FlowKey;

/// No place.
const NOWHERE: usize = usize::MAX;

/// Values by key, each in one of two queues: the one that was used last stands
/// at its end. Everything takes the same time however many there are.
pub(super) struct Entries<T> {
    places: HashMap<FlowKey, usize, RandomState>,
    slots: Vec<Slot<T>>,
    free: Vec<usize>,
    queues: [Queue; 2],
}

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Stream,
    Datagrams,
}

struct Slot<T> {
    key: FlowKey,
    kind: Kind,
    /// `None`: free.
    value: Option<T>,
    older: usize,
    newer: usize,
}

#[derive(Clone, Copy)]
struct Queue {
    oldest: usize,
    newest: usize,
}

impl<T> Default for Entries<T> {
    fn default() -> Self {
        let empty = Queue { oldest: NOWHERE, newest: NOWHERE };
        Self { places: HashMap::default(), slots: Vec::new(), free: Vec::new(), queues: [empty; 2] }
    }
}

impl<T> Entries<T> {
    pub(super) fn place(&self, key: &FlowKey) -> Option<usize> {
        self.places.get(key).copied()
    }

    pub(super) fn get(&self, place: usize) -> Option<&T> {
        self.slots.get(place)?.value.as_ref()
    }

    pub(super) fn get_mut(&mut self, place: usize) -> Option<&mut T> {
        self.slots.get_mut(place)?.value.as_mut()
    }

    /// A key that was not there before; it stands at the end of its queue.
    pub(super) fn insert(&mut self, key: FlowKey, kind: Kind, value: T) -> usize {
        let slot = Slot { key, kind, value: Some(value), older: NOWHERE, newer: NOWHERE };
        let place = match self.free.pop() {
            Some(place) => {
                self.slots[place] = slot;
                place
            }
            None => {
                self.slots.push(slot);
                self.slots.len() - 1
            }
        };
        self.places.insert(key, place);
        self.link(place);
        place
    }

    pub(super) fn remove(&mut self, place: usize) -> Option<(FlowKey, T)> {
        let slot = self.slots.get_mut(place)?;
        let (key, value) = (slot.key, slot.value.take()?);
        self.unlink(place);
        self.places.remove(&key);
        self.free.push(place);
        Some((key, value))
    }

    /// To the end of its queue.
    pub(super) fn touch(&mut self, place: usize) {
        let Some(slot) = self.slots.get(place) else { return };
        if slot.value.is_some() && self.queues[slot.kind as usize].newest != place {
            self.unlink(place);
            self.link(place);
        }
    }

    /// The one that was not used for longest.
    pub(super) fn oldest(&self, kind: Kind) -> Option<usize> {
        let place = self.queues[kind as usize].oldest;
        (place != NOWHERE).then_some(place)
    }

    /// All places in use.
    pub(super) fn places(&self) -> Vec<usize> {
        self.places.values().copied().collect()
    }

    fn link(&mut self, place: usize) {
        let queue = &mut self.queues[self.slots[place].kind as usize];
        let before = std::mem::replace(&mut queue.newest, place);
        self.slots[place].older = before;
        self.slots[place].newer = NOWHERE;
        match self.slots.get_mut(before) {
            Some(slot) => slot.newer = place,
            None => queue.oldest = place,
        }
    }

    fn unlink(&mut self, place: usize) {
        let Slot { kind, older, newer, .. } = self.slots[place];
        let queue = &mut self.queues[kind as usize];
        match self.slots.get_mut(older) {
            Some(slot) => slot.newer = newer,
            None => queue.oldest = newer,
        }
        match self.slots.get_mut(newer) {
            Some(slot) => slot.older = older,
            None => queue.newest = older,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Protocol;

    fn key(port: u16) -> FlowKey {
        FlowKey::between(([10, 0, 0, 2], port).into(), ([10, 0, 0, 1], 80).into(), Protocol::TCP).0
    }

    fn drain(entries: &mut Entries<u16>, kind: Kind) -> Vec<u16> {
        std::iter::from_fn(|| entries.oldest(kind).and_then(|place| entries.remove(place)))
            .map(|(_, value)| value)
            .collect()
    }

    #[test]
    fn the_oldest_goes_first() {
        let mut entries = Entries::default();
        for port in 1..=5 {
            entries.insert(key(port), if port == 3 { Kind::Datagrams } else { Kind::Stream }, port);
        }
        let place = |entries: &Entries<u16>, port| entries.place(&key(port)).unwrap();
        entries.touch(place(&entries, 1));
        entries.touch(place(&entries, 5));
        entries.touch(place(&entries, 5));
        let second = place(&entries, 2);
        assert_eq!(entries.remove(second), Some((key(2), 2)));
        assert_eq!(entries.remove(second), None);
        entries.touch(second);
        assert_eq!(entries.insert(key(6), Kind::Stream, 6), second, "places are used again");
        *entries.get_mut(second).unwrap() += 1;
        assert_eq!((entries.get(second), entries.places().len()), (Some(&7), 5));
        assert_eq!(drain(&mut entries, Kind::Stream), [4, 1, 5, 7]);
        assert_eq!(drain(&mut entries, Kind::Datagrams), [3]);
        assert_eq!(entries.place(&key(1)), None);
    }
}
