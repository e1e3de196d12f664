//! `acms ls`: what is published.

use super::{
    Exit, Source,
    output::{self, Output},
};
use crate::{
    client::{Client, ClientError, ClientOptions},
    protocol::{Prefix, api::IndexedEntry},
};

/// Arguments of `acms ls`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Columns of --long, separated by tabs: UID, bytes, flags, type, path.")]
pub struct Args {
    #[command(flatten)]
    from: Source,
    /// Say more of each path
    #[arg(long, short)]
    long: bool,
    /// Also what was deleted, and what is hidden by a newer file above or below it
    #[arg(long, short)]
    all: bool,
    /// A path, or all below it, such as edge; everything if absent
    #[arg(default_value = "", hide_default_value = true)]
    prefix: Prefix,
}

pub(super) fn run(args: &Args, output: Output) -> Exit {
    let listed = args.from.client(ClientOptions::default()).and_then(|client| list(&client, args, output));
    match listed {
        Ok(0) if !args.prefix.as_str().is_empty() => {
            let remedy = "check its spelling; a prefix is made of whole segments, such as edge/eu";
            output.error(&format!("nothing is published under {}", args.prefix), remedy);
            Exit::Refused
        }
        Ok(_) => Exit::Done,
        Err(error) => output.client_error(&error),
    }
}

/// Prints page by page; how many entries.
fn list(client: &Client, args: &Args, output: Output) -> Result<u64, ClientError> {
    let mut count = 0;
    client.each_entry(&args.prefix, |indexed| {
        if args.all || !(indexed.entry.flags.deleted || indexed.hidden) {
            count += 1;
            show(&indexed, args.long, output);
        }
    })?;
    Ok(count)
}

fn show(indexed: &IndexedEntry, long: bool, output: Output) {
    let IndexedEntry { entry, hidden } = indexed;
    if output.json {
        output.object(indexed);
    } else if long {
        let (flags, kind) = (output::flags(entry.flags, *hidden), &entry.content_type);
        let kind = if kind.is_empty() { "-" } else { kind };
        output.line(&format!("{}\t{}\t{flags}\t{kind}\t{}", entry.uid, entry.size, entry.path));
    } else {
        output.line(entry.path.as_str());
    }
}
