//! Batches cut short after each of their steps, as a crash of the process would.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::{
    super::{files::FileDisk, tree::OWN},
    *,
};
use crate::protocol::{Flags, Hash, Uid, receiver::Content};
use bytes::Bytes;
use std::cell::Cell;

thread_local! {
    /// Steps left before the batch stops.
    static LEFT: Cell<usize> = const { Cell::new(usize::MAX) };
}

fn counted(_: Step, _: usize) -> bool {
    LEFT.with(|left| {
        left.set(left.get().saturating_sub(1));
        left.get() > 0
    })
}

pub(super) fn change(path: &str, micros: u64, content: Option<&str>, action: Option<Action>) -> Change {
    let text = content.unwrap_or_default().to_owned();
    let flags = Flags { executable: false, deleted: content.is_none() };
    let uid = Uid { micros, ..Uid::ZERO };
    let presence = if action == Some(Action::Hide) { Presence::Hidden } else { Presence::Whole };
    let entry = Held { uid, hash: Hash::of(text.as_bytes()), size: text.len() as u64, flags, presence };
    let written = || if content.is_some() { Action::Write(Content::Bytes(Bytes::from(text))) } else { Action::Delete };
    Change { path: path.parse().unwrap(), entry, action: action.unwrap_or_else(written) }
}

fn first() -> Vec<Change> {
    vec![
        change("a/one", 1, Some("1"), None),
        change("a/two", 1, Some("2"), None),
        change("b/c/three", 1, Some("3"), None),
        change("p", 1, Some("p is a file"), None),
    ]
}

/// Overwrites (with the same length, so that only the hash tells), deletes, adds, and puts a directory in a file's place.
fn second() -> Vec<Change> {
    vec![
        change("p", 1, Some("p is a file"), Some(Action::Hide)),
        change("b/c/three", 2, None, None),
        change("a/one", 2, Some("X"), None),
        change("d/four", 2, Some("4"), None),
        change("p/q", 2, Some("p is a directory"), None),
    ]
}

fn open(directory: &std::path::Path) -> Result<(Applier<FileDisk>, Vec<Line>), OpenError> {
    Applier::open(FileDisk::open(directory)?)
}

pub(super) fn done(results: &[(Path, Applied)]) -> bool {
    results.iter().all(|(_, applied)| *applied == Applied::Done)
}

/// What the directory has, by hash.
fn files(directory: &std::path::Path) -> BTreeMap<String, Hash> {
    let walk = walkdir::WalkDir::new(directory).into_iter().filter_entry(|entry| entry.file_name() != OWN);
    let files = walk.map(Result::unwrap).filter(|entry| entry.file_type().is_file());
    let name = |entry: &walkdir::DirEntry| entry.path().strip_prefix(directory).unwrap().display().to_string();
    files.map(|entry| (name(&entry), Hash::of(&std::fs::read(entry.path()).unwrap()))).collect()
}

/// What is there must be what the receiver knows to be there, and whole.
fn check_agreement(directory: &std::path::Path, held: &BTreeMap<Path, Held>) {
    let files = files(directory);
    for (path, held) in held.iter().filter(|(_, held)| held.presence == Presence::Whole) {
        let expected = (!held.flags.deleted).then_some(held.hash);
        assert_eq!(files.get(path.as_str()).copied(), expected, "{path}");
    }
    for path in files.keys() {
        assert!(held.contains_key(path.as_str()), "{path} is there and not known");
    }
}

#[test]
fn a_batch_cut_short_at_any_step_leaves_whole_files_and_a_state_that_knows_them() {
    let mut cuts = 0;
    for steps in 1.. {
        let directory = tempfile::tempdir().unwrap();
        let (mut applier, adopted) = open(directory.path()).unwrap();
        assert!(adopted.is_empty());
        assert!(done(&applier.apply(first(), None).0));
        applier.goes_on = counted;
        LEFT.set(steps);
        let finished = done(&applier.apply(second(), None).0);
        drop(applier);
        // Files are the old or the new version.
        let versions: BTreeSet<Hash> = first().iter().chain(&second()).map(|change| change.entry.hash).collect();
        assert!(files(directory.path()).values().all(|hash| versions.contains(hash)));
        let (mut applier, adopted) = open(directory.path()).unwrap();
        check_agreement(directory.path(), applier.held());
        assert_eq!(std::fs::read_dir(applier.disk().staging_directory()).unwrap().count(), 0, "leftovers are removed");
        // What was put in place before the cut is known, so that nothing older takes its place.
        let new = files(directory.path()).get("a/one") == Some(&Hash::of(b"X"));
        assert_eq!(applier.held()["a/one"].uid.micros, if new { 2 } else { 1 });
        assert!(adopted.iter().all(|(_, held)| held.uid.micros == 2));
        // And the batch can be applied again.
        assert!(done(&applier.apply(second(), None).0));
        let expected: BTreeMap<String, Hash> =
            [("a/one", "X"), ("a/two", "2"), ("d/four", "4"), ("p/q", "p is a directory")]
                .map(|(path, text)| (path.to_owned(), Hash::of(text.as_bytes())))
                .into();
        assert_eq!(files(directory.path()), expected);
        assert!(!directory.path().join("b").exists(), "emptied by a deletion");
        if finished {
            break;
        }
        cuts += 1;
    }
    assert!(cuts >= 8, "the batch was cut {cuts} times");
}

