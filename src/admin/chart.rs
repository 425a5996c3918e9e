//! A plot as a picture: what [`super::view::SeriesView`] holds, as SVG.
//!
//! Drawn by plotters; this chooses scales, labels and colours. A page that shows the
//! picture may not run scripts, so it is whole in itself.

use std::ops::Range;

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::{
    ChartBuilder, IntoDrawingArea, IntoFont, LineSeries, PathElement, RGBColor, SVGBackend,
    SeriesLabelPosition, Text,
};
use plotters::style::Color;

use super::view::{PlotSeries, SeriesView};
use crate::units::float;

/// Light or dark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Theme {
    /// Dark on white.
    #[default]
    Light,
    /// Light on black.
    Dark,
}

/// Size and colours of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Colours.
    pub theme: Theme,
}

impl Look {
    /// Sizes within bounds of what can be drawn and read.
    pub fn new(width: Option<u32>, height: Option<u32>, theme: Theme) -> Self {
        Self {
            width: width.unwrap_or(720).clamp(240, 4_000),
            height: height.unwrap_or(280).clamp(120, 3_000),
            theme,
        }
    }
}

/// The drawing library refused, in its words.
#[derive(Debug, thiserror::Error)]
#[error("the plot could not be drawn: {0}")]
pub struct ChartError(String);

/// Colours of lines, as `--plot-1` and on of the pages' style: on white, and on black.
const LINES: [(RGBColor, RGBColor); 6] = [
    (RGBColor(11, 92, 173), RGBColor(116, 182, 255)),
    (RGBColor(180, 83, 10), RGBColor(245, 163, 92)),
    (RGBColor(20, 108, 60), RGBColor(111, 211, 156)),
    (RGBColor(139, 58, 156), RGBColor(210, 155, 224)),
    (RGBColor(163, 24, 78), RGBColor(255, 143, 176)),
    (RGBColor(0, 112, 127), RGBColor(95, 208, 222)),
];

/// Seconds between two marks of the time: those of a clock and a calendar.
const MARKS: [u32; 15] = [
    60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800,
    1_209_600,
];

/// An axis of time, marked at round ones.
struct Moments(Range<f64>);

impl Ranged for Moments {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        RangedCoordf64::from(self.0.clone()).map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        let most = hint.max_num_points();
        let marks = MARKS.into_iter().map(|step| {
            let step = f64::from(step);
            let first = (self.0.start / step).ceil() * step;
            let marks = std::iter::successors(Some(first), move |at| Some(at + step));
            marks.take_while(|at| *at <= self.0.end).take(most + 1)
        });
        let fits = |marks: &Vec<f64>| marks.len() <= most;
        marks.map(Iterator::collect).find(fits).unwrap_or_default()
    }

    fn range(&self) -> Range<f64> {
        self.0.clone()
    }
}

/// Draws the lines of a view under a heading.
///
/// # Errors
///
/// [`ChartError`] when it can't be drawn at that size.
pub fn svg(title: &str, view: &SeriesView, look: Look) -> Result<String, ChartError> {
    let mut text = String::new();
    draw(&mut text, title, view, look).map_err(|error| ChartError(error.to_string()))?;
    Ok(text)
}

