//! The commands of `acms-testbed`.
//!
//! Exit codes: 0 every check held and every expectation was met, 1 one failed, 2 it could not be run or the measurement is
//! invalid, 130 interrupted.

mod around;
mod hunt;
mod sweep;

use crate::{
    backend::{Stop, docker, local},
    judge::{Judge, Verdict},
    network::router::become_root,
    progress::Progress,
    report::{CheckResult, RunResult, check_lines, compare, summary},
    run::{RunError, RunOptions, run},
    scenario::{BackendName, Scenario, ScenarioError, builtin_names},
    system::Program,
    trace::{self, History},
};
use acms_engine::cli::{completion, man};
use clap::{CommandFactory as _, Parser, Subcommand};
use std::{
    ffi::OsString,
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

const PASSED: u8 = 0;
const FAILED: u8 = 1;
const COULD_NOT: u8 = 2;
const INTERRUPTED: u8 = 130;

/// Runs fleets of ACMS under load and faults, measures how fast they converge, and checks every promise.
#[derive(Parser, Debug)]
#[command(name = "acms-testbed", version, propagate_version = true)]
#[command(after_help = "`acms-testbed acms ...` is `acms ...`: the testbed's own children are started that way.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run a scenario on this machine, and judge it.
    Run(Run),
    /// Start a scenario's hosts and stay, for people who want to look around.
    Up(around::Up),
    /// Run a command on the network of a host that `up` has started.
    Exec(around::Exec),
    /// Run a scenario with every combination of some values.
    Sweep(sweep::Sweep),
    /// Run a scenario in virtual time for many seeds, and shrink what breaks a promise.
    Hunt(hunt::Hunt),
    /// Run a bundle of a hunt again.
    Replay(hunt::Replay),
    /// Judge a trace that an earlier run wrote.
    Check(Check),
    /// Show results of runs side by side.
    Report(Report),
    /// Undo what runs left behind that were killed: processes, directories, containers and images.
    Clean,
    /// Print a script that completes commands and options in a shell.
    Completion(completion::Args),
    /// Write the manual pages.
    Man(man::Args),
}

/// Run a scenario on this machine, and judge it.
///
/// Shows progress while it runs, prints a summary, and writes result.json, events.arrow, *.hgrm, scenario.toml and report.html. Leaves
/// no process and no other file behind, also when interrupted.
#[derive(clap::Args, Debug)]
#[command(after_help = run_help())]
struct Run {
    #[command(flatten)]
    which: Which,
    /// Where results go [default: out/<name>-<time>].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write the packets of a host on the emulated network to HOST.pcap among the results; may be given several times.
    #[arg(long, value_name = "HOST")]
    pcap: Vec<String>,
    /// Keep the stores and directories of all hosts.
    #[arg(long)]
    keep: bool,
    /// Show no progress and no summary.
    #[arg(long, short)]
    quiet: bool,
    /// Print result.json in place of the summary.
    #[arg(long)]
    json: bool,
}

/// Which scenario, and what is different in it.
#[derive(clap::Args, Debug)]
struct Which {
    /// A file, or the name of a built-in scenario.
    scenario: String,
    /// Sets a key of the scenario; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
    /// All that is drawn by chance follows from it.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// What runs it: `local`, `docker` or `simulated`.
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
}

impl Which {
    /// The scenario as it is asked for, with these keys set beside.
    fn load(&self, beside: &[(String, String)]) -> Result<Scenario, ScenarioError> {
        let mut set = self.set.clone();
        set.extend(self.seed.map(|seed| ("seed".to_owned(), seed.to_string())));
        set.extend(self.backend.clone().map(|backend| ("backend".to_owned(), backend)));
        set.extend_from_slice(beside);
        Scenario::load(&self.scenario, &set)
    }
}

fn run_help() -> String {
    let names = builtin_names().collect::<Vec<_>>().join(", ");
    format!(
        "Built-in scenarios: {names}\n\nExamples:\n  \
         acms-testbed run quickstart\n  \
         acms-testbed run quickstart --set workload.tree=/usr/share/doc --set fleet.receivers=20\n  \
         acms-testbed run quickstart --set duration=10s --set faults.0.at=3s --set faults.0.for=4s\n\n\
         Exit code: 0 every check held, 1 one did not, 2 it could not be run or the measurement is invalid, 130 interrupted."
    )
}

