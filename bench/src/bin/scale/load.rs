//! Publishers with kept connections: many in a closed loop to fill a cluster, or one open-loop schedule.

use crate::Failure;
use acms_bench::publisher::Publisher;
use hdrhistogram::Histogram;
use mio::{Events, Poll, Token};
use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

/// Bytes that no compression and no other number gives.
pub(crate) fn content(number: u64, len: usize) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03;
    let word = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(word).take(len.div_ceil(8)).flatten().collect();
    bytes.truncate(len);
    bytes
}

/// Publishes numbers below `count`, each once, by publishers in a closed loop. Those that are not accepted are published
/// again; how often that was.
pub(crate) fn fill(
    addresses: &[SocketAddr],
    publishers: usize,
    count: u64,
    publication: impl Fn(u64) -> (String, Vec<u8>),
) -> Result<u64, Failure> {
    let mut poll = Poll::new()?;
    let mut all = Vec::new();
    for at in 0..publishers {
        all.push((Publisher::connect(addresses[at % addresses.len()], poll.registry(), Token(at))?, 0));
    }
    let (mut next, mut done, mut again) = (0, 0, 0);
    let mut begin = |publisher: &mut Publisher, doing: &mut u64| {
        if next < count {
            let (path, content) = publication(next);
            publisher.begin(&path, &[], &content, Instant::now());
            *doing = next;
            next += 1;
        }
    };
    for (publisher, doing) in &mut all {
        begin(publisher, doing);
    }
    let mut events = Events::with_capacity(1024);
    while done < count {
        poll.poll(&mut events, Some(Duration::from_secs(1)))?;
        for event in &events {
            let (publisher, doing) = &mut all[event.token().0];
            while let Some((status, _)) = publisher.advance()? {
                if status == 201 {
                    done += 1;
                    begin(publisher, doing);
                } else {
                    again += 1;
                    let (path, content) = publication(*doing);
                    publisher.begin(&path, &[], &content, Instant::now());
                }
            }
        }
    }
    Ok(again)
}

/// What an open loop measured.
pub(crate) struct Paced {
    pub(crate) latency_us: Histogram<u64>,
    pub(crate) not_accepted: u64,
}

impl Paced {
    pub(crate) fn ms(&self, quantile: f64) -> f64 {
        self.latency_us.value_at_quantile(quantile) as f64 / 1e3
    }

    /// Whether the publisher has its outcome now, which is counted.
    fn advance(&mut self, publisher: &mut Publisher) -> Result<bool, Failure> {
        let Some((status, took)) = publisher.advance()? else { return Ok(false) };
        self.latency_us.record(took.as_micros() as u64)?;
        self.not_accepted += u64::from(status != 201);
        Ok(true)
    }
}

/// Publishes 1 KiB at a constant rate, `samples` times and on until `goes_on` is false; latency counts from when each was
/// to begin.
pub(crate) fn paced(
    addresses: &[SocketAddr],
    rate_per_s: u32,
    samples: u64,
    goes_on: &AtomicBool,
) -> Result<Paced, Failure> {
    const PUBLISHERS: usize = 256;
    let mut poll = Poll::new()?;
    let mut all = Vec::new();
    for at in 0..PUBLISHERS {
        all.push(Publisher::connect(addresses[at % addresses.len()], poll.registry(), Token(at))?);
    }
    let mut idle: std::collections::VecDeque<usize> = (0..PUBLISHERS).collect();
    let started = Instant::now();
    let mut paced = Paced { latency_us: Histogram::new(3)?, not_accepted: 0 };
    let (mut begun, mut events) = (0, Events::with_capacity(1024));
    loop {
        let is_over = begun >= samples && !goes_on.load(Ordering::Relaxed);
        if is_over && idle.len() == PUBLISHERS {
            return Ok(paced);
        }
        let mut at = started + Duration::from_secs(1) * u32::try_from(begun)? / rate_per_s;
        while !is_over
            && at <= Instant::now()
            && let Some(free) = idle.pop_front()
        {
            all[free].begin(&format!("small/f{}", begun % 500), &[], &content(begun, 1024), at);
            if paced.advance(&mut all[free])? {
                idle.push_back(free);
            }
            begun += 1;
            at = started + Duration::from_secs(1) * u32::try_from(begun)? / rate_per_s;
        }
        poll.poll(&mut events, Some(at.saturating_duration_since(Instant::now()).min(Duration::from_millis(100))))?;
        for event in &events {
            if paced.advance(&mut all[event.token().0])? {
                idle.push_back(event.token().0);
            }
        }
    }
}
