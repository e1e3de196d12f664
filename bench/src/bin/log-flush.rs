//! How many durable commits a second, and how long each takes: the engine's log beside an appended file and beside the
//! bare flush of one block. One process, then several at once as on a machine with several storage points.
//!
//! Rounds are interleaved, so that a machine that is busy for a while disturbs all alike; medians over rounds are
//! reported, with the least and the greatest.

use acms_bench::log::{batch, store};
use clap::{Parser, ValueEnum};
use hdrhistogram::Histogram;
use nix::sys::resource::{UsageWho, getrusage};
use serde::Serialize;
use std::{
    error::Error,
    fs::OpenOptions,
    io::{BufRead, BufReader, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Method {
    /// The engine's log: zero-filled segments, records with checksums.
    Log,
    /// Bytes appended to a file, then fdatasync.
    Append,
    /// One 4 KiB block overwritten in place, then fdatasync: the floor.
    Block,
}

/// Measures durable commits.
#[derive(Parser)]
struct Args {
    /// Where to write; a directory of its own is made in it and removed.
    #[arg(long, default_value = "target")]
    dir: PathBuf,
    /// Batches, in KiB.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64])]
    kib: Vec<usize>,
    /// Processes at once.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 5])]
    processes: Vec<usize>,
    /// Rounds.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// Be one of the measured processes.
    #[arg(long, hide = true)]
    child: Option<Method>,
}

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let args = Args::parse();
    match args.child {
        Some(method) => child(method, args.kib[0] << 10, &args.dir, args.seconds),
        None => parent(&args),
    }
}

/// Prepares, says so, waits for a line, commits until the time is over, and prints processor time and latencies.
fn child(method: Method, len: usize, dir: &Path, seconds: f64) -> Outcome<()> {
    let mut commit = committer(method, len, dir)?;
    for _ in 0..20 {
        commit()?;
    }
    println!("ready");
    std::io::stdin().read_line(&mut String::new())?;
    let mut latencies = Histogram::<u64>::new(3)?;
    let (started, cpu) = (Instant::now(), cpu_time()?);
    while started.elapsed().as_secs_f64() < seconds {
        let before = Instant::now();
        commit()?;
        latencies.record(before.elapsed().as_nanos() as u64)?;
    }
    let (wall, cpu) = (started.elapsed(), cpu_time()? - cpu);
    println!("{} {}", wall.as_nanos(), cpu.as_nanos());
    for value in latencies.iter_recorded() {
        println!("{} {}", value.value_iterated_to(), value.count_at_value());
    }
    Ok(())
}

fn cpu_time() -> Outcome<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let micros = |time: nix::sys::time::TimeVal| time.tv_sec() as u64 * 1_000_000 + time.tv_usec() as u64;
    Ok(Duration::from_micros(micros(usage.user_time()) + micros(usage.system_time())))
}

fn committer(method: Method, len: usize, dir: &Path) -> Outcome<Box<dyn FnMut() -> Outcome<()>>> {
    let create = || OpenOptions::new().create_new(true).write(true).open(dir.join("file"));
    let bytes = vec![0x5a; if method == Method::Block { 4096 } else { len }];
    Ok(match method {
        Method::Log => {
            let mut opened = store(dir)?;
            let batch = batch(len);
            Box::new(move || Ok(opened.log.commit(&batch)?))
        }
        Method::Append => {
            let mut file = create()?;
            Box::new(move || {
                file.write_all(&bytes)?;
                Ok(file.sync_data()?)
            })
        }
        Method::Block => {
            let file = create()?;
            Box::new(move || {
                file.write_all_at(&bytes, 0)?;
                Ok(file.sync_data()?)
            })
        }
    })
}

/// One measurement.
struct Measured {
    commits_per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    cpu_us: f64,
}

fn measure(args: &Args, method: Method, kib: usize, processes: usize) -> Outcome<Measured> {
    let dir = tempfile::Builder::new().prefix("log-flush-").tempdir_in(&args.dir)?;
    let mut children = Vec::new();
    for number in 0..processes {
        let own = dir.path().join(number.to_string());
        std::fs::create_dir(&own)?;
        let name = method.to_possible_value().expect("no method is hidden").get_name().to_owned();
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--child", &name, "--kib", &kib.to_string(), "--seconds", &args.seconds.to_string(), "--dir"]);
        let mut child = command.arg(&own).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = BufReader::new(child.stdout.take().expect("piped"));
        children.push((child, output));
    }
    let measured = gather(&mut children);
    for (child, _) in &mut children {
        child.kill().ok(); // of no effect on those that have ended
        child.wait()?;
    }
    measured
}

