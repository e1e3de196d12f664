//! One commit of the log, in batches of 1, 16 and 64 KiB, on the disk that holds `target/`.

use acms_bench::log::{batch, store};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::{path::Path, time::Duration};

fn commit(criterion: &mut Criterion) {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let mut group = criterion.benchmark_group("log_commit");
    group.sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    for kib in [1, 16, 64] {
        let dir = tempfile::Builder::new().prefix("bench-log-").tempdir_in(&target).expect("target/ is writable");
        let mut opened = store(dir.path()).expect("a new store");
        let batch = batch(kib << 10);
        group.throughput(Throughput::Bytes((kib << 10) as u64));
        group.bench_function(format!("{kib}KiB"), |bencher| {
            bencher.iter(|| opened.log.commit(&batch).expect("the disk takes it"));
        });
    }
    group.finish();
}

criterion_group!(benches, commit);
criterion_main!(benches);