fn draw(
    text: &mut String,
    title: &str,
    view: &SeriesView,
    look: Look,
) -> Result<(), Box<dyn std::error::Error>> {
    let (ground, ink) = match look.theme {
        Theme::Light => (RGBColor(255, 255, 255), RGBColor(32, 32, 32)),
        Theme::Dark => (RGBColor(18, 18, 18), RGBColor(224, 224, 224)),
    };
    let area = SVGBackend::with_string(text, (look.width, look.height)).into_drawing_area();
    area.fill(&ground)?;
    let unit = view
        .series
        .first()
        .map_or("", |series| series.unit.as_str());
    let font = |size: u32| ("sans-serif", size).into_font().color(&ink);
    let (from, to) = (float(view.since), float(view.until.max(view.since + 1)));
    let values = scale(&view.series);
    let top = values.end;
    let mut chart = ChartBuilder::on(&area)
        .margin(10)
        .caption(format!("{} (times in UTC)", shown(title)), font(15))
        .x_label_area_size(24)
        .y_label_area_size(64)
        .build_cartesian_2d(Moments(from..to), values)?;
    chart
        .configure_mesh()
        .light_line_style(ink.mix(0.0))
        .bold_line_style(ink.mix(0.15))
        .axis_style(ink.mix(0.5))
        .label_style(font(11))
        .x_labels((look.width / 120).clamp(2, 12) as usize)
        .y_labels((look.height / 50).clamp(2, 10) as usize)
        .x_label_formatter(&|at| moment(*at, to - from))
        .y_label_formatter(&|value| quantity(*value, unit, top))
        .draw()?;
    for (place, series) in view.series.iter().enumerate() {
        let colours = LINES.get(place % LINES.len()).copied();
        let colour = colours.map_or(ink, |(light, dark)| match look.theme {
            Theme::Light => light,
            Theme::Dark => dark,
        });
        let mut first = true;
        for line in lines(series) {
            let drawn = chart.draw_series(LineSeries::new(line, colour.stroke_width(2)))?;
            if std::mem::take(&mut first) && view.series.len() > 1 {
                drawn
                    .label(shown(&line_name(&series.metric)))
                    .legend(move |(x, y)| {
                        PathElement::new([(x, y), (x + 14, y)], colour.stroke_width(2))
                    });
            }
        }
    }
    if view.series.len() > 1 {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(ground.mix(0.8))
            .label_font(font(11))
            .draw()?;
    }
    if view.series.iter().all(|series| series.times.is_empty()) {
        let middle = (signed(look.width) / 2 - 60, signed(look.height) / 2);
        area.draw(&Text::new("nothing recorded yet", middle, font(13)))?;
    }
    area.present()?;
    Ok(())
}

/// Name that the pages give a line: `completion_tokens` is `completion`, `latency_p95` `p95`.
fn line_name(metric: &str) -> String {
    let kinds = ["latency_", "first_token_", "errors_"];
    let short = kinds.iter().find_map(|kind| metric.strip_prefix(kind));
    let short = short.or_else(|| metric.strip_suffix("_tokens"));
    short.unwrap_or(metric).replace('_', " ")
}

/// A text of a person, without what a picture can't hold, and cut.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(120).collect()
}

/// The points of a series, broken where nothing was recorded.
fn lines(series: &PlotSeries) -> Vec<Vec<(f64, f64)>> {
    let mut lines: Vec<Vec<(f64, f64)>> = Vec::new();
    let mut last = None;
    for (at, value) in series.times.iter().zip(&series.values) {
        let joined = last.is_some_and(|last| at - last <= series.step * 2);
        let point = (float(*at), *value);
        match lines.last_mut() {
            Some(line) if joined => line.push(point),
            _ => lines.push(vec![point]),
        }
        last = Some(*at);
    }
    // A line of one point would not be seen.
    for line in &mut lines {
        if let [(at, value)] = line[..] {
            line.push((at + float(series.step), value));
        }
    }
    lines
}

/// Range from zero to a little above the highest value.
fn scale(series: &[PlotSeries]) -> Range<f64> {
    let values = series.iter().flat_map(|series| &series.values);
    let finite = values.copied().filter(|value| value.is_finite());
    let (low, high) = finite.fold((0.0_f64, 0.0_f64), |(low, high), v| {
        (low.min(v), high.max(v))
    });
    let high = if high > low { high } else { low + 1.0 };
    low..high + (high - low) * 0.05
}

/// A moment for an axis: the time of day, and the day where there are several.
fn moment(at: f64, span: f64) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "seconds since 1970")]
    let second = at as i64;
    let Ok(stamp) = jiff::Timestamp::from_second(second) else {
        return String::new();
    };
    let form = if span > 2.0 * 86_400.0 {
        "%b %d"
    } else {
        "%H:%M"
    };
    stamp.strftime(form).to_string()
}

