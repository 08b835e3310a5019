//! Charts as SVG, small enough to be read whole: axes, lines, bands, dots, stacked bars, legends.
//!
//! Colours are classes (`s0` to `s7`, and names such as `ideal`) that the report's style sheet
//! gives a light and a dark value each. All text is escaped here, and nowhere else.

use std::fmt::Write as _;

use super::text::escape;
use super::ticks::Ticks;

const WIDTH: f64 = 880.0;
const MARGIN_LEFT: f64 = 92.0;
const MARGIN_RIGHT: f64 = 20.0;
const MARGIN_TOP: f64 = 14.0;
const MARGIN_BOTTOM: f64 = 52.0;
/// Colours that there are.
pub(super) const COLOURS: usize = 8;

/// How values lie along an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    Linear,
    Log,
}

/// An axis.
#[derive(Debug, Clone)]
pub(super) struct Axis {
    pub(super) label: String,
    pub(super) scale: Scale,
    pub(super) ticks: Ticks,
    /// The texts of the ticks, if they are not the numbers.
    pub(super) texts: Option<Vec<String>>,
    /// Where it begins and ends, if not at its first and last tick: then it ends between two.
    pub(super) ends: Option<(f64, f64)>,
}

impl Axis {
    pub(super) fn linear(label: &str, low: f64, high: f64) -> Self {
        let ticks = Ticks::linear(low, high, 6);
        Self { label: label.to_owned(), scale: Scale::Linear, ticks, texts: None, ends: None }
    }

    /// One that ends where its values do: for times, where room to the right looks like a pause.
    pub(super) fn exact(label: &str, low: f64, high: f64) -> Self {
        let mut axis = Self::linear(label, low, high);
        if high > low {
            let slack = (high - low) * 0.01;
            axis.ticks.0.retain(|tick| (low - slack..=high + slack).contains(tick));
            axis.ends = Some((low, high));
        }
        axis
    }

    pub(super) fn log(label: &str, low: f64, high: f64) -> Self {
        let ticks = Ticks::log(low, high);
        Self { label: label.to_owned(), scale: Scale::Log, ticks, texts: None, ends: None }
    }

    /// Where a value lies, from 0 to 1; what lies outside is moved to the end.
    fn place(&self, value: f64) -> f64 {
        let at = |value: f64| match self.scale {
            Scale::Linear => value,
            Scale::Log => value.max(f64::MIN_POSITIVE).ln(),
        };
        let (low, high) = self.ends.unwrap_or_else(|| (self.ticks.low(), self.ticks.high()));
        let (low, high) = (at(low), at(high));
        ((at(value) - low) / (high - low)).clamp(0.0, 1.0)
    }

    fn text(&self, index: usize, value: f64) -> String {
        let given = self.texts.as_ref().and_then(|texts| texts.get(index).cloned());
        given.unwrap_or_else(|| tick_text(value, &self.ticks))
    }
}

