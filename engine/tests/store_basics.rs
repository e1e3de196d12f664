//! The store on a real directory: what is committed comes back, and the ways in which it refuses.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod store;

use acms_engine::{
    protocol::{Durable, Hash, Micros, SpId, StoreId, durable::INLINE_LEN_MAX},
    store::{Contents, DirStorage, Options, Prepare, Storage, Store, StoreError},
};
use store::{held, identity, read_back, uid};

fn stage<S: Storage>(contents: &Contents<S>, bytes: &[u8], expected: Option<Hash>) -> Result<(Hash, u64), StoreError> {
    let mut staging = contents.stage();
    for part in bytes.chunks(100_000) {
        staging.write(part)?;
    }
    staging.finish(expected)
}

#[test]
fn what_was_committed_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let storage = DirStorage::new(dir.path()).unwrap();
    Store::create(storage.clone(), &identity()).unwrap();
    let mut opened = Store::open(storage.clone()).unwrap();
    assert_eq!(opened.identity, identity());
    assert!(opened.records.is_empty());
    let first = vec![
        Durable::Started { starts: 1 },
        Durable::Ceiling { micros: Micros(99) },
        held(1, b"one"),
        held(2, b""),
        Durable::Store { sp: SpId(3), store: StoreId { number: 1, nonce: u64::MAX } },
    ];
    let second = vec![
        held(3, &vec![3; INLINE_LEN_MAX as usize]),
        Durable::OwnBit { uid: uid(3) },
        Durable::Agreed { uid: uid(1) },
        Durable::Dropped { uid: uid(2), superseded_by: uid(3) },
    ];
    opened.log.commit(&first).unwrap();
    opened.log.commit(&[]).unwrap();
    opened.log.commit(&second).unwrap();
    let all: Vec<Durable> = first.iter().chain(&second).map(read_back).collect();
    drop(opened);
    for _ in 0..2 {
        let opened = Store::open(storage.clone()).unwrap();
        assert_eq!(opened.records, all);
        let hash = Hash::of(b"one");
        assert_eq!(opened.contents.len(&hash), Some(3));
        assert_eq!(opened.contents.read(&hash, 0, 3).unwrap(), "one");
        assert_eq!(opened.contents.read(&hash, 1, u64::MAX).unwrap(), "ne");
        assert_eq!(opened.contents.read(&hash, 9, 1).unwrap(), "");
        assert_eq!(opened.contents.read(&Hash::of(b""), 0, 1).unwrap(), "");
        assert_eq!(opened.contents.path(&hash), None);
        let missing = Hash::of(b"never");
        assert!(matches!(opened.contents.read(&missing, 0, 1), Err(StoreError::Missing(hash)) if hash == missing));
    }
}

#[test]
fn a_long_log_spans_segments_made_in_the_background() {
    let dir = tempfile::tempdir().unwrap();
    let storage = DirStorage::new(dir.path()).unwrap();
    Store::create_with(storage.clone(), &identity(), 100_000).unwrap();
    let options = Options { segment_len: 200_000, ..Options::default() };
    let mut all = Vec::new();
    for round in 0..3u64 {
        let mut opened = Store::open_with(storage.clone(), options).unwrap();
        assert_eq!(opened.records, all);
        for i in 0..20 {
            let micros = round * 1000 + i;
            let content = micros.to_le_bytes().repeat(2_000);
            let batch = [held(micros, &content), Durable::Agreed { uid: uid(micros) }];
            opened.log.commit(&batch).unwrap();
            all.extend(batch.iter().map(read_back));
        }
    }
    let opened = Store::open_with(storage, options).unwrap();
    assert_eq!(opened.records, all);
    for micros in [0, 19, 1_005, 2_019u64] {
        let content = micros.to_le_bytes().repeat(2_000);
        assert_eq!(opened.contents.read(&Hash::of(&content), 0, 16_000).unwrap(), content);
    }
    let segments = std::fs::read_dir(dir.path()).unwrap().count();
    assert!(segments > 5, "{segments} files");
}

