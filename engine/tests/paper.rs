//! One test for each claim of the paper "ACMS: The Akamai Configuration Management System" (NSDI 2005) that the
//! agreement protocol makes, and for each promise of the storage points (README.md, "What it promises").
//!
//! Each runs the real state machines, frames and stores in one thread (`support/cluster.rs`), in both modes where the
//! mode could matter.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use acms_engine::protocol::{Mode, Order, Outcome, QuorumSystem, Reason, SpId, Uid};
use std::time::Duration;
use support::cluster::{Cluster, Options, Setup};

const MODES: [Mode; 2] = [Mode::Fused, Mode::TwoPhase];

fn cluster(n: u8, mode: Mode) -> Cluster {
    Cluster::new(n, Setup { mode, ..Setup::default() })
}

fn publish(cluster: &mut Cluster, name: &str, sp: u8, path: &str, content: &str) {
    cluster.submit(name, SpId(sp), path, Some(content.as_bytes()), Options::default());
}

fn with_key(key: &str) -> Options {
    Options { key: Some(key.into()), ..Options::default() }
}

/// The UID under which `name` was accepted.
fn accepted(cluster: &Cluster, name: &str) -> Uid {
    match &cluster.told[name].outcome {
        Outcome::Accepted { uid } => *uid,
        other => panic!("{name}: {other:?}"),
    }
}

fn serves(cluster: &Cluster, sp: u8, path: &str) -> Option<String> {
    let (_, content) = cluster.read(SpId(sp), path)?;
    content.map(|bytes| String::from_utf8(bytes).unwrap())
}

fn all_serve(cluster: &Cluster, n: u8, path: &str, content: &str) {
    for sp in (1..=n).filter(|sp| cluster.is_up(SpId(*sp))) {
        assert_eq!(serves(cluster, sp, path).as_deref(), Some(content), "sp{sp}");
    }
}

// ---- Claims of the paper ------------------------------------------------------------------------------------------

#[test]
fn a_publisher_may_contact_any_storage_point() {
    for mode in MODES {
        let mut cluster = cluster(5, mode);
        for sp in 1..=5 {
            publish(&mut cluster, &format!("via {sp}"), sp, "any/file", &format!("{sp}"));
            cluster.run();
            accepted(&cluster, &format!("via {sp}"));
            all_serve(&cluster, 5, "any/file", &format!("{sp}"));
        }
    }
}

#[test]
fn acceptance_takes_a_quorum_on_stable_storage_and_no_more() {
    for mode in MODES {
        let mut cluster = cluster(5, mode);
        cluster.crash(SpId(4));
        cluster.crash(SpId(5));
        publish(&mut cluster, "three of five", 1, "q/a", "1");
        cluster.run();
        accepted(&cluster, "three of five");
        cluster.crash(SpId(3));
        publish(&mut cluster, "two of five", 1, "q/b", "2");
        cluster.run_for(Duration::from_secs(10));
        assert!(matches!(cluster.told["two of five"].outcome, Outcome::Rejected { reason: Reason::NoQuorum { .. } }));
    }
}

#[test]
fn vector_exchange_finishes_without_the_accepting_storage_point() {
    for mode in MODES {
        let mut cluster = cluster(3, mode);
        publish(&mut cluster, "orphan", 1, "v/a", "1");
        // On until some other storage point has its own bit durable or knows of one; then the accepting one is gone.
        let is_known = |cluster: &Cluster| (2..=3).any(|sp| cluster.sp(SpId(sp)).status().agreed_total > 0);
        while !is_known(&cluster) {
            let (writes, links) = cluster.enabled();
            match (writes.first(), links.first()) {
                (Some(sp), _) => drop(cluster.flush(*sp)),
                (None, Some((from, to))) => drop(cluster.deliver(*from, *to)),
                (None, None) => panic!("nothing goes on, and nobody knows it agreed"),
            }
        }
        cluster.crash(SpId(1));
        cluster.run_for(Duration::from_secs(10));
        all_serve(&cluster, 3, "v/a", "1");
    }
}

