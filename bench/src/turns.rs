//! The same work under several conditions, by turns: what is compared was
//! measured seconds apart.

use anyhow::{Context, Result};

use crate::statistics::Spread;

/// Calls `run` for each of `conditions` in each of `rounds`; each round begins
/// with another one.
pub(crate) fn by_turns<C: Copy>(
    round: usize,
    conditions: &[C],
    mut run: impl FnMut(usize, C) -> Result<()>,
) -> Result<()> {
    for turn in 0..conditions.len() {
        let which = (round + turn) % conditions.len();
        if let Some(condition) = conditions.get(which) {
            run(which, *condition)?;
        }
    }
    Ok(())
}

/// What one kind of work gave, by condition, one sample a round.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(Vec<Vec<f64>>);

impl Samples {
    /// Room for so many conditions.
    pub(crate) fn of(conditions: usize) -> Self {
        Self(vec![Vec::new(); conditions])
    }

    pub(crate) fn add(&mut self, condition: usize, sample: f64) {
        if let Some(samples) = self.0.get_mut(condition) {
            samples.push(sample);
        }
    }

    /// Of one condition.
    pub(crate) fn spread(&self, condition: usize) -> Option<Spread> {
        Spread::of(self.0.get(condition)?)
    }

    /// Of each round's ratio of one condition to another in that round.
    pub(crate) fn ratio(&self, condition: usize, to: usize) -> Result<Spread> {
        let pairs = self.0.get(condition).zip(self.0.get(to));
        let ratios: Vec<f64> = pairs
            .map(|(these, those)| these.iter().zip(those).map(|(this, that)| this / that).collect())
            .unwrap_or_default();
        Spread::of(&ratios).context("nothing was measured")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_begins_with_another_one() {
        let mut order = Vec::new();
        for round in 0..3 {
            by_turns(round, &['a', 'b', 'c'], |index, condition| {
                order.push((index, condition));
                Ok(())
            })
            .unwrap();
        }
        let letters: String = order.iter().map(|(_, letter)| letter).collect();
        assert_eq!(letters, "abcbcacab");
        assert_eq!(order[3], (1, 'b'));
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let mut samples = Samples::of(2);
        for (first, second) in [(100.0, 50.0), (10.0, 20.0), (1.0, 1.0)] {
            samples.add(0, first);
            samples.add(1, second);
        }
        let ratio = samples.ratio(1, 0).unwrap();
        assert_eq!((ratio.median, ratio.least, ratio.greatest), (1.0, 0.5, 2.0));
        assert!(samples.ratio(2, 0).is_err());
        assert_eq!(samples.spread(0).unwrap().median, 10.0);
    }
}
