//! `acms receive`: keeps a directory equal to the latest agreed publications of what it subscribes to.

use crate::{
    client::{Credentials, Url},
    protocol::Prefix,
    runtime::{
        events::EventStream,
        process,
        receive::{self, Ended, Options, ReceiveError},
        signal::StopSignals,
        units::parse_duration,
    },
};
use std::{path::PathBuf, process::ExitCode, time::Duration};

const EXIT_CODES: &str = "Exit codes: 0 stopped by a signal, or with --once everything is in place; 1 with --once, but some \
paths cannot be put in place, or the command of --on-change has failed; 2 it cannot run: wrong usage, a directory that \
cannot be kept, or sources of another cluster.\n\
How it is stands in DIR/~acms/status.json (of a single receiver).";
/// Most receivers of one process.
const COUNT_MAX: i64 = 100_000;
/// Shortest interval of polling.
const POLL_MIN: Duration = Duration::from_millis(100);

/// Arguments of `acms receive`.
#[derive(clap::Args, Debug)]
#[command(after_help = EXIT_CODES)]
pub struct Args {
    /// Storage point or cache to pull from, http(s)://host:port; several spread the load and stand in for each other.
    #[arg(long = "source", value_name = "URL", required = true, num_args = 1..)]
    sources: Vec<Url>,
    /// What to keep: a path or all paths below it; "" is everything.
    #[arg(long, value_name = "PREFIX", required = true, num_args = 1..)]
    subscribe: Vec<Prefix>,
    /// The directory to keep; made if absent. Files in it that are not subscribed are left alone.
    #[arg(long, value_name = "DIR", required_unless_present = "discard")]
    into: Option<PathBuf>,
    /// Keep no files: check contents and throw them away, to load a cluster like a fleet does.
    #[arg(long, conflicts_with = "into")]
    discard: bool,
    /// Be so many receivers, each with its own directory DIR/1, DIR/2, ... and its number in events.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=COUNT_MAX))]
    count: Option<u32>,
    /// Write events as JSON lines to this file; - is standard output, unix:PATH a socket that any number of readers may
    /// connect to (one that does not keep up is cut off).
    #[arg(long, value_name = "FILE")]
    events: Option<String>,
    /// Name of this receiver: decides which source it turns to first. Default: host and directory.
    #[arg(long, value_name = "NAME")]
    id: Option<String>,
    /// Read the snapshot this often instead of following changes, such as 10s.
    #[arg(long, value_name = "INTERVAL", value_parser = parse_interval)]
    poll: Option<Duration>,
    #[command(flatten)]
    credentials: Credentials,
    /// Read all files at the start and fetch again what others have changed. Without it only other sizes and modes are seen.
    #[arg(long, conflicts_with = "discard")]
    verify: bool,
    /// End once everything of the first snapshot is in place. Commands are waited for; one of --on-change that fails is not
    /// run again, but told of all paths at the next start.
    #[arg(long)]
    once: bool,
    /// Run this by sh when paths have changed: each as a JSON line on standard input (path, uid, hash, deleted), and
    /// ACMS_DIRECTORY, ACMS_RECEIVER, ACMS_CHANGES, ACMS_AS_OF in the environment. One run at a time; what changes
    /// meanwhile is told together. Run again until it exits with 0; after a crash it is told of all paths.
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["count", "discard"])]
    on_change: Option<String>,
    /// Say so (events stale and fresh, status, log) when as-of is older than this, such as 60s.
    #[arg(long, value_name = "AGE", value_parser = parse_duration)]
    stale_after: Option<Duration>,
    /// Run this by sh when that begins and when it ends, with ACMS_STATE=stale or fresh.
    #[arg(long, value_name = "COMMAND", requires = "stale_after", conflicts_with = "count")]
    on_stale: Option<String>,
    /// End a command that takes longer.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    command_limit: Duration,
    /// End at once when the process that started this one ends.
    #[arg(long)]
    exit_with_parent: bool,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text).map_err(|error| error.to_string())?;
    if interval < POLL_MIN { Err(format!("the shortest interval is {POLL_MIN:?}")) } else { Ok(interval) }
}

/// Runs until it is stopped.
pub fn run(args: Args) -> ExitCode {
    match try_run(args) {
        Ok(Ended::Stopped | Ended::Current) => ExitCode::SUCCESS,
        Ok(Ended::Blocked | Ended::Untold) => ExitCode::from(1),
        Err(error) => {
            eprintln!("acms receive: {error}");
            ExitCode::from(2)
        }
    }
}

fn try_run(args: Args) -> Result<Ended, ReceiveError> {
    if args.exit_with_parent {
        process::exit_with_parent()?;
    }
    let stop = StopSignals::new()?;
    let events = args.events.as_deref().map_or_else(|| Ok(EventStream::none()), EventStream::open)?;
    let Args { sources, subscribe: prefixes, into, count, id, poll, once, credentials, .. } = args;
    let Args { verify, on_change, stale_after, on_stale, command_limit, .. } = args;
    let tls = credentials.tls(&sources)?;
    let options = Options {
        tls,
        sources,
        prefixes,
        into,
        count,
        id,
        poll,
        once,
        verify,
        on_change,
        stale_after,
        on_stale,
        command_limit,
    };
    receive::run(options, events, &stop)
}
