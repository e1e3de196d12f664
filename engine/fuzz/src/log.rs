//! Opening a store whose log and checkpoint somebody made up: it opens or says why not, and never gives back a record
//! that was not written whole.
//!
//! The input is a list of steps that write records, commits, segments and a checkpoint with good checksums (after
//! `docs/LOG.md`, by code of its own), as a store could hold them or not, and then damage them.

use acms_engine::{
    protocol::{Durable, Entry, Flags, Hash, Manifest, SpId, StoreId, Uid},
    store::{MemoryStorage, Opened, Options, Storage, StorageFile, Store, StoreError, StoreIdentity},
};
use std::{collections::BTreeSet, sync::Arc};

const SEGMENT_LEN: usize = 4096;
const SECTOR_LEN: usize = 512;
const SEGMENTS_MAX: usize = 4;

/// One input.
pub fn check(input: &[u8]) {
    let storage = MemoryStorage::new();
    let identity = StoreIdentity { cluster: "demo".into(), sp: SpId(2), store: StoreId { number: 0, nonce: 7 } };
    Store::create_with(storage.clone(), &identity, SEGMENT_LEN as u64).expect("the disk is empty");
    let binding = Hash::of(&storage.bytes("identity").expect("it was just written"));
    let mut made = Made::new(&binding.0[..8]);
    made.take_steps(input);
    let is_numbered = made.is_numbered;
    let written = made.write(&storage);
    let Ok(opened) = open(&storage) else { return };
    let records = opened.records.clone();
    // Where two commits have one number, which no store writes, the second may be taken for the next one.
    let are_written = match is_numbered {
        true => written.starts_with(&records),
        false => is_part(&records, &written),
    };
    assert!(are_written, "a record that nobody wrote:\n{records:?}\nof\n{written:?}");
    drop(opened);
    check_again(&storage.kill(), records);
}

/// Whether `all` has these records in this order, maybe with others between them.
fn is_part(records: &[Durable], all: &[Durable]) -> bool {
    let mut all = all.iter();
    records.iter().all(|record| all.any(|other| other == record))
}

fn open(storage: &MemoryStorage) -> Result<Opened<MemoryStorage>, StoreError> {
    Store::open_with(storage.clone(), Options::foreground(SEGMENT_LEN as u64))
}

/// What was opened once opens again with the same records, and takes another.
fn check_again(storage: &MemoryStorage, mut records: Vec<Durable>) {
    let mut opened = open(storage).unwrap_or_else(|error| panic!("a store that had opened: {error}"));
    assert_eq!(opened.records, records);
    let another = Durable::Started { starts: 77 };
    // Generations and sequences end somewhere.
    if opened.log.commit(std::slice::from_ref(&another)).is_err() {
        return;
    }
    records.push(another);
    drop(opened);
    let opened = open(&storage.kill()).unwrap_or_else(|error| panic!("a store that had taken a record: {error}"));
    assert_eq!(opened.records, records);
}

struct Commit {
    sequence: u64,
    records: Vec<(u8, Vec<u8>, Option<Vec<u8>>)>,
}

/// A store under construction.
struct Made {
    seed: u32,
    segments: Vec<Vec<u8>>,
    /// Records of each segment, as far as they are records.
    expected: Vec<Vec<Durable>>,
    open: Commit,
    /// Lines of the checkpoint: kind and payload.
    lines: Vec<(u8, Vec<u8>)>,
    /// Segment at which the log goes on behind the checkpoint.
    covered: usize,
    /// Each commit has the number after the one before it.
    is_numbered: bool,
    damage: Vec<(u8, u16, u8)>,
}

impl Made {
    fn new(binding: &[u8]) -> Made {
        Made {
            seed: crc32c::crc32c(binding),
            segments: vec![vec![0; SECTOR_LEN]],
            expected: vec![Vec::new()],
            open: Commit { sequence: 1, records: Vec::new() },
            lines: Vec::new(),
            covered: 0,
            is_numbered: true,
            damage: Vec::new(),
        }
    }

