//! Wall clocks of hosts: true time, off by a constant, drifting, and moved when a fault says so.

use acms_engine::protocol::Micros;

/// True wall clock at the beginning of a run: microseconds since 1970.
pub(super) const WALL_START_US: u64 = 1_700_000_000_000_000;

/// A host's clock.
#[derive(Clone, Default, Debug)]
pub(super) struct Clock {
    /// Ahead of true time by this.
    pub(super) offset_us: i64,
    /// Runs fast by this many millionths.
    pub(super) drift_ppm: i64,
    /// How it moves away while faults last.
    pub(super) skews: Vec<Skew>,
}

/// An even movement of a clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Skew {
    /// The fault's number.
    pub(super) fault: usize,
    /// From here.
    pub(super) from_ns: u64,
    /// To here.
    pub(super) to_ns: u64,
    /// By this much.
    pub(super) by_us: i64,
}

impl Skew {
    pub(super) fn at(self, now_ns: u64) -> i64 {
        let length = i128::from(self.to_ns.saturating_sub(self.from_ns).max(1));
        let passed = i128::from(now_ns.saturating_sub(self.from_ns)).min(length);
        (i128::from(self.by_us) * passed / length) as i64
    }
}

impl Clock {
    /// A clock that is off by a constant and drifts.
    pub(super) fn new(offset_us: i64, drift_ppm: i64) -> Clock {
        Clock { offset_us, drift_ppm, skews: Vec::new() }
    }

    /// How far it is ahead of true time at `now_ns`.
    pub(super) fn ahead_us(&self, now_ns: u64) -> i64 {
        let drift_us = i128::from(now_ns / 1_000) * i128::from(self.drift_ppm) / 1_000_000;
        self.offset_us + drift_us as i64 + self.skews.iter().map(|skew| skew.at(now_ns)).sum::<i64>()
    }

    /// What it shows at `now_ns`.
    pub(super) fn wall(&self, now_ns: u64) -> Micros {
        let true_us = (WALL_START_US + now_ns / 1_000).cast_signed();
        Micros((true_us + self.ahead_us(now_ns)).max(0).cast_unsigned())
    }

    /// How fast it runs now, in millionths.
    pub(super) fn rate_ppm(&self) -> i64 {
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
        let clock = Clock::new(-5, 100);
        assert_eq!(clock.wall(0).0, WALL_START_US - 5);
        assert_eq!(clock.wall(10 * S).0, WALL_START_US + 10_000_000 - 5 + 1_000);
        assert_eq!(Clock::default().wall(7_000).0, WALL_START_US + 7);
        let skew = Skew { fault: 0, from_ns: 10 * S, to_ns: 20 * S, by_us: -3_000_000 };
        let mut clock = Clock { skews: vec![skew], ..Clock::default() };
        let ahead: Vec<i64> = [5, 10, 15, 20, 30].map(|s| clock.ahead_us(s * S)).to_vec();
        assert_eq!(ahead, [0, 0, -1_500_000, -3_000_000, -3_000_000]);
        assert_eq!(clock.rate_ppm(), -300_000);
        clock.skews.push(Skew { fault: 1, by_us: 1_000_000, ..skew });
        assert_eq!((clock.ahead_us(15 * S), clock.rate_ppm()), (-1_000_000, -200_000), "two add up");
    }
}
