//! Crashes at every flush, torn writes, failed flushes, rot in every byte: the store never loses what it acknowledged
//! and never makes up a record.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod store;

use acms_engine::{
    protocol::{Durable, Hash, SpId, StoreId},
    store::{
        MaintenanceLimits, MemoryStorage, Opened, Options, Prepare, Storage, StorageFile, Store, StoreError,
        StoreIdentity,
    },
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use store::{Draw, held, identity, read_back, stage, uid};

const LIMITS: MaintenanceLimits = store::LIMITS;
const OPTIONS: Options = Options { segment_len: 8 << 10, prepare: Prepare::Foreground, maintenance: LIMITS };
const FIRST_SEGMENT_LEN: u64 = 4 << 10;

/// What a run of operations knows to be durable, and what it was doing when it ended.
#[derive(Default, Clone, Debug)]
struct Model {
    records: Vec<Durable>,
    contents: BTreeMap<Hash, Vec<u8>>,
    /// The batch whose commit did not return.
    open: Vec<Durable>,
}

impl Model {
    fn acknowledge(&mut self, batch: &[Durable]) {
        self.records.extend(batch.iter().map(read_back));
        for record in batch {
            if let Durable::Held { contents, .. } = record {
                self.contents.extend(contents.iter().map(|content| (content.hash, content.bytes.to_vec())));
            }
        }
        self.open.clear();
    }

    /// All that was acknowledged is there, with its contents; beyond it at most the whole batch that was under way.
    fn check(&mut self, opened: &Opened<MemoryStorage>) {
        self.check_records(opened);
        for (hash, bytes) in &self.contents {
            assert_eq!(opened.contents.read(hash, 0, u64::MAX).unwrap(), *bytes);
        }
    }

    fn check_records(&mut self, opened: &Opened<MemoryStorage>) {
        if opened.records.len() > self.records.len() {
            let open = std::mem::take(&mut self.open);
            self.acknowledge(&open);
        }
        assert_eq!(opened.records, self.records);
        self.open.clear();
    }
}

fn batch(draw: &mut Draw, micros: u64) -> Vec<Durable> {
    let count = 1 + draw.below(3);
    let records = (0..count).map(|i| {
        let micros = micros * 10 + i;
        match draw.below(4) {
            0 => Durable::Agreed { uid: uid(micros) },
            1 => Durable::OwnBit { uid: uid(micros) },
            _ => {
                let len = [0, 1, 300, 512, 1_500][draw.below(5) as usize];
                let content: Vec<u8> = (0..len).map(|_| draw.below(256) as u8).collect();
                held(micros, &content)
            }
        }
    });
    records.collect()
}

/// Opens the store, commits, stages: until all is done or the disk fails.
fn run(disk: &MemoryStorage, seed: u64, model: &mut Model) -> Result<(), StoreError> {
    let mut draw = Draw(seed);
    Store::create_with(disk.clone(), &identity(), FIRST_SEGMENT_LEN)?;
    for round in 0..3 {
        let mut opened = Store::open_with(disk.clone(), OPTIONS)?;
        model.check(&opened);
        for i in 0..6 {
            if draw.below(6) == 0 {
                let content = vec![i as u8; 1 + draw.below(2_000) as usize];
                let hash = stage(&opened.contents, &content)?;
                model.contents.insert(hash, content);
            }
            model.open = batch(&mut draw, round * 100 + i);
            opened.log.commit(&model.open)?;
            let batch = std::mem::take(&mut model.open);
            model.acknowledge(&batch);
        }
    }
    Ok(())
}

fn syncs_of_a_run(seed: u64) -> u64 {
    let disk = MemoryStorage::new();
    run(&disk, seed, &mut Model::default()).unwrap();
    disk.syncs()
}

/// Opens what is left of a store; `None` if it was not even made.
fn reopen(disk: &MemoryStorage, model: &mut Model) -> Option<Opened<MemoryStorage>> {
    match Store::open_with(disk.clone(), OPTIONS) {
        Err(StoreError::Absent) if model.records.is_empty() => {
            Store::create_with(disk.clone(), &identity(), FIRST_SEGMENT_LEN).unwrap();
            None
        }
        opened => {
            let opened = opened.unwrap();
            model.check(&opened);
            Some(opened)
        }
    }
}

#[test]
fn a_crash_at_any_flush_loses_nothing_that_was_acknowledged() {
    let (mut cut, mut kept) = (0, 0);
    for seed in 0..6 {
        let syncs = syncs_of_a_run(seed);
        assert!(syncs > 30, "{syncs} flushes");
        for n in 1..=syncs {
            let disk = MemoryStorage::new();
            disk.stop_at_sync(n);
            let mut model = Model::default();
            run(&disk, seed, &mut model).ok();
            assert_eq!(disk.syncs(), n, "the power fails at this flush");
            for chance in 0..6 {
                let mut model = model.clone();
                let under_way = !model.open.is_empty();
                let before = model.records.len();
                let disk = disk.crash(seed * 1_000_003 + n * 101 + chance);
                if let Some(mut opened) = reopen(&disk, &mut model) {
                    let more = batch(&mut Draw(n), 9_000);
                    opened.log.commit(&more).unwrap();
                    kept += usize::from(under_way && model.records.len() > before);
                    cut += usize::from(under_way && model.records.len() == before);
                    model.acknowledge(&more);
                }
                reopen(&disk.crash(chance), &mut model).expect("it was made by now");
            }
        }
    }
    assert!(cut > 100 && kept > 100, "torn commits were cut off {cut} times and kept {kept} times");
}

#[test]
fn a_crash_during_recovery_is_recovered_from() {
    for seed in 0..3 {
        let syncs = syncs_of_a_run(seed);
        for n in 1..=syncs {
            let disk = MemoryStorage::new();
            disk.stop_at_sync(n);
            let mut model = Model::default();
            run(&disk, seed, &mut model).ok();
            assert_eq!(disk.syncs(), n, "the power fails at this flush");
            for m in 1.. {
                let disk = disk.crash(seed + n * 31 + m);
                disk.stop_at_sync(m);
                let mut model = model.clone();
                match Store::open_with(disk.clone(), OPTIONS) {
                    // A commit that was found whole may count from now on, but need not: recovery did not return.
                    Err(StoreError::Absent) => break,
                    Err(_) => drop(reopen(&disk.crash(n + m), &mut model)),
                    Ok(opened) => {
                        // The power may have failed while a segment was prepared ahead.
                        model.check_records(&opened);
                        reopen(&disk.crash(n + m), &mut model);
                        if disk.syncs() < m {
                            break;
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn what_a_killed_process_left_in_the_page_cache_is_durable_once_opened() {
    let mut cached = 0;
    for (seed, power) in [(0, true), (1, true), (0, false), (1, false), (2, false)] {
        for n in 1..=syncs_of_a_run(seed) {
            let disk = MemoryStorage::new();
            if power {
                disk.stop_at_sync(n)
            } else {
                disk.fail_at_sync(n)
            };
            let mut model = Model::default();
            if run(&disk, seed, &mut model).is_ok() {
                continue; // the failure of preparing a segment ahead shows only when the segment is needed
            }
            let before = model.records.len();
            let disk = disk.kill();
            if reopen(&disk, &mut model).is_some() {
                cached += usize::from(model.records.len() > before);
                for chance in 0..4 {
                    reopen(&disk.crash(chance), &mut model).expect("it was there");
                }
                // What goes into segments whose names were not flushed yet is as durable.
                let mut opened = reopen(&disk, &mut model).expect("it was there");
                for micros in 0..10 {
                    let batch = [held(9_000 + micros, &[n as u8; 1_000])];
                    opened.log.commit(&batch).unwrap();
                    model.acknowledge(&batch);
                }
                reopen(&disk.crash(n), &mut model).expect("it was there");
            }
        }
    }
    assert!(cached > 20, "a commit was found in the page cache only, {cached} times");
}

#[test]
fn after_a_failed_flush_the_log_takes_nothing_more() {
    let disk = MemoryStorage::new();
    Store::create(disk.clone(), &identity()).unwrap();
    let mut opened = Store::open_with(disk.clone(), OPTIONS).unwrap();
    opened.log.commit(&[held(1, b"one")]).unwrap();
    disk.fail_at_sync(disk.syncs() + 1);
    let failed = opened.log.commit(&[held(2, b"two")]).unwrap_err();
    assert!(matches!(failed, StoreError::Failed(_)) && !failed.is_refusal());
    let refused = opened.log.commit(&[held(3, b"three")]).unwrap_err();
    assert!(matches!(refused, StoreError::Poisoned) && !refused.is_refusal());
    assert_eq!(opened.contents.read(&Hash::of(b"one"), 0, 9).unwrap(), "one");
    assert!(matches!(opened.contents.read(&Hash::of(b"two"), 0, 9), Err(StoreError::Missing(_))));
}

#[test]
fn a_full_disk_refuses_before_anything_is_written() {
    let disk = MemoryStorage::new();
    Store::create_with(disk.clone(), &identity(), FIRST_SEGMENT_LEN).unwrap();
    disk.set_capacity(Some(24 << 10));
    let mut opened = Store::open_with(disk.clone(), OPTIONS).unwrap();
    let mut model = Model::default();
    let mut refused = 0;
    for micros in 0..40 {
        let batch = [held(micros, &[micros as u8; 1_000])];
        match opened.log.commit(&batch) {
            Ok(()) => model.acknowledge(&batch),
            Err(error) => {
                assert!(matches!(error, StoreError::Full(_)) && error.is_refusal(), "{error}");
                refused += 1;
                if refused == 3 {
                    disk.set_capacity(None);
                }
            }
        }
    }
    assert_eq!((refused, model.records.len()), (3, 37));
    drop(opened);
    reopen(&disk.crash(0), &mut model).unwrap();

    disk.set_capacity(Some(0));
    let opened = Store::open_with(disk.clone(), OPTIONS).unwrap();
    assert!(matches!(stage(&opened.contents, &[1; 70_000]), Err(StoreError::Full(_))));
    assert!(disk.list().unwrap().iter().all(|name| !name.starts_with("staging-")));
}

/// A small log of several segments; its records, and where its last commit begins: (segment, offset).
fn small_log() -> (MemoryStorage, Model, (String, usize)) {
    let disk = MemoryStorage::new();
    Store::create_with(disk.clone(), &identity(), FIRST_SEGMENT_LEN).unwrap();
    let options = Options { segment_len: 4 << 10, ..OPTIONS };
    let mut opened = Store::open_with(disk.clone(), options).unwrap();
    let mut model = Model::default();
    let mut last = (String::new(), 0);
    for micros in 0..5 {
        let batch = [held(micros, &[micros as u8 + 1; 700]), Durable::Agreed { uid: uid(micros) }];
        let before = segments(&disk);
        opened.log.commit(&batch).unwrap();
        let changed = |(name, bytes): (&String, &Vec<u8>)| {
            let before = before.get(name).cloned().unwrap_or_else(|| vec![0; bytes.len()]);
            let at = (512..bytes.len()).find(|at| bytes[*at] != before[*at])?;
            Some((name.clone(), at))
        };
        last = segments(&disk).iter().find_map(changed).unwrap();
        model.acknowledge(&batch);
    }
    assert!(segments(&disk).len() > 2 && last.1 % 512 == 0);
    drop(opened);
    (disk, model, last)
}

fn segments(disk: &MemoryStorage) -> BTreeMap<String, Vec<u8>> {
    let names = disk.list().unwrap().into_iter().filter(|name| name.starts_with("segment-"));
    names.map(|name| (name.clone(), disk.bytes(&name).unwrap())).collect()
}

/// Opens a damaged copy of [`small_log`]: refused, or all is there; only the last commit, if `of_last` is damaged, may
/// be taken for one that was never acknowledged. Says whether the damage was refused.
fn open_damaged(disk: MemoryStorage, model: &Model, of_last: bool, what: &str) -> bool {
    match Store::open_with(disk, OPTIONS) {
        Err(StoreError::Corrupt { .. }) => true,
        Err(error) => panic!("{what}: {error}"),
        Ok(opened) => {
            let whole = opened.records == model.records;
            let cut = opened.records[..] == model.records[..model.records.len() - 2];
            assert!(whole || (of_last && cut), "{what}: {} records", opened.records.len());
            for (hash, bytes) in &model.contents {
                match opened.contents.read(hash, 0, u64::MAX) {
                    Ok(read) => assert_eq!(read, *bytes, "{what}"),
                    Err(StoreError::CorruptContent(_)) => {}
                    Err(StoreError::Missing(_)) if cut => {}
                    Err(error) => panic!("{what}: {error}"),
                }
            }
            false
        }
    }
}

#[test]
fn rot_in_any_byte_is_noticed_or_harmless() {
    let (disk, model, last) = small_log();
    let mut refused = 0;
    for (name, bytes) in segments(&disk) {
        for at in 0..bytes.len() {
            let damaged = disk.kill();
            damaged.rot(&name, at, 1 << (at % 8));
            let of_last = name == last.0 && at >= last.1;
            refused += usize::from(open_damaged(damaged, &model, of_last, &format!("{name} byte {at}")));
        }
        for at in (0..bytes.len()).step_by(512) {
            let damaged = disk.kill();
            (at..at + 512).for_each(|at| damaged.rot(&name, at, bytes[at]));
            let of_last = name == last.0 && at >= last.1;
            refused += usize::from(open_damaged(damaged, &model, of_last, &format!("{name} blank sector {at}")));
        }
    }
    assert!(refused > 1_000, "{refused} refused");
    for at in 0..disk.bytes("identity").unwrap().len() {
        let damaged = disk.kill();
        damaged.rot("identity", at, 1);
        assert!(Store::open_with(damaged, OPTIONS).is_err(), "identity byte {at}");
    }
    for name in segments(&disk).into_keys().filter(|name| *name < last.0) {
        let damaged = disk.kill();
        damaged.remove(&name).unwrap();
        assert!(open_damaged(damaged, &model, false, &format!("{name} gone")));
    }
}

#[test]
fn a_refusal_says_where_and_what_to_do() {
    let (disk, _, _) = small_log();
    disk.rot("segment-0000000000000001", 512 + 3, 0xff);
    let error = Store::open_with(disk, OPTIONS).map(|_| ()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("segment-0000000000000001 is corrupt at byte 512"), "{text}");
    assert!(text.contains("acms replace"), "{text}");
}

#[test]
fn a_rotten_content_leaves_its_record_and_can_be_stored_again() {
    let (disk, mut model, _) = small_log();
    let bytes = disk.bytes("segment-0000000000000001").unwrap();
    let at = bytes.windows(700).position(|window| window == [1; 700]).unwrap();
    disk.rot("segment-0000000000000001", at + 350, 4);
    let mut opened = Store::open_with(disk.clone(), OPTIONS).unwrap();
    assert_eq!(opened.records, model.records);
    let hash = Hash::of(&[1; 700]);
    assert!(matches!(opened.contents.read(&hash, 0, 1), Err(StoreError::CorruptContent(found)) if found == hash));
    let again = [held(0, &[1; 700])];
    opened.log.commit(&again).unwrap();
    model.acknowledge(&again);
    model.check(&Opened { records: model.records.clone(), ..opened });
    reopen(&disk, &mut model).unwrap();
}

/// Puts the commits of `from`'s first segment behind the head of `to`'s segment of that number.
fn transplant(from: &MemoryStorage, to: &MemoryStorage, number: u64) {
    let bytes = from.bytes("segment-0000000000000001").unwrap();
    let file = to.open(&format!("segment-{number:016x}")).unwrap();
    file.write_at(512, &bytes[512..]).unwrap();
    file.sync_data().unwrap();
}

#[test]
fn what_an_earlier_use_of_a_segment_left_never_replays() {
    let make = |identity: &StoreIdentity, records: &[Durable]| {
        let disk = MemoryStorage::new();
        Store::create_with(disk.clone(), identity, 4 << 10).unwrap();
        let mut opened = Store::open_with(disk.clone(), Options { segment_len: 4 << 10, ..OPTIONS }).unwrap();
        opened.log.commit(records).unwrap();
        disk
    };
    let old = make(&identity(), &[held(1, b"old"), Durable::Agreed { uid: uid(1) }]);
    let expect = |disk: MemoryStorage, records: &[Durable]| {
        let opened = Store::open_with(disk, OPTIONS).unwrap();
        assert_eq!(opened.records, records);
        assert_eq!(opened.contents.len(&Hash::of(b"old")), None);
    };
    // The next segment, recycled: its commits are of an older generation.
    let recycled = make(&identity(), &[Durable::OwnBit { uid: uid(5) }]);
    transplant(&old, &recycled, 2);
    expect(recycled, &[Durable::OwnBit { uid: uid(5) }]);
    // The same generation of another store.
    let other = StoreIdentity { store: StoreId { number: 1, nonce: 8 }, sp: SpId(2), cluster: "demo".into() };
    let other = make(&other, &[]);
    transplant(&old, &other, 1);
    expect(other, &[]);
    // Its own bytes do replay: the transplant itself works.
    let own = make(&identity(), &[]);
    transplant(&old, &own, 1);
    assert_eq!(Store::open_with(own, OPTIONS).unwrap().records.len(), 2);
}

proptest! {
    #[test]
    fn arbitrary_bytes_in_a_log_never_panic(
        offset in 0usize..8_192,
        noise in proptest::collection::vec(any::<u8>(), 1..3_000),
        number in 1u64..4,
    ) {
        let (disk, model, _) = small_log();
        let file = disk.open(&format!("segment-{number:016x}")).unwrap();
        let offset = offset % 4_096;
        let noise = &noise[..noise.len().min(4_096 - offset)];
        file.write_at(offset as u64, noise).unwrap();
        if let Ok(opened) = Store::open_with(disk, OPTIONS) {
            prop_assert!(model.records.starts_with(&opened.records));
        }
    }
}
