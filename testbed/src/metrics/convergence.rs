//! How publications spread: when each receiver had each publication, or a newer one of its path.

use super::{Attempt, Propagation, Quantiles, histogram, record_ns};
use crate::trace::{Event, Kind, Trace};
use acms_engine::protocol::{Prefix, Uid};
use hdrhistogram::Histogram;
use std::collections::BTreeMap;

/// Parts of the fleet whose time is measured, in thousandths, and how many receivers that needs.
const FRACTIONS: [(&str, u64, usize); 5] =
    [("50", 500, 1), ("90", 900, 10), ("99", 990, 100), ("99.9", 999, 1000), ("100", 1000, 1)];

/// One publication that is followed.
struct Followed {
    uid: Uid,
    due_ns: u64,
}

/// When a receiver did not run, and what it wants.
#[derive(Default)]
struct Receiver {
    started_ns: u64,
    down: Vec<(u64, u64)>,
    subscriptions: Vec<Prefix>,
}

/// Propagation of the publications among `attempts` that were agreed, and the distribution over receivers.
pub(super) fn propagation(trace: &Trace, attempts: &[Attempt<'_>]) -> (Propagation, Histogram<u64>) {
    let mut followed: BTreeMap<&str, Vec<Followed>> = BTreeMap::new();
    for attempt in attempts {
        // Without an agreement nobody can be expected to deliver it.
        if let Some(uid) = attempt.uid.filter(|_| attempt.outcome.is_some_and(|(outcome, _)| outcome != "rejected")) {
            followed.entry(attempt.path).or_default().push(Followed { uid, due_ns: attempt.due_ns });
        }
    }
    followed.values_mut().for_each(|publications| publications.sort_by_key(|publication| publication.uid));
    let receivers = receivers(trace);
    let verified = deliveries(trace, Kind::Verified, &followed);
    let applied = deliveries(trace, Kind::Applied, &followed);

    let mut per_receiver = histogram();
    let mut per_receiver_applied = histogram();
    let mut convergence = FRACTIONS.map(|_| histogram());
    let mut propagation = Propagation::default();
    for (path, publications) in &followed {
        for (i, publication) in publications.iter().enumerate() {
            let mut latencies_ns = Vec::new();
            let mut expected = 0;
            for (name, receiver) in &receivers {
                let delivered_ns = verified.get(&(*name, *path)).and_then(|times| times.get(i)).copied();
                if !receiver.wants(path) || !receiver.lives(publication.due_ns, delivered_ns.unwrap_or(u64::MAX)) {
                    continue;
                }
                expected += 1;
                if let Some(delivered_ns) = delivered_ns {
                    latencies_ns.push(delivered_ns.saturating_sub(publication.due_ns));
                }
                if let Some(applied_ns) = applied.get(&(*name, *path)).and_then(|times| times.get(i)) {
                    record_ns(&mut per_receiver_applied, applied_ns.saturating_sub(publication.due_ns));
                }
            }
            propagation.deliveries_expected += expected as u64;
            propagation.deliveries_made += latencies_ns.len() as u64;
            latencies_ns.sort_unstable();
            latencies_ns.iter().for_each(|ns| record_ns(&mut per_receiver, *ns));
            for ((_, thousandths, receivers_min), histogram) in FRACTIONS.iter().zip(&mut convergence) {
                let needed = (expected as u64 * thousandths).div_ceil(1000) as usize;
                if expected >= *receivers_min
                    && let Some(ns) = needed.checked_sub(1).and_then(|i| latencies_ns.get(i))
                {
                    record_ns(histogram, *ns);
                }
            }
        }
    }
    propagation.per_receiver_ms = Quantiles::of(&per_receiver);
    propagation.applied_ms = Quantiles::of(&per_receiver_applied);
    let named = FRACTIONS.iter().zip(&convergence);
    propagation.convergence_ms =
        named.map(|((name, ..), histogram)| ((*name).to_owned(), Quantiles::of(histogram))).collect();
    (propagation, per_receiver)
}

impl Receiver {
    fn wants(&self, path: &str) -> bool {
        self.subscriptions.iter().any(|prefix| prefix.covers(path))
    }

    /// Whether it ran all the time from `from_ns` to `to_ns`.
    fn lives(&self, from_ns: u64, to_ns: u64) -> bool {
        self.started_ns <= from_ns && !self.down.iter().any(|(down_ns, up_ns)| *down_ns <= to_ns && *up_ns >= from_ns)
    }
}

fn receivers(trace: &Trace) -> BTreeMap<&str, Receiver> {
    let mut receivers: BTreeMap<&str, Receiver> = BTreeMap::new();
    let audit_ns =
        trace.of(Kind::Phase).find(|event| event.cause.as_deref() == Some("audit")).map(|event| event.time_ns);
    for event in trace.events() {
        let is_pause = event.outcome.as_deref() == Some("pause");
        let (name, goes_down, comes_up) = match event.kind {
            Kind::Fault | Kind::FaultUndone if is_pause => {
                (event.cause.as_deref().unwrap_or_default(), event.kind == Kind::Fault, event.kind == Kind::FaultUndone)
            }
            Kind::Start => (&*event.process, false, event.incarnation > 0),
            // All are stopped after the audit; by then nothing is delivered any more.
            Kind::Exit => (&*event.process, audit_ns.is_none_or(|audit_ns| event.time_ns < audit_ns), false),
            Kind::Subscribe => (&*event.process, false, false),
            _ => continue,
        };
        if !name.starts_with("receiver") {
            continue;
        }
        let receiver = receivers.entry(name).or_default();
        match event.kind {
            Kind::Subscribe => receiver.subscriptions.extend(event.path.as_deref().and_then(|path| path.parse().ok())),
            Kind::Start if event.incarnation == 0 => receiver.started_ns = event.time_ns,
            _ => {}
        }
        if goes_down {
            receiver.down.push((event.time_ns, u64::MAX));
        }
        if comes_up && let Some((_, up_ns)) = receiver.down.last_mut() {
            *up_ns = event.time_ns;
        }
    }
    receivers
}

/// For each receiver and path, when it had each of the path's publications (in the order of their UIDs) or a newer one.
fn deliveries<'t>(
    trace: &'t Trace,
    kind: Kind,
    followed: &BTreeMap<&'t str, Vec<Followed>>,
) -> BTreeMap<(&'t str, &'t str), Vec<u64>> {
    let mut times: BTreeMap<(&str, &str), Vec<u64>> = BTreeMap::new();
    for event in trace.of(kind) {
        let Event { process, path: Some(path), uid: Some(uid), time_ns, .. } = event else { continue };
        let Some((path, publications)) = followed.get_key_value(&**path) else { continue };
        let delivered = times.entry((process, path)).or_default();
        let newer = publications.iter().skip(delivered.len()).take_while(|publication| publication.uid <= *uid).count();
        delivered.extend(std::iter::repeat_n(*time_ns, newer));
    }
    times
}

