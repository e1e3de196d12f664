//! Judging a trace: all checks, metrics and the hash, event by event.

use acms_bench::trace::Fleet;
use acms_testbed::judge::Judge;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

fn judge(c: &mut Criterion) {
    // The audit of a thousand receivers alone is a million events; these are the first of a longer trace.
    let events: Vec<_> = Fleet::new(1, 2_000_000).take(200_000).collect();
    let mut group = c.benchmark_group("check");
    group.throughput(Throughput::Elements(events.len() as u64)).sample_size(10);
    group.bench_function("judge", |bench| {
        bench.iter_batched(
            Judge::new,
            |mut judge| {
                events.iter().for_each(|event| judge.observe(event));
                judge
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, judge);
criterion_main!(benches);
