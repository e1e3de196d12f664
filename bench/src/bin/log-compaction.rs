//! The engine's log over a longer time, with and without maintenance: group commits of publications that overwrite each
//! other, as 64 publishers make them; checkpoints, compaction and segments used again beside them. How long commits take,
//! how much is written for each byte accepted, how much disk is used, and how long the next start takes.

use acms_bench::{counting::CountingStorage, log::held};
use acms_engine::{
    protocol::{Durable, Instant, SpId, StoreId, Uid, durable::InlineContent},
    store::{Log, Maintenance, Opened, Options, Pacer, Prepare, Step, Store, StoreError, StoreIdentity},
};
use clap::Parser;
use hdrhistogram::Histogram;
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeVal,
};
use serde::Serialize;
use std::{
    collections::VecDeque,
    error::Error,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant as Clock},
};

type Outcome<T> = Result<T, Box<dyn Error>>;
type Copies = (Vec<InlineContent>, Sender<Result<(), StoreError>>);

/// Measures the log with its maintenance.
#[derive(Parser)]
struct Args {
    /// Where to write; a directory of its own is made in it and removed.
    #[arg(long, default_value = "target")]
    dir: PathBuf,
    /// Seconds.
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    /// Publications of 1 KiB in a commit.
    #[arg(long, default_value_t = 32)]
    batch: u64,
    /// Commits a second at most.
    #[arg(long, default_value_t = 1500)]
    commits_per_s: u64,
    /// Paths that are overwritten in turn.
    #[arg(long, default_value_t = 1000)]
    paths: u64,
    /// Versions of each path whose contents are kept.
    #[arg(long, default_value_t = 10)]
    versions: u64,
    /// Publications that are remembered.
    #[arg(long, default_value_t = 100_000)]
    outcomes: u64,
    /// Of every so many publications one is never overwritten; 0: none.
    #[arg(long, default_value_t = 0)]
    every_lasting: u64,
    /// MiB of a segment.
    #[arg(long, default_value_t = 64)]
    segment_mib: u64,
    /// Without maintenance: the log only grows.
    #[arg(long)]
    without: bool,
    /// JSON instead of lines.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    commits_per_s: f64,
    publications_per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    max_ms: f64,
    accepted_mib: f64,
    written_mib: f64,
    written_per_accepted: f64,
    checkpoints: u64,
    checkpoint_mib: f64,
    copied_mib: f64,
    segments_freed: u64,
    disk_peak_mib: f64,
    disk_end_mib: f64,
    alive_mib: f64,
    publications_remembered: usize,
    /// After the end of the process as it was, then after one more checkpoint.
    restart_killed_s: f64,
    restart_killed_cpu_s: f64,
    restart_stopped_s: f64,
    restart_stopped_cpu_s: f64,
    records_at_restart: usize,
}

fn main() -> Outcome<()> {
    let args = Args::parse();
    let dir = tempfile::Builder::new().prefix("log-compaction-").tempdir_in(&args.dir)?;
    let report = measure(&args, dir.path())?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    let serde_json::Value::Object(lines) = serde_json::to_value(&report)? else { return Ok(()) };
    for (name, value) in lines {
        match value.as_f64().filter(|_| value.is_f64()) {
            Some(number) => println!("{name:26} {number:.3}"),
            None => println!("{name:26} {value}"),
        }
    }
    Ok(())
}

/// The records that a storage point writes for publications that overwrite each other.
struct Load {
    next: u64,
    batch: u64,
    keep: u64,
    remember: u64,
    every_lasting: u64,
    released: VecDeque<Uid>,
}

impl Load {
    fn records(&mut self) -> Vec<Durable> {
        let mut records = Vec::new();
        for _ in 0..self.batch {
            let record = held(self.next);
            let Durable::Held { manifest, .. } = &record else { continue };
            let uid = manifest.uid;
            records.push(record);
            let before = |count: u64| (self.next >= count).then(|| self.next - count);
            if let Some(agreed) = before(self.batch) {
                records.push(Durable::Agreed { uid: Uid { micros: uid.micros - self.next + agreed, ..uid } });
            }
            if let Some(old) = before(self.keep)
                && (self.every_lasting == 0 || !old.is_multiple_of(self.every_lasting))
            {
                let old = Uid { micros: uid.micros - self.next + old, ..uid };
                records.push(Durable::Released { uid: old });
                self.released.push_back(old);
            }
            if self.released.len() as u64 > self.remember
                && let Some(uid) = self.released.pop_front()
            {
                records.push(Durable::Forgotten { uid });
            }
            self.next += 1;
        }
        records
    }
}

