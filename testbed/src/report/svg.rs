//! Curves as SVG, drawn here: no script, no font, nothing from elsewhere.

use super::{page::escape, summary::ms};
use crate::metrics::{FaultRecord, Second};
use hdrhistogram::Histogram;
use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 92.0;
const RIGHT: f64 = 44.0;
const TOP: f64 = 20.0;
const BOTTOM: f64 = 72.0;
/// Colours that the page has for curves.
const COLOURS: usize = 6;
/// Points of a curve at each halving of the rest.
const STEPS: u32 = 20;
/// A distribution's end with fewer samples behind it is left to the table.
const SAMPLES_MIN: f64 = 10.0;

/// A named distribution of microseconds.
pub(super) type Series<'s> = (&'s str, &'s Histogram<u64>);

/// The same, with how many samples there would be if all had come to pass.
pub(super) type Part<'s> = (Series<'s>, u64);

/// How values become places.
#[derive(Clone, Copy)]
enum Scale {
    /// From 0 to this.
    Linear(f64),
    /// By powers of ten, from the first to the second.
    Log(f64, f64),
}

impl Scale {
    fn linear(max: f64) -> Scale {
        Scale::Linear(if max > 0.0 { max } else { 1.0 })
    }

    fn log(min: f64, max: f64) -> Scale {
        let min = if min > 0.0 { min } else { 1.0 };
        Scale::Log(min, max.max(min * 10.0))
    }

    /// From 0 to 1.
    fn part(self, value: f64) -> f64 {
        let part = match self {
            Scale::Linear(max) => value / max,
            Scale::Log(min, max) => (value.max(min) / min).ln() / (max / min).ln(),
        };
        part.clamp(0.0, 1.0)
    }

    /// Values that are marked.
    fn ticks(self) -> Vec<f64> {
        match self {
            Scale::Linear(max) => {
                let decade = 10f64.powf((max / 4.0).log10().floor());
                let step = [1.0, 2.0, 5.0, 10.0].map(|mark| mark * decade).into_iter().find(|step| *step >= max / 4.0);
                let step = step.unwrap_or(max);
                (0..=4).map(|i| step * f64::from(i)).filter(|value| *value <= max * 1.001).collect()
            }
            Scale::Log(min, max) => {
                let decades = (min.log10().floor() as i32)..=(max.log10().ceil() as i32);
                let count = decades.clone().count();
                let marks: &[f64] = if count > 4 { &[1.0] } else { &[1.0, 3.0] };
                let all = decades.flat_map(|decade| marks.iter().map(move |mark| mark * 10f64.powi(decade)));
                all.filter(|value| *value >= min * 0.999 && *value <= max * 1.001).collect()
            }
        }
    }
}

struct Chart {
    text: String,
    x: Scale,
    y: Scale,
}

impl Chart {
    fn new(title: &str, x: Scale, y: Scale) -> Chart {
        let text = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">", escape(title));
        Chart { text, x, y }
    }

    fn x(&self, x: f64) -> f64 {
        LEFT + self.x.part(x) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, y: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.part(y) * (HEIGHT - TOP - BOTTOM)
    }

    fn axes(&mut self, x_name: &str, y_name: &str) {
        self.axes_with(x_name, y_name, &number);
    }

    /// The same with marks of the x axis that are said in the caller's way.
    fn axes_with(&mut self, x_name: &str, y_name: &str, x_text: &dyn Fn(f64) -> String) {
        let (left, right, top, bottom) = (LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM);
        for value in self.y.ticks() {
            let y = self.y(value);
            let _ = write!(
                self.text,
                "<line class=\"grid\" x1=\"{left}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                left - 8.0,
                y + 5.0,
                number(value)
            );
        }
        for value in self.x.ticks() {
            let x = self.x(value);
            let _ = write!(
                self.text,
                "<line class=\"grid\" x1=\"{x:.1}\" y1=\"{top}\" x2=\"{x:.1}\" y2=\"{bottom}\"/>\
                 <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                bottom + 22.0,
                x_text(value)
            );
        }
        let _ = write!(
            self.text,
            "<line class=\"axis\" x1=\"{left}\" y1=\"{bottom}\" x2=\"{right}\" y2=\"{bottom}\"/>\
             <line class=\"axis\" x1=\"{left}\" y1=\"{top}\" x2=\"{left}\" y2=\"{bottom}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{x_name}</text>\
             <text x=\"18\" y=\"{:.1}\" text-anchor=\"middle\" transform=\"rotate(-90 18 {:.1})\">{y_name}</text>",
            (left + right) / 2.0,
            HEIGHT - 12.0,
            (top + bottom) / 2.0,
            (top + bottom) / 2.0
        );
    }

    fn line(&mut self, colour: usize, points: impl Iterator<Item = (f64, f64)>) {
        let mut path = String::new();
        for (x, y) in points {
            let _ = write!(path, "{:.1},{:.1} ", self.x(x), self.y(y));
        }
        let _ = write!(self.text, "<polyline class=\"c{}\" points=\"{}\"/>", colour % COLOURS, path.trim_end());
    }

    fn dot(&mut self, x: f64, y: f64) {
        let _ = write!(self.text, "<circle class=\"dot\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"/>", self.x(x), self.y(y));
    }

    /// A fault: from when to when, in which row its name stands.
    fn band(&mut self, from: f64, to: f64, row: usize, title: &str) {
        let (from, to) = (self.x(from), self.x(to));
        let (width, height) = ((to - from).max(2.0), HEIGHT - TOP - BOTTOM);
        // What begins near the right edge is named to its left.
        let (at, anchor) =
            if from > WIDTH * 0.7 { (to.min(WIDTH - RIGHT) - 4.0, "end") } else { (from + 4.0, "start") };
        let _ = write!(
            self.text,
            "<rect class=\"fault\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{height}\"><title>{title}</title></rect>\
             <text class=\"small\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{title}</text>",
            TOP + 16.0 + 19.0 * row as f64
        );
    }

    /// The chart, and under it what each colour means.
    fn finish(mut self, names: &[&str]) -> String {
        self.text.push_str("</svg>");
        if !names.is_empty() {
            self.text.push_str("<p class=\"legend\">");
            for (colour, name) in names.iter().enumerate() {
                let _ = write!(self.text, "<span><i class=\"c{}\"></i>{}</span>", colour % COLOURS, escape(name));
            }
            self.text.push_str("</p>");
        }
        self.text
    }
}

