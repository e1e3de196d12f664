//! Clocks that disagree: strict order does not depend on them, and one that is far ahead gets nothing accepted.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use acms_testbed::trace::Kind;
use common::{Bench, assert_held};
use std::time::Duration;

const MINUTE_US: i64 = 60_000_000;

#[test]
fn the_last_of_a_thousand_wins_though_clocks_are_fifty_minutes_apart() {
    let offsets = [(1, -25), (2, 25), (3, 0), (4, -12), (5, 12)].map(|(sp, minutes)| (sp, minutes * MINUTE_US));
    let bench = Bench::start(3, &offsets);
    let mut last = None;
    for i in 0..1000_u32 {
        let sp = (i % 5) as u8 + 1;
        let published = bench.publish(sp, "clock/one", format!("version {i}"));
        assert!(published.is_accepted(), "{i} at sp{sp}: {published:?}");
        assert!(published.uid > last, "{i} at sp{sp}: {:?} after {last:?}", published.uid);
        last = published.uid;
    }
    bench.converge(Duration::from_secs(60));
    for sp in 1..=5 {
        assert_eq!(bench.get(sp, "clock/one").as_deref(), Some(&b"version 999"[..]), "sp{sp}");
    }
    for receiver in &bench.hosts.receivers {
        assert_eq!(std::fs::read(receiver.dirs[0].join("clock/one")).unwrap(), b"version 999");
    }
    let (trace, checks) = bench.finish();
    assert_held(&checks);
    assert_eq!(trace.of(Kind::Outcome).count(), 1000);
}

#[test]
fn a_clock_two_hours_fast_gets_its_publications_rejected_and_none_appears() {
    let bench = Bench::start(1, &[(3, 120 * MINUTE_US)]);
    for i in 0..3 {
        let published = bench.publish(3, &format!("fast/{i}"), "from the future");
        assert_eq!(published.outcome, "rejected", "{published:?}");
        assert!(published.cause.as_deref().unwrap().contains("clock ahead"), "{published:?}");
        assert!(published.took < Duration::from_secs(10), "{published:?}");
    }
    // The others are not held up, nor does the fast one's time spread.
    for sp in [1, 2, 4, 5] {
        assert!(bench.publish(sp, "fast/others", format!("by sp{sp}")).is_accepted());
    }
    // Once its clock is right it takes part again; what was rejected stays away.
    bench.hosts.cluster.set_clock_offset(3, 0).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(bench.publish(3, "fast/right", "now").is_accepted());
    bench.converge(Duration::from_secs(60));
    for sp in 1..=5 {
        assert_eq!(bench.get(sp, "fast/right").as_deref(), Some(&b"now"[..]), "sp{sp}");
        assert!((0..3).all(|i| bench.get(sp, &format!("fast/{i}")).is_none()), "sp{sp}");
    }
    let (trace, checks) = bench.finish();
    assert_held(&checks);
    let fast = |path: &str| ["fast/0", "fast/1", "fast/2"].contains(&path);
    let seen = trace.events().iter().filter(|event| event.path.as_deref().is_some_and(fast));
    let appeared: Vec<_> = seen
        .filter(|event| !matches!(event.kind, Kind::Scheduled | Kind::Invoke | Kind::Outcome | Kind::Rejected))
        .collect();
    assert!(appeared.is_empty(), "{appeared:?}");
}
