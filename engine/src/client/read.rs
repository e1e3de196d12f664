//! Reading: contents, listings, outcomes, status. Every storage point is asked in turn until one answers.

use super::{ANSWER_LEN_MAX, CONTENT_LEN_MAX, Client, ClientError, Head, Request, Source, growing, percent_encoded};
use crate::protocol::{
    Flags, Hash, Path, Prefix, Uid,
    api::{Changes, Cursor, History, IndexedEntry, ListedEntry, OutcomeAnswer, PublicationAnswer, Snapshot},
};
use bytes::Bytes;
use std::{
    fs::{File, OpenOptions, Permissions},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{self, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Most bytes kept of an answer that is an error.
const ERROR_LEN_MAX: usize = 64 << 10;

/// How to read a path.
#[derive(Clone, Debug, Default)]
pub struct GetOptions {
    /// Wait until the storage point knows this publication agreed or superseded.
    pub at_least: Option<Uid>,
}

/// The latest agreed publication of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Its content; empty where it went into a file.
    pub bytes: Bytes,
    /// Its name.
    pub uid: Uid,
    /// Its flags.
    pub flags: Flags,
    /// Its media type; may be empty.
    pub content_type: String,
    /// Bytes of content.
    pub size: u64,
    /// Which storage point said so.
    pub url: String,
}

/// A page of `GET /v1/index/<prefix>`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct IndexPage {
    /// Agreed entries, ascending by directory, then name.
    pub entries: Vec<IndexedEntry>,
    /// Ask for the next page with `after` = this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Where the body of a 200 goes.
enum Target<'a> {
    Memory(Vec<u8>),
    File(&'a File),
}

struct Landing<'a> {
    target: Target<'a>,
    len: u64,
    error: Vec<u8>,
    /// Of what has come, where somebody wants to know.
    hasher: Option<Box<blake3::Hasher>>,
}

impl Landing<'_> {
    fn memory() -> Landing<'static> {
        Landing { target: Target::Memory(Vec::new()), len: 0, error: Vec::new(), hasher: None }
    }

    /// Forgets an attempt that failed.
    fn reset(&mut self) -> io::Result<()> {
        self.len = 0;
        self.error.clear();
        self.hasher.as_mut().map(|hasher| hasher.reset());
        match &mut self.target {
            Target::Memory(bytes) => bytes.clear(),
            Target::File(file) => file.set_len(0)?,
        }
        Ok(())
    }

    fn write(&mut self, head: &Head, part: &[u8]) -> io::Result<()> {
        if head.status != 200 {
            let room = ERROR_LEN_MAX - self.error.len();
            self.error.extend_from_slice(&part[..part.len().min(room)]);
            return Ok(());
        }
        match &mut self.target {
            Target::Memory(bytes) => bytes.extend_from_slice(part),
            Target::File(file) => growing::append(file, self.len, part)?,
        }
        self.hasher.as_mut().map(|hasher| hasher.update(part));
        self.len += part.len() as u64;
        Ok(())
    }
}

/// A 200 (with its body in the landing), or a 404 that a storage point gave.
enum Answer {
    Found(Head, String),
    NotFound,
}

impl Client {
    /// The latest agreed publication of `path`; none if there is none, or it was deleted.
    pub fn get(&self, path: &Path, options: &GetOptions) -> Result<Option<Fetched>, ClientError> {
        let mut landing = Landing::memory();
        let fetched = self.fetch_config(path, options, &mut landing)?;
        let Target::Memory(bytes) = landing.target else { return Ok(fetched) };
        Ok(fetched.map(|fetched| Fetched { bytes: bytes.into(), ..fetched }))
    }

    /// As `get`, but the content goes into the file `destination`, which afterwards has either its old or its new
    /// content, whole.
    pub fn get_to_file(
        &self,
        path: &Path,
        options: &GetOptions,
        destination: &path::Path,
    ) -> Result<Option<Fetched>, ClientError> {
        let failed = |error: io::Error| ClientError::File { detail: format!("{}: {error}", destination.display()) };
        let mut temporary = Temporary::beside(destination).map_err(failed)?;
        let mut landing = Landing { target: Target::File(&temporary.file), len: 0, error: Vec::new(), hasher: None };
        let fetched = self.fetch_config(path, options, &mut landing)?;
        if let Some(fetched) = &fetched {
            temporary.become_file(destination, fetched.flags.executable).map_err(failed)?;
        }
        Ok(fetched)
    }

