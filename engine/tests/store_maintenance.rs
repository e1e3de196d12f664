//! Checkpoints, compaction and segments used again: whatever is cut short, wherever, the store says what it said before,
//! and its size follows what is alive.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod store;

use acms_engine::{
    protocol::{Durable, Hash, Instant, Manifest, Micros, SpId, StoreId, Uid, durable::INLINE_LEN_MAX},
    store::{MaintenanceLimits, MemoryStorage, Opened, Options, Prepare, Step, Storage, Store, StoreError},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use store::{Draw, held, identity, read_back, uid};

const SEGMENT_LEN: u64 = 8 << 10;
const OPTIONS: Options = Options { maintenance: store::LIMITS, ..Options::foreground(SEGMENT_LEN) };

/// What a storage point makes of records; written without a look at how the store sums them up.
#[derive(Clone, PartialEq, Debug, Default)]
struct Replayed {
    starts: u32,
    ceiling: u64,
    as_of: u64,
    joined: bool,
    stores: BTreeMap<SpId, u32>,
    publications: BTreeMap<Uid, Publication>,
}

#[derive(Clone, PartialEq, Debug)]
struct Publication {
    manifest: Arc<Manifest>,
    own_bit: bool,
    agreed: bool,
    dropped: Option<Uid>,
    released: bool,
}

impl Replayed {
    fn of(records: &[Durable]) -> Replayed {
        let mut state = Replayed::default();
        for record in records {
            state.apply(record);
        }
        state
    }

    fn apply(&mut self, record: &Durable) {
        let publication = |state: &mut Replayed, uid: &Uid, change: &dyn Fn(&mut Publication)| {
            state.publications.get_mut(uid).into_iter().for_each(change);
        };
        match record {
            Durable::Held { manifest, own_bit, .. } => {
                let (manifest, own_bit) = (Arc::clone(manifest), *own_bit);
                let new = Publication { manifest, own_bit, agreed: false, dropped: None, released: false };
                self.publications.insert(new.manifest.uid, new);
            }
            Durable::OwnBit { uid } => publication(self, uid, &|one| one.own_bit = true),
            Durable::Agreed { uid } => publication(self, uid, &|one| one.agreed = true),
            Durable::Dropped { uid, superseded_by } => {
                publication(self, uid, &|one| one.dropped = Some(*superseded_by));
            }
            Durable::Released { uid } => publication(self, uid, &|one| one.released = true),
            Durable::Forgotten { uid } => drop(self.publications.remove(uid)),
            Durable::Ceiling { micros } => self.ceiling = self.ceiling.max(micros.0),
            Durable::Started { starts } => self.starts = self.starts.max(*starts),
            Durable::AsOf { micros } => self.as_of = self.as_of.max(micros.0),
            Durable::Joined => self.joined = true,
            Durable::Store { sp, store } => {
                let known = self.stores.insert(*sp, store.number);
                assert!(known.is_none_or(|known| known < store.number), "the test's own rule");
            }
        }
    }
}

/// What a run knows to be durable, what it was doing when it ended, and what it has still to do.
#[derive(Clone, Default)]
struct Model {
    records: Vec<Durable>,
    open: Vec<Durable>,
    bytes: BTreeMap<Hash, Vec<u8>>,
    /// Publications that may be released or forgotten.
    live: BTreeSet<Uid>,
    released: BTreeSet<Uid>,
    stores: [u32; 4],
}

impl Model {
    /// All that was acknowledged is there, with the contents that are needed; beyond it at most what was under way.
    fn check(&self, opened: &Opened<MemoryStorage>, what: &str) -> bool {
        let found = Replayed::of(&opened.records);
        let whole: Vec<Durable> = self.records.iter().chain(&self.open).cloned().collect();
        let acknowledged = Replayed::of(&self.records);
        let more = Replayed::of(&whole);
        assert!(found == acknowledged || found == more, "{what}: {found:#?}\nis not {acknowledged:#?}");
        self.check_contents(&found, opened, what);
        found == more && !self.open.is_empty()
    }

    fn check_contents(&self, found: &Replayed, opened: &Opened<MemoryStorage>, what: &str) {
        for one in found.publications.values().filter(|one| !one.released) {
            let hash = one.manifest.entries[0].hash;
            let read = opened.contents.read(&hash, 0, u64::MAX);
            // A thread that prepares segments may have brought the power down just now.
            if read.as_ref().is_err_and(|error| format!("{error:?}").contains("the power is off")) {
                return;
            }
            assert_eq!(read.as_deref().ok(), self.bytes.get(&hash).map(|bytes| &bytes[..]), "{what}: {read:?}");
        }
    }

    /// A batch such as a storage point writes: new publications, lazy records, old publications released.
    fn draw(&mut self, draw: &mut Draw, next: &mut u64) -> Vec<Durable> {
        let mut batch = Vec::new();
        for _ in 0..1 + draw.below(3) {
            *next += 1;
            let known = self.live.iter().nth(draw.below(self.live.len() as u64 + 1) as usize).copied();
            match (draw.below(10), known) {
                (0, Some(uid)) => batch.push(Durable::Agreed { uid }),
                (1 | 2, Some(uid)) => batch.push(Durable::Dropped { uid, superseded_by: store::uid(*next) }),
                (3, _) => batch.push(Durable::Ceiling { micros: Micros(*next) }),
                (4, _) => batch.push(Durable::AsOf { micros: Micros(*next) }),
                (5, Some(uid)) => batch.push(Durable::OwnBit { uid }),
                (6, _) if draw.below(4) == 0 => {
                    let sp = draw.below(4) as usize;
                    self.stores[sp] += 1;
                    let store = StoreId { number: self.stores[sp], nonce: 1 };
                    batch.push(Durable::Store { sp: SpId(sp as u8), store });
                }
                _ => batch.push(self.hold(draw, *next)),
            }
        }
        while self.live.len() > 12 {
            let uid = self.live.pop_first().unwrap();
            self.released.insert(uid);
            batch.push(Durable::Released { uid });
        }
        if self.released.len() > 6 {
            batch.push(Durable::Forgotten { uid: self.released.pop_first().unwrap() });
        }
        batch
    }

    /// A publication, sometimes of a content that another one has.
    fn hold(&mut self, draw: &mut Draw, micros: u64) -> Durable {
        let len = [0, 1, 300, 512, 1_500][draw.below(5) as usize];
        let byte = if draw.below(3) == 0 { draw.below(4) } else { micros } as u8;
        let content = vec![byte; len];
        let mut record = held(micros, &content);
        let hash = Hash::of(&content);
        let alive = Replayed::of(&self.records);
        let is_here = |one: &Publication| !one.released && one.manifest.entries[0].hash == hash;
        if let Durable::Held { contents, .. } = &mut record
            && alive.publications.values().any(is_here)
        {
            // What is here does not come again: only an unreleased publication of an earlier batch counts, and this
            // batch may release it, but the record that names it anew stands before.
            contents.clear();
        }
        self.bytes.insert(hash, content);
        self.live.insert(uid(micros));
        record
    }

    fn acknowledge(&mut self) {
        self.records.extend(self.open.drain(..).map(|record| read_back(&record)));
    }
}

/// A run of commits, contents that are files, maintenance and reopenings; until all is done or the disk fails.
fn run(disk: &MemoryStorage, seed: u64, model: &mut Model) -> Result<Figures, StoreError> {
    run_with(OPTIONS, disk, seed, model)
}

fn run_with(options: Options, disk: &MemoryStorage, seed: u64, model: &mut Model) -> Result<Figures, StoreError> {
    let (mut draw, mut next, mut now) = (Draw(seed), 0, Instant(1));
    let mut figures = Figures::default();
    Store::create_with(disk.clone(), &identity(), SEGMENT_LEN)?;
    for round in 0..4 {
        let mut opened = Store::open_with(disk.clone(), options)?;
        model.check(&opened, "in the run");
        for _ in 0..30 {
            now.0 += 100_000_000;
            model.open = model.draw(&mut draw, &mut next);
            if draw.below(5) == 0 {
                stage_held(&opened, model, &mut draw, &mut next)?;
            }
            opened.log.commit(&model.open)?;
            model.acknowledge();
            for _ in 0..draw.below(6) {
                figures.copies += u64::from(step(&mut opened, now)?);
            }
        }
        if round % 2 == 1 {
            opened.maintenance.finish(now)?;
        }
        let of_store = opened.maintenance.figures();
        figures.checkpoints += of_store.checkpoints_total;
        figures.freed += of_store.freed_total;
        // The power may have failed while a segment was prepared ahead, which shows only when it is needed.
        if disk.list().is_ok() {
            model.check_contents(&Replayed::of(&model.records), &opened, "at the end of a round");
        }
    }
    Ok(figures)
}

#[derive(Default, Debug)]
struct Figures {
    checkpoints: u64,
    copies: u64,
    freed: u64,
}

/// One step; whether it moved contents.
fn step(opened: &mut Opened<MemoryStorage>, now: Instant) -> Result<bool, StoreError> {
    let step = opened.maintenance.step(now)?;
    let Step::Copy(copies) = step else { return Ok(false) };
    opened.log.commit_writes([], &copies)?;
    Ok(true)
}

/// One more publication in the batch, whose content is a file.
fn stage_held(
    opened: &Opened<MemoryStorage>,
    model: &mut Model,
    draw: &mut Draw,
    next: &mut u64,
) -> Result<(), StoreError> {
    *next += 1;
    let content = (*next).to_le_bytes().repeat(1 + draw.below(300) as usize);
    let mut staging = opened.contents.stage();
    staging.write(&content)?;
    let (hash, _) = staging.finish(None)?;
    let mut record = held(*next, &content);
    if let Durable::Held { contents, .. } = &mut record {
        contents.clear();
    }
    model.bytes.insert(hash, content);
    model.live.insert(uid(*next));
    model.open.push(record);
    Ok(())
}

/// Opens what is left, checks it, goes on with it, and checks that too.
fn go_on(disk: &MemoryStorage, model: &mut Model, what: &str) -> Option<bool> {
    let mut opened = match Store::open_with(disk.clone(), OPTIONS) {
        Err(StoreError::Absent) if model.records.is_empty() => return None,
        opened => opened.unwrap_or_else(|error| panic!("{what}: {error}")),
    };
    let kept = model.check(&opened, what);
    if kept {
        model.acknowledge();
    }
    model.open.clear();
    let mut now = Instant(1_000_000_000_000);
    for i in 0..12 {
        model.open = vec![held(1_000_000 + i, &[i as u8; 900])];
        model.bytes.insert(Hash::of(&[i as u8; 900]), vec![i as u8; 900]);
        opened.log.commit(&model.open).unwrap();
        model.acknowledge();
        now.0 += 1_000_000_000;
        while store::step(&mut opened, now).unwrap() {}
    }
    opened.maintenance.checkpoint(now).unwrap();
    model.check_contents(&Replayed::of(&model.records), &opened, what);
    drop(opened);
    model.check(&Store::open_with(disk.crash(7), OPTIONS).unwrap(), what);
    Some(kept)
}

#[test]
fn power_lost_at_any_flush_changes_nothing() {
    let (mut kept, mut cut, mut runs) = (0, 0, 0);
    for seed in 0..8 {
        let disk = MemoryStorage::new();
        let figures = run(&disk, seed, &mut Model::default()).unwrap();
        assert!(figures.checkpoints > 5 && figures.copies > 2 && figures.freed > 5, "{figures:?}");
        for n in 1..=disk.syncs() {
            let disk = MemoryStorage::new();
            disk.stop_at_sync(n);
            let mut model = Model::default();
            run(&disk, seed, &mut model).err();
            assert_eq!(disk.syncs(), n, "the power fails at this flush");
            for chance in 0..3 {
                let what = format!("seed {seed}, flush {n}, chance {chance}");
                match go_on(&disk.crash(n * 101 + chance), &mut model.clone(), &what) {
                    Some(true) => kept += 1,
                    Some(false) => cut += 1,
                    None => {}
                }
                runs += 1;
            }
        }
    }
    println!("{runs} crashes, the open batch kept {kept} times");
    assert!(kept > 100 && cut > 100, "{kept} {cut}");
}

/// What is dead is kept for a while, as in production.
const KEPT: MaintenanceLimits = MaintenanceLimits { dead_kept: Duration::from_secs(3), ..store::LIMITS };

#[test]
fn power_lost_while_the_dead_are_kept_changes_nothing() {
    let options = Options { maintenance: KEPT, ..OPTIONS };
    for seed in 60..63 {
        let disk = MemoryStorage::new();
        let figures = run_with(options, &disk, seed, &mut Model::default()).unwrap();
        assert!(figures.checkpoints > 5 && figures.copies > 0 && figures.freed > 5, "{figures:?}");
        for n in 1..=disk.syncs() {
            let disk = MemoryStorage::new();
            disk.stop_at_sync(n);
            let mut model = Model::default();
            run_with(options, &disk, seed, &mut model).err();
            assert_eq!(disk.syncs(), n, "the power fails at this flush");
            go_on(&disk.crash(n), &mut model, &format!("seed {seed}, flush {n}"));
        }
    }
}

#[test]
fn power_lost_while_a_thread_prepares_segments_changes_nothing() {
    let options = Options { prepare: Prepare::Background, maintenance: KEPT, ..OPTIONS };
    let mut ended = 0;
    for seed in 70..72 {
        let disk = MemoryStorage::new();
        run_with(options, &disk, seed, &mut Model::default()).unwrap();
        for n in 1..=disk.syncs() {
            // The threads share the flushes as they happen to run, so n is no certain place.
            let disk = MemoryStorage::new();
            disk.stop_at_sync(n);
            let mut model = Model::default();
            ended += usize::from(run_with(options, &disk, seed, &mut model).is_err());
            go_on(&disk.crash(n * 31), &mut model, &format!("seed {seed}, flush {n}"));
        }
    }
    assert!(ended > 100, "{ended} runs ended by the power");
}

#[test]
fn a_killed_process_leaves_a_store_that_goes_on() {
    for seed in 20..24 {
        let disk = MemoryStorage::new();
        run(&disk, seed, &mut Model::default()).unwrap();
        for n in 1..=disk.syncs() {
            let disk = MemoryStorage::new();
            disk.stop_at_sync(n);
            let mut model = Model::default();
            run(&disk, seed, &mut model).err();
            go_on(&disk.kill(), &mut model, &format!("seed {seed}, flush {n}"));
        }
    }
}

#[test]
fn a_failed_flush_stops_maintenance_for_a_second_and_loses_nothing() {
    let mut failures = 0;
    for n in 1..200 {
        let disk = MemoryStorage::new();
        Store::create_with(disk.clone(), &identity(), SEGMENT_LEN).unwrap();
        let mut opened = Store::open_with(disk.clone(), OPTIONS).unwrap();
        let (mut model, mut draw, mut next, mut now) = (Model::default(), Draw(n), 0, Instant(1));
        let before = disk.syncs();
        for _ in 0..60 {
            model.open = model.draw(&mut draw, &mut next);
            opened.log.commit(&model.open).unwrap();
            model.acknowledge();
            now.0 += 300_000_000;
            // Only a flush of maintenance itself fails.
            let begun = disk.syncs();
            disk.fail_at_sync(before.max(begun) + n % 7 + 1);
            for _ in 0..6 {
                match opened.maintenance.step(now) {
                    Ok(Step::Copy(_)) | Ok(Step::Wait(_)) => break,
                    Ok(Step::Again) => {}
                    Err(error) => {
                        assert!(matches!(error, StoreError::Io { .. }), "{error}");
                        assert!(matches!(opened.maintenance.step(now), Ok(Step::Wait(at)) if at > now));
                        failures += 1;
                    }
                }
            }
            disk.fail_at_sync(u64::MAX);
        }
        drop(opened);
        go_on(&disk.crash(n), &mut model, &format!("{n}"));
    }
    assert!(failures > 100, "{failures} failures");
}

/// A store with a checkpoint, compacted segments and a tail; its model.
fn worn() -> (MemoryStorage, Model) {
    let disk = MemoryStorage::new();
    let mut model = Model::default();
    let figures = run(&disk, 3, &mut model).unwrap();
    assert!(figures.copies > 0);
    (disk, model)
}

#[test]
fn rot_in_any_byte_is_noticed_or_harmless() {
    let (disk, model) = worn();
    let expected = Replayed::of(&model.records);
    let (mut refused, mut corrupt) = (0, 0);
    for name in disk.list().unwrap().into_iter().filter(|name| name != "identity") {
        let len = disk.bytes(&name).unwrap().len();
        for at in 0..len {
            let damaged = disk.kill();
            damaged.rot(&name, at, 1 << (at % 8));
            let opened = match Store::open_with(damaged, OPTIONS) {
                Err(StoreError::Corrupt { file, .. }) => {
                    assert_eq!(file, name);
                    refused += 1;
                    continue;
                }
                opened => opened.unwrap_or_else(|error| panic!("{name} byte {at}: {error}")),
            };
            let found = Replayed::of(&opened.records);
            // The last commit, damaged, may be one that was never acknowledged.
            let shorter = |n: usize| Replayed::of(&model.records[..model.records.len() - n]);
            assert!(found == expected || (1..8).any(|n| found == shorter(n)), "{name} byte {at}");
            for one in found.publications.values().filter(|one| !one.released) {
                let hash = one.manifest.entries[0].hash;
                match opened.contents.read(&hash, 0, u64::MAX) {
                    Ok(bytes) => assert_eq!(bytes, model.bytes[&hash], "{name} byte {at}"),
                    Err(StoreError::CorruptContent(_)) => corrupt += 1,
                    Err(error) => panic!("{name} byte {at}: {error}"),
                }
            }
        }
    }
    println!("refused {refused}, contents corrupt {corrupt}");
    assert!(refused > 1_000 && corrupt > 1_000, "{refused} {corrupt}");
    let checkpoint = disk.bytes("checkpoint").unwrap().len();
    for at in 0..checkpoint {
        let damaged = disk.kill();
        damaged.rot("checkpoint", at, 0x80);
        let error = Store::open_with(damaged, OPTIONS).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("checkpoint is corrupt") && error.contains("acms replace"), "{error}");
    }
}