#[derive(clap::Args, Debug)]
struct Check {
    /// `events.arrow` of a run, or the directory that has it.
    trace: PathBuf,
    /// Also write the history of its operations to this file: a JSON object a line, with `invoke`, then `ok`, `fail` or
    /// `info`, for other checkers.
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
}

#[derive(clap::Args, Debug)]
struct Report {
    /// Directories of runs.
    #[arg(required = true)]
    dirs: Vec<PathBuf>,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE, for example fleet.receivers=20")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}

/// The `acms-testbed` binary.
pub fn main() -> ExitCode {
    run_args(std::env::args_os().collect())
}

/// `acms-testbed` with these arguments, the program's name first. With `acms` as the first of them it is `acms`.
pub fn run_args(args: Vec<OsString>) -> ExitCode {
    match Program::this_executable() {
        Ok(program) => run_with(args, program),
        Err(error) => ExitCode::from(fail(error)),
    }
}

/// As [`run_args`], with children that are started as `program`.
pub fn run_with(args: Vec<OsString>, program: Program) -> ExitCode {
    if args.get(1).is_some_and(|first| first == "acms") {
        return acms_engine::cli::run_as(program.command, args.into_iter().skip(1).collect());
    }
    // What an image runs as process 1, and nobody types.
    if let [_, first, socket] = &args[..]
        && first == "agent"
    {
        return docker::agent(Path::new(socket));
    }
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // A closed standard output is no reason to fail.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { COULD_NOT } else { PASSED });
        }
    };
    ExitCode::from(match cli.command {
        Command::Run(args) => run_scenario(args, program),
        Command::Up(args) => around::up(args, program),
        Command::Exec(args) => around::exec(&args),
        Command::Sweep(args) => sweep::sweep(args, &program),
        Command::Hunt(args) => hunt::run_hunt(args),
        Command::Replay(args) => hunt::run_replay(&args),
        Command::Check(args) => check_trace(&args),
        Command::Report(args) => report(&args),
        Command::Clean => clean(),
        Command::Completion(args) => {
            completion::print(Cli::command(), &args);
            PASSED
        }
        Command::Man(args) => return man::write(Cli::command(), &args),
    })
}

fn fail(error: impl std::fmt::Display) -> u8 {
    tell(error);
    COULD_NOT
}

/// A closed terminal ends what is said, not what is undone.
fn tell(what: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "acms-testbed: {what}");
}

/// A closed pipe ends what is printed, not what is decided.
fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end_matches('\n'));
}

/// Whether it needs namespaces that this process makes itself.
fn is_wide(scenario: &Scenario) -> bool {
    scenario.backend == BackendName::Local && scenario.needs_network()
}

/// Gets this process ready to run `scenario`: only while it has one thread.
fn prepare(scenario: &Scenario, stop: Stop) -> std::io::Result<()> {
    if is_wide(scenario) && !nix::unistd::geteuid().is_root() {
        // What does not work without it is left out later, with a word.
        let _ = become_root();
    }
    stop_on_signals(stop)
}

/// The exit code that a run's results call for.
fn verdict(result: &RunResult) -> u8 {
    let is_met = result.expectations.iter().all(|expectation| expectation.met);
    exit_code(&result.checks, result.invalid().is_some(), is_met)
}

/// A promise is broken whatever the measurement is worth; expectations of one that is invalid mean nothing.
fn exit_code(checks: &[CheckResult], is_invalid: bool, is_met: bool) -> u8 {
    match checks.iter().all(|check| check.held) {
        false => FAILED,
        true if is_invalid => COULD_NOT,
        true if is_met => PASSED,
        true => FAILED,
    }
}