    fn fetch_config(
        &self,
        path: &Path,
        options: &GetOptions,
        landing: &mut Landing<'_>,
    ) -> Result<Option<Fetched>, ClientError> {
        let at_least = options.at_least.map(|uid| uid.to_string());
        let headers: Vec<_> = at_least.iter().map(|uid| ("ACMS-At-Least", uid.as_str())).collect();
        match self.fetch(&format!("/v1/config/{path}"), &headers, landing, CONTENT_LEN_MAX)? {
            Answer::NotFound => Ok(None),
            Answer::Found(head, url) => fetched(&head, landing.len, url).map(Some),
        }
    }

    /// The content or index node of this hash, checked; none if it is not there.
    pub fn object(&self, hash: &Hash) -> Result<Option<Bytes>, ClientError> {
        let mut landing = Landing::memory();
        let answer = self.fetch(&format!("/v1/objects/{hash}"), &[], &mut landing, CONTENT_LEN_MAX)?;
        let (Answer::Found(_, url), Target::Memory(bytes)) = (answer, landing.target) else { return Ok(None) };
        if Hash::of(&bytes) != *hash {
            return Err(ClientError::Corrupt { url, hash: hash.to_string() });
        }
        Ok(Some(bytes.into()))
    }

    /// What a storage point serves now.
    pub fn snapshot(&self) -> Result<Snapshot, ClientError> {
        self.json("/v1/snapshot")?.ok_or_else(|| self.not_acms("it knows no snapshot"))
    }

    /// What changed under a prefix after `cursor`. The storage point holds the request until something has, 25 s at most:
    /// [`ClientOptions::io_timeout`](super::ClientOptions::io_timeout) must be longer.
    pub fn changes(&self, cursor: Cursor, prefix: &Prefix) -> Result<Changes, ClientError> {
        let below = if prefix.as_str().is_empty() { String::new() } else { format!("/{prefix}") };
        self.json(&format!("/v1/changes/{cursor}{below}"))?.ok_or_else(|| self.not_acms("it knows no changes"))
    }

    /// All agreed entries under a prefix, ascending by directory, then name; tombstones and hidden ones too.
    pub fn list(&self, prefix: &Prefix) -> Result<Vec<ListedEntry>, ClientError> {
        let mut entries = Vec::new();
        self.each_entry(prefix, |indexed| entries.push(indexed.entry))?;
        Ok(entries)
    }

    /// The same one by one, without all of them in memory.
    pub fn each_entry(&self, prefix: &Prefix, mut take: impl FnMut(IndexedEntry)) -> Result<(), ClientError> {
        let mut after: Option<String> = None;
        loop {
            let page = self.list_page(prefix, after.as_deref())?;
            page.entries.into_iter().for_each(&mut take);
            match page.next {
                None => return Ok(()),
                Some(next) if after.as_ref() == Some(&next) => return Err(self.not_acms("its listing does not end")),
                Some(next) => after = Some(next),
            }
        }
    }

    /// One page of agreed entries under a prefix.
    pub fn list_page(&self, prefix: &Prefix, after: Option<&str>) -> Result<IndexPage, ClientError> {
        let after = after.map(|token| format!("?after={}", percent_encoded(token))).unwrap_or_default();
        let page = self.json(&format!("/v1/index/{prefix}{after}"))?;
        page.ok_or_else(|| self.not_acms("it knows no index"))
    }

    /// The versions of `path` that a storage point keeps, the newest first; none if there never was one.
    pub fn history(&self, path: &Path) -> Result<Option<History>, ClientError> {
        self.json(&format!("/v1/history/{path}"))
    }

    /// A version of `path` that the storage point keeps; none if it does not, or if it is a deletion.
    pub fn get_version(&self, path: &Path, uid: Uid) -> Result<Option<Fetched>, ClientError> {
        let Some(version) = self.version(path, uid)? else { return Ok(None) };
        let Some(bytes) = self.object(&version.hash)? else { return Ok(None) };
        Ok(Some(Fetched { bytes, ..self.fetched_version(version) }))
    }

    /// The same into a file, see [`Client::get_to_file`].
    pub fn get_version_to_file(
        &self,
        path: &Path,
        uid: Uid,
        destination: &path::Path,
    ) -> Result<Option<Fetched>, ClientError> {
        let Some(version) = self.version(path, uid)? else { return Ok(None) };
        let failed = |error: io::Error| ClientError::File { detail: format!("{}: {error}", destination.display()) };
        let mut temporary = Temporary::beside(destination).map_err(failed)?;
        if !self.object_to(&version.hash, &temporary.file)? {
            return Ok(None);
        }
        temporary.become_file(destination, version.flags.executable).map_err(failed)?;
        Ok(Some(self.fetched_version(version)))
    }

