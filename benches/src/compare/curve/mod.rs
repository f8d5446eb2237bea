//! How cost grows: the same measured again and again with more of something. A table with a row for each point, rows that say
//! whether what one costs has grown, and plots.

mod plan;

use std::fmt::Write as _;
use std::path::Path;

pub(super) use plan::all;

use super::figures::{Figures, Spread};
use super::goal::Goal;
use super::plan::{Row, Unit};
use super::plot::{self, Line, Panel};
use super::record::Run;
use super::stage::{Scale, Stage};
use super::table::{self, Verdict};
use crate::job::Failure;

/// One side of an experiment is a point here: the points take turns.
pub(super) struct Curve {
    /// What it is chosen by, and the name of its plot.
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    /// What there is more and more of.
    pub(super) axis: &'static str,
    pub(super) points: Vec<Point>,
    /// How a point is written.
    pub(super) shown: fn(u64) -> String,
    pub(super) quantities: Vec<Quantity>,
    pub(super) checks: Vec<Check>,
    pub(super) plots: Vec<Plot>,
    /// The value of each quantity at a point, measured once; where it says nothing, NaN.
    pub(super) measure: fn(&Stage, u64) -> Result<Vec<f64>, Failure>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    pub(super) at: u64,
    /// It takes long: a quick run measures it once.
    pub(super) is_long: bool,
}

pub(super) struct Quantity {
    pub(super) name: &'static str,
    pub(super) unit: Unit,
}

/// What one costs where there are many of them, by what it costs where there are few: what grows linearly stays the same.
pub(super) struct Check {
    pub(super) quantity: usize,
    /// The least number of them of which it can be told.
    pub(super) from: u64,
    pub(super) goal: Goal,
}

/// A part of the picture.
pub(super) struct Plot {
    pub(super) title: &'static str,
    pub(super) is_logarithmic: bool,
    /// The quantities, which have one unit, and their names in the legend.
    pub(super) lines: Vec<(usize, &'static str)>,
}

/// All of them, as the help lists experiments.
pub(super) fn help() -> String {
    all().iter().fold(String::from("\n\nHow cost grows, only if named"), |mut help, it| {
        let _ = write!(help, "\n    {:<24}{}", it.name, it.about);
        help
    })
}

/// Measures a curve, prints it, and draws it if there is a directory for that; returns the names of what is broken.
pub(super) fn run(
    curve: &Curve,
    stage: &Stage,
    report: &mut Run,
    plots: Option<&Path>,
) -> Result<Vec<String>, Failure> {
    let repetitions = stage.scale.repetitions();
    let mut figures: Vec<Figures> = curve.points.iter().map(|_| Figures::default()).collect();
    for repetition in 1..=repetitions {
        for (point, figures) in curve.points.iter().zip(&mut figures) {
            if repetition > 1 && point.is_long && stage.scale == Scale::Quick {
                continue;
            }
            eprintln!("  {} {} {repetition}/{repetitions}", curve.name, (curve.shown)(point.at));
            let values = (curve.measure)(stage, point.at);
            figures.add(values.map_err(|failure| format!("{}: {failure}", (curve.shown)(point.at)))?);
        }
    }
    println!("\n{}: {}\n\n{}", curve.name, curve.about, curve.table(&figures));
    report.rows.extend(curve.rows().iter().filter_map(|row| Some(table::row(row, &figures)?.2)));
    let mut broken = Vec::new();
    let growth = curve.growth();
    if !growth.is_empty() {
        println!("\n{}", table::heading());
    }
    for row in growth {
        let Some((line, verdict, record)) = table::row(&row, &figures) else { continue };
        println!("{line}");
        report.rows.push(record);
        if verdict == Verdict::Broken {
            broken.push(row.name);
        }
    }
    if let Some(directory) = plots {
        plot::write(directory, curve.name, &curve.panels(&figures))?;
    }
    Ok(broken)
}

impl Curve {
    fn table(&self, figures: &[Figures]) -> String {
        let names = self.quantities.iter().map(|quantity| format!("{}, {}", quantity.name, quantity.unit));
        let line = |first: &str, cells: Vec<String>| format!("| {first} | {} |", cells.join(" | "));
        let mut table = line(self.axis, names.collect());
        let _ = write!(table, "\n|---:|{}", "---:|".repeat(self.quantities.len()));
        for (point, figures) in self.points.iter().zip(figures) {
            let values = (0..self.quantities.len()).map(|quantity| figures.of(quantity));
            let cells = values.map(|spread| said(spread).map_or("–".to_owned(), table::shown)).collect();
            let _ = write!(table, "\n{}", line(&(self.shown)(point.at), cells));
        }
        table
    }

