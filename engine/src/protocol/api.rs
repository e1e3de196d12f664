//! The JSON of the HTTP interface (engine/docs/FORMATS.md): what storage points and caches answer and receivers read.

use crate::protocol::{Entry, Flags, Hash, IndexEntry, Outcome, Path, Reason, SpId, Uid};
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt, str::FromStr};

/// Serializes a value as its text.
macro_rules! as_text {
    ($($name:ty),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

as_text!(Uid, Hash, Path, Cursor, Incarnation);

/// One life of an SP's process on one store: no cursor of one incarnation means anything to another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Incarnation {
    /// Number of the store.
    pub store: u32,
    /// How often the process has started on it.
    pub starts: u32,
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.store, self.starts)
    }
}

/// A text is no cursor or incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor of the form <sp>.<store>-<starts>.<sequence>")]
pub struct BadCursor;

impl FromStr for Incarnation {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Incarnation, BadCursor> {
        let (store, starts) = text.split_once('-').ok_or(BadCursor)?;
        let parse = |part: &str| part.parse().map_err(|_| BadCursor);
        let incarnation = Incarnation { store: parse(store)?, starts: parse(starts)? };
        if incarnation.to_string() == text { Ok(incarnation) } else { Err(BadCursor) }
    }
}

/// A place in the sequence of snapshots of one SP: `<sp>.<incarnation>.<sequence>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Cursor {
    /// Whose.
    pub sp: SpId,
    /// Of which life of it.
    pub incarnation: Incarnation,
    /// Changes up to this one are known.
    pub sequence: u64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.sp, self.incarnation, self.sequence)
    }
}

impl FromStr for Cursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Cursor, BadCursor> {
        let mut parts = text.split('.');
        let (sp, incarnation, sequence) = (parts.next(), parts.next(), parts.next());
        let (Some(sp), Some(incarnation), Some(sequence), None) = (sp, incarnation, sequence, parts.next()) else {
            return Err(BadCursor);
        };
        let cursor = Cursor {
            sp: SpId(sp.parse().map_err(|_| BadCursor)?),
            incarnation: incarnation.parse()?,
            sequence: sequence.parse().map_err(|_| BadCursor)?,
        };
        if cursor.to_string() == text && cursor.sp <= SpId::MAX { Ok(cursor) } else { Err(BadCursor) }
    }
}

/// `GET /v1/snapshot`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// The cluster's name.
    pub cluster: String,
    /// Who says so.
    pub sp: u8,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// The last change wholly in `root`.
    pub sequence: u64,
    /// The index.
    pub root: Hash,
    /// Nothing accepted before this is missing here; 0: nothing is promised.
    pub as_of_us: u64,
    /// The SP's wall clock when it said so.
    pub issued_at_us: u64,
}

impl Snapshot {
    /// Where a receiver that has all of `root` goes on.
    pub fn cursor(&self) -> Cursor {
        Cursor { sp: SpId(self.sp), incarnation: self.incarnation, sequence: self.sequence }
    }
}

/// An agreed entry in an answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ListedEntry {
    /// The file's name.
    pub path: Path,
    /// Of its latest agreed publication.
    pub uid: Uid,
    /// Of its content.
    pub hash: Hash,
    /// Bytes of content.
    pub size: u64,
    /// Media type; may be empty.
    #[serde(rename = "type")]
    pub content_type: String,
    /// `executable`, `deleted`.
    #[serde(with = "flag_names")]
    pub flags: Flags,
    /// The content itself, if small.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "inline")]
    pub inline: Option<Vec<u8>>,
}

impl ListedEntry {
    /// The index's entry of `path`, without content.
    pub fn new(path: Path, entry: &IndexEntry) -> ListedEntry {
        let IndexEntry { uid, hash, size, ref content_type, flags } = *entry;
        ListedEntry { path, uid, hash, size, content_type: content_type.clone(), flags, inline: None }
    }

