//! Metrics as Prometheus reads them (text exposition, format 0.0.4), by hand: the figures are in the loop's own structures
//! and are written when somebody asks, so that a registry would only be a second place for them.

use std::{
    fmt::{Display, Write as _},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// What a scrape answers.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A text that grows family by family. Names are given without `acms_`; those of counters end in `_total`, units are in
/// the name and are base units.
#[derive(Debug, Default)]
pub struct Exposition(String);

impl Exposition {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP acms_{name} {help}\n# TYPE acms_{name} {kind}");
    }

    /// A number that only rises.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "counter", help);
        let _ = writeln!(self.0, "acms_{name} {value}");
    }

    /// A number that rises and falls.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        let _ = writeln!(self.0, "acms_{name} {value}");
    }

    /// A counter for each value of a label.
    pub fn counters<L: Display>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        samples: impl IntoIterator<Item = (L, u64)>,
    ) {
        self.family(name, "counter", help);
        self.samples(name, label, samples);
    }

    /// A counter for each combination of the values of two labels.
    pub fn counters_by_two<'a>(
        &mut self,
        name: &str,
        help: &str,
        labels: (&str, &str),
        samples: impl IntoIterator<Item = (&'a str, &'a str, u64)>,
    ) {
        self.family(name, "counter", help);
        for (first, second, value) in samples {
            let _ = writeln!(self.0, "acms_{name}{{{}=\"{first}\",{}=\"{second}\"}} {value}", labels.0, labels.1);
        }
    }

    /// A gauge for each value of a label.
    pub fn gauges<L: Display, V: Display>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        samples: impl IntoIterator<Item = (L, V)>,
    ) {
        self.family(name, "gauge", help);
        self.samples(name, label, samples);
    }

    fn samples<L: Display, V: Display>(&mut self, name: &str, label: &str, samples: impl IntoIterator<Item = (L, V)>) {
        for (is, value) in samples {
            let _ = writeln!(self.0, "acms_{name}{{{label}=\"{is}\"}} {value}");
        }
    }

    /// How long something took, each time.
    pub fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.family(name, "histogram", help);
        let mut below = 0;
        for (bound, count) in BOUNDS_US.iter().zip(&histogram.counts) {
            below += count.load(Ordering::Relaxed);
            let _ = writeln!(self.0, "acms_{name}_bucket{{le=\"{}\"}} {below}", seconds(*bound));
        }
        let all = below + histogram.counts[BOUNDS_US.len()].load(Ordering::Relaxed);
        let sum = seconds(histogram.sum_us.load(Ordering::Relaxed));
        let _ =
            writeln!(self.0, "acms_{name}_bucket{{le=\"+Inf\"}} {all}\nacms_{name}_sum {sum}\nacms_{name}_count {all}");
    }

    /// All of it.
    pub fn finish(self) -> String {
        self.0
    }
}

/// Microseconds as seconds.
pub fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

/// Upper bounds of buckets.
const BOUNDS_US: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000,
];

/// Counts of durations. May be shared between threads; a reader may see one of a duration's numbers before the other.
#[derive(Debug, Default)]
pub struct Histogram {
    counts: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    /// Something took so long.
    pub fn observe(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let at = BOUNDS_US.partition_point(|bound| *bound < us);
        self.counts[at].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_as_text() {
        let mut text = Exposition::default();
        text.counter("a_total", "As.", 3);
        text.gauges("b_bytes", "Bs.", "peer", [(1, 0.5)]);
        let histogram = Histogram::default();
        [100, 101, 20_000_000].into_iter().for_each(|us| histogram.observe(Duration::from_micros(us)));
        text.histogram("c_seconds", "Cs.", &histogram);
        let text = text.finish();
        assert!(text.starts_with("# HELP acms_a_total As.\n# TYPE acms_a_total counter\nacms_a_total 3\n"), "{text}");
        assert!(text.contains("\nacms_b_bytes{peer=\"1\"} 0.5\n"));
        for line in
            ["bucket{le=\"0.0001\"} 1", "bucket{le=\"0.00025\"} 2", "bucket{le=\"+Inf\"} 3", "sum 20.000201", "count 3"]
        {
            assert!(text.contains(&format!("\nacms_c_seconds_{line}\n")), "{line} in {text}");
        }
    }
}
