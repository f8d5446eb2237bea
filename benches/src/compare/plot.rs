//! Pictures of curves: SVG, without anybody's help. White underneath, so that they can be read on any page.

use std::fmt::Write as _;
use std::path::Path;

use super::figures::Spread;
use crate::job::Failure;

/// One diagram: how something depends on a number that grows by factors.
#[derive(Debug)]
pub(super) struct Panel {
    pub(super) title: String,
    pub(super) x: String,
    pub(super) y: String,
    /// Where the horizontal axis is marked, and what is written there.
    pub(super) ticks: Vec<(f64, String)>,
    /// Whether the vertical axis goes by factors too; otherwise it begins at zero.
    pub(super) is_logarithmic: bool,
    pub(super) lines: Vec<Line>,
}

/// The medians, and the ranges around them.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, Spread)>,
}

const WIDTH: f64 = 430.0;
const HEIGHT: f64 = 320.0;
/// Around the area of a panel.
const LEFT: f64 = 66.0;
const RIGHT: f64 = 22.0;
const TOP: f64 = 66.0;
const BOTTOM: f64 = 52.0;
/// Where names in the legend begin to be written, after the mark of their line; and how wide a letter is at most.
const MARK: f64 = 24.0;
const LETTER: f64 = 6.6;
/// What stays free at both ends of the horizontal axis.
const INSET: f64 = 16.0;
/// Half of the line at the end of a range.
const SERIF: f64 = 3.5;
/// About so many marks has the vertical axis.
const MARKS: f64 = 5.0;

/// Colours that everybody can tell apart, and the dashes that tell them apart in print.
const STROKES: [(&str, &str); 4] = [("#0072b2", ""), ("#d55e00", ""), ("#009e73", "6 3"), ("#aa4499", "2 3")];
const INK: &str = "#24292f";
const FAINT: &str = "#57606a";
const GRID: &str = "#e6e9ec";

/// Writes `<directory>/<name>.svg`, in place of what is there.
pub(super) fn write(directory: &Path, name: &str, panels: &[Panel]) -> Result<(), Failure> {
    let path = directory.join(format!("{name}.svg"));
    let written = std::fs::create_dir_all(directory).and_then(|()| std::fs::write(&path, draw(name, panels)));
    written.map_err(|error| format!("cannot write {}: {error}", path.display()).into())
}

fn draw(name: &str, panels: &[Panel]) -> String {
    let width = WIDTH * panels.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {HEIGHT}\" width=\"{width}\" \
         height=\"{HEIGHT}\" role=\"img\" font-family=\"-apple-system, 'Segoe UI', Helvetica, Arial, sans-serif\" \
         font-size=\"12\" fill=\"{INK}\">\n<title>{}</title>\n\
         <rect x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"6\" fill=\"#ffffff\" stroke=\"#d0d7de\"/>\n",
        escaped(name),
        width - 1.0,
        HEIGHT - 1.0,
    );
    for (number, panel) in panels.iter().enumerate() {
        let _ =
            write!(svg, "<g transform=\"translate({} 0)\">\n{}</g>\n", WIDTH * number as f64, panel.draw());
    }
    svg + "</svg>\n"
}

/// Where values are on one axis.
#[derive(Clone, Copy, Debug)]
struct Scale {
    is_logarithmic: bool,
    lowest: f64,
    highest: f64,
    /// The places of both ends.
    from: f64,
    to: f64,
}

impl Scale {
    fn place(self, value: f64) -> f64 {
        let Self { is_logarithmic, lowest, highest, from, to } = self;
        let part = match is_logarithmic {
            true if highest <= lowest => 0.5,
            true => (value.max(lowest) / lowest).ln() / (highest / lowest).ln(),
            false => (value - lowest) / (highest - lowest),
        };
        (from + part * (to - from)).round_to_tenths()
    }
}

trait Tenths {
    /// A tenth of a pixel is enough.
    fn round_to_tenths(self) -> f64;
}

impl Tenths for f64 {
    fn round_to_tenths(self) -> f64 {
        (self * 10.0).round() / 10.0
    }
}

