//! Encodings, texts and JSON: what is written comes back; one value has one encoding; nothing from outside panics.

use crate::generated;
use acms_engine::protocol::{
    Durable, Hash, Manifest, Node, Path, Prefix, SpId, Uid,
    api::{Cursor, Incarnation, ListedEntry, OutcomeAnswer},
    encoding::{DecodeError, Reader, Writer},
    path::BadPath,
};
use proptest::{collection::vec, option, prelude::*};

proptest! {
    #[test]
    fn numbers_come_back(value in any::<u64>(), shift in 0..64u32) {
        let value = value >> shift;
        let mut out = Writer::new();
        out.varint(value);
        let mut input = Reader::new(&out.0);
        prop_assert_eq!(input.varint(), Ok(value));
        prop_assert_eq!(input.finish(), Ok(()));
        // The same number with a byte of zeros more is another encoding, and refused.
        *out.0.last_mut().unwrap() |= 0x80;
        out.u8(0);
        prop_assert!(Reader::new(&out.0).varint().is_err());
    }

    #[test]
    fn numbers_have_one_encoding(bytes in vec(any::<u8>(), 0..12)) {
        let mut input = Reader::new(&bytes);
        if let Ok(value) = input.varint() {
            let mut out = Writer::new();
            out.varint(value);
            prop_assert_eq!(&out.0[..], &bytes[..bytes.len() - input.remaining()]);
        }
    }

    #[test]
    fn manifests_come_back(manifest in generated::manifest()) {
        prop_assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
    }

    #[test]
    fn manifests_have_one_encoding(manifest in generated::manifest(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        let mut bytes = manifest.encode();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        if let Ok(other) = Manifest::decode(&bytes) {
            prop_assert_eq!(other.encode(), bytes);
        }
    }

    #[test]
    fn nodes_come_back(node in generated::node()) {
        prop_assert_eq!(Node::decode(&node.encode()), Ok(node));
    }

    #[test]
    fn nodes_have_one_encoding(node in generated::node(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        let mut bytes = node.encode().to_vec();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        if let Ok(other) = Node::decode(&bytes) {
            prop_assert_eq!(other.encode(), bytes);
        }
    }

    #[test]
    fn records_come_back(record in generated::durable()) {
        let (kind, payload, contents) = record.encode();
        prop_assert!(contents.is_empty());
        prop_assert_eq!(Durable::decode(kind, &payload), Ok(record));
    }

    #[test]
    fn arbitrary_bytes_never_panic(kind in 0..12u8, bytes in vec(any::<u8>(), 0..200)) {
        let _ = Manifest::decode(&bytes);
        let _ = Node::decode(&bytes);
        if let Ok(record) = Durable::decode(kind, &bytes) {
            prop_assert_eq!(record.encode().1, bytes);
        }
    }

    #[test]
    fn texts_come_back(uid in generated::uid(), hash in generated::hash(), store in any::<u32>(), starts in any::<u32>(), sequence in any::<u64>()) {
        prop_assert_eq!(uid.to_string().parse(), Ok(uid));
        prop_assert_eq!(hash.to_string().parse(), Ok(hash));
        let cursor = Cursor { sp: uid.sp, incarnation: Incarnation { store, starts }, sequence };
        prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
    }

    #[test]
    fn texts_have_one_form(text in "[0-9+.a -]{0,24}|[0-9]{1,3}\\.[0-9]{1,3}(-[0-9]{1,2})?\\.[0-9]{1,3}|\\PC{0,20}") {
        if let Ok(uid) = text.parse::<Uid>() { prop_assert_eq!(uid.to_string(), text.clone()) }
        if let Ok(cursor) = text.parse::<Cursor>() { prop_assert_eq!(cursor.to_string(), text.clone()) }
        if let Ok(hash) = text.parse::<Hash>() { prop_assert_eq!(hash.to_string(), text.clone()) }
        if let Ok(path) = text.parse::<Path>() { prop_assert_eq!(path.to_string(), text) }
    }

    #[test]
    fn uids_are_ordered_by_time_then_storage_point_then_store(a in generated::uid(), b in generated::uid()) {
        prop_assert_eq!(a.cmp(&b), (a.micros, a.sp, a.store).cmp(&(b.micros, b.sp, b.store)));
    }

    #[test]
    fn paths_obey_the_grammar(text in "[a~./@ é]{0,12}|\\PC{0,30}") {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._@+:=,~-".contains(c);
        let segment = |s: &str| !s.is_empty() && s != "." && s != ".." && !s.starts_with('~') && s.chars().all(allowed);
        prop_assert_eq!(text.parse::<Path>().is_ok(), text.split('/').all(segment));
    }

    #[test]
    fn listed_entries_come_back(entry in generated::entry(), uid in generated::uid(), inline in option::of(generated::bytes(50))) {
        let listed = ListedEntry { inline: inline.map(Into::into), ..ListedEntry::of_publication(uid, &entry) };
        let text = serde_json::to_string(&listed).unwrap();
        prop_assert_eq!(serde_json::from_str::<ListedEntry>(&text).unwrap(), listed);
    }
}

#[test]
fn bounds_of_paths() {
    let parse = |text: &str| text.parse::<Path>().map(|_| ());
    assert_eq!(parse(""), Err(BadPath::Empty));
    assert_eq!(parse("/a"), Err(BadPath::EmptySegment));
    assert_eq!(parse("a/"), Err(BadPath::EmptySegment));
    assert_eq!(parse("a/../b"), Err(BadPath::Dots));
    assert_eq!(parse("a/~acms"), Err(BadPath::Tilde));
    assert_eq!(parse("a b"), Err(BadPath::BadCharacter));
    assert_eq!(parse(&"a".repeat(255)), Ok(()));
    assert_eq!(parse(&"a".repeat(256)), Err(BadPath::SegmentTooLong));
    assert_eq!(parse(&["a"; 16].join("/")), Ok(()));
    assert_eq!(parse(&["a"; 17].join("/")), Err(BadPath::TooDeep));
    let long = vec!["a".repeat(255); 4].join("/");
    assert_eq!(parse(&long), Ok(()));
    assert_eq!(parse(&format!("{long}/a")), Err(BadPath::TooLong));
}

#[test]
fn prefixes_are_whole_segments() {
    let prefix = |text: &str| text.parse::<Prefix>().unwrap();
    let path = |text: &str| text.parse::<Path>().unwrap();
    assert_eq!(prefix("edge/"), prefix("edge"));
    assert!(prefix("").covers("a/b") && prefix("/").covers("a"));
    assert!(prefix("a").covers("a") && prefix("a").covers("a/b"));
    assert!(!prefix("a").covers("ab") && !prefix("a/b").covers("a"));
    assert!(prefix("a/b").concerns(&path("a")) && !prefix("a/b").concerns(&path("c")));
    assert!("a//".parse::<Prefix>().is_err());
}

#[test]
fn wrong_texts_are_refused() {
    for text in
        ["", "1.2", "1.2.3.4", "01.2.3", "+1.2.3", "1.64.0", "1.2.-3", "18446744073709551616.1.0", "1.1.4294967296"]
    {
        assert!(text.parse::<Uid>().is_err(), "{text}");
    }
    for text in ["", "1.0-1", "1.0.1", "1.0-1.", "01.0-1.1", "64.0-1.1", "1.0-1.1.1", "1.+0-1.1"] {
        assert!(text.parse::<Cursor>().is_err(), "{text}");
    }
    for text in [String::new(), "0".repeat(63), "0".repeat(65), "A".repeat(64), "g".repeat(64)] {
        assert!(text.parse::<Hash>().is_err(), "{text}");
    }
}

#[test]
fn lengths_above_the_input_allocate_nothing() {
    let mut input = Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
    assert_eq!(input.count(1), Err(DecodeError::Truncated));
    for level in 0..2 {
        let mut node = Writer(vec![2, level]);
        node.varint(u64::MAX);
        assert!(Node::decode(&node.0).is_err());
    }
}

#[test]
fn fields_of_later_versions_are_kept_in_manifests_and_ignored_in_json() {
    let manifest = Manifest::decode(&[
        1, 3, 9, 1, 0, 2, 1, b'p', 4, 37, 1, b'a', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 1, b'z',
    ])
    .unwrap();
    assert_eq!(manifest.uid, Uid { micros: 9, sp: SpId(1), store: 0 });
    assert_eq!(manifest.unknown, [(7, bytes::Bytes::from_static(b"z"))]);
    let answer: OutcomeAnswer = serde_json::from_str(r#"{"outcome":"accepted","uid":"9.1.0","later":[1]}"#).unwrap();
    assert_eq!(answer.uid, Some(manifest.uid));
}
