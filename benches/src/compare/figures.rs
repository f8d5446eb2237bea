//! What one side measured in all its repetitions.

/// For each quantity the values in the order of the repetitions.
#[derive(Debug, Default)]
pub(super) struct Figures(Vec<Vec<f64>>);

impl Figures {
    /// Adds one repetition: a value for each quantity.
    pub(super) fn add(&mut self, values: Vec<f64>) {
        self.0.resize_with(values.len(), Vec::new);
        self.0.iter_mut().zip(values).for_each(|(all, value)| all.push(value));
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

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
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
    }
}