impl Panel {
    fn draw(&self) -> String {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        let marks = marks(&self.values(), self.is_logarithmic);
        let y = Scale {
            is_logarithmic: self.is_logarithmic,
            lowest: marks.first().copied().unwrap_or(0.0),
            highest: marks.last().copied().unwrap_or(1.0),
            from: bottom,
            to: TOP,
        };
        let end = |tick: Option<&(f64, String)>| tick.map_or(1.0, |tick| tick.0);
        let x = Scale {
            is_logarithmic: true,
            lowest: end(self.ticks.first()),
            highest: end(self.ticks.last()),
            from: LEFT + INSET,
            to: right - INSET,
        };
        let mut svg = format!(
            "<text x=\"{LEFT}\" y=\"26\" font-size=\"14\" font-weight=\"600\">{}</text>\n",
            escaped(&self.title)
        );
        for mark in &marks {
            let place = y.place(*mark);
            let _ = writeln!(
                svg,
                "<path d=\"M{LEFT} {place}H{right}\" stroke=\"{GRID}\"/><text x=\"{}\" y=\"{}\" \
                 text-anchor=\"end\" fill=\"{FAINT}\">{}</text>",
                LEFT - 8.0,
                place + 4.0,
                short(*mark),
            );
        }
        for (tick, text) in &self.ticks {
            let place = x.place(*tick);
            let _ = writeln!(
                svg,
                "<path d=\"M{place} {bottom}v5\" stroke=\"{FAINT}\"/><text x=\"{place}\" y=\"{}\" \
                 text-anchor=\"middle\" fill=\"{FAINT}\">{}</text>",
                bottom + 19.0,
                escaped(text),
            );
        }
        let (middle, height) = (f64::midpoint(LEFT, right), f64::midpoint(TOP, bottom));
        let _ = write!(
            svg,
            "<path d=\"M{LEFT} {TOP}V{bottom}H{right}\" fill=\"none\" stroke=\"{FAINT}\"/>\n\
             <text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n\
             <text transform=\"translate(18 {height}) rotate(-90)\" text-anchor=\"middle\">{}</text>\n",
            bottom + 39.0,
            escaped(&self.x),
            escaped(&self.y),
        );
        let mut legend = LEFT;
        for (line, (colour, dashes)) in self.lines.iter().zip(STROKES.iter().cycle()) {
            svg += &line.draw(x, y, colour, dashes);
            let _ = writeln!(
                svg,
                "<path d=\"M{legend} 46h18\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dashes}\"/>\
                 <circle cx=\"{}\" cy=\"46\" r=\"3\" fill=\"{colour}\"/><text x=\"{}\" y=\"50\">{}</text>",
                legend + 9.0,
                legend + MARK,
                escaped(&line.name),
            );
            legend += MARK + LETTER * line.name.chars().count() as f64 + 12.0;
        }
        svg
    }

    fn values(&self) -> Vec<f64> {
        let spreads = self.lines.iter().flat_map(|line| &line.points);
        spreads.flat_map(|(_, Spread { min, max, .. })| [*min, *max]).filter(|it| it.is_finite()).collect()
    }
}

impl Line {
    fn draw(&self, x: Scale, y: Scale, colour: &str, dashes: &str) -> String {
        let mut svg = String::new();
        let mut path = String::new();
        for (at, spread) in &self.points {
            let [median, low, high] = [spread.median, spread.min, spread.max].map(|value| y.place(value));
            let place = x.place(*at);
            let _ = write!(path, "{}{place} {median}", if path.is_empty() { 'M' } else { 'L' });
            let _ = writeln!(svg, "<circle cx=\"{place}\" cy=\"{median}\" r=\"3.5\" fill=\"{colour}\"/>");
            if low > high {
                let (left, wide) = (place - SERIF, 2.0 * SERIF);
                let _ = writeln!(
                    svg,
                    "<path d=\"M{left} {low}h{wide}M{left} {high}h{wide}M{place} {low}V{high}\" \
                     stroke=\"{colour}\" stroke-opacity=\"0.6\"/>"
                );
            }
        }
        let line = format!(
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-linejoin=\"round\" \
             stroke-dasharray=\"{dashes}\"/>\n"
        );
        line + &svg
    }
}

