//! GET and HEAD: everything that is read.

use crate::{
    protocol::{
        Duration, Hash, IndexEntry, Instant, Path, Prefix, Uid,
        api::{IndexedEntry, PublicationAnswer, UploadAnswer},
    },
    runtime::{
        delivery::SNAPSHOT_CONTROL,
        exposition,
        http::{
            answer::Outbox,
            connection::ConnectionId,
            head::Head,
            object::{BINARY, Body, ObjectRead, is_doubt, matches_tag, matches_tag_strongly},
            service::{Next, Refusal},
            target::{OPENAPI, Resource},
        },
        storage_point::{content::Job, core::Core, held, metrics, object::Object, publish::Receiving, status},
    },
    store::is_out_of_descriptors,
};
use std::io;

/// How long a read waits for the UID that it asks for.
const AT_LEAST_TIME: Duration = Duration::from_secs(10);
/// Longest wait that `Prefer: wait` gets.
const PREFER_WAIT_MAX: Duration = Duration::from_secs(60);
/// What caches may do with the document of the interface, which changes with the program only.
const OPENAPI_CONTROL: &str = "public, max-age=3600";
const JSON: &str = "application/json";

fn not_found(reason: &str, remedy: &'static str) -> Refusal {
    Refusal::new(404, reason, remedy)
}

fn malformed(reason: &str) -> Refusal {
    Refusal::new(400, reason, "correct the header")
}

/// Answers a GET or HEAD of `resource`, or puts it among those that wait.
pub(super) fn answer(
    core: &mut Core,
    id: ConnectionId,
    resource: Resource,
    head: &Head<'_>,
    out: &mut Outbox<'_>,
) -> Result<(Next<Box<Receiving>>, usize), Refusal> {
    let next = match resource {
        Resource::Changes(cursor, prefix) => held::changes(core, id, cursor, prefix, out),
        Resource::Config(path) => {
            let read = Read::Config(ConfigRead::new(path, head, core.now.instant)?);
            begin(core, id, read, out)
        }
        Resource::Object(hash) => {
            if head.query.is_some_and(is_doubt) {
                core.io.contents.doubt(&hash, core.now.instant);
            }
            begin(core, id, Read::Object(ObjectRead::new(hash, head)?), out)
        }
        other => {
            answer_at_once(core, other, out)?;
            Next::Answered
        }
    };
    Ok((next, 0))
}

/// A read that may have to wait.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Read {
    Object(ObjectRead),
    Config(ConfigRead),
}

/// What a read waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wait {
    /// A change, or this time.
    Until(Instant),
    /// This content is being compared with its hash.
    Compared(Hash),
}

/// Answers a read, or holds it.
fn begin(core: &mut Core, id: ConnectionId, read: Read, out: &mut Outbox<'_>) -> Next<Box<Receiving>> {
    match try_read(core, &read, false, out) {
        None => Next::Answered,
        Some(wait) => {
            hold(core, id, read, wait);
            Next::Hold
        }
    }
}

/// Puts a read among those that wait.
pub(super) fn hold(core: &mut Core, id: ConnectionId, read: Read, wait: Wait) {
    if let Wait::Compared(hash) = wait {
        core.io.content.give(Job::Compare { hash });
    }
    core.holds.hold_read(id, read, wait);
}

/// Answers a read. If that has to wait: for what. `compared`: its content was compared with its hash just now.
pub(super) fn try_read(core: &mut Core, read: &Read, compared: bool, out: &mut Outbox<'_>) -> Option<Wait> {
    match read {
        Read::Object(read) => try_object(core, read, compared, out),
        Read::Config(read) => try_config(core, read, compared, out),
    }
}

fn answer_at_once(core: &mut Core, resource: Resource, out: &mut Outbox<'_>) -> Result<(), Refusal> {
    match resource {
        Resource::Snapshot => {
            let snapshot = core.sp.snapshot(core.now.wall);
            out.begin(200).header("Cache-Control", SNAPSHOT_CONTROL).header("Content-Type", JSON).json(&snapshot);
        }
        Resource::Upload { key, publisher } => {
            let remedy = "publish the whole content";
            let received = core.broken.received(&publisher, &key);
            let received = received.ok_or_else(|| not_found("no content under this key broke off here", remedy))?;
            no_store(out, JSON).json(&UploadAnswer { received });
        }
        Resource::History(path) => {
            let remedy = "`acms ls` or /v1/index lists what there is";
            let history = core.sp.history(&path).ok_or_else(|| not_found("no such path", remedy))?;
            no_store(out, JSON).json(&history);
        }
        Resource::Publication(uid) => return publication(core.sp.publication(uid), out),
        Resource::PublicationByKey { key, publisher } => {
            return publication(core.sp.publication_by_key(&publisher, &key), out);
        }
        Resource::Index { prefix, after, limit } => index(core, &prefix, &after, limit, out),
        Resource::Status => no_store(out, JSON).json(&status::status(core)),
        Resource::Metrics => {
            let text = metrics::metrics(core);
            no_store(out, exposition::CONTENT_TYPE).body(text.as_bytes());
        }
        Resource::OpenApi => {
            out.begin(200).header("Cache-Control", OPENAPI_CONTROL).header("Content-Type", JSON);
            out.body(OPENAPI.as_bytes());
        }
        Resource::Health => no_store(out, "text/plain").body(b"ok\n"),
        Resource::Changes(..) | Resource::Config(_) | Resource::Object(_) => {}
    }
    Ok(())
}

