//! `acms-testbed hunt` and `acms-testbed replay`.

use super::{FAILED, INTERRUPTED, PASSED, fail, key_value, print, stop_on_signals};
use crate::{
    backend::{BackendError, Stop, simulated},
    hunt::{Budget, Failure, HuntOptions, Report, bundle, choose_mutant, hunt, mutants},
    progress::Progress,
    scenario::{Scenario, Span},
    trace::Sink,
};
use std::{ops::Range, path::PathBuf};

/// Runs a scenario in virtual time for many seeds, and shrinks what breaks a promise.
///
/// Of a scenario with a section [hunt] (`storm`) each seed draws everything between the bounds given there: cluster,
/// quorum system, mode, order, network, clocks, disks, publications and faults. Of any other only the seed changes. A
/// failing seed is shrunk by itself into a bundle, a directory that `acms-testbed replay` runs again.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  \
    acms-testbed hunt storm --seeds 0..5000\n  \
    acms-testbed hunt storm --seeds 17 --set hunt.fault_kinds='[\"kill\", \"partition\", \"disk-lost\"]'\n\n\
    Prints how often each kind of anything occurred: group, name, seeds, times, separated by tabs.\n\
    Exit code: 0 every check held, 1 one did not, 2 it could not be run, 130 interrupted.")]
pub(super) struct Hunt {
    /// A file, or the name of a built-in scenario.
    scenario: String,
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
    /// A deliberate defect of the engine that is to be caught, or `all`, one after the other, each until it is caught;
    /// only in builds with the feature `mutants`.
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

/// The command line without the seeds.
fn command(args: &Hunt) -> String {
    let mut words = vec!["acms-testbed hunt".to_owned(), quoted(&args.scenario)];
    words.extend(args.set.iter().map(|(key, value)| format!("--set {}", quoted(&format!("{key}={value}")))));
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
    let command = command(&args);
    // What a file says about its backend matters to `run`.
    let mut overrides = vec![("backend".to_owned(), "simulated".to_owned())];
    overrides.extend(args.set);
    let scenario = match Scenario::load(&args.scenario, &overrides) {
        Ok(scenario) => scenario,
        Err(error) => return fail(error),
    };
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
        command: with_mutant(&command, args.mutant.as_deref()),
        mutant: args.mutant,
        budget: Budget { runs: args.shrink_runs, time: args.shrink_time.0 },
        progress: if args.quiet { Progress::silent() } else { Progress::on_stderr() },
        stop,
    };
    if options.mutant.as_deref() == Some("all") {
        return run_mutants(&scenario, &options, args.json);
    }
    let report = match hunt(&scenario, &options, &backend) {
        Ok(report) => report,
        Err(error) => return fail(error),
    };
    if args.json {
        print(&serde_json::to_string_pretty(&report).expect("reports have only texts as keys"));
    } else {
        print(&report.lines());
    }
    match (report.passed(), report.interrupted) {
        (_, true) => INTERRUPTED,
        (false, _) => FAILED,
        (true, _) => PASSED,
    }
}

fn with_mutant(command: &str, mutant: Option<&str>) -> String {
    mutant.map_or(command.to_owned(), |mutant| format!("{command} --mutant {mutant}"))
}

/// Each mutant until it is caught. Passes if all are.
fn run_mutants(scenario: &Scenario, options: &HuntOptions, json: bool) -> u8 {
    let names = mutants();
    if names.is_empty() {
        return fail("this build has no mutants: build it with `--features mutants`");
    }
    let (mut reports, mut survivors) = (Vec::new(), 0);
    if !json {
        print("mutant\tcheck\tseeds\tfaults\tpublications\tbundle");
    }
    for name in names {
        let command = options.command.strip_suffix(" --mutant all").unwrap_or(&options.command);
        let command = with_mutant(command, Some(name));
        let mutant = Some(name.to_owned());
        let options = HuntOptions { mutant, command, keep_going: false, ..options.clone() };
        let report = match hunt(scenario, &options, &backend) {
            Ok(report) => report,
            Err(error) => return fail(error),
        };
        if report.interrupted {
            return INTERRUPTED;
        }
        survivors += usize::from(report.failures.is_empty());
        if !json {
            print(&mutant_line(name, &report));
        }
        reports.push(report);
    }
    if json {
        print(&serde_json::to_string_pretty(&reports).expect("reports have only texts as keys"));
    }
    if survivors == 0 { PASSED } else { FAILED }
}

fn mutant_line(name: &str, report: &Report) -> String {
    let Some(failure) = report.failures.first() else {
        return format!("{name}\tnot caught\t{}\t\t\t", report.done);
    };
    let Failure { seed, checks, faults, publications, bundle, .. } = failure;
    let bundle = bundle.as_ref().map_or(String::new(), |bundle| bundle.display().to_string());
    format!("{name}\t{}\t{}\t{faults}\t{publications}\t{bundle}", checks.join(" "), seed - report.seeds.0 + 1)
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