/// The marks of a vertical axis on which all values are: round numbers, the first and the last at its ends.
fn marks(values: &[f64], is_logarithmic: bool) -> Vec<f64> {
    let highest = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    if !is_logarithmic {
        let step = round_up(highest / MARKS);
        let count = (highest / step).ceil() as u32;
        return (0..=count).map(|mark| f64::from(mark) * step).collect();
    }
    let positive = values.iter().copied().filter(|value| *value > 0.0);
    let lowest = positive.fold(highest, f64::min);
    let (first, last) = (lowest.log10().floor() as i32, highest.log10().ceil() as i32);
    // Where there are few powers of ten, what is between them is marked too.
    let between: &[f64] = if last - first > 3 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let all = (first..=last).flat_map(|power| between.iter().map(move |it| it * 10_f64.powi(power)));
    let all: Vec<f64> = all.collect();
    let from = all.iter().rposition(|mark| *mark <= lowest * (1.0 + 1e-9)).unwrap_or(0);
    let to = all.iter().position(|mark| *mark >= highest * (1.0 - 1e-9)).unwrap_or(all.len() - 1);
    all[from..=to.max(from)].to_vec()
}

/// The next of 1, 2, 5, 10, 20…
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let rounded = [1.0, 2.0, 5.0, 10.0].map(|it| it * power);
    rounded.into_iter().find(|it| *it >= value * (1.0 - 1e-9)).unwrap_or(10.0 * power)
}

/// As it is written at a mark.
fn short(value: f64) -> String {
    match value {
        1e6.. => format!("{} M", (value / 1e6).round_to_tenths()),
        1e4.. => format!("{} k", (value / 1e3).round_to_tenths()),
        1.0.. => format!("{}", value.round_to_tenths()),
        _ => format!("{}", (value * 1e6).round() / 1e6),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_marks() {
        assert_eq!(marks(&[3.0, 870.0], false), [0.0, 200.0, 400.0, 600.0, 800.0, 1_000.0]);
        assert_eq!(marks(&[1_000.0], false).last(), Some(&1_000.0));
        assert_eq!(marks(&[30.0, 400.0], true), [20.0, 50.0, 100.0, 200.0, 500.0]);
        assert_eq!(marks(&[0.5, 1e4], true), [0.1, 1.0, 10.0, 100.0, 1_000.0, 10_000.0]);
        assert!(!marks(&[], false).is_empty() && !marks(&[], true).is_empty(), "nothing was measured");
        assert_eq!([0.02, 5.0, 2_000.0, 50_000.0, 2e6].map(short), ["0.02", "5", "2000", "50 k", "2 M"]);
    }

    #[test]
    fn values_have_places() {
        let scale = Scale { is_logarithmic: true, lowest: 1.0, highest: 100.0, from: 0.0, to: 10.0 };
        assert_eq!([1.0, 10.0, 100.0].map(|value| scale.place(value)), [0.0, 5.0, 10.0]);
        let scale = Scale { is_logarithmic: false, lowest: 0.0, highest: 4.0, from: 10.0, to: 0.0 };
        assert_eq!([0.0, 1.0, 4.0].map(|value| scale.place(value)), [10.0, 7.5, 0.0]);
    }

    #[test]
    fn a_picture_has_all_that_it_should() {
        let spread = |median| Spread { median, min: median - 1.0, max: median + 1.0 };
        let line =
            |name: &str| Line { name: name.to_owned(), points: vec![(1.0, spread(3.0)), (1e3, spread(9.0))] };
        let panel = Panel {
            title: "Speed < light".to_owned(),
            x: "handlers".to_owned(),
            y: "ns".to_owned(),
            ticks: vec![(1.0, "1".to_owned()), (1e3, "1 k".to_owned())],
            is_logarithmic: false,
            lines: vec![line("ours"), line("raw")],
        };
        let svg = draw("growth", &[panel]);
        for part in ["Speed &lt; light", ">ours<", ">raw<", ">handlers<", ">ns<", ">1 k<", "#d55e00"] {
            assert!(svg.contains(part), "{part} is not in {svg}");
        }
        assert_eq!(svg.matches("<g ").count(), svg.matches("</g>").count());
        assert_eq!(svg.matches("stroke-opacity").count(), 4, "a range at each point");
    }
}
