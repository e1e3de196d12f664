//! Pages of the index: the same set has the same root, whatever its history; pages are small; a change touches few; nodes
//! that nobody honest makes are refused.

use acms_engine::protocol::{
    Flags, Hash, IndexEntry, Instant, Node, NodePlace, Path, SpId, Uid,
    cut::{ROOM, child_weight, item_weight, rank},
    encoding::Writer,
    index::Index,
    node::{Item, Part},
    random::Random,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

fn entry(micros: u64, content_type: &str) -> IndexEntry {
    let uid = Uid { micros, sp: SpId(1), store: 0 };
    let hash = Hash::of(&micros.to_le_bytes());
    IndexEntry { uid, hash, size: micros, content_type: content_type.to_owned(), flags: Flags::default() }
}

fn path(text: &str) -> Path {
    text.parse().expect("a path")
}

fn index() -> Index {
    Index::new(Duration::from_secs(300))
}

/// The rule of FORMATS.md, word for word: parts by splitting after the least rank until a part fits.
fn parts<'a, T>(level: u8, items: &'a [T], name: &dyn Fn(&T) -> &str, weight: &dyn Fn(&T) -> u32) -> Vec<&'a [T]> {
    let mut found = Vec::new();
    let mut rest = vec![(items, false)];
    while let Some((items, is_followed)) = rest.pop() {
        if items.iter().map(weight).sum::<u32>() <= ROOM {
            // The item after which the split was belongs to what is before it.
            found.push(items.len() + usize::from(is_followed));
            continue;
        }
        let least = (0..items.len()).min_by_key(|at| rank(level, name(&items[*at]))).expect("it weighs something");
        rest.push((&items[least + 1..], is_followed));
        rest.push((&items[..least], true));
    }
    let mut start = 0;
    let lens = found.into_iter().filter(|len| *len > 0);
    lens.map(|len| {
        start += len;
        &items[start - len..start]
    })
    .collect()
}

/// Hash and nodes of a directory made from nothing.
fn build(items: &[Item], nodes: &mut BTreeMap<Hash, Node>) -> Hash {
    let mut add = |node: Node| {
        let hash = Hash::of(&node.encode());
        nodes.insert(hash, node);
        hash
    };
    let pages = parts(0, items, &|item| &item.segment, &item_weight);
    let part = |last: &str, hash| Part { last: last.to_owned(), hash };
    let mut level: Vec<Part> = pages
        .into_iter()
        .map(|page| part(&page.last().expect("no page is empty").segment, add(Node::Page(page.to_vec()))))
        .collect();
    for number in 1.. {
        if level.len() == 1 {
            break;
        }
        let groups = parts(number, &level, &|part| &part.last, &|part| child_weight(&part.last));
        let node = |group: &[Part]| Node::Branch { level: number, parts: group.to_vec() };
        level = groups.iter().map(|group| part(&group[group.len() - 1].last, add(node(group)))).collect();
    }
    level[0].hash
}

/// The root of `entries`, made from nothing.
fn root_of(entries: &BTreeMap<String, IndexEntry>, nodes: &mut BTreeMap<Hash, Node>) -> Hash {
    let mut directories: BTreeMap<String, BTreeMap<String, Item>> = BTreeMap::new();
    let empty = |segment: &str| Item { segment: segment.to_owned(), file: None, directory: None };
    for (path, entry) in entries {
        let (directory, segment) = path.rsplit_once('/').unwrap_or(("", path));
        let items = directories.entry(directory.to_owned()).or_default();
        items.entry(segment.to_owned()).or_insert_with(|| empty(segment)).file = Some(entry.clone());
    }
    let depth = |name: &str| name.split('/').filter(|segment| !segment.is_empty()).count();
    loop {
        let deepest = directories.keys().max_by_key(|name| depth(name)).cloned();
        let Some(name) = deepest else { return Hash::of(&Node::default().encode()) };
        let items: Vec<Item> = directories.remove(&name).expect("just found").into_values().collect();
        let hash = build(&items, nodes);
        if name.is_empty() {
            return hash;
        }
        let (parent, segment) = name.rsplit_once('/').unwrap_or(("", &name));
        let items = directories.entry(parent.to_owned()).or_default();
        items.entry(segment.to_owned()).or_insert_with(|| empty(segment)).directory = Some(hash);
    }
}