fn no_store<'a, 'b>(out: &'a mut Outbox<'b>, content_type: &str) -> &'a mut Outbox<'b> {
    out.begin(200).header("Cache-Control", "no-store").header("Content-Type", content_type)
}

fn publication(found: Option<PublicationAnswer>, out: &mut Outbox<'_>) -> Result<(), Refusal> {
    let Some(answer) = found else {
        let remedy = "ask another storage point; what none of them knows is undetermined, not rejected";
        return Err(not_found("not known at this storage point", remedy));
    };
    no_store(out, JSON).json(&answer);
    Ok(())
}

#[derive(serde::Serialize)]
struct Listing {
    entries: Vec<IndexedEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

fn index(core: &Core, prefix: &Prefix, after: &str, limit: usize, out: &mut Outbox<'_>) {
    let mut entries = core.sp.list_visibly(prefix, after, limit + 1);
    let has_more = entries.len() > limit;
    entries.truncate(limit);
    let next = entries.last().filter(|_| has_more).map(|last| last.entry.path.to_string());
    no_store(out, JSON).json(&Listing { entries, next });
}

// ---- Objects ------------------------------------------------------------------------------------------------------

/// Why there are none.
enum Lack {
    Missing,
    Uncompared,
    Unreadable(Refusal),
}

fn unreadable(hash: Hash, error: &dyn std::fmt::Display) -> Lack {
    tracing::error!("object {hash} cannot be read: {error}");
    Lack::Unreadable(Refusal::new(500, error.to_string(), "read it at another storage point"))
}

fn damaged(core: &mut Core, hash: Hash, len: u64) -> Lack {
    core.io.files.forget(&hash);
    core.io.damaged.push((hash, Some(len)));
    unreadable(hash, &"it is damaged, and fetched again from another storage point")
}

fn body(core: &mut Core, hash: Hash, object: Object, compared: bool) -> Result<Body, Lack> {
    match object {
        Object::Bytes(bytes) => Ok(Body::Memory(bytes)),
        Object::Large(len) => {
            let path = core.io.contents.path(&hash).ok_or(Lack::Missing)?;
            match core.io.files.open(hash, &path) {
                Ok(file) => Ok(Body::File(file, len)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Err(damaged(core, hash, len)),
                Err(error) if is_out_of_descriptors(&error) => {
                    let remedy = "read again after a while, or at another storage point";
                    Err(Lack::Unreadable(Refusal::new(503, error.to_string(), remedy)))
                }
                Err(error) => Err(unreadable(hash, &error)),
            }
        }
        Object::Uncompared(_) if compared => Err(unreadable(hash, &"the disk does not give it")),
        Object::Uncompared(_) => Err(Lack::Uncompared),
        Object::Missing => Err(Lack::Missing),
        Object::Damaged(len) => Err(damaged(core, hash, len)),
        Object::Unreadable(error) => Err(unreadable(hash, &error)),
    }
}

fn try_object(core: &mut Core, read: &ObjectRead, compared: bool, out: &mut Outbox<'_>) -> Option<Wait> {
    let hash = read.hash;
    if read.is_unchanged() && Object::is_here(&core.sp, &core.io.contents, &hash) {
        core.counters.objects_total += 1;
        read.begin(0, out);
        return None;
    }
    let object = Object::find(&core.sp, &core.io.contents, &hash);
    let refusal = match body(core, hash, object, compared) {
        Ok(body) => {
            core.counters.objects_total += 1;
            read.write(body, out);
            return None;
        }
        Err(Lack::Uncompared) => return Some(Wait::Compared(hash)),
        Err(Lack::Missing) => {
            not_found("no such object here", "begin again at the snapshot, or ask another storage point")
        }
        Err(Lack::Unreadable(refusal)) => refusal,
    };
    out.error(refusal.status, &refusal.reason, refusal.remedy, |_| {});
    None
}

// ---- Config -------------------------------------------------------------------------------------------------------

/// A read of the latest content of a path, which may have to wait.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ConfigRead {
    pub(super) path: Path,
    if_match: Option<String>,
    if_none_match: Option<String>,
    /// Holds an answer of 304 back until then.
    wait_until: Option<Instant>,
    /// This UID must be known agreed, or superseded ...
    pub(super) at_least: Option<Uid>,
    /// ... by then.
    at_least_until: Instant,
}

impl ConfigRead {
    fn new(path: Path, head: &Head<'_>, now: Instant) -> Result<ConfigRead, Refusal> {
        let at_least = match head.single("acms-at-least")? {
            Some(text) => Some(text.parse().map_err(|_| malformed("ACMS-At-Least is no UID"))?),
            None => None,
        };
        let wait = head.list("prefer")?.and_then(|text| prefer_wait(&text));
        Ok(ConfigRead {
            path,
            if_match: head.list("if-match")?,
            if_none_match: head.list("if-none-match")?,
            wait_until: wait.map(|wait| now.after(wait.min(PREFER_WAIT_MAX))),
            at_least,
            at_least_until: now.after(AT_LEAST_TIME),
        })
    }
}

/// The seconds of `wait=N` among preferences; others are passed over, as RFC 7240 wants it.
fn prefer_wait(text: &str) -> Option<Duration> {
    let preferences = text.split([',', ';']).map(str::trim);
    let seconds = preferences
        .filter_map(|preference| preference.split_once('='))
        .find_map(|(name, value)| name.trim().eq_ignore_ascii_case("wait").then(|| value.trim().trim_matches('"')))?;
    // A number that is too great is a long wait as well.
    let is_number = !seconds.is_empty() && seconds.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| Duration::from_secs(seconds.parse().unwrap_or(u64::MAX)))
}

