//! Nodes of the index: immutable pages, named by the BLAKE3 hash of their one encoding.
//!
//! Format 1: one page for each directory. A page is a pure function of the set of entries below it, never of the order
//! in which they came.

use crate::protocol::{
    Flags, Hash, Path, Uid,
    encoding::{DecodeError, Reader, Writer},
};
use bytes::Bytes;

/// The latest agreed publication of a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IndexEntry {
    /// Its UID.
    pub uid: Uid,
    /// BLAKE3 of the content.
    pub hash: Hash,
    /// Bytes of content.
    pub size: u64,
    /// Media type; may be empty.
    pub content_type: String,
    /// Properties; a tombstone has `deleted`.
    pub flags: Flags,
}

/// One name in a directory: a file, a directory, or both (one of them then hides the other).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item {
    /// The path's segment.
    pub segment: String,
    /// The file of this name.
    pub file: Option<IndexEntry>,
    /// The page of the directory of this name.
    pub directory: Option<Hash>,
}

/// A page: the names of one directory, ascending by bytes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Node {
    /// Names, each at most once.
    pub items: Vec<Item>,
}

const FORMAT: u8 = 1;
const HAS_FILE: u8 = 1;
const HAS_DIRECTORY: u8 = 2;

impl Node {
    /// Most bytes of an encoded page.
    pub const LEN_MAX: usize = 64 << 20;

    /// The one encoding.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer(Vec::with_capacity(16 + self.items.len() * 80));
        out.u8(FORMAT);
        out.varint(self.items.len() as u64);
        for item in &self.items {
            out.str(&item.segment);
            let kinds = [(item.file.is_some(), HAS_FILE), (item.directory.is_some(), HAS_DIRECTORY)];
            out.u8(kinds.iter().filter(|(has, _)| *has).map(|(_, bit)| bit).sum());
            if let Some(file) = &item.file {
                out.uid(file.uid);
                out.hash(file.hash);
                out.varint(file.size);
                out.str(&file.content_type);
                out.varint(file.flags.bits());
            }
            if let Some(hash) = item.directory {
                out.hash(hash);
            }
        }
        out.0.into()
    }

    /// Decodes all of `bytes`; names must ascend, or two encodings would have one meaning.
    pub fn decode(bytes: &[u8]) -> Result<Node, DecodeError> {
        let mut input = Reader::new(bytes);
        if input.u8()? != FORMAT {
            return Err(DecodeError::Invalid("index node format"));
        }
        let count = input.count(4)?;
        let mut items: Vec<Item> = Vec::with_capacity(count);
        for _ in 0..count {
            let segment = input.str(Path::SEGMENT_LEN_MAX)?.to_owned();
            if segment.parse::<Path>().is_err() || segment.contains('/') {
                return Err(DecodeError::Invalid("path segment"));
            }
            if items.last().is_some_and(|last| last.segment >= segment) {
                return Err(DecodeError::NotCanonical);
            }
            let kinds = input.u8()?;
            if !(1..=3).contains(&kinds) {
                return Err(DecodeError::Invalid("index node item"));
            }
            let file = if kinds & HAS_FILE != 0 { Some(decode_entry(&mut input)?) } else { None };
            let directory = if kinds & HAS_DIRECTORY != 0 { Some(input.hash()?) } else { None };
            items.push(Item { segment, file, directory });
        }
        input.finish()?;
        Ok(Node { items })
    }
}

fn decode_entry(input: &mut Reader<'_>) -> Result<IndexEntry, DecodeError> {
    Ok(IndexEntry {
        uid: input.uid()?,
        hash: input.hash()?,
        size: input.varint()?,
        content_type: input.str(crate::protocol::Entry::CONTENT_TYPE_LEN_MAX)?.to_owned(),
        flags: Flags::from_bits(input.varint()?)?,
    })
}
