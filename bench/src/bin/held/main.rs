//! What held requests cost a storage point, and how soon they are answered, beside a bare event loop that writes the same
//! number of bytes to as many connections.
//!
//! The storage points, the bare loop and this client are processes of their own. Waves of both kinds take turns.

mod floor;
mod waiters;

use acms_bench::{
    Failure,
    cluster::{Cluster, acms_beside, cpu_s, memory_kib},
};
use acms_engine::runtime::process::raise_open_files;
use clap::Parser;
use hdrhistogram::Histogram;
use std::{
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use waiters::{Waiters, Wave};

/// Measures held requests of one storage point.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Connections, each with one held request
    #[arg(long, default_value_t = 10_000)]
    waiters: usize,
    /// Publications that all of them wait for
    #[arg(long, default_value_t = 30)]
    waves: usize,
    /// Seconds over which an idle storage point is watched
    #[arg(long, default_value_t = 60)]
    idle_seconds: u64,
    /// Seconds of publications that nobody waits for, without and with the waiters
    #[arg(long, default_value_t = 30)]
    unfollowed_seconds: u64,
    /// Publications a second that nobody waits for
    #[arg(long, default_value_t = 50)]
    rate: u32,
    /// Bytes of a publication's content
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// Storage points; the waiters are at the first
    #[arg(long, default_value_t = 3)]
    storage_points: u8,
    /// The acms program; by default the one beside this program
    #[arg(long)]
    acms: Option<PathBuf>,
    /// Be the bare loop that answers with so many bytes
    #[arg(long, hide = true, value_name = "BYTES")]
    floor: Option<usize>,
}

struct Floor {
    child: Child,
    address: SocketAddr,
}

impl Drop for Floor {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Floor {
    fn start(len: usize) -> Result<Floor, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--floor", &len.to_string()])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        std::io::BufRead::read_line(
            &mut std::io::BufReader::new(child.stdout.take().ok_or("no standard output")?),
            &mut line,
        )?;
        Ok(Floor { child, address: line.trim().parse()? })
    }
}

fn row(name: &str, value: f64) {
    println!("{name}\t{value:.3}");
}

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let descriptors = raise_open_files();
    if let Some(len) = args.floor {
        return floor::run(len);
    }
    if descriptors < args.waiters as u64 + 300 {
        return Err(format!("only {descriptors} files may be open; choose fewer --waiters").into());
    }
    let acms = args.acms.clone().map_or_else(acms_beside, Ok)?;
    let dir = tempfile::tempdir_in(acms.parent().ok_or("no directory")?)?;
    let cluster = Cluster::start(&acms, &dir.path().join("cluster"), args.storage_points, |config| config)?;
    let (address, pid) = (cluster.addresses[0], cluster.pid(1));
    row("waiters", args.waiters as f64);
    row("storage_points", args.storage_points.into());

    let mut publisher = waiters::Publisher::connect(address)?;
    publisher.publish("warm/up", args.size)?;
    let alone = unfollowed(&args, &mut publisher, pid, None)?;
    row("unfollowed_publications_per_s", alone.per_s);
    row("unfollowed_cpu_us_per_publication_without_waiters", alone.cpu_us);

    let before = memory_kib(pid, "RssAnon")?;
    let mut held = Waiters::connect(address, args.waiters, "wave")?;
    held.ask_all()?;
    held.settle(Duration::from_secs(2))?;
    let after = memory_kib(pid, "RssAnon")?;
    row("memory_bytes_per_waiter", after.saturating_sub(before) as f64 * 1024.0 / args.waiters as f64);

    let crowded = unfollowed(&args, &mut publisher, pid, Some(&mut held))?;
    row("unfollowed_cpu_us_per_publication_with_waiters", crowded.cpu_us);
    row("unfollowed_answers_to_waiters_per_s", crowded.answers_per_s);
    row("answers_per_s_by_holds_that_end", args.waiters as f64 / 25.0);

    let idle = idle(&args, &mut held, pid)?;
    row("idle_cpu_percent", idle.0);
    row("idle_answers_per_s", idle.1);

    // How long an answer is, the bare loop has to know.
    let first = held.wave(|| publisher.publish("wave/file", args.size))?;
    let bare = Floor::start(first.answer_len)?;
    drop(held);
    let (mut engine, mut floor) = (Totals::new()?, Totals::new()?);
    // Both servers' waiters do not fit into the descriptors of one client: quarters of the waves, turn by turn.
    for part in 0..4 {
        let waves = (args.waves + 3 - part) / 4;
        let mut held = Waiters::connect(address, args.waiters, "wave")?;
        held.ask_all()?;
        held.settle(Duration::from_millis(500))?;
        for _ in 0..waves {
            engine.add(pid, || held.wave(|| publisher.publish("wave/file", args.size)))?;
        }
        drop(held);
        let mut held = Waiters::connect(bare.address, args.waiters, "wave")?;
        let mut trigger = waiters::Publisher::connect(bare.address)?;
        held.ask_all()?;
        held.settle(Duration::from_millis(500))?;
        for _ in 0..waves {
            floor.add(bare.child.id(), || held.wave(|| trigger.publish("wave/file", 0)))?;
        }
    }
    row("answer_bytes", first.answer_len as f64);
    engine.print("engine");
    floor.print("floor");
    for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
        row(&format!("ratio_to_floor_{name}"), engine.ms(quantile) / floor.ms(quantile));
    }
    Ok(())
}

