//! The table: one line for each row, aligned on a terminal and readable as Markdown.

use super::figures::{Figures, Ratio, Spread};
pub(super) use super::goal::Verdict;
use super::plan::Row;
use super::record::{Line, Side};

const NAME: usize = 62;
const FIGURE: usize = 27;
const RATIO: usize = 17;

pub(super) fn heading() -> String {
    let line = |name: &str, width| format!("|{}", name.repeat(width + 2));
    let rule: String = [NAME, FIGURE, FIGURE, RATIO, 15, 8].map(|width| line("-", width)).concat();
    format!("{}\n{rule}|", cells("measure", "ours", "other", "ratio", "goal", "met?"))
}

fn cells(name: &str, ours: &str, other: &str, ratio: &str, goal: &str, met: &str) -> String {
    format!(
        "| {name:<NAME$} | {ours:<FIGURE$} | {other:<FIGURE$} | {ratio:<RATIO$} | {goal:<15} | {met:<8} |"
    )
}

/// A row as it is printed and as programs read it; none if nothing was measured.
pub(super) fn row(row: &Row, figures: &[Figures]) -> Option<(String, Verdict, Line)> {
    let side = |side: usize| {
        let figures = figures.get(side)?;
        Some(Side { spread: figures.of(row.quantity)?, values: figures.values(row.quantity).to_vec() })
    };
    let ours = side(row.ours)?;
    let other = row.other.and_then(side);
    let ratio = other.as_ref().and_then(|other| ours.spread.ratio_to(other.spread));
    // Goals are of medians: where a ratio says nothing, what is missed or met by it is a hint all the same.
    let of_medians = other.as_ref().map(|other| other.spread.median).filter(|median| *median > 0.0);
    let of_medians = of_medians.map(|median| ours.spread.median / median);
    let verdict = row.goal.map_or(Verdict::NoGoal, |goal| goal.verdict(ours.spread, of_medians));
    let goal = row.goal.map(|goal| goal.to_string());
    let line = cells(
        &format!("{}, {}", row.name, row.unit),
        &shown(ours.spread),
        &other.as_ref().map_or(String::new(), |other| shown(other.spread)),
        &match ratio {
            Some(Ratio::Of(ratio)) => format!("{ratio:.2}"),
            Some(Ratio::Indistinguishable) => "indistinguishable".to_owned(),
            None => String::new(),
        },
        goal.as_deref().unwrap_or_default(),
        &verdict.to_string(),
    );
    let mut record = Line {
        name: row.name.clone(),
        unit: row.unit.to_string(),
        ours,
        other,
        ratio: None,
        indistinguishable: false,
        goal,
        verdict: (verdict != Verdict::NoGoal).then(|| verdict.to_string()),
    };
    record.note_ratio(ratio);
    Some((line, verdict, record))
}

pub(super) fn skipped(name: &str, reason: &str) -> String {
    cells(name, &format!("skipped: {reason}"), "", "", "", "")
}

/// The median, and the range if there is one.
pub(super) fn shown(spread: Spread) -> String {
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