    /// Writes a content into an empty file, checked; false if it is not there.
    pub fn object_to(&self, hash: &Hash, file: &File) -> Result<bool, ClientError> {
        let mut landing =
            Landing { target: Target::File(file), len: 0, error: Vec::new(), hasher: Some(Box::default()) };
        let answer = self.fetch(&format!("/v1/objects/{hash}"), &[], &mut landing, CONTENT_LEN_MAX)?;
        let Answer::Found(_, url) = answer else { return Ok(false) };
        match landing.hasher.is_some_and(|hasher| hasher.finalize().as_bytes() == &hash.0) {
            true => Ok(true),
            false => Err(ClientError::Corrupt { url, hash: hash.to_string() }),
        }
    }

    fn version(&self, path: &Path, uid: Uid) -> Result<Option<ListedEntry>, ClientError> {
        let versions = self.history(path)?.into_iter().flat_map(|history| history.versions);
        Ok(versions.map(|version| version.entry).find(|entry| entry.uid == uid && !entry.flags.deleted))
    }

    fn fetched_version(&self, entry: ListedEntry) -> Fetched {
        let ListedEntry { uid, size, content_type, flags, .. } = entry;
        let url = self.order().next().map(|url| self.name(url)).unwrap_or_default();
        Fetched { bytes: Bytes::new(), uid, flags, content_type, size, url }
    }

    /// What a storage point knows of a publication.
    pub fn outcome(&self, uid: Uid) -> Result<Option<PublicationAnswer>, ClientError> {
        self.json(&format!("/v1/publications/{uid}"))
    }

    /// What a storage point knows of this client's publication under a key.
    pub fn outcome_by_key(&self, key: &str) -> Result<Option<PublicationAnswer>, ClientError> {
        self.json(&self.key_target(key))
    }

    /// What the storage point `urls()[url]` knows of a publication.
    pub fn outcome_at(&self, url: usize, uid: Uid) -> Result<Option<PublicationAnswer>, ClientError> {
        self.json_at(url, &format!("/v1/publications/{uid}"), None)
    }

    /// What the storage point `urls()[url]` knows of this client's publication under a key.
    pub fn outcome_by_key_at(&self, url: usize, key: &str) -> Result<Option<PublicationAnswer>, ClientError> {
        self.json_at(url, &self.key_target(key), None)
    }

    pub(super) fn key_target(&self, key: &str) -> String {
        let publisher = percent_encoded(&self.options.publisher);
        format!("/v1/publications?key={}&publisher={publisher}", percent_encoded(key))
    }

    /// The status of the first storage point that answers.
    pub fn status(&self) -> Result<serde_json::Value, ClientError> {
        self.json("/v1/status")?.ok_or_else(|| self.not_acms("it knows no status"))
    }

    /// The status of the storage point `urls()[url]`.
    pub fn status_of(&self, url: usize) -> Result<serde_json::Value, ClientError> {
        let answer = self.json_at(url, "/v1/status", None)?;
        answer.ok_or_else(|| ClientError::NotAcms { url: self.name(url), detail: "it knows no status".into() })
    }

    fn name(&self, url: usize) -> String {
        self.urls.get(url).map(ToString::to_string).unwrap_or_default()
    }

    fn not_acms(&self, detail: &str) -> ClientError {
        let url = self.order().next().map(|url| self.name(url)).unwrap_or_default();
        ClientError::NotAcms { url, detail: detail.into() }
    }

    fn json<T: serde::de::DeserializeOwned>(&self, target: &str) -> Result<Option<T>, ClientError> {
        let mut landing = Landing::memory();
        let answer = self.fetch(target, &[], &mut landing, ANSWER_LEN_MAX)?;
        parse_json(answer, landing)
    }

    pub(super) fn json_at<T: serde::de::DeserializeOwned>(
        &self,
        url: usize,
        target: &str,
        deadline: Option<Instant>,
    ) -> Result<Option<T>, ClientError> {
        if url >= self.urls.len() {
            return Err(ClientError::NoUrl);
        }
        let mut landing = Landing::memory();
        let answer = self.fetch_at(url, target, &[], &mut landing, ANSWER_LEN_MAX, deadline)?;
        parse_json(answer, landing)
    }

    /// At the first storage point that gives a usable answer. The error of one that answered is worth more than that
    /// of one that cannot be reached.
    fn fetch(
        &self,
        target: &str,
        headers: &[(&str, &str)],
        landing: &mut Landing<'_>,
        len_max: u64,
    ) -> Result<Answer, ClientError> {
        let mut errors = Vec::new();
        for url in self.order() {
            match self.fetch_at(url, target, headers, landing, len_max, None) {
                Ok(answer) => return Ok(answer),
                Err(error @ (ClientError::Interrupted | ClientError::File { .. })) => return Err(error),
                Err(error @ ClientError::Refused { status: 400..500, .. }) => return Err(error),
                Err(error) => errors.push(error),
            }
        }
        Err(summary(errors))
    }

