//! Nodes of the index: immutable, named by the BLAKE3 hash of their one encoding.
//!
//! Format 2. A directory's items, ascending by name, are cut into pages of about 4 KiB (`cut.rs`). A
//! directory of more than one page has a level above them, of nodes that list the pages, cut by the same rule, and so on
//! up to the one node that stands for the directory. All of it is a pure function of the set of entries.

use crate::protocol::{
    Flags, Hash, Path, Uid,
    cut::{self, ROOM},
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
    /// The node of the directory of this name.
    pub directory: Option<Hash>,
}

/// A part of a directory, as the level above lists it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// The greatest name in it.
    pub last: String,
    /// Its node.
    pub hash: Hash,
}

/// A node. Names ascend by bytes, each at most once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Node {
    /// Files and directories: all of a directory, or a part of it.
    Page(Vec<Item>),
    /// Parts of one directory.
    Branch {
        /// The level of the parts is one less; pages have level 0.
        level: u8,
        /// In order, at least one.
        parts: Vec<Part>,
    },
}

/// Number of this encoding, in its first byte and in the configuration's hash.
pub const FORMAT: u8 = 2;
const HAS_FILE: u8 = 1;
const HAS_DIRECTORY: u8 = 2;

impl Default for Node {
    /// The page of an index without entries.
    fn default() -> Node {
        Node::Page(Vec::new())
    }
}

impl Node {
    /// Most bytes of an encoded node. (The rule of cutting makes none of more than 10,850.)
    pub const LEN_MAX: usize = 16 << 10;
    /// Greatest level of a node: what is there is not cut. A level has about a hundredth of the nodes of the one below.
    pub const LEVEL_MAX: u8 = 15;

    /// 0 for a page.
    pub fn level(&self) -> u8 {
        match self {
            Node::Page(_) => 0,
            Node::Branch { level, .. } => *level,
        }
    }

    /// The one encoding.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer(Vec::with_capacity(4 << 10));
        match self {
            Node::Page(items) => {
                head(&mut out, 0, items.len());
                items.iter().for_each(|item| encode_item(&mut out, &item.segment, item.file.as_ref(), item.directory));
            }
            Node::Branch { level, parts } => {
                head(&mut out, *level, parts.len());
                parts.iter().for_each(|part| encode_part(&mut out, &part.last, part.hash));
            }
        }
        out.0.into()
    }

    /// Decodes all of `bytes`. Names must ascend, or two encodings would have one meaning, and the node must have been
    /// cut where it had to be.
    pub fn decode(bytes: &[u8]) -> Result<Node, DecodeError> {
        if bytes.len() > Node::LEN_MAX {
            return Err(DecodeError::TooLarge);
        }
        let mut input = Reader::new(bytes);
        let (level, count) = decode_head(&mut input)?;
        let node = if level == 0 {
            let mut items: Vec<Item> = Vec::with_capacity(count);
            for _ in 0..count {
                let item = decode_item(&mut input)?;
                ascend(items.last().map(|last| last.segment.as_str()), &item.segment)?;
                items.push(item);
            }
            check_room(items.iter().map(cut::item_weight))?;
            Node::Page(items)
        } else {
            let mut parts: Vec<Part> = Vec::with_capacity(count);
            for _ in 0..count {
                let part = Part { last: decode_segment(&mut input)?.to_owned(), hash: input.hash()? };
                ascend(parts.last().map(|last| last.last.as_str()), &part.last)?;
                parts.push(part);
            }
            if parts.is_empty() {
                return Err(DecodeError::Invalid("index node without parts"));
            }
            check_room(parts.iter().map(|part| cut::child_weight(&part.last)))?;
            Node::Branch { level, parts }
        };
        input.finish()?;
        Ok(node)
    }
}

fn ascend(last: Option<&str>, next: &str) -> Result<(), DecodeError> {
    if last.is_some_and(|last| last >= next) { Err(DecodeError::NotCanonical) } else { Ok(()) }
}

/// All but the last have room in a node.
fn check_room(weights: impl DoubleEndedIterator<Item = u32>) -> Result<(), DecodeError> {
    if weights.rev().skip(1).sum::<u32>() > ROOM { Err(DecodeError::NotCanonical) } else { Ok(()) }
}

pub(super) fn head(out: &mut Writer, level: u8, count: usize) {
    out.u8(FORMAT);
    out.u8(level);
    out.varint(count as u64);
}

/// Level and count.
pub(super) fn decode_head(input: &mut Reader<'_>) -> Result<(u8, usize), DecodeError> {
    if input.u8()? != FORMAT {
        return Err(DecodeError::Invalid("index node format"));
    }
    let level = input.u8()?;
    if level > Node::LEVEL_MAX {
        return Err(DecodeError::TooLarge);
    }
    Ok((level, input.count(34)?))
}

pub(super) fn encode_part(out: &mut Writer, last: &str, hash: Hash) {
    out.str(last);
    out.hash(hash);
}

pub(super) fn encode_item(out: &mut Writer, segment: &str, file: Option<&IndexEntry>, directory: Option<Hash>) {
    out.str(segment);
    let kinds = [(file.is_some(), HAS_FILE), (directory.is_some(), HAS_DIRECTORY)];
    out.u8(kinds.iter().filter(|(has, _)| *has).map(|(_, bit)| bit).sum());
    if let Some(file) = file {
        out.uid(file.uid);
        out.hash(file.hash);
        out.varint(file.size);
        out.str(&file.content_type);
        out.varint(file.flags.bits());
    }
    if let Some(hash) = directory {
        out.hash(hash);
    }
}

pub(super) fn decode_segment<'a>(input: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
    let segment = input.str(Path::SEGMENT_LEN_MAX)?;
    if Path::is_segment(segment) { Ok(segment) } else { Err(DecodeError::Invalid("path segment")) }
}

pub(super) fn decode_item(input: &mut Reader<'_>) -> Result<Item, DecodeError> {
    let segment = decode_segment(input)?.to_owned();
    let kinds = input.u8()?;
    if !(1..=3).contains(&kinds) {
        return Err(DecodeError::Invalid("index node item"));
    }
    let file = if kinds & HAS_FILE != 0 { Some(decode_entry(input)?) } else { None };
    let directory = if kinds & HAS_DIRECTORY != 0 { Some(input.hash()?) } else { None };
    Ok(Item { segment, file, directory })
}

/// What can be told of an encoded item without memory of its own.
#[derive(Debug)]
pub(super) struct Glance {
    pub(super) file: Option<(Uid, Flags)>,
    pub(super) content_type_len: usize,
    pub(super) directory: Option<Hash>,
}

pub(super) fn glance_at_item(input: &mut Reader<'_>) -> Result<Glance, DecodeError> {
    input.bytes(usize::MAX)?;
    let kinds = input.u8()?;
    let mut glance = Glance { file: None, content_type_len: 0, directory: None };
    if kinds & HAS_FILE != 0 {
        let uid = input.uid()?;
        input.raw(32)?;
        input.varint()?;
        glance.content_type_len = input.bytes(usize::MAX)?.len();
        glance.file = Some((uid, Flags::from_bits(input.varint()?)?));
    }
    if kinds & HAS_DIRECTORY != 0 {
        glance.directory = Some(input.hash()?);
    }
    Ok(glance)
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