#[test]
fn vectors_may_be_lost_since_they_are_sent_again() {
    let mut cluster = cluster(3, Mode::Fused);
    publish(&mut cluster, "lossy", 1, "v/b", "1");
    // Every second frame is lost until time passes.
    let mut count = 0;
    loop {
        let (writes, links) = cluster.enabled();
        if let Some(sp) = writes.first() {
            cluster.flush(*sp);
        } else if let Some((from, to)) = links.first() {
            count += 1;
            if count % 2 == 0 && count > 4 {
                cluster.drop_frame(*from, *to);
            } else {
                cluster.deliver(*from, *to);
            }
        } else {
            break;
        }
    }
    cluster.run_for(Duration::from_secs(6));
    accepted(&cluster, "lossy");
    all_serve(&cluster, 3, "v/b", "1");
}

#[test]
fn a_storage_point_that_was_down_catches_up_by_index_merging() {
    for mode in MODES {
        let mut cluster = cluster(5, mode);
        publish(&mut cluster, "before", 1, "m/a", "old");
        cluster.run();
        cluster.crash(SpId(5));
        for i in 0..20 {
            publish(&mut cluster, &format!("{i}"), 1 + i % 4, &format!("m/{i}"), "new");
            cluster.run();
        }
        cluster.submit("deletion", SpId(2), "m/a", None, Options::default());
        cluster.run();
        cluster.start(SpId(5));
        cluster.run_for(Duration::from_secs(3));
        (0..20).for_each(|i| assert_eq!(serves(&cluster, 5, &format!("m/{i}")).as_deref(), Some("new")));
        assert!(cluster.read(SpId(5), "m/a").unwrap().1.is_none(), "the deletion came, too");
    }
}

#[test]
fn of_two_publications_of_a_file_all_storage_points_choose_the_same() {
    for mode in MODES {
        let mut cluster = cluster(5, mode);
        publish(&mut cluster, "one", 1, "race", "one");
        publish(&mut cluster, "two", 2, "race", "two");
        cluster.run_for(Duration::from_secs(10));
        let (one, two) = (cluster.told["one"].outcome.uid().unwrap(), cluster.told["two"].outcome.uid().unwrap());
        all_serve(&cluster, 5, "race", if one > two { "one" } else { "two" });
    }
}

#[test]
fn a_lost_connection_leaves_a_possible_accept_that_the_key_finds() {
    for mode in MODES {
        let mut cluster = cluster(3, mode);
        cluster.submit("lost", SpId(1), "p/a", Some(b"1"), with_key("k"));
        cluster.run();
        let first = accepted(&cluster, "lost");
        // The publisher did not hear; it tries another storage point with the same key.
        cluster.crash(SpId(1));
        cluster.submit("again", SpId(2), "p/a", Some(b"1"), with_key("k"));
        cluster.run_for(Duration::from_secs(1));
        assert_eq!(accepted(&cluster, "again"), first);
    }
}

#[test]
fn reading_goes_on_where_no_quorum_is_left() {
    let mut cluster = cluster(5, Mode::Fused);
    publish(&mut cluster, "a", 1, "r/a", "1");
    cluster.run();
    (2..=5).for_each(|sp| cluster.crash(SpId(sp)));
    cluster.run_for(Duration::from_secs(30));
    assert_eq!(serves(&cluster, 1, "r/a").as_deref(), Some("1"));
}

#[test]
fn no_clock_need_be_right() {
    let hours = |n: i64| n * 3_600_000_000;
    let mut cluster = cluster(3, Mode::Fused);
    for (sp, minutes) in [(1, -20), (2, 0), (3, 25)] {
        cluster.set_clock(SpId(sp), hours(minutes) / 60);
    }
    let mut last = Uid::ZERO;
    for i in 0..12 {
        publish(&mut cluster, &format!("{i}"), 1 + i % 3, "clock/a", &format!("{i}"));
        cluster.run();
        let uid = accepted(&cluster, &format!("{i}"));
        assert!(uid > last);
        last = uid;
    }
    all_serve(&cluster, 3, "clock/a", "11");
}

