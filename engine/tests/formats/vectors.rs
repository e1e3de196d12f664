//! The vectors of engine/docs/FORMATS.md. `UPDATE_EXPECT=1` rewrites them.

use acms_engine::client::IndexPage;
use acms_engine::protocol::{
    Config, Entry, Flags, Hash, IndexEntry, Instant, Limits, Manifest, Message, Micros, Mode, Node, NodePlace, Order,
    Outcome, QuorumSystem, Reason, SpId, SpSet, StoreId, Uid,
    api::{
        Changes, Cursor, History, Incarnation, IndexedEntry, ListedEntry, OutcomeAnswer, PublicationAnswer, Snapshot,
        Version,
    },
    durable::InlineContent,
    index::Index,
    message::{AsOf, Header, JoinItem, JoinPage, JoinState, Refusal, RequestId, Vector, Wanted},
    node::{Item, Part},
    receiver::{Held, Presence, Reached},
};
use acms_engine::runtime::receive::{format_line, reached_line, state_line};
use acms_engine::wire::{Decoder, Frame, HEAD_LEN, Hello, Versions, encode_frame, encode_hello, encode_ping};
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use std::{collections::BTreeMap, fmt::Debug, sync::Arc, time::Duration};

const UID: Uid = Uid { micros: 1_700_000_000_000_000, sp: SpId(2), store: 0 };
const NEWER: Uid = Uid { micros: 1_700_000_000_000_300, sp: SpId(1), store: 1 };
const REQUEST: RequestId = RequestId { starts: 3, number: 300 };

fn content() -> Bytes {
    Bytes::from_static(b"hello\n")
}

fn hash() -> Hash {
    Hash::of(&content())
}

fn flags(executable: bool, deleted: bool) -> Flags {
    Flags { executable, deleted }
}

fn as_of() -> AsOf {
    let mut listed = vec![UID, NEWER];
    listed.sort_unstable();
    AsOf { base: hash(), root: Hash::of(b""), listed, clock: Micros(300) }
}

fn join_page() -> JoinPage {
    let item = JoinItem { manifest: Arc::new(smallest()), state: JoinState::Dropped { superseded_by: NEWER } };
    JoinPage { items: vec![item], clock: Micros(300), last: true }
}

fn header() -> Header {
    Header {
        epoch: 1,
        config: [0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7],
        from: SpId(2),
        store: StoreId { number: 0, nonce: 0x0102_0304_0506_0708 },
        stores: vec![(SpId(1), StoreId { number: 1, nonce: 0x11 }), (SpId(3), StoreId { number: 0, nonce: 0x33 })],
    }
}

fn smallest() -> Manifest {
    let entry = Entry {
        path: "a".parse().unwrap(),
        hash: Hash::of(b""),
        size: 0,
        content_type: String::new(),
        flags: flags(false, true),
    };
    Manifest { uid: UID, publisher: "p".into(), key: None, entries: vec![entry], unknown: Vec::new() }
}

fn full() -> Manifest {
    let entry = |path: &str, executable| Entry {
        path: path.parse().unwrap(),
        hash: hash(),
        size: 6,
        content_type: "text/plain".into(),
        flags: flags(executable, false),
    };
    Manifest {
        uid: UID,
        publisher: "release".into(),
        key: Some("build-7".into()),
        entries: vec![entry("etc/motd", false), entry("bin/hello", true)],
        unknown: vec![(7, Bytes::from_static(b"eu"))],
    }
}

fn node() -> Node {
    let file = |executable, deleted| {
        let content_type = "text/plain".into();
        Some(IndexEntry { uid: UID, hash: hash(), size: 6, content_type, flags: flags(executable, deleted) })
    };
    Node::Page(vec![
        Item { segment: "bin".into(), file: None, directory: Some(Hash([7; 32])) },
        Item { segment: "etc".into(), file: file(false, true), directory: Some(Hash([9; 32])) },
        Item { segment: "motd".into(), file: file(true, false), directory: None },
    ])
}

