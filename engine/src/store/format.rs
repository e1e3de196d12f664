//! The log's bytes: segment heads, commits and records. `docs/LOG.md` says the same byte for byte.
//!
//! Decoding believes nothing: lengths are bounded before they are used, and every checksum covers where the bytes are
//! meant to be (generation and offset) and whose they are (the store's binding), so that what an earlier use of the
//! file left behind, or what a publisher put into a content, is never taken for a record.

use crate::protocol::{Durable, Hash, durable::InlineContent, encoding::DecodeError};

/// Commits start at multiples of this, the unit that disks write whole: a torn commit never damages the one before it.
pub(super) const SECTOR_LEN: u64 = 512;
/// Bytes of a commit's head.
pub(super) const COMMIT_HEAD_LEN: usize = 40;
/// Bytes of a record's head.
pub(super) const RECORD_HEAD_LEN: usize = 28;
/// Bytes of one line in a record's table of contents.
pub(super) const CONTENT_LINE_LEN: usize = 36;
/// Most bytes of a segment, so that offsets fit 32 bits with room to add.
pub(super) const SEGMENT_LEN_MAX: u64 = 1 << 30;

/// Kind of a record that carries contents moved from an older segment, and nothing else: the store's own.
const COPIES: u8 = 64;

const SEGMENT_MAGIC: &[u8; 8] = b"ACMSSEG1";
const COMMIT_MAGIC: &[u8; 4] = b"ACMC";

/// Rounded up to whole sectors.
pub(super) fn padded(len: u64) -> u64 {
    len.next_multiple_of(SECTOR_LEN)
}

/// What enters every checksum in one segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seal {
    /// Checksum of the store's binding, continued by each checksum.
    seed: u32,
    /// Number of the segment, never given twice.
    pub(super) generation: u64,
}

impl Seal {
    pub(super) fn new(binding: [u8; 8], generation: u64) -> Seal {
        Seal { seed: crc32c::crc32c(&binding), generation }
    }

    /// The crc32c of the binding followed by `bytes`.
    pub(super) fn checksum(self, bytes: &[u8]) -> u32 {
        crc32c::crc32c_append(self.seed, bytes)
    }
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// The first sector of a segment of `len` bytes.
pub(super) fn encode_segment_head(seal: Seal, len: u64) -> [u8; SECTOR_LEN as usize] {
    let mut head = [0; SECTOR_LEN as usize];
    head[..8].copy_from_slice(SEGMENT_MAGIC);
    head[16..24].copy_from_slice(&seal.generation.to_le_bytes());
    head[24..32].copy_from_slice(&len.to_le_bytes());
    let crc = seal.checksum(&head[12..]);
    head[8..12].copy_from_slice(&crc.to_le_bytes());
    head
}

/// Whether `head` is the first sector of this segment of `len` bytes.
pub(super) fn segment_head_ok(head: &[u8], seal: Seal, len: u64) -> bool {
    head == encode_segment_head(seal, len)
}

/// Head of a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct CommitHead {
    /// Number of the commit: one more than the one before it, across segments.
    pub(super) sequence: u64,
    /// Where it starts in its segment.
    pub(super) offset: u32,
    /// Bytes, head and records, without the padding.
    pub(super) len: u32,
    /// How many records.
    pub(super) records: u32,
    /// Checksum of the records' checksums.
    pub(super) body: u32,
}

impl CommitHead {
    pub(super) fn encode(&self, seal: Seal) -> [u8; COMMIT_HEAD_LEN] {
        let mut head = [0; COMMIT_HEAD_LEN];
        head[..4].copy_from_slice(COMMIT_MAGIC);
        head[8..16].copy_from_slice(&seal.generation.to_le_bytes());
        head[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        head[24..28].copy_from_slice(&self.offset.to_le_bytes());
        head[28..32].copy_from_slice(&self.len.to_le_bytes());
        head[32..36].copy_from_slice(&self.records.to_le_bytes());
        head[36..40].copy_from_slice(&self.body.to_le_bytes());
        let crc = seal.checksum(&head[8..]);
        head[4..8].copy_from_slice(&crc.to_le_bytes());
        head
    }

    /// The head of a commit of this segment at `offset`, if `bytes` start with one.
    pub(super) fn decode(bytes: &[u8], seal: Seal, offset: u64, segment_len: u64) -> Option<CommitHead> {
        let bytes = bytes.get(..COMMIT_HEAD_LEN)?;
        if &bytes[..4] != COMMIT_MAGIC || u32_at(bytes, 4) != seal.checksum(&bytes[8..]) {
            return None;
        }
        let head = CommitHead {
            sequence: u64_at(bytes, 16),
            offset: u32_at(bytes, 24),
            len: u32_at(bytes, 28),
            records: u32_at(bytes, 32),
            body: u32_at(bytes, 36),
        };
        let fits = u64::from(head.len) >= COMMIT_HEAD_LEN as u64 && offset + u64::from(head.len) <= segment_len;
        let here = u64_at(bytes, 8) == seal.generation && u64::from(head.offset) == offset;
        // The one behind it would have no number; no log gets there.
        let is_counted = head.sequence < u64::MAX;
        (fits && here && is_counted).then_some(head)
    }
}

/// A record ready to be laid out.
pub(super) struct Encoded<'a> {
    kind: u8,
    payload: Vec<u8>,
    contents: &'a [InlineContent],
}

