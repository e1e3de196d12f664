//! The index: equal sets have equal roots, whatever the order in which they came; nodes can be walked from the root.

use acms_engine::protocol::{
    Flags, Hash, IndexEntry, Instant, Node, NodePlace, Path, Prefix, SpId, Uid,
    index::{Index, Inserted},
};
use proptest::prelude::*;
use std::{collections::BTreeMap, time::Duration};

fn entry(micros: u64, deleted: bool) -> IndexEntry {
    let uid = Uid { micros, sp: SpId(1), store: 0 };
    let flags = Flags { executable: false, deleted };
    IndexEntry { uid, hash: Hash::of(&micros.to_le_bytes()), size: 8, content_type: String::new(), flags }
}

fn path(text: &str) -> Path {
    text.parse().expect("a path")
}

fn index() -> Index {
    Index::new(Duration::from_secs(300))
}

/// All files below a node, read from the nodes alone, each checked against its place.
fn walk(index: &Index, hash: Hash, place: &NodePlace, found: &mut BTreeMap<String, u64>) {
    let bytes = index.node(&hash).expect("every node below the root is served");
    assert_eq!(Hash::of(&bytes), hash);
    let node = Node::decode(&bytes).expect("a good node");
    place.check(&node).expect("it stands where it belongs");
    assert_eq!(node.encode(), bytes);
    assert!(index.has_node(place, hash));
    if let Node::Page(items) = &node {
        let files = items.iter().filter_map(|item| Some((place.path(&item.segment), item.file.as_ref()?.uid.micros)));
        found.extend(files);
    }
    for (place, hash) in place.children(&node) {
        walk(index, hash, &place, found);
    }
}

fn paths() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "a-b", "c.d", "z"]), 1..4)
        .prop_map(|parts| parts.join("/"))
}

proptest! {
    #[test]
    fn roots_are_a_function_of_the_set(
        entries in prop::collection::vec((paths(), 1u64..50), 1..40),
        shuffled in any::<prop::sample::Index>(),
        mint in prop::collection::vec(any::<bool>(), 40),
    ) {
        let mut expected = BTreeMap::new();
        let (mut one, mut other) = (index(), index());
        for (i, (text, micros)) in entries.iter().enumerate() {
            let newest = expected.entry(text.clone()).or_insert(0);
            let inserted = one.insert(&path(text), entry(*micros, false));
            prop_assert_eq!(inserted == Inserted::Older, *micros <= *newest);
            *newest = (*newest).max(*micros);
            if mint[i % mint.len()] {
                one.mint_root(Instant(i as u64));
            }
        }
        let mut turned = entries.clone();
        turned.rotate_left(shuffled.index(entries.len()));
        turned.reverse();
        for (text, micros) in &turned {
            other.insert(&path(text), entry(*micros, false));
        }
        let root = one.mint_root(Instant(100));
        prop_assert_eq!(root, other.mint_root(Instant(100)));
        let mut found = BTreeMap::new();
        walk(&one, root, &NodePlace::root(), &mut found);
        prop_assert_eq!(&found, &expected);
        prop_assert_eq!(one.live(), expected.len());
        for (text, micros) in &expected {
            prop_assert_eq!(one.lookup(text).map(|entry| entry.uid.micros), Some(*micros));
        }
    }

    #[test]
    fn listings_are_complete_under_every_prefix(
        entries in prop::collection::vec(paths(), 1..40),
        prefix in prop_oneof![Just(String::new()), paths()],
        page in 1usize..5,
    ) {
        let mut index = index();
        for (i, text) in entries.iter().enumerate() {
            index.insert(&path(text), entry(i as u64 + 1, i % 3 == 0));
        }
        let prefix: Prefix = prefix.parse().expect("a prefix");
        let mut expected: Vec<&String> = entries.iter().filter(|text| prefix.covers(text)).collect();
        expected.sort();
        expected.dedup();
        let (mut listed, mut after) = (Vec::new(), String::new());
        loop {
            let page: Vec<String> = index.walk(&prefix, &after).take(page).map(|entry| entry.path.to_string()).collect();
            let Some(last) = page.last().cloned() else { break };
            listed.extend(page);
            after = last;
        }
        listed.sort();
        prop_assert_eq!(listed.iter().collect::<Vec<_>>(), expected);
    }
}

