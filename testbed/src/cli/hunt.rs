//! `acms-testbed hunt` and `acms-testbed replay`.

use super::{FAILED, INTERRUPTED, PASSED, fail, key_value, print, stop_on_signals};
use crate::{
    backend::{BackendError, Stop, simulated},
    hunt::{Budget, Failure, HuntOptions, Report, bundle, catch, choose_mutant, hunt, mutants, with_mutant},
    progress::Progress,
    scenario::{Scenario, Span},
    trace::Sink,
};
use std::{ops::Range, path::PathBuf};

/// Runs a scenario in virtual time for many seeds, and shrinks what breaks a promise.
///
/// Of a scenario with a section [hunt] (`storm`, `refinement`, `edge`) each seed draws everything between the bounds given
/// there: cluster, quorum system, mode, order, network, clocks, disks, publications and faults. Of any other only the seed
/// changes. A failing seed is shrunk by itself into a bundle, a directory that `acms-testbed replay` runs again.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  \
    acms-testbed hunt storm --seeds 0..5000\n  \
    acms-testbed hunt refinement edge --seeds 0..1000\n  \
    acms-testbed hunt storm --seeds 17 --set hunt.fault_kinds='[\"kill\", \"partition\", \"disk-lost\"]'\n\n\
    Prints how often each kind of anything occurred: group, name, seeds, times, separated by tabs.\n\
    Exit code: 0 every check held, 1 one did not, 2 it could not be run, 130 interrupted.")]
pub(super) struct Hunt {
    /// Files, or names of built-in scenarios.
    #[arg(required = true, value_name = "SCENARIO")]
    scenarios: Vec<String>,
    /// Which seeds: A..B (B excluded), or one.
    #[arg(long, value_name = "A..B", value_parser = seeds)]
    seeds: Range<u64>,
    /// How many seeds run at once [default: as many as there are processors].
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Where bundles go.
    #[arg(long, value_name = "DIR", default_value = "out/hunt")]
    out: PathBuf,
    /// Go on after a seed that failed.
    #[arg(long)]
    keep_going: bool,
    /// Sets a key of the scenario; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
    /// A deliberate defect of the engine that is to be caught, or `all`, one after the other, each until it is caught in
    /// one of the scenarios; only in builds with the feature `mutants`.
    #[arg(long, value_name = "NAME")]
    mutant: Option<String>,
    /// Shrinking a seed takes at most so many runs.
    #[arg(long, value_name = "N", default_value_t = Budget::default().runs)]
    shrink_runs: u32,
    /// Shrinking a seed takes at most so long.
    #[arg(long, value_name = "TIME", default_value_t = Span(Budget::default().time))]
    shrink_time: Span,
    /// Print JSON in place of the table.
    #[arg(long)]
    json: bool,
    /// Show no progress.
    #[arg(long, short)]
    quiet: bool,
}

/// Runs a bundle of a hunt again, and says whether the same happened.
///
/// Exit code: 1 a check did not hold, 0 all held, 2 it could not be run.
#[derive(clap::Args, Debug)]
pub(super) struct Replay {
    /// The bundle's directory.
    bundle: PathBuf,
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let wrong = |_| format!("{text:?} is no range of seeds such as 0..5000");
    let (from, to) = match text.split_once("..") {
        Some((from, to)) => (from.parse().map_err(wrong)?, to.parse().map_err(wrong)?),
        None => {
            let one: u64 = text.parse().map_err(wrong)?;
            (one, one.saturating_add(1))
        }
    };
    if from < to { Ok(from..to) } else { Err(format!("{text}: there is no seed in it")) }
}

/// The command line for one scenario, without the seeds.
fn command(scenario: &str, set: &[(String, String)]) -> String {
    let mut words = vec!["acms-testbed hunt".to_owned(), quoted(scenario)];
    words.extend(set.iter().map(|(key, value)| format!("--set {}", quoted(&format!("{key}={value}")))));
    words.join(" ")
}

/// A word as a shell reads it back.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// What was waited for in vain stands in the trace, too (`unsettled`), so the notes of a run say nothing new.
fn backend(scenario: &Scenario, sink: &mut dyn Sink) -> Result<(), BackendError> {
    simulated::run(scenario, sink).map(drop)
}

pub(super) fn run_hunt(args: Hunt) -> u8 {
    // What a file says about its backend matters to `run`.
    let mut overrides = vec![("backend".to_owned(), "simulated".to_owned())];
    overrides.extend_from_slice(&args.set);
    let mut scenarios = Vec::new();
    for name in &args.scenarios {
        match Scenario::load(name, &overrides) {
            Ok(scenario) => scenarios.push((scenario, command(name, &args.set))),
            Err(error) => return fail(error),
        }
    }
    let stop = Stop::new();
    if let Err(error) = stop_on_signals(stop.clone()) {
        return fail(error);
    }
    let processors = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let options = HuntOptions {
        seeds: args.seeds,
        jobs: args.jobs.unwrap_or_else(processors),
        out: args.out,
        keep_going: args.keep_going,
        command: String::new(),
        mutant: args.mutant,
        budget: Budget { runs: args.shrink_runs, time: args.shrink_time.0 },
        progress: if args.quiet { Progress::silent() } else { Progress::on_stderr() },
        stop,
    };
    if options.mutant.as_deref() == Some("all") {
        return run_mutants(&scenarios, &options, args.json);
    }
    let mut reports = Vec::new();
    for (scenario, command) in &scenarios {
        let command = with_mutant(command, options.mutant.as_deref());
        match hunt(scenario, &HuntOptions { command, ..options.clone() }, &backend) {
            Ok(report) => reports.push(report),
            Err(error) => return fail(error),
        }
        let report = reports.last().expect("one was added");
        if !args.json {
            print(&report.lines());
        }
        if report.interrupted {
            break;
        }
    }
    match &reports[..] {
        _ if !args.json => {}
        [report] if scenarios.len() == 1 => print_json(report),
        reports => print_json(&reports),
    }
    match (reports.iter().all(Report::passed), reports.iter().any(|report| report.interrupted)) {
        (_, true) => INTERRUPTED,
        (false, _) => FAILED,
        (true, _) => PASSED,
    }
}

