//! Frames from the bytes of a link, as they come.

use super::{CLUSTER_LEN_MAX, decode_header, message};
use super::{FRAME_LEN_MAX, Frame, HEAD_LEN, HELLO_LEN_MAX, Hello, Kind, MAGIC, MESSAGES_MAX, WireError};
use super::{HELLO_VERSION, Versions};
use crate::protocol::encoding::{DecodeError, Reader};
use bytes::{Bytes, BytesMut};

/// Turns the bytes of one link into frames. Contents in messages share the frame's memory: nothing is copied, and a
/// frame's memory is free once its last content is dropped.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
    hello_first: bool,
    /// Of frames that are no hello; none: the first.
    version: Option<u8>,
    skipped: u64,
    failed: Option<WireError>,
}

struct Head {
    kind: Kind,
    body_len: usize,
    checksum: u32,
}

impl Decoder {
    /// Takes frames of any kind in any order.
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// Refuses a first frame other than a hello, so that a stranger makes it hold [`HELLO_LEN_MAX`] bytes at most.
    pub fn expecting_hello() -> Decoder {
        Decoder { hello_first: true, ..Decoder::default() }
    }

    /// From now on frames must be of this version: to be called once the hello is here.
    pub fn set_version(&mut self, version: u8) {
        self.version = Some(version);
    }

    /// More bytes of the link. Call [`Decoder::next`] until it gives no frame before pushing more, or the buffer grows.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame, once all of it is here. After an error every call gives that error.
    #[allow(clippy::should_implement_trait, reason = "an iterator ends at its first None, a decoder does not")]
    pub fn next(&mut self) -> Result<Option<Frame>, WireError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.advance().inspect_err(|error| {
            self.failed = Some(*error);
            self.buffer = BytesMut::new();
        })
    }

    /// Messages of unknown tags so far.
    pub fn skipped_total(&self) -> u64 {
        self.skipped
    }

    /// Bytes that wait for the rest of their frame.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    fn advance(&mut self) -> Result<Option<Frame>, WireError> {
        let Some(head) = self.head()? else { return Ok(None) };
        if self.buffer.len() < HEAD_LEN + head.body_len {
            return Ok(None);
        }
        let frame = self.buffer.split_to(HEAD_LEN + head.body_len).freeze();
        let body = frame.slice(HEAD_LEN..);
        if crc32c::crc32c(&body) != head.checksum {
            return Err(WireError::Checksum);
        }
        self.hello_first = false;
        match head.kind {
            Kind::Hello => Ok(Some(Frame::Hello(decode_hello(&body)?))),
            Kind::Messages => self.decode_messages(&body).map(Some),
            Kind::Ping => Ok(Some(Frame::Ping)),
        }
    }

    /// The head of the next frame, checked as far as it is here.
    fn head(&self) -> Result<Option<Head>, WireError> {
        let known = &self.buffer[..self.buffer.len().min(HEAD_LEN)];
        if !MAGIC.starts_with(&known[..known.len().min(2)]) {
            return Err(WireError::Magic);
        }
        let of_link = self.version.unwrap_or(Versions::FIRST.max);
        let is_hello = known.get(3).map(|kind| *kind == Kind::Hello as u8);
        if let Some(version) = known.get(2).copied() {
            let is_right = match is_hello {
                Some(true) => version == HELLO_VERSION,
                Some(false) => version == of_link,
                None => version == HELLO_VERSION || version == of_link,
            };
            if !is_right {
                return Err(WireError::Version(version));
            }
        }
        let Ok(head) = <[u8; HEAD_LEN]>::try_from(known) else { return Ok(None) };
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (kind, max) = match head[3] {
            1 => (Kind::Hello, HELLO_LEN_MAX),
            2 => (Kind::Messages, FRAME_LEN_MAX),
            3 => (Kind::Ping, HEAD_LEN),
            other => return Err(WireError::Kind(other)),
        };
        if self.hello_first && kind != Kind::Hello {
            return Err(WireError::NoHello);
        }
        let len = u64::from(number(4)) + HEAD_LEN as u64;
        if len > max as u64 {
            return Err(WireError::TooLarge { len, max });
        }
        Ok(Some(Head { kind, body_len: number(4) as usize, checksum: number(8) }))
    }

    fn decode_messages(&mut self, body: &Bytes) -> Result<Frame, WireError> {
        let mut input = Reader::new(body);
        let header = decode_header(&mut input)?;
        let count = u32_le(&mut input)? as usize;
        if count > MESSAGES_MAX {
            return Err(DecodeError::TooLarge.into());
        }
        let mut messages = Vec::with_capacity(count.min(input.remaining() / message::LEN_MIN));
        for _ in 0..count {
            let len = u32_le(&mut input)? as usize;
            match message::decode(body, input.raw(len)?)? {
                Some(message) => messages.push(message),
                None => self.skipped += 1,
            }
        }
        input.finish()?;
        Ok(Frame::Messages(header, messages))
    }
}

fn u32_le(input: &mut Reader<'_>) -> Result<u32, DecodeError> {
    Ok(u32::from_le_bytes(input.raw(4)?.try_into().expect("four bytes")))
}

/// Versions may be left out; bytes after them belong to later versions.
fn decode_hello(body: &Bytes) -> Result<Hello, DecodeError> {
    let mut input = Reader::new(body);
    let cluster = input.str(CLUSTER_LEN_MAX)?.to_owned();
    let header = decode_header(&mut input)?;
    let versions = match input.remaining() {
        0 => Versions::FIRST,
        _ => Versions { min: input.u8()?, max: input.u8()? },
    };
    if versions.min == 0 || versions.min > versions.max {
        return Err(DecodeError::NotCanonical);
    }
    Ok(Hello { cluster, header, versions })
}
