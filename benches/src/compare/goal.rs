//! What a row should come to, and whether it does.

use std::fmt;

use super::figures::Spread;

#[derive(Clone, Copy, Debug)]
pub(super) struct Goal {
    quantity: Quantity,
    direction: Direction,
    limit: f64,
    /// What is hoped for beyond it.
    stretch: Option<f64>,
    force: Force,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Quantity {
    /// Our median by the other one.
    Ratio,
    /// Our median, whatever the other one is.
    Median,
    /// The worst of our values.
    Worst,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Direction {
    AtLeast,
    AtMost,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Force {
    /// It depends on the machine and its mood: missing it fails nothing.
    Timing,
    /// The same up to so many times the other one: more than that is a defect, however busy the machine was.
    TimingUpTo(f64),
    /// It does not depend on the machine's speed: missing it is a defect.
    Bound,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    NoGoal,
    Met,
    /// So is what was only hoped for.
    Exceeded,
    Missed,
    Broken,
}

impl Goal {
    /// Our median is at least so many times the other one.
    pub(super) const fn at_least(limit: f64) -> Self {
        Self::new(Quantity::Ratio, Direction::AtLeast, limit, Force::Timing)
    }

    /// Our median is at most so many times the other one.
    pub(super) const fn at_most(limit: f64) -> Self {
        Self::new(Quantity::Ratio, Direction::AtMost, limit, Force::Timing)
    }

    /// Our median itself is at most this, on a machine like that of the goal.
    pub(super) const fn median_at_most(limit: f64) -> Self {
        Self::new(Quantity::Median, Direction::AtMost, limit, Force::Timing)
    }

    /// No value of ours is above this, whatever the machine.
    pub(super) const fn bound(limit: f64) -> Self {
        Self::new(Quantity::Worst, Direction::AtMost, limit, Force::Bound)
    }

    /// The same for our median by the other one.
    pub(super) const fn bound_ratio(limit: f64) -> Self {
        Self::new(Quantity::Ratio, Direction::AtMost, limit, Force::Bound)
    }

    /// What one costs has grown to at most so many times what it was where there were few; to `defect` times, and it was not
    /// the machine.
    pub(super) const fn grows_at_most(limit: f64, defect: f64) -> Self {
        Self::new(Quantity::Ratio, Direction::AtMost, limit, Force::TimingUpTo(defect))
    }

    const fn new(quantity: Quantity, direction: Direction, limit: f64, force: Force) -> Self {
        Self { quantity, direction, limit, stretch: None, force }
    }

    /// Beyond the limit, this much is hoped for; not to reach it is no miss.
    pub(super) const fn stretch(self, stretch: f64) -> Self {
        Self { stretch: Some(stretch), ..self }
    }

    pub(super) fn verdict(self, ours: Spread, ratio: Option<f64>) -> Verdict {
        let value = match (self.quantity, ratio) {
            (Quantity::Median, _) => ours.median,
            (Quantity::Worst, _) => ours.max,
            (Quantity::Ratio, Some(ratio)) => ratio,
            (Quantity::Ratio, None) => f64::NAN,
        };
        let reaches = |limit| match self.direction {
            Direction::AtLeast => value >= limit,
            Direction::AtMost => value <= limit,
        };
        match (reaches(self.limit), self.force) {
            (true, _) if self.stretch.is_some_and(reaches) => Verdict::Exceeded,
            (true, _) => Verdict::Met,
            (false, Force::Timing) => Verdict::Missed,
            (false, Force::TimingUpTo(defect)) if value > defect => Verdict::Broken,
            (false, Force::TimingUpTo(_)) => Verdict::Missed,
            (false, Force::Bound) => Verdict::Broken,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = match self.direction {
            Direction::AtLeast => "≥",
            Direction::AtMost => "≤",
        };
        match self.quantity {
            Quantity::Ratio => write!(f, "{direction} {:.2} ×", self.limit)?,
            Quantity::Median | Quantity::Worst => write!(f, "{direction} {}", self.limit)?,
        }
        match (self.quantity, self.stretch) {
            (_, None) => Ok(()),
            (Quantity::Ratio, Some(stretch)) => write!(f, " ({stretch:.2})"),
            (_, Some(stretch)) => write!(f, " ({stretch})"),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NoGoal => "",
            Self::Met => "met",
            Self::Exceeded => "exceeded",
            Self::Missed => "missed",
            Self::Broken => "BROKEN",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goals_say() {
        let ours = Spread { median: 2.0, min: 1.0, max: 3.0 };
        assert_eq!(Goal::at_least(1.3).verdict(ours, Some(1.3)), Verdict::Met);
        assert_eq!(Goal::at_least(1.3).verdict(ours, Some(1.2)), Verdict::Missed);
        assert_eq!(Goal::at_most(1.25).verdict(ours, Some(1.2)), Verdict::Met);
        // A median would hide the one run that lost something.
        assert_eq!(Goal::bound(2.0).verdict(ours, None), Verdict::Broken);
        assert_eq!(Goal::bound(3.0).verdict(ours, None), Verdict::Met);
        assert_eq!(Goal::bound_ratio(1.25).verdict(ours, None), Verdict::Broken, "nothing was measured");
        let growth = Goal::grows_at_most(2.0, 10.0);
        assert_eq!(growth.verdict(ours, Some(1.9)), Verdict::Met);
        assert_eq!(growth.verdict(ours, Some(9.0)), Verdict::Missed);
        assert_eq!(growth.verdict(ours, Some(11.0)), Verdict::Broken);
        assert_eq!(Goal::at_least(1.0).stretch(1.9).verdict(ours, Some(1.9)), Verdict::Exceeded);
        assert_eq!(Goal::at_least(1.0).stretch(1.9).verdict(ours, Some(1.2)), Verdict::Met);
        assert_eq!(Goal::at_least(1.0).stretch(1.9).verdict(ours, Some(0.9)), Verdict::Missed);
        assert_eq!(Goal::at_least(1.0).stretch(1.9).to_string(), "≥ 1.00 × (1.90)");
        // Of a time it is the median that counts: one value is a mood of the machine.
        assert_eq!(Goal::median_at_most(2.5).verdict(ours, Some(9.0)), Verdict::Met);
        assert_eq!(Goal::median_at_most(2.5).stretch(2.0).verdict(ours, None), Verdict::Exceeded);
        assert_eq!(Goal::median_at_most(120.0).stretch(60.0).to_string(), "≤ 120 (60)");
        assert_eq!(Goal::bound(3_000.0).to_string(), "≤ 3000");
    }
}
