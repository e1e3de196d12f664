//! The tables of bad inputs in `engine/docs/HOSTILE.md`.

use acms_engine::{
    protocol::{SpId, StoreId},
    wire::{Decoder, Frame, Hello, encode_hello},
};
use std::{
    io::{self, Read as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// A listener of a storage point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Listener {
    /// Every one that speaks HTTP.
    Http,
    Deliver,
    Publish,
    Peer,
}

/// One bad input, and what it gets.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) listener: Listener,
    pub(crate) what: String,
    /// Escaped.
    pub(crate) sent: String,
    /// Statuses of all answers.
    pub(crate) answers: Vec<u16>,
    pub(crate) is_closed: bool,
    /// Label of the counter.
    pub(crate) reason: Option<String>,
}

const TABLES: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../engine/docs/HOSTILE.md"));

/// All rows.
pub(crate) fn rows() -> Vec<Row> {
    let (mut listener, mut rows) = (None, Vec::new());
    for line in TABLES.lines() {
        match line {
            "## At every HTTP listener" => listener = Some(Listener::Http),
            "## At listen.deliver" => listener = Some(Listener::Deliver),
            "## At listen.publish" => listener = Some(Listener::Publish),
            "## At listen.peer" => listener = Some(Listener::Peer),
            _ => {}
        }
        let Some(listener) = listener else { continue };
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", what, sent, answers, then, reason, ""] = cells[..] else { continue };
        if what == "what" || what.starts_with("---") {
            continue;
        }
        let some = |text: &str| Some(text.to_owned()).filter(|text| text != "-");
        let answers = some(answers).unwrap_or_default();
        rows.push(Row {
            listener,
            what: what.to_owned(),
            sent: sent.trim_matches('`').to_owned(),
            answers: answers.split_whitespace().map(|status| status.parse().expect("a status")).collect(),
            is_closed: match then {
                "closed" => true,
                "open" => false,
                _ => panic!("{what}: {then:?} is neither closed nor open"),
            },
            reason: some(reason),
        });
    }
    rows
}

/// The bytes of a row's `sent`. `theirs` is the hello of the storage point, where it is needed.
pub(crate) fn bytes(sent: &str, theirs: Option<&Hello>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = sent;
    while let Some(first) = rest.chars().next() {
        if first == '{' {
            let (inside, after) = rest[1..].split_once('}').expect("a brace is closed");
            out.extend(expanded(inside, theirs));
            rest = after;
        } else if first == '\\' {
            let (byte, len) = escaped(rest);
            out.push(byte);
            rest = &rest[len..];
        } else {
            out.extend(first.to_string().bytes());
            rest = &rest[first.len_utf8()..];
        }
    }
    out
}

fn escaped(text: &str) -> (u8, usize) {
    match text.as_bytes()[1] {
        b'r' => (b'\r', 2),
        b'n' => (b'\n', 2),
        b't' => (b'\t', 2),
        b'0' => (0, 2),
        b'\\' => (b'\\', 2),
        b'x' => (u8::from_str_radix(&text[2..4], 16).expect("two hex digits"), 4),
        other => panic!("no escape {}", char::from(other)),
    }
}

fn expanded(inside: &str, theirs: Option<&Hello>) -> Vec<u8> {
    let mut words = inside.splitn(3, ' ');
    match (words.next(), words.next(), words.next()) {
        (Some("hello"), change, None) => hello(theirs.expect("hellos are said to peers"), change),
        (Some("frame"), Some(kind), Some(body)) => frame(kind.parse().expect("a kind"), body.as_bytes()),
        _ => {
            let (text, times) = inside.rsplit_once('*').expect("text*times");
            bytes(text, None).repeat(times.parse().expect("a number"))
        }
    }
}

fn hello(theirs: &Hello, change: Option<&str>) -> Vec<u8> {
    let mut hello = theirs.clone();
    hello.header.from = SpId(1);
    hello.header.store = StoreId { number: 0, nonce: 77 };
    hello.header.stores.clear();
    match change.and_then(|change| change.split_once('=')) {
        None => {}
        Some(("cluster", name)) => hello.cluster = name.to_owned(),
        Some(("epoch", number)) => hello.header.epoch = number.parse().expect("a number"),
        Some(("config", number)) => hello.header.config = [number.parse().expect("a byte"); 8],
        Some(("from", number)) => hello.header.from = SpId(number.parse().expect("a number")),
        Some((other, _)) => panic!("a hello has no {other}"),
    }
    encode_hello(&hello).expect("it is short")
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = b"AC\x01".to_vec();
    frame.push(kind);
    frame.extend((body.len() as u32).to_le_bytes());
    frame.extend(crc32c::crc32c(body).to_le_bytes());
    frame.extend(body);
    frame
}

/// The hello that a storage point says first.
pub(crate) fn hello_of(peer: SocketAddr) -> io::Result<Hello> {
    let mut stream = TcpStream::connect(peer)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let (mut decoder, mut buffer) = (Decoder::expecting_hello(), [0; 4096]);
    loop {
        let len = stream.read(&mut buffer)?;
        decoder.push(&buffer[..len]);
        match decoder.next().map_err(io::Error::other)? {
            Some(Frame::Hello(hello)) => return Ok(hello),
            _ if len == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ => {}
        }
    }
}
