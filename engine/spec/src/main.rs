//! Searches every configuration whose name contains the first argument (default: all) and prints what was found.

use std::time::Duration;

use acms_spec::cases::{FULL, cases, mutants, walks};
use acms_spec::search::{Report, search, walk};
use acms_spec::state::Config;

const WALK: Duration = Duration::from_secs(20);

fn main() {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let wants = |name: &str| name.contains(&wanted);
    let mut counterexamples = Vec::new();
    let mut sound = true;

    println!("{:<46} {:>11} {:>6} {:>8} {:>8}  held", "configuration", "states", "depth", "healed", "time");
    let searched = cases().into_iter().map(|config| (config, false));
    for (config, random) in searched.chain(walks().into_iter().map(|config| (config, true))) {
        if wants(config.name) {
            let report = if random { walk(&config, 120, WALK, 1) } else { search(&config, FULL) };
            sound &= report.broken.is_none();
            print_row(&config, &report, random);
            counterexamples.extend(report.broken.map(|(promise, trace)| (config.name.to_string(), promise, trace)));
        }
    }

    println!("\n{:<38} {:<34} {:>6} {:>11}", "mistake", "promise broken", "trace", "states");
    for (mistake, expected, config) in mutants() {
        let name = format!("{mistake:?}");
        if wants(&name) {
            let report = search(&Config { mistake: Some(mistake), ..config }, FULL);
            let (promise, trace) = report.broken.unwrap_or(("NOT CAUGHT", Vec::new()));
            sound &= promise == expected;
            println!("{name:<38} {promise:<34} {:>6} {:>11}", trace.len(), report.states);
            counterexamples.push((name, promise, trace));
        }
    }

    for (name, promise, trace) in counterexamples {
        println!("\n{name}: {promise}");
        trace.iter().enumerate().for_each(|(i, action)| println!("{:>4} {action:?}", i + 1));
    }
    std::process::exit(i32::from(!sound));
}

fn print_row(config: &Config, report: &Report, random: bool) {
    let held = match (&report.broken, report.complete, random) {
        (Some((promise, _)), ..) => *promise,
        (None, true, _) => "yes, complete",
        (None, false, true) => "yes, random walks",
        (None, false, false) => "yes, as far as the bound",
    };
    let Report { states, depth, healed, time, .. } = report;
    println!("{:<46} {states:>11} {depth:>6} {healed:>8} {:>7.1}s  {held}", config.name, time.as_secs_f64());
}
