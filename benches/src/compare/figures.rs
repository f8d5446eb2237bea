//! What one side measured in all its repetitions.

use serde::Serialize;

/// For each quantity the values in the order of the repetitions.
#[derive(Debug, Default)]
pub(super) struct Figures(Vec<Vec<f64>>);

impl Figures {
    /// Adds one repetition: a value for each quantity.
    pub(super) fn add(&mut self, values: Vec<f64>) {
        self.0.resize_with(values.len(), Vec::new);
        self.0.iter_mut().zip(values).for_each(|(all, value)| all.push(value));
    }

    /// All values of a quantity, in the order of the repetitions.
    pub(super) fn values(&self, quantity: usize) -> &[f64] {
        self.0.get(quantity).map_or(&[], Vec::as_slice)
    }

    pub(super) fn of(&self, quantity: usize) -> Option<Spread> {
        let mut values = self.0.get(quantity)?.clone();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = match values.len() {
            0 => return None,
            length if length % 2 == 0 => f64::midpoint(values[middle - 1], values[middle]),
            _ => values[middle],
        };
        Some(Spread { median, min: *values.first()?, max: *values.last()? })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

/// How much larger one is than another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Ratio {
    Of(f64),
    /// Their ranges overlap: which is larger was not measured.
    Indistinguishable,
}

impl Spread {
    /// The ratio of the medians, unless it says nothing; none by zero.
    pub(super) fn ratio_to(self, other: Self) -> Option<Ratio> {
        if other.median <= 0.0 {
            return None;
        }
        let overlap = self.min <= other.max && other.min <= self.max;
        // What came out once, or the same each time, is no range.
        let are_ranges = self.min < self.max || other.min < other.max;
        let ratio = self.median / other.median;
        Some(if overlap && are_ranges { Ratio::Indistinguishable } else { Ratio::Of(ratio) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_ranges() {
        let mut figures = Figures::default();
        for value in [3.0, 1.0, 9.0] {
            figures.add(vec![value, -value]);
        }
        assert_eq!(figures.of(0), Some(Spread { median: 3.0, min: 1.0, max: 9.0 }));
        assert_eq!(figures.of(1), Some(Spread { median: -3.0, min: -9.0, max: -1.0 }));
        assert_eq!(figures.of(2), None);
        figures.add(vec![5.0, 0.0]);
        assert_eq!(figures.of(0).unwrap().median, 4.0);
        assert_eq!((figures.values(0), figures.values(2)), (&[3.0, 1.0, 9.0, 5.0][..], &[][..]));
    }

    #[test]
    fn where_ranges_overlap_there_is_no_ratio() {
        let spread = |min, median, max| Spread { median, min, max };
        let other = spread(2.0, 2.5, 3.0);
        assert_eq!(spread(4.0, 5.0, 6.0).ratio_to(other), Some(Ratio::Of(2.0)));
        assert_eq!(spread(1.0, 1.25, 1.9).ratio_to(other), Some(Ratio::Of(0.5)));
        for touching in [spread(3.0, 5.0, 6.0), spread(1.0, 1.5, 2.0), spread(1.0, 2.5, 9.0), other] {
            assert_eq!(touching.ratio_to(other), Some(Ratio::Indistinguishable), "{touching:?}");
        }
        // Instructions come out once, and may well be the same.
        let once = spread(7.0, 7.0, 7.0);
        assert_eq!(once.ratio_to(once), Some(Ratio::Of(1.0)));
        assert_eq!(once.ratio_to(spread(0.0, 0.0, 0.0)), None);
    }
}