/// A random name: some short, some at the limit, some with a common start.
fn name(random: &mut Random) -> String {
    match random.below(8) {
        0 => format!("{:x}", random.below(1 << 20)),
        1 => format!("{}{}", "n".repeat(245), random.below(100_000)),
        2 => format!("2026-11-23T{:06}.json", random.below(1_000_000)),
        _ => format!("{:016x}.conf", random.below(u64::MAX)),
    }
}

fn random_path(random: &mut Random, directories: u64) -> String {
    match random.below(directories) {
        0 => format!("d/{}", name(random)),
        1 => format!("d/e/{}", name(random)),
        2 => name(random),
        _ => format!("big/{}", name(random)),
    }
}

fn content_type(random: &mut Random) -> String {
    match random.below(10) {
        0 => "x".repeat(random.below(256) as usize),
        1..=5 => "text/plain".to_owned(),
        _ => String::new(),
    }
}

#[test]
fn a_set_has_one_root_whatever_its_history() {
    let mut random = Random::new(1);
    for case in 0..2_000 {
        let count = [3, 40, 400, 1_500][case % 4] / if case % 3 == 0 { 7 } else { 1 };
        let mut entries: BTreeMap<String, IndexEntry> = BTreeMap::new();
        let (mut one, mut nodes) = (index(), BTreeMap::new());
        let mint_every = 1 + random.below(if case % 5 == 0 { 4 } else { 400 });
        for i in 0..count {
            let known = entries.keys().nth(random.below(40) as usize).filter(|_| random.below(4) == 0).cloned();
            let text = known.unwrap_or_else(|| random_path(&mut random, 12));
            let new = entry(1 + random.below(1_000_000), &content_type(&mut random));
            one.insert(&path(&text), new.clone());
            let latest = entries.entry(text).or_insert_with(|| new.clone());
            if latest.uid < new.uid {
                *latest = new;
            }
            if random.below(mint_every) == 0 {
                let root = one.mint_root(Instant(i));
                if random.below(1 + count / 8) == 0 {
                    assert_eq!(root, root_of(&entries, &mut nodes), "case {case} at {i}");
                }
            }
        }
        let root = one.mint_root(Instant(count));
        assert_eq!(root, root_of(&entries, &mut nodes), "case {case}");
        let mut order: Vec<&String> = entries.keys().collect();
        shuffle(&mut order, &mut random);
        let mut other = index();
        for (i, text) in order.iter().enumerate() {
            other.insert(&path(text), entries[*text].clone());
            if i % 97 == case % 97 {
                other.mint_root(Instant(i as u64));
            }
        }
        assert_eq!(other.mint_root(Instant(9_999)), root, "case {case}, another order");
    }
}

fn shuffle<T>(items: &mut [T], random: &mut Random) {
    for i in (1..items.len()).rev() {
        items.swap(i, random.below(i as u64 + 1) as usize);
    }
}

/// Nodes below a root that `before` does not have.
fn fresh_nodes(index: &Index, root: Hash, before: &BTreeSet<Hash>) -> BTreeMap<Hash, usize> {
    let mut found = BTreeMap::new();
    let mut rest = vec![(NodePlace::root(), root)];
    while let Some((place, hash)) = rest.pop() {
        if before.contains(&hash) || found.contains_key(&hash) {
            continue;
        }
        let bytes = index.node(&hash).expect("it is served");
        let node = Node::decode(&bytes).expect("a good node");
        place.check(&node).expect("it stands where it belongs");
        rest.extend(place.children(&node));
        found.insert(hash, bytes.len());
    }
    found
}

