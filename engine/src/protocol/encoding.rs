//! Bounded, canonical binary encoding: the primitives of manifests, index nodes, log records and frames.
//!
//! Integers are LEB128 in their shortest form; a longer form is refused, so that equal values have equal bytes.

use crate::protocol::{Hash, SpId, SpSet, StoreId, Uid};

/// Why bytes could not be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Ends too early.
    #[error("input ends too early")]
    Truncated,
    /// Bytes left over.
    #[error("bytes left over at the end")]
    Trailing,
    /// Above its bound.
    #[error("a length or number is above its bound")]
    TooLarge,
    /// Not in its one canonical form.
    #[error("not in canonical form")]
    NotCanonical,
    /// A value that means nothing here.
    #[error("invalid {0}")]
    Invalid(&'static str),
}

/// Appends encoded values to a buffer.
#[derive(Default, Debug)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    /// Empty.
    pub fn new() -> Writer {
        Writer::default()
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    /// LEB128.
    pub fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// Fixed eight bytes, little-endian.
    pub fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// Bytes without their length.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Length and bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.varint(bytes.len() as u64);
        self.raw(bytes);
    }

    /// Length and UTF-8.
    pub fn str(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// 32 bytes.
    pub fn hash(&mut self, hash: Hash) {
        self.raw(&hash.0);
    }

    /// Microseconds, SP, store number.
    pub fn uid(&mut self, uid: Uid) {
        self.varint(uid.micros);
        self.u8(uid.sp.0);
        self.varint(uid.store.into());
    }

    /// As a number.
    pub fn sp_set(&mut self, set: SpSet) {
        self.varint(set.0);
    }

    /// Number and nonce.
    pub fn store_id(&mut self, store: StoreId) {
        self.varint(store.number.into());
        self.u64(store.nonce);
    }
}

/// Reads encoded values from bytes that anyone may have sent.
#[derive(Clone, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// From the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    /// Bytes not yet read.
    pub fn remaining(&self) -> usize {
        self.0.len()
    }

    /// Ends the reading: nothing may be left.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Trailing) }
    }

    /// `len` bytes.
    pub fn raw(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.raw(1)?[0])
    }

    /// LEB128, shortest form only.
    pub fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            if shift == 63 && byte > 1 {
                return Err(DecodeError::TooLarge);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return if byte == 0 && shift > 0 { Err(DecodeError::NotCanonical) } else { Ok(value) };
            }
        }
        Err(DecodeError::TooLarge)
    }

    /// A number of at most `max`.
    pub fn bounded(&mut self, max: u64) -> Result<u64, DecodeError> {
        self.varint().and_then(|value| if value <= max { Ok(value) } else { Err(DecodeError::TooLarge) })
    }

    /// How many items of at least `item_len` bytes follow; never more than the rest of the input could hold.
    pub fn count(&mut self, item_len: usize) -> Result<usize, DecodeError> {
        let count = usize::try_from(self.varint()?).map_err(|_| DecodeError::TooLarge)?;
        if count > self.remaining() / item_len.max(1) { Err(DecodeError::Truncated) } else { Ok(count) }
    }

    /// Fixed eight bytes, little-endian.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.raw(8)?.try_into().expect("eight bytes")))
    }

    /// Length and bytes, at most `max`.
    pub fn bytes(&mut self, max: usize) -> Result<&'a [u8], DecodeError> {
        let len = self.bounded(max as u64)? as usize;
        self.raw(len)
    }

    /// Length and UTF-8, at most `max` bytes.
    pub fn str(&mut self, max: usize) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes(max)?).map_err(|_| DecodeError::Invalid("UTF-8"))
    }

    /// 32 bytes.
    pub fn hash(&mut self) -> Result<Hash, DecodeError> {
        Ok(Hash(self.raw(32)?.try_into().expect("32 bytes")))
    }

    /// The id of an SP.
    pub fn sp(&mut self) -> Result<SpId, DecodeError> {
        let sp = SpId(self.u8()?);
        if sp <= SpId::MAX { Ok(sp) } else { Err(DecodeError::Invalid("storage point id")) }
    }

    /// A store's number.
    pub fn store_number(&mut self) -> Result<u32, DecodeError> {
        Ok(self.bounded(u32::MAX.into())? as u32)
    }

    /// Microseconds, SP, store number.
    pub fn uid(&mut self) -> Result<Uid, DecodeError> {
        Ok(Uid { micros: self.varint()?, sp: self.sp()?, store: self.store_number()? })
    }

    /// A set of SPs.
    pub fn sp_set(&mut self) -> Result<SpSet, DecodeError> {
        Ok(SpSet(self.varint()?))
    }

    /// Number and nonce.
    pub fn store_id(&mut self) -> Result<StoreId, DecodeError> {
        Ok(StoreId { number: self.store_number()?, nonce: self.u64()? })
    }
}