fn branch() -> Node {
    let part = |last: &str, byte| Part { last: last.into(), hash: Hash([byte; 32]) };
    Node::Branch { level: 1, parts: vec![part("motd", 7), part("zones", 9)] }
}

/// How many items the pages of a directory of 1,000 have.
fn pages() -> Vec<usize> {
    let mut index = Index::new(Duration::from_secs(300));
    for i in 0..1000 {
        let entry =
            IndexEntry { uid: UID, hash: hash(), size: 6, content_type: String::new(), flags: Flags::default() };
        index.insert(&format!("{i:04}").parse().unwrap(), entry);
    }
    let mut level = vec![index.mint_root(Instant(0))];
    let node = |hash| Node::decode(&index.node(&hash).unwrap()).unwrap();
    loop {
        let nodes: Vec<Node> = level.into_iter().map(node).collect();
        level = nodes.iter().flat_map(|node| NodePlace::root().children(node)).map(|(_, hash)| hash).collect();
        if level.is_empty() {
            let len = |node: &Node| if let Node::Page(items) = node { items.len() } else { 0 };
            return nodes.iter().map(len).collect();
        }
    }
}

fn messages() -> Vec<(&'static str, Message)> {
    let inline = InlineContent { hash: hash(), bytes: content() };
    vec![
        ("order-query", Message::OrderQuery { request: REQUEST, keys: vec![("release".into(), "build-7".into())] }),
        (
            "order-answer",
            Message::OrderAnswer {
                request: REQUEST,
                greatest: UID,
                clock: Micros(NEWER.micros),
                holds: vec![(0, UID)],
            },
        ),
        ("offer", Message::Offer { manifest: Arc::new(full()), contents: vec![inline], agreed: true }),
        ("refuse", Message::Refuse { uid: UID, cause: Refusal::ClockAhead, clock: Micros(300) }),
        ("vector", Message::Vector(Vector { uid: UID, bits: [1, 2, 5].map(SpId).into_iter().collect::<SpSet>() })),
        ("agreed", Message::Agreed { uid: UID, newest: NEWER }),
        ("publication-request", Message::PublicationRequest { uid: UID }),
        ("content-request", Message::ContentRequest { hash: hash(), offset: 262_144, len: 262_144 }),
        ("content-chunk", Message::ContentChunk { hash: hash(), offset: 0, total: 6, bytes: content() }),
        ("missing-content", Message::Missing { what: Wanted::Content(hash()) }),
        ("missing-node", Message::Missing { what: Wanted::Node(hash()) }),
        ("missing-publication", Message::Missing { what: Wanted::Publication(UID) }),
        ("root", Message::Root { root: hash() }),
        ("node-request", Message::NodeRequest { hash: hash() }),
        ("node", Message::Node { bytes: Node::default().encode() }),
        ("stored", Message::Stored { uid: UID }),
        ("as-of-request", Message::AsOfRequest { request: REQUEST, merged: hash() }),
        ("as-of-reply", Message::AsOfReply { request: REQUEST, reply: as_of() }),
        ("join-request", Message::JoinRequest { request: REQUEST, after: UID }),
        ("join-reply", Message::JoinReply { request: REQUEST, after: Uid::ZERO, page: join_page() }),
    ]
}

/// The document, and what its blocks should be.
struct Document {
    blocks: BTreeMap<String, String>,
    actual: BTreeMap<String, String>,
}

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/FORMATS.md");

impl Document {
    fn read() -> Document {
        let (mut blocks, mut open) = (BTreeMap::new(), None);
        for line in std::fs::read_to_string(PATH).unwrap().lines() {
            match (&mut open, line.strip_prefix("```")) {
                (None, Some(info)) => {
                    open = Some((info.to_owned(), String::new()));
                }
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (Some((_, text)), None) => *text += &format!("{line}\n"),
                (None, None) => {}
            }
        }
        Document { blocks, actual: BTreeMap::new() }
    }

