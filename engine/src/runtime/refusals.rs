//! Connections that come to nothing because of TLS: all are counted, and told of in the log within bounds, so that nobody
//! fills a disk with lines.

use crate::{
    protocol::{Duration, Instant},
    runtime::exposition::Exposition,
    tls::{Cause, Fault},
};
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
};

/// The same of the same address is told this often at most.
const TELL_AGAIN_EVERY: Duration = Duration::from_secs(30);
/// In this time, so many lines at most, of whomever.
const WINDOW: Duration = Duration::from_secs(10);
const LINES_PER_WINDOW_MAX: usize = 10;

/// What was refused so far.
#[derive(Clone, Debug, Default)]
pub struct Refusals {
    counts: BTreeMap<Cause, u64>,
    /// When what was told last; what is older than a repetition may be is thrown away.
    told: BTreeMap<(Option<IpAddr>, Cause), Instant>,
    untold: u64,
}

impl Refusals {
    /// Counts an error of a connection if it is one of TLS.
    pub fn count(&mut self, error: &io::Error) {
        if let Some(fault) = Fault::of(error) {
            *self.counts.entry(fault.cause).or_default() += 1;
        }
    }

    /// Counts and tells of it. `what` says what it wanted to be.
    pub fn note(&mut self, what: &str, from: Option<SocketAddr>, error: &io::Error, now: Instant) {
        self.count(error);
        let Some(fault) = Fault::of(error) else { return };
        if !self.may_tell((from.map(|from| from.ip()), fault.cause), now) {
            self.untold += 1;
            return;
        }
        let more = match std::mem::take(&mut self.untold) {
            0 => String::new(),
            count => format!(" ({count} more since the last such line)"),
        };
        let from = from.map_or_else(|| "somebody who is gone".to_owned(), |from| from.to_string());
        tracing::warn!("{what} with {from} came to nothing: {fault}{more}");
    }

    fn may_tell(&mut self, about: (Option<IpAddr>, Cause), now: Instant) -> bool {
        self.told.retain(|_, at| now.since(*at) < TELL_AGAIN_EVERY);
        let recent = self.told.values().filter(|at| now.since(**at) < WINDOW).count();
        if self.told.contains_key(&about) || recent >= LINES_PER_WINDOW_MAX {
            return false;
        }
        self.told.insert(about, now);
        true
    }

    /// How many had this cause.
    pub fn of(&self, cause: Cause) -> u64 {
        self.counts.get(&cause).copied().unwrap_or_default()
    }
}

/// What `/metrics` says of them, by listener.
pub fn metrics(listeners: &[(&str, &Refusals)], text: &mut Exposition) {
    let counts = listeners.iter().flat_map(|(listener, refusals)| {
        Cause::ALL.into_iter().map(move |cause| (*listener, cause.word(), refusals.of(cause)))
    });
    let help = "Connections that came to nothing because of TLS, by listener and cause.";
    text.counters_by_two("tls_refused_total", help, ("listener", "cause"), counts);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_counts_are_not() {
        let error = |cause| io::Error::from(Fault { cause, problem: "p".into(), remedy: "r" });
        let at = |seconds: u64| Instant(seconds * 1_000_000_000);
        let from = |last: u8| Some(SocketAddr::from(([192, 0, 2, last], 1)));
        let mut refusals = Refusals::default();
        for last in 0..50 {
            refusals.note("it", from(last), &error(Cause::Expired), at(100));
        }
        assert_eq!((refusals.of(Cause::Expired), refusals.told.len(), refusals.untold), (50, 10, 40));
        refusals.note("it", from(0), &error(Cause::Expired), at(111));
        assert_eq!(refusals.untold, 41, "the same again");
        refusals.note("it", from(0), &error(Cause::Missing), at(111));
        assert_eq!((refusals.untold, refusals.of(Cause::Missing)), (0, 1), "something else of the same");
        refusals.note("it", from(0), &io::ErrorKind::ConnectionReset.into(), at(112));
        assert_eq!(Cause::ALL.iter().map(|cause| refusals.of(*cause)).sum::<u64>(), 52, "that is no matter of TLS");
    }
}
