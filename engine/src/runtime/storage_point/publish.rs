//! PUT and DELETE: what a publication's request says, its content on the way in, and its outcome on the way out.

use crate::{
    protocol::{
        Entry, Flags, Hash, Manifest, Order, Outcome, Path, Reason, StoragePoint, Uid,
        api::OutcomeAnswer,
        durable::{INLINE_LEN_MAX, InlineContent},
        io::Submission,
    },
    runtime::{
        http::{
            answer::Outbox,
            body::{BodyReader, Piece},
            cause::Cause,
            connection::ConnectionId,
            head::{Framing, Head},
            service::{IncomingBody, Next, Progress, Refusal, Refused},
        },
        storage_point::{broken::Broken, completion::UploadId, content::Job, core::Core, environment::Pending},
    },
};
use bytes::Bytes;
use std::sync::Arc;

/// Bytes of one body that may wait for the content thread.
const IN_FLIGHT_MAX: usize = 1 << 20;
/// Bodies above 64 KiB that may come in at once.
const UPLOADS_MAX: usize = 256;
/// Bytes of bodies that may wait for the content thread before more large ones are refused: as many as all that come in
/// at once may have there. Those of bodies that were given up count, or whoever begins one after the other would fill
/// the memory.
const WAITING_MAX: usize = UPLOADS_MAX * IN_FLIGHT_MAX;
/// Bodies of any length that may come in at once, each with up to 64 KiB of memory.
const RECEIVING_MAX: usize = 4096;

/// What the head of a publication's request says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct PublishMeta {
    path: Path,
    publisher: String,
    key: Option<String>,
    known: Option<Uid>,
    order: Option<Order>,
    content_type: String,
    flags: Flags,
    /// The version whose content is published anew.
    again: Option<Uid>,
    /// Only the rest of the content comes, from this byte, of so many.
    goes_on: Option<(u64, u64)>,
}

/// A publication whose content is coming in.
#[derive(Debug)]
pub(super) struct Receiving {
    meta: PublishMeta,
    reader: BodyReader,
    /// The content, until it is too long to be kept here.
    memory: Vec<u8>,
    /// Where it goes from then on.
    pub(super) upload: Option<UploadId>,
    received: u64,
    /// Bytes that the content thread has not taken in yet.
    pub(super) in_flight: usize,
    /// Counted as long as it lives.
    _counted: Arc<()>,
}

impl IncomingBody for Box<Receiving> {
    fn is_paused(&self) -> bool {
        self.in_flight >= IN_FLIGHT_MAX
    }

    fn waits_for_client(&self) -> bool {
        self.in_flight == 0
    }
}

fn refusal(status: u16, reason: impl Into<String>, remedy: &'static str) -> Refusal {
    Refusal::new(status, reason, remedy)
}

/// Writes the answer to a publication's request that is refused: nothing of it will ever be agreed.
pub(super) fn write_refused(refused: &Refused, out: &mut Outbox<'_>) {
    let Refused { refusal, allow } = refused;
    let body = OutcomeAnswer {
        outcome: Some("rejected".to_owned()),
        reason: Some(refusal.reason.clone()),
        remedy: Some(refusal.remedy.to_owned()),
        ..OutcomeAnswer::default()
    };
    out.begin(refusal.status).header("Cache-Control", "no-store").header("Content-Type", "application/json");
    out.header("ACMS-Outcome", "rejected");
    if let Some(allow) = allow {
        out.header("Allow", allow);
    }
    if refusal.status == 401 {
        out.header("WWW-Authenticate", "Bearer realm=\"acms\"");
    }
    out.json(&body);
}

impl PublishMeta {
    /// What comes of it where the store has refused the content.
    pub(super) fn outcome_of_refused(&self, sp: &StoragePoint, detail: String) -> Outcome {
        sp.outcome_of_refused(&self.publisher, self.key.as_deref(), detail)
    }