    /// Compares bytes with their block, and what the block decodes to with the value.
    fn hex<T: PartialEq + Debug>(&mut self, name: &str, bytes: &[u8], value: &T, decode: impl Fn(&[u8]) -> T) {
        let lines: Vec<String> = bytes
            .chunks(32)
            .map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" "))
            .collect();
        let info = format!("hex {name}");
        if let Some(block) = self.blocks.get(&info).filter(|block| !block.is_empty() && !rewriting()) {
            let written: Vec<u8> = block.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
            assert_eq!(decode(&written), *value, "{name}: what the bytes of the document mean");
        }
        self.actual.insert(info, lines.join("\n") + "\n");
    }

    fn json<T: Serialize + DeserializeOwned + PartialEq + Debug>(&mut self, name: &str, value: &T) {
        let info = format!("json {name}");
        if let Some(block) = self.blocks.get(&info).filter(|block| !block.is_empty() && !rewriting()) {
            assert_eq!(
                serde_json::from_str::<T>(block).unwrap(),
                *value,
                "{name}: what the text of the document means"
            );
        }
        self.actual.insert(info, serde_json::to_string_pretty(value).unwrap() + "\n");
    }

    fn finish(self) {
        if rewriting() {
            let mut text = std::fs::read_to_string(PATH).unwrap();
            for (info, block) in &self.actual {
                let begin = format!("```{info}\n");
                let at = text.find(&begin).unwrap_or_else(|| panic!("the document has no block {info}")) + begin.len();
                let end = at + text[at..].find("```").unwrap();
                text.replace_range(at..end, block);
            }
            std::fs::write(PATH, text).unwrap();
            return;
        }
        for (info, block) in &self.blocks {
            assert_eq!(self.actual.get(info), Some(block), "block {info}; UPDATE_EXPECT=1 rewrites it");
        }
        assert_eq!(self.blocks.keys().collect::<Vec<_>>(), self.actual.keys().collect::<Vec<_>>(), "blocks");
    }
}

fn rewriting() -> bool {
    std::env::var_os("UPDATE_EXPECT").is_some()
}

fn decode_frame(bytes: &[u8]) -> Frame {
    let mut decoder = Decoder::new();
    decoder.push(bytes);
    decoder.next().unwrap().unwrap()
}

