//! Publications: what a publisher hands in and storage points agree on.

use crate::protocol::{
    Hash, Path, Uid,
    encoding::{DecodeError, Reader, Writer},
};
use bytes::Bytes;

/// Properties of an entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Flags {
    /// The receiver sets the executable mode.
    pub executable: bool,
    /// A tombstone: the path was deleted.
    pub deleted: bool,
}

impl Flags {
    /// As a number: bit 0 executable, bit 1 deleted.
    pub fn bits(self) -> u64 {
        u64::from(self.executable) | u64::from(self.deleted) << 1
    }

    /// From a number; unknown bits are refused.
    pub fn from_bits(bits: u64) -> Result<Flags, DecodeError> {
        match bits {
            0..=3 => Ok(Flags { executable: bits & 1 != 0, deleted: bits & 2 != 0 }),
            _ => Err(DecodeError::Invalid("entry flags")),
        }
    }

    /// Names of the flags that are set, as JSON and headers show them.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        [(self.executable, "executable"), (self.deleted, "deleted")].into_iter().filter(|(set, _)| *set).map(|(_, n)| n)
    }
}

/// One file of a publication. A deleted entry has the hash and size of empty content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The file's name.
    pub path: Path,
    /// BLAKE3 of its content.
    pub hash: Hash,
    /// Bytes of content.
    pub size: u64,
    /// Media type; may be empty.
    pub content_type: String,
    /// Properties.
    pub flags: Flags,
}

impl Entry {
    /// Most bytes of a media type.
    pub const CONTENT_TYPE_LEN_MAX: usize = 255;

    fn encode(&self, out: &mut Writer) {
        out.str(self.path.as_str());
        out.hash(self.hash);
        out.varint(self.size);
        out.str(&self.content_type);
        out.varint(self.flags.bits());
    }

    fn decode(input: &mut Reader<'_>) -> Result<Entry, DecodeError> {
        Ok(Entry {
            path: input.str(Path::LEN_MAX)?.parse().map_err(|_| DecodeError::Invalid("path"))?,
            hash: input.hash()?,
            size: input.varint()?,
            content_type: input.str(Entry::CONTENT_TYPE_LEN_MAX)?.to_owned(),
            flags: Flags::from_bits(input.varint()?)?,
        })
    }
}

/// A publication without its contents. Encoded as tagged fields in ascending order of tag; fields that this version
/// does not know are kept, so that re-encoding gives the same bytes and the same hash.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    /// Its name.
    pub uid: Uid,
    /// Who submitted it.
    pub publisher: String,
    /// Idempotency key, unique to the publisher.
    pub key: Option<String>,
    /// At least one.
    pub entries: Vec<Entry>,
    /// Fields unknown to this version: (tag, value), ascending. Tags 5 (signature), 6 (condition) and 7 (zone) are
    /// reserved.
    pub unknown: Vec<(u64, Bytes)>,
}

const TAG_UID: u64 = 1;
const TAG_PUBLISHER: u64 = 2;
const TAG_KEY: u64 = 3;
const TAG_ENTRY: u64 = 4;

impl Manifest {
    /// Most bytes of a publisher's name or an idempotency key.
    pub const NAME_LEN_MAX: usize = 255;
    /// Most entries.
    pub const ENTRIES_MAX: usize = 256;
    /// Most bytes of an encoded manifest.
    pub const LEN_MAX: usize = 1 << 19;

    /// The one encoding of this manifest.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        let mut field = |tag: u64, value: &dyn Fn(&mut Writer)| {
            let mut inner = Writer::new();
            value(&mut inner);
            out.varint(tag);
            out.bytes(&inner.0);
        };
        field(TAG_UID, &|inner| inner.uid(self.uid));
        field(TAG_PUBLISHER, &|inner| inner.raw(self.publisher.as_bytes()));
        if let Some(key) = &self.key {
            field(TAG_KEY, &|inner| inner.raw(key.as_bytes()));
        }
        for entry in &self.entries {
            field(TAG_ENTRY, &|inner| entry.encode(inner));
        }
        for (tag, value) in &self.unknown {
            field(*tag, &|inner| inner.raw(value));
        }
        out.0
    }

    /// Decodes all of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Manifest, DecodeError> {
        let mut input = Reader::new(bytes);
        let (mut uid, mut publisher, mut key, mut entries, mut unknown) = (None, None, None, Vec::new(), Vec::new());
        let mut last = 0;
        while input.remaining() > 0 {
            let tag = input.varint()?;
            let value = input.bytes(Manifest::LEN_MAX)?;
            if tag < last || (tag == last && tag <= TAG_KEY) {
                return Err(DecodeError::NotCanonical);
            }
            last = tag;
            let mut inner = Reader::new(value);
            match tag {
                TAG_UID => uid = Some(inner.uid()?),
                TAG_PUBLISHER => publisher = Some(name(&mut inner)?),
                TAG_KEY => key = Some(name(&mut inner)?),
                TAG_ENTRY if entries.len() < Manifest::ENTRIES_MAX => entries.push(Entry::decode(&mut inner)?),
                TAG_ENTRY => return Err(DecodeError::TooLarge),
                _ => {
                    unknown.push((tag, Bytes::copy_from_slice(value)));
                    continue;
                }
            }
            inner.finish()?;
        }
        if entries.is_empty() {
            return Err(DecodeError::Invalid("manifest without entries"));
        }
        let uid = uid.ok_or(DecodeError::Invalid("manifest without UID"))?;
        let publisher = publisher.ok_or(DecodeError::Invalid("manifest without publisher"))?;
        Ok(Manifest { uid, publisher, key, entries, unknown })
    }
}

fn name(input: &mut Reader<'_>) -> Result<String, DecodeError> {
    if input.remaining() > Manifest::NAME_LEN_MAX {
        return Err(DecodeError::TooLarge);
    }
    let text = std::str::from_utf8(input.raw(input.remaining())?).map_err(|_| DecodeError::Invalid("UTF-8"))?;
    Ok(text.to_owned())
}