#[test]
fn a_file_changed_behind_the_receivers_back_is_fetched_again() {
    let directory = tempfile::tempdir().unwrap();
    let (mut applier, _) = open(directory.path()).unwrap();
    assert!(done(&applier.apply(first(), None).0));
    drop(applier);
    std::fs::write(directory.path().join("a/one"), "longer").unwrap();
    std::fs::remove_file(directory.path().join("a/two")).unwrap();
    let (applier, _) = open(directory.path()).unwrap();
    let missing = applier.held().iter().filter(|(_, held)| held.presence == Presence::Missing);
    assert_eq!(missing.map(|(path, _)| path.as_str()).collect::<Vec<_>>(), ["a/one", "a/two"]);
}

#[test]
fn a_file_nobody_published_survives_a_deletion_of_its_path() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("mine"), "x").unwrap();
    let (mut applier, _) = open(directory.path()).unwrap();
    assert!(done(&applier.apply(vec![change("mine", 1, None, None)], None).0));
    assert!(directory.path().join("mine").exists());
}

#[test]
fn a_file_that_is_gone_is_told_when_only_its_entry_changes() {
    let directory = tempfile::tempdir().unwrap();
    let (mut applier, _) = open(directory.path()).unwrap();
    assert!(done(&applier.apply(first(), None).0));
    std::fs::remove_file(directory.path().join("a/one")).unwrap();
    for action in [Action::Record, Action::SetMode] {
        let (results, _) = applier.apply(vec![change("a/one", 2, Some("1"), Some(action))], None);
        assert_eq!(results[0].1, Applied::Lost);
    }
}

#[test]
fn damage_in_the_middle_of_the_state_is_told() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).unwrap().0.apply(first(), None);
    let state = directory.path().join(OWN).join("state");
    let text = std::fs::read_to_string(&state).unwrap();
    std::fs::write(&state, text.replacen("\"uid\"", "\"u?d\"", 1)).unwrap();
    assert!(matches!(open(directory.path()), Err(OpenError::State(StateError::Damaged { line: 2, .. }))));
}

#[test]
fn an_executable_bit_that_a_crash_kept_from_the_file_is_set_afterwards() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a/one");
    let executable = || std::fs::metadata(&file).unwrap().permissions().mode() & 0o100 != 0;
    let set_mode = || {
        let mut change = change("a/one", 2, Some("1"), Some(Action::SetMode));
        change.entry.flags.executable = true;
        vec![change]
    };
    let (mut applier, _) = open(directory.path()).unwrap();
    assert!(done(&applier.apply(first(), None).0));
    // The intent is durable, and nothing more.
    applier.goes_on = |step, _| step != Step::Flushed;
    assert!(!done(&applier.apply(set_mode(), None).0));
    drop(applier);
    let (mut applier, adopted) = open(directory.path()).unwrap();
    assert!(adopted.is_empty() && !executable());
    assert_eq!(applier.held()["a/one"].uid.micros, 1);
    assert!(done(&applier.apply(set_mode(), None).0));
    assert!(executable());
    drop(applier);
    // Lost behind the receiver's back, it is noticed, too.
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(open(directory.path()).unwrap().0.held()["a/one"].presence, Presence::Missing);
}

#[test]
fn files_that_others_have_edited_are_found_when_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let (mut applier, _) = open(directory.path()).unwrap();
    assert!(done(&applier.apply(first(), None).0));
    // What was applied last is compared at every start.
    for micros in [2, 3] {
        assert!(done(&applier.apply(vec![change("later", micros, Some("x"), None)], None).0));
    }
    drop(applier);
    // Of the same size, so that only the content tells.
    std::fs::write(directory.path().join("a/one"), "X").unwrap();
    let (mut applier, _) = open(directory.path()).unwrap();
    assert_eq!(applier.held()["a/one"].presence, Presence::Whole);
    assert_eq!(applier.verify(), 1);
    assert_eq!(applier.held()["a/one"].presence, Presence::Missing);
    assert_eq!(applier.held()["a/two"].presence, Presence::Whole);
}

#[test]
fn a_content_that_the_disk_refuses_keeps_no_other_one_away() {
    let directory = tempfile::tempdir().unwrap();
    let (mut applier, _) = open(directory.path()).unwrap();
    // A staged content that is not there.
    let mut refused = change("a/large", 1, Some("x"), None);
    refused.action = Action::Write(Content::Staged(crate::protocol::receiver::StagedId(7)));
    let batch = vec![change("a/one", 1, Some("1"), None), refused, change("a/two", 1, Some("2"), None)];
    let (results, is_noted) = applier.apply(batch, Some(reached(1)));
    assert!(matches!(results[..], [(_, Applied::Done), (_, Applied::Failed(_)), (_, Applied::Done)]) && !is_noted);
    assert_eq!(files(directory.path()).len(), 2);
}

