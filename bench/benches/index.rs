//! The index of a storage point: what a publication costs it, minting a root, building it anew, and walking to what
//! differs.

use acms_bench::index::{entry, filled, path};
use acms_engine::protocol::{Hash, Instant, Node, NodePlace, index::Index};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use std::hint::black_box;

/// Nodes on the way to what `other` lacks of `index`.
fn difference(index: &Index, other: &Index) -> usize {
    let mut nodes = 0;
    let mut rest: Vec<(NodePlace, Hash)> = vec![(NodePlace::root(), index.root())];
    while let Some((place, hash)) = rest.pop() {
        if other.has_node(&place, hash) {
            continue;
        }
        let node = Node::decode(&index.node(&hash).expect("it is served")).expect("a good node");
        place.check(&node).expect("it stands where it belongs");
        rest.extend(place.children(&node));
        nodes += 1;
    }
    nodes
}

fn index(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("index");
    group.sample_size(20);
    for count in [100_000u64, 1_000_000] {
        let mut index = filled(count);
        let mut next = count;
        let mut change = |index: &mut Index| {
            next += 1;
            index.insert(&path(next.wrapping_mul(7_919) % count, count), entry(next));
        };
        group.bench_function(format!("insert one among {count}"), |bencher| bencher.iter(|| change(&mut index)));
        index.mint_root(Instant(0));
        group.bench_function(format!("insert one and mint among {count}"), |bencher| {
            bencher.iter(|| {
                change(&mut index);
                index.mint_root(Instant(0))
            });
        });
        group.bench_function(format!("insert 1,000 and mint among {count}"), |bencher| {
            bencher.iter(|| {
                (0..1_000).for_each(|_| change(&mut index));
                index.mint_root(Instant(0))
            });
        });
        let mut number = 0;
        group.bench_function(format!("look up among {count}"), |bencher| {
            bencher.iter(|| {
                number += 7_919;
                black_box(index.lookup(path(number % count, count).as_str()))
            });
        });
    }
    let one = filled(100_000);
    let mut other = filled(100_000);
    for i in 0..100 {
        other.insert(&path(i * 997, 100_000), entry(200_000 + i));
    }
    other.mint_root(Instant(0));
    group.bench_function("walk to 100 changes among 100000", |bencher| bencher.iter(|| difference(&other, &one)));
    group.bench_function("build of 100000", |bencher| {
        bencher.iter_batched(|| (), |()| filled(100_000), BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group!(benches, index);
criterion_main!(benches);
