//! Connections that come to nothing because of TLS: counted all, told of once a second at most, so that nobody fills a
//! disk with log lines.

use crate::{
    protocol::{Duration, Instant},
    tls::{Cause, Fault},
};
use std::{collections::BTreeMap, io, net::SocketAddr};

const TELL_EVERY: Duration = Duration::from_secs(1);

/// What was refused so far.
#[derive(Clone, Debug, Default)]
pub struct Refusals {
    counts: BTreeMap<Cause, u64>,
    told_at: Option<Instant>,
    untold: u64,
}

impl Refusals {
    /// Counts an error of a connection if it is one of TLS, and tells of it. `what` says what it wanted to be.
    pub fn note(&mut self, what: &str, from: Option<SocketAddr>, error: &io::Error, now: Instant) {
        let Some(fault) = Fault::of(error) else { return };
        *self.counts.entry(fault.cause).or_default() += 1;
        if self.told_at.is_some_and(|at| now.since(at) < TELL_EVERY) {
            self.untold += 1;
            return;
        }
        self.told_at = Some(now);
        let more = match std::mem::take(&mut self.untold) {
            0 => String::new(),
            count => format!(" ({count} more since the last such line)"),
        };
        let from = from.map_or_else(|| "somebody who is gone".to_owned(), |from| from.to_string());
        tracing::warn!("{what} with {from} came to nothing: {fault}{more}");
    }

    /// How many had this cause.
    pub fn count(&self, cause: Cause) -> u64 {
        self.counts.get(&cause).copied().unwrap_or_default()
    }
}
