//! Batches on a simulated directory that loses power after any of its operations.

use super::*;
use acms_engine::{
    protocol::{
        Flags, Prefix, Uid,
        api::Snapshot,
        receiver::{Action, Applied, Change, Presence},
    },
    runtime::receive::Applier,
};

fn change(path: &str, micros: u64, content: Option<&str>) -> Change {
    let text = content.unwrap_or_default().to_owned();
    let flags = Flags { executable: false, deleted: content.is_none() };
    let uid = Uid { micros, ..Uid::ZERO };
    let (hash, size) = (Hash::of(text.as_bytes()), text.len() as u64);
    let entry = Held { uid, hash, size, flags, presence: Presence::Whole };
    let write = Action::Write(Content::Bytes(Bytes::from(text)));
    Change { path: path.parse().unwrap(), entry, action: if content.is_some() { write } else { Action::Delete } }
}

fn first() -> Vec<Change> {
    vec![change("a/one", 1, Some("1")), change("a/two", 1, Some("2")), change("b/c/three", 1, Some("3"))]
}

/// Overwrites with the same length, deletes and adds.
fn second() -> Vec<Change> {
    vec![change("b/c/three", 2, None), change("a/one", 2, Some("X")), change("d/four", 2, Some("4"))]
}

fn directory(seed: u64) -> Directory {
    Directory::new(ContentPool::default(), 300_000, Random::new(seed, "disk"))
}

fn apply(applier: &mut Applier<Directory>, changes: Vec<Change>) -> bool {
    applier.apply(changes, None).0.iter().all(|(_, applied)| *applied == Applied::Done)
}

/// What is there is what the state says, and nothing is newer than that.
fn check_known(applier: &Applier<Directory>, batch: &[Change], seed: u64) {
    for (path, held) in applier.held().iter().filter(|(_, held)| held.presence == Presence::Whole) {
        let content = applier.disk().content(path).map(|content| Hash::of(content));
        assert_eq!(content, (!held.flags.deleted).then_some(held.hash), "{path} with seed {seed}");
    }
    for (path, content) in applier.disk().files() {
        let held = applier.held().get(path).unwrap_or_else(|| panic!("{path} is there and not known, seed {seed}"));
        let newer =
            batch.iter().any(|c| c.path == *path && c.entry.hash == Hash::of(content) && c.entry.uid > held.uid);
        assert!(!newer, "{path} is newer than is known, seed {seed}");
    }
}

/// Loses power in the middle of the second batch. Gives what was seen there right afterwards that was whole in neither
/// batch, and checks what a restart makes of the rest.
fn cut(seed: u64) -> (Vec<String>, bool) {
    let mut applier = Applier::open(directory(seed)).unwrap().0;
    assert!(apply(&mut applier, first()));
    applier.disk_mut().stop_within(3);
    let finished = apply(&mut applier, second());
    let mut disk = applier.into_disk();
    disk.lose_power();
    let versions: Vec<Hash> = first().iter().chain(&second()).map(|change| change.entry.hash).collect();
    let torn = disk.files().filter(|(_, content)| !versions.contains(&Hash::of(content)));
    let torn: Vec<String> = torn.map(|(path, _)| path.to_string()).collect();
    let mut applier = Applier::open(disk).unwrap().0;
    if torn.is_empty() {
        check_known(&applier, &second(), seed);
    }
    assert!(apply(&mut applier, second()), "the batch can be applied again, seed {seed}");
    let expected: BTreeMap<&str, &[u8]> = [("a/one", b"X".as_slice()), ("a/two", b"2"), ("d/four", b"4")].into();
    let there: BTreeMap<&str, &[u8]> =
        applier.disk().files().map(|(path, content)| (path.as_str(), &content[..])).collect();
    assert_eq!(there, expected, "seed {seed}");
    (torn, finished)
}

#[test]
fn a_batch_that_loses_power_anywhere_leaves_whole_files_and_a_state_that_knows_them() {
    let mut finished = 0;
    for seed in 0..2_000 {
        let (torn, whole) = cut(seed);
        assert!(torn.is_empty(), "seed {seed}: {torn:?}");
        finished += u32::from(whole);
    }
    assert!((200..1_800).contains(&finished), "{finished} batches came to their end");
}

