//! Publishing: one submission, however many attempts it takes, and one honest outcome.

use super::{
    ANSWER_LEN_MAX, Client, ClientError, Head, Request, Source, check_name, connection::now, percent_encoded,
    read::summary,
};
use crate::protocol::{
    Flags, Hash, Order, Path, Uid,
    api::{History, ListedEntry, OutcomeAnswer, PublicationAnswer, UploadAnswer},
};
use bytes::Bytes;
use std::{
    cell::OnceCell,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// What became of a submission is asked for this long at least, however late it is.
const LAST_LOOK_TIME: Duration = Duration::from_secs(1);
/// Of contents from this length on the rest is sent after an attempt that broke off.
const RESUMED_LEN_MIN: u64 = 1 << 20;
/// Storage points take a content from each other at this rate at least.
const WORK_BYTES_PER_S: u64 = 8 << 20;

/// What is published.
#[derive(Clone, Debug)]
pub enum Body {
    /// These bytes.
    Bytes(Bytes),
    /// The content of this file, read as it is sent.
    File(PathBuf),
}

/// How something is published.
#[derive(Clone, Debug, Default)]
pub struct PublishOptions {
    /// Idempotency key; random if not given.
    pub key: Option<String>,
    /// The greatest UID that the publisher knows: the publication's will be greater.
    pub known: Option<Uid>,
    /// Overrides the cluster's order mode.
    pub order: Option<Order>,
    /// Receivers set the executable mode.
    pub executable: bool,
    /// Media type.
    pub content_type: Option<String>,
    /// The version whose content it is, which does not travel: [`Client::publish_again`] sets it.
    pub content_of: Option<Uid>,
}

/// What became of a submission.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// A quorum holds it durably.
    Accepted,
    /// It will never be agreed.
    Rejected,
    /// It may be agreed, or become so.
    Undetermined,
}

/// What became of a submission, and what is known about it.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct PublishResult {
    /// The verdict.
    pub outcome: Verdict,
    /// The publication's name, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<Uid>,
    /// A newer agreed publication of the path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub superseded_by: Option<Uid>,
    /// Why it was not accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// Which storage point said so, if one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The idempotency key that was used.
    pub key: String,
    /// How many attempts may have reached a storage point.
    pub attempts: u32,
}

/// What one attempt came to.
enum Attempt {
    /// A storage point has said what became of it.
    Answer(PublishResult),
    /// It cannot have reached a storage point whole.
    NotSent(ClientError),
    /// It may have.
    Unsure(String),
    /// It may have, and another one at the same address would be in vain.
    Foreign(String),
    /// The caller wants to stop; it may have.
    Stopped { sent: bool },
}

/// The agreed publication that a submission's key names.
enum Named {
    /// It is the submission.
    This(PublishResult),
    /// It has another path, other flags or another content.
    Another(Uid),
}

impl Client {
    /// Publishes `body` under `path`.
    pub fn publish(&self, path: &Path, body: &Body, options: &PublishOptions) -> Result<PublishResult, ClientError> {
        self.submit("PUT", path, Some(body), options)
    }

    /// Publishes the content that version `uid` of `path` has, with its type and flags. No content travels; the storage
    /// point must have kept the version ([`Client::history`]).
    pub fn publish_again(&self, path: &Path, uid: Uid, options: &PublishOptions) -> Result<PublishResult, ClientError> {
        let options = PublishOptions { content_of: Some(uid), ..options.clone() };
        self.submit("PUT", path, Some(&Body::Bytes(Bytes::new())), &options)
    }

    /// Deletes `path`: publishes a tombstone.
    pub fn delete(&self, path: &Path, options: &PublishOptions) -> Result<PublishResult, ClientError> {
        self.submit("DELETE", path, None, options)
    }

