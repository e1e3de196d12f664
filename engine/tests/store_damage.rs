//! Damage to what is stored, and refusals: each is noticed where it is met, and mended or told.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod store;
mod support;

use acms_engine::{
    protocol::{Durable, Hash, Instant, Micros, SpId, io::WriteId},
    runtime::storage_point::committer::{Answer, Committer, Unanswered, Write},
    store::{MemoryStorage, Opened, Options, Storage, Store, StoreError},
};
use std::time::Duration;
use store::{held, held_without, identity, uid};
use support::cluster::{Cluster, Options as PublishOptions, Setup};

const OPTIONS: Options = Options { maintenance: store::LIMITS, ..Options::foreground(16 << 10) };
const LARGE: usize = 3 << 20;

fn create() -> MemoryStorage {
    let disk = MemoryStorage::new();
    Store::create_with(disk.clone(), &identity(), 16 << 10).unwrap();
    disk
}

fn open(disk: &MemoryStorage) -> Opened<MemoryStorage> {
    Store::open_with(disk.clone(), OPTIONS).unwrap()
}

fn file_of(hash: Hash) -> String {
    format!("content-{hash}")
}

// ---- Contents that are not here --------------------------------------------------------------------------------------

#[test]
fn a_content_that_is_needed_and_not_here_is_named_when_the_store_is_opened() {
    let disk = create();
    let mut opened = open(&disk);
    let contents: Vec<Vec<u8>> = (1..=4u8).map(|byte| vec![byte; 70_000]).collect();
    let hashes: Vec<Hash> = contents.iter().map(|content| store::stage(&opened.contents, content).unwrap()).collect();
    for (micros, content) in (1..).zip(&contents) {
        opened.log.commit(&[held_without(micros, content)]).unwrap();
    }
    let never_here = [9; 500];
    opened.log.commit(&[held(5, b"small"), held(6, b""), held_without(7, &never_here)]).unwrap();
    opened.log.commit(&[Durable::Released { uid: uid(4) }]).unwrap();
    for checkpoint in [false, true] {
        if checkpoint {
            opened.maintenance.checkpoint(Instant(1)).unwrap();
        }
        let disk = disk.kill();
        disk.remove(&file_of(hashes[0])).unwrap();
        disk.remove(&file_of(hashes[1])).unwrap();
        drop(disk.create(&file_of(hashes[1]), 69_999).unwrap());
        if !checkpoint {
            disk.remove(&file_of(hashes[3])).unwrap();
        }
        let mut expected = vec![(hashes[0], 70_000), (hashes[1], 70_000), (Hash::of(&never_here), 500)];
        expected.sort_unstable();
        let opened = open(&disk);
        assert_eq!(opened.lost, expected);
        assert!(matches!(opened.contents.read(&hashes[1], 0, 1), Err(StoreError::Missing(_))));
        store::stage(&opened.contents, &contents[0]).unwrap();
        store::stage(&opened.contents, &contents[1]).unwrap();
        drop(opened);
        assert_eq!(open(&disk).lost, [(Hash::of(&never_here), 500)]);
    }
}

#[test]
fn a_large_content_is_compared_once_in_a_life_and_again_when_it_is_doubted() {
    let disk = create();
    let opened = open(&disk);
    let content: Vec<u8> = (0..LARGE).map(|i| ((i * i) >> 5) as u8).collect();
    let hash = store::stage(&opened.contents, &content).unwrap();
    assert!(!opened.contents.needs_comparing(&hash), "it was hashed on its way in");
    drop(opened);
    let opened = open(&disk);
    assert!(opened.contents.needs_comparing(&hash));
    opened.contents.compare(&hash).unwrap();
    assert!(!opened.contents.needs_comparing(&hash));
    // Rot that comes later shows once somebody doubts what he got; but nobody can have it read all the time.
    disk.rot(&file_of(hash), LARGE - 1, 1);
    opened.contents.doubt(&hash, Instant(1));
    assert!(opened.contents.needs_comparing(&hash));
    assert!(matches!(opened.contents.compare(&hash), Err(StoreError::CorruptContent(bad)) if bad == hash));
    assert!(!opened.contents.needs_comparing(&hash));
    assert!(matches!(opened.contents.read(&hash, 0, 10), Err(StoreError::CorruptContent(_))), "not even a good part");
    store::stage(&opened.contents, &content).unwrap();
    assert_eq!(opened.contents.read(&hash, 0, 10).unwrap(), content[..10]);
    let second = |s: u64| Instant(s * 1_000_000_000);
    let doubted = |s: u64| {
        opened.contents.doubt(&hash, second(s));
        let doubted = opened.contents.needs_comparing(&hash);
        opened.contents.compare(&hash).unwrap();
        doubted
    };
    assert_eq!([100, 130, 159, 160].map(doubted), [true, false, false, true]);
    // What is gone while the process runs is as damaged as what is wrong.
    disk.remove(&file_of(hash)).unwrap();
    assert!(matches!(opened.contents.read(&hash, 0, 10), Err(StoreError::CorruptContent(_))));
}

