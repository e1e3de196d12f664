//! An object as the answer to a request: whole or in part, or the word that the client has it already.

use crate::{
    protocol::Hash,
    runtime::{
        delivery::OBJECT_CONTROL,
        http::{
            answer::Outbox,
            cause::Cause,
            head::{BadHead, Head, Method},
            range::{self, Wanted},
        },
    },
};
use bytes::Bytes;
use std::{fs::File, sync::Arc};

/// The type of contents that have none, and of index nodes.
pub const BINARY: &str = "application/octet-stream";

/// The bytes of an object.
#[derive(Clone, Debug)]
pub enum Body {
    /// In memory.
    Memory(Bytes),
    /// In a file, so many.
    File(Arc<File>, u64),
}

impl Body {
    /// How many bytes.
    pub fn len(&self) -> u64 {
        match self {
            Body::Memory(bytes) => bytes.len() as u64,
            Body::File(_, len) => *len,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends an answer with the bytes from the first to before the second, or with all.
    pub fn write(self, part: Option<(u64, u64)>, out: &mut Outbox<'_>) {
        let (start, end) = part.unwrap_or((0, self.len()));
        match self {
            Body::Memory(bytes) => out.shared_body(bytes.slice(start as usize..end as usize)),
            Body::File(file, _) => out.file_body(file, start, end),
        }
    }
}

/// What a request wants of an object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObjectRead {
    /// The object.
    pub hash: Hash,
    if_none_match: Option<String>,
    /// Unless another object is meant.
    range: Option<String>,
}

impl ObjectRead {
    /// From a request's head.
    pub fn new(hash: Hash, head: &Head<'_>) -> Result<ObjectRead, BadHead> {
        let etag = etag_of(hash);
        if head.list("if-match")?.is_some_and(|tags| !matches_tag_strongly(&tags, &etag)) {
            return Err(BadHead { status: 412, reason: "the object has another tag", cause: Cause::Condition });
        }
        // A range is of GET only.
        let may_cut = head.method == Method::Get && head.single("if-range")?.is_none_or(|tag| tag.trim() == etag);
        Ok(ObjectRead {
            hash,
            if_none_match: head.list("if-none-match")?,
            range: head.single("range")?.filter(|_| may_cut).map(str::to_owned),
        })
    }

    /// Writes the answer.
    pub fn write(&self, body: Body, out: &mut Outbox<'_>) {
        if let Some((start, end)) = self.begin(body.len(), out) {
            body.write(Some((start, end)), out);
        }
    }

    /// Whether the client has it already.
    pub fn is_unchanged(&self) -> bool {
        self.if_none_match.as_deref().is_some_and(|tags| matches_tag(tags, &etag_of(self.hash)))
    }

    /// Begins the answer where the object has `len` bytes: which of them are its body. `None`: it is complete.
    pub fn begin(&self, len: u64, out: &mut Outbox<'_>) -> Option<(u64, u64)> {
        let etag = etag_of(self.hash);
        if self.is_unchanged() {
            out.begin(304).header("ETag", &etag).header("Cache-Control", OBJECT_CONTROL).no_body();
            return None;
        }
        let (status, (start, end)) = match self.range.as_deref().map_or(Wanted::Whole, |text| range::parse(text, len)) {
            Wanted::Unsatisfiable => {
                let reason = "the range lies beyond the object's end";
                out.error(416, reason, "ask for a part of the object", |out| {
                    out.header("Content-Range", format_args!("bytes */{len}"));
                });
                return None;
            }
            Wanted::Part(start, end) => (206, (start, end)),
            Wanted::Whole => (200, (0, len)),
        };
        out.begin(status).header("ETag", &etag).header("Cache-Control", OBJECT_CONTROL);
        out.header("Accept-Ranges", "bytes").header("Content-Type", BINARY);
        if status == 206 {
            out.header("Content-Range", format_args!("bytes {start}-{}/{len}", end - 1));
        }
        Some((start, end))
    }
}

/// The entity tag of an object: its name.
pub fn etag_of(hash: Hash) -> String {
    format!("\"{hash}\"")
}

/// Whether a list of entity tags names `etag`, by strong comparison.
pub fn matches_tag_strongly(tags: &str, etag: &str) -> bool {
    tags.split(',').map(str::trim).any(|tag| tag == "*" || tag == etag)
}

/// Whether a list of entity tags names `etag`, by weak comparison.
pub fn matches_tag(tags: &str, etag: &str) -> bool {
    tags.split(',').map(str::trim).any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

/// Whether the query of an object's name says that something else came under it before: a receiver that got a wrong hash
/// asks so.
pub fn is_doubt(query: &str) -> bool {
    query.split('&').any(|pair| pair.starts_with("again="))
}
