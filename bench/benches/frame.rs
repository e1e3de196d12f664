//! The frame codec: what one storage point says to a peer in one cycle under load.

use acms_engine::protocol::{
    Entry, Flags, Hash, Manifest, Message, SpId, SpSet, StoreId, Uid,
    durable::InlineContent,
    message::{Header, Vector},
};
use acms_engine::wire::{Decoder, encode_frames};
use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::{hint::black_box, sync::Arc};

fn header() -> Header {
    let store = |nonce: u64| StoreId { number: 0, nonce };
    let stores = (2..=5).map(|sp| (SpId(sp), store(sp.into()))).collect();
    Header { epoch: 1, config: [7; 8], from: SpId(1), store: store(1), stores }
}

fn uid(number: u64) -> Uid {
    Uid { micros: 1_700_000_000_000_000 + number, sp: SpId(1), store: 0 }
}

fn vectors(count: u64) -> Vec<Message> {
    (0..count).map(|number| Message::Vector(Vector { uid: uid(number), bits: SpSet(0b10_0110) })).collect()
}

fn offers(count: u64, content_len: usize) -> Vec<Message> {
    let offer = |number: u64| {
        let bytes = Bytes::from(vec![number as u8; content_len]);
        let entry = Entry {
            path: format!("edge/region-{number}/routes.json").parse().expect("a path"),
            hash: Hash::of(&bytes),
            size: content_len as u64,
            content_type: "application/json".into(),
            flags: Flags::default(),
        };
        let (publisher, key) = ("release".into(), Some(format!("build-{number}")));
        let contents = vec![InlineContent { hash: entry.hash, bytes }];
        let manifest = Manifest { uid: uid(number), publisher, key, entries: vec![entry], unknown: Vec::new() };
        Message::Offer { manifest: Arc::new(manifest), contents, agreed: false }
    };
    (0..count).map(offer).collect()
}

fn codec(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    for (name, messages) in [("64 vectors", vectors(64)), ("32 offers of 1 KiB", offers(32, 1024))] {
        let frame = encode_frames(&header(), &messages).frames.remove(0);
        group.throughput(Throughput::Bytes(frame.len() as u64));
        group.bench_function(format!("encode {name}"), |bencher| {
            bencher.iter(|| encode_frames(&header(), black_box(&messages)));
        });
        group.bench_function(format!("decode {name}"), |bencher| {
            bencher.iter_batched(
                Decoder::new,
                |mut decoder| {
                    decoder.push(black_box(&frame));
                    decoder.next()
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