fn number(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        value if value >= 10_000.0 => format!("{:.0}k", value / 1000.0),
        value if value >= 10.0 || value.fract() == 0.0 => format!("{value:.0}"),
        value if value >= 1.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

fn to_ms(us: u64) -> f64 {
    us as f64 / 1000.0
}

/// The times between which the curves of distributions lie, without the last thousandth, in milliseconds.
fn range(series: &[Series<'_>]) -> (f64, f64) {
    let least = series.iter().map(|(_, histogram)| to_ms(histogram.min_nz())).fold(f64::INFINITY, f64::min);
    let most = series.iter().map(|(_, histogram)| to_ms(histogram.value_at_quantile(0.999))).fold(0.0, f64::max);
    (least, most)
}

/// Times, and the part of samples up to each.
fn curve(histogram: &Histogram<u64>) -> impl Iterator<Item = (f64, f64)> {
    let points = histogram.iter_quantiles(STEPS);
    points.map(|value| (to_ms(value.value_iterated_to()), value.quantile_iterated_to()))
}

/// Which part of all had been done after so many milliseconds.
pub(super) fn cumulative(parts: &[Part<'_>], of_what: &str) -> String {
    let series: Vec<Series<'_>> = parts.iter().map(|(series, _)| *series).collect();
    let (least, most) = range(&series);
    let mut chart = Chart::new(of_what, Scale::log(least, most), Scale::linear(100.0));
    chart.axes("milliseconds since the publication was due", of_what);
    for (colour, ((_, histogram), all)) in parts.iter().enumerate() {
        let first = (to_ms(histogram.min_nz()), 0.0);
        // What never came to pass keeps a curve from the top.
        let percent = 100.0 * histogram.len() as f64 / (*all).max(histogram.len()).max(1) as f64;
        chart.line(colour, std::iter::once(first).chain(curve(histogram).map(|(ms, part)| (ms, part * percent))));
    }
    chart.finish(&series.iter().map(|(name, _)| *name).collect::<Vec<_>>())
}

/// How long the slowest of so many took: percentiles, the more room the rarer.
pub(super) fn percentiles(series: &[Series<'_>]) -> String {
    // One of so many is slower.
    let one_of = |histogram: &Histogram<u64>| (histogram.len() as f64 / SAMPLES_MIN).clamp(2.0, 100_000.0);
    let rarest = series.iter().map(|(_, histogram)| one_of(histogram)).fold(10.0, f64::max);
    let slowest = |(_, histogram): &Series<'_>| to_ms(histogram.value_at_quantile(1.0 - 1.0 / one_of(histogram)));
    let most = series.iter().map(slowest).fold(0.0, f64::max);
    let mut chart = Chart::new("percentiles", Scale::log(1.0, rarest), Scale::linear(most * 1.05));
    let percent = |one_of: f64| format!("{} %", trimmed(100.0 - 100.0 / one_of));
    chart.axes_with("percentile", "milliseconds", &percent);
    for (colour, (_, histogram)) in series.iter().enumerate() {
        let known = one_of(histogram) * 1.001;
        let points = curve(histogram).filter(|(_, part)| *part < 1.0).map(|(ms, part)| (1.0 / (1.0 - part), ms));
        chart.line(colour, points.take_while(|(one_of, _)| *one_of <= known));
    }
    chart.finish(&series.iter().map(|(name, _)| *name).collect::<Vec<_>>())
}

/// 99.90 as 99.9.
fn trimmed(percent: f64) -> String {
    let text = format!("{percent:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Outcomes of each second, and the faults.
pub(super) fn timeline(seconds: &[Second], faults: &[FaultRecord]) -> String {
    let of = |second: &Second| [second.accepted, second.undetermined, second.rejected];
    let most = seconds.iter().flat_map(of).max().unwrap_or(0) as f64;
    // Faults' names stand above the curves.
    let room = 1.15 + 0.14 * faults.len().min(6) as f64;
    let (x, y) = (Scale::linear(seconds.len() as f64), Scale::linear((most * room).max(4.0)));
    let mut chart = Chart::new("outcomes of each second, and faults", x, y);
    for (row, fault) in faults.iter().enumerate() {
        let lasted = fault.lasted_s.map_or(String::new(), |lasted_s| format!(", {}", ms(Some(lasted_s * 1000.0))));
        let name = format!("{} {}{lasted}", escape(&fault.kind), escape(&fault.target));
        chart.band(fault.at_s, fault.at_s + fault.lasted_s.unwrap_or(f64::MAX), row % 6, &name);
    }
    chart.axes("seconds of updates", "outcomes a second");
    for colour in 0..3 {
        chart.line(colour, seconds.iter().enumerate().map(|(at, second)| (at as f64 + 0.5, of(second)[colour] as f64)));
    }
    chart.finish(&["accepted", "undetermined", "rejected"])
}

/// Round trips as they were asked for, and as they were.
pub(super) fn round_trips(pairs: &[(f64, f64)]) -> String {
    let most = pairs.iter().map(|(asked, got)| asked.max(*got)).fold(0.0, f64::max);
    let mut chart = Chart::new("round trips asked and got", Scale::linear(most), Scale::linear(most));
    chart.axes("asked, milliseconds", "got, milliseconds");
    chart.line(COLOURS - 1, [(0.0, 0.0), (most, most)].into_iter());
    pairs.iter().for_each(|(asked, got)| chart.dot(*asked, *got));
    chart.finish(&[])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::histogram;

    #[test]
    fn marks_are_few_and_within_what_is_drawn() {
        for (min, max) in [(0.2, 3.0), (1.0, 1.0), (5.0, 60_000.0), (0.0, 0.0), (999.0, 1001.0)] {
            let ticks = Scale::log(min, max).ticks();
            assert!((1..=8).contains(&ticks.len()), "{min} {max} {ticks:?}");
        }
        for (max, marks) in [(121.0, [0.0, 50.0, 100.0]), (11.0, [0.0, 5.0, 10.0]), (0.4, [0.0, 0.2, 0.4])] {
            let ticks = Scale::linear(max).ticks();
            assert!(marks.iter().all(|mark| ticks.iter().any(|tick| (tick - mark).abs() < 1e-9)), "{max} {ticks:?}");
        }
        assert_eq!([0.0, 0.25, 1.5, 30.0, 20_000.0].map(number), ["0", "0.25", "1.5", "30", "20k"]);
        assert_eq!([90.0, 99.9, 99.99].map(trimmed), ["90", "99.9", "99.99"]);
    }

    #[test]
    fn a_curve_goes_from_nothing_to_all_and_says_nothing_of_rarer_things_than_it_knows() {
        let mut one = histogram();
        (1..=1000).for_each(|ms| one.record(ms * 1000).unwrap());
        let half = cumulative(&[(("one", &one), 2000)], "%");
        let middle = format!(",{:.1}\"", TOP + (HEIGHT - TOP - BOTTOM) / 2.0);
        assert!(half.contains(&middle), "half of them never came: {half}");
        let drawn = cumulative(&[(("one", &one), 1000)], "%");
        let points = drawn.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
        let ends = |place: &str| place.split(',').map(|n| n.parse::<f64>().unwrap()).collect::<Vec<_>>();
        let (first, last) = (ends(points.split(' ').next().unwrap()), ends(points.split(' ').next_back().unwrap()));
        assert_eq!((first[1], last[1]), (HEIGHT - BOTTOM, TOP));
        assert!(drawn.contains("<i class=\"c0\"></i>one"), "{drawn}");
        // A thousand samples tell the 99th percentile, not the 99.9th.
        let drawn = percentiles(&[("one", &one)]);
        assert!(drawn.contains(">99 %<") && !drawn.contains("99.9 %"), "{drawn}");
        let pairs = round_trips(&[(10.0, 10.1), (200.0, 200.4)]);
        assert_eq!(pairs.matches("class=\"dot\"").count(), 2);
    }
}
