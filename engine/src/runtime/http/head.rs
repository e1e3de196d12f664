//! Request heads: what is taken, and what each malformed one gets. Where two readers of the same bytes could disagree
//! about where a request ends, the request is refused and the connection closed.

use std::mem::MaybeUninit;

/// Most bytes of a request head.
pub const HEAD_LEN_MAX: usize = 8 << 10;
/// Most headers of a request.
pub const HEADERS_MAX: usize = 64;
/// Most bytes of a request's target.
pub const TARGET_LEN_MAX: usize = 4 << 10;

/// Request methods that mean something here, and those that are known to mean nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// PUT.
    Put,
    /// DELETE.
    Delete,
    /// A registered method that no resource here takes: 405.
    NotAllowed,
}

/// How a request's body is delimited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// No body.
    None,
    /// This many bytes.
    Length(u64),
    /// Chunked transfer coding.
    Chunked,
}

/// A request is refused by its head alone, and its connection closed after the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{status}: {reason}")]
pub struct BadHead {
    /// HTTP status.
    pub status: u16,
    /// For the client.
    pub reason: &'static str,
}

const fn bad(status: u16, reason: &'static str) -> BadHead {
    BadHead { status, reason }
}

/// A parsed head, borrowed from the input.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// Method.
    pub method: Method,
    /// Path part of the target, still percent-encoded; starts with `/`.
    pub path: &'a str,
    /// What follows `?`.
    pub query: Option<&'a str>,
    /// The connection may stay open after the answer.
    pub keep_alive: bool,
    /// HTTP/1.1 or later minor version.
    pub is_http11: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// How the body is delimited.
    pub framing: Framing,
    headers: &'a [httparse::Header<'a>],
}

impl<'a> Head<'a> {
    /// The value of a header that occurs once. Twice, or not text: an error.
    pub fn single(&self, name: &str) -> Result<Option<&'a str>, BadHead> {
        let mut values = self.all(name);
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(_), Some(_)) => Err(bad(400, "a header that must not be repeated is repeated")),
            (Some(value), None) => match std::str::from_utf8(value) {
                Ok(text) => Ok(Some(text)),
                Err(_) => Err(bad(400, "a header's value is no text")),
            },
        }
    }

    /// Whether the header is there.
    pub fn has(&self, name: &str) -> bool {
        self.all(name).next().is_some()
    }

    /// All values of a header.
    pub fn all<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'a [u8]> + 's {
        values(self.headers, name)
    }
}

fn values<'a: 's, 's>(headers: &'s [httparse::Header<'a>], name: &'s str) -> impl Iterator<Item = &'a [u8]> + 's {
    headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
}

/// Room for the headers of one request.
pub type HeaderRoom<'a> = [MaybeUninit<httparse::Header<'a>>; HEADERS_MAX];

/// Fresh room.
pub const fn header_room<'a>() -> HeaderRoom<'a> {
    [const { MaybeUninit::uninit() }; HEADERS_MAX]
}