    fn take_steps(&mut self, mut input: &[u8]) {
        while let [step, argument, rest @ ..] = input {
            let (bytes, after) = rest.split_at(usize::from(argument & 63).min(rest.len()));
            input = after;
            match step % 8 {
                0 => {
                    self.end_commit();
                    input = rest;
                }
                1 => match bytes {
                    [kind, payload @ ..] => self.open.records.push((*kind, payload.to_vec(), None)),
                    [] => self.open.records.push((10, Vec::new(), None)),
                },
                2 => self.open.records.push(held(*argument, Some(bytes))),
                3 => self.open.records.push((64, Vec::new(), Some(bytes.to_vec()))),
                4 => {
                    self.end_commit();
                    if self.segments.len() < SEGMENTS_MAX {
                        self.segments.push(vec![0; SECTOR_LEN]);
                        self.expected.push(Vec::new());
                    }
                    input = rest;
                }
                5 => {
                    self.open.sequence = self.open.sequence.wrapping_add_signed(i64::from(*argument as i8));
                    self.is_numbered &= *argument == 0;
                    self.covered = usize::from(argument >> 6).min(self.segments.len() - 1);
                    input = rest;
                }
                6 => match bytes {
                    [kind, payload @ ..] => self.lines.push((*kind, payload.to_vec())),
                    [] => {
                        let (kind, payload, _) = held(*argument, None);
                        self.lines.push((kind, payload));
                    }
                },
                _ => {
                    if let [low, high, mask] = bytes {
                        self.damage.push((*argument, u16::from_le_bytes([*low, *high]), *mask));
                    }
                }
            }
        }
        self.end_commit();
    }

    fn sealed(&self, bytes: &[u8]) -> [u8; 4] {
        crc32c::crc32c_append(self.seed, bytes).to_le_bytes()
    }

    /// Appends the open commit to the last segment, if it has room.
    fn end_commit(&mut self) {
        let next = self.open.sequence.wrapping_add(1);
        let commit = std::mem::replace(&mut self.open, Commit { sequence: next, records: Vec::new() });
        let generation = self.segments.len() as u64;
        let start = self.segments.last().expect("there is one").len();
        let (mut bytes, mut sums) = (vec![0; 40], Vec::new());
        for (kind, payload, content) in &commit.records {
            let record = self.record(*kind, payload, content.as_deref(), generation, (start + bytes.len()) as u32);
            sums.extend(&record[..4]);
            bytes.extend(record);
        }
        if commit.records.is_empty() || start + bytes.len() > SEGMENT_LEN {
            self.open.sequence = commit.sequence;
            return;
        }
        bytes[..4].copy_from_slice(b"ACMC");
        bytes[8..16].copy_from_slice(&generation.to_le_bytes());
        bytes[16..24].copy_from_slice(&commit.sequence.to_le_bytes());
        bytes[24..28].copy_from_slice(&(start as u32).to_le_bytes());
        let len = bytes.len() as u32;
        bytes[28..32].copy_from_slice(&len.to_le_bytes());
        bytes[32..36].copy_from_slice(&(commit.records.len() as u32).to_le_bytes());
        bytes[36..40].copy_from_slice(&self.sealed(&sums));
        let sum = self.sealed(&bytes[8..40]);
        bytes[4..8].copy_from_slice(&sum);
        bytes.resize(bytes.len().next_multiple_of(SECTOR_LEN), 0);
        self.segments.last_mut().expect("there is one").extend(bytes);
        let decoded = commit.records.iter().filter_map(|(kind, payload, _)| Durable::decode(*kind, payload).ok());
        self.expected.last_mut().expect("there is one").extend(decoded);
    }

    fn record(&self, kind: u8, payload: &[u8], content: Option<&[u8]>, generation: u64, offset: u32) -> Vec<u8> {
        let mut record = vec![0; 4];
        let len = 28 + payload.len() + content.map_or(0, |content| 36 + content.len());
        record.extend((len as u32).to_le_bytes());
        record.extend([kind, 0, u8::from(content.is_some()), 0]);
        record.extend((payload.len() as u32).to_le_bytes());
        record.extend(generation.to_le_bytes());
        record.extend(offset.to_le_bytes());
        if let Some(content) = content {
            record.extend(Hash::of(content).0);
            record.extend((content.len() as u32).to_le_bytes());
        }
        record.extend(payload);
        let sum = self.sealed(&record[4..]);
        record[..4].copy_from_slice(&sum);
        record.extend(content.unwrap_or_default());
        record
    }

