//! The audit at the end of a run: what every storage point's index and every receiver's directory really hold.

use crate::{
    trace::{Kind, Recorder, Template, Text},
    workload::{Answer, Client, Random},
};
use acms_engine::protocol::{Flags, Hash, Uid, api::ListedEntry};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
};

/// Of each SP's index, this many contents are read back and hashed.
const CONTENTS_MAX: usize = 200;

/// Why an audit is not complete.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
enum AuditError {
    /// A storage point does not answer.
    #[error(transparent)]
    Client(#[from] crate::workload::ClientError),
    /// A storage point answers something else.
    #[error("{url}: {what}")]
    Answer {
        /// What was asked.
        url: String,
        /// What is wrong with the answer.
        what: String,
    },
    /// A receiver's directory cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: String,
        /// Why.
        source: io::Error,
    },
}

#[derive(Deserialize)]
struct IndexPage {
    entries: Vec<ListedEntry>,
    #[serde(default)]
    next: Option<String>,
}

/// Records the whole index of the SP `name`, and whether a sample of its contents has the hashes that it says.
pub async fn audit_storage_point(client: &Client, authority: &str, name: &Text, recorder: &Recorder, seed: u64) {
    let audited = audit_index(client, authority, name, recorder, seed).await;
    end(name, recorder, audited, root(client, authority).await);
}

fn end(name: &Text, recorder: &Recorder, audited: Result<(), AuditError>, root: Option<Hash>) {
    let cause = audited.as_ref().err().map(ToString::to_string);
    let outcome = Some(if audited.is_ok() { "complete" } else { "incomplete" });
    let about = Template { outcome, cause: cause.as_deref(), hash: root, ..Template::default() };
    recorder.note(name, 0, Kind::AuditEnd, about);
}

async fn audit_index(
    client: &Client,
    authority: &str,
    name: &Text,
    recorder: &Recorder,
    seed: u64,
) -> Result<(), AuditError> {
    if let Some(bytes_out) = bytes_out(client, authority).await {
        let cause = format!("bytes_out={bytes_out}");
        recorder.note(name, 0, Kind::Usage, Template { cause: Some(&cause), ..Template::default() });
    }
    let entries = read_index(client, authority).await?;
    let mut order: Vec<usize> = (0..entries.len()).filter(|i| !entries[*i].flags.deleted).collect();
    Random::new(seed, name).shuffle(&mut order);
    let sample: BTreeSet<usize> = order.into_iter().take(CONTENTS_MAX).collect();
    for (i, entry) in entries.iter().enumerate() {
        let outcome = if entry.flags.deleted {
            Some("deleted")
        } else if sample.contains(&i) {
            Some(if has_content(client, authority, entry.hash).await? { "content-same" } else { "content-differs" })
        } else {
            None
        };
        let template = Template {
            path: Some(entry.path.as_str()),
            uid: Some(entry.uid),
            hash: Some(entry.hash),
            outcome,
            ..Template::default()
        };
        recorder.note(name, 0, Kind::AuditSp, template);
    }
    Ok(())
}

/// What the SP says that it has served since its start; before the audit itself asks for much.
async fn bytes_out(client: &Client, authority: &str) -> Option<u64> {
    let answer = client.get(authority, "/metrics").await.ok().filter(|answer| answer.status == 200)?;
    let text = String::from_utf8_lossy(&answer.body);
    text.lines().find_map(|line| line.strip_prefix("acms_http_sent_bytes_total "))?.trim().parse().ok()
}

async fn read_index(client: &Client, authority: &str) -> Result<Vec<ListedEntry>, AuditError> {
    let mut entries = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let after_text = after.as_ref().map_or(String::new(), |after| format!("&after={}", percent_encode(after)));
        let url = format!("/v1/index/?limit=1000{after_text}");
        let answer = client.get(authority, &url).await?;
        let page: IndexPage = json(&url, &answer)?;
        entries.extend(page.entries);
        match page.next {
            None => return Ok(entries),
            // A page that leads to itself would go on for ever.
            next if next == after => return Err(AuditError::Answer { url, what: "the next page is this one".into() }),
            next => after = next,
        }
    }
}

fn json<'a, T: Deserialize<'a>>(url: &str, answer: &'a Answer) -> Result<T, AuditError> {
    let wrong = |what: String| AuditError::Answer { url: url.to_owned(), what };
    if answer.status != 200 {
        let body = String::from_utf8_lossy(&answer.body).chars().take(200).collect::<String>();
        return Err(wrong(format!("status {}: {body}", answer.status)));
    }
    serde_json::from_slice(&answer.body).map_err(|error| wrong(error.to_string()))
}

