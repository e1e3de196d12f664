//! Request heads: what is taken, and what each malformed one gets. Where two readers of the same bytes could disagree
//! about where a request ends, the request is refused and the connection closed.

use crate::runtime::http::cause::Cause;
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
    /// OPTIONS.
    Options,
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
    /// For those who count.
    pub cause: Cause,
}

const fn bad(status: u16, cause: Cause, reason: &'static str) -> BadHead {
    BadHead { status, reason, cause }
}

/// A parsed head, borrowed from the input.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// Method.
    pub method: Method,
    /// Path part of the target, still percent-encoded; starts with `/`, or is `*` (OPTIONS of the server).
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
            (Some(_), Some(_)) => Err(bad(400, Cause::Header, "a header that must not be repeated is repeated")),
            (Some(value), None) => match std::str::from_utf8(value) {
                Ok(text) => Ok(Some(text)),
                Err(_) => Err(bad(400, Cause::Header, "a header's value is no text")),
            },
        }
    }

    /// The value of a header that is a list; lines of the same name are one list.
    pub fn list(&self, name: &str) -> Result<Option<String>, BadHead> {
        let mut list: Option<String> = None;
        for value in self.all(name) {
            let text =
                std::str::from_utf8(value).map_err(|_| bad(400, Cause::Header, "a header's value is no text"))?;
            match &mut list {
                None => list = Some(text.to_owned()),
                Some(list) => {
                    list.push(',');
                    list.push_str(text);
                }
            }
        }
        Ok(list)
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
        Err(httparse::Error::TooManyHeaders) => {
            return Err(bad(431, Cause::HeadTooLarge, "too many headers; 64 are taken"));
        }
        Err(httparse::Error::Version) => {
            return Err(bad(505, Cause::Version, "only HTTP/1.0 and HTTP/1.1 are spoken here"));
        }
        Err(_) => return Err(bad(400, Cause::Head, "malformed request head")),
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
        return Err(bad(400, Cause::LineEnd, "a line of the head ends without a carriage return"));
    }
    let method = method(request.method.unwrap_or_default())?;
    let target = request.path.unwrap_or_default();
    if target.len() > TARGET_LEN_MAX {
        return Err(bad(414, Cause::TargetTooLong, "the request target is too long"));
    }
    let (path, query) = split_target(method, target).ok_or(bad(400, Cause::Target, "malformed request target"))?;
    let headers: &'a [httparse::Header<'a>] = request.headers;
    let is_http11 = request.version == Some(1);
    check_host(headers, is_http11)?;
    let head = Head {
        method,
        path,
        query,
        keep_alive: keep_alive(headers, is_http11),
        is_http11,
        framing: framing(headers, is_http11)?,
        expects_continue: expects_continue(headers, is_http11)?,
        headers,
    };
    Ok(Some((head, len)))
}

fn too_long(input: &[u8]) -> BadHead {
    let start = input.iter().position(|byte| !b"\r\n".contains(byte)).unwrap_or(input.len());
    match input[start..].iter().position(|byte| *byte == b'\n') {
        Some(len) if len <= HEAD_LEN_MAX => {
            bad(431, Cause::HeadTooLarge, "the request head is too long; 8 KiB are taken")
        }
        None if start == input.len() => bad(431, Cause::HeadTooLarge, "nothing but line ends"),
        _ => bad(414, Cause::TargetTooLong, "the request target is too long"),
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
        "OPTIONS" => Ok(Method::Options),
        "POST" | "PATCH" | "TRACE" | "CONNECT" => Ok(Method::NotAllowed),
        _ => Err(bad(501, Cause::Method, "unknown method")),
    }
}

/// Path and query of a target in origin form or absolute form, or of `*`.
fn split_target(method: Method, target: &str) -> Option<(&str, Option<&str>)> {
    if target == "*" {
        return (method == Method::Options).then_some(("*", None));
    }
    let origin = if target.starts_with('/') { target } else { without_authority(target)? };
    if !origin.is_ascii() || origin.contains('#') {
        return None;
    }
    let (path, query) = origin.split_once('?').map_or((origin, None), |(path, query)| (path, Some(query)));
    Some((if path.is_empty() { "/" } else { path }, query))
}

/// What follows the authority in a target in absolute form. The authority itself means nothing here, but it must be one.
fn without_authority(target: &str) -> Option<&str> {
    let (scheme, rest) = target.split_once("://")?;
    let is_http = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    let (authority, origin) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    (is_http && !authority.is_empty() && is_host(authority.as_bytes())).then_some(origin)
}

/// Whether `value` can be a host with or without a port: of the right characters, and not two of them.
fn is_host(value: &[u8]) -> bool {
    value.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(byte))
}

fn check_host(headers: &[httparse::Header<'_>], is_http11: bool) -> Result<(), BadHead> {
    let mut hosts = values(headers, "host");
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_host(host) => Ok(()),
        (Some(_), None) => Err(bad(400, Cause::Host, "the Host header names no host")),
        (None, _) if !is_http11 => Ok(()),
        (None, _) => Err(bad(400, Cause::Host, "HTTP/1.1 wants a Host header")),
        (Some(_), Some(_)) => Err(bad(400, Cause::Host, "more than one Host header")),
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
        false => Err(bad(417, Cause::Expectation, "the only expectation that can be met is 100-continue")),
    }
}

fn framing(headers: &[httparse::Header<'_>], is_http11: bool) -> Result<Framing, BadHead> {
    let length = content_length(headers)?;
    let mut codings = values(headers, "transfer-encoding").peekable();
    if codings.peek().is_none() {
        return Ok(length.map_or(Framing::None, Framing::Length));
    }
    let refused = |status, reason| Err(bad(status, Cause::TransferEncoding, reason));
    if length.is_some() {
        return refused(400, "both Content-Length and Transfer-Encoding");
    }
    if !is_http11 {
        return refused(400, "Transfer-Encoding in HTTP/1.0");
    }
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let all: Vec<&[u8]> = tokens(headers, "transfer-encoding").collect();
    match all.as_slice() {
        [coding] if is_chunked(coding) => Ok(Framing::Chunked),
        [others @ .., last] if is_chunked(last) && !others.iter().any(|coding| is_chunked(coding)) => {
            refused(501, "the only transfer coding taken is chunked")
        }
        _ => refused(400, "the last transfer coding must be chunked, once"),
    }
}

/// What all headers Content-Length say.
fn content_length(headers: &[httparse::Header<'_>]) -> Result<Option<u64>, BadHead> {
    const DIGITS_MAX: usize = 18;
    let mut length = None;
    for value in values(headers, "content-length") {
        if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
            return Err(bad(400, Cause::ContentLength, "malformed Content-Length"));
        }
        if value.len() > DIGITS_MAX {
            return Err(bad(413, Cause::ContentLength, "no body of that length is taken"));
        }
        let number = value.iter().fold(0u64, |number, digit| number * 10 + u64::from(digit - b'0'));
        if length.is_some_and(|other| other != number) {
            return Err(bad(400, Cause::ContentLength, "two Content-Length headers that differ"));
        }
        length = Some(number);
    }
    Ok(length)
}