    /// An entry of the publication `uid`, without content.
    pub fn of_publication(uid: Uid, entry: &Entry) -> ListedEntry {
        let Entry { ref path, hash, size, ref content_type, flags } = *entry;
        ListedEntry { path: path.clone(), uid, hash, size, content_type: content_type.clone(), flags, inline: None }
    }
}

/// An entry of `GET /v1/index/<prefix>`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct IndexedEntry {
    /// The entry.
    #[serde(flatten)]
    pub entry: ListedEntry,
    /// A newer live path above or below it is visible instead: no receiver has a file of this path.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hidden: bool,
}

/// A version of a path.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Version {
    /// Its entry.
    #[serde(flatten)]
    pub entry: ListedEntry,
    /// Who published it.
    pub publisher: String,
    /// When, by the storage points' hybrid clock.
    pub accepted_us: u64,
}

/// `GET /v1/history/<path>`: the versions whose contents are kept at the storage point that is asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct History {
    /// The path.
    pub path: Path,
    /// The newest first, tombstones too.
    pub versions: Vec<Version>,
}

/// `GET /v1/changes/<cursor>[/<prefix>]`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Changes {
    /// The snapshot now.
    pub snapshot: Snapshot,
    /// Entries under the prefix that changed since the cursor.
    pub entries: Vec<ListedEntry>,
    /// Ask with this one next; always beyond the cursor of the question.
    pub next: Cursor,
    /// The cursor is unknown, too old or ahead: walk the tree of `snapshot`, then go on with `next`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub full: bool,
}

/// The outcome of a submission; of an error only `reason` and `remedy`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct OutcomeAnswer {
    /// Its name, once it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<Uid>,
    /// `accepted`, `rejected` or `undetermined`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// A newer agreed publication of its path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub superseded_by: Option<Uid>,
    /// Why it was not accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl From<&Outcome> for OutcomeAnswer {
    fn from(outcome: &Outcome) -> OutcomeAnswer {
        let mut answer =
            OutcomeAnswer { uid: outcome.uid(), outcome: Some(outcome.word().to_owned()), ..OutcomeAnswer::default() };
        let mut because = |reason: &Reason| {
            answer.reason = Some(reason.to_string());
            answer.remedy = Some(reason.remedy().to_owned());
        };
        match outcome {
            Outcome::Accepted { .. } => {}
            Outcome::Rejected { reason } => because(reason),
            Outcome::Undetermined { superseded_by, reason, .. } => {
                because(reason);
                answer.superseded_by = *superseded_by;
            }
        }
        answer
    }
}

/// `GET /v1/publications/<uid>`, `GET /v1/publications?key=<key>&publisher=<name>`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PublicationAnswer {
    /// What became of it.
    #[serde(flatten)]
    pub outcome: OutcomeAnswer,
    /// Its entries, while the publication is held here.
    pub entries: Vec<ListedEntry>,
    /// SPs whose bits are known set here.
    pub holders: Vec<u8>,
    /// Whether it is known agreed here.
    pub agreed: bool,
}

/// `GET /v1/uploads?key=<key>&publisher=<name>`: a large content whose upload broke off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UploadAnswer {
    /// Bytes of it that are here: a `PUT` with a `Content-Range` goes on behind them.
    pub received: u64,
}

mod flag_names {
    use super::{Deserialize, Deserializer, Flags, Serializer};

    pub(super) fn serialize<S: Serializer>(flags: &Flags, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(flags.names())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Flags, D::Error> {
        let mut flags = Flags::default();
        for name in Vec::<String>::deserialize(deserializer)? {
            match name.as_str() {
                "executable" => flags.executable = true,
                "deleted" => flags.deleted = true,
                _ => return Err(serde::de::Error::custom(format!("unknown flag {name:?}"))),
            }
        }
        Ok(flags)
    }
}

mod inline {
    use super::{Deserialize, Deserializer, STANDARD, Serializer};
    use base64::Engine as _;

    pub(super) fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes.as_deref().unwrap_or_default()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Some).map_err(serde::de::Error::custom)
    }
}