#[test]
fn a_file_and_a_directory_of_one_name_clash() {
    let mut index = index();
    index.insert(&path("a/b"), entry(1, false));
    assert_eq!(index.clash(&path("a")), Some(path("a/b")));
    assert_eq!(index.clash(&path("a/b/c")), Some(path("a/b")));
    assert_eq!(index.clash(&path("a/c")), None);
    assert_eq!(index.clash(&path("a/b")), None);
    index.insert(&path("a/b"), entry(2, true));
    assert_eq!(index.clash(&path("a")), None, "what is deleted is in nobody's way");
}

#[test]
fn nodes_of_old_roots_are_served_for_a_while() {
    let mut index = Index::new(Duration::from_nanos(100));
    index.insert(&path("a"), entry(1, false));
    let old = index.mint_root(Instant(0));
    index.insert(&path("a"), entry(2, false));
    let new = index.mint_root(Instant(10));
    assert!(index.node(&old).is_some() && index.node(&new).is_some());
    index.insert(&path("a"), entry(3, false));
    index.mint_root(Instant(200));
    assert!(index.node(&old).is_none(), "its time is over");
    assert!(index.node(&new).is_some(), "this one's is not");
}

#[test]
fn nodes_of_old_roots_take_a_bounded_room() {
    let mut index = index();
    let entry = |micros| IndexEntry { content_type: "t".repeat(200), ..entry(micros, false) };
    for i in 0..4_000 {
        index.insert(&path(&format!("d/{i}")), entry(1 + i));
    }
    let first = index.mint_root(Instant(0));
    let mut last = first;
    for round in 1..=5 {
        for i in 0..4_000 {
            index.insert(&path(&format!("d/{i}")), entry(10_000 * round + i));
        }
        last = index.mint_root(Instant(round));
    }
    assert!(index.node(&first).is_some(), "nothing is dropped before its time as long as there is room");
    for round in 6..=80 {
        for i in 0..4_000 {
            index.insert(&path(&format!("d/{i}")), entry(10_000 * round + i));
        }
        last = index.mint_root(Instant(round));
    }
    let mut found = BTreeMap::new();
    walk(&index, last, &NodePlace::root(), &mut found);
    assert_eq!(found.len(), 4_000);
    assert!(index.node(&first).is_none(), "80 directories of 1 MiB are too much to keep");
}

#[test]
fn many_entries_are_encoded_before_a_root_asks_for_it() {
    let (mut one, mut other) = (index(), index());
    let name = |i: u64| path(&format!("{}/{:06}", i % 3, i * 7_919 % 250_000));
    let first = |index: &mut Index| {
        index.insert(&path("first"), entry(1, false));
        index.mint_root(Instant(0))
    };
    let root = first(&mut one);
    first(&mut other);
    for i in 0..250_000 {
        one.insert(&name(i), entry(2 + i, i % 5 == 0));
        assert!(one.is_ahead_of_root() && one.root() == root);
        if i % 1_000 == 0 {
            other.insert(&name(i), entry(2 + i, i % 5 == 0));
            other.mint_root(Instant(i));
        }
    }
    assert!(one.node(&root).is_some(), "the root is served until the next one, and for a while after");
    assert_eq!(one.lookup(name(77).as_str()), Some(entry(79, false)));
    for i in (0..250_000).rev() {
        other.insert(&name(i), entry(2 + i, i % 5 == 0));
    }
    let root = one.mint_root(Instant(1));
    assert_eq!(root, other.mint_root(Instant(1)));
    assert_eq!(one.live(), 200_001);
    let mut found = BTreeMap::new();
    walk(&one, root, &NodePlace::root(), &mut found);
    assert_eq!(found.len(), 250_001);
}
