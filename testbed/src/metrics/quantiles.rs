//! Percentiles, and only those that the samples bear.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// Percentiles of a distribution, in milliseconds.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Quantiles {
    /// Median.
    pub p50: Option<f64>,
    /// From 10 samples on.
    pub p90: Option<f64>,
    /// From 100 samples on.
    pub p99: Option<f64>,
    /// From 1,000 samples on.
    pub p999: Option<f64>,
    /// The greatest.
    pub max: Option<f64>,
    /// How many samples.
    pub samples: u64,
    /// Between what the percentiles lie with 95 % confidence, for distributions whose samples are not of one another's making.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ci95: Option<Intervals>,
}

/// Confidence intervals of percentiles: from and to, in milliseconds. A percentile without enough samples for both ends has
/// none.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Intervals {
    /// Of the median.
    pub p50: Option<[f64; 2]>,
    /// Of the 90th percentile.
    pub p90: Option<[f64; 2]>,
    /// Of the 99th percentile.
    pub p99: Option<[f64; 2]>,
    /// Of the 99.9th percentile.
    pub p999: Option<[f64; 2]>,
}

impl Quantiles {
    /// Percentiles of a histogram of microseconds.
    pub fn of(histogram: &Histogram<u64>) -> Quantiles {
        let samples = histogram.len();
        let ms = |us: u64| us as f64 / 1000.0;
        let quantile = |quantile: f64, samples_min: u64| {
            (samples >= samples_min).then(|| ms(histogram.value_at_quantile(quantile)))
        };
        Quantiles {
            p50: quantile(0.5, 1),
            p90: quantile(0.9, 10),
            p99: quantile(0.99, 100),
            p999: quantile(0.999, 1000),
            max: quantile(1.0, 1),
            samples,
            ci95: None,
        }
    }

    /// The same with confidence intervals, for samples that are independent of one another, as far as they can be: those of
    /// one stall are not, and the truth may lie further away then.
    pub fn with_intervals(histogram: &Histogram<u64>) -> Quantiles {
        let ci95 = Intervals {
            p50: interval(histogram, 0.5),
            p90: interval(histogram, 0.9),
            p99: interval(histogram, 0.99),
            p999: interval(histogram, 0.999),
        };
        Quantiles { ci95: (ci95 != Intervals::default()).then_some(ci95), ..Quantiles::of(histogram) }
    }

    /// The percentile called `p99` and so on; `None` if there is no such name.
    pub fn named(&self, name: &str) -> Option<Option<f64>> {
        match name {
            "p50" => Some(self.p50),
            "p90" => Some(self.p90),
            "p99" => Some(self.p99),
            "p999" => Some(self.p999),
            "max" => Some(self.max),
            _ => None,
        }
    }
}

/// The samples between which a quantile lies with 95 % confidence, whatever the distribution: how many samples lie below it
/// follows the binomial law.
fn interval(histogram: &Histogram<u64>, quantile: f64) -> Option<[f64; 2]> {
    /// Standard deviations of a normal law that leave 2.5 % on each side.
    const Z: f64 = 1.96;
    let samples = histogram.len() as f64;
    let (mean, deviation) = (samples * quantile, (samples * quantile * (1.0 - quantile)).sqrt());
    let ranks = [(mean - Z * deviation).floor(), (mean + Z * deviation).ceil() + 1.0];
    let is_there = ranks[0] >= 1.0 && ranks[1] <= samples;
    // Half a rank less, so that rounding does not make it the next one.
    is_there.then(|| ranks.map(|rank| histogram.value_at_quantile((rank - 0.5) / samples) as f64 / 1000.0))
}

/// A histogram of microseconds as the table, in milliseconds, that HdrHistogram's plotters read.
pub fn hgrm(histogram: &Histogram<u64>) -> String {
    let mut text = format!("{:>12} {:>14} {:>10} {:>14}\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    let mut count = 0;
    for value in histogram.iter_quantiles(5) {
        count += value.count_since_last_iteration();
        let (ms, quantile) = (value.value_iterated_to() as f64 / 1000.0, value.quantile_iterated_to());
        let inverse = if quantile < 1.0 { format!("{:.2}", 1.0 / (1.0 - quantile)) } else { "inf".to_owned() };
        // Writing to a string does not fail.
        let _ = writeln!(text, "{ms:>12.3} {quantile:>14.12} {count:>10} {inverse:>14}");
    }
    let (mean, deviation) = (histogram.mean() / 1000.0, histogram.stdev() / 1000.0);
    let (max, total) = (histogram.max() as f64 / 1000.0, histogram.len());
    let _ = writeln!(text, "#[Mean    = {mean:>12.3}, StdDeviation   = {deviation:>12.3}]");
    let _ = writeln!(text, "#[Max     = {max:>12.3}, Total count    = {total:>12}]");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::histogram;

    #[test]
    fn intervals_hold_the_truth_as_often_as_they_say_and_need_samples() {
        let mut random = crate::workload::Random::new(1, "intervals");
        let (mut held, runs) = (0, 400);
        for _ in 0..runs {
            let mut drawn = histogram();
            // Evenly from 1 to 1,000 ms: the 90th percentile is 900 ms.
            (0..300).for_each(|_| drawn.record(1 + random.below(1_000_000)).unwrap());
            let [from, to] = Quantiles::with_intervals(&drawn).ci95.unwrap().p90.unwrap();
            held += u32::from((from..=to).contains(&900.0));
        }
        let part = f64::from(held) / f64::from(runs);
        assert!((0.92..=0.99).contains(&part), "{part}");
        let mut few = histogram();
        (1..=100).for_each(|us| few.record(us).unwrap());
        let intervals = Quantiles::with_intervals(&few).ci95.unwrap();
        assert!(intervals.p90.is_some() && intervals.p99.is_none(), "{intervals:?}");
        assert_eq!(Quantiles::of(&few).ci95, None);
    }

    #[test]
    fn percentiles_need_samples() {
        let mut histogram = histogram();
        assert_eq!(Quantiles::of(&histogram), Quantiles::default());
        for us in 1..=99 {
            histogram.record(us * 1000).unwrap();
        }
        let quantiles = Quantiles::of(&histogram);
        assert_eq!((quantiles.p99, quantiles.p999, quantiles.samples), (None, None, 99));
        assert!((quantiles.p50.unwrap() - 50.0).abs() < 0.1);
        histogram.record(100_000).unwrap();
        assert!((Quantiles::of(&histogram).p99.unwrap() - 99.0).abs() < 0.2);
        let text = hgrm(&histogram);
        assert!(text.contains("Total count    =          100"), "{text}");
    }
}
