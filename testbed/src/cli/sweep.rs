//! `acms-testbed sweep`: a scenario with every combination of some values, one run after the other.

use super::{COULD_NOT, FAILED, INTERRUPTED, PASSED, Which, fail, is_wide, key_value, prepare, print, tell, verdict};
use crate::{
    backend::Stop,
    progress::Progress,
    report::RunResult,
    run::{RunError, RunOptions, run, stamp},
    system::Program,
};
use std::{fmt::Write as _, fs, path::PathBuf};

/// Run a scenario with every combination of some values, each as often as asked, and show results side by side.
///
/// Prints a tab-separated line for each run as it ends, and writes them to sweep.tsv; each run's own results are in a directory
/// beside it. Repetitions have seeds one after the other, from `--seed` on. Goes on after a run that broke a promise, and ends at one that could
/// not be run.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  \
    acms-testbed sweep quickstart --vary fleet.receivers=20,100 --vary acms.mode=fused,two-phase --repeat 3\n  \
    acms-testbed sweep wan --backend simulated --vary network.loss=0,0.001,0.01 --set duration=10m\n\n\
    Exit code: that of the worst run; see `run`. A broken promise is worse than an invalid measurement.")]
pub(super) struct Sweep {
    #[command(flatten)]
    which: Which,
    /// A key of the scenario and the values that it takes; may be given several times.
    #[arg(long = "vary", value_name = "KEY=A,B,C", value_parser = key_value, required = true)]
    vary: Vec<(String, String)>,
    /// Runs of each combination.
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Where results go [default: out/sweep-<name>-<time>].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Show no progress.
    #[arg(long, short)]
    quiet: bool,
}

/// A figure of each line: its name, and what a run has there.
type Column = (&'static str, fn(&RunResult) -> Option<f64>);

const COLUMNS: [Column; 12] = [
    ("accepted", |r| Some(r.publish.phases.get(&r.publish.latency_phase)?.accepted as f64)),
    ("accepted_per_s", |r| Some(r.publish.per_s)),
    ("acceptance_ms_p50", |r| r.publish.latency_ms.p50),
    ("acceptance_ms_p99", |r| r.publish.latency_ms.p99),
    ("receiver_ms_p50", |r| r.propagation.per_receiver_ms.p50),
    ("receiver_ms_p99", |r| r.propagation.per_receiver_ms.p99),
    ("receiver_ms_p999", |r| r.propagation.per_receiver_ms.p999),
    ("all_receivers_ms_p50", |r| r.propagation.convergence_ms.get("100")?.p50),
    ("all_receivers_ms_p99", |r| r.propagation.convergence_ms.get("100")?.p99),
    ("longest_gap_ms", |r| r.availability.longest_gap_ms),
    ("late_packets_pct", |r| r.network.late_packets_pct),
    ("machine_busy_pct", |r| Some(r.resources.machine?.busy_pct)),
];

/// All combinations: each a value for every key.
fn combinations(vary: &[(String, String)]) -> Vec<Vec<(String, String)>> {
    vary.iter().fold(vec![Vec::new()], |all, (key, values)| {
        let with = |before: &Vec<(String, String)>, value: &str| {
            let mut combination = before.clone();
            combination.push((key.clone(), value.trim().to_owned()));
            combination
        };
        all.iter().flat_map(|before| values.split(',').map(move |value| with(before, value))).collect()
    })
}

fn head(vary: &[(String, String)]) -> String {
    let keys = vary.iter().map(|(key, _)| key.as_str());
    let names = COLUMNS.iter().map(|(name, _)| *name);
    keys.chain(["seed", "verdict"]).chain(names).chain(["results"]).collect::<Vec<_>>().join("\t")
}

fn line(combination: &[(String, String)], result: &RunResult, code: u8, dir: &str) -> String {
    let mut line = String::new();
    for (_, value) in combination {
        let _ = write!(line, "{value}\t");
    }
    let verdict = match code {
        0 => "passed",
        COULD_NOT => "invalid",
        _ => "failed",
    };
    let _ = write!(line, "{}\t{verdict}", result.seed);
    for (_, figure) in COLUMNS {
        let _ = write!(line, "\t{}", figure(result).map_or(String::new(), |figure| figure.to_string()));
    }
    let _ = write!(line, "\t{dir}");
    line
}

/// A broken promise is worse than a measurement that means nothing.
fn worse(a: u8, b: u8) -> u8 {
    if a == FAILED || b == FAILED { FAILED } else { a.max(b) }
}

pub(super) fn sweep(args: Sweep, program: &Program) -> u8 {
    let combinations = combinations(&args.vary);
    // Whatever is wrong with any of them is said before the first begins.
    let mut scenarios = Vec::new();
    for combination in &combinations {
        match args.which.load(combination) {
            Ok(scenario) => scenarios.push(scenario),
            Err(error) => return fail(error),
        }
    }
    let Some(first) = scenarios.first() else { return fail("there is nothing to vary") };
    let dir = args.out.unwrap_or_else(|| PathBuf::from("out").join(format!("sweep-{}-{}", first.name, stamp())));
    let stop = Stop::new();
    // If any needs a network of its own, this process gets the right to make one.
    let widest = scenarios.iter().find(|scenario| is_wide(scenario)).unwrap_or(first);
    if let Err(error) = prepare(widest, stop.clone()) {
        return fail(error);
    }
    let mut table = head(&args.vary) + "\n";
    print(&table);
    let (mut worst, total) = (PASSED, scenarios.len() * args.repeat as usize);
    let runs = scenarios.iter().zip(&combinations).flat_map(|it| (0..u64::from(args.repeat)).map(move |k| (it, k)));
    for (number, ((scenario, combination), repetition)) in runs.enumerate() {
        let mut scenario = scenario.clone();
        scenario.seed = scenario.seed.wrapping_add(repetition);
        let name = format!("{:03}", number + 1);
        let progress = if args.quiet { Progress::silent() } else { Progress::on_stderr() };
        progress.note(&format!("run {} of {total}", number + 1));
        let out = Some(dir.join(&name));
        let options = RunOptions { out, progress, stop: stop.clone(), ..RunOptions::new(program.clone()) };
        let finished = match run(&scenario, options) {
            Ok(finished) => finished,
            Err(error @ RunError::Interrupted) => {
                tell(error);
                return INTERRUPTED;
            }
            Err(error) => return fail(error),
        };
        let code = verdict(&finished.result);
        worst = worse(worst, code);
        let line = line(combination, &finished.result, code, &name);
        print(&line);
        table += &(line + "\n");
        let file = dir.join("sweep.tsv");
        if let Err(error) = fs::write(&file, &table) {
            return fail(format!("cannot write {}: {error}", file.display()));
        }
    }
    worst
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_meets_every_other() {
        let vary = [("a".to_owned(), "1, 2".to_owned()), ("b".to_owned(), "x,y,z".to_owned())];
        let all = combinations(&vary);
        let shown: Vec<String> =
            all.iter().map(|one| one.iter().map(|(_, value)| value.as_str()).collect::<String>()).collect();
        assert_eq!(shown, ["1x", "1y", "1z", "2x", "2y", "2z"]);
        assert!(head(&vary).starts_with("a\tb\tseed\tverdict\taccepted\t"));
        assert_eq!(worse(worse(PASSED, FAILED), COULD_NOT), FAILED);
        assert_eq!(worse(PASSED, COULD_NOT), COULD_NOT);
    }
}
