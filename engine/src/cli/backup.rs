//! `acms backup`: a copy of all that a running cluster serves, to be restored by `acms init --restore`.

use super::{Exit, Source, output::Output};
use crate::{backup, client::ClientOptions};
use std::{path::PathBuf, time::Duration};

/// Arguments of `acms backup`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    from: Source,
    /// The directory to make. If it cannot be finished now, the next attempt goes on with what has been fetched
    #[arg(long = "to", value_name = "DIR")]
    to: PathBuf,
    /// Leave out earlier versions and who published; this takes one request less for each path
    #[arg(long)]
    no_history: bool,
}

pub(super) fn run(args: &Args, output: Output) -> Exit {
    let options = ClientOptions { io_timeout: Duration::from_secs(30), ..ClientOptions::default() };
    let taken = args.from.client(options).map_err(backup::BackupError::from);
    match taken.and_then(|client| backup::take(&client, &args.to, !args.no_history)) {
        Err(backup::BackupError::Client(error)) => output.client_error(&error),
        Err(error) => {
            output.error(&error.to_string(), "see to the cause, and run it again: what was fetched stays");
            Exit::Failed
        }
        Ok(head) if output.json => {
            output.object(&head);
            Exit::Done
        }
        Ok(head) => {
            let backup::Head { versions, contents, contents_bytes, snapshot, .. } = &head;
            output.line(&format!(
                "{versions} versions with {contents} contents ({contents_bytes} bytes) of cluster {} are in {}.\n\
                 Restore them into a new cluster by:\n  acms init --restore {} DIR",
                snapshot.cluster,
                args.to.display(),
                args.to.display()
            ));
            Exit::Done
        }
    }
}
