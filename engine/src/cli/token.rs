//! `acms token`: a word by which storage points know a publisher.

use super::{Exit, output::Output};
use crate::{protocol::Prefix, runtime::tokens, tls::Grant};
use std::path::PathBuf;

/// Arguments of `acms token`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The tokens file of each storage point that is to know it (publishers.tokens); made if absent
    #[arg(long, value_name = "FILE", required = true)]
    tokens: Vec<PathBuf>,
    /// It may publish only this path and what is below; may be given again
    #[arg(long, value_name = "PREFIX")]
    under: Vec<Prefix>,
    /// The name that stands in its publications
    name: String,
}

pub(super) fn run(args: &Args, output: Output) -> Exit {
    let made = || -> Result<String, Box<dyn std::error::Error>> {
        let grant = Grant::new(&args.name, args.under.clone())?;
        let token = tokens::generate()?;
        args.tokens.iter().try_for_each(|file| tokens::add(file, &token, &grant))?;
        Ok(token)
    };
    match made() {
        Ok(token) => {
            match output.json {
                true => output.object(&serde_json::json!({"name": args.name, "token": token})),
                false => output.line(&token),
            }
            Exit::Done
        }
        Err(error) => {
            output.error(&error.to_string(), "name a file that can be written, and a name for the publisher");
            Exit::Failed
        }
    }
}
