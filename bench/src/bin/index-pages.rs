//! Pages of the index: their sizes, what a change rewrites, what a receiver reads to learn it, memory and time.

use acms_bench::index::{entry, path};
use acms_engine::protocol::{Duration, Hash, Instant, Node, NodePlace, index::Index};
use clap::Parser;
use nix::time::{ClockId, clock_gettime};
use std::collections::BTreeSet;

#[derive(Parser)]
struct Options {
    /// How many paths.
    #[arg(long, default_value_t = 100_000)]
    paths: u64,
    /// How many changes, one after the other, each with a root of its own.
    #[arg(long, default_value_t = 2_000)]
    changes: u64,
    /// All in one directory.
    #[arg(long)]
    flat: bool,
}

fn main() {
    let options = Options::parse();
    let count = options.paths;
    let name = |number: u64| match options.flat {
        true => format!("d/{:012}.json", number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16).parse().expect("a path"),
        false => path(number, count),
    };
    let before = resident();
    let mut index = Index::new(Duration::from_secs(300));
    let begun = processor_time();
    for number in 0..count {
        index.insert(&name(number), entry(number));
    }
    let inserted = processor_time() - begun;
    index.mint_root(Instant(0));
    println!("{count} paths: inserted in {inserted:?}, root after {:?}", processor_time() - begun);
    println!("memory: {} bytes a path", (resident() - before) / count);

    let mut known = BTreeSet::new();
    let mut sizes = fresh(&index, &mut known);
    sizes.sort_unstable();
    let sum: usize = sizes.iter().sum();
    let at = |share: usize| sizes[(sizes.len() - 1) * share / 100];
    println!(
        "{} nodes, bytes: mean {}, p10 {}, p50 {}, p90 {}, max {}",
        sizes.len(),
        sum / sizes.len(),
        at(10),
        at(50),
        at(90),
        at(100)
    );
    println!("encoded: {} bytes a path", sum as u64 / count);
    for (what, new) in [("entry of a path", false), ("path", true)] {
        let (mut nodes, mut bytes, mut times) = (Vec::new(), Vec::new(), Vec::new());
        for i in 0..options.changes {
            let number = if new { count + i } else { i.wrapping_mul(7_919) % count };
            let (path, entry) = (name(number), entry(count * 2 + i));
            let begun = processor_time();
            index.insert(&path, entry);
            index.mint_root(Instant(0));
            times.push(processor_time() - begun);
            let fresh = fresh(&index, &mut known);
            nodes.push(fresh.len());
            bytes.push(fresh.iter().sum::<usize>());
        }
        times.sort_unstable();
        let mean = |of: &[usize]| of.iter().sum::<usize>() as f64 / of.len() as f64;
        let most = |of: &[usize]| of.iter().copied().max().unwrap_or_default();
        println!("a new {what}:");
        println!("  nodes rewritten: mean {:.2}, max {}", mean(&nodes), most(&nodes));
        println!("  bytes to learn it by walking: mean {:.0}, max {}", mean(&bytes), most(&bytes));
        println!("  insert and mint: p50 {:?}, p99 {:?}", times[times.len() / 2], times[times.len() * 99 / 100]);
    }
}

/// Sizes of the root's nodes that are not known yet.
fn fresh(index: &Index, known: &mut BTreeSet<Hash>) -> Vec<usize> {
    let mut sizes = Vec::new();
    let mut rest = vec![(NodePlace::root(), index.root())];
    while let Some((place, hash)) = rest.pop() {
        if known.insert(hash) {
            let bytes = index.node(&hash).expect("it is served");
            sizes.push(bytes.len());
            rest.extend(place.children(&Node::decode(&bytes).expect("a good node")));
        }
    }
    sizes
}

/// What this thread has used.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

/// Bytes of memory that this process has.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}
