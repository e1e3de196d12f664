//! The checkpoint: what the log said up to a place, written down so that the log before it is needed no more.
//! `docs/LOG.md` has the format byte for byte.
//!
//! Invariant: the file `checkpoint` is whole. A new one is written beside it, block by block, flushed, and takes its name
//! by a rename; what is wrong in it later is rot, and then the store is refused.

use super::{
    Storage, StorageFile, StoreError,
    format::{Position, SECTOR_LEN, Seal, u32_at, u64_at},
    ledger::{After, Ledger, Place},
};
use crate::protocol::{
    Durable, Hash, Instant,
    encoding::{DecodeError, Reader, Writer as Encoder},
};
use std::io;

pub(super) const CHECKPOINT: &str = "checkpoint";
const PREPARING: &str = "preparing-checkpoint";
const MAGIC: &[u8; 8] = b"ACMSCKP1";
const BLOCK_HEAD_LEN: usize = 24;
/// A block is written once it has this many bytes.
const BLOCK_LEN: usize = 256 << 10;
/// No block is longer: one manifest more than [`BLOCK_LEN`].
const BLOCK_LEN_MAX: u32 = 2 << 20;
const LINE_HEAD_LEN: usize = 5;
/// Kind of the line that says where a content lies.
const PLACE: u8 = 64;

/// First sector of a checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Head {
    /// 1 for the first checkpoint of a store, then one more each.
    pub(super) number: u64,
    /// What it covers.
    pub(super) position: Position,
    /// Bytes of the file.
    pub(super) len: u64,
    /// Lines in it.
    lines: u64,
}

impl Head {
    fn encode(&self, seal: Seal) -> [u8; SECTOR_LEN as usize] {
        let Position { sequence, generation, offset } = self.position;
        let mut head = [0; SECTOR_LEN as usize];
        head[..8].copy_from_slice(MAGIC);
        for (at, number) in [self.number, generation, offset, sequence, self.len, self.lines].into_iter().enumerate() {
            head[16 + 8 * at..24 + 8 * at].copy_from_slice(&number.to_le_bytes());
        }
        let crc = seal.checksum(&head[12..]);
        head[8..12].copy_from_slice(&crc.to_le_bytes());
        head
    }

    fn decode(bytes: &[u8], seal: Seal) -> Option<Head> {
        let position =
            Position { generation: u64_at(bytes, 24), offset: u64_at(bytes, 32), sequence: u64_at(bytes, 40) };
        let head = Head { number: u64_at(bytes, 16), position, len: u64_at(bytes, 48), lines: u64_at(bytes, 56) };
        (head.encode(seal) == bytes && position.sequence < u64::MAX).then_some(head)
    }
}

fn seal(binding: [u8; 8]) -> Seal {
    Seal::new(binding, 0)
}

// ---- Writing --------------------------------------------------------------------------------------------------------

enum Next {
    Records(After),
    Last,
    Places(Option<Hash>),
    Done,
}

/// A checkpoint that is being written; the ledger must not change meanwhile.
pub(super) struct Writer<F> {
    /// Contents that nothing named at that time or later are left out.
    pub(super) dead_at: Instant,
    file: F,
    seal: Seal,
    head: Head,
    next: Next,
    block: Vec<u8>,
}

impl<F: StorageFile> Writer<F> {
    /// Begins checkpoint `number` of what a ledger says at `position`.
    pub(super) fn begin<S: Storage<File = F>>(
        storage: &S,
        binding: [u8; 8],
        number: u64,
        position: Position,
        (ledger, dead_at): (&Ledger, Instant),
    ) -> io::Result<Writer<F>> {
        match storage.remove(PREPARING) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = storage.create(PREPARING, 0)?;
        let head = Head { number, position, len: SECTOR_LEN, lines: 0 };
        let next = Next::Records(After::Start);
        let mut writer = Writer { dead_at, file, seal: seal(binding), head, next, block: vec![0; BLOCK_HEAD_LEN] };
        ledger.first_records().iter().for_each(|record| writer.record(record));
        Ok(writer)
    }

    /// Writes and flushes the next block. Says how many bytes, and whether that was the last.
    pub(super) fn write_block(&mut self, ledger: &Ledger) -> io::Result<(u64, bool)> {
        let mut records = Vec::new();
        while self.block.len() < BLOCK_LEN {
            match self.next {
                Next::Records(after) => {
                    self.next = ledger
                        .next_records(after, &mut records)
                        .map_or(Next::Last, |uid| Next::Records(After::Publication(uid)));
                }
                Next::Last => {
                    records = ledger.last_records();
                    self.next = Next::Places(None);
                }
                Next::Places(after) => {
                    let mut last = after;
                    for (hash, place) in ledger.places_after(after, self.dead_at) {
                        self.place(hash, place);
                        last = Some(hash);
                        if self.block.len() >= BLOCK_LEN {
                            break;
                        }
                    }
                    self.next = if self.block.len() < BLOCK_LEN { Next::Done } else { Next::Places(last) };
                }
                Next::Done => break,
            }
            records.drain(..).for_each(|record| self.record(&record));
        }
        let is_last = matches!(self.next, Next::Done);
        let written = self.flush_block()?;
        if is_last {
            self.file.write_at(0, &self.head.encode(self.seal))?;
        }
        self.file.sync_data()?;
        Ok((written, is_last))
    }

    fn record(&mut self, record: &Durable) {
        let (kind, payload, _) = record.encode();
        self.line(kind, &payload);
    }

