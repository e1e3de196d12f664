//! `acms publish --tree`: every file of a directory, several at a time.

use super::{Exit, output::Output, output::exit_of, publish::Args};
use crate::{
    client::{Body, Client, ClientError, PublishResult, Verdict},
    protocol::{Path, Prefix},
};
use std::{
    io::{IsTerminal, Write},
    os::unix::fs::PermissionsExt,
    path::{self, PathBuf},
    sync::{Mutex, PoisonError},
};

/// A file to publish.
struct File {
    path: Path,
    source: PathBuf,
    executable: bool,
}

/// What a directory holds.
#[derive(Default)]
struct Found {
    files: Vec<File>,
    /// Links, devices, and what others may not read.
    skipped: u64,
    /// Names that are no paths, and why.
    unnameable: Vec<String>,
    /// What could not be looked at, and why.
    unreadable: Vec<String>,
}

/// How far the work is.
#[derive(Default)]
struct Tally {
    next: usize,
    done: usize,
    accepted: u64,
    rejected: u64,
    undetermined: u64,
    failed: u64,
    /// No storage point can be reached: nothing more is tried.
    unreachable: bool,
}

pub(super) fn publish(
    client: &Client,
    args: &Args,
    directory: &path::Path,
    prefix: &str,
    all: bool,
    jobs: usize,
    output: Output,
) -> Exit {
    let prefix: Prefix = match prefix.parse() {
        Ok(prefix) => prefix,
        Err(error) => {
            output.error(&format!("{prefix:?} is no prefix: {error}"), "write whole segments, such as edge/eu");
            return Exit::Failed;
        }
    };
    if !directory.is_dir() {
        output.error(&format!("{} is no directory", directory.display()), "name a directory after --tree");
        return Exit::Failed;
    }
    let found = find(directory, &prefix, all);
    for what in found.unnameable.iter().chain(&found.unreadable) {
        output.error(what, "rename it, or publish it alone under another name");
    }
    let tally = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(found.files.len()) {
            scope.spawn(|| work(client, args, &found.files, &tally, output));
        }
    });
    let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    summarize(&found, &tally, output)
}

/// All files below `directory`. Links are not followed, and what others may not read is left out unless `all`: trees
/// such as /etc hold secrets.
fn find(directory: &path::Path, prefix: &Prefix, all: bool) -> Found {
    let mut found = Found::default();
    let mut walk = walkdir::WalkDir::new(directory).sort_by_file_name().into_iter();
    while let Some(item) = walk.next() {
        let item = match item {
            Ok(item) => item,
            Err(error) => {
                found.unreadable.push(error.to_string());
                continue;
            }
        };
        let Ok(metadata) = item.metadata() else {
            found.unreadable.push(format!("{} cannot be looked at", item.path().display()));
            continue;
        };
        let mode = metadata.permissions().mode();
        if item.file_type().is_dir() {
            if !all && item.depth() > 0 && mode & 0o001 == 0 {
                found.skipped += 1;
                walk.skip_current_dir();
            }
            continue;
        }
        if !item.file_type().is_file() || (!all && mode & 0o004 == 0) {
            found.skipped += 1;
            continue;
        }
        let relative = item.path().strip_prefix(directory).unwrap_or(item.path());
        let separator = if prefix.as_str().is_empty() { "" } else { "/" };
        let name = relative.to_str().map(|relative| format!("{prefix}{separator}{relative}"));
        let parsed = name.ok_or("its name is no UTF-8".to_owned());
        match parsed.and_then(|name| name.parse::<Path>().map_err(|error| error.to_string())) {
            Ok(path) => {
                found.files.push(File { path, source: item.path().to_owned(), executable: mode & 0o111 != 0 });
            }
            Err(why) => found.unnameable.push(format!("{} cannot be published: {why}", item.path().display())),
        }
    }
    found
}

fn work(client: &Client, args: &Args, files: &[File], tally: &Mutex<Tally>, output: Output) {
    let lock = || tally.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let file = {
            let mut tally = lock();
            let Some(file) = files.get(tally.next).filter(|_| !tally.unreachable) else { return };
            tally.next += 1;
            file
        };
        let result = client.publish(&file.path, &Body::File(file.source.clone()), &args.options(file.executable));
        let mut tally = lock();
        tally.done += 1;
        count(&mut tally, file, result, output);
        if std::io::stderr().is_terminal() && !output.json {
            let _ = write!(std::io::stderr(), "\r{} of {} published ", tally.done, files.len());
        }
    }
}

fn count(tally: &mut Tally, file: &File, result: Result<PublishResult, ClientError>, output: Output) {
    match result {
        Ok(result) => {
            match result.outcome {
                Verdict::Accepted => tally.accepted += 1,
                Verdict::Rejected => tally.rejected += 1,
                Verdict::Undetermined => tally.undetermined += 1,
            }
            if output.json || exit_of(&result) != Exit::Done {
                output.outcome(file.path.as_str(), &result);
            }
        }
        Err(error) => {
            let unreachable = matches!(error, ClientError::Unreachable { .. });
            if !tally.unreachable {
                output.error(&format!("{}: {error}", file.path), &error.remedy());
            }
            tally.unreachable |= unreachable;
            tally.failed += 1;
        }
    }
}

fn summarize(found: &Found, tally: &Tally, output: Output) -> Exit {
    let left = found.files.len() - tally.done;
    let failed = tally.failed + found.unreadable.len() as u64;
    if output.json {
        output.object(&serde_json::json!({
            "files": found.files.len(), "accepted": tally.accepted, "rejected": tally.rejected,
            "undetermined": tally.undetermined, "failed": failed, "not_tried": left,
            "skipped": found.skipped, "unnameable": found.unnameable.len(),
        }));
    } else {
        if std::io::stderr().is_terminal() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
        let mut text = format!("{} of {} files accepted", tally.accepted, found.files.len());
        let counts = [
            (tally.rejected, "rejected"),
            (tally.undetermined, "undetermined"),
            (failed, "failed"),
            (left as u64, "not tried"),
            (found.unnameable.len() as u64, "without a legal name"),
            (found.skipped, "skipped (links, devices, or not readable by others)"),
        ];
        for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
            text += &format!(", {count} {what}");
        }
        output.line(&text);
    }
    match tally {
        Tally { unreachable: true, .. } => Exit::Failed,
        _ if failed > 0 => Exit::Failed,
        Tally { rejected: 1.., .. } => Exit::Refused,
        Tally { undetermined: 1.., .. } => Exit::Undetermined,
        _ => Exit::Done,
    }
}
