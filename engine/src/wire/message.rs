//! One message: its length, its tag, its fields. Tags are part of the format and never given a second meaning.

use crate::protocol::{
    Manifest, Message, Micros, Uid,
    durable::{INLINE_LEN_MAX, InlineContent},
    encoding::{DecodeError, Reader, Writer},
    message::{
        AsOf, CHUNK_LEN, JOIN_ITEMS_MAX, JoinItem, JoinPage, JoinState, LISTED_MAX, Refusal, RequestId, Vector, Wanted,
    },
};
use bytes::Bytes;
use std::sync::Arc;

/// Fewest bytes of a message with its length.
pub(super) const LEN_MIN: usize = 5;
/// Most keys of an order query, and of its answer.
const KEYS_MAX: usize = 1 << 16;

const ORDER_QUERY: u64 = 1;
const ORDER_ANSWER: u64 = 2;
const OFFER: u64 = 3;
const REFUSE: u64 = 4;
const VECTOR: u64 = 5;
const AGREED: u64 = 6;
const PUBLICATION_REQUEST: u64 = 7;
const CONTENT_REQUEST: u64 = 8;
const CONTENT_CHUNK: u64 = 9;
const MISSING: u64 = 10;
const ROOT: u64 = 11;
const NODE_REQUEST: u64 = 12;
const NODE: u64 = 13;
const STORED: u64 = 14;
const AS_OF_REQUEST: u64 = 15;
const AS_OF_REPLY: u64 = 16;
const JOIN_REQUEST: u64 = 17;
const JOIN_REPLY: u64 = 18;

/// Appends length, tag and fields.
pub(super) fn encode(out: &mut Writer, message: &Message) {
    let at = out.0.len();
    out.raw(&[0; 4]);
    encode_fields(out, message);
    let len = (out.0.len() - at - 4) as u32;
    out.0[at..at + 4].copy_from_slice(&len.to_le_bytes());
}

fn encode_fields(out: &mut Writer, message: &Message) {
    match message {
        Message::OrderQuery { request, keys } => {
            out.varint(ORDER_QUERY);
            encode_request(out, *request);
            out.varint(keys.len() as u64);
            for (publisher, key) in keys {
                out.str(publisher);
                out.str(key);
            }
        }
        Message::OrderAnswer { request, greatest, clock, holds } => {
            out.varint(ORDER_ANSWER);
            encode_request(out, *request);
            out.uid(*greatest);
            out.varint(clock.0);
            out.varint(holds.len() as u64);
            for (index, uid) in holds {
                out.varint((*index).into());
                out.uid(*uid);
            }
        }
        Message::Offer { manifest, contents, agreed } => {
            out.varint(OFFER);
            out.u8((*agreed).into());
            out.bytes(&manifest.encode());
            out.varint(contents.len() as u64);
            for content in contents {
                out.hash(content.hash);
                out.bytes(&content.bytes);
            }
        }
        Message::Refuse { uid, cause, clock } => {
            out.varint(REFUSE);
            out.uid(*uid);
            out.u8(match cause {
                Refusal::ClockAhead => 1,
                Refusal::Store => 2,
                Refusal::Other(cause) => *cause,
            });
            out.varint(clock.0);
        }
        Message::Vector(Vector { uid, bits }) => {
            out.varint(VECTOR);
            out.uid(*uid);
            out.sp_set(*bits);
        }
        Message::Agreed { uid, newest } => {
            out.varint(AGREED);
            out.uid(*uid);
            out.uid(*newest);
        }
        Message::PublicationRequest { uid } => {
            out.varint(PUBLICATION_REQUEST);
            out.uid(*uid);
        }
        Message::ContentRequest { hash, offset, len } => {
            out.varint(CONTENT_REQUEST);
            out.hash(*hash);
            out.varint(*offset);
            out.varint((*len).into());
        }
        Message::ContentChunk { hash, offset, total, bytes } => {
            out.varint(CONTENT_CHUNK);
            out.hash(*hash);
            out.varint(*offset);
            out.varint(*total);
            out.bytes(bytes);
        }
        Message::Missing { what } => {
            out.varint(MISSING);
            encode_wanted(out, *what);
        }
        Message::Root { root } => {
            out.varint(ROOT);
            out.hash(*root);
        }
        Message::NodeRequest { hash } => {
            out.varint(NODE_REQUEST);
            out.hash(*hash);
        }
        Message::Node { bytes } => {
            out.varint(NODE);
            out.bytes(bytes);
        }
        Message::Stored { uid } => {
            out.varint(STORED);
            out.uid(*uid);
        }
        Message::AsOfRequest { request, merged } => {
            out.varint(AS_OF_REQUEST);
            encode_request(out, *request);
            out.hash(*merged);
        }
        Message::AsOfReply { request, reply } => {
            out.varint(AS_OF_REPLY);
            encode_request(out, *request);
            out.hash(reply.base);
            out.hash(reply.root);
            out.varint(reply.clock.0);
            out.varint(reply.listed.len() as u64);
            reply.listed.iter().for_each(|uid| out.uid(*uid));
        }
        Message::JoinRequest { request, after } => {
            out.varint(JOIN_REQUEST);
            encode_request(out, *request);
            out.uid(*after);
        }
        Message::JoinReply { request, after, page } => {
            out.varint(JOIN_REPLY);
            encode_request(out, *request);
            out.uid(*after);
            encode_page(out, page);
        }
    }
}

