//! Draws within bounds, integers only.

use crate::{
    scenario::{ByteRange, Bytes, Fraction, Range, Span, SpanRange},
    workload::Random,
};
use std::time::Duration;

pub(super) struct Dice(Random);

impl Dice {
    pub(super) fn new(seed: u64, purpose: &str) -> Dice {
        Dice(Random::new(seed, purpose))
    }

    /// From `low` to `high`, both included.
    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.0.below((high - low).saturating_add(1))
    }

    /// From `low` to `high`, each power of two as likely as the next.
    pub(super) fn log_between(&mut self, low: u64, high: u64) -> u64 {
        let bits = |value: u64| u64::from(u64::BITS - value.leading_zeros());
        let length = self.between(bits(low), bits(high));
        let floor = if length == 0 { 0 } else { 1 << (length - 1) };
        let ceiling = (floor.max(1) - 1) * 2 + 1;
        self.between(floor, ceiling).clamp(low, high)
    }

    /// Whether something happens whose chance is `percent` of 100.
    pub(super) fn percent(&mut self, percent: u64) -> bool {
        self.0.below(100) < percent
    }

    pub(super) fn happens(&mut self, chance: Fraction) -> bool {
        self.0.below(Fraction::ALL.0.into()) < u64::from(chance.0)
    }

    pub(super) fn choice<'c, T>(&mut self, choices: &'c [T]) -> &'c T {
        &choices[self.0.below(choices.len() as u64) as usize]
    }

    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        self.0.shuffle(items);
    }

    pub(super) fn range(&mut self, range: Range) -> u64 {
        self.between(range.0, range.1)
    }

    /// Short ones are as likely as long ones.
    pub(super) fn span(&mut self, range: SpanRange) -> Span {
        let micros = |span: Span| span.0.as_micros() as u64;
        let drawn = self.log_between(micros(range.0), micros(range.1));
        // Whole milliseconds, where they are exact enough, are easier to read.
        if drawn > 100_000 { Span(Duration::from_millis(drawn / 1000)) } else { Span::from_micros(drawn) }
    }

    pub(super) fn bytes(&mut self, range: ByteRange) -> Bytes {
        Bytes(self.log_between(range.0.0, range.1.0))
    }

    /// Nothing, or up to `max`; half and half.
    pub(super) fn up_to(&mut self, max: Fraction) -> Fraction {
        if self.percent(50) { Fraction(0) } else { Fraction(self.between(0, max.0.into()) as u32) }
    }

    pub(super) fn millis(&mut self, low: u64, high: u64) -> Span {
        Span(Duration::from_millis(self.log_between(low, high)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_stay_within_bounds_and_reach_them() {
        let mut dice = Dice::new(1, "test");
        let drawn: Vec<u64> = (0..2000).map(|_| dice.log_between(3, 9)).collect();
        assert_eq!((drawn.iter().min(), drawn.iter().max()), (Some(&3), Some(&9)));
        assert!((0..2000).all(|_| dice.log_between(0, 0) == 0 && dice.between(7, 7) == 7));
        assert!((0..2000).all(|_| dice.log_between(5, u64::MAX) >= 5));
        let range: SpanRange = "100ms..15s".parse().unwrap();
        assert!((0..2000).all(|_| (range.0..=range.1).contains(&dice.span(range))));
        assert!((0..100).all(|_| !dice.percent(0) && dice.percent(100) && dice.happens(Fraction::ALL)));
    }
}
