//! How far the wall clocks of hosts are off true time: by a constant, drifting, and moved when a fault says so.
//!
//! All times are in nanoseconds since the beginning of the run.

use crate::{scenario::Scenario, workload::Random};

/// A host's clock.
#[derive(Clone, Default, Debug)]
pub(crate) struct Clock {
    /// Ahead of true time by this.
    pub(crate) offset_us: i64,
    /// Runs fast by this many millionths.
    pub(crate) drift_ppm: i64,
    /// How it moves away while faults last.
    pub(crate) skews: Vec<Skew>,
}

/// An even movement of a clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Skew {
    /// The fault's number.
    pub(crate) fault: usize,
    /// From here.
    pub(crate) from_ns: u64,
    /// To here.
    pub(crate) to_ns: u64,
    /// By this much.
    pub(crate) by_us: i64,
}

impl Skew {
    pub(crate) fn at(self, now_ns: u64) -> i64 {
        let length = i128::from(self.to_ns.saturating_sub(self.from_ns).max(1));
        let passed = i128::from(now_ns.saturating_sub(self.from_ns)).min(length);
        (i128::from(self.by_us) * passed / length) as i64
    }
}

impl Clock {
    /// A host's clock: as far off as the scenario says, or draws.
    pub(crate) fn of(scenario: &Scenario, name: &str) -> Clock {
        let clocks = &scenario.clocks;
        let mut random = Random::new(scenario.seed, &format!("clock of {name}"));
        let mut within = |bound: u64| random.below(2 * bound + 1).cast_signed() - bound.cast_signed();
        let skew_us = u64::try_from(clocks.skew.0.as_micros()).unwrap_or(u64::MAX / 4);
        let (drawn_us, drift_ppm) = (within(skew_us), within(clocks.drift_ppm.into()));
        let offset_us = clocks.offsets.get(name).map_or(drawn_us, |offset| offset.0);
        Clock { offset_us, drift_ppm, skews: Vec::new() }
    }

    /// How far it is ahead of true time at `now_ns`.
    pub(crate) fn ahead_us(&self, now_ns: u64) -> i64 {
        let drift_us = i128::from(now_ns / 1_000) * i128::from(self.drift_ppm) / 1_000_000;
        self.offset_us + drift_us as i64 + self.skews.iter().map(|skew| skew.at(now_ns)).sum::<i64>()
    }

    /// What an event `clock` says of it at `now_ns`.
    pub(crate) fn told(&self, now_ns: u64) -> String {
        match (self.ahead_us(now_ns), self.rate_ppm()) {
            (ahead_us, 0) => ahead_us.to_string(),
            (ahead_us, rate_ppm) => format!("{ahead_us} {rate_ppm}"),
        }
    }

    /// How fast it runs now, in millionths.
    fn rate_ppm(&self) -> i64 {
        let rate_ppm = |skew: &Skew| {
            let length_us = i128::from(skew.to_ns.saturating_sub(skew.from_ns).max(1_000) / 1_000);
            (i128::from(skew.by_us) * 1_000_000 / length_us) as i64
        };
        self.drift_ppm + self.skews.iter().map(rate_ppm).sum::<i64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn offset_drift_and_skew_add_up() {
        let clock = Clock { offset_us: -5, drift_ppm: 100, skews: Vec::new() };
        assert_eq!([0, 10].map(|s| clock.ahead_us(s * S)), [-5, 995]);
        assert_eq!([clock.told(0), Clock::default().told(S)], ["-5 100", "0"]);
        let skew = Skew { fault: 0, from_ns: 10 * S, to_ns: 20 * S, by_us: -3_000_000 };
        let mut clock = Clock { skews: vec![skew], ..Clock::default() };
        let ahead: Vec<i64> = [5, 10, 15, 20, 30].map(|s| clock.ahead_us(s * S)).to_vec();
        assert_eq!(ahead, [0, 0, -1_500_000, -3_000_000, -3_000_000]);
        assert_eq!(clock.rate_ppm(), -300_000);
        clock.skews.push(Skew { fault: 1, by_us: 1_000_000, ..skew });
        assert_eq!((clock.ahead_us(15 * S), clock.rate_ppm()), (-1_000_000, -200_000), "two add up");
    }
}