#[cfg(test)]
mod tests {
    use crate::{checks::testing::trace, metrics::Metrics};

    const RUN: &str = "
        1 receiver1 start
        1 receiver1 subscribe path=a
        1 receiver2 start
        1 receiver2 subscribe path=a
        1 receiver3 start
        1 receiver3 subscribe path=b
        10 testbed phase cause=updates
        10 publisher invoke key=k1 path=a/x
        11 publisher outcome key=k1 uid=10.1.0 outcome=accepted
        12 receiver1 verified path=a/x uid=10.1.0
        13 publisher invoke key=k2 path=a/x
        14 publisher outcome key=k2 uid=11.1.0 outcome=accepted
        15 receiver2 verified path=a/x uid=11.1.0
        16 receiver1 verified path=a/x uid=11.1.0";

    #[test]
    fn a_newer_one_counts_and_only_subscribers_are_expected() {
        let propagation = Metrics::of(&trace(RUN)).propagation;
        assert_eq!((propagation.deliveries_expected, propagation.deliveries_made), (4, 4));
        let max = |name: &str| propagation.convergence_ms[name].max.unwrap().round();
        assert_eq!(max("100"), 5001.0, "receiver2 had k1 by k2, five seconds after k1 was due");
        assert_eq!(propagation.convergence_ms["50"].p50.unwrap().round(), 2001.0);
        assert_eq!(propagation.convergence_ms["99"].samples, 0, "99 % of two receivers is not a thing");
    }

    #[test]
    fn receivers_that_are_down_are_not_expected_to_have_anything() {
        let down = format!("{RUN}\n14 receiver2 exit\n 14 receiver2#1 start\n");
        let propagation = Metrics::of(&trace(&down)).propagation;
        assert_eq!((propagation.deliveries_expected, propagation.deliveries_made), (2, 2));
        let lost = RUN.replace("16 receiver1 verified path=a/x uid=11.1.0", "");
        let propagation = Metrics::of(&trace(&lost)).propagation;
        assert_eq!((propagation.deliveries_expected, propagation.deliveries_made), (4, 3));
        assert_eq!(propagation.convergence_ms["100"].samples, 1);
    }
}