// ---- Quorum systems that the paper refers to ----------------------------------------------------------------------

#[test]
fn weighted_hierarchical_and_explicit_quorums_decide() {
    let cases: [(u8, &str, &[u8], &[u8]); 3] = [
        // Weighted: 1 has three of five votes.
        (3, "weighted:1=3,2=1,3=1", &[2, 3], &[1]),
        // Hierarchical: two of three groups by two of three members each.
        (9, "hierarchical:(1,2,3),(4,5,6),(7,8,9)", &[3, 6, 7, 8, 9], &[4, 5]),
        // Explicit.
        (3, "sets:1+2,1+3", &[2], &[3]),
    ];
    for (n, text, dispensable, then_needed) in cases {
        for mode in MODES {
            let quorum: QuorumSystem = text.parse().unwrap();
            let mut cluster = Cluster::new(n, Setup { mode, order: Order::Strict, quorum });
            dispensable.iter().for_each(|sp| cluster.crash(SpId(*sp)));
            publish(&mut cluster, "enough", 1, "w/a", "1");
            cluster.run_for(Duration::from_secs(1));
            accepted(&cluster, "enough");
            then_needed.iter().filter(|sp| **sp != 1).for_each(|sp| cluster.crash(SpId(*sp)));
            if then_needed != [1] {
                publish(&mut cluster, "too few", 1, "w/b", "2");
                cluster.run_for(Duration::from_secs(10));
                assert!(matches!(cluster.told["too few"].outcome, Outcome::Rejected { .. }), "{text}");
            }
        }
    }
}

// ---- Promises -----------------------------------------------------------------------------------------------------

#[test]
fn p1_what_was_accepted_survives_the_crash_of_all() {
    for mode in MODES {
        let mut cluster = cluster(5, mode);
        publish(&mut cluster, "kept", 3, "d/a", "kept");
        cluster.run();
        accepted(&cluster, "kept");
        (1..=5).for_each(|sp| cluster.crash(SpId(sp)));
        (1..=5).for_each(|sp| cluster.start(SpId(sp)));
        cluster.run_for(Duration::from_secs(10));
        all_serve(&cluster, 5, "d/a", "kept");
    }
}

#[test]
fn p1_what_was_accepted_survives_the_loss_of_one_disk_after_another() {
    for mode in MODES {
        let mut cluster = cluster(5, mode);
        publish(&mut cluster, "kept", 1, "d/b", "kept");
        cluster.run();
        accepted(&cluster, "kept");
        for sp in 1..=5 {
            cluster.crash(SpId(sp));
            cluster.replace(SpId(sp));
            cluster.start(SpId(sp));
            cluster.run_for(Duration::from_secs(3));
            assert!(cluster.sp(SpId(sp)).is_serving(), "sp{sp} is filled");
        }
        all_serve(&cluster, 5, "d/b", "kept");
        publish(&mut cluster, "after", 4, "d/b", "after");
        cluster.run();
        all_serve(&cluster, 5, "d/b", "after");
    }
}

#[test]
fn p2_agreement_reaches_all_that_stay_connected() {
    let mut cluster = cluster(5, Mode::Fused);
    cluster.cut(SpId(4), SpId(1));
    cluster.cut(SpId(4), SpId(2));
    cluster.cut(SpId(4), SpId(3));
    publish(&mut cluster, "a", 1, "a", "1");
    cluster.run_for(Duration::from_secs(30));
    all_serve(&cluster, 5, "a", "1");
}

#[test]
fn p3_what_begins_later_is_greater_on_whatever_path_by_whatever_clock() {
    for mode in MODES {
        let mut cluster = cluster(5, mode);
        cluster.set_clock(SpId(1), 20 * 60_000_000);
        cluster.set_clock(SpId(5), -20 * 60_000_000);
        publish(&mut cluster, "first", 1, "x", "1");
        cluster.run();
        publish(&mut cluster, "second", 5, "y", "2");
        cluster.run();
        assert!(accepted(&cluster, "second") > accepted(&cluster, "first"));
    }
}