    /// A row for each quantity at each point: what programs read.
    fn rows(&self) -> Vec<Row> {
        let rows = self.points.iter().enumerate().flat_map(|(side, point)| {
            self.quantities.iter().enumerate().map(move |(quantity, it)| Row {
                name: format!("{}: {} {}, {}", self.name, (self.shown)(point.at), self.axis, it.name),
                unit: it.unit,
                quantity,
                ours: side,
                other: None,
                goal: None,
            })
        });
        rows.collect()
    }

    /// Whether it grows no worse than linearly.
    fn growth(&self) -> Vec<Row> {
        let Some((last, largest)) = self.points.iter().enumerate().next_back() else { return Vec::new() };
        let rows = self.checks.iter().filter_map(|check| {
            let first = self.points.iter().position(|point| point.at >= check.from)?;
            let (few, many) = ((self.shown)(self.points[first].at), (self.shown)(largest.at));
            let Quantity { name, unit } = self.quantities[check.quantity];
            Some(Row {
                name: format!("{}: {name}, {many} vs {few}", self.name),
                unit,
                quantity: check.quantity,
                ours: last,
                other: Some(first),
                goal: Some(check.goal),
            })
        });
        rows.collect()
    }

    fn panels(&self, figures: &[Figures]) -> Vec<Panel> {
        let ticks: Vec<_> =
            self.points.iter().map(|point| (point.at as f64, (self.shown)(point.at))).collect();
        let line = |&(quantity, name): &(usize, &'static str)| Line {
            name: name.to_owned(),
            points: self
                .points
                .iter()
                .zip(figures)
                .filter_map(|(point, figures)| Some((point.at as f64, said(figures.of(quantity))?)))
                .collect(),
        };
        let panel = |plot: &Plot| {
            let unit = plot.lines.first().map(|(quantity, _)| self.quantities[*quantity].unit);
            Panel {
                title: plot.title.to_owned(),
                x: self.axis.to_owned(),
                y: unit.map_or(String::new(), |unit| unit.to_string()),
                ticks: ticks.clone(),
                is_logarithmic: plot.is_logarithmic,
                lines: plot.lines.iter().map(line).collect(),
            }
        };
        self.plots.iter().map(panel).collect()
    }
}

/// What was measured, unless it says nothing.
fn said(spread: Option<Spread>) -> Option<Spread> {
    spread.filter(|spread| spread.median.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_are_whole() {
        for curve in all() {
            let name = curve.name;
            assert!(name.starts_with("growth-"), "{name} is not run by `growth`");
            assert!(curve.points.is_sorted_by(|one, next| one.at < next.at), "{name}");
            assert!(curve.checks.iter().all(|check| check.quantity < curve.quantities.len()), "{name}");
            assert_eq!(curve.growth().len(), curve.checks.len(), "{name}");
            for plot in &curve.plots {
                let mut units = plot.lines.iter().map(|(quantity, _)| curve.quantities[*quantity].unit);
                let first = units.next();
                assert!(units.all(|unit| Some(unit) == first), "{name}: two units on one axis");
            }
        }
    }

    #[test]
    fn a_row_for_each_point() {
        let curve = &all()[0];
        let mut figures: Vec<Figures> = curve.points.iter().map(|_| Figures::default()).collect();
        for (number, figures) in figures.iter_mut().enumerate() {
            figures.add((0..curve.quantities.len()).map(|quantity| (quantity * number) as f64).collect());
        }
        figures[0].add(vec![f64::NAN; curve.quantities.len()]);
        let table = curve.table(&figures);
        assert_eq!(table.lines().count(), curve.points.len() + 2);
        assert!(table.lines().nth(2).unwrap().contains('–'), "{table}");
    }
}
