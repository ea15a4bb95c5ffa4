//! Medians, and how far the samples lie apart.

use std::fmt;

/// Median, least and greatest of some samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) greatest: f64,
}

impl Spread {
    /// None without samples. The median of an even number of samples is the mean
    /// of the two in the middle.
    pub(crate) fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (least, greatest) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let above = sorted.get(middle)?;
        let below = if sorted.len() % 2 == 1 { above } else { sorted.get(middle - 1)? };
        Some(Self { median: f64::midpoint(*above, *below), least, greatest })
    }
}

impl fmt::Display for Spread {
    /// As ratios are written in the tables.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} ({:.2} to {:.2})", self.median, self.least, self.greatest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(Spread::of(&[]), None);
        let spread = |median, least, greatest| Some(Spread { median, least, greatest });
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), spread(2.0, 1.0, 3.0));
        assert_eq!(Spread::of(&[4.0, 1.0, 2.0, 3.0]), spread(2.5, 1.0, 4.0));
        assert_eq!(Spread::of(&[7.0]), spread(7.0, 7.0, 7.0));
    }
}