#[test]
fn a_directory_of_hundreds_of_thousands() {
    const COUNT: u64 = 200_000;
    let text = |i: u64| format!("edge/config/{:08x}.json", Hash::of(&i.to_le_bytes()).0[0] as u64 * COUNT + i);
    let mut random = Random::new(2);
    let mut order: Vec<u64> = (0..COUNT).collect();
    shuffle(&mut order, &mut random);
    let mut one = index();
    for (at, i) in order.iter().enumerate() {
        one.insert(&path(&text(*i)), entry(1 + i, "application/json"));
        if at % 20_000 == 7 {
            one.mint_root(Instant(at as u64));
        }
    }
    let root = one.mint_root(Instant(1));
    let entries: BTreeMap<String, IndexEntry> =
        (0..COUNT).map(|i| (text(i), entry(1 + i, "application/json"))).collect();
    let mut nodes = BTreeMap::new();
    assert_eq!(root, root_of(&entries, &mut nodes));

    let found = fresh_nodes(&one, root, &BTreeSet::new());
    assert_eq!(found.len(), nodes.len());
    let (count, bytes, max) = (found.len(), found.values().sum::<usize>(), found.values().max().expect("nodes"));
    println!("{count} nodes, {} bytes in the mean, {max} at most", bytes / count);
    assert!((3_500..5_000).contains(&(bytes / count)) && *max < 11_000);

    let (mut known, mut changed, mut read) =
        (found.keys().copied().collect::<BTreeSet<Hash>>(), Vec::new(), Vec::new());
    for i in 0..1_000 {
        let new =
            if i % 2 == 0 { text(random.below(COUNT)) } else { format!("edge/config/{:x}-new", random.below(1 << 40)) };
        one.insert(&path(&new), entry(COUNT + 1 + i, "application/json"));
        let root = one.mint_root(Instant(2));
        let fresh = fresh_nodes(&one, root, &known);
        changed.push(fresh.len());
        read.push(fresh.values().sum::<usize>());
        known.extend(fresh.keys());
    }
    let mean = |of: &[usize]| of.iter().sum::<usize>() as f64 / of.len() as f64;
    let most = |of: &[usize]| of.iter().copied().max().unwrap_or_default();
    println!("a change: {:.2} nodes in the mean, {} at most", mean(&changed), most(&changed));
    println!("to learn it: {:.0} bytes in the mean, {} at most", mean(&read), most(&read));
    assert!(mean(&changed) < 6.0 && most(&changed) < 20);
    assert!(most(&read) < 32 << 10);
}

/// Names whose ranks at level 0 rise: the worst for the rule of cutting.
fn rising(count: u64) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for i in 0..count {
        let share = u64::MAX / count;
        let name = (0..).map(|salt| format!("{i:05}-{salt}")).find(|name| {
            let number = u64::from_le_bytes(*Hash::of(&[b"\0", name.as_bytes()].concat()).0.first_chunk().expect("8"));
            number / share == i
        });
        names.extend(name);
    }
    assert!(names.windows(2).all(|pair| rank(0, &pair[0]) < rank(0, &pair[1])), "or the test tests nothing");
    names
}

#[test]
fn names_chosen_to_be_cut_make_small_pages_but_no_deep_tree() {
    let names = rising(1_000);
    let mut one = index();
    let mut entries = BTreeMap::new();
    for (i, name) in names.iter().enumerate() {
        one.insert(&path(name), entry(1 + i as u64, ""));
        entries.insert(name.clone(), entry(1 + i as u64, ""));
    }
    let (root, mut nodes) = (one.mint_root(Instant(0)), BTreeMap::new());
    assert_eq!(root, root_of(&entries, &mut nodes));
    assert!(nodes.len() > 800, "nearly every name has a page of its own");
    assert_eq!(Node::decode(&one.node(&root).expect("served")).map(|node| node.level()), Ok(2));
    let known: BTreeSet<Hash> = nodes.keys().copied().collect();
    one.insert(&path("00500-"), entry(5_000, ""));
    let root = one.mint_root(Instant(1));
    let fresh = fresh_nodes(&one, root, &known).len();
    assert!(fresh < 200, "what is further than a page's room away is not cut anew: {fresh}");
}

// ---- Nodes that nobody honest makes -----------------------------------------------------------------------------------

fn file(segment: &str, content_type: &str) -> Item {
    Item { segment: segment.to_owned(), file: Some(entry(1, content_type)), directory: None }
}

fn directory(segment: &str) -> Item {
    Item { segment: segment.to_owned(), file: None, directory: Some(Hash::default()) }
}

fn branch(level: u8, lasts: &[&str]) -> Node {
    let part = |last: &&str| Part { last: (*last).to_owned(), hash: Hash::default() };
    Node::Branch { level, parts: lasts.iter().map(part).collect() }
}

