//! `acms delete`: publishes a tombstone.

use super::{Exit, To, output::Output};
use crate::{
    client::PublishOptions,
    protocol::{Path, Uid},
};

/// Arguments of `acms delete`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    to: To,
    /// Idempotency key (default: a random one)
    #[arg(long)]
    key: Option<String>,
    /// The greatest UID that you know: the deletion's will be greater
    #[arg(long, value_name = "UID")]
    known: Option<Uid>,
    /// The path, such as edge/routes.json
    path: Path,
}

pub(super) fn run(args: &Args, output: Output) -> Exit {
    let options = PublishOptions { key: args.key.clone(), known: args.known, ..PublishOptions::default() };
    match args.to.client().and_then(|client| client.delete(&args.path, &options)) {
        Ok(result) => output.outcome(args.path.as_str(), &result),
        Err(error) => output.client_error(&error),
    }
}