fn gather(children: &mut [(Child, BufReader<std::process::ChildStdout>)]) -> Outcome<Measured> {
    for (_, output) in &mut *children {
        let mut line = String::new();
        output.read_line(&mut line)?;
        if line != "ready\n" {
            return Err("a measured process failed".into());
        }
    }
    for (child, _) in &mut *children {
        drop(child.stdin.take()); // the end of its input starts it
    }
    let mut all = Histogram::<u64>::new(3)?;
    let (mut per_s, mut cpu) = (0.0, 0.0);
    for (_, output) in children {
        let mut lines = output.lines().map(|line| -> Outcome<(u64, u64)> {
            let line = line?;
            let (left, right) = line.split_once(' ').ok_or("a measured process failed")?;
            Ok((left.parse()?, right.parse()?))
        });
        let (wall_ns, cpu_ns) = lines.next().ok_or("a measured process failed")??;
        let before = all.len();
        for line in lines {
            let (value, count) = line?;
            all.record_n(value, count)?;
        }
        per_s += (all.len() - before) as f64 * 1e9 / wall_ns as f64;
        cpu += cpu_ns as f64 / 1e3;
    }
    let ms = |quantile| all.value_at_quantile(quantile) as f64 / 1e6;
    Ok(Measured { commits_per_s: per_s, p50_ms: ms(0.5), p99_ms: ms(0.99), cpu_us: cpu / all.len() as f64 })
}

/// Median, least and greatest over the rounds.
#[derive(Serialize)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(rounds: &[Measured], value: impl Fn(&Measured) -> f64) -> Spread {
        let mut values: Vec<f64> = rounds.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        Spread { median: values[values.len() / 2], min: values[0], max: values[values.len() - 1] }
    }
}

#[derive(Serialize)]
struct Row {
    method: Method,
    kib: usize,
    processes: usize,
    rounds: usize,
    commits_per_s: Spread,
    p50_ms: Spread,
    p99_ms: Spread,
    cpu_us_per_commit: Spread,
}

fn parent(args: &Args) -> Outcome<()> {
    let mut cases = Vec::new();
    for &processes in &args.processes {
        cases.push((Method::Block, 4, processes));
        for &kib in &args.kib {
            cases.extend([(Method::Log, kib, processes), (Method::Append, kib, processes)]);
        }
    }
    let mut measured: Vec<Vec<Measured>> = cases.iter().map(|_| Vec::new()).collect();
    for _ in 0..args.rounds.max(1) {
        for ((method, kib, processes), rounds) in cases.iter().zip(&mut measured) {
            rounds.push(measure(args, *method, *kib, *processes)?);
        }
    }
    let rows = cases.iter().zip(&measured).map(|(&(method, kib, processes), rounds)| Row {
        method,
        kib,
        processes,
        rounds: rounds.len(),
        commits_per_s: Spread::of(rounds, |m| m.commits_per_s),
        p50_ms: Spread::of(rounds, |m| m.p50_ms),
        p99_ms: Spread::of(rounds, |m| m.p99_ms),
        cpu_us_per_commit: Spread::of(rounds, |m| m.cpu_us),
    });
    let rows: Vec<Row> = rows.collect();
    if args.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(());
    }
    println!("method\tkib\tprocesses\tcommits_per_s\tmin..max\tp50_ms\tmin..max\tp99_ms\tmin..max\tcpu_us");
    for row in &rows {
        let Spread { median, min, max } = row.commits_per_s;
        print!("{:?}\t{}\t{}\t{median:.0}\t{min:.0}..{max:.0}", row.method, row.kib, row.processes);
        for Spread { median, min, max } in [&row.p50_ms, &row.p99_ms] {
            print!("\t{median:.3}\t{min:.3}..{max:.3}");
        }
        println!("\t{:.0}", row.cpu_us_per_commit.median);
    }
    Ok(())
}
