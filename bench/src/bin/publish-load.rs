//! How fast a cluster on this machine accepts publications, and where the time goes.
//!
//! Starts storage points as processes, publishes in a closed loop from one event loop, and prints acceptance latency,
//! publications per second, the processor time of each side, and the disk's own flush beside them.

use acms_bench::cluster::{Cluster, acms_beside, cpu_s};
use acms_engine::client::response::{ResponseParser, encode_request};
use clap::Parser;
use hdrhistogram::Histogram;
use mio::{Events, Interest, Poll, Token, net::TcpStream};
use std::{
    error::Error,
    fs::File,
    io::{ErrorKind, Read, Write},
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

type Failure = Box<dyn Error>;

struct Publisher {
    stream: TcpStream,
    parser: ResponseParser,
    request: Vec<u8>,
    written: usize,
    began: Instant,
    number: u64,
    name: usize,
}

impl Publisher {
    fn connect(name: usize, address: SocketAddr) -> Result<Publisher, Failure> {
        let stream = TcpStream::from_std({
            let stream = std::net::TcpStream::connect(address)?;
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            stream
        });
        let parser = ResponseParser::new(false, 1 << 20);
        Ok(Publisher { stream, parser, request: Vec::new(), written: 0, began: Instant::now(), number: 0, name })
    }

    fn begin(&mut self, args: &Args) {
        self.number += 1;
        let target = format!("/v1/config/bench/p{}/f{}", self.name, self.number % 16);
        let key = format!("{}-{}", self.name, self.number);
        let length = args.size.to_string();
        let headers = [("Idempotency-Key", &*key), ("ACMS-Order", &*args.order), ("Content-Length", &*length)];
        self.request = encode_request("PUT", "bench", &target, &headers);
        let filler = (self.name as u64) << 32 | self.number;
        self.request.extend(filler.to_le_bytes().iter().cycle().take(args.size));
        self.written = 0;
        self.parser = ResponseParser::new(false, 1 << 20);
        self.began = Instant::now();
    }

    /// Writes and reads what goes; the outcome's status once it is there.
    fn advance(&mut self) -> Result<Option<u16>, Failure> {
        while self.written < self.request.len() {
            match self.stream.write(&self.request[self.written..]) {
                Ok(len) => self.written += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err("the storage point closed the connection".into()),
                Ok(len) => {
                    self.parser.push(&buffer[..len])?;
                    if self.parser.is_done() {
                        return Ok(self.parser.head().map(|head| head.status));
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
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
        let mut publisher = Publisher::connect(name, addresses[name % addresses.len()])?;
        poll.registry().register(&mut publisher.stream, Token(name), Interest::READABLE | Interest::WRITABLE)?;
        publishers.push(publisher);
    }
    let started = Instant::now();
    let mut measured = Measured { latency_us: Histogram::new(3)?, accepted: 0, others: 0, elapsed: duration };
    for publisher in &mut publishers {
        publisher.begin(args);
        publisher.advance()?;
    }
    let mut events = Events::with_capacity(1024);
    while started.elapsed() < duration {
        poll.poll(&mut events, Some(Duration::from_secs(1)))?;
        for event in &events {
            let publisher = &mut publishers[event.token().0];
            while let Some(status) = publisher.advance()? {
                measured.latency_us.record(publisher.began.elapsed().as_micros() as u64)?;
                *if status == 201 { &mut measured.accepted } else { &mut measured.others } += 1;
                publisher.begin(args);
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