    fn fetch_at(
        &self,
        url: usize,
        target: &str,
        headers: &[(&str, &str)],
        landing: &mut Landing<'_>,
        len_max: u64,
        deadline: Option<Instant>,
    ) -> Result<Answer, ClientError> {
        let work_time = Duration::ZERO;
        let mut request = Request { method: "GET", target, headers, len_max, fresh: false, deadline, work_time };
        loop {
            landing.reset().map_err(|error| ClientError::File { detail: error.to_string() })?;
            match self.attempt(url, &request, Source::Bytes(&[]), &mut |head, part| landing.write(head, part)) {
                Ok(head) => return self.sort_out(url, head, landing),
                // A connection that was kept may have been closed at the other end just now.
                Err(failure) if failure.stale => request.fresh = true,
                Err(failure) => return Err(failure.error),
            }
        }
    }

    fn sort_out(&self, url: usize, head: Head, landing: &Landing<'_>) -> Result<Answer, ClientError> {
        let url = self.name(url);
        let said: OutcomeAnswer = serde_json::from_slice(&landing.error).unwrap_or_default();
        match (head.status, said.reason) {
            (200, _) => Ok(Answer::Found(head, url)),
            (404, Some(_)) => Ok(Answer::NotFound),
            (status, Some(reason)) => Err(ClientError::Refused { url, status, reason, remedy: said.remedy }),
            (status, None) => Err(ClientError::NotAcms { url, detail: format!("status {status} without a reason") }),
        }
    }
}

/// One error that stands for all of them, none of which is better than another's.
pub(super) fn summary(mut errors: Vec<ClientError>) -> ClientError {
    if let Some(at) = errors.iter().position(|error| !matches!(error, ClientError::Unreachable { .. })) {
        return errors.swap_remove(at);
    }
    let (mut urls, mut details) = (Vec::new(), Vec::new());
    for error in errors {
        if let ClientError::Unreachable { url, detail } = error {
            urls.push(url);
            if !details.contains(&detail) {
                details.push(detail);
            }
        }
    }
    if urls.is_empty() {
        return ClientError::NoUrl;
    }
    ClientError::Unreachable { url: urls.join(", "), detail: details.join("; ") }
}

fn parse_json<T: serde::de::DeserializeOwned>(answer: Answer, landing: Landing<'_>) -> Result<Option<T>, ClientError> {
    let (Answer::Found(_, url), Target::Memory(bytes)) = (answer, landing.target) else { return Ok(None) };
    let parsed = serde_json::from_slice(&bytes);
    parsed.map(Some).map_err(|error| ClientError::NotAcms { url, detail: error.to_string() })
}

fn fetched(head: &Head, size: u64, url: String) -> Result<Fetched, ClientError> {
    let uid = head.header("etag").and_then(|tag| tag.trim_matches('"').parse().ok());
    let Some(uid) = uid else {
        return Err(ClientError::NotAcms { url, detail: "the ETag of its answer is no UID".into() });
    };
    let names = head.header("acms-flags").unwrap_or_default().split(',').map(str::trim);
    let mut flags = Flags::default();
    names.for_each(|name| flags.executable |= name == "executable");
    let content_type = head.header("content-type").unwrap_or_default().to_owned();
    Ok(Fetched { bytes: Bytes::new(), uid, flags, content_type, size, url })
}

/// A file that goes away unless it becomes another one.
struct Temporary {
    file: File,
    name: PathBuf,
    keep: bool,
}

impl Temporary {
    fn beside(destination: &path::Path) -> io::Result<Temporary> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = destination.with_file_name(format!(".acms-get-{}-{number}", std::process::id()));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o666).open(&name)?;
        Ok(Temporary { file, name, keep: false })
    }

    fn become_file(&mut self, destination: &path::Path, executable: bool) -> io::Result<()> {
        if executable {
            // Whoever may read it may run it.
            let mode = self.file.metadata()?.permissions().mode();
            self.file.set_permissions(Permissions::from_mode(mode | (mode & 0o444) >> 2))?;
        }
        self.file.sync_all()?;
        std::fs::rename(&self.name, destination)?;
        self.keep = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.keep {
            // Nothing better can be done about a temporary that cannot be removed.
            let _ = std::fs::remove_file(&self.name);
        }
    }
}