    /// From the head of a PUT or DELETE of `path` by `publisher`.
    pub(super) fn new(path: Path, publisher: String, head: &Head<'_>, is_delete: bool) -> Result<PublishMeta, Refusal> {
        const CONDITIONS: [&str; 3] = ["if-match", "if-none-match", "if-unmodified-since"];
        if CONDITIONS.iter().any(|name| head.has(name)) {
            let reason = "conditional publication is not offered: it needs consensus, not quorums";
            return Err(refusal(501, reason, "publish without a condition").because(Cause::Condition));
        }
        let goes_on = head.single("content-range")?.map(parse_rest).transpose()?;
        if goes_on.is_some() && (is_delete || !head.has("idempotency-key")) {
            return Err(bad_header("Content-Range goes on with a content that came under an Idempotency-Key"));
        }
        if head.single("content-encoding")?.is_some_and(|coding| !coding.eq_ignore_ascii_case("identity")) {
            return Err(refusal(415, "encoded contents are not taken", "publish the content as it is to be served"));
        }
        let key = head.single("idempotency-key")?.map(str::to_owned);
        for (header, name) in [("ACMS-Publisher", Some(&publisher)), ("Idempotency-Key", key.as_ref())] {
            if name.is_some_and(|name| !is_name(name)) {
                let reason = format!("{header} must have 1 to {} visible characters", Manifest::NAME_LEN_MAX);
                return Err(refusal(400, reason, "correct the header"));
            }
        }
        let known = match head.single("acms-known-uid")? {
            Some(text) => Some(text.parse().map_err(|_| bad_header("ACMS-Known-UID is no UID"))?),
            None => None,
        };
        let again = match head.single("acms-content-of")? {
            Some(_) if is_delete => return Err(bad_header("a deletion has no ACMS-Content-Of")),
            Some(text) => Some(text.parse().map_err(|_| bad_header("ACMS-Content-Of is no UID"))?),
            None => None,
        };
        let order = match head.single("acms-order")? {
            None => None,
            Some("strict") => Some(Order::Strict),
            Some("fast") => Some(Order::Fast),
            Some(_) => return Err(bad_header("ACMS-Order is neither strict nor fast")),
        };
        let mut flags = Flags { deleted: is_delete, ..Flags::default() };
        for flag in head.single("acms-flags")?.unwrap_or_default().split(',').map(str::trim) {
            match flag {
                "" => {}
                "executable" if !is_delete => flags.executable = true,
                _ => return Err(bad_header("ACMS-Flags has a flag that this request cannot have")),
            }
        }
        let content_type = head.single("content-type")?.unwrap_or_default();
        if content_type.len() > Entry::CONTENT_TYPE_LEN_MAX || !content_type.bytes().all(|b| (b' '..=b'~').contains(&b))
        {
            return Err(bad_header("Content-Type is too long, or no plain text"));
        }
        Ok(PublishMeta {
            path,
            publisher,
            key,
            known,
            order,
            content_type: if is_delete { String::new() } else { content_type.to_owned() },
            flags,
            again,
            goes_on,
        })
    }
}

/// The first byte and the length of the whole, of the `Content-Range` of all the rest of a content.
fn parse_rest(text: &str) -> Result<(u64, u64), Refusal> {
    let parsed = text.strip_prefix("bytes ").and_then(|range| {
        let (range, whole) = range.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let (first, last, whole) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?, whole.parse::<u64>().ok()?);
        (first <= last && last.checked_add(1) == Some(whole)).then_some((first, whole))
    });
    parsed.ok_or_else(|| bad_header("Content-Range must be that of all the rest of a content"))
}