fn measure(args: &Args, dir: &Path) -> Outcome<Report> {
    let storage = CountingStorage::new(dir)?;
    let identity = StoreIdentity { cluster: "bench".into(), sp: SpId(1), store: StoreId { number: 0, nonce: 1 } };
    let options = Options { segment_len: args.segment_mib << 20, prepare: Prepare::Background, ..Options::default() };
    Store::create_with(storage.clone(), &identity, options.segment_len)?;
    let opened = Store::open_with(storage.clone(), options)?;
    let before = storage.written();
    let (started, stop) = (Clock::now(), Arc::new(AtomicBool::new(false)));
    let (sender, copies) = channel();
    let maintenance = (!args.without).then(|| {
        let stop = Arc::clone(&stop);
        thread::spawn(move || maintain(opened.maintenance, started, &stop, &sender))
    });
    let mut log = opened.log;
    let mut latencies = Histogram::<u64>::new(3)?;
    let mut load = Load {
        next: 0,
        batch: args.batch,
        keep: args.paths * args.versions,
        remember: args.outcomes,
        every_lasting: args.every_lasting,
        released: VecDeque::new(),
    };
    let disk_peak = commits(args, started, &mut log, &mut load, &copies, &mut latencies, dir)?;
    let wall = started.elapsed().as_secs_f64();
    let written = storage.written() - before;
    stop.store(true, Ordering::Relaxed);
    drop(copies);
    drop(log);
    let figures = match maintenance {
        None => Default::default(),
        Some(thread) => {
            let maintenance = thread.join().map_err(|_| "the maintenance thread panicked")??;
            maintenance.figures()
        }
    };
    drop(opened.contents);
    let disk_end = disk_used(dir)?;
    let ((restart_killed_s, restart_killed_cpu_s), records, mut opened) = open(&storage, options)?;
    if !args.without {
        opened.maintenance.checkpoint(Instant(started.elapsed().as_nanos() as u64))?;
    }
    drop(opened);
    let ((restart_stopped_s, restart_stopped_cpu_s), _, opened) = open(&storage, options)?;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let ms = |ns: u64| ns as f64 / 1e6;
    let accepted = load.next * acms_bench::log::CONTENT_LEN as u64;
    Ok(Report {
        commits_per_s: latencies.len() as f64 / wall,
        publications_per_s: load.next as f64 / wall,
        p50_ms: ms(latencies.value_at_quantile(0.5)),
        p99_ms: ms(latencies.value_at_quantile(0.99)),
        p999_ms: ms(latencies.value_at_quantile(0.999)),
        max_ms: ms(latencies.max()),
        accepted_mib: mib(accepted),
        written_mib: mib(written),
        written_per_accepted: written as f64 / accepted as f64,
        checkpoints: figures.checkpoints_total,
        checkpoint_mib: mib(figures.checkpoint_bytes_total),
        copied_mib: mib(figures.copied_bytes_total),
        segments_freed: figures.freed_total,
        disk_peak_mib: mib(disk_peak),
        disk_end_mib: mib(disk_end),
        alive_mib: mib(opened.maintenance.figures().alive_bytes),
        publications_remembered: opened.maintenance.figures().publications,
        restart_killed_s,
        restart_killed_cpu_s,
        restart_stopped_s,
        restart_stopped_cpu_s,
        records_at_restart: records,
    })
}

fn open(storage: &CountingStorage, options: Options) -> Outcome<((f64, f64), usize, Opened<CountingStorage>)> {
    let (begun, cpu) = (Clock::now(), cpu_s()?);
    let opened = Store::open_with(storage.clone(), options)?;
    Ok(((begun.elapsed().as_secs_f64(), cpu_s()? - cpu), opened.records.len(), opened))
}

/// Processor time of this thread: what a busy machine does not change much.
fn cpu_s() -> Outcome<f64> {
    let usage = getrusage(UsageWho::RUSAGE_THREAD)?;
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// Commits until the time is over; the most disk that was in use.
fn commits(
    args: &Args,
    started: Clock,
    log: &mut Log<CountingStorage>,
    load: &mut Load,
    copies: &Receiver<Copies>,
    latencies: &mut Histogram<u64>,
    dir: &Path,
) -> Outcome<u64> {
    let mut pacer = Pacer::new(Duration::from_nanos(1_000_000_000 / args.commits_per_s.max(1)), 0);
    let (mut peak, mut looked) = (0, Clock::now());
    while started.elapsed().as_secs_f64() < args.seconds {
        let records = load.records();
        thread::sleep(pacer.delay(Clock::now(), records.len()));
        pacer.begun(Clock::now());
        let moved = copies.try_recv().ok();
        let before = Clock::now();
        log.commit_writes([&records[..]], moved.as_ref().map_or(&[], |(contents, _)| contents))?;
        latencies.record(before.elapsed().as_nanos() as u64)?;
        if let Some((_, answer)) = moved {
            answer.send(Ok(())).ok(); // its end says that nobody waits
        }
        if looked.elapsed() > Duration::from_millis(500) {
            peak = peak.max(disk_used(dir)?);
            looked = Clock::now();
        }
    }
    Ok(peak)
}

fn maintain(
    mut maintenance: Maintenance<CountingStorage>,
    started: Clock,
    stop: &AtomicBool,
    copies: &Sender<Copies>,
) -> Result<Maintenance<CountingStorage>, StoreError> {
    while !stop.load(Ordering::Relaxed) {
        let now = Instant(started.elapsed().as_nanos() as u64);
        match maintenance.step(now)? {
            Step::Again => {}
            Step::Wait(until) => thread::sleep(until.since(now).min(Duration::from_millis(500))),
            Step::Copy(contents) => {
                let (sender, copied) = channel();
                if copies.send((contents, sender)).is_ok() {
                    copied.recv().ok(); // at the end nobody answers
                }
            }
        }
    }
    Ok(maintenance)
}

fn disk_used(dir: &Path) -> Outcome<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        // A file may have gone or got another name since it was listed.
        bytes += entry?.metadata().map_or(0, |metadata| metadata.blocks() * 512);
    }
    Ok(bytes)
}