    fn submit(
        &self,
        method: &str,
        path: &Path,
        body: Option<&Body>,
        options: &PublishOptions,
    ) -> Result<PublishResult, ClientError> {
        let submission = Submission::new(self, method, path, body, options)?;
        let give_up = now() + self.options.retry_timeout + submission.work_time();
        let mut pause = PAUSE_MIN;
        let mut useless = vec![false; self.urls.len()];
        let mut attempts = 0;
        // Why the first attempt that may have reached a storage point is undetermined, and what came of later ones.
        let (mut unsure, mut later): (Option<String>, Option<String>) = (None, None);
        let mut another = None;
        loop {
            let mut not_sent = Vec::new();
            for url in self.order().filter(|url| !useless[*url]).collect::<Vec<_>>() {
                match self.submit_at(url, &submission, unsure.as_ref().map(|_| give_up)) {
                    Attempt::Answer(answer) if unsure.is_some() && answer.outcome == Verdict::Rejected => {
                        // That says nothing about the attempt before.
                        attempts += 1;
                        let reason = answer.reason.unwrap_or_default();
                        later = Some(format!("; a later attempt was rejected: {reason}"));
                    }
                    Attempt::Answer(answer) => return Ok(PublishResult { attempts: attempts + 1, ..answer }),
                    Attempt::NotSent(error @ ClientError::File { .. }) if unsure.is_none() => return Err(error),
                    Attempt::NotSent(error) => not_sent.push(error),
                    Attempt::Stopped { sent: false } if unsure.is_none() => return Err(ClientError::Interrupted),
                    Attempt::Stopped { .. } => {
                        return Ok(submission.undetermined("interrupted before the answer came".into(), attempts + 1));
                    }
                    Attempt::Unsure(why) => {
                        attempts += 1;
                        unsure.get_or_insert(why);
                    }
                    Attempt::Foreign(why) => {
                        (attempts, useless[url]) = (attempts + 1, true);
                        unsure.get_or_insert(why);
                    }
                }
                if unsure.is_some() && now() >= give_up {
                    break;
                }
            }
            let Some(why) = &unsure else { return Err(summary(not_sent)) };
            match self.find_by_key(&submission, give_up) {
                Some(Named::This(found)) => return Ok(PublishResult { attempts, ..found }),
                Some(Named::Another(uid)) => another = Some(uid),
                None => {}
            }
            if now() + pause >= give_up || useless.iter().all(|useless| *useless) || !self.rest(pause) {
                let reason = format!("{why}{}", later.unwrap_or_default());
                return Ok(submission.undetermined_beside(another, reason, attempts));
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Waits; false if the caller wants to stop.
    fn rest(&self, pause: Duration) -> bool {
        let until = now() + pause;
        while now() < until && !self.stop.asked() {
            std::thread::sleep(PAUSE_MIN.min(until.saturating_duration_since(now())));
        }
        !self.stop.asked()
    }

    fn submit_at(&self, url: usize, submission: &Submission<'_>, deadline: Option<Instant>) -> Attempt {
        let begun = deadline.map_or(0, |deadline| self.begun_at(url, submission, deadline));
        let mut file;
        let source = match submission.body {
            None => Source::Bytes(&[]),
            Some(Body::Bytes(bytes)) => Source::Bytes(&bytes[begun as usize..]),
            Some(Body::File(name)) => match open_at(name, begun) {
                Ok(opened) => {
                    file = opened;
                    Source::Reader(&mut file as &mut dyn Read, submission.len - begun)
                }
                Err(error) => return Attempt::NotSent(file_error(name, &error)),
            },
        };
        let mut headers: Vec<(&str, &str)> =
            submission.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let rest = [
            ("Content-Length", (submission.len - begun).to_string()),
            ("Content-Range", format!("bytes {begun}-{}/{}", submission.len.saturating_sub(1), submission.len)),
        ];
        match submission.body {
            Some(_) if begun > 0 => headers.extend(rest.iter().map(|(name, value)| (*name, value.as_str()))),
            Some(_) => headers.push((rest[0].0, &rest[0].1)),
            None => {}
        }
        let request = Request {
            method: submission.method,
            target: &submission.target,
            headers: &headers,
            len_max: ANSWER_LEN_MAX,
            fresh: deadline.is_some(),
            deadline,
            work_time: submission.work_time(),
        };
        let mut said = Vec::new();
        let mut sink = |_: &Head, part: &[u8]| {
            said.extend_from_slice(part);
            Ok(())
        };
        match self.attempt(url, &request, source, &mut sink) {
            Ok(head) => submission.understand(&head, &said, self.urls[url].to_string()),
            Err(failure) => match failure.error {
                ClientError::Interrupted => Attempt::Stopped { sent: failure.sent },
                // The body was not sent whole, so no storage point takes it for a publication.
                error @ ClientError::File { .. } => Attempt::NotSent(error),
                error if failure.sent => Attempt::Unsure(format!("{}: {error}", self.urls[url])),
                error => Attempt::NotSent(error),
            },
        }
    }

    /// How much this storage point has of the content, from an attempt that broke off. None where the file is not as it was.
    fn begun_at(&self, url: usize, submission: &Submission<'_>, deadline: Instant) -> u64 {
        if submission.len < RESUMED_LEN_MIN || submission.modified() != submission.modified {
            return 0;
        }
        let publisher = percent_encoded(&self.options.publisher);
        let target = format!("/v1/uploads?key={}&publisher={publisher}", percent_encoded(&submission.key));
        let answer = self.json_at(url, &target, Some(deadline)).ok().flatten();
        let begun = answer.map_or(0, |UploadAnswer { received }| received);
        if begun < submission.len { begun } else { 0 }
    }

    /// Asks all storage points that can be reached what became of the key.
    fn find_by_key(&self, submission: &Submission<'_>, give_up: Instant) -> Option<Named> {
        let target = self.key_target(&submission.key);
        let until = give_up.max(now() + LAST_LOOK_TIME);
        let mut another = None;
        for (asked, url) in self.order().enumerate() {
            // One that says nothing leaves the others their share of the time.
            let left = (self.urls.len() - asked) as u32;
            let deadline = now() + until.saturating_duration_since(now()) / left;
            let known: Option<PublicationAnswer> = self.json_at(url, &target, Some(deadline)).ok().flatten();
            let Some(PublicationAnswer { outcome, entries, agreed: true, .. }) = known else { continue };
            let Some(uid) = outcome.uid else { continue };
            match self.is_submission(url, submission, &entries, deadline) {
                Some(true) => {
                    let answer = OutcomeAnswer { uid: Some(uid), ..OutcomeAnswer::default() };
                    let accepted = submission.result(Verdict::Accepted, answer);
                    let url = Some(self.urls[url].to_string());
                    return Some(Named::This(PublishResult { url, ..accepted }));
                }
                Some(false) => another = Some(Named::Another(uid)),
                None => {}
            }
        }
        another
    }

    /// Whether a publication with these entries is the submission, as storage points compare the two; none if that
    /// cannot be told.
    fn is_submission(
        &self,
        url: usize,
        submission: &Submission<'_>,
        entries: &[ListedEntry],
        deadline: Instant,
    ) -> Option<bool> {
        let [entry] = entries else { return (!entries.is_empty()).then_some(false) };
        if entry.path != *submission.path {
            return Some(false);
        }
        if let Some(uid) = submission.content_of {
            let version = self.version_at(url, submission.path, uid, deadline)?;
            return Some((entry.flags, entry.hash) == (version.flags, version.hash));
        }
        if (entry.flags, entry.size) != (submission.flags, submission.len) {
            return Some(false);
        }
        Some(entry.hash == submission.hash()?)
    }

    /// The version `uid` of a path, if this storage point keeps it.
    fn version_at(&self, url: usize, path: &Path, uid: Uid, deadline: Instant) -> Option<ListedEntry> {
        let history: History = self.json_at(url, &format!("/v1/history/{path}"), Some(deadline)).ok().flatten()?;
        history.versions.into_iter().map(|version| version.entry).find(|entry| entry.uid == uid)
    }
}

/// A submission as it is sent, however often.
struct Submission<'a> {
    method: &'a str,
    path: &'a Path,
    target: String,
    headers: Vec<(&'static str, String)>,
    key: String,
    flags: Flags,
    body: Option<&'a Body>,
    /// The version whose content it is, in place of a body.
    content_of: Option<Uid>,
    len: u64,
    /// When the file was changed last.
    modified: Option<SystemTime>,
    /// Of the content, once somebody has asked.
    hash: OnceCell<Option<Hash>>,
}

impl<'a> Submission<'a> {
    fn new(
        client: &Client,
        method: &'a str,
        path: &'a Path,
        body: Option<&'a Body>,
        options: &PublishOptions,
    ) -> Result<Submission<'a>, ClientError> {
        let key = match &options.key {
            Some(key) => key.clone(),
            None => random_key()?,
        };
        check_name("the idempotency key", &key)?;
        let len = match body {
            None => 0,
            Some(Body::Bytes(bytes)) => bytes.len() as u64,
            Some(Body::File(name)) => std::fs::metadata(name).map_err(|error| file_error(name, &error))?.len(),
        };
        let mut headers = vec![("Idempotency-Key", key.clone()), ("ACMS-Publisher", client.options.publisher.clone())];
        if let Some(known) = options.known {
            headers.push(("ACMS-Known-UID", known.to_string()));
        }
        if let Some(order) = options.order {
            let word = if order == Order::Fast { "fast" } else { "strict" };
            headers.push(("ACMS-Order", word.into()));
        }
        if let Some(uid) = options.content_of {
            headers.push(("ACMS-Content-Of", uid.to_string()));
        }
        if options.executable {
            headers.push(("ACMS-Flags", "executable".into()));
        }
        if let Some(content_type) = options.content_type.as_deref().filter(|text| !text.is_empty()) {
            check_name("the media type", content_type)?;
            headers.push(("Content-Type", content_type.to_owned()));
        }
        let submission = Submission {
            method,
            path,
            target: format!("/v1/config/{path}"),
            headers,
            key,
            flags: Flags { executable: options.executable, deleted: body.is_none() },
            body,
            content_of: options.content_of,
            len,
            modified: None,
            hash: OnceCell::new(),
        };
        Ok(Submission { modified: submission.modified(), ..submission })
    }

    /// The hash of the content; none where the file is not as it was.
    fn hash(&self) -> Option<Hash> {
        *self.hash.get_or_init(|| match self.body {
            None => Some(Hash::of(&[])),
            Some(Body::Bytes(bytes)) => Some(Hash::of(bytes)),
            Some(Body::File(name)) => {
                let mut hasher = blake3::Hasher::new();
                hasher.update_reader(File::open(name).ok()?).ok()?;
                (self.modified() == self.modified).then(|| Hash(*hasher.finalize().as_bytes()))
            }
        })
    }

    fn modified(&self) -> Option<SystemTime> {
        match self.body {
            Some(Body::File(name)) => std::fs::metadata(name).and_then(|metadata| metadata.modified()).ok(),
            _ => None,
        }
    }

    /// What a content of this length may take, once it is sent.
    fn work_time(&self) -> Duration {
        Duration::from_secs(self.len / WORK_BYTES_PER_S)
    }

    /// What an answer means. Without its outcome header it came from something that is no storage point.
    fn understand(&self, head: &Head, said: &[u8], url: String) -> Attempt {
        let answer: OutcomeAnswer = serde_json::from_slice(said).unwrap_or_default();
        let verdict = match head.header("acms-outcome") {
            Some("accepted") if answer.uid.is_some() => Verdict::Accepted,
            Some("rejected") => Verdict::Rejected,
            Some("undetermined") => Verdict::Undetermined,
            _ => {
                let status = head.status;
                return Attempt::Foreign(format!(
                    "{url} answered {status} without an outcome, so it is no storage point"
                ));
            }
        };
        Attempt::Answer(PublishResult { url: Some(url), ..self.result(verdict, answer) })
    }

    fn result(&self, outcome: Verdict, answer: OutcomeAnswer) -> PublishResult {
        let OutcomeAnswer { uid, superseded_by, reason, remedy, .. } = answer;
        PublishResult { outcome, uid, superseded_by, reason, remedy, url: None, key: self.key.clone(), attempts: 0 }
    }

    fn undetermined(&self, reason: String, attempts: u32) -> PublishResult {
        let remedy = format!("ask for the outcome of key {}, or publish the same again with this key", self.key);
        let answer = OutcomeAnswer { reason: Some(reason), remedy: Some(remedy), ..OutcomeAnswer::default() };
        PublishResult { attempts, ..self.result(Verdict::Undetermined, answer) }
    }

    /// The same. Where the key names another agreed publication, to ask for the outcome of the key is of no use.
    fn undetermined_beside(&self, another: Option<Uid>, reason: String, attempts: u32) -> PublishResult {
        let undetermined = self.undetermined(reason, attempts);
        let Some(uid) = another else { return undetermined };
        let remedy = format!(
            "look whether {} is as it should be; if not, publish it under a new key, for key {} names another \
             publication, {uid}",
            self.path, self.key
        );
        PublishResult { remedy: Some(remedy), ..undetermined }
    }
}

fn open_at(name: &std::path::Path, offset: u64) -> io::Result<File> {
    let mut file = File::open(name)?;
    file.seek(SeekFrom::Start(offset))?;
    Ok(file)
}

fn file_error(name: &std::path::Path, error: &io::Error) -> ClientError {
    ClientError::File { detail: format!("{}: {error}", name.display()) }
}

/// 128 random bits.
fn random_key() -> Result<String, ClientError> {
    let mut bytes = [0; 16];
    let source = "/dev/urandom";
    let read = File::open(source).and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|error| file_error(source.as_ref(), &error))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