fn encode_page(out: &mut Writer, page: &JoinPage) {
    out.varint(page.clock.0);
    out.u8(page.last.into());
    out.varint(page.items.len() as u64);
    for JoinItem { manifest, state } in &page.items {
        match state {
            JoinState::Pending { own_bit: false } => out.u8(1),
            JoinState::Pending { own_bit: true } => out.u8(2),
            JoinState::Agreed => out.u8(3),
            JoinState::Remembered => out.u8(4),
            JoinState::Dropped { superseded_by } => {
                out.u8(5);
                out.uid(*superseded_by);
            }
        }
        out.bytes(&manifest.encode());
    }
}

fn encode_request(out: &mut Writer, request: RequestId) {
    out.varint(request.starts.into());
    out.varint(request.number);
}

fn encode_wanted(out: &mut Writer, what: Wanted) {
    match what {
        Wanted::Content(hash) => {
            out.u8(1);
            out.hash(hash);
        }
        Wanted::Node(hash) => {
            out.u8(2);
            out.hash(hash);
        }
        Wanted::Publication(uid) => {
            out.u8(3);
            out.uid(uid);
        }
    }
}

/// The message in `bytes`, a part of `frame`; none if its tag is unknown.
pub(super) fn decode(frame: &Bytes, bytes: &[u8]) -> Result<Option<Message>, DecodeError> {
    let mut input = Reader::new(bytes);
    let message = match input.varint()? {
        ORDER_QUERY => Message::OrderQuery { request: decode_request(&mut input)?, keys: decode_keys(&mut input)? },
        ORDER_ANSWER => Message::OrderAnswer {
            request: decode_request(&mut input)?,
            greatest: input.uid()?,
            clock: Micros(input.varint()?),
            holds: decode_holds(&mut input)?,
        },
        OFFER => decode_offer(frame, &mut input)?,
        REFUSE => Message::Refuse {
            uid: input.uid()?,
            cause: match input.u8()? {
                1 => Refusal::ClockAhead,
                2 => Refusal::Store,
                other => Refusal::Other(other),
            },
            clock: Micros(input.varint()?),
        },
        VECTOR => Message::Vector(Vector { uid: input.uid()?, bits: input.sp_set()? }),
        AGREED => Message::Agreed { uid: input.uid()?, newest: input.uid()? },
        PUBLICATION_REQUEST => Message::PublicationRequest { uid: input.uid()? },
        CONTENT_REQUEST => Message::ContentRequest {
            hash: input.hash()?,
            offset: input.varint()?,
            len: input.bounded(CHUNK_LEN.into())? as u32,
        },
        CONTENT_CHUNK => decode_chunk(frame, &mut input)?,
        MISSING => Message::Missing { what: decode_wanted(&mut input)? },
        ROOT => Message::Root { root: input.hash()? },
        NODE_REQUEST => Message::NodeRequest { hash: input.hash()? },
        NODE => Message::Node { bytes: frame.slice_ref(input.bytes(super::FRAME_LEN_MAX)?) },
        STORED => Message::Stored { uid: input.uid()? },
        AS_OF_REQUEST => Message::AsOfRequest { request: decode_request(&mut input)?, merged: input.hash()? },
        AS_OF_REPLY => Message::AsOfReply { request: decode_request(&mut input)?, reply: decode_as_of(&mut input)? },
        JOIN_REQUEST => Message::JoinRequest { request: decode_request(&mut input)?, after: input.uid()? },
        JOIN_REPLY => Message::JoinReply {
            request: decode_request(&mut input)?,
            after: input.uid()?,
            page: decode_page(&mut input)?,
        },
        _ => return Ok(None),
    };
    input.finish()?;
    Ok(Some(message))
}