#[test]
fn a_lost_checkpoint_or_segment_is_refused() {
    let (disk, _) = worn();
    let names = disk.list().unwrap();
    let (mut refused, mut free) = (0, 0);
    for name in names.iter().filter(|name| *name == "checkpoint" || name.starts_with("segment-")) {
        let damaged = disk.kill();
        damaged.remove(name).unwrap();
        match Store::open_with(damaged, OPTIONS) {
            Err(error) => {
                assert!(error.to_string().contains("acms replace"), "{error}");
                refused += 1;
            }
            Ok(opened) => {
                drop(opened);
                free += 1;
                assert_ne!(name, "checkpoint");
            }
        }
    }
    assert!(refused >= 3, "{refused} refused, {free} were free or blank");
}

#[test]
fn a_full_disk_stops_maintenance_and_nothing_is_lost() {
    for seed in 40..50 {
        let disk = MemoryStorage::new();
        Store::create_with(disk.clone(), &identity(), SEGMENT_LEN).unwrap();
        let mut opened = Store::open_with(disk.clone(), OPTIONS).unwrap();
        let (mut model, mut draw, mut next, mut now) = (Model::default(), Draw(seed), 0, Instant(1));
        let (mut full, mut refused) = (0, 0);
        for i in 0..200 {
            now.0 += 2_000_000_000;
            let used: u64 = disk.list().unwrap().iter().map(|name| disk.bytes(name).unwrap().len() as u64).sum();
            // Room comes and goes.
            disk.set_capacity(Some(if i % 40 < 25 { used + draw.below(600) } else { used + (40 << 10) }));
            let before = model.clone();
            model.open = model.draw(&mut draw, &mut next);
            match opened.log.commit(&model.open) {
                Ok(()) => model.acknowledge(),
                Err(StoreError::Full(_)) => {
                    refused += 1;
                    model = before;
                }
                Err(error) => panic!("{error}"),
            }
            for _ in 0..4 {
                match store::step(&mut opened, now) {
                    Ok(_) => {}
                    Err(StoreError::Full(_)) => full += 1,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        assert!(full > 0 && refused > 0, "full at {full} steps and {refused} commits");
        disk.set_capacity(None);
        model.check_contents(&Replayed::of(&model.records), &opened, "full");
        drop(opened);
        go_on(&disk.crash(seed), &mut model, &format!("seed {seed}"));
    }
}

#[test]
fn the_same_operations_are_the_same_writes() {
    let bytes = |seed| {
        let disk = MemoryStorage::new();
        run(&disk, seed, &mut Model::default()).unwrap();
        let names = disk.list().unwrap();
        (disk.syncs(), names.iter().map(|name| (name.clone(), disk.bytes(name))).collect::<Vec<_>>())
    };
    assert!(bytes(1) == bytes(1));
    assert!(bytes(1) != bytes(2));
}

#[test]
fn a_segment_is_not_used_again_while_it_is_read() {
    let disk = MemoryStorage::new();
    Store::create_with(disk.clone(), &identity(), SEGMENT_LEN).unwrap();
    let mut opened = Store::open_with(disk.clone(), OPTIONS).unwrap();
    opened.log.commit(&[held(1, &[1; 800])]).unwrap();
    let reader = opened.contents.reader(&Hash::of(&[1; 800])).unwrap();
    opened.log.commit(&[Durable::Released { uid: uid(1) }]).unwrap();
    let mut now = Instant(1);
    wear(&mut opened, 2..60, &mut now);
    assert_eq!(reader.read(0, 800).unwrap(), [1; 800][..]);
    assert!(matches!(opened.contents.read(&Hash::of(&[1; 800]), 0, 1), Err(StoreError::Missing(_))));
    let freed = opened.maintenance.figures().freed_total;
    assert!(freed > 3, "{freed} others were freed");
    assert!(disk.list().unwrap().contains(&"segment-0000000000000001".to_owned()));
    drop(reader);
    wear(&mut opened, 60..90, &mut now);
    assert!(!disk.list().unwrap().contains(&"segment-0000000000000001".to_owned()));
}

/// Publications that are released at once, with all the maintenance that they bring.
fn wear(opened: &mut Opened<MemoryStorage>, numbers: std::ops::Range<u64>, now: &mut Instant) {
    for i in numbers {
        opened.log.commit(&[held(i, &[i as u8; 800]), Durable::Released { uid: uid(i) }]).unwrap();
        now.0 += 1_000_000_000;
        while store::step(opened, *now).unwrap() {}
    }
}

#[test]
fn a_good_copy_takes_the_place_of_a_corrupt_content() {
    let disk = MemoryStorage::new();
    Store::create_with(disk.clone(), &identity(), SEGMENT_LEN).unwrap();
    let mut opened = Store::open_with(disk.clone(), OPTIONS).unwrap();
    let content = [77; 900];
    let hash = Hash::of(&content);
    opened.log.commit(&[held(1, &content)]).unwrap();
    let name = "segment-0000000000000001";
    let at = disk.bytes(name).unwrap().windows(900).position(|window| window == content).unwrap();
    disk.rot(name, at + 3, 1);
    assert!(matches!(opened.contents.read(&hash, 0, 1), Err(StoreError::CorruptContent(bad)) if bad == hash));
    // Maintenance does not move it either, and keeps what it lies in.
    let mut now = Instant(1);
    wear(&mut opened, 2..60, &mut now);
    assert_eq!((opened.maintenance.take_corrupt(), opened.maintenance.figures().corrupt), (vec![(hash, 900)], 1));
    assert_eq!(opened.maintenance.take_corrupt(), [], "it is said once");
    assert!(disk.list().unwrap().contains(&name.to_owned()));
    assert_eq!(store::stage(&opened.contents, &content).unwrap(), hash);
    assert_eq!(opened.contents.read(&hash, 0, 900).unwrap(), content[..]);
    wear(&mut opened, 60..90, &mut now);
    assert_eq!(opened.maintenance.figures().corrupt, 0);
    assert!(!disk.list().unwrap().contains(&name.to_owned()));
    drop(opened);
    let opened = Store::open_with(disk.crash(1), OPTIONS).unwrap();
    assert_eq!(opened.contents.read(&hash, 0, 900).unwrap(), content[..]);
}

#[test]
fn files_go_when_nothing_names_them_and_not_before() {
    let disk = MemoryStorage::new();
    Store::create_with(disk.clone(), &identity(), SEGMENT_LEN).unwrap();
    let mut opened = Store::open_with(disk.clone(), OPTIONS).unwrap();
    let content = vec![5; INLINE_LEN_MAX as usize + 1];
    let hash = Hash::of(&content);
    let publication = |micros| store::held_without(micros, &content);
    let files = |disk: &MemoryStorage| disk.list().unwrap().iter().filter(|name| name.starts_with("content-")).count();
    let stage = |opened: &Opened<MemoryStorage>| assert_eq!(store::stage(&opened.contents, &content).unwrap(), hash);
    stage(&opened);
    // Nothing names it yet, and its record may come.
    opened.maintenance.checkpoint(Instant(1)).unwrap();
    assert_eq!(files(&disk), 1);
    opened.log.commit(&[publication(1)]).unwrap();
    opened.log.commit(&[Durable::Released { uid: uid(1) }]).unwrap();
    // Stored again before it is given up: that one is new.
    stage(&opened);
    opened.maintenance.checkpoint(Instant(2)).unwrap();
    assert_eq!(files(&disk), 1);
    opened.log.commit(&[publication(2)]).unwrap();
    opened.maintenance.checkpoint(Instant(3)).unwrap();
    assert_eq!(opened.contents.read(&hash, 0, u64::MAX).unwrap(), content);
    opened.log.commit(&[Durable::Forgotten { uid: uid(2) }]).unwrap();
    assert_eq!(files(&disk), 1, "not before a checkpoint says so");
    opened.maintenance.checkpoint(Instant(4)).unwrap();
    assert_eq!(files(&disk), 0);
    assert_eq!(opened.contents.len(&hash), None);
    // What the death of a process left unnamed.
    stage(&opened);
    drop(opened);
    let mut opened = Store::open_with(disk.kill(), OPTIONS).unwrap();
    assert_eq!(opened.contents.len(&hash), Some(content.len() as u64));
    opened.log.commit(&[publication(3)]).unwrap();
    opened.maintenance.checkpoint(Instant(5)).unwrap();
    assert_eq!(opened.contents.read(&hash, 0, u64::MAX).unwrap(), content);
}

#[test]
fn what_is_dead_can_be_named_again_for_a_while() {
    let kept = MaintenanceLimits { dead_kept: Duration::from_secs(10), ..store::LIMITS };
    let options = Options { maintenance: kept, ..OPTIONS };
    let disk = MemoryStorage::new();
    Store::create_with(disk.clone(), &identity(), SEGMENT_LEN).unwrap();
    let mut opened = Store::open_with(disk.clone(), options).unwrap();
    let content = [9; 700];
    let again = |micros| store::held_without(micros, &content);
    let seconds = |s: u64| Instant(s * 1_000_000_000);
    opened.log.commit(&[held(1, &content), Durable::Released { uid: uid(1) }]).unwrap();
    opened.maintenance.checkpoint(seconds(20)).unwrap();
    opened.log.commit(&[again(2)]).unwrap();
    drop(opened);
    let mut opened = Store::open_with(disk.crash(1), options).unwrap();
    assert_eq!(opened.contents.read(&Hash::of(&content), 0, 700).unwrap(), content[..]);
    opened.maintenance.step(seconds(1)).unwrap();
    opened.log.commit(&[Durable::Released { uid: uid(2) }]).unwrap();
    opened.maintenance.checkpoint(seconds(2)).unwrap();
    opened.log.commit(&[again(3)]).unwrap();
    opened.maintenance.checkpoint(seconds(30)).unwrap();
    opened.log.commit(&[Durable::Released { uid: uid(3) }]).unwrap();
    opened.maintenance.checkpoint(seconds(40)).unwrap();
    assert_eq!(opened.contents.len(&Hash::of(&content)), Some(700));
    opened.maintenance.checkpoint(seconds(51)).unwrap();
    assert_eq!(opened.contents.len(&Hash::of(&content)), None);
}

#[test]
fn the_size_of_a_store_follows_what_is_alive() {
    let disk = MemoryStorage::new();
    Store::create_with(disk.clone(), &identity(), SEGMENT_LEN).unwrap();
    let mut opened = Store::open_with(disk.clone(), OPTIONS).unwrap();
    let mut now = Instant(1);
    let mut largest = 0;
    for micros in 0..3_000u64 {
        // Twenty publications are alive, and two that nobody overwrites.
        let mut batch = vec![held(micros, &micros.to_le_bytes().repeat(60))];
        if micros >= 22 {
            batch.push(Durable::Forgotten { uid: uid(micros - 20) });
        }
        opened.log.commit(&batch).unwrap();
        now.0 += 10_000_000;
        while store::step(&mut opened, now).unwrap() {}
        largest = largest.max(disk.list().unwrap().iter().map(|name| disk.bytes(name).unwrap().len()).sum());
    }
    let figures = opened.maintenance.figures();
    println!("{largest} bytes at most; {figures:?}");
    assert!(largest < 12 * SEGMENT_LEN as usize, "{largest} bytes; {figures:?}");
    assert!(figures.copied_bytes_total > 0);
    drop(opened);
    let opened = Store::open_with(disk, OPTIONS).unwrap();
    assert_eq!(Replayed::of(&opened.records).publications.len(), 22);
    assert!(matches!(Store::open_with(MemoryStorage::new(), OPTIONS), Err(StoreError::Absent)));
}
