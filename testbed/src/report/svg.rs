//! Curves as SVG, drawn here: no script, no font, nothing from elsewhere.

use crate::metrics::{FaultRecord, Second};
use hdrhistogram::Histogram;
use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 44.0;

struct Chart {
    text: String,
    x_max: f64,
    y_max: f64,
}

impl Chart {
    fn new(x_max: f64, y_max: f64) -> Chart {
        let text = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">");
        Chart { text, x_max: if x_max > 0.0 { x_max } else { 1.0 }, y_max: if y_max > 0.0 { y_max } else { 1.0 } }
    }

    fn x(&self, x: f64) -> f64 {
        LEFT + (x / self.x_max).clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, y: f64) -> f64 {
        HEIGHT - BOTTOM - (y / self.y_max).clamp(0.0, 1.0) * (HEIGHT - TOP - BOTTOM)
    }

    fn axes(&mut self, x_name: &str, y_name: &str) {
        let (left, right, top, bottom) = (LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM);
        for i in 0..=4 {
            let part = f64::from(i) / 4.0;
            let (x, y) = (self.x(self.x_max * part), self.y(self.y_max * part));
            let (x_text, y_text) = (tick(self.x_max * part), tick(self.y_max * part));
            let _ = write!(
                self.text,
                "<line class=\"grid\" x1=\"{left}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{y_text}</text>\
                 <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{x_text}</text>",
                left - 6.0,
                y + 4.0,
                bottom + 16.0
            );
        }
        let _ = write!(
            self.text,
            "<line class=\"axis\" x1=\"{left}\" y1=\"{bottom}\" x2=\"{right}\" y2=\"{bottom}\"/>\
             <line class=\"axis\" x1=\"{left}\" y1=\"{top}\" x2=\"{left}\" y2=\"{bottom}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{x_name}</text>\
             <text x=\"14\" y=\"{:.1}\" text-anchor=\"middle\" transform=\"rotate(-90 14 {:.1})\">{y_name}</text>",
            (left + right) / 2.0,
            HEIGHT - 8.0,
            (top + bottom) / 2.0,
            (top + bottom) / 2.0
        );
    }

    fn line(&mut self, class: &str, points: impl Iterator<Item = (f64, f64)>) {
        let mut path = String::new();
        for (x, y) in points {
            let _ = write!(path, "{:.1},{:.1} ", self.x(x), self.y(y));
        }
        let _ = write!(self.text, "<polyline class=\"{class}\" points=\"{}\"/>", path.trim_end());
    }

    fn band(&mut self, from: f64, to: f64, title: &str) {
        let (from, to) = (self.x(from), self.x(to));
        let (width, height) = ((to - from).max(1.0), HEIGHT - TOP - BOTTOM);
        let _ = write!(
            self.text,
            "<rect class=\"fault\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{height}\"><title>{title}</title></rect>\
             <text x=\"{:.1}\" y=\"{:.1}\">{title}</text>",
            from + 4.0,
            TOP + 12.0
        );
    }

    fn finish(mut self) -> String {
        self.text.push_str("</svg>");
        self.text
    }
}

fn tick(value: f64) -> String {
    if value >= 10.0 || value == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

/// Which part of all deliveries had been made after so many milliseconds.
pub(super) fn convergence(histogram: &Histogram<u64>) -> String {
    let ms = |us: u64| us as f64 / 1000.0;
    // The last thousandth would squeeze the rest; the table tells the greatest.
    let mut chart = Chart::new(ms(histogram.value_at_quantile(0.999)), 100.0);
    chart.axes("milliseconds since the publication was due", "% of deliveries made");
    let points: Vec<_> = histogram
        .iter_quantiles(20)
        .map(|value| (ms(value.value_iterated_to()), value.quantile_iterated_to() * 100.0))
        .collect();
    chart.line("curve", std::iter::once((0.0, 0.0)).chain(points));
    chart.finish()
}

/// Outcomes of each second, and the faults.
pub(super) fn timeline(seconds: &[Second], faults: &[FaultRecord]) -> String {
    let of = |second: &Second| [second.accepted, second.undetermined, second.rejected];
    let most = seconds.iter().flat_map(of).max().unwrap_or(0) as f64;
    let mut chart = Chart::new(seconds.len() as f64, most * 1.15);
    for fault in faults {
        let name = format!("{} {}", super::page::escape(&fault.kind), super::page::escape(&fault.target));
        chart.band(fault.at_s, fault.at_s + fault.lasted_s.unwrap_or(f64::MAX), &name);
    }
    chart.axes("seconds of updates", "outcomes a second");
    for (i, class) in ["accepted", "undetermined", "rejected"].into_iter().enumerate() {
        chart.line(class, seconds.iter().enumerate().map(|(at, second)| (at as f64 + 0.5, of(second)[i] as f64)));
    }
    chart.finish()
}
