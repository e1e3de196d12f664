//! Requests as bytes, and responses parsed from bytes as they come. No input or output happens here.
//!
//! Invariant: a body is complete only if its framing says so. A body that ends early is an error, never a short body.

/// Most bytes of a response's head, and of a chunked body's trailers.
pub const HEAD_LEN_MAX: usize = 64 << 10;
/// Most headers of a response.
const HEADERS_MAX: usize = 100;
/// Most bytes of the line that begins a chunk.
const CHUNK_LINE_LEN_MAX: usize = 1024;

/// Why bytes are no response that can be used. The connection is of no more use either.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResponseError {
    /// Not HTTP/1.
    #[error("the answer is not HTTP: {0}")]
    NotHttp(String),
    /// The head does not end within its bound.
    #[error("the head of the answer is over {HEAD_LEN_MAX} bytes or {HEADERS_MAX} headers long")]
    HeadTooLarge,
    /// Content-Length or Transfer-Encoding make no sense.
    #[error("the answer's body has no usable framing: {0}")]
    Framing(String),
    /// The body is longer than the caller takes.
    #[error("the answer's body is over {max} bytes long")]
    BodyTooLarge {
        /// The caller's bound.
        max: u64,
    },
    /// The connection ended first.
    #[error("the connection ended before the answer did")]
    Truncated,
}

/// Status line and headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Status code, 200 to 999.
    pub status: u16,
    /// Whether the server speaks HTTP/1.1 (else 1.0).
    pub http11: bool,
    /// Names (lower case) and values, in order.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The first header of this name, which is given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    fn has_token(&self, name: &str, token: &str) -> bool {
        let values = self.headers.iter().filter(|(n, _)| n == name).map(|(_, value)| value);
        values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
    }
}

/// How far a response has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The head is not complete.
    Head,
    /// The head is complete, the body is not.
    Body,
    /// All of it is here.
    Done {
        /// Bytes at the end of the last push that do not belong to this response.
        unread: usize,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    /// So many bytes of a body with Content-Length are to come.
    Sized(u64),
    /// Until the connection ends.
    UntilClose,
    /// A chunk's first line comes.
    ChunkLine,
    /// So many bytes of a chunk are to come.
    Chunk(u64),
    /// The line end after a chunk comes.
    ChunkEnd,
    Trailers,
    Done,
}

/// Parses one response. Informational ones (1xx) before it are skipped.
#[derive(Debug)]
pub struct ResponseParser {
    head_request: bool,
    body_len_max: u64,
    state: State,
    /// An incomplete head, chunk line or trailer line.
    pending: Vec<u8>,
    head: Head,
    body: Vec<u8>,
    body_len: u64,
    trailers_len: usize,
    continued: bool,
}

impl ResponseParser {
    /// For the answer to a HEAD request or another one; a body of over `body_len_max` bytes is an error.
    pub fn new(head_request: bool, body_len_max: u64) -> ResponseParser {
        ResponseParser {
            head_request,
            body_len_max,
            state: State::Head,
            pending: Vec::new(),
            head: Head::default(),
            body: Vec::new(),
            body_len: 0,
            trailers_len: 0,
            continued: false,
        }
    }

