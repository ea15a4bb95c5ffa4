//! Joins the fragments of IP datagrams.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;

use super::Datagram;
use super::cursor::Cursor;
use crate::flow::Protocol;

/// First fragments that are remembered: as many as the map `fragments` of the programs has room for.
pub(super) const FIRSTS_MAX: usize = 8_192;
/// Datagrams that wait for more.
const WAITING_MAX: usize = 256;
/// The longest that IP can carry.
const DATAGRAM_BYTES_MAX: usize = 65_535;
/// Fragments of one datagram: 65,535 bytes in the smallest usual pieces.
const FRAGMENTS_MAX: usize = 128;
/// As receivers do (RFC 8200).
const PATIENCE_NS: u64 = 60_000_000_000;

/// What the header says of a fragment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fragment {
    pub(super) id: u32,
    /// Of its first byte in the datagram.
    pub(super) place: usize,
    /// It is not the last one.
    pub(super) more: bool,
}

/// What the fragments of a datagram have in common.
pub(super) type Key = (IpAddr, IpAddr, Protocol, u32);

pub(super) fn key(datagram: &Datagram<'_>, fragment: Fragment) -> Key {
    (datagram.source, datagram.destination, datagram.protocol, fragment.id)
}

#[derive(Debug, Default)]
pub(super) struct Fragments {
    pub(super) waiting: HashMap<Key, Waiting>,
    /// In the order in which their first fragment came.
    order: VecDeque<(Key, u64)>,
    dropped: u64,
}

#[derive(Debug)]
pub(super) struct Waiting {
    since_ns: u64,
    pieces: BTreeMap<usize, Vec<u8>>,
    /// Where it ends, once its last fragment has come.
    length: Option<usize>,
}

impl Fragments {
    pub(super) fn unjoined(&self) -> u64 {
        self.dropped + self.waiting.values().map(|one| one.pieces.len() as u64).sum::<u64>()
    }

    /// Keeps a fragment. Whether none is missing: then the whole datagram is in `joined`.
    pub(super) fn add(
        &mut self,
        key: Key,
        cursor: Cursor<'_>,
        fragment: Fragment,
        time_ns: u64,
        joined: &mut Vec<u8>,
    ) -> bool {
        self.forget_old(time_ns);
        let bytes = cursor.rest;
        let end = fragment.place + bytes.len();
        let order = &mut self.order;
        let one = self.waiting.entry(key).or_insert_with(|| {
            order.push_back((key, time_ns));
            Waiting { since_ns: time_ns, pieces: BTreeMap::new(), length: None }
        });
        // What was captured in part only can never be joined.
        let is_whole = !bytes.is_empty() && end <= DATAGRAM_BYTES_MAX && bytes.len() == cursor.sent;
        if !is_whole || one.pieces.len() >= FRAGMENTS_MAX {
            self.dropped += 1;
            return false;
        }
        if !fragment.more {
            one.length.get_or_insert(end);
        }
        // The first copy counts.
        one.pieces.entry(fragment.place).or_insert_with(|| bytes.to_vec());
        let is_whole = one.join(joined);
        if is_whole {
            self.waiting.remove(&key);
        }
        is_whole
    }

    fn forget_old(&mut self, now_ns: u64) {
        while let Some((key, since_ns)) = self.order.front().copied() {
            let current = self.waiting.get(&key).is_some_and(|one| one.since_ns == since_ns);
            if current && self.waiting.len() < WAITING_MAX && since_ns.saturating_add(PATIENCE_NS) >= now_ns {
                return;
            }
            self.order.pop_front();
            if current && let Some(one) = self.waiting.remove(&key) {
                self.dropped += one.pieces.len() as u64;
            }
        }
    }
}

impl Waiting {
    fn join(&self, joined: &mut Vec<u8>) -> bool {
        let Some(length) = self.length else { return false };
        joined.clear();
        for (place, bytes) in &self.pieces {
            match joined.len().checked_sub(*place) {
                None => return false,
                Some(overlap) => joined.extend_from_slice(bytes.get(overlap..).unwrap_or_default()),
            }
        }
        joined.len() == length
    }
}