fn try_config(core: &mut Core, read: &ConfigRead, compared: bool, out: &mut Outbox<'_>) -> Option<Wait> {
    let now = core.now.instant;
    if let Some(uid) = read.at_least.filter(|uid| !is_known(core, &read.path, *uid)) {
        if now < read.at_least_until {
            return Some(Wait::Until(read.at_least_until));
        }
        let reason = format!("publication {uid} is not yet known agreed at this storage point");
        out.error(503, &reason, "read again after a while, or at the storage point that accepted it", |_| {});
        return None;
    }
    let Some(entry) = core.sp.lookup(&read.path).filter(|entry| !entry.flags.deleted) else {
        out.error(404, "no such path", "`acms ls` or /v1/index lists what there is", |_| {});
        return None;
    };
    if let Some(other) = core.sp.hidden_by(&read.path, entry.uid) {
        let reason = format!("the file {other}, published later, is in its place");
        out.error(404, &reason, "delete the one that is not wanted", |_| {});
        return None;
    }
    let etag = format!("\"{}\"", entry.uid);
    if read.if_match.as_deref().is_some_and(|tags| !matches_tag_strongly(tags, &etag)) {
        out.error(412, "the path has another version", "read it without If-Match", |out| {
            out.header("ETag", &etag);
        });
        return None;
    }
    if read.if_none_match.as_deref().is_some_and(|tags| matches_tag(tags, &etag)) {
        if read.wait_until.is_some_and(|until| now < until) {
            return read.wait_until.map(Wait::Until);
        }
        out.begin(304).header("ETag", &etag).header("Cache-Control", "no-store").no_body();
        return None;
    }
    let object = Object::content(&core.sp, &core.io.contents, &entry.hash);
    match body(core, entry.hash, object, compared) {
        Ok(body) => {
            core.counters.configs_total += 1;
            write_config_head(&entry, &etag, out);
            body.write(None, out);
        }
        Err(Lack::Uncompared) => return Some(Wait::Compared(entry.hash)),
        Err(Lack::Missing) => {
            out.error(503, "the content is not here yet", "read again after a while", |_| {});
        }
        Err(Lack::Unreadable(refusal)) => out.error(refusal.status, &refusal.reason, refusal.remedy, |_| {}),
    }
    None
}

fn write_config_head(entry: &IndexEntry, etag: &str, out: &mut Outbox<'_>) {
    let content_type = if entry.content_type.is_empty() { BINARY } else { &entry.content_type };
    out.begin(200).header("ETag", etag).header("ACMS-UID", entry.uid).header("Cache-Control", "no-store");
    out.header("Content-Type", content_type);
    let flags: Vec<&str> = entry.flags.names().collect();
    if !flags.is_empty() {
        out.header("ACMS-Flags", flags.join(", "));
    }
}

/// Whether this SP has `uid` agreed with its content, or a newer one.
fn is_known(core: &Core, path: &Path, uid: Uid) -> bool {
    core.sp.lookup(path).is_some_and(|entry| entry.uid >= uid) || core.sp.is_settled(uid)
}