#[test]
fn the_same_content_under_a_new_uid_is_not_written_again() {
    use std::os::unix::fs::MetadataExt as _;
    let directory = tempfile::tempdir().unwrap();
    let (mut applier, _) = open(directory.path()).unwrap();
    assert!(done(&applier.apply(first(), None).0));
    let inode = || std::fs::metadata(directory.path().join("a/one")).unwrap().ino();
    let before = inode();
    assert!(done(&applier.apply(vec![change("a/one", 9, Some("1"), Some(Action::Record))], None).0));
    drop(applier);
    assert_eq!((inode(), open(directory.path()).unwrap().0.held()["a/one"].uid.micros), (before, 9));
}

pub(in super::super) fn reached(as_of_us: u64) -> Reached {
    let (cluster, root) = ("demo".to_owned(), Hash::of(b""));
    let incarnation = Default::default();
    let snapshot =
        crate::protocol::api::Snapshot { cluster, sp: 1, incarnation, sequence: 1, root, as_of_us, issued_at_us: 0 };
    Reached { snapshot, prefixes: vec!["a".parse().unwrap()] }
}

#[test]
fn what_was_reached_is_recovered_and_only_noted_with_all_of_its_batch() {
    let directory = tempfile::tempdir().unwrap();
    let (mut applier, _) = open(directory.path()).unwrap();
    assert_eq!(applier.recovered().reached, None);
    assert!(applier.apply(first(), Some(reached(1))).1);
    assert!(applier.apply(Vec::new(), Some(reached(2))).1);
    drop(applier);
    let (mut applier, _) = open(directory.path()).unwrap();
    assert_eq!(applier.recovered().reached, Some(reached(2)));
    // A file is in the way of one of the entries.
    let (results, is_noted) =
        applier.apply(vec![change("a/one/x", 3, Some("x"), None), change("y", 3, Some("y"), None)], Some(reached(3)));
    assert!(matches!(results[..], [(_, Applied::Blocked(_)), (_, Applied::Done)]) && !is_noted);
    drop(applier);
    let (applier, _) = open(directory.path()).unwrap();
    assert_eq!(applier.recovered().reached, Some(reached(2)));
    assert_eq!(applier.held()["y"].uid.micros, 3);
}

#[test]
fn what_is_reached_over_and_over_does_not_make_the_state_grow() {
    let directory = tempfile::tempdir().unwrap();
    let (mut applier, _) = open(directory.path()).unwrap();
    assert!(done(&applier.apply(first(), None).0));
    for as_of_us in 1..2_000 {
        assert!(applier.apply(Vec::new(), Some(reached(as_of_us))).1);
        let len = std::fs::metadata(directory.path().join(OWN).join("state")).unwrap().len();
        assert!(len <= 70 << 10, "{len} bytes after {as_of_us} notes");
    }
    drop(applier);
    assert_eq!(open(directory.path()).unwrap().0.recovered().reached, Some(reached(1_999)));
}

#[test]
fn a_shared_note_counts_once_it_is_flushed() {
    let directory = tempfile::tempdir().unwrap();
    let (mut applier, _) = open(directory.path()).unwrap();
    for (as_of_us, flushed) in [(1, true), (2, false), (3, true), (40_000, false)] {
        applier.begin_note(Some(&reached(as_of_us))).unwrap();
        let outcome = if flushed { Ok(()) } else { Err(io::Error::other("no disk")) };
        assert_eq!(applier.end_note(Some(reached(as_of_us)), outcome), flushed);
    }
    drop(applier);
    assert_eq!(open(directory.path()).unwrap().0.recovered().reached, Some(reached(3)));
}

#[test]
fn a_state_of_the_first_format_is_read_and_one_of_a_later_version_is_not() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).unwrap().0.apply(first(), Some(reached(1)));
    let state = directory.path().join(OWN).join("state");
    let text = std::fs::read_to_string(&state).unwrap();
    let entries: Vec<&str> = text.lines().filter(|line| line.starts_with("{\"path\"")).collect();
    std::fs::write(&state, entries.join("\n") + "\n").unwrap();
    let (applier, _) = open(directory.path()).unwrap();
    assert_eq!((applier.held().len(), applier.recovered().reached), (first().len(), None));
    drop(applier);
    assert!(std::fs::read_to_string(&state).unwrap().starts_with("{\"format\":2}\n"));
    std::fs::write(&state, "{\"format\":3}\n{\"anything\":1}\n").unwrap();
    assert!(matches!(open(directory.path()), Err(OpenError::State(StateError::Format { format: 3, .. }))));
}