fn run_scenario(args: Run, program: Program) -> u8 {
    let scenario = match args.which.load(&[]) {
        Ok(scenario) => scenario,
        Err(error) => return fail(error),
    };
    let stop = Stop::new();
    if let Err(error) = prepare(&scenario, stop.clone()) {
        return fail(error);
    }
    let progress = if args.quiet { Progress::silent() } else { Progress::on_stderr() };
    let options = RunOptions { out: args.out, program, progress, stop, keep: args.keep, pcap: args.pcap };
    match run(&scenario, options) {
        Ok(finished) => {
            if args.json {
                print(&serde_json::to_string_pretty(&finished.result).expect("results have only texts as keys"));
            } else if !args.quiet {
                print(&summary(&finished.result, &finished.dir));
            }
            verdict(&finished.result)
        }
        Err(error @ RunError::Interrupted) => {
            tell(error);
            INTERRUPTED
        }
        Err(error) => fail(error),
    }
}

/// The first Ctrl-C (or SIGTERM, or SIGHUP) asks for an orderly end; the second ends at once, and the kernel ends the children.
/// Who closes a terminal sends SIGHUP more than once and means one end. Where it is ignored (`nohup`), it stays so.
fn stop_on_signals(stop: Stop) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let hangs_up = !is_ignored(&status, SignalKind::hangup().as_raw_value());
    let (mut interrupt, mut terminate, mut hangup) = {
        let _inside = runtime.enter();
        let hangup = hangs_up.then(|| signal(SignalKind::hangup())).transpose()?;
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, hangup)
    };
    let wait = async move {
        loop {
            let is_hangup = tokio::select! {
                _ = interrupt.recv() => false,
                _ = terminate.recv() => false,
                () = next(hangup.as_mut()) => true,
            };
            if stop.is_requested() && !is_hangup {
                tell("ended before all was undone: `acms-testbed clean` does the rest");
                std::process::exit(INTERRUPTED.into());
            }
            stop.request();
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || runtime.block_on(wait)).map(drop)
}

/// Returns when the signal has come; never, if there is none to wait for.
async fn next(signal: Option<&mut tokio::signal::unix::Signal>) {
    if let Some(signal) = signal {
        signal.recv().await;
    } else {
        std::future::pending::<()>().await;
    }
}

/// Whether a process with this `/proc/PID/status` ignores a signal.
fn is_ignored(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| (mask >> (signal - 1)) & 1 == 1)
}

fn check_trace(args: &Check) -> u8 {
    let path = if args.trace.is_dir() { args.trace.join("events.arrow") } else { args.trace.clone() };
    match judge_file(&path, args.history.as_deref()) {
        Ok((Verdict { events, hash, checks, metrics }, history)) => {
            let checks: Vec<CheckResult> = checks.into_iter().map(CheckResult::from).collect();
            let history = history.map_or(String::new(), |operations| format!("{operations} lines of history\n"));
            let invalid = metrics.network.invalid();
            let why = invalid.as_ref().map_or(String::new(), |why| format!("INVALID: {why}"));
            print(&format!("{events} events, trace {hash}\n{history}{}{why}", check_lines(&checks)));
            exit_code(&checks, invalid.is_some(), true)
        }
        Err(error) => fail(error),
    }
}

/// Judges a stored trace, batch by batch, and writes its history; how many lines that has.
fn judge_file(path: &Path, history: Option<&Path>) -> Result<(Verdict, Option<u64>), String> {
    let again = again(path);
    let in_history = |error: std::io::Error| format!("{}: {error}", history.unwrap_or(path).display());
    let mut judge = Judge::new();
    if let Some(command) = again {
        judge = judge.replayed_by(command);
    }
    let Some(to) = history else {
        trace::stream(path, &mut judge).map_err(|error| error.to_string())?;
        return Ok((judge.finish(), None));
    };
    let file = File::create(to).map_err(in_history)?;
    let mut both = (judge, History::new(BufWriter::new(file)));
    trace::stream(path, &mut both).map_err(|error| error.to_string())?;
    let lines = both.1.finish().map_err(in_history)?;
    Ok((both.0.finish(), Some(lines)))
}

/// Prints what was undone: what, a tab, and what it was done to.
fn clean() -> u8 {
    match local::clean() {
        Ok(done) => {
            done.iter().for_each(|line| print(line));
            PASSED
        }
        Err(error) => fail(format!("not all could be undone: {error}")),
    }
}

