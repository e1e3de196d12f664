//! Numbers drawn from a seed: the same on every machine.

/// SplitMix64 (Steele, Lea and Flood 2014): small, fast, and good enough to draw workloads.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A source of its own for each `purpose`, so that drawing more for one changes nothing for another.
    pub fn new(seed: u64, purpose: &str) -> Random {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes());
        hasher.update(purpose.as_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        Random(u64::from_le_bytes(first))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 if that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The bias of the multiplication is below 2^-32 for the bounds used here.
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// Whether something happens that happens `ppm` times in a million.
    pub fn chance(&mut self, ppm: u32) -> bool {
        self.below(1_000_000) < u64::from(ppm)
    }

    /// A waiting time with this mean, exponentially distributed: by von Neumann's comparisons, without a logarithm, which
    /// is not the same on every machine.
    pub fn exponential(&mut self, mean: u64) -> u64 {
        let mut whole: u64 = 0;
        loop {
            let first = self.bits();
            let (mut last, mut falling) = (first, 1);
            loop {
                let next = self.bits();
                if next > last {
                    break;
                }
                (last, falling) = (next, falling + 1);
            }
            if falling % 2 == 1 {
                let part = (u128::from(first) * u128::from(mean)) >> 64;
                return whole.saturating_mul(mean).saturating_add(part as u64);
            }
            whole += 1;
        }
    }

    /// Random bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.bits().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }

    /// Puts `items` into a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_and_a_purpose_decide() {
        let draw = |seed, purpose: &str| Random::new(seed, purpose).bytes(32);
        assert_eq!(draw(1, "a"), draw(1, "a"));
        assert_ne!(draw(1, "a"), draw(1, "b"));
        assert_ne!(draw(1, "a"), draw(2, "a"));
        let mut random = Random::new(1, "a");
        assert!((0..1000).all(|_| random.below(7) < 7));
        let mut items: Vec<u32> = (0..50).collect();
        random.shuffle(&mut items);
        assert!(!items.is_sorted());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn waiting_times_are_exponential() {
        let mut random = Random::new(1, "a");
        let mut times: Vec<u64> = (0..100_000).map(|_| random.exponential(1_000_000)).collect();
        let mean = times.iter().sum::<u64>() / 100_000;
        assert!((990_000..1_010_000).contains(&mean), "{mean}");
        times.sort_unstable();
        // ln 2 and ln 100 of the mean.
        assert!((680_000..706_000).contains(&times[50_000]), "{}", times[50_000]);
        assert!((4_500_000..4_710_000).contains(&times[99_000]), "{}", times[99_000]);
        assert!((0..100_000).filter(|_| random.chance(250_000)).count().abs_diff(25_000) < 600);
    }
}
