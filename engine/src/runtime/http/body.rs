//! Request bodies, cut out of what a connection receives.

use crate::runtime::http::head::Framing;

const SIZE_LINE_LEN_MAX: usize = 256;
const TRAILERS_LEN_MAX: usize = 4 << 10;
/// What the size lines of a body may take in all beside its content: extensions must not make a small content a flood.
const EXCESS_MAX: u64 = 16 << 10;
/// Bytes of a size line, and of the line end behind the chunk, that every chunk may have.
const LINE_ALLOWED: u64 = 24;

/// A chunked body breaks the framing; its connection cannot be used any further.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("malformed chunked body")]
pub struct BadBody;

/// What the next bytes of input are.
#[derive(PartialEq, Eq, Debug)]
pub enum Piece<'a> {
    /// Content.
    Data(&'a [u8]),
    /// All input was taken; more is needed.
    NeedMore,
    /// The body has ended.
    End,
}

/// Where in a body the input stands.
#[derive(Clone, Debug)]
pub struct BodyReader {
    state: State,
    /// Bytes of size lines beyond what the content so far allows.
    excess: u64,
}

#[derive(Clone, Debug)]
enum State {
    /// Bytes left of a body of known length.
    Length(u64),
    /// In a chunk-size line: digits so far, length of the line so far.
    Size { size: u64, digits: u8, line_len: usize, in_extension: bool, cr: bool },
    /// Bytes left of a chunk.
    Data(u64),
    /// After a chunk's data: CR LF.
    DataEnd { cr: bool },
    /// Trailers: bytes so far, bytes of the current line so far.
    Trailers { total: usize, line_len: usize, has_name: bool, cr: bool },
    /// Ended.
    Done,
}

const TRAILERS: State = State::Trailers { total: 0, line_len: 0, has_name: false, cr: false };
const SIZE: State = State::Size { size: 0, digits: 0, line_len: 0, in_extension: false, cr: false };

impl BodyReader {
    /// At the start of a body.
    pub fn new(framing: Framing) -> BodyReader {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(len) => State::Length(len),
            Framing::Chunked => SIZE,
        };
        BodyReader { state, excess: 0 }
    }

    /// Takes the next piece off `input`: how many bytes were consumed, and what they were.
    pub fn next<'a>(&mut self, input: &'a [u8]) -> Result<(usize, Piece<'a>), BadBody> {
        let mut at = 0;
        loop {
            match &mut self.state {
                State::Done => return Ok((at, Piece::End)),
                _ if at == input.len() => return Ok((at, Piece::NeedMore)),
                State::Length(left) | State::Data(left) => {
                    let len = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len() - at);
                    *left -= len as u64;
                    if *left == 0 {
                        self.state = match self.state {
                            State::Data(_) => State::DataEnd { cr: false },
                            _ => State::Done,
                        };
                    }
                    return Ok((at + len, Piece::Data(&input[at..at + len])));
                }
                _ => {
                    self.take_line_byte(input[at])?;
                    at += 1;
                }
            }
        }
    }

    fn take_line_byte(&mut self, byte: u8) -> Result<(), BadBody> {
        let line_len = if let State::Size { line_len, .. } = self.state { line_len as u64 } else { 0 };
        self.state = self.state.clone().line_byte(byte)?;
        if let State::Data(size) = self.state {
            self.excess = (self.excess + line_len).saturating_sub(LINE_ALLOWED.saturating_add(size));
        }
        if self.excess > EXCESS_MAX { Err(BadBody) } else { Ok(()) }
    }
}

impl State {
    /// The state after one byte of a line of the chunked coding.
    fn line_byte(self, byte: u8) -> Result<State, BadBody> {
        match self {
            State::Size { size, digits, cr: true, .. } => match (byte, size) {
                (b'\n', _) if digits == 0 => Err(BadBody),
                (b'\n', 0) => Ok(TRAILERS),
                (b'\n', _) => Ok(State::Data(size)),
                _ => Err(BadBody),
            },
            State::Size { size, digits, line_len, in_extension, .. } => {
                let line_len = line_len + 1;
                let value = char::from(byte).to_digit(16).map(u64::from);
                match (byte, value) {
                    _ if line_len > SIZE_LINE_LEN_MAX => Err(BadBody),
                    (b'\r', _) => Ok(State::Size { size, digits, line_len, in_extension, cr: true }),
                    _ if in_extension && !is_value(byte) => Err(BadBody),
                    _ if in_extension => Ok(State::Size { size, digits, line_len, in_extension, cr: false }),
                    (b';', _) if digits > 0 => {
                        Ok(State::Size { size, digits, line_len, in_extension: true, cr: false })
                    }
                    (_, Some(value)) if digits < 15 => Ok(State::Size {
                        size: size << 4 | value,
                        digits: digits + 1,
                        line_len,
                        in_extension,
                        cr: false,
                    }),
                    _ => Err(BadBody),
                }
            }
            State::DataEnd { cr: false } if byte == b'\r' => Ok(State::DataEnd { cr: true }),
            State::DataEnd { cr: true } if byte == b'\n' => Ok(SIZE),
            State::Trailers { line_len: 0, cr: true, .. } if byte == b'\n' => Ok(State::Done),
            State::Trailers { total, has_name: true, cr: true, .. } if byte == b'\n' => {
                Ok(State::Trailers { total: total + 1, line_len: 0, has_name: false, cr: false })
            }
            State::Trailers { total, line_len, has_name, cr: false } if total < TRAILERS_LEN_MAX => {
                let (total, next) = (total + 1, line_len + 1);
                match byte {
                    b'\r' => Ok(State::Trailers { total, line_len, has_name, cr: true }),
                    b':' if line_len > 0 => Ok(State::Trailers { total, line_len: next, has_name: true, cr: false }),
                    _ if if has_name { is_value(byte) } else { is_token(byte) } => {
                        Ok(State::Trailers { total, line_len: next, has_name, cr: false })
                    }
                    _ => Err(BadBody),
                }
            }
            _ => Err(BadBody),
        }
    }
}

/// Whether a header's name may have this byte.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether a header's value may have it.
fn is_value(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}
