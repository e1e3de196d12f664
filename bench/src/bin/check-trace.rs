//! How many events of a trace are judged in a second, and how long a trace of a given length takes to make, to write and
//! to judge. `--write FILE` leaves the trace for `acms-testbed check FILE`.

use acms_bench::trace::Fleet;
use acms_testbed::{
    judge::Judge,
    trace::{Sink, TraceWriter},
};
use clap::Parser;
use std::{
    error::Error,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

/// Makes a trace of a fleet and judges it.
#[derive(Parser)]
struct Args {
    /// How many events.
    #[arg(long, default_value_t = 2_000_000)]
    events: u64,
    /// Decides what happens.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only write the trace, to this file.
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let args = Args::parse();
    let begun = Instant::now();
    if let Some(path) = args.write {
        let mut writer = TraceWriter::create(&path)?;
        Fleet::new(args.seed, args.events).for_each(|event| writer.record(event));
        writer.finish()?;
        println!("written in {:.1} s: {} bytes", begun.elapsed().as_secs_f64(), path.metadata()?.len());
        return Ok(ExitCode::SUCCESS);
    }
    let mut judge = Judge::new();
    let mut judging = Duration::ZERO;
    let mut batch = Vec::with_capacity(10_000);
    let mut fleet = Fleet::new(args.seed, args.events);
    loop {
        batch.extend(fleet.by_ref().take(10_000));
        if batch.is_empty() {
            break;
        }
        let begun = Instant::now();
        batch.drain(..).for_each(|event| judge.record(event));
        judging += begun.elapsed();
    }
    let last = Instant::now();
    let verdict = judge.finish();
    judging += last.elapsed();
    let rate = verdict.events as f64 / judging.as_secs_f64();
    println!(
        "{} events judged in {:.2} s: {rate:.0} a second (made in {:.2} s); trace {}",
        verdict.events,
        judging.as_secs_f64(),
        (begun.elapsed() - judging).as_secs_f64(),
        verdict.hash
    );
    for check in &verdict.checks {
        println!("{:<6} {:<7} {:>10} events", check.name, if check.held { "held" } else { "BROKEN" }, check.events);
        check.violations.iter().take(3).for_each(|violation| println!("       {violation}"));
    }
    Ok(if verdict.held() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