    /// More bytes of the connection. After an error, or once done, no more may be pushed.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Progress, ResponseError> {
        let mut rest = bytes;
        loop {
            let advanced = match self.state {
                State::Head => self.push_head(&mut rest)?,
                State::Sized(left) => {
                    let taken = self.take(&mut rest, left)?;
                    self.state = if taken == left { State::Done } else { State::Sized(left - taken) };
                    taken == left
                }
                State::UntilClose => {
                    self.take(&mut rest, u64::MAX)?;
                    false
                }
                State::ChunkLine => self.push_chunk_line(&mut rest)?,
                State::Chunk(left) => {
                    let taken = self.take(&mut rest, left)?;
                    self.state = if taken == left { State::ChunkEnd } else { State::Chunk(left - taken) };
                    taken == left
                }
                State::ChunkEnd => match self.line(&mut rest)? {
                    Some(line) if line.is_empty() => {
                        self.state = State::ChunkLine;
                        true
                    }
                    Some(_) => return Err(ResponseError::Framing("a chunk is longer than it said".into())),
                    None => false,
                },
                State::Trailers => match self.line(&mut rest)? {
                    Some(line) => {
                        self.trailers_len += line.len() + 2;
                        if self.trailers_len > HEAD_LEN_MAX {
                            return Err(ResponseError::HeadTooLarge);
                        }
                        self.state = if line.is_empty() { State::Done } else { State::Trailers };
                        true
                    }
                    None => false,
                },
                State::Done => return Ok(Progress::Done { unread: rest.len() }),
            };
            if !advanced {
                return Ok(if self.state == State::Head { Progress::Head } else { Progress::Body });
            }
        }
    }

    /// The connection has ended: right for a body without other framing, else an error.
    pub fn end(&mut self) -> Result<(), ResponseError> {
        match self.state {
            State::Done => Ok(()),
            State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            _ => Err(ResponseError::Truncated),
        }
    }

    /// Status and headers, once complete.
    pub fn head(&self) -> Option<&Head> {
        (self.state != State::Head).then_some(&self.head)
    }

    /// Bytes of the body since the last call.
    pub fn take_body(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.body)
    }

    /// Whether all of the response is here.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether the server has said `100 Continue`.
    pub fn has_continued(&self) -> bool {
        self.continued
    }

    /// Whether any byte of a response has come.
    pub fn has_begun(&self) -> bool {
        self.state != State::Head || self.continued || !self.pending.is_empty()
    }

    /// Whether the connection may carry another request once this response is done.
    pub fn keeps_alive(&self) -> bool {
        let asked = if self.head.http11 {
            !self.head.has_token("connection", "close")
        } else {
            self.head.has_token("connection", "keep-alive")
        };
        asked && self.state == State::Done && (self.framed() || self.bodiless())
    }

    fn framed(&self) -> bool {
        self.head.header("content-length").is_some() || self.head.header("transfer-encoding").is_some()
    }

    fn bodiless(&self) -> bool {
        self.head_request || matches!(self.head.status, 204 | 304)
    }

    fn push_head(&mut self, rest: &mut &[u8]) -> Result<bool, ResponseError> {
        let known = self.pending.len();
        self.pending.extend_from_slice(&rest[..rest.len().min(HEAD_LEN_MAX + 1 - known.min(HEAD_LEN_MAX))]);
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut parsed = httparse::Response::new(&mut headers);
        let head_len = match parsed.parse(&self.pending) {
            Ok(httparse::Status::Complete(len)) if len <= HEAD_LEN_MAX => len,
            Ok(httparse::Status::Partial) if self.pending.len() <= HEAD_LEN_MAX => {
                *rest = &[];
                return Ok(false);
            }
            Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(ResponseError::HeadTooLarge),
            Err(error) => return Err(ResponseError::NotHttp(error.to_string())),
        };
        let status = parsed.code.unwrap_or_default();
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let headers = parsed.headers.iter().map(|h| (h.name.to_ascii_lowercase(), text(h.value))).collect();
        self.head = Head { status, http11: parsed.version == Some(1), headers };
        self.pending.clear();
        *rest = &rest[head_len - known..];
        match status {
            101 => return Err(ResponseError::NotHttp("the server switched protocols unasked".into())),
            100..200 => self.continued = true,
            200.. => self.state = self.body_state()?,
            _ => return Err(ResponseError::NotHttp(format!("status {status}"))),
        }
        Ok(true)
    }

    fn body_state(&self) -> Result<State, ResponseError> {
        if self.bodiless() {
            return Ok(State::Done);
        }
        if self.head.header("transfer-encoding").is_some() {
            if self.head.header("content-length").is_some() {
                return Err(ResponseError::Framing("both Content-Length and Transfer-Encoding".into()));
            }
            let mut values = self.head.headers.iter().filter(|(name, _)| name == "transfer-encoding");
            let chunked = values.next().is_some_and(|(_, value)| value.trim().eq_ignore_ascii_case("chunked"));
            if !chunked || values.next().is_some() {
                return Err(ResponseError::Framing("a Transfer-Encoding other than chunked".into()));
            }
            return Ok(State::ChunkLine);
        }
        let mut lengths = self.head.headers.iter().filter(|(name, _)| name == "content-length").map(|(_, value)| value);
        let Some(first) = lengths.next() else { return Ok(State::UntilClose) };
        if lengths.any(|other| other != first) || !first.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ResponseError::Framing("Content-Length is no one number".into()));
        }
        let len: u64 = first.parse().map_err(|_| ResponseError::Framing("Content-Length is no number".into()))?;
        if len > self.body_len_max {
            return Err(ResponseError::BodyTooLarge { max: self.body_len_max });
        }
        Ok(if len == 0 { State::Done } else { State::Sized(len) })
    }

    fn push_chunk_line(&mut self, rest: &mut &[u8]) -> Result<bool, ResponseError> {
        let Some(line) = self.line(rest)? else { return Ok(false) };
        let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let hex = std::str::from_utf8(digits).ok().filter(|text| !text.is_empty() && !text.starts_with('+'));
        let len = hex.and_then(|text| u64::from_str_radix(text, 16).ok());
        let len = len.ok_or_else(|| ResponseError::Framing("a chunk without a length".into()))?;
        self.state = if len == 0 { State::Trailers } else { State::Chunk(len) };
        Ok(true)
    }

    /// A whole line without its end, once it is here.
    fn line(&mut self, rest: &mut &[u8]) -> Result<Option<Vec<u8>>, ResponseError> {
        let end = rest.iter().position(|byte| *byte == b'\n');
        let (part, after) = rest.split_at(end.map_or(rest.len(), |at| at + 1));
        *rest = after;
        self.pending.extend_from_slice(part);
        let len_max = if self.state == State::Trailers { HEAD_LEN_MAX } else { CHUNK_LINE_LEN_MAX };
        if self.pending.len() > len_max {
            return Err(ResponseError::Framing("a line of a chunked body is too long".into()));
        }
        if end.is_none() {
            return Ok(None);
        }
        let mut line = std::mem::take(&mut self.pending);
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(Some(line))
    }

    fn take(&mut self, rest: &mut &[u8], at_most: u64) -> Result<u64, ResponseError> {
        let taken = (rest.len() as u64).min(at_most);
        self.body_len += taken;
        if self.body_len > self.body_len_max {
            return Err(ResponseError::BodyTooLarge { max: self.body_len_max });
        }
        let (part, after) = rest.split_at(taken as usize);
        self.body.extend_from_slice(part);
        *rest = after;
        Ok(taken)
    }
}

/// The head of an HTTP/1.1 request. Control characters in a value become `?`, so that no value can make a header of its
/// own; a caller that has a body adds Content-Length.
pub fn encode_request(method: &str, host: &str, target: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(128 + target.len());
    let clean = |out: &mut Vec<u8>, text: &str, refused: fn(u8) -> bool| {
        out.extend(text.bytes().map(|byte| if refused(byte) { b'?' } else { byte }));
    };
    let control_or_space = |byte: u8| byte.is_ascii_control() || byte == b' ';
    clean(&mut out, method, control_or_space);
    out.push(b' ');
    clean(&mut out, target, control_or_space);
    out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
    clean(&mut out, host, control_or_space);
    for (name, value) in headers {
        out.extend_from_slice(b"\r\n");
        clean(&mut out, name, |byte| byte.is_ascii_control() || byte == b' ' || byte == b':');
        out.extend_from_slice(b": ");
        clean(&mut out, value, |byte| byte.is_ascii_control());
    }
    out.extend_from_slice(b"\r\n\r\n");
    out
}

#[cfg(test)]
#[path = "response_tests.rs"]
mod tests;
