//! The names that DNS answers gave to addresses, as many as there is room for.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::RandomState;

/// More addresses than a busy host talks to in a few minutes, at some 200 bytes
/// each. Whoever sends made-up answers cannot make weir hold more.
const NAMES_MAX: usize = 8_192;

/// A name is kept at least so long, whatever its time to live: answers of
/// content networks live for 20 to 60 seconds, but programs keep using the
/// address for as long as their connection pool or runtime keeps it.
const KEEP_MIN_S: u64 = 10 * 60;

const SECOND_NS: u64 = 1_000_000_000;

/// Names by address; the least recently used one makes room for a new one.
#[derive(Debug, Default)]
pub(super) struct NameCache {
    by_address: HashMap<IpAddr, Entry, RandomState>,
    /// Address by its last use: the first is the least recently used.
    by_use: BTreeMap<u64, IpAddr>,
    /// Goes up at each use.
    uses: u64,
    evicted: u64,
}

#[derive(Debug)]
struct Entry {
    name: Arc<str>,
    expires_ns: u64,
    last_use: u64,
}

impl NameCache {
    /// Two names for one address are common (virtual hosts, content networks).
    /// The last answer counts: a connection usually follows its answer at once.
    pub(super) fn learn(&mut self, name: &str, ip: IpAddr, ttl_s: u32, now_ns: u64) {
        let keep_s = u64::from(ttl_s).max(KEEP_MIN_S);
        let expires_ns = now_ns.saturating_add(keep_s * SECOND_NS);
        let name = match self.forget(ip) {
            Some(known) if *known.name == *name => known.name,
            _ => Arc::from(name),
        };
        if self.by_address.len() >= NAMES_MAX {
            self.evict(now_ns);
        }
        self.keep(ip, name, expires_ns);
    }

    pub(super) fn name(&mut self, ip: IpAddr, now_ns: u64) -> Option<Arc<str>> {
        let entry = self.forget(ip).filter(|entry| now_ns < entry.expires_ns)?;
        self.keep(ip, Arc::clone(&entry.name), entry.expires_ns);
        Some(entry.name)
    }

    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    fn keep(&mut self, ip: IpAddr, name: Arc<str>, expires_ns: u64) {
        self.uses += 1;
        self.by_use.insert(self.uses, ip);
        self.by_address.insert(ip, Entry { name, expires_ns, last_use: self.uses });
    }

    fn forget(&mut self, ip: IpAddr) -> Option<Entry> {
        let entry = self.by_address.remove(&ip)?;
        self.by_use.remove(&entry.last_use);
        Some(entry)
    }

    fn evict(&mut self, now_ns: u64) {
        let Some((_, ip)) = self.by_use.pop_first() else {
            return;
        };
        // An expired name was no use to anyone: nothing is lost with it.
        let lost = self.by_address.remove(&ip).is_some_and(|entry| now_ns < entry.expires_ns);
        self.evicted += u64::from(lost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn address(number: usize) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(0xc000_0000 + u32::try_from(number).unwrap()))
    }

    #[test]
    fn the_least_recently_used_name_makes_room() {
        let mut names = NameCache::default();
        for number in 0..NAMES_MAX {
            names.learn(&format!("host{number}.example"), address(number), 60, 0);
        }
        // Used and learned again: 0 and 1 are now newer than 2.
        assert_eq!(names.name(address(0), 1).as_deref(), Some("host0.example"));
        names.learn("host1.example", address(1), 60, 1);
        assert_eq!(names.evicted(), 0);
        names.learn("one.more", address(NAMES_MAX), 60, 1);
        assert_eq!(names.evicted(), 1);
        assert_eq!(names.name(address(2), 1), None);
        for (number, name) in [(0, "host0.example"), (1, "host1.example"), (NAMES_MAX, "one.more")] {
            assert_eq!(names.name(address(number), 1).as_deref(), Some(name));
        }
        assert_eq!((names.by_address.len(), names.by_use.len()), (NAMES_MAX, NAMES_MAX));
    }

    #[test]
    fn an_expired_name_is_no_loss() {
        let mut names = NameCache::default();
        for number in 0..NAMES_MAX {
            names.learn("old.example", address(number), 0, 0);
        }
        names.learn("new.example", address(NAMES_MAX), 0, KEEP_MIN_S * SECOND_NS);
        assert_eq!(names.evicted(), 0);
        assert_eq!(names.by_address.len(), NAMES_MAX);
        assert_eq!(names.name(address(1), KEEP_MIN_S * SECOND_NS), None);
        assert_eq!(names.by_address.len(), NAMES_MAX - 1, "expired names leave when asked for");
    }

    #[test]
    fn times_to_live_cannot_overflow() {
        let mut names = NameCache::default();
        names.learn("forever.example", address(0), u32::MAX, u64::MAX - 1);
        assert!(names.name(address(0), u64::MAX - 1).is_some());
    }
}
