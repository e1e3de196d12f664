//! One test for each claim of the paper "ACMS: The Akamai Configuration Management System" (NSDI 2005) about delivery, and
//! for each promise that receivers keep (README.md, "What it promises").
//!
//! Each runs the real state machines of storage points and receivers in one thread. Whatever a receiver says of its
//! freshness is checked, in every test, against all that was accepted (`support/fleet.rs`).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/fleet.rs"]
mod fleet;
mod support;

use acms_engine::protocol::SpId;
use fleet::Fleet;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
/// One back-off, one resend interval, one merge interval, one hold (promise P6), and the transfers.
const DELIVERED_WITHIN: Duration = Duration::from_secs(5 + 5 + 20 + 25 + 5);

// ---- Claims of the paper ------------------------------------------------------------------------------------------

#[test]
fn receivers_pull_what_they_subscribe_to_and_nothing_else() {
    let mut fleet = Fleet::new(3);
    let (all, some) = (fleet.add(&[1, 2, 3], &[""], None), fleet.add(&[1, 2, 3], &["etc/ssh", "bin"], None));
    fleet.publish(1, "etc/hosts", Some("hosts"));
    fleet.publish(2, "etc/ssh/config", Some("config"));
    fleet.publish(3, "bin/tool", Some("tool"));
    fleet.run_for(2 * SECOND);
    fleet.publish(1, "etc/ssh/config", Some("changed"));
    fleet.publish(1, "var/log", Some("log"));
    fleet.run_for(2 * SECOND);
    assert_eq!(fleet.files(some), [("bin/tool", "tool"), ("etc/ssh/config", "changed")]);
    assert_eq!(fleet.files(all).len(), 4);
}

#[test]
fn polling_receivers_hear_of_what_is_new_within_the_interval() {
    let mut fleet = Fleet::new(3);
    let receivers: Vec<usize> = (0..5).map(|_| fleet.add(&[1, 2, 3], &[""], Some(10 * SECOND))).collect();
    fleet.run_for(20 * SECOND);
    for round in 0..3 {
        let content = format!("round {round}");
        fleet.publish(1 + round, "etc/a", Some(&content));
        // The interval is jittered, so that a fleet does not come at once.
        fleet.run_for(13 * SECOND);
        receivers.iter().for_each(|receiver| assert_eq!(fleet.files(*receiver), [("etc/a", content.as_str())]));
    }
}

#[test]
fn only_what_differs_is_downloaded() {
    let mut fleet = Fleet::new(3);
    let receiver = fleet.add(&[1, 2, 3], &[""], Some(10 * SECOND));
    for i in 0..100 {
        fleet.publish(1 + i % 3, &format!("d{}/f{i}", i % 10), Some(&format!("content {i}")));
    }
    fleet.run_for(30 * SECOND);
    let before = fleet.counters(receiver);
    assert!(before.contents >= 100);
    fleet.publish(2, "d3/f3", Some("changed"));
    fleet.run_for(30 * SECOND);
    let after = fleet.counters(receiver);
    assert_eq!(after.contents - before.contents, 1);
    assert!(after.nodes - before.nodes <= 3, "root, directory, and nothing beside");
    // What it holds survives a restart: the tree is compared, contents are not fetched again.
    fleet.restart(receiver);
    fleet.run_for(5 * SECOND);
    assert_eq!(fleet.counters(receiver).contents, 0);
    assert_eq!(fleet.files(receiver).len(), 100);
}

#[test]
fn a_source_that_is_down_is_left_for_another() {
    let mut fleet = Fleet::new(3);
    let receiver = fleet.add(&[1, 2, 3], &[""], None);
    fleet.publish(1, "a", Some("1"));
    fleet.run_for(2 * SECOND);
    let first = fleet.source(receiver);
    fleet.cluster.crash(SpId(first));
    let other = 1 + first % 3;
    fleet.publish(other, "a", Some("2"));
    fleet.run_for(10 * SECOND);
    assert_ne!(fleet.source(receiver), first);
    assert_eq!(fleet.files(receiver), [("a", "2")]);
}

#[test]
fn a_source_that_sends_what_it_should_not_is_left_for_another() {
    let mut fleet = Fleet::new(3);
    let receiver = fleet.add(&[1, 2, 3], &[""], None);
    fleet.run_for(2 * SECOND);
    let first = fleet.source(receiver);
    fleet.corrupt.insert(first);
    fleet.publish(first, "a", Some(&"long ".repeat(2_000)));
    fleet.run_for(10 * SECOND);
    assert_ne!(fleet.source(receiver), first);
    assert_eq!(fleet.files(receiver).len(), 1);
}

#[test]
fn a_receiver_of_a_storage_point_that_is_cut_off_says_how_old_it_is() {
    let mut fleet = Fleet::new(3);
    let receiver = fleet.add(&[3], &[""], None);
    fleet.publish(1, "a", Some("1"));
    fleet.run_for(30 * SECOND);
    fleet.cluster.cut(SpId(3), SpId(1));
    fleet.cluster.cut(SpId(3), SpId(2));
    let then = fleet.cluster.wall().0;
    fleet.publish(1, "a", Some("2"));
    fleet.run_for(90 * SECOND);
    let as_of_us = fleet.as_of_us(receiver);
    assert!(as_of_us > 0 && as_of_us <= then, "its as-of stands still");
    assert_eq!(fleet.files(receiver), [("a", "1")]);
    fleet.cluster.heal(SpId(3), SpId(1));
    fleet.cluster.heal(SpId(3), SpId(2));
    fleet.run_for(DELIVERED_WITHIN);
    assert!(fleet.as_of_us(receiver) > then);
    assert_eq!(fleet.files(receiver), [("a", "2")]);
}