fn print_json(value: &impl serde::Serialize) {
    print(&serde_json::to_string_pretty(value).expect("reports have only texts as keys"));
}

/// What became of a mutant.
#[derive(serde::Serialize)]
struct Hunted {
    mutant: &'static str,
    /// The hunt that caught it.
    caught: Option<Report>,
}

/// Each mutant until it is caught. Passes if all are.
fn run_mutants(scenarios: &[(Scenario, String)], options: &HuntOptions, json: bool) -> u8 {
    let names = mutants();
    if names.is_empty() {
        return fail("this build has no mutants: build it with `--features mutants`");
    }
    let (mut hunted, mut survivors) = (Vec::new(), 0);
    if !json {
        print("mutant\tscenario\tcheck\tseeds\tfaults\tpublications\tbundle");
    }
    for name in names {
        let caught = match catch(name, scenarios, options, &backend) {
            Ok(Some(report)) if report.interrupted => return INTERRUPTED,
            Ok(caught) => caught,
            Err(error) => return fail(error),
        };
        survivors += usize::from(caught.is_none());
        if !json {
            print(&mutant_line(name, &options.seeds, caught.as_ref()));
        }
        hunted.push(Hunted { mutant: name, caught });
    }
    if json {
        print_json(&hunted);
    }
    if survivors == 0 { PASSED } else { FAILED }
}

fn mutant_line(name: &str, seeds: &Range<u64>, caught: Option<&Report>) -> String {
    let Some((report, failure)) = caught.and_then(|report| Some((report, report.failures.first()?))) else {
        return format!("{name}\t\tnot caught\t{}\t\t\t", seeds.end - seeds.start);
    };
    let Failure { seed, checks, faults, publications, bundle, .. } = failure;
    let bundle = bundle.as_ref().map_or(String::new(), |bundle| bundle.display().to_string());
    let tried = seed - seeds.start + 1;
    format!("{name}\t{}\t{}\t{tried}\t{faults}\t{publications}\t{bundle}", report.hunt, checks.join(" "))
}

pub(super) fn run_replay(args: &Replay) -> u8 {
    let bundle = match bundle::read(&args.bundle) {
        Ok(bundle) => bundle,
        Err(error) => return fail(error),
    };
    let about = &bundle.about;
    if let Err(error) = choose_mutant(about.mutant.as_deref()) {
        return fail(error);
    }
    let replayed = match bundle::replay(&bundle, &backend) {
        Ok(replayed) => replayed,
        Err(error) => return fail(error),
    };
    let mutant = about.mutant.as_ref().map_or(String::new(), |mutant| format!(", mutant {mutant}"));
    let mut text = format!(
        "{} seed {}{mutant}, {} faults, {} publications; found with {} at {}\n",
        about.hunt, about.seed, about.faults, about.publications, about.version, about.commit
    );
    if bundle::is_of_another_commit(about) {
        text.push_str("this is a build of another commit, which may behave otherwise\n");
    }
    let same = |is: bool| if is { "the same" } else { "another" };
    text.push_str(&format!("trace {}: {}\n", replayed.trial.trace_hash, same(replayed.same_trace)));
    for violation in &replayed.trial.violations {
        let is_same = bundle::is_same(violation, &about.violation);
        text.push_str(&format!("{} ({}): {}\n", violation.check, same(is_same), violation.told()));
    }
    if !replayed.same_violation {
        text.push_str(&format!("not seen again: {}: {}\n", about.violation.check, about.violation.text));
    }
    print(&text);
    if replayed.trial.violations.is_empty() { PASSED } else { FAILED }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_can_be_typed_again() {
        assert_eq!(quoted("storm"), "storm");
        assert_eq!(quoted("hunt.fault_kinds=[\"kill\"]"), "'hunt.fault_kinds=[\"kill\"]'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(with_mutant("acms-testbed hunt storm", Some("x")), "acms-testbed hunt storm --mutant x");
    }

    #[test]
    fn seeds_are_a_range_or_one() {
        assert_eq!(seeds("0..5000"), Ok(0..5000));
        assert_eq!(seeds("17"), Ok(17..18));
        for wrong in ["", "5..5", "9..1", "a..b", "1..", "-3"] {
            assert!(seeds(wrong).is_err(), "{wrong}");
        }
    }
}
