//! The line-delimited JSON events of storage points and receivers.

use super::{Event, Kind, Recorder, Text};
use acms_engine::protocol::{Hash, Uid};
use serde::Deserialize;
use std::borrow::Cow;

#[derive(Deserialize)]
struct Line<'a> {
    t: u64,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    path: Option<Cow<'a, str>>,
    #[serde(default)]
    uid: Option<Uid>,
    #[serde(default)]
    hash: Option<Hash>,
    #[serde(borrow, default)]
    key: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    cause: Option<Cow<'a, str>>,
    #[serde(default)]
    deleted: bool,
    #[serde(borrow, default)]
    source: Option<Cow<'a, str>>,
    #[serde(default)]
    peer: Option<serde_json::Value>,
    #[serde(borrow, default)]
    incarnation: Option<Cow<'a, str>>,
    #[serde(default)]
    as_of_us: Option<u64>,
    /// Which of the receivers in the process, from 1.
    #[serde(default)]
    receiver: Option<usize>,
}

/// A line that is no event.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadLine {
    /// Not the JSON of an event.
    #[error("not an event: {0}")]
    Json(#[from] serde_json::Error),
    /// An event that this version does not know.
    #[error(transparent)]
    Kind(#[from] super::kind::UnknownKind),
    /// An event of a receiver that the process should not have.
    #[error("of a receiver that is not in this process")]
    Stranger,
}

/// The event that a process, started `incarnation` times before, wrote as `line`. `names` are those of the receivers in it,
/// or its only one.
pub fn parse_line(line: &[u8], names: &[Text], incarnation: u32, recorder: &Recorder) -> Result<Event, BadLine> {
    let line: Line<'_> = serde_json::from_slice(line)?;
    let process = names.get(line.receiver.unwrap_or(1).wrapping_sub(1)).ok_or(BadLine::Stranger)?;
    let kind: Kind = line.kind.parse()?;
    let text = |text: Option<Cow<'_, str>>| text.map(|text| recorder.text(&text));
    let outcome = match kind {
        Kind::Accepted | Kind::Rejected | Kind::Undetermined => Some(kind.name()),
        _ if line.deleted => Some("deleted"),
        _ => None,
    };
    let peer = line.peer.map(|peer| match peer {
        serde_json::Value::String(name) => name,
        other => other.to_string(),
    });
    let as_of = line.as_of_us.map(|as_of_us| Cow::Owned(as_of_us.to_string()));
    let cause = line.cause.or(as_of).or(line.source).or(peer.map(Cow::Owned)).or(line.incarnation);
    Ok(Event {
        time_ns: line.t,
        process: Text::clone(process),
        incarnation,
        kind,
        publication: text(line.key),
        path: text(line.path),
        uid: line.uid,
        hash: line.hash,
        outcome: outcome.map(|outcome| recorder.text(outcome)),
        cause: text(cause),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_storage_points_and_receivers_become_events() {
        let recorder = Recorder::new();
        let hash = Hash::of(b"x");
        let line = format!(
            r#"{{"t":5,"kind":"verified","path":"a/b","uid":"7.1.0","hash":"{hash}","deleted":true,"later":1}}"#
        );
        let event = parse_line(line.as_bytes(), &["receiver1".into()], 2, &recorder).unwrap();
        assert_eq!((event.time_ns, event.incarnation, event.kind), (5, 2, Kind::Verified));
        assert_eq!((event.path.as_deref(), event.hash), (Some("a/b"), Some(hash)));
        assert!(event.is_deletion());

        let line = br#"{"t":6,"kind":"rejected","path":"a","key":"k1","cause":"clock ahead"}"#;
        let event = parse_line(line, &["sp1".into()], 0, &recorder).unwrap();
        assert_eq!((event.outcome.as_deref(), event.publication.as_deref()), (Some("rejected"), Some("k1")));
        let line = br#"{"t":6,"kind":"link_down","peer":3}"#;
        assert_eq!(parse_line(line, &["sp1".into()], 0, &recorder).unwrap().cause.as_deref(), Some("3"));
        let line = br#"{"t":6,"kind":"current","sp":1,"incarnation":"0-1","sequence":3,"as_of_us":17}"#;
        assert_eq!(parse_line(line, &["receiver1".into()], 0, &recorder).unwrap().cause.as_deref(), Some("17"));
        assert!(matches!(parse_line(b"{}", &["sp1".into()], 0, &recorder), Err(BadLine::Json(_))));
        let line = br#"{"t":6,"kind":"ready","receiver":2}"#;
        let names = ["receiver7".into(), "receiver8".into()];
        assert_eq!(&*parse_line(line, &names, 0, &recorder).unwrap().process, "receiver8");
        assert!(matches!(parse_line(line, &names[..1], 0, &recorder), Err(BadLine::Stranger)));
        let line = br#"{"t":6,"kind":"dance"}"#;
        assert!(matches!(parse_line(line, &["sp1".into()], 0, &recorder), Err(BadLine::Kind(_))));
    }
}