/// Parses the head at the start of `input`: the head and its length in bytes; `None` if it is not all there yet.
pub fn parse<'a>(input: &'a [u8], room: &'a mut HeaderRoom<'a>) -> Result<Option<(Head<'a>, usize)>, BadHead> {
    let mut request = httparse::Request::new(&mut []);
    let status = match request.parse_with_uninit_headers(input, room) {
        Ok(status) => status,
        Err(httparse::Error::TooManyHeaders) => return Err(bad(431, "too many headers; 64 are taken")),
        Err(httparse::Error::Version) => return Err(bad(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")),
        Err(_) => return Err(bad(400, "malformed request head")),
    };
    let httparse::Status::Complete(len) = status else {
        return match input.len() > HEAD_LEN_MAX {
            true => Err(too_long(input)),
            false => Ok(None),
        };
    };
    if len > HEAD_LEN_MAX {
        return Err(too_long(input));
    }
    if has_bare_line_feed(&input[..len]) {
        return Err(bad(400, "a line of the head ends without a carriage return"));
    }
    let method = method(request.method.unwrap_or_default())?;
    let target = request.path.unwrap_or_default();
    if target.len() > TARGET_LEN_MAX {
        return Err(bad(414, "the request target is too long"));
    }
    let (path, query) = split_target(target).ok_or(bad(400, "malformed request target"))?;
    let headers: &'a [httparse::Header<'a>] = request.headers;
    let is_http11 = request.version == Some(1);
    check_host(headers, is_http11)?;
    let head = Head {
        method,
        path,
        query,
        keep_alive: keep_alive(headers, is_http11),
        is_http11,
        expects_continue: expects_continue(headers, is_http11)?,
        framing: framing(headers, is_http11)?,
        headers,
    };
    Ok(Some((head, len)))
}

fn too_long(input: &[u8]) -> BadHead {
    match input[..HEAD_LEN_MAX.min(input.len())].contains(&b'\n') {
        true => bad(431, "the request head is too long; 8 KiB are taken"),
        false => bad(414, "the request target is too long"),
    }
}

fn has_bare_line_feed(head: &[u8]) -> bool {
    // Empty lines before the request line are tolerated by the parser; there too each must be CRLF.
    head.iter().enumerate().any(|(at, byte)| *byte == b'\n' && (at == 0 || head[at - 1] != b'\r'))
}

fn method(name: &str) -> Result<Method, BadHead> {
    match name {
        "GET" => Ok(Method::Get),
        "HEAD" => Ok(Method::Head),
        "PUT" => Ok(Method::Put),
        "DELETE" => Ok(Method::Delete),
        "POST" | "PATCH" | "OPTIONS" | "TRACE" | "CONNECT" => Ok(Method::NotAllowed),
        _ => Err(bad(501, "unknown method")),
    }
}

/// Path and query of an origin-form or absolute-form target.
fn split_target(target: &str) -> Option<(&str, Option<&str>)> {
    let origin = if target.starts_with('/') {
        target
    } else {
        let rest = target.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("http://")).map(|_| &target[7..])?;
        &rest[rest.find('/')?..]
    };
    if !origin.is_ascii() || origin.contains('#') {
        return None;
    }
    Some(match origin.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (origin, None),
    })
}

fn check_host(headers: &[httparse::Header<'_>], is_http11: bool) -> Result<(), BadHead> {
    match values(headers, "host").count() {
        1 => Ok(()),
        0 if !is_http11 => Ok(()),
        0 => Err(bad(400, "HTTP/1.1 wants a Host header")),
        _ => Err(bad(400, "more than one Host header")),
    }
}

/// The comma-separated parts of all values of a header.
fn tokens<'a: 's, 's>(headers: &'s [httparse::Header<'a>], name: &'s str) -> impl Iterator<Item = &'a [u8]> + 's {
    values(headers, name).flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

fn keep_alive(headers: &[httparse::Header<'_>], is_http11: bool) -> bool {
    let says = |word: &str| tokens(headers, "connection").any(|token| token.eq_ignore_ascii_case(word.as_bytes()));
    if is_http11 { !says("close") } else { says("keep-alive") && !says("close") }
}

fn expects_continue(headers: &[httparse::Header<'_>], is_http11: bool) -> Result<bool, BadHead> {
    let mut expectations = tokens(headers, "expect").peekable();
    if !is_http11 || expectations.peek().is_none() {
        return Ok(false);
    }
    match expectations.all(|token| token.eq_ignore_ascii_case(b"100-continue")) {
        true => Ok(true),
        false => Err(bad(417, "the only expectation that can be met is 100-continue")),
    }
}

fn framing(headers: &[httparse::Header<'_>], is_http11: bool) -> Result<Framing, BadHead> {
    let mut length = None;
    for value in values(headers, "content-length") {
        let digits = !value.is_empty() && value.len() <= 18 && value.iter().all(u8::is_ascii_digit);
        if !digits {
            return Err(bad(400, "malformed Content-Length"));
        }
        let number = value.iter().fold(0u64, |number, digit| number * 10 + u64::from(digit - b'0'));
        if length.is_some_and(|other| other != number) {
            return Err(bad(400, "two Content-Length headers that differ"));
        }
        length = Some(number);
    }
    let mut codings = values(headers, "transfer-encoding");
    match (codings.next(), codings.next(), length) {
        (None, _, None) => Ok(Framing::None),
        (None, _, Some(0)) => Ok(Framing::Length(0)),
        (None, _, Some(length)) => Ok(Framing::Length(length)),
        (Some(_), _, Some(_)) => Err(bad(400, "both Content-Length and Transfer-Encoding")),
        (Some(_), _, None) if !is_http11 => Err(bad(400, "Transfer-Encoding in HTTP/1.0")),
        (Some(coding), None, None) if coding.trim_ascii().eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
        (Some(_), _, None) => Err(bad(400, "the only transfer coding taken is chunked, once")),
    }
}
