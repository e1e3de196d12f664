//! The store's bytes are those in `docs/LOG.md`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod store;

use acms_engine::{
    protocol::{Durable, Entry, Flags, Hash, Instant, Manifest, SpId, Uid, durable::InlineContent},
    store::{MemoryStorage, Options, Prepare, Store},
};
use bytes::Bytes;
use std::sync::Arc;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/LOG.md");

/// The block of `docs/LOG.md` of this language and name.
fn vector(language: &str, name: &str) -> String {
    let text = std::fs::read_to_string(DOCUMENT).unwrap();
    let start = format!("```{language} {name}\n");
    let (_, rest) = text.split_once(start.as_str()).unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

/// `found` is the hex block of this name, or becomes it.
fn expect(found: &[u8], name: &str) {
    let (found, before) = (hex(found), vector("hex", name));
    if found != before && std::env::var_os("UPDATE_EXPECT").is_some() {
        let text = std::fs::read_to_string(DOCUMENT).unwrap();
        let block = |hex: &str| format!("```hex {name}\n{hex}```");
        std::fs::write(DOCUMENT, text.replace(&block(&before), &block(&found))).unwrap();
    } else {
        assert_eq!(found, before, "{name}");
    }
}

fn hex(bytes: &[u8]) -> String {
    let lines = bytes.chunks(32).map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n");
    lines.collect()
}

fn held() -> Durable {
    let bytes = Bytes::from_static(b"hello");
    let hash = Hash::of(&bytes);
    let (content_type, flags) = (String::new(), Flags::default());
    let entry = Entry { path: "a".parse().unwrap(), hash, size: 5, content_type, flags };
    let uid = Uid { micros: 5, sp: SpId(1), store: 0 };
    let manifest = Manifest { uid, publisher: "p".into(), key: None, entries: vec![entry], unknown: Vec::new() };
    Durable::Held { manifest: Arc::new(manifest), contents: vec![InlineContent { hash, bytes }], own_bit: false }
}

#[test]
fn the_bytes_are_as_documented() {
    let disk = MemoryStorage::new();
    Store::create(disk.clone(), &store::identity()).unwrap();
    let options = Options { segment_len: 4 << 10, prepare: Prepare::Foreground, ..Options::default() };
    let mut opened = Store::open_with(disk.clone(), options).unwrap();
    opened.log.commit(&[Durable::Started { starts: 1 }, held()]).unwrap();

    let identity = disk.bytes("identity").unwrap();
    assert_eq!(String::from_utf8_lossy(&identity), vector("text", "identity"));
    assert_eq!(hex(&Hash::of(&identity).0[..8]), vector("hex", "binding"));
    let segment = disk.bytes("segment-0000000000000001").unwrap();
    assert_eq!(segment.len(), 1 << 20);
    assert_eq!(hex(&segment[..32]), vector("hex", "segment"));
    assert!(segment[32..512].iter().all(|byte| *byte == 0));
    let len = u32::from_le_bytes(segment[512 + 28..512 + 32].try_into().unwrap()) as usize;
    assert_eq!(hex(&segment[512..512 + len]), vector("hex", "commit"));
    assert!(segment[512 + len..].iter().all(|byte| *byte == 0));
}

#[test]
fn a_checkpoint_and_moved_contents_are_as_documented() {
    let disk = MemoryStorage::new();
    Store::create(disk.clone(), &store::identity()).unwrap();
    let mut opened = Store::open_with(disk.clone(), Options::foreground(4 << 10)).unwrap();
    opened.log.commit(&[Durable::Started { starts: 1 }, held()]).unwrap();
    opened.maintenance.checkpoint(Instant(1)).unwrap();
    let checkpoint = disk.bytes("checkpoint").unwrap();
    assert!(checkpoint[64..512].iter().all(|byte| *byte == 0));
    expect(&[&checkpoint[..64], &checkpoint[512..]].concat(), "checkpoint");
    let sealed =
        |bytes: &[u8]| crc32c::crc32c(&[&bytes_of(&vector("hex", "binding"))[..], bytes].concat()).to_le_bytes();
    assert_eq!(checkpoint[8..12], sealed(&checkpoint[12..512]));
    assert_eq!(checkpoint[512..516], sealed(&checkpoint[516..]));

    let hello = InlineContent { hash: Hash::of(b"hello"), bytes: Bytes::from_static(b"hello") };
    opened.log.commit_writes([], &[hello]).unwrap();
    let segment = disk.bytes("segment-0000000000000001").unwrap();
    let at = 1024;
    let len = u32::from_le_bytes(segment[at + 28..at + 32].try_into().unwrap()) as usize;
    expect(&segment[at..at + len], "copies");
    drop(opened);
    let opened = Store::open_with(disk, Options::foreground(4 << 10)).unwrap();
    assert_eq!(opened.records, [Durable::Started { starts: 1 }, store::read_back(&held())]);
    assert_eq!(opened.contents.read(&Hash::of(b"hello"), 0, 5).unwrap(), "hello");
}

#[test]
fn checksums_are_those_of_the_text() {
    let binding: Vec<u8> = bytes_of(&vector("hex", "binding"));
    let commit = bytes_of(&vector("hex", "commit"));
    let sealed = |bytes: &[u8]| crc32c::crc32c(&[&binding, bytes].concat());
    let number = |at: usize| u32::from_le_bytes(commit[at..at + 4].try_into().unwrap());
    assert_eq!(number(4), sealed(&commit[8..40]));
    let first_len = number(40 + 4) as usize;
    assert_eq!(number(40), sealed(&commit[44..40 + first_len]));
    let second = 40 + first_len;
    assert_eq!(number(second), sealed(&commit[second + 4..commit.len() - 5]));
    assert_eq!(&commit[commit.len() - 5..], b"hello");
    assert_eq!(number(36), sealed(&[&commit[40..44], &commit[second..second + 4]].concat()));
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}
