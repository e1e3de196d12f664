//! Request bodies, cut out of what a connection receives.

use crate::runtime::http::head::Framing;

const SIZE_LINE_LEN_MAX: usize = 256;
const TRAILERS_LEN_MAX: usize = 4 << 10;

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
pub struct BodyReader(State);

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
    Trailers { total: usize, line_len: usize, cr: bool },
    /// Ended.
    Done,
}

const SIZE: State = State::Size { size: 0, digits: 0, line_len: 0, in_extension: false, cr: false };

impl BodyReader {
    /// At the start of a body.
    pub fn new(framing: Framing) -> BodyReader {
        BodyReader(match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(len) => State::Length(len),
            Framing::Chunked => SIZE,
        })
    }

    /// Takes the next piece off `input`: how many bytes were consumed, and what they were.
    pub fn next<'a>(&mut self, input: &'a [u8]) -> Result<(usize, Piece<'a>), BadBody> {
        let mut at = 0;
        loop {
            match &mut self.0 {
                State::Done => return Ok((at, Piece::End)),
                _ if at == input.len() => return Ok((at, Piece::NeedMore)),
                State::Length(left) | State::Data(left) => {
                    let len = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len() - at);
                    *left -= len as u64;
                    if *left == 0 {
                        self.0 = match self.0 {
                            State::Data(_) => State::DataEnd { cr: false },
                            _ => State::Done,
                        };
                    }
                    return Ok((at + len, Piece::Data(&input[at..at + len])));
                }
                _ => {
                    self.0 = self.0.clone().line_byte(input[at])?;
                    at += 1;
                }
            }
        }
    }
}

impl State {
    /// The state after one byte of a line of the chunked coding.
    fn line_byte(self, byte: u8) -> Result<State, BadBody> {
        match self {
            State::Size { size, digits, cr: true, .. } => match (byte, size) {
                (b'\n', _) if digits == 0 => Err(BadBody),
                (b'\n', 0) => Ok(State::Trailers { total: 0, line_len: 0, cr: false }),
                (b'\n', _) => Ok(State::Data(size)),
                _ => Err(BadBody),
            },
            State::Size { size, digits, line_len, in_extension, .. } => {
                let line_len = line_len + 1;
                let value = char::from(byte).to_digit(16).map(u64::from);
                match (byte, value) {
                    _ if line_len > SIZE_LINE_LEN_MAX => Err(BadBody),
                    (b'\r', _) => Ok(State::Size { size, digits, line_len, in_extension, cr: true }),
                    (b'\n' | 0, _) => Err(BadBody),
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
            State::Trailers { total, cr: true, .. } if byte == b'\n' => {
                Ok(State::Trailers { total: total + 1, line_len: 0, cr: false })
            }
            State::Trailers { total, line_len, cr: false } if total < TRAILERS_LEN_MAX => match byte {
                b'\r' => Ok(State::Trailers { total: total + 1, line_len, cr: true }),
                b'\n' | 0 => Err(BadBody),
                _ => Ok(State::Trailers { total: total + 1, line_len: line_len + 1, cr: false }),
            },
            _ => Err(BadBody),
        }
    }
}
