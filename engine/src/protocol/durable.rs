//! What a storage point makes durable: the records of its log, in the order in which they replay.

use crate::protocol::{
    Hash, Manifest, Micros, SpId, StoreId, Uid,
    encoding::{DecodeError, Reader, Writer},
};
use bytes::Bytes;
use std::sync::Arc;

/// A content that travels with the record that names it: at most [`INLINE_LEN_MAX`] bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InlineContent {
    /// BLAKE3 of `bytes`.
    pub hash: Hash,
    /// The content.
    pub bytes: Bytes,
}

/// Most bytes of a content that is kept in the log; larger ones are files of their own.
pub const INLINE_LEN_MAX: u64 = 64 << 10;

/// One durable fact. Replaying all of them in order gives back the state of the storage point.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Durable {
    /// A publication is held: manifest, those of its contents that were missing and fit the log, and the own bit.
    /// Contents above [`INLINE_LEN_MAX`] were made durable before.
    Held {
        /// What was submitted.
        manifest: Arc<Manifest>,
        /// Contents up to [`INLINE_LEN_MAX`] that were not here before.
        contents: Vec<InlineContent>,
        /// Whether this SP's own bit is set by the same write (`fused`, or a publication known to be agreed).
        own_bit: bool,
    },
    /// The own bit of a held publication is set (`two-phase`).
    OwnBit {
        /// Of this publication.
        uid: Uid,
    },
    /// A held publication is agreed. Written lazily.
    Agreed {
        /// This one.
        uid: Uid,
    },
    /// A pending publication was dropped because a newer one of its paths is agreed. Its key and outcome stay.
    Dropped {
        /// This one.
        uid: Uid,
        /// The newer one.
        superseded_by: Uid,
    },
    /// No UID at or above this time has been named by this SP.
    Ceiling {
        /// Exclusive bound of the hybrid clock.
        micros: Micros,
    },
    /// The process was started; written before the first answer.
    Started {
        /// How often, this time included.
        starts: u32,
    },
    /// A newer store of an SP was learned; bits of its older ones are void.
    Store {
        /// Whose.
        sp: SpId,
        /// Its newest store.
        store: StoreId,
    },
    /// Nothing accepted before this time is missing in the index that the records up to here make.
    AsOf {
        /// By the clocks of the SPs.
        micros: Micros,
    },
    /// This store, made by `acms replace`, holds all that its join had to bring.
    Joined,
    /// The contents of a publication are needed no more: no index entry, kept version or pending publication names
    /// them by it. Its key and outcome stay.
    Released {
        /// This one.
        uid: Uid,
    },
    /// Nothing of a publication is remembered any more.
    Forgotten {
        /// This one.
        uid: Uid,
    },
}

/// Kind of a log record, its first byte's meaning. The numbers are part of the format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "named as the variants of Durable")]
#[repr(u8)]
pub enum Kind {
    Held = 1,
    OwnBit = 2,
    Agreed = 4,
    Dropped = 5,
    Ceiling = 6,
    Started = 7,
    Store = 8,
    AsOf = 9,
    Joined = 10,
    Released = 11,
    Forgotten = 12,
}

impl Durable {
    /// Kind, payload, and contents that the store keeps beside the payload.
    pub fn encode(&self) -> (u8, Vec<u8>, &[InlineContent]) {
        let mut out = Writer::new();
        let mut inline: &[InlineContent] = &[];
        let kind = match self {
            Durable::Held { manifest, contents, own_bit } => {
                out.u8((*own_bit).into());
                out.raw(&manifest.encode());
                inline = contents;
                Kind::Held
            }
            Durable::OwnBit { uid } => {
                out.uid(*uid);
                Kind::OwnBit
            }
            Durable::Agreed { uid } => {
                out.uid(*uid);
                Kind::Agreed
            }
            Durable::Dropped { uid, superseded_by } => {
                out.uid(*uid);
                out.uid(*superseded_by);
                Kind::Dropped
            }
            Durable::Ceiling { micros } => {
                out.varint(micros.0);
                Kind::Ceiling
            }
            Durable::Started { starts } => {
                out.varint((*starts).into());
                Kind::Started
            }
            Durable::Store { sp, store } => {
                out.u8(sp.0);
                out.store_id(*store);
                Kind::Store
            }
            Durable::AsOf { micros } => {
                out.varint(micros.0);
                Kind::AsOf
            }
            Durable::Joined => Kind::Joined,
            Durable::Released { uid } => {
                out.uid(*uid);
                Kind::Released
            }
            Durable::Forgotten { uid } => {
                out.uid(*uid);
                Kind::Forgotten
            }
        };
        (kind as u8, out.0, inline)
    }

    /// From kind and payload. The contents stay in the store: `contents` of a `Held` comes back empty.
    pub fn decode(kind: u8, payload: &[u8]) -> Result<Durable, DecodeError> {
        let mut input = Reader::new(payload);
        let record = match kind {
            1 => {
                let own_bit = match input.u8()? {
                    0 => false,
                    1 => true,
                    _ => return Err(DecodeError::Invalid("own bit")),
                };
                let manifest = Arc::new(Manifest::decode(input.raw(input.remaining())?)?);
                Durable::Held { manifest, contents: Vec::new(), own_bit }
            }
            2 => Durable::OwnBit { uid: input.uid()? },
            4 => Durable::Agreed { uid: input.uid()? },
            5 => Durable::Dropped { uid: input.uid()?, superseded_by: input.uid()? },
            6 => Durable::Ceiling { micros: Micros(input.varint()?) },
            7 => Durable::Started { starts: input.store_number()? },
            8 => Durable::Store { sp: input.sp()?, store: input.store_id()? },
            9 => Durable::AsOf { micros: Micros(input.varint()?) },
            10 => Durable::Joined,
            11 => Durable::Released { uid: input.uid()? },
            12 => Durable::Forgotten { uid: input.uid()? },
            _ => return Err(DecodeError::Invalid("record kind")),
        };
        input.finish()?;
        Ok(record)
    }
}
