//! How long acceptance takes over measured wide-area round trips, and how many of them explain it: both modes and orders,
//! three to nine storage points, in virtual time.
//!
//! An accepting storage point waits for a quorum, so its unit is the round trip to the farthest of the nearest others that
//! make one with it. What a publication took beyond the way from its publisher and the flushes, divided by that unit, is
//! the number of round trips in a row that the protocol needed. The processor's own work takes no time here.

use acms_testbed::{
    backend::simulated,
    scenario::Scenario,
    trace::{Event, Kind, Sink},
};
use clap::Parser;
use std::{collections::BTreeMap, error::Error};

/// Measures acceptance in both modes and orders with 3, 5, 7 and 9 storage points in as many regions.
#[derive(Parser)]
struct Args {
    /// Publications of each row.
    #[arg(long, default_value_t = 2_000)]
    publications: u32,
    /// Packets lost, of one.
    #[arg(long, default_value_t = 0.0005)]
    loss: f64,
    /// How far delays are off, of one.
    #[arg(long, default_value_t = 0.05)]
    jitter: f64,
    /// Time of a flush, in microseconds.
    #[arg(long, default_value_t = 300)]
    flush_us: u64,
    /// Decides everything.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Publications a second: few enough that none waits for another's query.
const PER_SECOND: u32 = 5;
/// From a publisher to the storage point beside it and back: within a region a round trip is so long.
const WITHIN_REGION_NS: u64 = 500_000;

/// What one publication took.
struct Accepted {
    sp: usize,
    took_ns: u64,
}

/// Pairs of invocation and acceptance.
#[derive(Default)]
struct Acceptances {
    begun: BTreeMap<String, (u64, usize)>,
    accepted: Vec<Accepted>,
    others: u64,
}

impl Sink for Acceptances {
    fn record(&mut self, event: Event) {
        if event.kind == Kind::Phase && event.cause.as_deref() == Some("updates") {
            // What came before is the first load: many at once, while links and clocks are new.
            *self = Acceptances::default();
        }
        let Some(key) = &event.publication else { return };
        match event.kind {
            Kind::Invoke => {
                let words = event.cause.as_deref().unwrap_or_default();
                let sp = words.split(' ').next().and_then(|name| name.strip_prefix("sp")?.parse().ok());
                self.begun.insert(key.to_string(), (event.time_ns, sp.unwrap_or(0)));
            }
            Kind::Outcome => {
                let Some((begun_ns, sp)) = self.begun.remove(&**key) else { return };
                match event.outcome.as_deref() {
                    Some("accepted") => self.accepted.push(Accepted { sp, took_ns: event.time_ns - begun_ns }),
                    _ => self.others += 1,
                }
            }
            _ => {}
        }
    }
}

fn scenario(args: &Args, sps: usize, mode: &str, order: &str, is_quiet: bool) -> Result<Scenario, Box<dyn Error>> {
    let (loss, jitter) = if is_quiet { (0.0, 0.0) } else { (args.loss, args.jitter) };
    let (flush_us, seed) = (args.flush_us, args.seed);
    let duration_s = args.publications / PER_SECOND;
    let text = format!(
        r#"
name = "acceptance-modes"
seed = {seed}
duration = "{duration_s}s"
backend = "simulated"
[acms]
mode = "{mode}"
order = "{order}"
[fleet]
storage_points = {sps}
receivers = 1
[network]
rtt = "azure-50"
loss = {loss}
jitter = {jitter}
[disk]
flush = "{flush_us}us"
[workload]
files = 50
size = "1KiB..1KiB"
updates_per_s = {PER_SECOND}
arrival = "fixed"
"#
    );
    Ok(Scenario::parse("acceptance-modes", &text, &[])?)
}

fn run(scenario: &Scenario) -> Result<Acceptances, Box<dyn Error>> {
    let mut sink = Acceptances::default();
    simulated::run(scenario, &mut sink)?;
    Ok(sink)
}

/// Of each storage point, the round trip to the farthest of the nearest others that make a majority with it.
fn quorum_round_trips(scenario: &Scenario) -> Result<Vec<u64>, Box<dyn Error>> {
    let table = scenario.table()?;
    let sps = usize::from(scenario.fleet.storage_points);
    let regions = &scenario.regions(&table)?[..sps];
    let trips = regions.iter().enumerate().map(|(me, here)| {
        let others = regions.iter().enumerate().filter(|(other, _)| *other != me);
        let mut trips: Vec<u64> =
            others.map(|(_, there)| table.one_way_ns(*here, *there) + table.one_way_ns(*there, *here)).collect();
        trips.sort_unstable();
        trips[sps / 2 - 1]
    });
    Ok(trips.collect())
}

fn percentile(sorted: &[f64], of_100: usize) -> f64 {
    sorted.get(sorted.len().saturating_sub(1) * of_100 / 100).copied().unwrap_or(f64::NAN)
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    println!(
        "storage points\tmode\torder\tquorum round trip, ms: mean\tp50, ms\tp90\tp99\tmax\taccepted\tothers\t\
         round trips: p50\tleast\tgreatest"
    );
    for sps in [3, 5, 7, 9] {
        for (mode, order) in [("fused", "fast"), ("fused", "strict"), ("two-phase", "fast"), ("two-phase", "strict")] {
            row(&args, sps, mode, order)?;
        }
    }
    Ok(())
}

/// Percentiles with the losses and jitter asked for; round trips without either, so that nothing blurs them.
fn row(args: &Args, sps: usize, mode: &str, order: &str) -> Result<(), Box<dyn Error>> {
    let noisy = run(&scenario(args, sps, mode, order, false)?)?;
    let quiet = scenario(args, sps, mode, order, true)?;
    let trips = quorum_round_trips(&quiet)?;
    let flush_ns = args.flush_us * 1_000;
    let units = |accepted: &Accepted| {
        let beyond_ns = accepted.took_ns.saturating_sub(WITHIN_REGION_NS + flush_ns);
        beyond_ns as f64 / trips[accepted.sp - 1] as f64
    };
    let quiet = run(&quiet)?;
    let units = sorted(quiet.accepted.iter().filter(|accepted| accepted.sp > 0).map(units));
    let times = sorted(noisy.accepted.iter().map(|accepted| accepted.took_ns as f64 / 1e6));
    let mean_ms = trips.iter().sum::<u64>() as f64 / trips.len() as f64 / 1e6;
    let [p50, p90, p99, max] = [50, 90, 99, 100].map(|of_100| percentile(&times, of_100));
    let [middle, least, greatest] = [50, 0, 100].map(|of_100| percentile(&units, of_100));
    println!(
        "{sps}\t{mode}\t{order}\t{mean_ms:.1}\t{p50:.1}\t{p90:.1}\t{p99:.1}\t{max:.1}\t{}\t{}\t{middle:.2}\t{least:.2}\t\
         {greatest:.2}",
        times.len(),
        noisy.others,
    );
    Ok(())
}