#[test]
fn receivers_do_not_depend_on_each_other() {
    let mut fleet = Fleet::new(3);
    let receivers: Vec<usize> = (0..6).map(|_| fleet.add(&[1, 2, 3], &[""], None)).collect();
    fleet.run_for(2 * SECOND);
    // One never answers its disk, one is gone, one has a disk that is full.
    fleet.hang(receivers[0]);
    fleet.stop(receivers[1]);
    fleet.fill_disk(receivers[2]);
    for i in 0..20 {
        fleet.publish(1 + i % 3, &format!("f{}", i % 4), Some(&format!("{i}")));
    }
    fleet.run_for(5 * SECOND);
    let expected = [("f0", "16"), ("f1", "17"), ("f2", "18"), ("f3", "19")];
    receivers[3..].iter().for_each(|receiver| assert_eq!(fleet.files(*receiver), expected));
    assert!(fleet.files(receivers[2]).is_empty());
}

// ---- Promises -----------------------------------------------------------------------------------------------------

#[test]
fn p4_a_receiver_never_goes_back_across_restarts_and_changes_of_source() {
    let mut fleet = Fleet::new(3);
    let receiver = fleet.add(&[1, 2, 3], &[""], None);
    fleet.publish(1, "a", Some("1"));
    fleet.publish(1, "gone", Some("1"));
    fleet.run_for(2 * SECOND);
    // Two of three go on without the third, which is then the only source.
    let first = fleet.source(receiver);
    let late = 1 + first % 3;
    (1..=3).filter(|sp| *sp != late).for_each(|sp| fleet.cluster.cut(SpId(late), SpId(sp)));
    fleet.publish(first, "a", Some("2"));
    fleet.publish(first, "gone", None);
    fleet.run_for(2 * SECOND);
    assert_eq!(fleet.files(receiver), [("a", "2")]);
    (1..=3).filter(|sp| *sp != late).for_each(|sp| fleet.cluster.crash(SpId(sp)));
    fleet.run_for(40 * SECOND);
    assert_eq!(fleet.source(receiver), late);
    assert_eq!(fleet.files(receiver), [("a", "2")]);
    fleet.restart(receiver);
    fleet.run_for(40 * SECOND);
    assert_eq!(fleet.source(receiver), late);
    assert_eq!(fleet.files(receiver), [("a", "2")]);
}

#[test]
fn p5_only_whole_verified_contents_are_exposed() {
    let mut fleet = Fleet::new(3);
    let receiver = fleet.add(&[1, 2, 3], &[""], None);
    fleet.corrupt = (1..=3).collect();
    for i in 0..10 {
        fleet.publish(1 + i % 3, &format!("f{i}"), Some(&"x".repeat(100 * usize::from(i) + 5_000)));
    }
    // What is put in place is checked by the fleet at each step.
    fleet.run_for(60 * SECOND);
    assert!(fleet.files(receiver).is_empty() && fleet.counters(receiver).wrong_hashes > 3);
    fleet.corrupt.clear();
    fleet.run_for(DELIVERED_WITHIN);
    assert_eq!(fleet.files(receiver).len(), 10);
}

#[test]
fn p6_once_faults_stop_every_receiver_holds_the_newest() {
    let mut fleet = Fleet::new(5);
    let mut receivers: Vec<usize> = (0..4).map(|_| fleet.add(&[1, 2, 3, 4, 5], &[""], None)).collect();
    receivers.push(fleet.add(&[1, 2, 3, 4, 5], &[""], Some(10 * SECOND)));
    for round in 0..10_u8 {
        let sp = 1 + round % 5;
        fleet.cluster.crash(SpId(sp));
        fleet.publish(1 + (round + 1) % 5, &format!("f{}", round % 3), Some(&format!("{round}")));
        fleet.run_for(3 * SECOND);
        fleet.restart(receivers[usize::from(round) % receivers.len()]);
        fleet.cluster.start(SpId(sp));
        fleet.run_for(SECOND);
    }
    fleet.run_for(DELIVERED_WITHIN);
    let expected = [("f0", "9"), ("f1", "7"), ("f2", "8")];
    receivers.iter().for_each(|receiver| assert_eq!(fleet.files(*receiver), expected));
}

#[test]
fn p7_as_of_follows_time_does_not_fall_and_passes_nothing_that_is_missing() {
    let mut fleet = Fleet::new(3);
    let receivers = [fleet.add(&[1, 2, 3], &[""], None), fleet.add(&[1, 2, 3], &["etc"], Some(5 * SECOND))];
    let mut before = [0, 0];
    for round in 0..20_u8 {
        let sp = SpId(1 + round % 3);
        let other = SpId(1 + (round + 1) % 3);
        fleet.cluster.cut(sp, other);
        fleet.publish(1 + (round + 2) % 3, "etc/a", Some(&format!("{round}")));
        fleet.run_for(4 * SECOND);
        fleet.restart(receivers[usize::from(round) % 2]);
        fleet.run_for(5 * SECOND);
        fleet.cluster.heal(sp, other);
        // That it holds is checked whenever one is said.
        for (at, receiver) in receivers.into_iter().enumerate() {
            assert!(fleet.as_of_us(receiver) >= before[at]);
            before[at] = fleet.as_of_us(receiver);
        }
    }
    fleet.run_for(40 * SECOND);
    let now = fleet.cluster.wall().0;
    receivers.iter().for_each(|receiver| assert!(now - fleet.as_of_us(*receiver) < 30_000_000));
}