#[test]
fn p7_as_of_follows_time_and_never_passes_what_is_missing() {
    let mut cluster = cluster(3, Mode::Fused);
    publish(&mut cluster, "a", 1, "a", "1");
    cluster.run_for(Duration::from_secs(3));
    (1..=3).for_each(|sp| assert!(cluster.as_of_age(SpId(sp)).unwrap() < Duration::from_secs(2)));
    // Storage point 3 is cut off, and something is accepted without it.
    cluster.cut(SpId(3), SpId(1));
    cluster.cut(SpId(3), SpId(2));
    publish(&mut cluster, "b", 1, "a", "2");
    cluster.run_for(Duration::from_secs(20));
    accepted(&cluster, "b");
    assert!(cluster.as_of_age(SpId(3)).unwrap() >= Duration::from_secs(20), "its as-of stands still");
    assert!(cluster.as_of_age(SpId(1)).unwrap() < Duration::from_secs(2));
}

#[test]
fn p8_rejected_is_never_agreed_and_a_key_has_one_outcome() {
    for mode in MODES {
        let mut cluster = cluster(3, mode);
        cluster.crash(SpId(2));
        cluster.crash(SpId(3));
        cluster.submit("refused", SpId(1), "z", Some(b"1"), with_key("k"));
        cluster.run_for(Duration::from_secs(10));
        assert!(matches!(cluster.told["refused"].outcome, Outcome::Rejected { .. }));
        cluster.start(SpId(2));
        cluster.start(SpId(3));
        cluster.run_for(Duration::from_secs(30));
        assert_eq!(serves(&cluster, 1, "z"), None);
        // The key is free again; under it a publication is one, whoever is asked.
        cluster.submit("first", SpId(1), "z", Some(b"2"), with_key("k"));
        cluster.submit("at once", SpId(1), "z", Some(b"2"), with_key("k"));
        cluster.run();
        cluster.submit("elsewhere", SpId(3), "z", Some(b"2"), with_key("k"));
        cluster.run();
        let uid = accepted(&cluster, "first");
        assert_eq!((accepted(&cluster, "at once"), accepted(&cluster, "elsewhere")), (uid, uid));
        cluster.submit("other content", SpId(2), "z", Some(b"3"), with_key("k"));
        cluster.run();
        let Outcome::Rejected { reason: Reason::KeyConflict { uid: named } } = cluster.told["other content"].outcome
        else {
            panic!("{:?}", cluster.told["other content"].outcome)
        };
        assert_eq!(named, Some(uid));
    }
}

#[test]
fn contents_older_than_the_kept_versions_are_let_go_and_the_newest_stay() {
    let mut cluster = cluster(3, Mode::Fused);
    for i in 0..30 {
        publish(&mut cluster, &format!("{i}"), 1, "versions", &format!("version {i}"));
        cluster.run();
    }
    let held = |cluster: &Cluster, i: u32| {
        let hash = cluster.told[&format!("{i}")].hash;
        (1..=3).filter(|sp| cluster.sp(SpId(*sp)).has_content(&hash)).count()
    };
    assert_eq!(held(&cluster, 0), 3, "roots with it are still served");
    cluster.run_for(Duration::from_secs(400));
    assert_eq!([0, 19, 20, 21, 29].map(|i| held(&cluster, i)), [0, 0, 3, 3, 3]);
    (1..=3).for_each(|sp| cluster.crash(SpId(sp)));
    (1..=3).for_each(|sp| cluster.start(SpId(sp)));
    cluster.run_for(Duration::from_secs(1));
    assert_eq!([0, 19, 20, 29].map(|i| held(&cluster, i)), [0, 0, 3, 3], "the same after a restart");
    all_serve(&cluster, 3, "versions", "version 29");
}