/// A tick's number with as many digits as its neighbours need.
fn tick_text(value: f64, ticks: &Ticks) -> String {
    let gap = ticks.0.windows(2).map(|pair| pair[1] - pair[0]).fold(f64::INFINITY, f64::min);
    if value.abs() >= 1_000.0 || gap >= 1.0 {
        return super::text::thousands(value);
    }
    let text = format!("{value:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text.is_empty() || text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// What is drawn.
#[derive(Debug, Clone)]
pub(super) enum Mark {
    /// A line through points.
    Line(Vec<(f64, f64)>),
    /// The same, dashed: what is no measurement, or not the main thing.
    Dashed(Vec<(f64, f64)>),
    /// Between two lines: x, low, high.
    Band(Vec<(f64, f64, f64)>),
    /// Points, each with what it tells when pointed at.
    Dots(Vec<(f64, f64, String)>),
    /// The same, hollow: predicted, not measured.
    Rings(Vec<(f64, f64, String)>),
    /// Vertical lines from low to high: x, low, high.
    Ranges(Vec<(f64, f64, f64)>),
}

/// Marks of one colour, and what the legend says of them.
#[derive(Debug, Clone)]
pub(super) struct Series {
    /// `None` for what needs no explanation.
    pub(super) legend: Option<String>,
    /// The class: `s0`, …, or a name.
    pub(super) class: String,
    pub(super) marks: Vec<Mark>,
}

impl Series {
    pub(super) fn new(
        legend: impl Into<String>,
        class: impl Into<String>,
        marks: Vec<Mark>,
    ) -> Self {
        Self { legend: Some(legend.into()), class: class.into(), marks }
    }
}

/// A chart with two axes.
#[derive(Debug, Clone)]
pub(super) struct Chart {
    /// What it shows, for those who can't see it.
    pub(super) title: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    /// Spans of x that are shaded, with a word: the warm-up.
    pub(super) shades: Vec<(f64, f64, String)>,
    pub(super) series: Vec<Series>,
    pub(super) height: f64,
}

impl Chart {
    pub(super) fn new(title: &str, x: Axis, y: Axis, series: Vec<Series>) -> Self {
        Self { title: title.to_owned(), x, y, shades: Vec::new(), series, height: 330.0 }
    }

    pub(super) fn render(&self) -> String {
        let mut out = legend(&self.series);
        open(&mut out, &self.title, self.height);
        for (from, to, word) in &self.shades {
            self.shade(&mut out, *from, *to, word);
        }
        self.axes(&mut out);
        for series in &self.series {
            let class = escape(&series.class);
            push(&mut out, format_args!("<g class=\"{class}\">"));
            for mark in &series.marks {
                self.mark(&mut out, mark);
            }
            out.push_str("</g>");
        }
        out.push_str("</svg></div>");
        out
    }

    fn at_x(&self, value: f64) -> f64 {
        MARGIN_LEFT + self.x.place(value) * (WIDTH - MARGIN_LEFT - MARGIN_RIGHT)
    }

    fn at_y(&self, value: f64) -> f64 {
        let bottom = self.height - MARGIN_BOTTOM;
        bottom - self.y.place(value) * (bottom - MARGIN_TOP)
    }

    fn shade(&self, out: &mut String, from: f64, to: f64, word: &str) {
        let (left, right) = (self.at_x(from), self.at_x(to));
        let (top, height) = (MARGIN_TOP, self.height - MARGIN_BOTTOM - MARGIN_TOP);
        let width = right - left;
        push(
            out,
            format_args!(
                "<rect class=\"shade\" x=\"{left:.1}\" y=\"{top}\" width=\"{width:.1}\" \
                 height=\"{height:.1}\"/>"
            ),
        );
        if width > 60.0 {
            let (x, y, word) = (left + 6.0, top + 14.0, escape(word));
            push(out, format_args!("<text class=\"note\" x=\"{x:.1}\" y=\"{y}\">{word}</text>"));
        }
    }

    fn axes(&self, out: &mut String) {
        let (bottom, right) = (self.height - MARGIN_BOTTOM, WIDTH - MARGIN_RIGHT);
        for (index, tick) in self.y.ticks.0.iter().enumerate() {
            let (y, text) = (self.at_y(*tick), escape(&self.y.text(index, *tick)));
            push(
                out,
                format_args!(
                    "<line class=\"grid\" x1=\"{MARGIN_LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" \
                     y2=\"{y:.1}\"/><text class=\"tick\" text-anchor=\"end\" x=\"{}\" \
                     y=\"{:.1}\">{text}</text>",
                    MARGIN_LEFT - 8.0,
                    y + 4.0
                ),
            );
        }
        for (index, tick) in self.x.ticks.0.iter().enumerate() {
            let (x, text) = (self.at_x(*tick), escape(&self.x.text(index, *tick)));
            // A long text at the end would leave the picture.
            let is_out = x + text.len() as f64 * 3.5 > WIDTH;
            let anchor = if is_out { "end" } else { "middle" };
            push(
                out,
                format_args!(
                    "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{MARGIN_TOP}\" \
                     y2=\"{bottom}\"/><text class=\"tick\" text-anchor=\"{anchor}\" x=\"{x:.1}\" \
                     y=\"{}\">{text}</text>",
                    bottom + 18.0
                ),
            );
        }
        push(
            out,
            format_args!(
                "<line class=\"axis\" x1=\"{MARGIN_LEFT}\" x2=\"{right}\" y1=\"{bottom}\" \
                 y2=\"{bottom}\"/>"
            ),
        );
        let (x, y) = ((MARGIN_LEFT + right) / 2.0, self.height - 10.0);
        let label = escape(&self.x.label);
        push(
            out,
            format_args!(
                "<text class=\"label\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{y}\">{label}</text>"
            ),
        );
        let (x, y) = (16.0, (MARGIN_TOP + bottom) / 2.0);
        let label = escape(&self.y.label);
        push(
            out,
            format_args!(
                "<text class=\"label\" text-anchor=\"middle\" transform=\"rotate(-90 {x} {y:.1})\" \
                 x=\"{x}\" y=\"{y:.1}\">{label}</text>"
            ),
        );
    }

    fn mark(&self, out: &mut String, mark: &Mark) {
        match mark {
            Mark::Line(points) => self.path(out, points, "line"),
            Mark::Dashed(points) => self.path(out, points, "line dashed"),
            Mark::Band(points) => {
                let up = points.iter().map(|(x, _, high)| (*x, *high));
                let down = points.iter().rev().map(|(x, low, _)| (*x, *low));
                let path = self.points(up.chain(down));
                push(out, format_args!("<polygon class=\"band\" points=\"{path}\"/>"));
            }
            Mark::Dots(points) => self.circles(out, points, "dot"),
            Mark::Rings(points) => self.circles(out, points, "ring"),
            Mark::Ranges(points) => {
                for (x, low, high) in points {
                    let (x, y1, y2) = (self.at_x(*x), self.at_y(*low), self.at_y(*high));
                    push(
                        out,
                        format_args!(
                            "<line class=\"range\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{y1:.1}\" \
                             y2=\"{y2:.1}\"/>"
                        ),
                    );
                }
            }
        }
    }

    fn path(&self, out: &mut String, points: &[(f64, f64)], class: &str) {
        let path = self.points(points.iter().copied());
        push(out, format_args!("<polyline class=\"{class}\" points=\"{path}\"/>"));
    }

    fn circles(&self, out: &mut String, points: &[(f64, f64, String)], class: &str) {
        for (x, y, title) in points {
            let (x, y, title) = (self.at_x(*x), self.at_y(*y), escape(title));
            push(
                out,
                format_args!(
                    "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\">\
                     <title>{title}</title></circle>"
                ),
            );
        }
    }

    fn points(&self, points: impl Iterator<Item = (f64, f64)>) -> String {
        let mut path = String::new();
        for (x, y) in points.filter(|(x, y)| x.is_finite() && y.is_finite()) {
            push(&mut path, format_args!("{:.1},{:.1} ", self.at_x(x), self.at_y(y)));
        }
        path
    }
}

/// Horizontal bars, each of coloured parts, one below the other.
#[derive(Debug, Clone)]
pub(super) struct Bars {
    /// What they show, for those who can't see them.
    pub(super) title: String,
    /// What the length says, with its unit.
    pub(super) label: String,
    /// What each part is called, in the order of its colours.
    pub(super) parts: Vec<String>,
    /// Each bar: its name, and the lengths of its parts.
    pub(super) bars: Vec<(String, Vec<f64>)>,
}

const BAR_HEIGHT: f64 = 26.0;
const BAR_GAP: f64 = 12.0;
const BAR_LEFT: f64 = 150.0;

impl Bars {
    pub(super) fn render(&self) -> String {
        let longest =
            self.bars.iter().map(|(_, parts)| parts.iter().sum::<f64>()).fold(0.0, f64::max);
        let axis = Axis::linear(&self.label, 0.0, longest);
        let named = self.parts.iter().enumerate();
        let series: Vec<_> = named
            .map(|(index, name)| Series::new(name.as_str(), colour(index), Vec::new()))
            .collect();
        let mut out = legend(&series);
        let count = self.bars.len() as f64;
        let height = MARGIN_TOP + count * (BAR_HEIGHT + BAR_GAP) + MARGIN_BOTTOM;
        open(&mut out, &self.title, height);
        let width = WIDTH - BAR_LEFT - MARGIN_RIGHT - 60.0;
        let at = |value: f64| BAR_LEFT + axis.place(value) * width;
        let bottom = height - MARGIN_BOTTOM;
        for (index, tick) in axis.ticks.0.iter().enumerate() {
            let (x, text) = (at(*tick), escape(&axis.text(index, *tick)));
            push(
                &mut out,
                format_args!(
                    "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{MARGIN_TOP}\" \
                     y2=\"{bottom:.1}\"/><text class=\"tick\" text-anchor=\"middle\" x=\"{x:.1}\" \
                     y=\"{:.1}\">{text}</text>",
                    bottom + 18.0
                ),
            );
        }
        for (index, (name, parts)) in self.bars.iter().enumerate() {
            let top = MARGIN_TOP + BAR_GAP / 2.0 + index as f64 * (BAR_HEIGHT + BAR_GAP);
            self.bar(&mut out, name, parts, top, &at);
        }
        let (x, y, label) = (BAR_LEFT + width / 2.0, height - 10.0, escape(&self.label));
        push(
            &mut out,
            format_args!(
                "<text class=\"label\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{y:.1}\">{label}</text></svg></div>"
            ),
        );
        out
    }

    fn bar(&self, out: &mut String, name: &str, parts: &[f64], top: f64, at: &dyn Fn(f64) -> f64) {
        let middle = top + BAR_HEIGHT / 2.0 + 4.0;
        let text = escape(name);
        push(
            out,
            format_args!(
                "<text class=\"tick\" text-anchor=\"end\" x=\"{}\" y=\"{middle:.1}\">{text}</text>",
                BAR_LEFT - 10.0
            ),
        );
        let mut sum = 0.0;
        for (index, length) in parts.iter().enumerate().filter(|(_, length)| **length > 0.0) {
            let (left, right) = (at(sum), at(sum + length));
            let part = self.parts.get(index).map_or("", String::as_str);
            let title = escape(&format!("{name}, {part}: {}", super::text::short(*length)));
            push(
                out,
                format_args!(
                    "<rect class=\"bar {}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" \
                     height=\"{BAR_HEIGHT}\"><title>{title}</title></rect>",
                    colour(index),
                    right - left
                ),
            );
            sum += length;
        }
        let (x, total) = (at(sum) + 8.0, super::text::short(sum));
        push(
            out,
            format_args!("<text class=\"tick\" x=\"{x:.1}\" y=\"{middle:.1}\">{total}</text>"),
        );
    }
}

/// The class of the colour with that number.
pub(super) fn colour(index: usize) -> String {
    format!("s{}", index % COLOURS)
}

fn open(out: &mut String, title: &str, height: f64) {
    let title = escape(title);
    push(
        out,
        format_args!(
            "<div class=\"plot\"><svg role=\"img\" viewBox=\"0 0 {WIDTH} {height:.0}\" \
             aria-label=\"{title}\">"
        ),
    );
}

/// What each colour and line means, above the chart.
fn legend(series: &[Series]) -> String {
    let mut out = String::from("<div class=\"legend\">");
    for series in series {
        let Some(text) = &series.legend else { continue };
        let kind = match series.marks.first() {
            Some(Mark::Dashed(_)) => "dashed",
            Some(Mark::Rings(_)) => "ring",
            _ => "full",
        };
        let (class, text) = (escape(&series.class), escape(text));
        push(
            &mut out,
            format_args!("<span class=\"{class}\"><i class=\"{kind}\"></i>{text}</span>"),
        );
    }
    out.push_str("</div>");
    out
}

/// Writes into memory, which never fails.
fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a string takes everything");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn marks_lie_within_the_picture(
            points in prop::collection::vec((-1e6..1e6f64, -1e6..1e6f64), 1..20),
        ) {
            let (x, y) = (Axis::linear("x", -10.0, 10.0), Axis::log("y", 0.1, 10.0));
            let chart = Chart::new("t", x, y, Vec::new());
            for (x, y) in points {
                let (x, y) = (chart.at_x(x), chart.at_y(y));
                prop_assert!((MARGIN_LEFT..=WIDTH - MARGIN_RIGHT).contains(&x));
                prop_assert!((MARGIN_TOP..=chart.height - MARGIN_BOTTOM).contains(&y));
            }
        }

        #[test]
        fn no_text_becomes_markup(text in any::<String>()) {
            let evil = format!("<script>\"{text}'&");
            let series = vec![Series::new(
                evil.clone(),
                "s0",
                vec![Mark::Dots(vec![(1.0, 1.0, evil.clone())]), Mark::Line(vec![(0.0, f64::NAN)])],
            )];
            let axis = || Axis { texts: Some(vec![evil.clone(); 20]), ..Axis::linear(&evil, 0.0, 9.0) };
            let mut chart = Chart::new(&evil, axis(), axis(), series);
            chart.shades.push((0.0, 9.0, evil.clone()));
            let bars = Bars {
                title: evil.clone(),
                label: evil.clone(),
                parts: vec![evil.clone()],
                bars: vec![(evil.clone(), vec![1.0])],
            };
            for drawn in [chart.render(), bars.render()] {
                prop_assert!(!drawn.contains("<script") && drawn.contains("&lt;script&gt;"));
                prop_assert_eq!(drawn.matches('<').count(), drawn.matches('>').count());
                prop_assert!(!drawn.contains("NaN"));
            }
        }
    }
}