async fn has_content(client: &Client, authority: &str, hash: Hash) -> Result<bool, AuditError> {
    let answer = client.get(authority, &format!("/v1/objects/{hash}")).await?;
    Ok(answer.status == 200 && Hash::of(&answer.body) == hash)
}

fn percent_encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// The root of the index that an SP serves now.
pub async fn root(client: &Client, authority: &str) -> Option<Hash> {
    let answer = client.get(authority, "/v1/snapshot").await.ok()?;
    json::<acms_engine::protocol::api::Snapshot>("/v1/snapshot", &answer).ok().map(|snapshot| snapshot.root)
}

/// Records a receiver's state and every file of its directory with the hash of the bytes that are there.
pub fn audit_receiver(name: &Text, dir: &Path, recorder: &Recorder) {
    end(name, recorder, audit_directory(name, dir, recorder), None);
}

/// A line of `~acms/state`; later lines of a path win.
#[derive(Deserialize)]
struct StateLine {
    path: String,
    uid: Uid,
    hash: Hash,
    #[serde(default)]
    flags: Vec<String>,
}

fn audit_directory(name: &Text, dir: &Path, recorder: &Recorder) -> Result<(), AuditError> {
    let state = dir.join("~acms/state");
    let failed = |path: &Path, source| AuditError::Io { path: path.display().to_string(), source };
    let text = fs::read_to_string(&state).map_err(|source| failed(&state, source))?;
    let mut entries: BTreeMap<String, StateLine> = BTreeMap::new();
    let complete = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
    for line in complete.lines() {
        // Lines of other kinds (the snapshot) are not about a path.
        let Ok(line) = serde_json::from_str::<StateLine>(line) else { continue };
        entries.insert(line.path.clone(), line);
    }
    let deleted = Flags { deleted: true, ..Flags::default() };
    let deleted = deleted.names().next();
    for (path, line) in &entries {
        let outcome = deleted.filter(|deleted| line.flags.iter().any(|flag| flag == deleted));
        let (uid, hash) = (Some(line.uid), Some(line.hash));
        recorder.note(
            name,
            0,
            Kind::AuditState,
            Template { path: Some(path), uid, hash, outcome, ..Template::default() },
        );
    }
    let walk = walkdir::WalkDir::new(dir).sort_by_file_name();
    let own = |entry: &walkdir::DirEntry| entry.file_name().to_str().is_some_and(|name| name.starts_with('~'));
    for entry in walk.into_iter().filter_entry(|entry| !own(entry)) {
        let entry = entry.map_err(|error| failed(dir, error.into()))?;
        if entry.file_type().is_dir() {
            continue;
        }
        let path = entry.path().strip_prefix(dir).unwrap_or(entry.path()).to_string_lossy();
        let hash =
            fs::read(entry.path()).map(|bytes| Hash::of(&bytes)).map_err(|source| failed(entry.path(), source))?;
        let template = Template { path: Some(&path), hash: Some(hash), ..Template::default() };
        recorder.note(name, 0, Kind::AuditFile, template);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_told_by_its_state_and_its_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let (recorder, name) = (Recorder::new(), Text::from("receiver1"));
        audit_receiver(&name, dir.path(), &recorder);
        fs::create_dir_all(dir.path().join("~acms")).unwrap();
        fs::create_dir_all(dir.path().join("a")).unwrap();
        fs::write(dir.path().join("a/b"), b"torn").unwrap();
        let line = |path: &str, micros: u64, flags: &str| {
            format!(
                "{{\"path\":\"{path}\",\"uid\":\"{micros}.1.0\",\"hash\":\"{}\",\"flags\":[{flags}]}}\n",
                Hash::of(b"x")
            )
        };
        let text =
            line("a/b", 1, "") + "{\"snapshot\":1}\n" + &line("a/b", 2, "") + &line("c", 3, "\"deleted\"") + "{\"pa";
        fs::write(dir.path().join("~acms/state"), text).unwrap();
        audit_receiver(&name, dir.path(), &recorder);
        let trace = recorder.finish();
        let ends: Vec<_> = trace.of(Kind::AuditEnd).map(|event| event.outcome.as_deref().unwrap()).collect();
        assert_eq!(ends, ["incomplete", "complete"]);
        let states: Vec<_> = trace.of(Kind::AuditState).collect();
        assert_eq!(states.len(), 2);
        assert_eq!((states[0].path.as_deref(), states[0].uid.unwrap().micros), (Some("a/b"), 2));
        assert!(states[1].is_deletion());
        let files: Vec<_> = trace.of(Kind::AuditFile).collect();
        assert_eq!((files.len(), files[0].path.as_deref(), files[0].hash), (1, Some("a/b"), Some(Hash::of(b"torn"))));
    }

    #[test]
    fn tokens_are_encoded() {
        assert_eq!(percent_encode("etc/a+b c"), "etc/a%2Bb%20c");
    }
}