impl<'a> Encoded<'a> {
    pub(super) fn new(record: &'a Durable) -> Encoded<'a> {
        let (kind, payload, contents) = record.encode();
        Encoded { kind, payload, contents }
    }

    /// Contents that lie in the log already, once more.
    pub(super) fn copies(contents: &'a [InlineContent]) -> Encoded<'a> {
        Encoded { kind: COPIES, payload: Vec::new(), contents }
    }

    /// Bytes in the log.
    pub(super) fn len(&self) -> u64 {
        let contents: u64 = self.contents.iter().map(|content| content.bytes.len() as u64).sum();
        (RECORD_HEAD_LEN + self.contents.len() * CONTENT_LINE_LEN + self.payload.len()) as u64 + contents
    }

    /// Contents that come along.
    pub(super) fn contents(&self) -> &'a [InlineContent] {
        self.contents
    }
}

/// A place in the log: all commits before it, and no later one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Position {
    /// Number of the next commit.
    pub(super) sequence: u64,
    /// Segment of the last commit.
    pub(super) generation: u64,
    /// Where it ended, padding included.
    pub(super) offset: u64,
}

/// A content inside a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Placed {
    pub(super) hash: Hash,
    /// From the start of the segment.
    pub(super) offset: u32,
    pub(super) len: u32,
}