#[test]
fn a_storage_point_fetches_again_what_its_disk_lost_or_changed_while_it_was_down() {
    let large: Vec<u8> = (0..LARGE).map(|i| ((i * i) >> 7) as u8).collect();
    let lost = vec![6; 100_000];
    let [good, absent, sp] = [1, 2, 3].map(SpId);
    let mut cluster = Cluster::new(3, Setup::default());
    cluster.cut(absent, good);
    cluster.cut(absent, sp);
    cluster.submit("large", good, "a/large", Some(&large), PublishOptions::default());
    cluster.submit("lost", good, "a/lost", Some(&lost), PublishOptions::default());
    cluster.run_for(Duration::from_secs(20));
    assert_eq!(cluster.read(sp, "a/large").unwrap().1.as_deref(), Some(&large[..]));
    cluster.crash(sp);
    cluster.disk(sp).remove(&file_of(Hash::of(&lost))).unwrap();
    // Not in the first chunk that a peer would be given.
    cluster.disk(sp).rot(&file_of(Hash::of(&large)), LARGE - 1, 8);
    cluster.start(sp);
    cluster.run_for(Duration::from_secs(20));
    assert_eq!(cluster.sp(sp).status().contents_damaged_total, 1, "what is lost is noticed at once");
    assert_eq!(cluster.read(sp, "a/lost").unwrap().1, Some(lost));
    // One that asks for the damaged content is told that it is missing, and brings the damage up.
    cluster.crash(good);
    cluster.heal(absent, sp);
    cluster.run_for(Duration::from_secs(30));
    assert_eq!(cluster.sp(sp).status().contents_damaged_total, 2);
    assert_eq!(cluster.read(absent, "a/large"), None);
    cluster.start(good);
    cluster.heal(absent, good);
    cluster.run_for(Duration::from_secs(30));
    assert_eq!(cluster.read(sp, "a/large").unwrap().1.as_deref(), Some(&large[..]));
    assert_eq!(cluster.read(absent, "a/large").unwrap().1.as_deref(), Some(&large[..]));
}

// ---- Refusals --------------------------------------------------------------------------------------------------------

/// Leaves less than 4 KiB of the segment, and no room for another.
fn fill(disk: &MemoryStorage, committer: &mut Committer<MemoryStorage>) {
    disk.set_capacity(Some(0));
    // The second segment was there already.
    for micros in [1_001, 1_002] {
        committer.log().commit(&[held(micros, &[micros as u8; 12_000])]).unwrap();
    }
}

#[test]
fn after_a_refusal_nothing_becomes_durable_that_was_asked_for_before_it_was_noted() {
    let disk = create();
    let mut committer = Committer::new(open(&disk).log);
    let mut asked = Unanswered::default();
    let mut next = 0;
    let mut write = |committer: &mut Committer<MemoryStorage>, asked: &mut Unanswered, records: Vec<Durable>| {
        next += 1;
        asked.ask(WriteId(next));
        committer.take(Write::Records(WriteId(next), records));
    };
    let as_of = |micros| vec![Durable::AsOf { micros: Micros(micros) }];
    let commit = |committer: &mut Committer<MemoryStorage>| {
        let batch = committer.begin();
        committer.commit(batch).answer
    };
    fill(&disk, &mut committer);
    // More than what is left of the segment; what comes behind it would fit.
    write(&mut committer, &mut asked, vec![Durable::Agreed { uid: uid(1) }, held(2, &[2; 12_000])]);
    let batch = committer.begin();
    write(&mut committer, &mut asked, as_of(1));
    assert!(matches!(committer.commit(batch).answer, Some(Answer::Refused(_))));
    assert!(committer.waiting().is_empty());
    write(&mut committer, &mut asked, as_of(2));
    assert!(committer.waiting().is_empty());
    assert_eq!(asked.refused(), [1, 2, 3].map(WriteId));
    committer.take(Write::RefusalNoted);
    write(&mut committer, &mut asked, as_of(3));
    assert!(matches!(commit(&mut committer), Some(Answer::Persisted(ids)) if ids == [WriteId(4)]));
    asked.persisted(&[WriteId(4)]);
    assert_eq!(asked.refused(), []);
    drop(committer);
    assert_eq!(open(&disk.crash(1)).records[2..], as_of(3));
}