    fn place(&mut self, hash: Hash, place: Place) {
        let mut line = Encoder::new();
        line.hash(hash);
        line.varint(place.generation);
        line.varint(place.offset.into());
        line.varint(place.len.into());
        self.line(PLACE, &line.0);
    }

    fn line(&mut self, kind: u8, payload: &[u8]) {
        self.block.push(kind);
        self.block.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        self.block.extend_from_slice(payload);
        self.head.lines += 1;
    }

    fn flush_block(&mut self) -> io::Result<u64> {
        let len = self.block.len() as u32;
        self.block[4..8].copy_from_slice(&len.to_le_bytes());
        self.block[8..16].copy_from_slice(&self.head.number.to_le_bytes());
        self.block[16..24].copy_from_slice(&self.head.len.to_le_bytes());
        let crc = self.seal.checksum(&self.block[4..]);
        self.block[..4].copy_from_slice(&crc.to_le_bytes());
        self.file.write_at(self.head.len, &self.block)?;
        self.head.len += u64::from(len);
        self.block.truncate(BLOCK_HEAD_LEN);
        Ok(len.into())
    }

    /// Gives it its name: what it covers is durable without the log from then on.
    pub(super) fn finish<S: Storage<File = F>>(self, storage: &S) -> io::Result<Head> {
        storage.rename(PREPARING, CHECKPOINT)?;
        storage.sync_dir()?;
        Ok(self.head)
    }
}

/// Removes what [`Writer`] left unfinished.
pub(super) fn abandon<S: Storage>(storage: &S) {
    // What can't be removed now is removed when the next one is begun, or the store opened.
    storage.remove(PREPARING).ok();
}

// ---- Reading --------------------------------------------------------------------------------------------------------

/// What a checkpoint says.
pub(super) struct Checkpoint {
    pub(super) head: Head,
    pub(super) ledger: Ledger,
    /// The records that say it.
    pub(super) records: Vec<Durable>,
}

fn corrupt(offset: u64, what: &'static str) -> StoreError {
    StoreError::Corrupt { file: CHECKPOINT.into(), offset, what }
}

/// Reads the store's checkpoint, if it has one.
pub(super) fn read<S: Storage>(storage: &S, binding: [u8; 8]) -> Result<Option<Checkpoint>, StoreError> {
    let failed = || StoreError::io("reading the checkpoint");
    let file = match storage.open(CHECKPOINT) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed())?,
    };
    let len = file.len().map_err(failed())?;
    if len < SECTOR_LEN {
        return Err(corrupt(0, "it is too short"));
    }
    let mut bytes = vec![0; SECTOR_LEN as usize];
    file.read_at(0, &mut bytes).map_err(failed())?;
    let seal = seal(binding);
    let head = Head::decode(&bytes, seal).ok_or_else(|| corrupt(0, "not the head of a checkpoint of this store"))?;
    if head.len != len {
        return Err(corrupt(len.min(head.len), "it has another length than its head says"));
    }
    let mut checkpoint = Checkpoint { head, ledger: Ledger::default(), records: Vec::new() };
    let (mut offset, mut lines) = (SECTOR_LEN, 0);
    while offset < len {
        let block = read_block(&file, &head, seal, offset).map_err(failed())?;
        let block = block.ok_or_else(|| corrupt(offset, "a block has not its checksum"))?;
        lines += checkpoint.take(&block[BLOCK_HEAD_LEN..]).map_err(|error| StoreError::Unknown {
            file: CHECKPOINT.into(),
            offset,
            what: format!("a line, {error}"),
        })?;
        offset += block.len() as u64;
    }
    if lines != head.lines {
        return Err(corrupt(len, "it has another number of lines than its head says"));
    }
    Ok(Some(checkpoint))
}

fn read_block<F: StorageFile>(file: &F, head: &Head, seal: Seal, offset: u64) -> io::Result<Option<Vec<u8>>> {
    let room = head.len - offset;
    if room < BLOCK_HEAD_LEN as u64 {
        return Ok(None);
    }
    let mut start = [0; BLOCK_HEAD_LEN];
    file.read_at(offset, &mut start)?;
    let len = u32_at(&start, 4);
    let is_here = u64_at(&start, 8) == head.number && u64_at(&start, 16) == offset;
    if !is_here || len < BLOCK_HEAD_LEN as u32 || len > BLOCK_LEN_MAX || u64::from(len) > room {
        return Ok(None);
    }
    let mut block = vec![0; len as usize];
    file.read_at(offset, &mut block)?;
    let is_good = seal.checksum(&block[4..]) == u32_at(&block, 0);
    Ok(is_good.then_some(block))
}

impl Checkpoint {
    /// Takes the lines of a block; says how many.
    fn take(&mut self, mut lines: &[u8]) -> Result<u64, DecodeError> {
        let mut count = 0;
        while !lines.is_empty() {
            let (head, rest) = lines.split_at_checked(LINE_HEAD_LEN).ok_or(DecodeError::Truncated)?;
            let (line, rest) = rest.split_at_checked(u32_at(head, 1) as usize).ok_or(DecodeError::Truncated)?;
            if head[0] == PLACE {
                let mut input = Reader::new(line);
                let hash = input.hash()?;
                let generation = input.varint()?;
                let mut short = || u32::try_from(input.varint()?).map_err(|_| DecodeError::TooLarge);
                let place = Place { generation, offset: short()?, len: short()? };
                input.finish()?;
                self.ledger.place(hash, place);
            } else {
                let record = Durable::decode(head[0], line)?;
                self.ledger.apply(&record);
                self.records.push(record);
            }
            lines = rest;
            count += 1;
        }
        Ok(count)
    }
}