#[test]
fn a_batch_larger_than_a_segment_is_several_commits() {
    let dir = tempfile::tempdir().unwrap();
    let storage = DirStorage::new(dir.path()).unwrap();
    Store::create_with(storage.clone(), &identity(), 4096).unwrap();
    let options = Options { segment_len: 150_000, prepare: Prepare::Foreground, ..Options::default() };
    let mut opened = Store::open_with(storage.clone(), options).unwrap();
    let batch: Vec<Durable> = (0..30).map(|i| held(i, &vec![i as u8; 50_000])).collect();
    opened.log.commit(&batch).unwrap();
    drop(opened);
    let opened = Store::open_with(storage.clone(), options).unwrap();
    assert_eq!(opened.records, batch.iter().map(read_back).collect::<Vec<_>>());
    drop(opened);
    let mut opened = Store::open_with(storage, Options { segment_len: 50_000, ..options }).unwrap();
    let refused = opened.log.commit(&[held(77, &[7; 60_000])]);
    assert!(matches!(refused, Err(StoreError::TooLarge { .. })));
    let refused = opened.log.commit(&[held(77, &vec![7; INLINE_LEN_MAX as usize + 1])]);
    assert!(matches!(refused, Err(StoreError::TooLarge { .. })));
    opened.log.commit(&[held(78, &[7; 40_000])]).unwrap();
}

#[test]
fn large_contents_are_files_named_by_hash() {
    let dir = tempfile::tempdir().unwrap();
    let storage = DirStorage::new(dir.path()).unwrap();
    Store::create(storage.clone(), &identity()).unwrap();
    let opened = Store::open(storage.clone()).unwrap();
    let content: Vec<u8> = (0..1_000_000u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect();
    let hash = Hash::of(&content);
    assert!(matches!(stage(&opened.contents, &content, Some(Hash::of(b"other"))), Err(StoreError::WrongHash { .. })));
    assert_eq!(opened.contents.len(&hash), None);
    assert_eq!(stage(&opened.contents, &content, Some(hash)).unwrap(), (hash, 1_000_000));
    assert_eq!(stage(&opened.contents, &content, None).unwrap(), (hash, 1_000_000));
    assert_eq!(stage(&opened.contents, b"", None).unwrap(), (Hash::of(b""), 0));
    let mut unfinished = opened.contents.stage();
    unfinished.write(&content).unwrap();
    std::mem::forget(unfinished); // as a killed process leaves it; its lock dies with the directory's file below
    let leftovers = |dir: &std::path::Path| {
        let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("staging-")).count()
    };
    assert_eq!(leftovers(dir.path()), 1);
    assert_eq!(std::fs::read(opened.contents.path(&hash).unwrap()).unwrap(), content);
    assert_eq!(opened.contents.read(&hash, 999_990, 100).unwrap(), content[999_990..]);
    drop(opened);
    std::fs::remove_file(dir.path().join("lock")).unwrap();
    let opened = Store::open(storage).unwrap();
    assert_eq!(leftovers(dir.path()), 0);
    assert_eq!(opened.contents.len(&hash), Some(1_000_000));
    assert_eq!(opened.contents.read(&hash, 0, u64::MAX).unwrap(), content);
    std::fs::write(opened.contents.path(&hash).unwrap(), vec![1; 1_000_000]).unwrap();
    assert!(matches!(opened.contents.read(&hash, 0, u64::MAX), Err(StoreError::CorruptContent(_))));
    std::fs::write(opened.contents.path(&hash).unwrap(), "cut short").unwrap();
    assert!(matches!(opened.contents.read(&hash, 500_000, 10), Err(StoreError::CorruptContent(_))));
}

#[test]
fn a_store_is_made_once_and_opened_once() {
    let dir = tempfile::tempdir().unwrap();
    let storage = DirStorage::new(dir.path().join("store")).unwrap();
    assert!(matches!(Store::open(storage.clone()), Err(StoreError::Absent)));
    Store::create(storage.clone(), &identity()).unwrap();
    assert!(matches!(Store::create(storage.clone(), &identity()), Err(StoreError::Exists)));
    let opened = Store::open(storage.clone()).unwrap();
    assert!(matches!(Store::open(storage.clone()), Err(StoreError::Locked)));
    let contents = opened.contents.clone();
    drop(opened);
    assert!(matches!(Store::open(storage.clone()), Err(StoreError::Locked)), "a reader is still there");
    drop(contents);
    drop(Store::open(storage.clone()).unwrap());
    // Without its log it is not an empty store: what it acknowledged is lost.
    for name in storage.list().unwrap().iter().filter(|name| name.starts_with("segment-")) {
        storage.remove(name).unwrap();
    }
    let refused = Store::open(storage).map(|_| ()).unwrap_err();
    assert!(refused.to_string().contains("acms replace"), "{refused}");
}