/// The frame that has only this message, given as in the document.
fn decode_message(bytes: &[u8]) -> Message {
    let mut body = encode_frame(&header(), &[]).unwrap()[HEAD_LEN..].to_vec();
    let count_at = body.len() - 4;
    body[count_at..].copy_from_slice(&1u32.to_le_bytes());
    body.extend_from_slice(bytes);
    let mut frame = encode_ping().to_vec();
    frame[3] = 2;
    frame[4..8].copy_from_slice(&(body.len() as u32).to_le_bytes());
    frame[8..12].copy_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    frame.extend(body);
    match decode_frame(&frame) {
        Frame::Messages(_, mut messages) => messages.pop().unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn vectors_of_the_document() {
    let mut document = Document::read();
    for (name, manifest) in [("smallest", smallest()), ("full", full())] {
        document
            .hex(&format!("manifest/{name}"), &manifest.encode(), &manifest, |bytes| Manifest::decode(bytes).unwrap());
    }
    for (name, node) in [("empty", Node::default()), ("file-and-directory", node()), ("parts", branch())] {
        document.hex(&format!("node/{name}"), &node.encode(), &node, |bytes| Node::decode(bytes).unwrap());
    }
    let hello = Hello { cluster: "demo".into(), header: header(), versions: Versions::FIRST };
    document.hex("frame/hello", &encode_hello(&hello).unwrap(), &Frame::Hello(hello.clone()), decode_frame);
    let next = Hello { versions: Versions::up_to(2), ..hello.clone() };
    document.hex("frame/hello-of-versions", &encode_hello(&next).unwrap(), &Frame::Hello(next.clone()), decode_frame);
    document.hex("frame/ping", &encode_ping(), &Frame::Ping, decode_frame);
    let vector = |uid| Message::Vector(Vector { uid, bits: SpSet::one(SpId(2)) });
    let two = vec![vector(UID), vector(NEWER)];
    let frame = encode_frame(&header(), &two).unwrap();
    document.hex("frame/messages", &frame, &Frame::Messages(header(), two), decode_frame);
    let empty_len = encode_frame(&header(), &[]).unwrap().len();
    for (name, message) in messages() {
        let frame = encode_frame(&header(), std::slice::from_ref(&message)).unwrap();
        document.hex(&format!("message/{name}"), &frame[empty_len..], &message, decode_message);
    }
    let config = config().hash();
    document.hex("configuration-hash", &config.0, &config, |bytes| Hash(bytes.try_into().unwrap()));
    json(&mut document);
    document.json("pages", &pages());
    document.finish();
}

fn config() -> Config {
    Config {
        cluster: "demo".into(),
        epoch: 1,
        me: SpId(1),
        store: StoreId { number: 0, nonce: 1 },
        members: (1..=5).map(SpId).collect(),
        mode: Mode::Fused,
        order: Order::Strict,
        quorum: QuorumSystem::Majority,
        max_drift: Duration::from_secs(3600),
        limits: Limits::default(),
    }
}

fn json(document: &mut Document) {
    let incarnation = Incarnation { store: 0, starts: 3 };
    let snapshot = Snapshot {
        cluster: "demo".into(),
        sp: 2,
        incarnation,
        sequence: 41,
        root: hash(),
        as_of_us: UID.micros,
        issued_at_us: NEWER.micros,
    };
    document.json("snapshot", &snapshot);
    let entry = ListedEntry::of_publication(UID, &full().entries[1]);
    let entries = vec![
        ListedEntry { inline: Some(content().to_vec()), ..entry.clone() },
        ListedEntry::of_publication(NEWER, &smallest().entries[0]),
    ];
    let next = Cursor { sp: SpId(2), incarnation, sequence: 42 };
    document.json("changes", &Changes { snapshot: snapshot.clone(), entries: entries.clone(), next, full: false });
    let no_quorum = Reason::NoQuorum { answered: vec![1, 2], needed: 3, members: 5 };
    let no_agreement = Reason::NoAgreement { holders: vec![1, 2] };
    for outcome in [
        Outcome::Accepted { uid: UID },
        Outcome::Rejected { reason: no_quorum },
        Outcome::Undetermined { uid: Some(UID), superseded_by: None, reason: no_agreement },
    ] {
        document.json(&format!("outcome/{}", outcome.word()), &OutcomeAnswer::from(&outcome));
    }
    let (reason, remedy) = ("nothing is published under etc/motd", "check the path");
    let error = OutcomeAnswer { reason: Some(reason.into()), remedy: Some(remedy.into()), ..OutcomeAnswer::default() };
    document.json("error", &error);
    document.json(
        "publication",
        &PublicationAnswer {
            outcome: OutcomeAnswer::from(&Outcome::Accepted { uid: UID }),
            entries: vec![entry.clone()],
            holders: vec![1, 2, 5],
            agreed: true,
        },
    );
    let indexed = |hidden| IndexedEntry { entry: entry.clone(), hidden };
    let entries = vec![indexed(false), indexed(true)];
    let version = Version { entry: entry.clone(), publisher: "hr".into(), accepted_us: entry.uid.micros };
    document.json("history", &History { path: entry.path.clone(), versions: vec![version] });
    document.json("index", &IndexPage { entries, next: Some("bin/hello".into()) });
    let ListedEntry { ref path, uid, hash, size, flags, .. } = entry;
    let held = |presence| Held { uid, hash, size, flags, presence };
    let hidden = state_line(&"bin".parse().unwrap(), &held(Presence::Hidden));
    let reached = Reached { snapshot, prefixes: vec!["bin".parse().unwrap(), "etc".parse().unwrap()] };
    let line = format_line() + &state_line(path, &held(Presence::Whole)) + &hidden + &reached_line(&reached);
    document.actual.insert("json receiver-state".into(), line);
}
