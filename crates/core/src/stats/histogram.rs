//! How often which value came: exact for small ones, within 1.6 % for others.

/// Buckets between a power of two and the next.
const STEPS: u64 = 32;
/// Values below this have a bucket each.
const EXACT_BELOW: u64 = 2 * STEPS;
/// No larger value has a bucket of its own: with microseconds, 12 days.
const VALUE_MAX: u64 = 1 << 40;

/// Counts of values in buckets whose width grows with the value: at most 1,153
/// of them, of which only those up to the largest value are allocated.
#[derive(Debug, Clone, Default)]
pub struct Histogram {
    counts: Vec<u64>,
    sum: u64,
    max: Option<u64>,
}

impl Histogram {
    /// Counts a value.
    pub fn add(&mut self, value: u64) {
        let bucket = bucket(value);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
            self.sum += 1;
            self.max = self.max.max(Some(value));
        }
    }

    /// The largest value, exactly.
    #[must_use]
    pub fn max(&self) -> Option<u64> {
        self.max
    }

    /// The value that so many percent (1 to 100) of all values do not exceed,
    /// by nearest rank. `None` without values.
    #[must_use]
    pub fn percentile(&self, percent: u64) -> Option<u64> {
        let max = self.max?;
        let rank = (u128::from(self.sum) * u128::from(percent)).div_ceil(100).max(1);
        let mut below = 0;
        let reached = self.counts.iter().position(|count| {
            below += u128::from(*count);
            below >= rank
        });
        Some(reached.map_or(max, |bucket| middle(bucket as u64).min(max)))
    }
}

fn bucket(value: u64) -> usize {
    let value = value.min(VALUE_MAX);
    if value < EXACT_BELOW {
        return value as usize;
    }
    // How often it must be halved to stand among the `STEPS` below `EXACT_BELOW`.
    let halvings = u64::from(value.ilog2() - STEPS.ilog2());
    (STEPS * halvings + (value >> halvings)) as usize
}

/// The middle of a bucket's values.
fn middle(bucket: u64) -> u64 {
    if bucket < EXACT_BELOW {
        return bucket;
    }
    let halvings = bucket / STEPS - 1;
    let first = (bucket - STEPS * halvings) << halvings;
    first + (1 << halvings) / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn buckets_follow_each_other() {
        let mut last = 0;
        for value in 0..100_000 {
            let bucket = bucket(value);
            assert!(bucket == last || bucket == last + 1, "{value}");
            last = bucket;
        }
        assert_eq!(bucket(u64::MAX), 1_152);
    }

    #[test]
    fn nothing_has_no_percentile() {
        assert_eq!((Histogram::default().percentile(50), Histogram::default().max()), (None, None));
    }

    proptest! {
        #[test]
        fn percentiles_are_those_of_the_values(
            mut values in proptest::collection::vec(0..VALUE_MAX, 1..300),
            shift in 0..40u32,
        ) {
            let mut histogram = Histogram::default();
            for value in &mut values {
                *value >>= shift;
                histogram.add(*value);
            }
            values.sort_unstable();
            for percent in [1, 50, 95, 99, 100] {
                let rank = (values.len() * percent as usize).div_ceil(100);
                let exact = values[rank - 1];
                let found = histogram.percentile(percent).unwrap();
                prop_assert!(found.abs_diff(exact) * 64 <= exact, "p{percent}: {found}, exactly {exact}");
            }
            prop_assert_eq!(histogram.max(), values.last().copied());
        }
    }
}