#[cfg(feature = "mutants")]
#[test]
fn a_rename_before_the_flush_exposes_torn_files() {
    use acms_engine::mutant::{self, Mutant};
    mutant::choose(Some(Mutant::RenameBeforeFlush));
    let torn = (0..200).filter(|seed| !cut(*seed).0.is_empty()).count();
    mutant::choose(None);
    assert!(torn > 10, "{torn}");
}

#[test]
fn a_full_or_failing_disk_refuses_contents_and_none_is_in_place() {
    let mut applier = Applier::open(directory(1)).unwrap().0;
    assert!(apply(&mut applier, first()));
    for faults in [Faults { is_full: true, ..Faults::default() }, Faults { fails: true, ..Faults::default() }] {
        applier.disk_mut().faults = faults;
        assert!(!apply(&mut applier, second()));
        // What only takes away may succeed.
        let is_new = |held: &&Held| held.uid.micros == 2 && !held.flags.deleted;
        assert_eq!(applier.held().values().filter(is_new).count(), 0);
    }
    applier.disk_mut().faults = Faults::default();
    assert!(apply(&mut applier, second()));
}

#[test]
fn a_file_in_the_way_blocks_what_is_below_it_and_the_other_way_round() {
    let mut applier = Applier::open(directory(1)).unwrap().0;
    assert!(apply(&mut applier, first()));
    let (results, _) = applier.apply(vec![change("a/one/x", 2, Some("x")), change("b", 2, Some("y"))], None);
    assert!(results.iter().all(|(_, applied)| matches!(applied, Applied::Blocked(_))), "{results:?}");
}

#[test]
fn equal_contents_are_in_memory_once() {
    let pool = ContentPool::default();
    let (a, b) = (Bytes::from(vec![7; 100]), Bytes::from(vec![7; 100]));
    assert_eq!(pool.share(&a).as_ptr(), pool.share(&b).as_ptr());
    let mut other = vec![7; 100];
    other[99] = 8;
    let other = Bytes::from(other);
    assert_eq!(pool.share(&other), other);
}

#[test]
fn files_placed_while_the_disk_failed_are_known_after_power_fails_in_a_later_batch() {
    let third = || vec![change("e", 3, Some("5")), change("a/two", 3, Some("Y"))];
    let mut failed = 0;
    for seed in 0..3_000 {
        let mut applier = Applier::open(directory(seed)).unwrap().0;
        assert!(apply(&mut applier, first()));
        applier.disk_mut().stop_within(5);
        failed += u32::from(!apply(&mut applier, second()));
        // It works again, for a while.
        applier.disk_mut().stop_within(2);
        apply(&mut applier, third());
        let mut disk = applier.into_disk();
        disk.lose_power();
        let applier = Applier::open(disk).unwrap().0;
        check_known(&applier, &[second(), third()].concat(), seed);
    }
    assert!(failed > 1_000, "{failed}");
}

fn reached(as_of_us: u64) -> Reached {
    let incarnation = acms_engine::protocol::api::Incarnation::default();
    let (cluster, root) = ("demo".to_owned(), Hash::of(b""));
    let snapshot = Snapshot { cluster, sp: 1, incarnation, sequence: 1, root, as_of_us, issued_at_us: 0 };
    Reached { snapshot, prefixes: vec![Prefix::default()] }
}

#[test]
fn what_was_reached_is_durable_with_the_entries_that_it_needs_and_never_without() {
    let mut both = 0;
    for seed in 0..2_000 {
        let mut applier = Applier::open(directory(seed)).unwrap().0;
        assert!(applier.apply(first(), Some(reached(1))).1);
        applier.disk_mut().stop_within(3);
        let (_, is_noted) = applier.apply(second(), Some(reached(2)));
        let mut disk = applier.into_disk();
        disk.lose_power();
        let recovered = Applier::open(disk).unwrap().0.recovered();
        let as_of_us = recovered.reached.expect("the first one").snapshot.as_of_us;
        let is_held = |change: &Change| recovered.held.get(&change.path).map(|held| held.uid) == Some(change.entry.uid);
        let all = second().iter().all(is_held);
        assert!(as_of_us == 2 || !is_noted, "seed {seed}");
        assert!(as_of_us == 1 || all, "seed {seed}");
        both += u32::from(as_of_us == 2);
    }
    assert!((200..1_800).contains(&both), "{both}");
}
