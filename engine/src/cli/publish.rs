//! `acms publish`: one file, standard input, or a directory tree.

use super::{Exit, To, output::Output, tree};
use crate::{
    client::{Body, CONTENT_LEN_MAX, ClientError, PublishOptions},
    protocol::{Order, Path, Uid},
};
use std::{
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{self, PathBuf},
};

/// Arguments of `acms publish`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    to: To,
    /// Publish every file of this directory; PATH is then the prefix that they get ("" or / for none)
    #[arg(long, value_name = "DIR", conflicts_with_all = ["file", "key", "known"])]
    tree: Option<PathBuf>,
    /// With --tree: files that others may not read too, instead of leaving them out
    #[arg(long, requires = "tree")]
    all: bool,
    /// With --tree: this many publications at a time
    #[arg(short, long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: u16,
    /// Idempotency key: publishing again with the same key makes no second publication (default: a random one)
    #[arg(long)]
    key: Option<String>,
    /// The greatest UID that you know: the new one will be greater
    #[arg(long, value_name = "UID")]
    known: Option<Uid>,
    /// What the order of publications rests on: a quorum's answers (strict), or known UIDs and clocks (fast)
    #[arg(long, value_name = "strict|fast", value_parser = order)]
    order: Option<Order>,
    /// Receivers make the file executable (default: as the published file is)
    #[arg(long)]
    executable: bool,
    /// Media type
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// Publish the content that this earlier version of PATH has (see acms history), instead of a file's: rolls back
    #[arg(long, value_name = "UID", conflicts_with_all = ["file", "tree", "executable", "content_type"])]
    uid: Option<Uid>,
    /// Name under which it is published, such as edge/routes.json
    #[arg(value_name = "PATH")]
    path: String,
    /// The file, or - for standard input
    #[arg(required_unless_present_any = ["tree", "uid"])]
    file: Option<PathBuf>,
}

fn order(text: &str) -> Result<Order, String> {
    match text {
        "strict" => Ok(Order::Strict),
        "fast" => Ok(Order::Fast),
        _ => Err("write strict or fast".into()),
    }
}

impl Args {
    pub(super) fn options(&self, executable: bool) -> PublishOptions {
        PublishOptions {
            key: self.key.clone(),
            known: self.known,
            order: self.order,
            executable: self.executable || executable,
            content_type: self.content_type.clone(),
            ..PublishOptions::default()
        }
    }
}

pub(super) fn run(args: &Args, output: Output) -> Exit {
    let client = match args.to.client() {
        Ok(client) => client,
        Err(error) => return output.client_error(&error),
    };
    if let Some(directory) = &args.tree {
        return tree::publish(&client, args, directory, &args.path, args.all, args.jobs.into(), output);
    }
    let path: Path = match args.path.parse() {
        Ok(path) => path,
        Err(error) => {
            output
                .error(&format!("{:?} is no path: {error}", args.path), "publish under another name, such as etc/motd");
            return Exit::Failed;
        }
    };
    if let Some(uid) = args.uid {
        return match client.publish_again(&path, uid, &args.options(false)) {
            Ok(result) => output.outcome(path.as_str(), &result),
            Err(error) => output.client_error(&error),
        };
    }
    let file = args.file.as_deref().unwrap_or(path::Path::new("-"));
    let result = body(file).and_then(|(body, executable)| client.publish(&path, &body, &args.options(executable)));
    match result {
        Ok(result) => output.outcome(path.as_str(), &result),
        Err(error) => output.client_error(&error),
    }
}

/// The body, and whether the file is executable.
fn body(file: &path::Path) -> Result<(Body, bool), ClientError> {
    let failed = |detail: String| ClientError::File { detail: format!("{}: {detail}", file.display()) };
    if file == path::Path::new("-") {
        let mut bytes = Vec::new();
        let read = std::io::stdin().lock().take(CONTENT_LEN_MAX + 1).read_to_end(&mut bytes);
        read.map_err(|error| failed(error.to_string()))?;
        if bytes.len() as u64 > CONTENT_LEN_MAX {
            return Err(failed("contents have 1 GiB at most".into()));
        }
        return Ok((Body::Bytes(bytes.into()), false));
    }
    let metadata = file.metadata().map_err(|error| failed(error.to_string()))?;
    if !metadata.is_file() {
        return Err(failed("it is no regular file; use --tree for a directory, - for standard input".into()));
    }
    Ok((Body::File(file.to_owned()), metadata.permissions().mode() & 0o111 != 0))
}