/// Waves of one kind of server.
struct Totals {
    latency_us: Histogram<u64>,
    whole_us: Histogram<u64>,
    cpu_s: f64,
}

impl Totals {
    fn new() -> Result<Totals, Failure> {
        Ok(Totals { latency_us: Histogram::new(3)?, whole_us: Histogram::new(3)?, cpu_s: 0.0 })
    }

    fn add(&mut self, pid: u32, wave: impl FnOnce() -> Result<Wave, Failure>) -> Result<(), Failure> {
        let before = cpu_s(pid)?;
        let wave = wave()?;
        self.cpu_s += cpu_s(pid)? - before;
        for latency in &wave.latencies {
            self.latency_us.record(latency.as_micros() as u64)?;
        }
        self.whole_us.record(wave.latencies.iter().max().map_or(0, |last| last.as_micros() as u64))?;
        Ok(())
    }

    fn ms(&self, quantile: f64) -> f64 {
        self.latency_us.value_at_quantile(quantile) as f64 / 1e3
    }

    fn print(&self, name: &str) {
        for (label, quantile) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
            row(&format!("{name}_answer_ms_{label}"), self.ms(quantile));
        }
        for (label, quantile) in [("p50", 0.5), ("min", 0.0), ("max", 1.0)] {
            row(&format!("{name}_all_answered_ms_{label}"), self.whole_us.value_at_quantile(quantile) as f64 / 1e3);
        }
        row(&format!("{name}_cpu_us_per_answer"), self.cpu_s * 1e6 / self.latency_us.len().max(1) as f64);
        row(&format!("{name}_answers"), self.latency_us.len() as f64);
    }
}

struct Unfollowed {
    per_s: f64,
    cpu_us: f64,
    answers_per_s: f64,
}

/// Publications that nobody waits for, at a steady rate.
fn unfollowed(
    args: &Args,
    publisher: &mut waiters::Publisher,
    pid: u32,
    mut held: Option<&mut Waiters>,
) -> Result<Unfollowed, Failure> {
    let count = args.unfollowed_seconds * u64::from(args.rate);
    let (began, cpu) = (Instant::now(), cpu_s(pid)?);
    let answered = held.as_ref().map_or(0, |held| held.answered());
    for number in 0..count {
        let due = Duration::from_secs(number) / args.rate;
        loop {
            let left = due.saturating_sub(began.elapsed());
            match &mut held {
                Some(held) => held.turn(left)?,
                None => std::thread::sleep(left),
            }
            if left.is_zero() {
                break;
            }
        }
        publisher.publish(&format!("elsewhere/{}", number % 16), args.size)?;
    }
    let elapsed = began.elapsed().as_secs_f64();
    Ok(Unfollowed {
        per_s: count as f64 / elapsed,
        cpu_us: (cpu_s(pid)? - cpu) * 1e6 / count as f64,
        answers_per_s: (held.map_or(0, |held| held.answered()) - answered) as f64 / elapsed,
    })
}

/// Percent of a core that the storage point takes while nothing happens but holds that end; and how many do in a second.
fn idle(args: &Args, held: &mut Waiters, pid: u32) -> Result<(f64, f64), Failure> {
    let (began, cpu, answered) = (Instant::now(), cpu_s(pid)?, held.answered());
    let time = Duration::from_secs(args.idle_seconds);
    while began.elapsed() < time {
        held.turn(time.saturating_sub(began.elapsed()))?;
    }
    let elapsed = began.elapsed().as_secs_f64();
    Ok(((cpu_s(pid)? - cpu) * 100.0 / elapsed, (held.answered() - answered) as f64 / elapsed))
}
