//! A node of the index as it is kept: its encoding, and where in it each item begins.

use crate::protocol::{
    Hash, Node,
    cut::{child_weight, weight_of},
    encoding::{Reader, Writer},
    node::{self, Glance, Item},
};
use bytes::Bytes;

/// An encoded node. Costs two bytes an item beside its encoding.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) hash: Hash,
    pub(super) bytes: Bytes,
    /// What its items weigh.
    pub(super) weight: u32,
    offsets: Box<[u16]>,
}

/// An item of a page, or of a node above pages, encoded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Encoded<'a> {
    pub(super) segment: &'a str,
    pub(super) bytes: &'a [u8],
    pub(super) weight: u32,
}

const OURS: &str = "nodes of this index are well formed";

impl Page {
    /// The node of `level` with these items, at least one.
    pub(super) fn new(level: u8, items: &[Encoded<'_>]) -> Page {
        let len: usize = items.iter().map(|item| item.bytes.len()).sum();
        let mut out = Writer(Vec::with_capacity(len + 4));
        node::head(&mut out, level, items.len());
        let mut offsets = Vec::with_capacity(items.len());
        for item in items {
            offsets.push(out.0.len() as u16);
            out.raw(item.bytes);
        }
        assert!(out.0.len() <= Node::LEN_MAX, "a node of {} bytes was not cut", out.0.len());
        out.0.shrink_to_fit();
        Page {
            hash: Hash::of(&out.0),
            bytes: out.0.into(),
            weight: items.iter().map(|item| item.weight).sum(),
            offsets: offsets.into(),
        }
    }

    /// The same node with other encodings of some of its items, ascending by place; they weigh the same.
    pub(super) fn with(&self, items: &[(usize, &[u8])]) -> Page {
        let added: usize = items.iter().map(|(_, bytes)| bytes.len()).sum();
        let mut out = Vec::with_capacity(self.bytes.len() + added);
        let mut offsets = Vec::with_capacity(self.len());
        let mut kept = 0;
        for &(at, bytes) in items {
            let start: usize = self.offsets[at].into();
            let moved = out.len() as isize - kept as isize;
            offsets.extend(self.offsets[offsets.len()..=at].iter().map(|old| (*old as isize + moved) as u16));
            out.extend_from_slice(&self.bytes[kept..start]);
            out.extend_from_slice(bytes);
            kept = start + self.encoded(at).len();
        }
        let moved = out.len() as isize - kept as isize;
        offsets.extend(self.offsets[offsets.len()..].iter().map(|old| (*old as isize + moved) as u16));
        out.extend_from_slice(&self.bytes[kept..]);
        out.shrink_to_fit();
        Page { hash: Hash::of(&out), bytes: out.into(), weight: self.weight, offsets: offsets.into() }
    }

    /// How many items.
    pub(super) fn len(&self) -> usize {
        self.offsets.len()
    }

    fn encoded(&self, at: usize) -> &[u8] {
        let end = self.offsets.get(at + 1).map_or(self.bytes.len(), |end| (*end).into());
        &self.bytes[self.offsets[at].into()..end]
    }

    fn segment(&self, at: usize) -> &str {
        Reader::new(self.encoded(at)).str(usize::MAX).expect(OURS)
    }

    /// The greatest name.
    pub(super) fn last(&self) -> &str {
        self.segment(self.len() - 1)
    }

    /// Where `segment` is, or would be.
    pub(super) fn place(&self, segment: &str) -> Result<usize, usize> {
        let name = |offset: &u16| Reader::new(&self.bytes[usize::from(*offset)..]).bytes(usize::MAX).expect(OURS);
        self.offsets.binary_search_by(|offset| name(offset).cmp(segment.as_bytes()))
    }

    /// The file or directory at `at`.
    pub(super) fn item(&self, at: usize) -> Item {
        node::decode_item(&mut Reader::new(self.encoded(at))).expect(OURS)
    }

    /// The same without its texts.
    pub(super) fn glance(&self, at: usize) -> Glance {
        node::glance_at_item(&mut Reader::new(self.encoded(at))).expect(OURS)
    }

    /// All items as they are encoded; `level` is the node's.
    pub(super) fn items(&self, level: u8) -> impl Iterator<Item = Encoded<'_>> {
        (0..self.len()).map(move |at| {
            let (segment, bytes) = (self.segment(at), self.encoded(at));
            Encoded { segment, bytes, weight: weight(level, segment, bytes) }
        })
    }

    pub(super) fn item_weight(&self, level: u8, at: usize) -> u32 {
        weight(level, self.segment(at), self.encoded(at))
    }
}

fn weight(level: u8, segment: &str, bytes: &[u8]) -> u32 {
    if level > 0 {
        return child_weight(segment);
    }
    let glance = node::glance_at_item(&mut Reader::new(bytes)).expect(OURS);
    weight_of(segment.len(), glance.content_type_len, glance.directory.is_some())
}