/// A value for an axis, with a unit that makes it short.
fn quantity(value: f64, unit: &str, top: f64) -> String {
    let (steps, base): (&[&str], f64) = if unit.starts_with("bytes") {
        (&["B", "KiB", "MiB", "GiB", "TiB"], 1024.0)
    } else {
        (&["", "k", "M", "G"], 1000.0)
    };
    if unit == "s" && top < 1.0 {
        return format!("{} ms", round(value * 1000.0));
    }
    let (mut scaled, mut most, mut step) = (value, top, 0);
    while most >= base && step + 1 < steps.len() {
        (scaled, most, step) = (scaled / base, most / base, step + 1);
    }
    let prefix = steps.get(step).copied().unwrap_or_default();
    let rest = match unit {
        "bytes" | "requests" | "errors" | "starts" => "",
        "bytes/s" => "/s",
        other => other.split_once('/').map_or(other, |_| "/s"),
    };
    let text = format!("{} {prefix}{rest}", round(scaled));
    text.trim_end().to_owned()
}

fn round(value: f64) -> String {
    let text = if value.abs() < 10.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.0}")
    };
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    };
    if text == "-0" { "0".to_owned() } else { text }
}

fn signed(pixels: u32) -> i32 {
    i32::try_from(pixels).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(points: &[(u64, f64)]) -> SeriesView {
        SeriesView {
            scope: "host".to_owned(),
            since: 1_000,
            until: 2_000,
            series: vec![PlotSeries {
                metric: "requests".to_owned(),
                unit: "requests/s".to_owned(),
                step: 10,
                times: points.iter().map(|(at, _)| *at).collect(),
                values: points.iter().map(|(_, value)| *value).collect(),
            }],
        }
    }

    #[test]
    fn a_heading_can_not_leave_its_text() {
        let evil = "</text><script>alert(1)</script>&\u{1b}";
        let svg = svg(
            evil,
            &view(&[(1_000, 1.0), (1_010, 2.0)]),
            Look::new(None, None, Theme::Dark),
        );
        let svg = svg.unwrap();
        assert!(!svg.contains("<script"), "{svg}");
        assert!(svg.contains("&lt;script&gt;"), "{svg}");
        assert!(svg.starts_with("<svg "), "{svg}");
    }

    #[test]
    fn nothing_recorded_is_said() {
        let svg = svg(
            "a",
            &view(&[]),
            Look::new(Some(0), Some(u32::MAX), Theme::Light),
        )
        .unwrap();
        assert!(svg.contains("nothing recorded yet"));
    }

    #[test]
    fn a_line_breaks_where_nothing_was_recorded() {
        let view = view(&[(1_000, 1.0), (1_010, 2.0), (1_100, 3.0)]);
        let lines = lines(&view.series[0]);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1], [(1_100.0, 3.0), (1_110.0, 3.0)]);
    }

    #[test]
    fn values_are_short() {
        for (value, unit, top, text) in [
            (0.25, "s", 0.5, "250 ms"),
            (2.5, "s", 5.0, "2.5 s"),
            (1_500.0, "requests/s", 3_000.0, "1.5 k/s"),
            (3.0 * 1_073_741_824.0, "bytes", 8e9, "3 GiB"),
            (0.0, "bytes/s", 1.0, "0 B/s"),
            (40.0, "%", 100.0, "40 %"),
        ] {
            assert_eq!(quantity(value, unit, top), text);
        }
    }

    #[test]
    fn times_are_marked_at_round_ones() {
        for (span, first, step) in [
            (3_600, 60_000, 600),
            (900, 60_000, 120),
            (604_800, 86_400, 86_400),
        ] {
            let axis = Moments(59_990.0..59_990.0 + f64::from(span));
            let marks = axis.key_points(8_usize);
            assert!((3..=8).contains(&marks.len()), "{marks:?}");
            assert!((marks[0] - f64::from(first)).abs() < 1e-6, "{marks:?}");
            assert!(
                (marks[1] - marks[0] - f64::from(step)).abs() < 1e-6,
                "{marks:?}"
            );
        }
    }

    #[test]
    fn lines_are_called_as_on_the_pages() {
        let names = [
            "completion_tokens",
            "latency_p95",
            "first_token_p50",
            "in_flight",
            "cpu",
        ];
        let read = ["completion", "p95", "p50", "in flight", "cpu"];
        assert_eq!(names.map(line_name), read);
    }
}
