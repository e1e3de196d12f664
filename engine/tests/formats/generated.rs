//! Generated values of everything that has an encoding.

use acms_engine::protocol::{
    Durable, Entry, Flags, Hash, IndexEntry, Manifest, Message, Micros, Node, Path, SpId, SpSet, StoreId, Uid,
    durable::InlineContent,
    message::{AsOf, Header, JoinItem, JoinPage, JoinState, Refusal, RequestId, Vector, Wanted},
    node::{Item, Part},
};
use bytes::Bytes;
use proptest::{collection::vec, option, prelude::*};
use std::{collections::BTreeMap, sync::Arc};

pub(crate) fn sp() -> impl Strategy<Value = SpId> {
    (0..=63u8).prop_map(SpId)
}

pub(crate) fn uid() -> impl Strategy<Value = Uid> {
    (any::<u64>(), sp(), any::<u32>()).prop_map(|(micros, sp, store)| Uid { micros, sp, store })
}

pub(crate) fn hash() -> impl Strategy<Value = Hash> {
    any::<[u8; 32]>().prop_map(Hash)
}

pub(crate) fn store_id() -> impl Strategy<Value = StoreId> {
    (any::<u32>(), any::<u64>()).prop_map(|(number, nonce)| StoreId { number, nonce })
}

pub(crate) fn path() -> impl Strategy<Value = Path> {
    "[a-zA-Z0-9_@+:=,-][A-Za-z0-9._@+:=,~-]{0,20}(/[a-zA-Z0-9_][A-Za-z0-9._@+:=,~-]{0,20}){0,3}"
        .prop_map(|text| text.parse().expect("the expression is within the grammar"))
}

pub(crate) fn flags() -> impl Strategy<Value = Flags> {
    (any::<bool>(), any::<bool>()).prop_map(|(executable, deleted)| Flags { executable, deleted })
}

pub(crate) fn name() -> impl Strategy<Value = String> {
    "[ -~é]{1,40}"
}

pub(crate) fn bytes(max: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..=max).prop_map(Bytes::from)
}

pub(crate) fn entry() -> impl Strategy<Value = Entry> {
    (path(), hash(), any::<u64>(), "[a-z/]{0,20}", flags()).prop_map(|(path, hash, size, content_type, flags)| Entry {
        path,
        hash,
        size,
        content_type,
        flags,
    })
}

pub(crate) fn manifest() -> impl Strategy<Value = Manifest> {
    let unknown = vec((5u64..1000, bytes(8)), 0..3).prop_map(|mut unknown| {
        unknown.sort_by_key(|(tag, _)| *tag);
        unknown
    });
    (uid(), name(), option::of(name()), vec(entry(), 1..4), unknown)
        .prop_map(|(uid, publisher, key, entries, unknown)| Manifest { uid, publisher, key, entries, unknown })
}

pub(crate) fn node() -> impl Strategy<Value = Node> {
    let file = (uid(), hash(), any::<u64>(), "[a-z/]{0,20}", flags())
        .prop_map(|(uid, hash, size, content_type, flags)| IndexEntry { uid, hash, size, content_type, flags });
    let item =
        (option::of(file), option::of(hash())).prop_filter("an item is something", |(f, d)| f.is_some() || d.is_some());
    let legal = |segment: &String| Path::is_segment(segment);
    let page = proptest::collection::btree_map("[a-z0-9._-]{1,8}", item, 0..12).prop_map(move |items| {
        let items = items.into_iter().filter(|(segment, _)| legal(segment));
        Node::Page(items.map(|(segment, (file, directory))| Item { segment, file, directory }).collect())
    });
    let parts = proptest::collection::btree_map("[a-z0-9_-]{1,8}", hash(), 1..12);
    let branch = (1..=Node::LEVEL_MAX, parts).prop_map(|(level, parts)| Node::Branch {
        level,
        parts: parts.into_iter().map(|(last, hash)| Part { last, hash }).collect(),
    });
    prop_oneof![page, branch]
}

pub(crate) fn inline() -> impl Strategy<Value = InlineContent> {
    bytes(64).prop_map(|bytes| InlineContent { hash: Hash::of(&bytes), bytes })
}

pub(crate) fn durable() -> impl Strategy<Value = Durable> {
    prop_oneof![
        (manifest(), any::<bool>()).prop_map(|(manifest, own_bit)| Durable::Held {
            manifest: Arc::new(manifest),
            contents: Vec::new(),
            own_bit
        }),
        uid().prop_map(|uid| Durable::OwnBit { uid }),
        uid().prop_map(|uid| Durable::Agreed { uid }),
        (uid(), uid()).prop_map(|(uid, superseded_by)| Durable::Dropped { uid, superseded_by }),
        any::<u64>().prop_map(|micros| Durable::Ceiling { micros: Micros(micros) }),
        any::<u32>().prop_map(|starts| Durable::Started { starts }),
        (sp(), store_id()).prop_map(|(sp, store)| Durable::Store { sp, store }),
        any::<u64>().prop_map(|micros| Durable::AsOf { micros: Micros(micros) }),
        Just(Durable::Joined),
        uid().prop_map(|uid| Durable::Released { uid }),
        uid().prop_map(|uid| Durable::Forgotten { uid }),
    ]
}

