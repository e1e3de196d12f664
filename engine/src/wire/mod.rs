//! Encoding and framing of what storage points say to each other (engine/docs/FORMATS.md, "Frames").
//!
//! Everything here is bounded: no bytes from outside make it panic, or allocate more than a small multiple of
//! [`FRAME_LEN_MAX`]. A message whose tag this version does not know is skipped and counted; anything else that is wrong
//! ends the link, because what follows could not be trusted.

mod decoder;
pub mod link;
mod message;
mod version;

pub use decoder::Decoder;
pub use version::{HELLO_VERSION, Versions};

use crate::protocol::{
    Message, SpId,
    encoding::{DecodeError, Reader, Writer},
    message::Header,
};

/// First bytes of every frame.
pub const MAGIC: [u8; 2] = *b"AC";
/// Newest version of the framing and of the messages that this program speaks.
pub const VERSION: u8 = 1;
/// Bytes of a frame's head.
pub const HEAD_LEN: usize = 12;
/// Most bytes of a frame, head included.
pub const FRAME_LEN_MAX: usize = 8 << 20;
/// Most bytes of a hello frame, head included.
pub const HELLO_LEN_MAX: usize = 4 << 10;
/// Most messages of a frame.
pub const MESSAGES_MAX: usize = 1 << 16;
/// A frame of several messages is split at about this many bytes.
pub const FRAME_LEN_TARGET: usize = 1 << 20;

const CLUSTER_LEN_MAX: usize = 63;

/// What a frame is; a byte of its head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Kind {
    Hello = 1,
    Messages = 2,
    Ping = 3,
}

/// The first thing that each end of a link says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// The cluster's name.
    pub cluster: String,
    /// Who speaks; epoch and configuration must be equal at both ends before anything else is said.
    pub header: Header,
    /// What the speaker speaks.
    pub versions: Versions,
}

/// One frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    /// The first one.
    Hello(Hello),
    /// Messages; the header holds for all of them. Unknown ones are left out ([`Decoder::skipped_total`]).
    Messages(Header, Vec<Message>),
    /// Nothing but a sign of life.
    Ping,
}

/// Why the bytes of a link cannot be used. The link must be closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// Not the protocol of this program.
    #[error("these bytes are no frame of ACMS")]
    Magic,
    /// Another version of it.
    #[error("a frame of version {0}, which is not that of the link")]
    Version(u8),
    /// No such kind of frame.
    #[error("frame of unknown kind {0}")]
    Kind(u8),
    /// Over its bound.
    #[error("frame of {len} bytes, over the {max} allowed")]
    TooLarge {
        /// Bytes of the frame.
        len: u64,
        /// The bound.
        max: usize,
    },
    /// Bytes were damaged on the way.
    #[error("the checksum of a frame is wrong")]
    Checksum,
    /// Something came before the hello.
    #[error("the first frame is no hello")]
    NoHello,
    /// The body is wrong.
    #[error("the body of a frame is malformed: {0}")]
    Body(#[from] DecodeError),
}

impl WireError {
    /// For those who count.
    pub const fn label(&self) -> &'static str {
        match self {
            WireError::Magic => "magic",
            WireError::Version(_) => "version",
            WireError::Kind(_) => "kind",
            WireError::TooLarge { .. } => "too_large",
            WireError::Checksum => "checksum",
            WireError::NoHello => "no_hello",
            WireError::Body(_) => "body",
        }
    }
}

/// Frames made from messages.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Encoded {
    /// In the order of the messages.
    pub frames: Vec<Vec<u8>>,
    /// Messages that fit no frame and were left out.
    pub left_out: usize,
}

/// One frame with all of `messages`.
pub fn encode_frame(header: &Header, messages: &[Message]) -> Result<Vec<u8>, WireError> {
    let mut out = begin(Kind::Messages);
    encode_header(&mut out, header);
    let count = u32::try_from(messages.len()).unwrap_or(u32::MAX);
    if messages.len() > MESSAGES_MAX {
        return Err(DecodeError::TooLarge.into());
    }
    out.raw(&count.to_le_bytes());
    messages.iter().for_each(|message| message::encode(&mut out, message));
    finish(out)
}

