//! `acms status`: how a cluster is. Asks the storage points that are named, and all others that those know of.

mod answer;
mod table;
mod verdict;

use super::{Exit, Source, output::Output};
use crate::client::{Client, ClientError, ClientOptions, Credentials, Url};
use answer::Answer;
use serde_json::{Map, Value, json};
use std::{collections::BTreeSet, io::Write, thread, time::Duration};
use verdict::{Finding, Verdict};

const TIMEOUT: Duration = Duration::from_secs(3);

/// Arguments of `acms status`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
AS-OF is how long ago everything that had been accepted was certainly there. PEERS: round trip to each of the others, or \
for how long there has been no link. CLOCK: how far a storage point's clock is from those of the others, as they saw it.\n\n\
Exit codes: 0 healthy, 1 degraded, 2 no storage point reached.")]
pub struct Args {
    #[command(flatten)]
    from: Source,
    /// Only those that are named, not the others that they know of
    #[arg(long)]
    only: bool,
    /// Look again every so many seconds
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
    watch: Option<u64>,
}

/// What one storage point said, or why it said nothing.
struct Asked {
    url: String,
    answer: Result<Answer, ClientError>,
}

pub(super) fn run(args: &Args, output: Output) -> Exit {
    loop {
        let asked = ask_all(&args.from.urls, &args.from.credentials, args.only);
        let (verdict, findings) = verdict::judge(&asked);
        if args.watch.is_some() && !output.json {
            // Clears a terminal; anything else gets one table after the other.
            let clear = if std::io::IsTerminal::is_terminal(&std::io::stdout()) { "\x1b[H\x1b[2J" } else { "\n" };
            if write!(std::io::stdout(), "{clear}").is_err() {
                return exit_of(verdict);
            }
        }
        show(&asked, verdict, &findings, output);
        match args.watch {
            Some(seconds) => thread::sleep(Duration::from_secs(seconds)),
            None => return exit_of(verdict),
        }
    }
}

fn exit_of(verdict: Verdict) -> Exit {
    match verdict {
        Verdict::Healthy => Exit::Done,
        Verdict::Degraded => Exit::Refused,
        Verdict::Unreachable => Exit::Failed,
    }
}

/// Asks all that are named at once, then all that those name, until nobody names another one.
fn ask_all(named: &[Url], credentials: &Credentials, only: bool) -> Vec<Asked> {
    let (mut asked, mut known) = (Vec::new(), BTreeSet::new());
    let mut next: Vec<Url> = named.to_vec();
    while !next.is_empty() {
        next.retain(|url| known.insert(url.clone()));
        let answers: Vec<Asked> = thread::scope(|scope| {
            let asking: Vec<_> = next.iter().map(|url| scope.spawn(move || ask(url, credentials))).collect();
            asking.into_iter().filter_map(|thread| thread.join().ok()).collect()
        });
        let found = answers.iter().filter_map(|one| one.answer.as_ref().ok()).flat_map(|answer| &answer.peers);
        next = found.filter(|_| !only).filter_map(|peer| peer.url.as_ref()?.parse().ok()).collect();
        asked.extend(answers);
    }
    without_aliases(asked)
}

/// A storage point that was reached at two addresses is one.
fn without_aliases(asked: Vec<Asked>) -> Vec<Asked> {
    let mut seen = BTreeSet::new();
    let mut all = asked;
    all.retain(|one| one.answer.as_ref().map_or(true, |answer| seen.insert((answer.cluster.clone(), answer.sp))));
    all.sort_by_key(|one| one.answer.as_ref().map_or(u8::MAX, |answer| answer.sp));
    all
}

fn ask(url: &Url, credentials: &Credentials) -> Asked {
    let credentials = credentials.clone();
    let options =
        ClientOptions { connect_timeout: TIMEOUT, io_timeout: TIMEOUT, credentials, ..ClientOptions::default() };
    let answer = Client::new(vec![url.clone()], options).and_then(|client| client.status()).and_then(|value| {
        let not_acms =
            |error: serde_json::Error| ClientError::NotAcms { url: url.to_string(), detail: error.to_string() };
        Ok(Answer { raw: value.clone(), ..serde_json::from_value(value).map_err(not_acms)? })
    });
    Asked { url: url.to_string(), answer }
}

fn show(asked: &[Asked], verdict: Verdict, findings: &[Finding], output: Output) {
    if output.json {
        asked.iter().for_each(|one| output.object(&as_json(one)));
        return output.object(&json!({"verdict": verdict, "findings": findings}));
    }
    table::lines(asked).iter().for_each(|line| output.line(line));
    for finding in findings {
        output.line(&format!("- {}\n    remedy: {}", finding.what, finding.remedy));
    }
    output.line(&format!("{verdict}"));
}

fn as_json(one: &Asked) -> Value {
    match &one.answer {
        Ok(answer) => {
            let mut all = Map::from_iter([("url".to_owned(), json!(one.url)), ("reachable".to_owned(), json!(true))]);
            all.extend(answer.raw.as_object().cloned().unwrap_or_default());
            Value::Object(all)
        }
        Err(error) => {
            json!({"url": one.url, "reachable": false, "error": error.to_string(), "remedy": error.remedy()})
        }
    }
}
