//! The HTTP side without sockets: a request's head parsed, an answer written.

use acms_engine::runtime::http::{
    answer::{HttpDate, Outbox},
    body::{BodyReader, Piece},
    head::{self, Framing},
    target,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::{collections::VecDeque, hint::black_box};

const GET: &[u8] = b"GET /v1/changes/3.0-1.4711/etc/edge HTTP/1.1\r\nHost: 127.0.0.1:7401\r\n\
    User-Agent: acms-receive/0.1.0\r\nAccept: */*\r\n\r\n";
const PUT: &[u8] = b"PUT /v1/config/edge/routes.json HTTP/1.1\r\nHost: 127.0.0.1:7401\r\nUser-Agent: curl/7.88.1\r\n\
    Accept: */*\r\nIdempotency-Key: 01JD3Z1V9Q8M7K6H5G4F3E2D1C\r\nACMS-Publisher: release\r\nContent-Length: 1024\r\n\r\n";

fn heads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("http head");
    for (name, input) in [("GET", GET), ("PUT", PUT)] {
        group.throughput(Throughput::Bytes(input.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut room = head::header_room();
                let (head, len) = head::parse(black_box(input), &mut room).expect("a good head").expect("all of it");
                (len, target::resource(head.path, head.query).is_ok())
            });
        });
    }
    group.finish();
}

fn bodies(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("http body");
    let chunk = [b"400\r\n".as_slice(), &[b'x'; 1024], b"\r\n"].concat();
    let chunked = [chunk.repeat(64), b"0\r\n\r\n".to_vec()].concat();
    group.throughput(Throughput::Bytes(64 << 10));
    group.bench_function("64 KiB in chunks", |bencher| {
        bencher.iter(|| {
            let mut reader = BodyReader::new(Framing::Chunked);
            let (mut at, mut total) = (0, 0);
            loop {
                let (taken, piece) = reader.next(&black_box(&chunked)[at..]).expect("a good body");
                at += taken;
                match piece {
                    Piece::Data(data) => total += data.len(),
                    Piece::End | Piece::NeedMore => return total,
                }
            }
        });
    });
    group.finish();
}

fn answers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("http answer");
    let (mut bytes, mut queue, date) = (Vec::with_capacity(8 << 10), VecDeque::new(), HttpDate::default());
    for len in [64usize, 4096] {
        let body = vec![b'x'; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("{len} bytes"), |bencher| {
            bencher.iter(|| {
                bytes.clear();
                let mut out = Outbox::new(&mut bytes, &mut queue, date.clone());
                out.begin(200).header("ETag", "\"1700000000000000.1.0\"").header("Cache-Control", "no-store");
                out.header("Content-Type", "application/json").body(black_box(&body));
                bytes.len()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, heads, bodies, answers);
criterion_main!(benches);