pub(crate) fn header() -> impl Strategy<Value = Header> {
    let stores = proptest::collection::btree_map(sp(), store_id(), 0..5);
    (any::<u32>(), any::<[u8; 8]>(), sp(), store_id(), stores).prop_map(|(epoch, config, from, store, stores)| Header {
        epoch,
        config,
        from,
        store,
        stores: stores.into_iter().collect(),
    })
}

pub(crate) fn message() -> impl Strategy<Value = Message> {
    let request = || (any::<u32>(), any::<u64>()).prop_map(|(starts, number)| RequestId { starts, number });
    let cause = prop_oneof![
        Just(Refusal::ClockAhead),
        Just(Refusal::Store),
        (3..=255u8).prop_map(Refusal::Other),
        Just(Refusal::Other(0))
    ];
    let wanted = prop_oneof![
        hash().prop_map(Wanted::Content),
        hash().prop_map(Wanted::Node),
        uid().prop_map(Wanted::Publication)
    ];
    prop_oneof![
        (request(), vec((name(), name()), 0..4)).prop_map(|(request, keys)| Message::OrderQuery { request, keys }),
        (request(), uid(), any::<u64>(), vec((0..65_536u32, uid()), 0..4)).prop_map(
            |(request, greatest, clock, holds)| {
                Message::OrderAnswer { request, greatest, clock: Micros(clock), holds }
            }
        ),
        (manifest(), vec(inline(), 0..3), any::<bool>()).prop_map(|(manifest, contents, agreed)| Message::Offer {
            manifest: Arc::new(manifest),
            contents,
            agreed
        }),
        (uid(), cause, any::<u64>()).prop_map(|(uid, cause, clock)| Message::Refuse {
            uid,
            cause,
            clock: Micros(clock)
        }),
        (uid(), any::<u64>()).prop_map(|(uid, bits)| Message::Vector(Vector { uid, bits: SpSet(bits) })),
        (uid(), uid()).prop_map(|(uid, newest)| Message::Agreed { uid, newest }),
        uid().prop_map(|uid| Message::PublicationRequest { uid }),
        (hash(), any::<u64>(), 0..=262_144u32).prop_map(|(hash, offset, len)| Message::ContentRequest {
            hash,
            offset,
            len
        }),
        (hash(), 0..u64::MAX / 2, bytes(64), any::<u32>()).prop_map(|(hash, offset, bytes, more)| {
            let empty = bytes.is_empty();
            let total = if empty { 0 } else { offset + bytes.len() as u64 + u64::from(more) };
            Message::ContentChunk { hash, offset: if empty { 0 } else { offset }, total, bytes }
        }),
        wanted.prop_map(|what| Message::Missing { what }),
        hash().prop_map(|root| Message::Root { root }),
        hash().prop_map(|hash| Message::NodeRequest { hash }),
        bytes(64).prop_map(|bytes| Message::Node { bytes }),
        uid().prop_map(|uid| Message::Stored { uid }),
        (request(), hash()).prop_map(|(request, merged)| Message::AsOfRequest { request, merged }),
        (request(), as_of()).prop_map(|(request, reply)| Message::AsOfReply { request, reply }),
        (request(), uid()).prop_map(|(request, after)| Message::JoinRequest { request, after }),
        (request(), uid(), join_page()).prop_map(|(request, after, page)| Message::JoinReply { request, after, page }),
    ]
}

fn as_of() -> impl Strategy<Value = AsOf> {
    let listed = proptest::collection::btree_set(uid(), 0..5);
    (hash(), hash(), listed, any::<u64>()).prop_map(|(base, root, listed, clock)| AsOf {
        base,
        root,
        listed: listed.into_iter().collect(),
        clock: Micros(clock),
    })
}

fn join_page() -> impl Strategy<Value = JoinPage> {
    let state = prop_oneof![
        any::<bool>().prop_map(|own_bit| JoinState::Pending { own_bit }),
        Just(JoinState::Agreed),
        Just(JoinState::Remembered),
        uid().prop_map(|superseded_by| JoinState::Dropped { superseded_by }),
    ];
    let items = vec((manifest(), state), 0..4).prop_map(|items| {
        let by_uid: BTreeMap<Uid, (Manifest, JoinState)> =
            items.into_iter().map(|(manifest, state)| (manifest.uid, (manifest, state))).collect();
        let item = |(manifest, state)| JoinItem { manifest: Arc::new(manifest), state };
        by_uid.into_values().map(item).collect()
    });
    (items, any::<u64>(), any::<bool>()).prop_map(|(items, clock, last)| JoinPage { items, clock: Micros(clock), last })
}
