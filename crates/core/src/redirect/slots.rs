//! Which target a connection goes to: a table of slots, of which the
//! connection's hash picks one.
//!
//! Filled as Maglev does it ("Maglev: A Fast and Reliable Software Network Load
//! Balancer", NSDI 2016, section 3.4): every target walks through the table in
//! an order of its own, which only its identity decides, and they take turns in
//! claiming the next free slot. So shares are as even as the table allows, and
//! when a target comes or goes, most of the others' slots stay theirs.

use super::{SLOTS, TargetId};

/// A target that wants its share of the slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    /// What it is called; the same as long as it means the same to the user,
    /// whatever its address.
    pub(super) identity: String,
    /// What stands in its slots.
    pub(super) id: TargetId,
    /// Its share, in comparison with the others': 1 or more.
    pub(super) weight: u32,
}

/// The filled table; empty, where nobody wants a share.
pub(super) fn fill(candidates: &[Candidate]) -> Vec<TargetId> {
    // The order of turns decides who gets a slot that two want next. By
    // identity: in which order the user names them does not matter.
    let mut sorted: Vec<&Candidate> = candidates.iter().collect();
    sorted.sort_by(|a, b| a.identity.cmp(&b.identity).then(a.id.cmp(&b.id)));
    let heaviest = sorted.iter().map(|candidate| u64::from(candidate.weight)).max().unwrap_or(0);
    let mut claimants: Vec<Claimant> = sorted
        .iter()
        .zip(quotas(&sorted))
        .map(|(candidate, quota)| Claimant {
            id: candidate.id,
            weight: u64::from(candidate.weight),
            walk: Walk::new(&candidate.identity),
            quota,
            due: heaviest,
        })
        .collect();
    let mut slots = vec![None; SLOTS];
    let mut round = 0;
    while claimants.iter().any(|claimant| claimant.quota > 0) {
        round += 1;
        for claimant in &mut claimants {
            // The heaviest has a turn in each round, half its weight in every other.
            if claimant.quota == 0 || round * claimant.weight < claimant.due {
                continue;
            }
            claimant.due += heaviest;
            if let Some(slot) = claimant.walk.find(|slot| slots[*slot].is_none()) {
                slots[slot] = Some(claimant.id);
                claimant.quota -= 1;
            }
        }
    }
    slots.into_iter().flatten().collect()
}

/// How many slots each gets: its share by weight, rounded down, and what is left
/// over to those whose shares were rounded most.
fn quotas(candidates: &[&Candidate]) -> Vec<usize> {
    let total: u64 = candidates.iter().map(|candidate| u64::from(candidate.weight)).sum();
    let shares: Vec<u64> =
        candidates.iter().map(|candidate| u64::from(candidate.weight) * SLOTS as u64).collect();
    let mut quotas: Vec<usize> = shares.iter().map(|share| (share / total.max(1)) as usize).collect();
    let mut rounded: Vec<usize> = (0..candidates.len()).collect();
    rounded.sort_by_key(|index| std::cmp::Reverse(shares.get(*index).map(|share| share % total.max(1))));
    let left_over = SLOTS - quotas.iter().sum::<usize>();
    for index in rounded.into_iter().take(left_over) {
        quotas[index] += 1;
    }
    quotas
}

struct Claimant {
    id: TargetId,
    weight: u64,
    walk: Walk,
    /// Slots that it still gets.
    quota: usize,
    /// It has a turn when rounds times weight reach this.
    due: u64,
}

/// All slots, in one target's own order.
struct Walk {
    next: usize,
    stride: usize,
    left: usize,
}

impl Walk {
    fn new(identity: &str) -> Self {
        let hash = hash(identity.as_bytes());
        let slots = SLOTS as u64;
        // The table's size is prime: every stride below it reaches all slots.
        let (next, stride) = (hash % slots, (hash / slots) % (slots - 1) + 1);
        Self { next: next as usize, stride: stride as usize, left: SLOTS }
    }
}

impl Iterator for Walk {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let slot = self.next;
        self.next = (self.next + self.stride) % SLOTS;
        Some(slot)
    }
}

/// FNV-1a, and a last mixing (of splitmix64), without which similar names have
/// similar high bits. The same on every machine and in every version: what it
/// decides must not change with an upgrade.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidate(identity: &str, id: u32, weight: u32) -> Candidate {
        Candidate { identity: identity.into(), id: TargetId(id), weight }
    }

    fn share(slots: &[TargetId], id: TargetId) -> usize {
        slots.iter().filter(|slot| **slot == id).count()
    }

    /// How many slots of those that both tables give to anybody but `except`
    /// changed hands.
    fn moved(before: &[TargetId], after: &[TargetId], except: TargetId) -> usize {
        let kept = |slot: &(&TargetId, &TargetId)| *slot.0 != except && *slot.1 != except;
        before.iter().zip(after).filter(kept).filter(|(before, after)| before != after).count()
    }

    #[test]
    fn nobody_gets_nothing_and_one_gets_all() {
        assert_eq!(fill(&[]), []);
        assert_eq!(fill(&[candidate("web", 7, 3)]), vec![TargetId(7); SLOTS]);
    }

    #[test]
    fn nine_to_one() {
        let slots = fill(&[candidate("web-v1", 1, 9), candidate("web-v2", 2, 1)]);
        assert_eq!((share(&slots, TargetId(1)), share(&slots, TargetId(2))), (226, 25));
    }

    #[test]
    fn the_table_never_changes_with_an_upgrade() {
        assert_eq!(hash(b"web"), 14_434_300_961_556_231_667);
    }

    fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
        prop::collection::vec(1_u32..=100, 2..12).prop_map(|weights| {
            let one = |(index, weight): (usize, &u32)| {
                candidate(&format!("web-{index}"), index as u32 + 1, *weight)
            };
            weights.iter().enumerate().map(one).collect()
        })
    }

    proptest! {
        #[test]
        fn shares_are_as_even_as_weights_allow(candidates in candidates()) {
            let slots = fill(&candidates);
            prop_assert_eq!(slots.len(), SLOTS);
            let total: u32 = candidates.iter().map(|one| one.weight).sum();
            for one in &candidates {
                let exact = SLOTS as f64 * f64::from(one.weight) / f64::from(total);
                let share = share(&slots, one.id) as f64;
                prop_assert!((share - exact).abs() < 1.0, "{} has {share}, not {exact}", one.identity);
            }
        }

        #[test]
        fn the_order_in_which_they_are_named_does_not_matter(candidates in candidates()) {
            let mut reversed = candidates.clone();
            reversed.reverse();
            prop_assert_eq!(fill(&candidates), fill(&reversed));
        }

        /// A target that goes gives its slots to the others, and a few more
        /// change hands: 7 of 251 on average of such tables.
        #[test]
        fn most_slots_stay_when_one_goes_or_comes(candidates in candidates(), index: prop::sample::Index) {
            let gone = index.get(&candidates).clone();
            let others: Vec<_> = candidates.iter().filter(|one| **one != gone).cloned().collect();
            let (with, without) = (fill(&candidates), fill(&others));
            let had = share(&with, gone.id);
            let moved = moved(&with, &without, gone.id);
            prop_assert!(moved <= SLOTS / 8, "{moved} of the others' slots moved for {had}");
        }
    }
}
