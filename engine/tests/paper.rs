//! One test for each claim of the paper "ACMS: The Akamai Configuration Management System" (NSDI 2005) that the
//! agreement protocol makes, and for each promise of the storage points (README.md, "What it promises").
//!
//! Each runs the real state machines, frames and stores in one thread (`support/cluster.rs`), in both modes where the
//! mode could matter.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use acms_engine::protocol::{Mode, Order, Outcome, QuorumSystem, Reason, SpId, Uid, random::Random};
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

/// The next flush, or else the next frame.
fn go_on(cluster: &mut Cluster) {
    let (writes, links) = cluster.enabled();
    match (writes.first(), links.first()) {
        (Some(sp), _) => drop(cluster.flush(*sp)),
        (None, Some((from, to))) => drop(cluster.deliver(*from, *to)),
        (None, None) => panic!("nothing goes on"),
    }
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
            go_on(&mut cluster);
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

#[test]
fn a_publication_too_far_in_the_future_is_refused() {
    for mode in MODES {
        let mut cluster = cluster(5, mode);
        let known = Some(cluster.uid_ahead(Duration::from_secs(2 * 3_600)));
        cluster.submit("far", SpId(1), "future", Some(b"1"), Options { known, ..Options::default() });
        cluster.run_for(Duration::from_secs(1));
        let outcome = &cluster.told["far"].outcome;
        assert!(matches!(outcome, Outcome::Rejected { reason: Reason::ClockAhead { .. } }), "{outcome:?}");
        // No clock moved for it.
        publish(&mut cluster, "now", 1, "future", "2");
        cluster.run();
        assert!(accepted(&cluster, "now") < cluster.uid_ahead(Duration::from_secs(1)));
        // What is far ahead of one storage point's clock alone is refused there until it is agreed.
        cluster.set_clock(SpId(5), -2 * 3_600_000_000);
        cluster.news.clear();
        publish(&mut cluster, "ahead of sp5", 1, "future", "3");
        cluster.run_for(Duration::from_secs(30));
        accepted(&cluster, "ahead of sp5");
        assert!(cluster.news.iter().any(|line| line.contains("sp5 refuses to store")), "{:?}", cluster.news);
        all_serve(&cluster, 5, "future", "3");
    }
}

#[test]
fn messages_may_come_twice_and_in_any_order() {
    for (mode, seed) in MODES.into_iter().flat_map(|mode| (0..20).map(move |seed| (mode, seed))) {
        let mut cluster = cluster(3, mode);
        let mut random = Random::new(seed);
        for i in 0..4 {
            publish(&mut cluster, &format!("{i}"), 1 + i % 3, &format!("d/{}", i % 2), &format!("{i}"));
        }
        let (mut twice, mut out_of_turn) = (0, 0);
        for _ in 0..400 {
            let (writes, links) = cluster.enabled();
            if !writes.is_empty() && random.below(3) == 0 {
                cluster.flush(writes[random.below(writes.len() as u64) as usize]);
            } else if !links.is_empty() {
                let (from, to) = links[random.below(links.len() as u64) as usize];
                let (choice, again) = (random.below(4), random.below(4) == 0);
                (twice, out_of_turn) = (twice + usize::from(again), out_of_turn + usize::from(choice > 0));
                cluster.deliver_any(from, to, choice, again);
            }
        }
        assert!(twice > 3 && out_of_turn > 10, "{twice} came twice, {out_of_turn} out of turn");
        cluster.run_for(Duration::from_secs(30));
        for i in 0..4 {
            let outcome = &cluster.told[&format!("{i}")].outcome;
            let is_known =
                matches!(outcome, Outcome::Accepted { .. } | Outcome::Undetermined { superseded_by: Some(_), .. });
            assert!(is_known, "seed {seed}: {outcome:?}");
        }
        for path in ["d/0", "d/1"] {
            let newest = cluster.read(SpId(1), path);
            assert!(newest.is_some());
            (2..=3).for_each(|sp| assert_eq!(cluster.read(SpId(sp), path), newest, "seed {seed}"));
        }
    }
}

/// A publication through storage point 1 of five whose order query was answered by all, and whose offers are out: frames
/// of nothing else are on their way.
fn offered(mode: Mode, options: Options) -> Cluster {
    let mut cluster = cluster(5, mode);
    publish(&mut cluster, "before", 1, "before", "1");
    cluster.run();
    cluster.submit("offered", SpId(1), "o/a", Some(b"offered"), options);
    (2..=5).for_each(|sp| assert!(cluster.deliver(SpId(1), SpId(sp))));
    (2..=5).for_each(|sp| assert!(cluster.deliver(SpId(sp), SpId(1))));
    cluster
}

fn isolate(cluster: &mut Cluster, sp: u8) {
    (1..=5).filter(|other| *other != sp).for_each(|other| cluster.cut(SpId(sp), SpId(other)));
}

fn rejoin(cluster: &mut Cluster, sp: u8) {
    (1..=5).filter(|other| *other != sp).for_each(|other| cluster.heal(SpId(sp), SpId(other)));
}

#[test]
fn two_phase_rejects_for_good_what_too_few_have_confirmed() {
    let mut cluster = offered(Mode::TwoPhase, Options::default());
    // Storage point 2 stores and confirms; the others never hear of it in time.
    assert!(cluster.deliver(SpId(1), SpId(2)) && cluster.flush(SpId(2)) && cluster.flush(SpId(1)));
    assert!(cluster.deliver(SpId(2), SpId(1)));
    isolate(&mut cluster, 1);
    cluster.run_for(Duration::from_secs(10));
    let outcome = &cluster.told["offered"].outcome;
    let Outcome::Rejected { reason: Reason::NoQuorum { answered, .. } } = outcome else { panic!("{outcome:?}") };
    assert_eq!(answered, &[1, 2], "those that confirmed");
    rejoin(&mut cluster, 1);
    cluster.run_for(Duration::from_secs(60));
    (1..=5).for_each(|sp| assert_eq!(serves(&cluster, sp, "o/a"), None));
    assert_eq!(cluster.sp(SpId(3)).status().pending, 0, "what was rejected is not offered again");
    // A newer one of its path takes its place.
    publish(&mut cluster, "newer", 3, "o/a", "newer");
    cluster.run_for(Duration::from_secs(1));
    all_serve(&cluster, 5, "o/a", "newer");
    (1..=5).for_each(|sp| assert_eq!(cluster.sp(SpId(sp)).status().pending, 0));
}

#[test]
fn a_possible_accept_of_a_storage_point_that_failed_is_resolved_later() {
    for mode in MODES {
        let mut cluster = offered(mode, with_key("k"));
        // On until another storage point holds its own bit or knows of one.
        let began = |cluster: &Cluster| {
            let knows = |sp: u8| {
                let seen = cluster.sp(SpId(sp)).inspect();
                seen.publications.values().any(|one| one.key.is_some() && (one.own_bit || !one.bits.is_empty()))
            };
            (2..=5).any(knows)
        };
        while !began(&cluster) {
            go_on(&mut cluster);
        }
        cluster.crash(SpId(1));
        assert!(!cluster.told.contains_key("offered"), "its publisher was told nothing");
        cluster.run_for(Duration::from_secs(10));
        (2..=5).for_each(|sp| assert_eq!(serves(&cluster, sp, "o/a").as_deref(), Some("offered"), "{mode:?}"));
        cluster.submit("asked again", SpId(4), "o/a", Some(b"offered"), with_key("k"));
        cluster.run_for(Duration::from_secs(1));
        let served = cluster.read(SpId(4), "o/a").unwrap().0;
        assert_eq!(accepted(&cluster, "asked again"), served);
    }
}

#[test]
fn an_isolated_storage_point_refuses_and_catches_up_once_healed() {
    for mode in MODES {
        let mut cluster = cluster(5, mode);
        isolate(&mut cluster, 1);
        publish(&mut cluster, "alone", 1, "i/a", "alone");
        publish(&mut cluster, "together", 2, "i/b", "together");
        cluster.run_for(Duration::from_secs(10));
        let outcome = &cluster.told["alone"].outcome;
        assert!(matches!(outcome, Outcome::Rejected { reason: Reason::NoQuorum { .. } }), "{outcome:?}");
        accepted(&cluster, "together");
        assert_eq!(serves(&cluster, 1, "i/b"), None);
        rejoin(&mut cluster, 1);
        cluster.run_for(Duration::from_secs(2));
        all_serve(&cluster, 5, "i/b", "together");
        (1..=5).for_each(|sp| assert_eq!(serves(&cluster, sp, "i/a"), None, "rejected is for good"));
        publish(&mut cluster, "healed", 1, "i/a", "healed");
        cluster.run();
        all_serve(&cluster, 5, "i/a", "healed");
    }
}

#[test]
fn undetermined_is_what_may_still_be_agreed() {
    for mode in MODES {
        let mut cluster = offered(mode, Options::default());
        // `two-phase`: on until the exchange has begun.
        while mode == Mode::TwoPhase
            && !cluster.sp(SpId(1)).inspect().publications.values().any(|one| one.own_bit_asked)
        {
            go_on(&mut cluster);
        }
        isolate(&mut cluster, 1);
        cluster.run_for(Duration::from_secs(10));
        let outcome = cluster.told["offered"].outcome.clone();
        let Outcome::Undetermined { uid: Some(uid), superseded_by: None, reason: Reason::NoAgreement { holders } } =
            outcome
        else {
            panic!("{mode:?}: {outcome:?}")
        };
        assert_eq!(holders, [1]);
        rejoin(&mut cluster, 1);
        cluster.run_for(Duration::from_secs(10));
        all_serve(&cluster, 5, "o/a", "offered");
        assert_eq!(cluster.read(SpId(3), "o/a").unwrap().0, uid);
    }
}

#[test]
fn large_files_come_in_chunks_and_go_on_elsewhere_where_their_source_fails() {
    for mode in MODES {
        let mut cluster = cluster(3, mode);
        let content: Vec<u8> = (0..5_000_000u32).map(|i| (i % 251) as u8).collect();
        cluster.submit("large", SpId(1), "l/a", Some(&content), Options::default());
        // Storage points 1 and 2 agree on it; then 3 begins to fetch it from 1.
        loop {
            let (writes, links) = cluster.enabled();
            let link = links.iter().find(|(from, to)| *from != SpId(3) && *to != SpId(3));
            match (writes.iter().find(|sp| **sp != SpId(3)), link) {
                (Some(sp), _) => drop(cluster.flush(*sp)),
                (None, Some((from, to))) => drop(cluster.deliver(*from, *to)),
                (None, None) => break,
            }
        }
        let uid = accepted(&cluster, "large");
        let is_known = |cluster: &Cluster| cluster.sp(SpId(3)).inspect().publications.contains_key(&uid);
        while !is_known(&cluster) {
            assert!(cluster.deliver(SpId(1), SpId(3)));
        }
        (0..2).for_each(|_| assert!(cluster.deliver(SpId(3), SpId(1))));
        assert!(cluster.deliver(SpId(1), SpId(3)) && !cluster.sp(SpId(3)).inspect().publications[&uid].held);
        cluster.crash(SpId(1));
        cluster.run_for(Duration::from_secs(30));
        (2..=3).for_each(|sp| assert!(cluster.read(SpId(sp), "l/a").unwrap().1.as_ref() == Some(&content)));
    }
}

// ---- Quorum systems that the paper refers to ----------------------------------------------------------------------

#[test]
fn weighted_hierarchical_and_explicit_quorums_decide() {
    struct Case {
        n: u8,
        text: &'static str,
        via: u8,
        may_be_missing: &'static [u8],
        and_these_may_not: &'static [u8],
    }
    let case =
        |n, text, via, may_be_missing, and_these_may_not| Case { n, text, via, may_be_missing, and_these_may_not };
    let cases = [
        // Weighted: 1 has three of five votes, so 2 and 3 without it are none.
        case(3, "weighted:1=3,2=1,3=1", 1, &[2, 3], &[]),
        case(3, "weighted:1=3,2=1,3=1", 2, &[], &[1]),
        // Hierarchical: two of three groups by two of three members each.
        case(9, "hierarchical:(1,2,3),(4,5,6),(7,8,9)", 1, &[3, 6, 7, 8, 9], &[4, 5]),
        // Explicit.
        case(3, "sets:1+2,1+3", 1, &[2], &[3]),
    ];
    for Case { n, text, via, may_be_missing, and_these_may_not } in cases {
        for mode in MODES {
            let quorum: QuorumSystem = text.parse().unwrap();
            let mut cluster = Cluster::new(n, Setup { mode, order: Order::Strict, quorum });
            may_be_missing.iter().for_each(|sp| cluster.crash(SpId(*sp)));
            publish(&mut cluster, "enough", via, "w/a", "1");
            cluster.run_for(Duration::from_secs(1));
            accepted(&cluster, "enough");
            if !and_these_may_not.is_empty() {
                and_these_may_not.iter().for_each(|sp| cluster.crash(SpId(*sp)));
                publish(&mut cluster, "too few", via, "w/b", "2");
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
