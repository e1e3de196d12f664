//! A byte rate: what is written beside the log goes to the disk in small portions, so that no commit waits behind it.

use crate::protocol::{Duration, Instant};

/// At most so many bytes a second, with a little more after a pause.
#[derive(Clone, Copy, Debug)]
pub struct ByteRate {
    bytes_per_s: u64,
    burst: Duration,
    /// When all that was written is paid for.
    paid: Instant,
}

impl ByteRate {
    /// `bytes_per_s` on average; after a pause what `burst` allows at once.
    pub fn new(bytes_per_s: u64, burst: Duration) -> ByteRate {
        ByteRate { bytes_per_s: bytes_per_s.max(1), burst, paid: Instant(0) }
    }

    /// When the next portion may be written; not after `now` if it may now.
    pub fn ready_at(&self) -> Instant {
        self.paid
    }

    /// `bytes` are written at `now`.
    pub fn spend(&mut self, now: Instant, bytes: u64) {
        let cost = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_s);
        let earliest = now.0.saturating_sub(self.burst.as_nanos() as u64);
        self.paid = Instant(self.paid.0.max(earliest).saturating_add(cost as u64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_over_any_time_and_a_pause_allows_a_burst() {
        let mut rate = ByteRate::new(1_000_000, Duration::from_millis(10));
        let mut now = Instant(5_000_000_000);
        assert!(rate.ready_at() <= now);
        for _ in 0..1_000 {
            rate.spend(now, 4_096);
            now = now.max(rate.ready_at());
        }
        assert_eq!(now.0 - 5_000_000_000, 4_096_000_000 - 10_000_000);
        now = Instant(now.0 + 1_000_000_000);
        rate.spend(now, 10_000);
        assert!(rate.ready_at() <= now);
        rate.spend(now, 1);
        assert!(rate.ready_at() > now);
    }
}