    /// The checkpoint, in one block.
    fn checkpoint(&self) -> Vec<u8> {
        let mut block = vec![0; 24];
        for (kind, payload) in &self.lines {
            block.push(*kind);
            block.extend((payload.len() as u32).to_le_bytes());
            block.extend(payload);
        }
        let len = block.len() as u32;
        block[4..8].copy_from_slice(&len.to_le_bytes());
        block[8..16].copy_from_slice(&1u64.to_le_bytes());
        block[16..24].copy_from_slice(&(SECTOR_LEN as u64).to_le_bytes());
        let sum = self.sealed(&block[4..]);
        block[..4].copy_from_slice(&sum);
        let mut head = vec![0; SECTOR_LEN];
        head[..8].copy_from_slice(b"ACMSCKP1");
        let file_len = (SECTOR_LEN + block.len()) as u64;
        let first = self.first_sequence();
        let numbers = [1, self.covered as u64 + 1, SECTOR_LEN as u64, first, file_len, self.lines.len() as u64];
        for (at, number) in numbers.into_iter().enumerate() {
            head[16 + 8 * at..24 + 8 * at].copy_from_slice(&number.to_le_bytes());
        }
        let sum = self.sealed(&head[12..]);
        head[8..12].copy_from_slice(&sum);
        [head, block].concat()
    }

    /// Sequence of the first commit that the checkpoint does not cover.
    fn first_sequence(&self) -> u64 {
        let segment = &self.segments[self.covered];
        let sequence = segment.get(SECTOR_LEN + 16..SECTOR_LEN + 24);
        sequence.map_or(1, |bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
    }

    /// Puts all of it on the disk, and damages it. Returns the records that may come back.
    fn write(mut self, storage: &MemoryStorage) -> Vec<Durable> {
        let has_checkpoint = !self.lines.is_empty();
        let mut written: Vec<Durable> = Vec::new();
        if has_checkpoint {
            put(storage, "checkpoint", &self.checkpoint());
            written.extend(self.lines.iter().filter_map(|(kind, payload)| Durable::decode(*kind, payload).ok()));
        }
        let first = if has_checkpoint { self.covered } else { 0 };
        self.expected.drain(..first);
        written.extend(self.expected.iter().flatten().cloned());
        let mut names = BTreeSet::from(["checkpoint".to_owned()]);
        for number in 0..self.segments.len() {
            let mut bytes = std::mem::take(&mut self.segments[number]);
            bytes.resize(SEGMENT_LEN, 0);
            bytes[..8].copy_from_slice(b"ACMSSEG1");
            bytes[16..24].copy_from_slice(&(number as u64 + 1).to_le_bytes());
            bytes[24..32].copy_from_slice(&(SEGMENT_LEN as u64).to_le_bytes());
            let sum = self.sealed(&bytes[12..SECTOR_LEN]);
            bytes[8..12].copy_from_slice(&sum);
            let name = format!("segment-{:016x}", number + 1);
            put(storage, &name, &bytes);
            names.insert(name);
        }
        for (file, at, mask) in &self.damage {
            let name = names.iter().nth(usize::from(*file) % names.len()).expect("there is one");
            storage.rot(name, usize::from(*at) % SEGMENT_LEN, *mask);
        }
        written
    }
}

/// A record of a held publication whose content comes along, or lies elsewhere.
fn held(number: u8, content: Option<&[u8]>) -> (u8, Vec<u8>, Option<Vec<u8>>) {
    let bytes = content.unwrap_or(b"elsewhere");
    let entry = Entry {
        path: format!("p/{}", number & 7).parse().expect("a path"),
        hash: Hash::of(bytes),
        size: bytes.len() as u64,
        content_type: String::new(),
        flags: Flags::default(),
    };
    let uid = Uid { micros: u64::from(number), sp: SpId(1), store: 0 };
    let manifest = Manifest { uid, publisher: "p".into(), key: None, entries: vec![entry], unknown: Vec::new() };
    let record = Durable::Held { manifest: Arc::new(manifest), contents: Vec::new(), own_bit: number & 64 != 0 };
    let (kind, payload, _) = record.encode();
    (kind, payload, content.map(<[u8]>::to_vec))
}

fn put(storage: &MemoryStorage, name: &str, bytes: &[u8]) {
    storage.remove(name).ok();
    let written = storage.create(name, bytes.len() as u64).and_then(|file| {
        file.write_at(0, bytes)?;
        file.sync_data()?;
        storage.sync_dir()
    });
    written.expect("the disk does not fail");
}
