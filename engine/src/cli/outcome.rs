//! `acms outcome`: what became of a publication.

use super::{Exit, Source, output::Output};
use crate::{
    client::{Client, ClientError, ClientOptions},
    protocol::{Uid, api::PublicationAnswer},
};

/// Arguments of `acms outcome`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Columns, separated by tabs: outcome, UID, storage points that hold it, its paths.\n\
    Exit codes: 0 accepted, 1 rejected, 2 no storage point reached, 3 undetermined or unknown.")]
pub struct Args {
    #[command(flatten)]
    from: Source,
    /// The publication's UID, as its publisher was told
    #[arg(required_unless_present = "key")]
    uid: Option<Uid>,
    /// The idempotency key under which it was published, in place of the UID
    #[arg(long, conflicts_with = "uid")]
    key: Option<String>,
    /// Whose key that is
    #[arg(long, env = "ACMS_PUBLISHER", default_value = "anonymous", value_name = "NAME")]
    publisher: String,
}

pub(super) fn run(args: &Args, output: Output) -> Exit {
    let options = ClientOptions { publisher: args.publisher.clone(), ..ClientOptions::default() };
    match args.from.client(options).and_then(|client| ask(&client, args)) {
        Ok(Some(answer)) => show(&answer, output),
        Ok(None) => {
            let remedy =
                "ask the others too (--from URL,URL,...); what none of them knows is undetermined, not rejected";
            output.error("no storage point that was asked knows it", remedy);
            Exit::Undetermined
        }
        Err(error) => output.client_error(&error),
    }
}

/// Asks one after the other until one knows it for good; else the first that knows anything. Fails only if none answers.
fn ask(client: &Client, args: &Args) -> Result<Option<PublicationAnswer>, ClientError> {
    let (mut found, mut has_answer, mut failure) = (None, false, None);
    for url in 0..client.urls().len() {
        let answer = match (&args.key, args.uid) {
            (Some(key), _) => client.outcome_by_key_at(url, key),
            (None, Some(uid)) => client.outcome_at(url, uid),
            (None, None) => Ok(None),
        };
        has_answer |= answer.is_ok();
        match answer {
            Ok(Some(answer)) if exit_of(&answer) != Exit::Undetermined => return Ok(Some(answer)),
            Ok(answer) => found = found.or(answer),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    match failure {
        Some(error) if !has_answer => Err(error),
        _ => Ok(found),
    }
}

fn exit_of(answer: &PublicationAnswer) -> Exit {
    match answer.outcome.outcome.as_deref() {
        Some("accepted") => Exit::Done,
        Some("rejected") => Exit::Refused,
        _ => Exit::Undetermined,
    }
}

fn show(answer: &PublicationAnswer, output: Output) -> Exit {
    if output.json {
        output.object(answer);
        return exit_of(answer);
    }
    let joined = |items: Vec<String>| if items.is_empty() { "-".to_owned() } else { items.join(",") };
    let said = &answer.outcome;
    let outcome = said.outcome.as_deref().unwrap_or("undetermined");
    let uid = said.uid.map_or("-".to_owned(), |uid| uid.to_string());
    let holders = joined(answer.holders.iter().map(u8::to_string).collect());
    let paths = joined(answer.entries.iter().map(|entry| entry.path.to_string()).collect());
    output.line(&format!("{outcome}\t{uid}\t{holders}\t{paths}"));
    let superseded = said.superseded_by.map(|uid| format!("superseded by {uid}"));
    if let Some(reason) = said.reason.clone().or(superseded) {
        output.remark(&reason, said.remedy.as_deref());
    }
    exit_of(answer)
}
