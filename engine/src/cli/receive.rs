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

/// Most receivers of one process.
const COUNT_MAX: i64 = 100_000;
/// Shortest interval of polling.
const POLL_MIN: Duration = Duration::from_millis(100);

/// Arguments of `acms receive`.
#[derive(clap::Args, Debug)]
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
    /// Write events as JSON lines to this file; - is standard output.
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
    /// End once everything of the first snapshot is in place.
    #[arg(long)]
    once: bool,
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
        Ok(Ended::Blocked) => ExitCode::from(1),
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
    let tls = credentials.tls(&sources)?;
    receive::run(Options { tls, sources, prefixes, into, count, id, poll, once }, events, &stop)
}
