//! What came of each row, for programs: written as JSON, and looked up again where a figure must not grow.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::figures::{Ratio, Spread};
use crate::job::Failure;

/// One run.
#[derive(Debug, Default, Serialize)]
pub(super) struct Run {
    /// Whether it was a short one.
    pub(super) quick: bool,
    pub(super) machine: String,
    /// The versions of other libraries, if those were measured.
    pub(super) peers: Vec<String>,
    pub(super) rows: Vec<Line>,
}

/// One row.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) unit: String,
    pub(super) ours: Side,
    pub(super) other: Option<Side>,
    /// Of the medians; none where the ranges overlap.
    pub(super) ratio: Option<f64>,
    pub(super) indistinguishable: bool,
    pub(super) goal: Option<String>,
    pub(super) verdict: Option<String>,
}

/// What one side measured.
#[derive(Debug, Serialize)]
pub(super) struct Side {
    #[serde(flatten)]
    pub(super) spread: Spread,
    /// In the order of the repetitions.
    pub(super) values: Vec<f64>,
}

impl Line {
    /// With the unit, as the table has it.
    pub(super) fn full_name(&self) -> String {
        format!("{}, {}", self.name, self.unit)
    }

    pub(super) fn note_ratio(&mut self, ratio: Option<Ratio>) {
        match ratio {
            Some(Ratio::Of(ratio)) => self.ratio = Some(ratio),
            Some(Ratio::Indistinguishable) => self.indistinguishable = true,
            None => {}
        }
    }
}

impl Run {
    /// Writes it, in place of what is there.
    pub(super) fn write(&self, path: &Path) -> Result<(), Failure> {
        let json = serde_json::to_string_pretty(self)?;
        std::fs::write(path, json + "\n")
            .map_err(|error| format!("cannot write {}: {error}", path.display()).into())
    }
}

/// The figures that do not depend on the machine's speed, as they were found last, and with which compiler.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Recorded {
    /// The minor version: another compiler makes other instructions.
    rustc: String,
    figures: BTreeMap<String, f64>,
}

/// By how much a figure may grow.
const GROWTH: f64 = 0.10;
/// What is less than this is no growth: of almost nothing everything is a multiple.
const SLACK: f64 = 0.1;

impl Recorded {
    /// Where they are.
    pub(super) fn path() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("recorded.json")
    }

    /// Those for this compiler; others say nothing.
    pub(super) fn read(rustc: &str) -> Result<Self, Failure> {
        let path = Self::path();
        let text = std::fs::read_to_string(&path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let recorded: Self = serde_json::from_str(&text)?;
        Ok(if recorded.rustc == minor(rustc) { recorded } else { Self::default() })
    }

    /// Why a figure is too large, if it is.
    pub(super) fn grown(&self, name: &str, value: f64) -> Option<String> {
        let before = *self.figures.get(name)?;
        let has_grown = value > before * (1.0 + GROWTH) && value > before + SLACK;
        has_grown.then(|| {
            let percent = (value / before - 1.0) * 100.0;
            format!("{name}: {value} instead of {before}, which is {percent:.0} % more")
        })
    }

    /// Takes these in place of those of the same name.
    pub(super) fn record(rustc: &str, figures: BTreeMap<String, f64>) -> Result<(), Failure> {
        let mut recorded = Self::read(rustc).unwrap_or_default();
        recorded.rustc = minor(rustc);
        recorded.figures.extend(figures);
        let json = serde_json::to_string_pretty(&recorded)?;
        Ok(std::fs::write(Self::path(), json + "\n")?)
    }
}

/// `1.95` of `rustc 1.95.0`.
fn minor(rustc: &str) -> String {
    let version = rustc.split(' ').nth(1).unwrap_or_default();
    version.split('.').take(2).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_that_has_grown_by_more_than_a_tenth_is_told() {
        let figures = [("a", 1_000.0), ("b", 0.02)].map(|(name, value)| (name.to_owned(), value));
        let recorded = Recorded { rustc: "1.95".to_owned(), figures: figures.into() };
        assert_eq!(recorded.grown("a", 1_100.0), None);
        let told = recorded.grown("a", 1_101.0).unwrap();
        assert_eq!(told, "a: 1101 instead of 1000, which is 10 % more");
        assert_eq!((recorded.grown("b", 0.1), recorded.grown("c", 9.0)), (None, None));
        assert!(recorded.grown("b", 0.2).is_some());
    }

    #[test]
    fn another_compiler_is_not_compared_with() {
        assert_eq!(
            (minor("rustc 1.95.0"), minor("rustc 1.100.0-nightly")),
            ("1.95".to_owned(), "1.100".to_owned())
        );
        assert!(!Recorded::read("rustc 1.95.0").unwrap().figures.is_empty(), "the figures are there");
        assert!(Recorded::read("rustc 1.2.0").unwrap().figures.is_empty());
    }
}
