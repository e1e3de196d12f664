//! Requests, as far as they are understood without a socket: head, body, target, range. What is taken means one thing,
//! however it comes and whoever reads it.

use crate::split;
use acms_engine::runtime::http::{
    body::{BodyReader, Piece},
    head::{self, Framing, Head, Method},
    range::{self, Wanted},
    target::{self, Resource},
};

/// One input: how it is cut, then what a client sends over one connection.
pub fn check(input: &[u8]) {
    let Some((bytes, ends)) = split::cut(input) else { return };
    let whole = read_all(bytes, std::iter::once(bytes.len()));
    let pieces = read_all(bytes, ends);
    assert_eq!(whole.requests, pieces.requests, "the same requests, however they came");
    // An answer to what is wrong may come before all of it is there, and then for what was seen first.
    assert_eq!(whole.is_bad, pieces.is_bad);
}

#[derive(PartialEq, Debug)]
struct Request {
    method: Method,
    target: String,
    framing: Framing,
    keep_alive: bool,
    body: Vec<u8>,
}

#[derive(Default, Debug)]
struct Connection {
    requests: Vec<Request>,
    is_bad: bool,
}

/// What a server makes of `bytes` that come in pieces with these ends.
fn read_all(bytes: &[u8], ends: impl Iterator<Item = usize>) -> Connection {
    let mut connection = Connection::default();
    let (mut at, mut open): (usize, Option<(Request, BodyReader)>) = (0, None);
    for end in ends {
        loop {
            match &mut open {
                None => {
                    let mut room = head::header_room();
                    match head::parse(&bytes[at..end], &mut room) {
                        Ok(None) => break,
                        Err(bad) => {
                            assert!((400..=505).contains(&bad.status) && !bad.reason.is_empty());
                            connection.is_bad = true;
                            return connection;
                        }
                        Ok(Some((head, len))) => {
                            check_head(&head, &bytes[at..at + len]);
                            check_target(&head);
                            at += len;
                            open = Some((request(&head), BodyReader::new(head.framing)));
                        }
                    }
                }
                Some((request, reader)) => {
                    let Ok((taken, piece)) = reader.next(&bytes[at..end]) else {
                        connection.is_bad = true;
                        return connection;
                    };
                    at += taken;
                    match piece {
                        Piece::NeedMore => {
                            assert_eq!(at, end, "all input was taken");
                            break;
                        }
                        Piece::Data(data) => request.body.extend(data),
                        Piece::End => {
                            if let Framing::Length(len) = request.framing {
                                assert_eq!(request.body.len() as u64, len);
                            }
                            connection.requests.extend(open.take().map(|(request, _)| request));
                        }
                    }
                }
            }
        }
    }
    connection
}

fn request(head: &Head<'_>) -> Request {
    let target = head.query.map_or(head.path.to_owned(), |query| format!("{}?{query}", head.path));
    Request { method: head.method, target, framing: head.framing, keep_alive: head.keep_alive, body: Vec::new() }
}

/// A reader that knows nothing but lines finds the same framing, and nothing that others could read in another way.
fn check_head(head: &Head<'_>, bytes: &[u8]) {
    assert!(bytes.len() <= head::HEAD_LEN_MAX && bytes.ends_with(b"\r\n\r\n"));
    assert!(!bytes.contains(&0), "no NUL");
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.trim_start_matches("\r\n").split("\r\n");
    assert_eq!(lines.next().map(|line| line.split(' ').count()), Some(3), "method, target, version");
    let (mut lengths, mut codings, mut hosts) = (Vec::new(), Vec::new(), 0);
    for line in lines.take_while(|line| !line.is_empty()) {
        assert!(!line.contains(['\r', '\n']), "lines end with CR LF and nothing else");
        let (name, value) = line.split_once(':').expect("a header has a colon");
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        assert!(!name.is_empty() && name.bytes().all(is_token), "a header's name is a token: {name:?}");
        match name.to_ascii_lowercase().as_str() {
            "content-length" => lengths.push(value.trim_matches([' ', '\t']).to_owned()),
            "transfer-encoding" => codings.push(value.trim_matches([' ', '\t']).to_ascii_lowercase()),
            "host" => hosts += 1,
            _ => {}
        }
    }
    assert!(hosts == 1 || (hosts == 0 && !head.is_http11));
    match head.framing {
        Framing::None => assert!(lengths.is_empty() && codings.is_empty()),
        Framing::Length(len) => {
            assert!(codings.is_empty() && lengths.iter().all(|text| text.parse() == Ok(len)));
            assert!(lengths.iter().all(|text| text.bytes().all(|byte| byte.is_ascii_digit())));
        }
        Framing::Chunked => assert!(lengths.is_empty() && codings == ["chunked"] && head.is_http11),
    }
}

/// What a target names, named in the plain way, is the same.
fn check_target(head: &Head<'_>) {
    if let Ok(Some(text)) = head.single("range") {
        for len in [0, 1, 10, u64::MAX] {
            if let Wanted::Part(start, end) = range::parse(text, len) {
                assert!(start < end && end <= len, "{text:?} of {len} bytes");
            }
        }
    }
    let Ok(resource) = target::resource(head.path, head.query) else { return };
    let plain = match &resource {
        Resource::Config(path) => format!("/v1/config/{path}"),
        Resource::Object(hash) => format!("/v1/objects/{hash}"),
        Resource::Publication(uid) => format!("/v1/publications/{uid}"),
        Resource::Changes(cursor, prefix) => format!("/v1/changes/{cursor}/{prefix}"),
        _ => return,
    };
    assert_eq!(target::resource(&plain, None), Ok(resource), "{plain}");
}