/// As few frames as hold all of `messages` in order, each split at about [`FRAME_LEN_TARGET`].
pub fn encode_frames(header: &Header, messages: &[Message]) -> Encoded {
    let mut encoded = Encoded::default();
    let mut open: Option<OpenFrame> = None;
    for message in messages {
        let mut frame = open.take().unwrap_or_else(|| OpenFrame::new(header));
        let before = frame.out.0.len();
        message::encode(&mut frame.out, message);
        if frame.out.0.len() > FRAME_LEN_MAX {
            let alone = frame.out.0.split_off(before);
            if frame.count > 0 {
                encoded.frames.extend(frame.finish());
                frame = OpenFrame::new(header);
            }
            if frame.out.0.len() + alone.len() > FRAME_LEN_MAX {
                encoded.left_out += 1;
                open = Some(frame).filter(|frame| frame.count > 0);
                continue;
            }
            frame.out.raw(&alone);
        }
        frame.count += 1;
        if frame.out.0.len() >= FRAME_LEN_TARGET || frame.count as usize == MESSAGES_MAX {
            encoded.frames.extend(frame.finish());
        } else {
            open = Some(frame);
        }
    }
    encoded.frames.extend(open.and_then(OpenFrame::finish));
    encoded
}

/// The hello frame.
pub fn encode_hello(hello: &Hello) -> Result<Vec<u8>, WireError> {
    let mut out = begin(Kind::Hello);
    out.str(&hello.cluster);
    encode_header(&mut out, &hello.header);
    if hello.versions != Versions::FIRST {
        out.u8(hello.versions.min);
        out.u8(hello.versions.max);
    }
    finish(out)
}

/// Gives a frame that is no hello the version of the link that it goes to. Frames of all versions that there are look the
/// same otherwise.
pub(crate) fn set_version(frame: &mut [u8], version: u8) {
    frame[2] = version;
}

/// Whether a frame that this program has encoded is a hello.
pub fn is_hello(frame: &[u8]) -> bool {
    frame.get(3) == Some(&(Kind::Hello as u8))
}

/// The ping frame.
pub fn encode_ping() -> [u8; HEAD_LEN] {
    let mut frame = [0; HEAD_LEN];
    frame[..2].copy_from_slice(&MAGIC);
    frame[2] = Versions::FIRST.max;
    frame[3] = Kind::Ping as u8;
    frame
}

/// A frame that takes more messages.
struct OpenFrame {
    out: Writer,
    count_at: usize,
    count: u32,
}

impl OpenFrame {
    fn new(header: &Header) -> OpenFrame {
        let mut out = begin(Kind::Messages);
        encode_header(&mut out, header);
        let count_at = out.0.len();
        out.raw(&[0; 4]);
        OpenFrame { out, count_at, count: 0 }
    }

    fn finish(mut self) -> Option<Vec<u8>> {
        self.out.0[self.count_at..self.count_at + 4].copy_from_slice(&self.count.to_le_bytes());
        finish(self.out).ok()
    }
}

fn begin(kind: Kind) -> Writer {
    let mut out = Writer(Vec::with_capacity(512));
    out.raw(&MAGIC);
    out.u8(Versions::FIRST.max);
    out.u8(kind as u8);
    out.raw(&[0; 8]);
    out
}

fn finish(out: Writer) -> Result<Vec<u8>, WireError> {
    let mut frame = out.0;
    let max = if frame[3] == Kind::Hello as u8 { HELLO_LEN_MAX } else { FRAME_LEN_MAX };
    if frame.len() > max {
        return Err(WireError::TooLarge { len: frame.len() as u64, max });
    }
    let body_len = (frame.len() - HEAD_LEN) as u32;
    let checksum = crc32c::crc32c(&frame[HEAD_LEN..]);
    frame[4..8].copy_from_slice(&body_len.to_le_bytes());
    frame[8..12].copy_from_slice(&checksum.to_le_bytes());
    Ok(frame)
}

fn encode_header(out: &mut Writer, header: &Header) {
    out.varint(header.epoch.into());
    out.raw(&header.config);
    out.u8(header.from.0);
    out.store_id(header.store);
    out.varint(header.stores.len() as u64);
    for (sp, store) in &header.stores {
        out.u8(sp.0);
        out.store_id(*store);
    }
}

fn decode_header(input: &mut Reader<'_>) -> Result<Header, DecodeError> {
    let epoch = input.bounded(u32::MAX.into())? as u32;
    let config = input.raw(8)?.try_into().expect("eight bytes");
    let from = input.sp()?;
    let store = input.store_id()?;
    let count = input.bounded(SpId::MAX.0.into())? as usize;
    let mut stores: Vec<(SpId, _)> = Vec::with_capacity(count);
    for _ in 0..count {
        let sp = input.sp()?;
        if stores.last().is_some_and(|(last, _)| *last >= sp) {
            return Err(DecodeError::NotCanonical);
        }
        stores.push((sp, input.store_id()?));
    }
    Ok(Header { epoch, config, from, store, stores })
}