/// The command that makes a trace again, by what lies beside it: a bundle of a hunt, or the scenario of a run.
fn again(trace: &Path) -> Option<String> {
    let dir = trace.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if dir.join("bundle.json").is_file() {
        return Some(format!("acms-testbed replay {}", dir.display()));
    }
    let scenario = dir.join("scenario.toml");
    scenario.is_file().then(|| format!("acms-testbed run {}", scenario.display()))
}

fn report(args: &Report) -> u8 {
    let mut results = Vec::new();
    for dir in &args.dirs {
        let path = if dir.is_dir() { dir.join("result.json") } else { dir.clone() };
        let read = std::fs::read(&path).map_err(|error| error.to_string());
        let result =
            read.and_then(|json| serde_json::from_slice::<RunResult>(&json).map_err(|error| error.to_string()));
        match result {
            Ok(result) => {
                let name = dir.file_name().map_or(dir.as_os_str(), |name| name).to_string_lossy().into_owned();
                results.push((name, result));
            }
            Err(error) => return fail(format!("{}: {error}", path.display())),
        }
    }
    print(&compare(&results));
    PASSED
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        backend::simulated,
        trace::{Event, Kind, Sink as _, Trace},
    };
    use clap::CommandFactory;

    #[test]
    fn a_trace_of_an_invalid_measurement_is_judged_like_its_run() {
        let set = [("backend", "simulated"), ("seed", "7"), ("duration", "8s"), ("workload.files", "100")];
        let set = set.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let mut trace = Trace::default();
        simulated::run(&Scenario::load("smoke", &set).unwrap(), &mut trace).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.arrow");
        let judged = |trace: &Trace| {
            trace::write(trace, &path).unwrap();
            check_trace(&Check { trace: path.clone(), history: None })
        };
        assert_eq!(judged(&trace), PASSED);
        let end_ns = trace.events().last().unwrap().time_ns;
        trace.record(Event {
            outcome: Some("sp2".into()),
            cause: Some("asked_us=20000 got_us=90000".into()),
            ..Event::new(end_ns, &"sp1".into(), 0, Kind::Probe)
        });
        assert_eq!(judged(&trace), COULD_NOT);
    }

    #[test]
    fn a_broken_promise_counts_before_an_invalid_measurement_and_that_before_an_expectation() {
        let check = |held| CheckResult {
            name: "P1".to_owned(),
            title: String::new(),
            promise: String::new(),
            held,
            events: 1,
            violations: Vec::new(),
            violations_total: 0,
            note: None,
        };
        assert_eq!(exit_code(&[check(true)], false, true), PASSED);
        assert_eq!(exit_code(&[check(true)], false, false), FAILED);
        assert_eq!(exit_code(&[check(true)], true, false), COULD_NOT);
        assert_eq!(exit_code(&[check(true), check(false)], true, true), FAILED);
    }

    #[test]
    fn an_ignored_signal_is_known() {
        let status = "Name:\tacms-testbed\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000001002\n";
        assert_eq!([1, 2, 3, 13].map(|signal| is_ignored(status, signal)), [false, true, false, true]);
        assert!(!is_ignored("", 1));
    }

    #[test]
    fn a_trace_is_made_again_by_what_lies_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let trace = dir.path().join("events.arrow");
        assert_eq!(again(&trace), None);
        std::fs::write(dir.path().join("scenario.toml"), "").unwrap();
        assert_eq!(again(&trace), Some(format!("acms-testbed run {}/scenario.toml", dir.path().display())));
        std::fs::write(dir.path().join("bundle.json"), "").unwrap();
        assert_eq!(again(&trace), Some(format!("acms-testbed replay {}", dir.path().display())));
    }

    #[test]
    fn the_command_line_is_well_formed_and_helps() {
        Cli::command().debug_assert();
        let help = Cli::try_parse_from(["acms-testbed", "run", "--help"]).unwrap_err().to_string();
        assert!(help.contains("quickstart") && help.contains("--set"), "{help}");
        let cli = Cli::try_parse_from(["acms-testbed", "run", "x", "--set", "a.b=c=d", "--seed", "7"]).unwrap();
        let Command::Run(run) = cli.command else { panic!("not a run") };
        assert_eq!((run.which.set, run.which.seed), (vec![("a.b".to_owned(), "c=d".to_owned())], Some(7)));
    }
}