#[test]
fn copies_that_do_not_fit_hold_no_record_up() {
    let disk = create();
    let mut committer = Committer::new(open(&disk).log);
    fill(&disk, &mut committer);
    let Durable::Held { contents, .. } = held(1, &[1; 12_000]) else { unreachable!() };
    committer.take(Write::Copies(contents.clone()));
    committer.take(Write::Records(WriteId(1), vec![Durable::Joined]));
    let batch = committer.begin();
    let committed = committer.commit(batch);
    assert!(matches!(committed.answer, Some(Answer::Persisted(_))));
    assert!(matches!(committed.copies, Some(Err(StoreError::Full(_)))));
    // Alone they are refused, and nobody's writes with them.
    committer.take(Write::Copies(contents));
    let batch = committer.begin();
    let committed = committer.commit(batch);
    assert!(committed.answer.is_none() && matches!(committed.copies, Some(Err(StoreError::Full(_)))));
    committer.take(Write::Records(WriteId(2), vec![Durable::Joined]));
    assert!(!committer.waiting().is_empty());
}

// ---- Commits ---------------------------------------------------------------------------------------------------------

#[test]
fn a_write_is_durable_as_a_whole_or_not_at_all() {
    // Together more than one commit takes, and each less than a segment.
    let options = Options { maintenance: store::LIMITS, ..Options::foreground(8 << 20) };
    let write = |first: u64| -> Vec<Durable> {
        (first..first + 40).flat_map(|at| [held(at, &[at as u8; 60_000]), Durable::Released { uid: uid(at) }]).collect()
    };
    let writes = [write(0), write(100), write(200)];
    let commit = |disk: &MemoryStorage| {
        let mut opened = Store::open_with(disk.clone(), options)?;
        opened.log.commit_writes(writes.iter().map(|records| &records[..]), &[])
    };
    let new = || {
        let disk = MemoryStorage::new();
        Store::create_with(disk.clone(), &identity(), 8 << 20).unwrap();
        disk
    };
    let disk = new();
    let begun = disk.syncs();
    commit(&disk).unwrap();
    let mut found = std::collections::BTreeSet::new();
    for n in begun + 1..=disk.syncs() {
        let disk = new();
        disk.stop_at_sync(n);
        commit(&disk).ok();
        for seed in 0..3 {
            let records = Store::open_with(disk.crash(seed), options).unwrap().records.len();
            assert_eq!(records % 80, 0, "flush {n}: {records} records");
            found.insert(records / 80);
        }
    }
    assert!(found.len() > 2, "{found:?}");
}

#[test]
fn what_is_released_stays_with_what_is_held_even_in_a_write_longer_than_a_segment() {
    let records: Vec<Durable> =
        (0..60).flat_map(|at| [held_without(at, &[at as u8; 900]), Durable::Released { uid: uid(at) }]).collect();
    let options = Options { maintenance: store::LIMITS, ..Options::foreground(4 << 10) };
    for n in 1..40 {
        let disk = create();
        let mut opened = Store::open_with(disk.clone(), options).unwrap();
        disk.stop_at_sync(disk.syncs() + n);
        opened.log.commit(&records).ok();
        drop(opened);
        for seed in 0..3 {
            assert_eq!(Store::open_with(disk.crash(seed), options).unwrap().lost, [], "flush {n}");
        }
    }
}

#[test]
fn what_was_acknowledged_before_an_orderly_end_is_not_last() {
    for closes in [false, true] {
        let disk = create();
        let mut opened = open(&disk);
        opened.log.commit(&[held(1, &[1; 900])]).unwrap();
        let (name, at, _) = opened.contents.place(&Hash::of(&[1; 900])).unwrap();
        if closes {
            opened.log.close().unwrap();
        }
        drop(opened);
        disk.rot(&name, at as usize + 5, 1);
        let opened = open(&disk);
        // Without the end a commit that was not whole looks the same; it is cut off, and that is said.
        assert_eq!((opened.records.len(), opened.was_cut), if closes { (1, false) } else { (0, true) });
    }
}

#[test]
fn what_the_disk_does_not_remove_is_removed_later() {
    let disk = create();
    let mut opened = open(&disk);
    let contents: Vec<Vec<u8>> = (1..=5u8).map(|byte| vec![byte; 70_000]).collect();
    for (micros, content) in (1..).zip(&contents) {
        let hash = store::stage(&opened.contents, content).unwrap();
        opened.log.commit(&[held_without(micros, content), Durable::Released { uid: uid(micros) }]).unwrap();
        assert!(disk.list().unwrap().contains(&file_of(hash)));
    }
    // Step by step, so that the disk fails between the end of the checkpoint and what follows from it.
    let mut now = Instant(100_000_000_000);
    opened.maintenance.step(now).unwrap();
    while opened.maintenance.figures().checkpoints_total == 0 {
        now.0 += 10_000_000_000;
        opened.log.commit(&[held(now.0, &[3; 4_000])]).unwrap();
        store::step(&mut opened, now).unwrap();
    }
    disk.set_failing(true);
    assert!(matches!(opened.maintenance.step(now), Err(StoreError::Io { .. })));
    let files = || disk.list().unwrap().iter().filter(|name| name.starts_with("content-")).count();
    assert_eq!(files(), 5);
    disk.set_failing(false);
    now.0 += 2_000_000_000;
    opened.maintenance.step(now).unwrap();
    assert_eq!(files(), 0);
}
