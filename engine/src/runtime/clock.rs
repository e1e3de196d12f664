//! The clocks of a process. Every reading of wall time goes through [`wall`], which adds the signed microseconds found
//! in the file that the variable `ACMS_CLOCK_OFFSET` names, if set: clock faults need no library tricks.

use crate::protocol::{Instant, Micros, Now};
use nix::time::{ClockId, clock_gettime};
use std::{
    path::PathBuf,
    sync::{
        OnceLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

/// The variable that names the offset file.
pub const OFFSET_VARIABLE: &str = "ACMS_CLOCK_OFFSET";
const OFFSET_READ_INTERVAL_NS: u64 = 100_000_000;

static OFFSET_FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
static OFFSET_US: AtomicI64 = AtomicI64::new(0);
static OFFSET_READ_AT_NS: AtomicU64 = AtomicU64::new(0);

fn read(clock: ClockId) -> (u64, u64) {
    let time = clock_gettime(clock).expect("the kernel has this clock");
    (u64::try_from(time.tv_sec()).unwrap_or(0), u64::try_from(time.tv_nsec()).unwrap_or(0))
}

/// `CLOCK_MONOTONIC` in nanoseconds: comparable between all processes of this machine.
pub fn monotonic() -> Instant {
    let (seconds, nanos) = read(ClockId::CLOCK_MONOTONIC);
    Instant(seconds * 1_000_000_000 + nanos)
}

/// Wall time, offset included.
pub fn wall() -> Micros {
    now().wall
}

/// Both clocks.
pub fn now() -> Now {
    let instant = monotonic();
    let (seconds, nanos) = read(ClockId::CLOCK_REALTIME);
    let micros = seconds * 1_000_000 + nanos / 1_000;
    Now { instant, wall: Micros(micros.saturating_add_signed(offset_us(instant))) }
}

/// The offset, read again from its file at most every 100 ms. What cannot be read or parsed changes nothing.
fn offset_us(now: Instant) -> i64 {
    let Some(file) = OFFSET_FILE.get_or_init(|| std::env::var_os(OFFSET_VARIABLE).map(PathBuf::from)) else { return 0 };
    let read_at = OFFSET_READ_AT_NS.load(Ordering::Relaxed);
    if read_at == 0 || now.0.saturating_sub(read_at) >= OFFSET_READ_INTERVAL_NS {
        OFFSET_READ_AT_NS.store(now.0.max(1), Ordering::Relaxed);
        if let Some(offset) = std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()) {
            OFFSET_US.store(offset, Ordering::Relaxed);
        }
    }
    OFFSET_US.load(Ordering::Relaxed)
}