#[test]
fn nodes_that_no_rule_makes_are_not_decoded() {
    let refused = |node: &Node| assert!(Node::decode(&node.encode()).is_err(), "{node:?}");
    let long = |count: usize| (0..count).map(|i| file(&format!("{i:03}"), &"t".repeat(255))).collect::<Vec<Item>>();
    assert!(Node::decode(&Node::Page(long(32)).encode()).is_ok());
    refused(&Node::Page(long(34)));
    refused(&Node::Page(vec![file("b", ""), file("a", "")]));
    refused(&Node::Page(vec![file("a", ""), file("a", "")]));
    refused(&Node::Page(vec![file("..", "")]));
    refused(&Node::Page(vec![file("a/b", "")]));
    refused(&branch(1, &[]));
    refused(&branch(1, &["b", "a"]));
    refused(&branch(1, &["~"]));
    refused(&branch(Node::LEVEL_MAX + 1, &["a", "b"]));
    let many: Vec<String> = (0..400).map(|i| format!("{i:03}")).collect();
    refused(&branch(1, &many.iter().map(String::as_str).collect::<Vec<_>>()));
    let mut old = Writer(vec![1]);
    old.varint(0);
    assert!(Node::decode(&old.0).is_err(), "format 1");
}

#[test]
fn nodes_in_a_wrong_place_are_refused() {
    let root = NodePlace::root();
    let below = |place: &NodePlace, node: &Node, at: usize| place.children(node)[at].0.clone();
    assert!(root.check(&Node::default()).is_ok());
    assert!(root.check(&branch(3, &["a", "b"])).is_ok());
    assert!(root.check(&branch(3, &["a"])).is_err(), "nothing was cut: there would be no such level");
    let d = below(&root, &Node::Page(vec![directory("d")]), 0);
    assert!(d.check(&Node::default()).is_err(), "no directory is empty");
    let part = below(&d, &branch(2, &["f", "m", "t"]), 1);
    assert!(part.check(&branch(1, &["g", "m"])).is_ok());
    assert!(part.check(&branch(1, &["m"])).is_ok());
    assert!(part.check(&branch(2, &["g", "m"])).is_err(), "levels fall, or a walk would not end");
    assert!(part.check(&Node::Page(vec![file("g", ""), file("m", "")])).is_err());
    assert!(part.check(&branch(1, &["f", "m"])).is_err(), "names of the part before");
    assert!(part.check(&branch(1, &["g", "n"])).is_err(), "names of the part after");
    assert!(part.check(&branch(1, &["g", "l"])).is_err());
    let page = below(&part, &branch(1, &["h", "m"]), 1);
    assert!(page.check(&Node::Page(vec![file("i", ""), file("m", "")])).is_ok());
    assert!(page.check(&Node::Page(vec![file("h", ""), file("m", "")])).is_err());
}

#[test]
fn directories_end_where_paths_end() {
    let nest = Node::Page(vec![directory("d")]);
    let mut place = NodePlace::root();
    for _ in 0..Path::SEGMENTS_MAX {
        place.check(&nest).expect("still a path");
        place = place.children(&nest).remove(0).0;
    }
    assert!(place.check(&nest).is_err());
    let wide = Node::Page(vec![directory(&"w".repeat(255))]);
    let mut place = NodePlace::root();
    for _ in 0..4 {
        place.check(&wide).expect("still a path");
        place = place.children(&wide).remove(0).0;
    }
    assert!(place.check(&Node::Page(vec![file("w", "")])).is_err());
}

// ---- Visible paths ----------------------------------------------------------------------------------------------------

#[test]
fn of_clashing_paths_the_newer_is_visible() {
    let paths = ["a", "a/b", "a/b/c", "a/d"];
    let orders = (0..4u64.pow(4)).map(|code| [0, 1, 2, 3].map(|digit| 1 + code / 4u64.pow(digit) % 4));
    for uids in orders.filter(|uids| BTreeSet::from(*uids).len() == 4) {
        for deleted in 0..16u8 {
            let mut one = index();
            let is_deleted = |at: usize| deleted >> at & 1 == 1;
            for (at, text) in paths.iter().enumerate() {
                let flags = Flags { executable: false, deleted: is_deleted(at) };
                one.insert(&path(text), IndexEntry { flags, ..entry(uids[at], "") });
                if at == 1 {
                    one.mint_root(Instant(0));
                }
            }
            for (at, text) in paths.iter().enumerate().filter(|(at, _)| !is_deleted(*at)) {
                let clashes = |other: usize| path(text).is_above(paths[other]) || path(paths[other]).is_above(text);
                let hidden = (0..4).any(|other| clashes(other) && !is_deleted(other) && uids[other] > uids[at]);
                let by = one.hidden_by(&path(text), entry(uids[at], "").uid);
                assert_eq!(by.is_some(), hidden, "{text} of {uids:?}, deleted {deleted:b}");
            }
        }
    }
}
