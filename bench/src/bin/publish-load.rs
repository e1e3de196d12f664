//! How fast a cluster on this machine accepts publications, and where the time goes.
//!
//! Starts storage points as processes, publishes in a closed loop from one event loop, and prints acceptance latency,
//! publications per second, the processor time of each side, and the disk's own flush beside them.

use acms_bench::{
    Failure,
    cluster::{Cluster, acms_beside, cpu_s},
    publisher::Publisher,
};
use clap::Parser;
use hdrhistogram::Histogram;
use mio::{Events, Poll, Token};
use std::{
    fs::File,
    net::SocketAddr,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Child,
    time::{Duration, Instant},
};

/// Publishes as fast as a cluster on this machine accepts.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Publishers, each with one publication under way.
    #[arg(long, default_value_t = 64)]
    publishers: usize,
    /// Seconds to measure, after two of warming up.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Bytes of each publication's content.
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// Storage points.
    #[arg(long, default_value_t = 5)]
    storage_points: u8,
    /// Order of UIDs.
    #[arg(long, default_value = "strict", value_parser = ["strict", "fast"])]
    order: String,
    /// The acms program; by default the one beside this program.
    #[arg(long)]
    acms: Option<PathBuf>,
    /// Where the stores are made (and removed); by default beside this program.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// One JSON object instead of lines of name and value.
    #[arg(long)]
    json: bool,
}

/// A publisher with what it publishes: numbered, to 16 paths of its own, under keys of its own.
struct Load {
    publisher: Publisher,
    name: usize,
    number: u64,
}

impl Load {
    fn begin(&mut self, args: &Args) {
        self.number += 1;
        let path = format!("bench/p{}/f{}", self.name, self.number % 16);
        let key = format!("{}-{}", self.name, self.number);
        let filler = ((self.name as u64) << 32 | self.number).to_le_bytes();
        let content: Vec<u8> = filler.iter().copied().cycle().take(args.size).collect();
        let headers = [("Idempotency-Key", &*key), ("ACMS-Order", &*args.order)];
        self.publisher.begin(&path, &headers, &content, Instant::now());
    }
}

struct Measured {
    latency_us: Histogram<u64>,
    accepted: u64,
    others: u64,
    elapsed: Duration,
}

fn publish(args: &Args, addresses: &[SocketAddr], duration: Duration) -> Result<Measured, Failure> {
    let mut poll = Poll::new()?;
    let mut publishers = Vec::new();
    for name in 0..args.publishers {
        let publisher = Publisher::connect(addresses[name % addresses.len()], poll.registry(), Token(name))?;
        publishers.push(Load { publisher, name, number: 0 });
    }
    let started = Instant::now();
    let mut measured = Measured { latency_us: Histogram::new(3)?, accepted: 0, others: 0, elapsed: duration };
    publishers.iter_mut().for_each(|load| load.begin(args));
    let mut events = Events::with_capacity(1024);
    while started.elapsed() < duration {
        poll.poll(&mut events, Some(Duration::from_secs(1)))?;
        for event in &events {
            let load = &mut publishers[event.token().0];
            while let Some((status, took)) = load.publisher.advance()? {
                measured.latency_us.record(took.as_micros() as u64)?;
                *if status == 201 { &mut measured.accepted } else { &mut measured.others } += 1;
                load.begin(args);
            }
        }
    }
    measured.elapsed = started.elapsed();
    Ok(measured)
}

/// Microseconds of flushing 4 KiB into a file whose blocks are there: the least that durability costs here.
fn flush_us(dir: &Path) -> Result<Histogram<u64>, Failure> {
    let file = File::create(dir.join("flush"))?;
    let block = [7; 4096];
    for i in 0..64 {
        file.write_all_at(&block, i * 4096)?;
    }
    file.sync_all()?;
    let mut histogram = Histogram::new(3)?;
    for i in 0..500 {
        let began = Instant::now();
        file.write_all_at(&block, i % 64 * 4096)?;
        file.sync_data()?;
        histogram.record(began.elapsed().as_micros() as u64)?;
    }
    Ok(histogram)
}

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let acms = args.acms.clone().map_or_else(acms_beside, Ok)?;
    let dir = tempfile::tempdir_in(args.dir.as_deref().or(acms.parent()).ok_or("no directory")?)?;
    let flush_before = flush_us(dir.path())?;
    let cluster = Cluster::start(&acms, &dir.path().join("cluster"), args.storage_points, |config| config)?;
    publish(&args, &cluster.addresses, Duration::from_secs(2))?;
    let pids: Vec<u32> = cluster.children.iter().map(Child::id).collect();
    let cpu = || -> Result<(f64, f64), Failure> {
        Ok((pids.iter().map(|pid| cpu_s(*pid)).sum::<Result<f64, _>>()?, cpu_s(std::process::id())?))
    };
    let before = cpu()?;
    let measured = publish(&args, &cluster.addresses, Duration::from_secs(args.seconds))?;
    let after = cpu()?;
    drop(cluster);
    let flush_after = flush_us(dir.path())?;
    let total = (measured.accepted + measured.others).max(1) as f64;
    let us = |quantile: f64| measured.latency_us.value_at_quantile(quantile) as f64;
    let rows = [
        ("publishers", args.publishers as f64),
        ("size_bytes", args.size as f64),
        ("accepted", measured.accepted as f64),
        ("others", measured.others as f64),
        ("accepted_per_s", measured.accepted as f64 / measured.elapsed.as_secs_f64()),
        ("latency_us_p50", us(0.5)),
        ("latency_us_p90", us(0.9)),
        ("latency_us_p99", us(0.99)),
        ("latency_us_max", measured.latency_us.max() as f64),
        ("storage_points_cpu_us_per_publication", (after.0 - before.0) * 1e6 / total),
        ("publishers_cpu_us_per_publication", (after.1 - before.1) * 1e6 / total),
        ("flush_us_p50_before", flush_before.value_at_quantile(0.5) as f64),
        ("flush_us_p50_after", flush_after.value_at_quantile(0.5) as f64),
    ];
    if args.json {
        let object: serde_json::Map<_, _> =
            rows.iter().map(|(name, value)| (name.to_string(), (*value).into())).collect();
        println!("{}", serde_json::Value::Object(object));
    } else {
        rows.iter().for_each(|(name, value)| println!("{name}\t{value:.1}"));
    }
    Ok(())
}
