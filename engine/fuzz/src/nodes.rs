//! Index nodes: what decodes has that one encoding; what an index is made of stands where it may, whatever the order in
//! which its entries came.

use acms_engine::protocol::{Flags, Hash, IndexEntry, Instant, Node, NodePlace, Path, SpId, Uid, index::Index};
use std::time::Duration;

/// More would only be slower.
const ENTRIES_MAX: usize = 64;

/// One input: a kind and the bytes of a node, or, if the kind's last two bits are set, the entries of an index.
pub fn check(input: &[u8]) {
    match input.split_first() {
        Some((kind, entries)) if kind & 3 == 3 => check_index(entries),
        Some((_, bytes)) => check_node(bytes),
        None => {}
    }
}

fn check_node(bytes: &[u8]) {
    let Ok(node) = Node::decode(bytes) else { return };
    assert_eq!(node.encode(), bytes, "a node has one encoding");
    let root = NodePlace::root();
    if root.check(&node).is_ok() {
        for (place, _) in root.children(&node) {
            // The same bytes cannot stand below themselves unless they fit there as well.
            let _ = place.check(&node);
        }
    }
}

/// Entries of names of one to three segments, as many as a byte each can say.
fn entries(bytes: &[u8]) -> Vec<(Path, IndexEntry)> {
    let mut entries = Vec::new();
    for (number, chunk) in bytes.chunks(4).take(ENTRIES_MAX).enumerate() {
        let at = |i: usize| chunk.get(i).copied().unwrap_or_default();
        let long = "x".repeat(usize::from(at(3)));
        let path = match at(0) % 4 {
            0 => format!("{:02x}", at(1)),
            1 => format!("{:02x}/{:02x}", at(1) & 3, at(2)),
            2 => format!("{:02x}/{:02x}{long}", at(1) & 1, at(2)),
            _ => format!("{:02x}/{:02x}/{:x}", at(1) & 1, at(2) & 1, at(3)),
        };
        let Ok(path) = path.parse() else { continue };
        let uid = Uid { micros: 1 + number as u64, sp: SpId(1), store: 0 };
        let flags = Flags { deleted: at(0) & 64 != 0, executable: at(0) & 32 != 0 };
        let content_type = if at(0) & 16 != 0 { "text/plain".to_owned() } else { String::new() };
        entries.push((path, IndexEntry { uid, hash: Hash([at(2); 32]), size: at(3).into(), content_type, flags }));
    }
    entries
}

fn check_index(bytes: &[u8]) {
    let entries = entries(bytes);
    let (mut forth, mut back) = (Index::new(Duration::from_secs(300)), Index::new(Duration::from_secs(300)));
    for (number, (path, entry)) in entries.iter().enumerate() {
        forth.insert(path, entry.clone());
        if number % 24 == 23 {
            forth.mint_root(Instant(number as u64));
        }
    }
    for (path, entry) in entries.iter().rev() {
        back.insert(path, entry.clone());
    }
    let root = forth.mint_root(Instant(1000));
    assert_eq!(root, back.mint_root(Instant(1000)), "roots are a function of the set");
    let (mut places, mut files) = (vec![(NodePlace::root(), root)], 0);
    while let Some((place, hash)) = places.pop() {
        let bytes = forth.node(&hash).expect("an index has its nodes");
        let node = Node::decode(&bytes).expect("its nodes decode");
        assert_eq!((Hash::of(&bytes), node.encode()), (hash, bytes));
        place.check(&node).expect("its nodes stand where they may");
        places.extend(place.children(&node));
        if let Node::Page(items) = node {
            for item in items.iter().filter(|item| item.file.is_some()) {
                files += 1;
                assert_eq!(forth.lookup(&place.path(&item.segment)), item.file);
            }
        }
    }
    let mut paths: Vec<&Path> = entries.iter().map(|(path, _)| path).collect();
    paths.sort_unstable();
    paths.dedup();
    assert_eq!(files, paths.len(), "a walk finds every path once");
}