fn is_name(text: &str) -> bool {
    (1..=Manifest::NAME_LEN_MAX).contains(&text.len()) && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

fn bad_header(reason: &str) -> Refusal {
    refusal(400, reason, "correct the header")
}

/// A refusal of a body that is too long.
fn too_large(max: u64) -> Refusal {
    refusal(
        413,
        format!("the content is longer than the {max} bytes that this storage point takes"),
        "raise limits.content, or publish less",
    )
}

fn overloaded(waiting: usize) -> Refusal {
    let reason = Reason::Overloaded { waiting };
    refusal(503, reason.to_string(), reason.remedy())
}

/// Whether another large body, or the rest of one, may come in while so many bytes wait to be written.
fn check_waiting(waiting: usize) -> Result<(), Refusal> {
    if waiting < WAITING_MAX {
        return Ok(());
    }
    let reason = format!("overloaded: {waiting} bytes of contents are waiting to be written at this storage point");
    Err(refusal(503, reason, Reason::Overloaded { waiting }.remedy()))
}

/// Publishes the content of an earlier version of the path anew, which the head names: nothing has to come in.
fn begin_again(core: &mut Core, id: ConnectionId, meta: PublishMeta, uid: Uid) -> Result<(), Refusal> {
    let remedy = "see /v1/history or `acms history` for what is kept here, or ask another storage point";
    let version = core.sp.version(&meta.path, uid);
    let Entry { hash, size, content_type, flags, .. } =
        version.ok_or_else(|| refusal(404, format!("version {uid} of the path is not kept here"), remedy))?;
    if size > 0 && !core.sp.has_content(&hash) {
        return Err(refusal(503, "the content is damaged here, and fetched again", "publish again in a while"));
    }
    submit(core, id, PublishMeta { content_type, flags, ..meta }, hash, size, Vec::new());
    Ok(())
}

/// Begins a PUT whose head is good, with what has come of its body.
pub(super) fn begin_put(
    core: &mut Core,
    id: ConnectionId,
    meta: PublishMeta,
    head: &Head<'_>,
    rest: &[u8],
    out: &mut Outbox<'_>,
) -> Result<(Next<Box<Receiving>>, usize), Refusal> {
    let max = core.config.limits.content_len_max;
    if let Some(uid) = meta.again {
        return match head.framing {
            Framing::None | Framing::Length(0) => begin_again(core, id, meta, uid).map(|()| (Next::Work, 0)),
            _ => Err(bad_header("ACMS-Content-Of comes without a content")),
        };
    }
    match head.framing {
        Framing::None => {
            return Err(refusal(
                411,
                "a publication needs Content-Length or chunked coding",
                "say how long the content is",
            ));
        }
        Framing::Length(len) if len > max => return Err(too_large(max)),
        Framing::Length(len) if len <= INLINE_LEN_MAX && rest.len() as u64 >= len && meta.goes_on.is_none() => {
            let len = len as usize;
            submit_small(core, id, meta, Bytes::copy_from_slice(&rest[..len]));
            return Ok((Next::Work, len));
        }
        Framing::Length(_) | Framing::Chunked => {}
    }
    let receiving = Arc::strong_count(&core.receiving) - 1;
    if receiving >= RECEIVING_MAX {
        return Err(overloaded(receiving));
    }
    // Last, for it takes the body from where it waits for its publisher: a refusal after that would lose it.
    let (upload, received) = match meta.goes_on {
        Some((first, whole)) => {
            check_waiting(core.io.content.waiting())?;
            (Some(find_begun(core, id, &meta, head.framing, (first, whole))?), first)
        }
        None => (None, 0),
    };
    if head.expects_continue && rest.is_empty() {
        out.bytes.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
    }
    let reader = BodyReader::new(head.framing);
    let receiving = Receiving {
        meta,
        reader,
        memory: Vec::new(),
        upload,
        received,
        in_flight: 0,
        _counted: core.receiving.clone(),
    };
    Ok((Next::Receive(Box::new(receiving)), 0))
}

/// The body that broke off and of which the rest comes now.
fn find_begun(
    core: &mut Core,
    id: ConnectionId,
    meta: &PublishMeta,
    framing: Framing,
    (first, whole): (u64, u64),
) -> Result<UploadId, Refusal> {
    let max = core.config.limits.content_len_max;
    if whole > max {
        return Err(too_large(max));
    }
    if framing != Framing::Length(whole - first) {
        return Err(bad_header("Content-Range and Content-Length do not fit together"));
    }
    let key = meta.key.as_deref().unwrap_or_default();
    let upload = core.broken.take(&meta.publisher, key, first);
    let upload = upload.ok_or_else(|| refusal(416, "what comes before is not here", "publish the whole content"))?;
    if let Some(known) = core.uploads.get_mut(&upload) {
        known.from = id;
    }
    Ok(upload)
}

/// The rest of a body does not come, or not now: what is here of a large one waits a while for its publisher.
pub(super) fn break_off(core: &mut Core, receiving: Receiving) {
    let Receiving { meta, upload: Some(upload), received, .. } = receiving else { return };
    let PublishMeta { publisher, key: Some(key), .. } = meta else { return core.abort_upload(upload) };
    let broken = Broken { at: core.now.instant, publisher, key, upload, received };
    core.broken.keep(broken).into_iter().for_each(|given_up| core.abort_upload(given_up));
}

/// Takes more of a body: how much of `input` was taken.
pub(super) fn receive(
    core: &mut Core,
    id: ConnectionId,
    receiving: &mut Box<Receiving>,
    input: &[u8],
) -> Result<(usize, Progress), Refusal> {
    let mut at = 0;
    loop {
        if receiving.is_paused() {
            return Ok((at, Progress::Paused));
        }
        let next = receiving.reader.next(&input[at..]);
        let (taken, piece) =
            next.map_err(|error| refusal(400, error.to_string(), "correct the request").because(Cause::Chunk))?;
        at += taken;
        match piece {
            Piece::NeedMore => return Ok((at, Progress::NeedMore)),
            Piece::End => return Ok((at, Progress::Complete)),
            Piece::Data(data) => take_data(core, id, receiving, data)?,
        }
    }
}

fn take_data(core: &mut Core, id: ConnectionId, receiving: &mut Receiving, data: &[u8]) -> Result<(), Refusal> {
    let (received, max) = (receiving.received + data.len() as u64, core.config.limits.content_len_max);
    if received > max {
        return Err(too_large(max));
    }
    receiving.received = received;
    if receiving.upload.is_none() && receiving.received <= INLINE_LEN_MAX {
        receiving.memory.extend_from_slice(data);
        return Ok(());
    }
    let upload = match receiving.upload {
        Some(upload) => upload,
        None if core.uploads.len() >= UPLOADS_MAX => return Err(overloaded(core.uploads.len())),
        None => {
            check_waiting(core.io.content.waiting())?;
            let upload = core.begin_upload(id);
            receiving.upload = Some(upload);
            let begun = std::mem::take(&mut receiving.memory);
            receiving.in_flight += begun.len();
            core.io.content.give(Job::UploadWrite { upload, bytes: begun.into() });
            upload
        }
    };
    receiving.in_flight += data.len();
    core.io.content.give(Job::UploadWrite { upload, bytes: Bytes::copy_from_slice(data) });
    Ok(())
}

/// A body is complete: submits it, or has its last bytes made durable first.
pub(super) fn complete(core: &mut Core, id: ConnectionId, receiving: Receiving) {
    match receiving.upload {
        Some(upload) => {
            if let Some(known) = core.uploads.get_mut(&upload) {
                known.complete = Some(receiving.meta);
            }
            core.io.content.give(Job::UploadFinish { upload });
        }
        None => submit_small(core, id, receiving.meta, receiving.memory.into()),
    }
}

fn submit_small(core: &mut Core, id: ConnectionId, meta: PublishMeta, bytes: Bytes) {
    let (hash, size) = (Hash::of(&bytes), bytes.len() as u64);
    submit(core, id, meta, hash, size, vec![InlineContent { hash, bytes }]);
}

/// Submits the deletion of a path.
pub(super) fn submit_delete(core: &mut Core, id: ConnectionId, meta: PublishMeta) {
    submit_small(core, id, meta, Bytes::new());
}

/// Submits a publication whose content is durable, or comes along.
pub(super) fn submit(
    core: &mut Core,
    id: ConnectionId,
    meta: PublishMeta,
    hash: Hash,
    size: u64,
    contents: Vec<InlineContent>,
) {
    let PublishMeta { path, publisher, key, known, order, content_type, flags, .. } = meta;
    let since = core.now.instant;
    let pending = Pending { since, connection: id, path: path.clone(), hash, key: key.clone() };
    let entries = vec![Entry { path, hash, size, content_type, flags }];
    let submission = Submission { publisher, key, known, order, entries, contents };
    let ticket = core.sp.submit(core.now, submission);
    core.io.tickets.insert(ticket, pending);
}

/// Writes the answer to a publication.
pub(super) fn write_outcome(out: &mut Outbox<'_>, outcome: &Outcome) {
    let status = match outcome {
        Outcome::Accepted { .. } => 201,
        Outcome::Undetermined { .. } => 202,
        Outcome::Rejected { reason: Reason::KeyConflict { .. } | Reason::PathClash { .. } } => 409,
        Outcome::Rejected { .. } => 503,
    };
    out.begin(status).header("Cache-Control", "no-store").header("Content-Type", "application/json");
    out.header("ACMS-Outcome", outcome.word());
    if let Some(uid) = outcome.uid() {
        out.header("ACMS-UID", uid);
    }
    match outcome {
        Outcome::Accepted { uid } => {
            out.header("ETag", format_args!("\"{uid}\""));
            out.body(format!("{{\"uid\":\"{uid}\",\"outcome\":\"accepted\"}}\n").as_bytes());
        }
        _ => out.json(&OutcomeAnswer::from(outcome)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_bodies_are_refused_while_too_much_waits_to_be_written() {
        assert_eq!(check_waiting(WAITING_MAX - 1), Ok(()));
        let refused = check_waiting(WAITING_MAX).unwrap_err();
        assert_eq!((refused.status, refused.cause), (503, Cause::Overloaded));
    }
}
