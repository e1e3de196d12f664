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
        }
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
