//! What still works while storage points are dead.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{Bench, assert_held, run};
use std::time::{Duration, Instant};

#[test]
fn a_minority_may_die_and_a_majority_is_missed_in_time_and_comes_back() {
    let mut bench = Bench::start(3, &[]);
    assert!(bench.publish(1, "a/first", "one").is_accepted());
    bench.converge(Duration::from_secs(30));

    bench.hosts.cluster.kill(4).unwrap();
    bench.hosts.cluster.kill(5).unwrap();
    for sp in 1..=3 {
        let published = bench.publish(sp, "a/two-dead", format!("by sp{sp}"));
        assert!(published.is_accepted(), "{published:?}");
    }

    bench.hosts.cluster.kill(3).unwrap();
    // Until the links are known to be dead and long after.
    for i in 0..2 {
        let asked = Instant::now();
        let published = bench.publish(1, "a/three-dead", format!("attempt {i}"));
        assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
        assert!(["rejected", "undetermined"].contains(&published.outcome), "{published:?}");
        println!("3 of 5 dead: {published:?}");
        assert!(published.cause.is_some());
    }
    for sp in 1..=2 {
        assert_eq!(bench.get(sp, "a/first").as_deref(), Some(&b"one"[..]));
        assert_eq!(bench.get(sp, "a/two-dead").as_deref(), Some(&b"by sp3"[..]));
    }

    for sp in 3..=5 {
        bench.hosts.cluster.restart(sp).unwrap();
    }
    let back = Instant::now();
    bench.converge(Duration::from_secs(65));
    println!("converged {:?} after the return", back.elapsed());
    assert!(bench.publish(5, "a/after", "again").is_accepted());
    bench.converge(Duration::from_secs(30));
    assert_held(&bench.finish().1);
}

#[test]
fn killing_a_storage_point_under_load_stops_nobody_for_long() {
    let ran = run("failover", &[], &[]);
    let result = ran.expect_passed();
    let updates = &result.publish.phases["updates"];
    assert!(updates.attempted >= 2000, "{updates:?}");
    assert_eq!(result.faults.len(), 1);
    let gap_ms = result.availability.longest_gap_ms.unwrap();
    println!("{} attempts, {} accepted, longest gap {gap_ms} ms", updates.attempted, updates.accepted);
    // Some 100 ms on a quiet machine; one that stands still for a second is no defect, waiting for the dead one is.
    assert!(gap_ms < 3000.0, "{gap_ms}");
}
