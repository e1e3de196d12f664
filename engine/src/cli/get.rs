//! `acms get`: the latest agreed content of a path.

use super::{Exit, Source, output::Output};
use crate::{
    client::{ClientOptions, Fetched, GetOptions},
    protocol::{Hash, Path, Uid, api::ListedEntry},
};
use std::{io::Write, path::PathBuf, time::Duration};

/// Arguments of `acms get`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    from: Source,
    /// Save it here, instead of printing it
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Wait until the storage point knows this publication
    #[arg(long, value_name = "UID")]
    at_least: Option<Uid>,
    /// This version instead of the latest (see acms history)
    #[arg(long, value_name = "UID", conflicts_with = "at_least")]
    uid: Option<Uid>,
    /// The path, such as edge/routes.json
    path: Path,
}

pub(super) fn run(args: &Args, output: Output) -> Exit {
    let client = ClientOptions { io_timeout: Duration::from_secs(30), ..ClientOptions::default() };
    let options = GetOptions { at_least: args.at_least };
    let fetched = args.from.client(client).and_then(|client| match (&args.output, args.uid) {
        (Some(file), None) => client.get_to_file(&args.path, &options, file),
        (None, None) => client.get(&args.path, &options),
        (Some(file), Some(uid)) => client.get_version_to_file(&args.path, uid, file),
        (None, Some(uid)) => client.get_version(&args.path, uid),
    });
    match fetched {
        Err(error) => output.client_error(&error),
        Ok(None) if args.uid.is_some() => {
            let remedy = "see acms history for what is kept there, or ask another storage point";
            output.error(&format!("no such version of {} is kept", args.path), remedy);
            Exit::Refused
        }
        Ok(None) => {
            let remedy = "check its spelling, or ask with --at-least for a publication made just now";
            output.error(&format!("nothing is published under {}", args.path), remedy);
            Exit::Refused
        }
        Ok(Some(fetched)) => show(args, fetched, output),
    }
}

fn show(args: &Args, fetched: Fetched, output: Output) -> Exit {
    let Fetched { uid, size, .. } = fetched;
    match (&args.output, output.json) {
        (None, false) => {
            let mut stdout = std::io::stdout().lock();
            if let Err(error) = stdout.write_all(&fetched.bytes).and_then(|()| stdout.flush()) {
                output.error(&format!("standard output cannot be written: {error}"), "use --output FILE");
                return Exit::Failed;
            }
        }
        (None, true) => {
            let Fetched { bytes, flags, content_type, .. } = fetched;
            let (path, hash) = (args.path.clone(), Hash::of(&bytes));
            output.object(&ListedEntry { path, uid, hash, size, content_type, flags, inline: Some(bytes.into()) });
        }
        (Some(file), true) => output.object(&serde_json::json!({
            "path": args.path, "uid": uid, "size": size, "file": file.to_string_lossy(), "url": fetched.url,
        })),
        (Some(file), false) => output.line(&format!("{} ({uid}, {size} bytes) saved as {}", args.path, file.display())),
    }
    Exit::Done
}
