//! A small seeded generator (SplitMix64) for jitter and choices: protocol code draws no randomness of its own.

use crate::protocol::Duration;

/// The generator. Equal seeds give equal draws everywhere.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// 64 random bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound` (which is at least 1).
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.draw()) * u128::from(bound)) >> 64) as u64
    }

    /// Between three and five quarters of `interval`.
    pub fn jitter(&mut self, interval: Duration) -> Duration {
        let micros = interval.as_micros() as u64;
        Duration::from_micros(micros * 3 / 4 + self.below(micros / 2 + 1))
    }
}
