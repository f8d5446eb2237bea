//! The table: one line for each row, aligned on a terminal and readable as Markdown.

use super::figures::{Figures, Spread};
pub(super) use super::goal::Verdict;
use super::plan::Row;

const NAME: usize = 62;
const FIGURE: usize = 27;

pub(super) fn heading() -> String {
    let line = |name: &str, width| format!("|{}", name.repeat(width + 2));
    let rule: String = [NAME, FIGURE, FIGURE, 7, 15, 8].map(|width| line("-", width)).concat();
    format!("{}\n{rule}|", cells("measure", "ours", "other", "ratio", "goal", "met?"))
}

fn cells(name: &str, ours: &str, other: &str, ratio: &str, goal: &str, met: &str) -> String {
    format!("| {name:<NAME$} | {ours:<FIGURE$} | {other:<FIGURE$} | {ratio:<7} | {goal:<15} | {met:<8} |")
}

pub(super) fn row(row: &Row, figures: &[Figures]) -> (String, Verdict) {
    let figure = |side: usize| figures.get(side).and_then(|figures| figures.of(row.quantity));
    let Some(ours) = figure(row.ours) else { return (skipped(&row.name, "not measured"), Verdict::NoGoal) };
    let other = row.other.and_then(figure);
    let ratio = other.filter(|other| other.median > 0.0).map(|other| ours.median / other.median);
    let verdict = row.goal.map_or(Verdict::NoGoal, |goal| goal.verdict(ours, ratio));
    let line = cells(
        &format!("{}, {}", row.name, row.unit),
        &shown(ours),
        &other.map_or(String::new(), shown),
        &ratio.map_or(String::new(), |ratio| format!("{ratio:.2}")),
        &row.goal.map_or(String::new(), |goal| goal.to_string()),
        &verdict.to_string(),
    );
    (line, verdict)
}

pub(super) fn skipped(name: &str, reason: &str) -> String {
    cells(name, &format!("skipped: {reason}"), "", "", "", "")
}

/// The median, and the range if there is one.
fn shown(spread: Spread) -> String {
    let Spread { median, min, max } = spread;
    if number(min) == number(max) {
        return number(median);
    }
    format!("{} ({}–{})", number(median), number(min), number(max))
}

/// Three significant digits or more.
fn number(value: f64) -> String {
    match value.abs() {
        _ if value.fract() == 0.0 => format!("{value:.0}"),
        0.0..1.0 => format!("{value:.3}"),
        1.0..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        let shown = |median, min, max| shown(Spread { median, min, max });
        assert_eq!(shown(812.4, 798.0, 822.9), "812 (798–823)");
        assert_eq!(shown(0.018, 0.018, 0.018), "0.018");
        assert_eq!(shown(0.0, 0.0, 2.0), "0 (0–2)");
        assert_eq!(shown(71.25, 70.0, 80.5), "71.2 (70–80.5)");
    }
}