/// Lays out one commit at `offset` into `out`, padded to whole sectors; says where its contents lie.
///
/// The caller has checked that the end lies within a segment, so that offsets and lengths fit 32 bits.
pub(super) fn encode_commit(
    out: &mut Vec<u8>,
    seal: Seal,
    sequence: u64,
    offset: u64,
    records: &[Encoded<'_>],
) -> Vec<Placed> {
    out.clear();
    out.resize(COMMIT_HEAD_LEN, 0);
    let mut placed = Vec::new();
    let mut body = seal.seed;
    for record in records {
        let crc = encode_record(out, seal, offset, record, &mut placed);
        body = crc32c::crc32c_append(body, &crc.to_le_bytes());
    }
    let head =
        CommitHead { sequence, offset: offset as u32, len: out.len() as u32, records: records.len() as u32, body };
    out[..COMMIT_HEAD_LEN].copy_from_slice(&head.encode(seal));
    out.resize(padded(out.len() as u64) as usize, 0);
    placed
}

fn encode_record(out: &mut Vec<u8>, seal: Seal, base: u64, record: &Encoded<'_>, placed: &mut Vec<Placed>) -> u32 {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(record.len() as u32).to_le_bytes());
    out.extend_from_slice(&[record.kind, 0]);
    out.extend_from_slice(&(record.contents.len() as u16).to_le_bytes());
    out.extend_from_slice(&(record.payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&seal.generation.to_le_bytes());
    out.extend_from_slice(&((base + start as u64) as u32).to_le_bytes());
    for content in record.contents {
        out.extend_from_slice(&content.hash.0);
        out.extend_from_slice(&(content.bytes.len() as u32).to_le_bytes());
    }
    out.extend_from_slice(&record.payload);
    let crc = seal.checksum(&out[start + 4..]);
    out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
    for content in record.contents {
        let offset = (base + out.len() as u64) as u32;
        placed.push(Placed { hash: content.hash, offset, len: content.bytes.len() as u32 });
        out.extend_from_slice(&content.bytes);
    }
    crc
}

/// Head of a record whose lengths fit its commit; its checksum is not yet compared.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordHead {
    /// Its checksum.
    pub(super) crc: u32,
    /// Bytes of the whole record.
    pub(super) len: u64,
    kind: u8,
    contents: usize,
    payload_len: u64,
}

impl RecordHead {
    /// From the first bytes of a record at `offset`, of which at most `room` bytes belong to its commit.
    pub(super) fn decode(bytes: &[u8], seal: Seal, offset: u64, room: u64) -> Option<RecordHead> {
        let bytes = bytes.get(..RECORD_HEAD_LEN)?;
        let head = RecordHead {
            crc: u32_at(bytes, 0),
            len: u32_at(bytes, 4).into(),
            kind: bytes[8],
            contents: u16::from_le_bytes([bytes[10], bytes[11]]).into(),
            payload_len: u32_at(bytes, 12).into(),
        };
        let here = u64_at(bytes, 16) == seal.generation && u64::from(u32_at(bytes, 24)) == offset;
        (here && bytes[9] == 0 && head.checked_len() <= head.len && head.len <= room).then_some(head)
    }

    /// Bytes from the record's start that the checksum covers (itself aside): all but the contents.
    pub(super) fn checked_len(&self) -> u64 {
        (RECORD_HEAD_LEN + self.contents * CONTENT_LINE_LEN) as u64 + self.payload_len
    }

    /// Whether `checked`, the record's first [`checked_len`](RecordHead::checked_len) bytes, has its checksum and its
    /// contents fill the rest of the record; their places are added to `placed`.
    pub(super) fn check(&self, checked: &[u8], seal: Seal, offset: u64, placed: &mut Vec<Placed>) -> bool {
        if seal.checksum(&checked[4..]) != self.crc {
            return false;
        }
        let mut at = offset + self.checked_len();
        for line in checked[RECORD_HEAD_LEN..].chunks_exact(CONTENT_LINE_LEN).take(self.contents) {
            let len = u32_at(line, 32);
            placed.push(Placed { hash: Hash(line[..32].try_into().expect("32 bytes")), offset: at as u32, len });
            at += u64::from(len);
        }
        at == offset + self.len
    }

    /// The record itself, from the bytes that were checked; `None` if it only carries contents.
    pub(super) fn record(&self, checked: &[u8]) -> Result<Option<Durable>, DecodeError> {
        match (self.kind, &checked[RECORD_HEAD_LEN + self.contents * CONTENT_LINE_LEN..]) {
            (COPIES, []) => Ok(None),
            (kind, payload) => Durable::decode(kind, payload).map(Some),
        }
    }
}

/// Continues the checksum of a commit's records.
#[derive(Clone, Copy, Debug)]
pub(super) struct BodyChecksum(u32);

impl BodyChecksum {
    pub(super) fn new(seal: Seal) -> BodyChecksum {
        BodyChecksum(seal.seed)
    }

    pub(super) fn add(&mut self, record: &RecordHead) {
        self.0 = crc32c::crc32c_append(self.0, &record.crc.to_le_bytes());
    }

    pub(super) fn matches(self, head: &CommitHead) -> bool {
        self.0 == head.body
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seal() -> Seal {
        Seal::new([7; 8], 3)
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_no_heads(bytes in proptest::collection::vec(any::<u8>(), 0..100), offset in 0u64..1 << 30) {
            prop_assert_eq!(CommitHead::decode(&bytes, seal(), offset, 1 << 30), None);
            if let Some(head) = RecordHead::decode(&bytes, seal(), offset, bytes.len() as u64) {
                let checked = &bytes[..head.checked_len() as usize];
                prop_assert!(!head.check(checked, seal(), offset, &mut Vec::new()));
            }
        }

        #[test]
        fn a_head_with_a_good_checksum_is_bounded_by_its_segment(
            sequence: u64, offset: u32, len: u32, records: u32, body: u32, segment_len in 0u64..1 << 30,
        ) {
            let head = CommitHead { sequence, offset, len, records, body };
            let bytes = head.encode(seal());
            if let Some(found) = CommitHead::decode(&bytes, seal(), offset.into(), segment_len) {
                prop_assert_eq!(found, head);
                prop_assert!(u64::from(offset) + u64::from(len) <= segment_len && len as usize >= COMMIT_HEAD_LEN);
            }
            prop_assert_eq!(CommitHead::decode(&bytes, Seal::new([7; 8], 4), offset.into(), 1 << 33), None);
            prop_assert_eq!(CommitHead::decode(&bytes, Seal::new([8; 8], 3), offset.into(), 1 << 33), None);
        }

        #[test]
        fn a_record_with_a_good_checksum_decodes_or_not_but_never_panics(
            kind: u8, contents in 0u16..4, payload in proptest::collection::vec(any::<u8>(), 0..200), extra in 0u32..300,
        ) {
            let checked_len = RECORD_HEAD_LEN + payload.len();
            let mut bytes = vec![0; 4];
            bytes.extend((checked_len as u32 + extra).to_le_bytes());
            bytes.extend([kind, 0]);
            bytes.extend(contents.to_le_bytes());
            let table_len = usize::from(contents) * CONTENT_LINE_LEN;
            bytes.extend((payload.len().saturating_sub(table_len) as u32).to_le_bytes());
            bytes.extend(3u64.to_le_bytes());
            bytes.extend(512u32.to_le_bytes());
            bytes.extend(&payload);
            let crc = seal().checksum(&bytes[4..]);
            bytes[..4].copy_from_slice(&crc.to_le_bytes());
            bytes.resize(checked_len + extra as usize, 0);
            if let Some(head) = RecordHead::decode(&bytes, seal(), 512, bytes.len() as u64) {
                let checked = &bytes[..head.checked_len() as usize];
                head.check(checked, seal(), 512, &mut Vec::new());
                head.record(checked).ok();
            }
        }
    }
}