fn decode_request(input: &mut Reader<'_>) -> Result<RequestId, DecodeError> {
    Ok(RequestId { starts: input.bounded(u32::MAX.into())? as u32, number: input.varint()? })
}

fn decode_as_of(input: &mut Reader<'_>) -> Result<AsOf, DecodeError> {
    let (base, root, clock) = (input.hash()?, input.hash()?, Micros(input.varint()?));
    let count = bounded_count(input, 3, LISTED_MAX)?;
    let listed = (0..count).map(|_| input.uid()).collect::<Result<Vec<Uid>, DecodeError>>()?;
    if !listed.is_sorted_by(|a, b| a < b) {
        return Err(DecodeError::NotCanonical);
    }
    Ok(AsOf { base, root, listed, clock })
}

fn decode_page(input: &mut Reader<'_>) -> Result<JoinPage, DecodeError> {
    let clock = Micros(input.varint()?);
    let last = match input.u8()? {
        0 => false,
        1 => true,
        _ => return Err(DecodeError::Invalid("last page")),
    };
    let count = bounded_count(input, 8, JOIN_ITEMS_MAX)?;
    let mut items: Vec<JoinItem> = Vec::with_capacity(count);
    for _ in 0..count {
        let state = match input.u8()? {
            1 => JoinState::Pending { own_bit: false },
            2 => JoinState::Pending { own_bit: true },
            3 => JoinState::Agreed,
            4 => JoinState::Remembered,
            5 => JoinState::Dropped { superseded_by: input.uid()? },
            _ => return Err(DecodeError::Invalid("state of a publication")),
        };
        let manifest = Arc::new(Manifest::decode(input.bytes(Manifest::LEN_MAX)?)?);
        if items.last().is_some_and(|last| last.manifest.uid >= manifest.uid) {
            return Err(DecodeError::NotCanonical);
        }
        items.push(JoinItem { manifest, state });
    }
    Ok(JoinPage { items, clock, last })
}

fn decode_keys(input: &mut Reader<'_>) -> Result<Vec<(String, String)>, DecodeError> {
    let count = bounded_count(input, 2, KEYS_MAX)?;
    let mut name = || Ok(input.str(Manifest::NAME_LEN_MAX)?.to_owned());
    (0..count).map(|_| Ok((name()?, name()?))).collect()
}

fn decode_holds(input: &mut Reader<'_>) -> Result<Vec<(u32, Uid)>, DecodeError> {
    let count = bounded_count(input, 4, KEYS_MAX)?;
    (0..count).map(|_| Ok((input.bounded(KEYS_MAX as u64)? as u32, input.uid()?))).collect()
}

fn decode_offer(frame: &Bytes, input: &mut Reader<'_>) -> Result<Message, DecodeError> {
    let agreed = match input.u8()? {
        0 => false,
        1 => true,
        _ => return Err(DecodeError::Invalid("agreed mark")),
    };
    let manifest = Arc::new(Manifest::decode(input.bytes(Manifest::LEN_MAX)?)?);
    let count = bounded_count(input, 33, Manifest::ENTRIES_MAX)?;
    let content = |_| {
        let hash = input.hash()?;
        Ok(InlineContent { hash, bytes: frame.slice_ref(input.bytes(INLINE_LEN_MAX as usize)?) })
    };
    let contents = (0..count).map(content).collect::<Result<Vec<_>, DecodeError>>()?;
    Ok(Message::Offer { manifest, contents, agreed })
}

fn decode_chunk(frame: &Bytes, input: &mut Reader<'_>) -> Result<Message, DecodeError> {
    let (hash, offset, total) = (input.hash()?, input.varint()?, input.varint()?);
    let bytes = frame.slice_ref(input.bytes(CHUNK_LEN as usize)?);
    match offset.checked_add(bytes.len() as u64) {
        Some(end) if end <= total && (total == 0 || !bytes.is_empty()) => {
            Ok(Message::ContentChunk { hash, offset, total, bytes })
        }
        _ => Err(DecodeError::Invalid("content chunk")),
    }
}

fn decode_wanted(input: &mut Reader<'_>) -> Result<Wanted, DecodeError> {
    match input.u8()? {
        1 => Ok(Wanted::Content(input.hash()?)),
        2 => Ok(Wanted::Node(input.hash()?)),
        3 => Ok(Wanted::Publication(input.uid()?)),
        _ => Err(DecodeError::Invalid("kind of what is missing")),
    }
}

fn bounded_count(input: &mut Reader<'_>, item_len: usize, max: usize) -> Result<usize, DecodeError> {
    let count = input.count(item_len)?;
    if count > max { Err(DecodeError::TooLarge) } else { Ok(count) }
}
