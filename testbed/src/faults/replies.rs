//! What faults of caches do to replies.

use super::FaultKind;
use crate::workload::Random;
use bytes::Bytes;
use std::{ops::Range, time::Duration};

/// Snapshots that a cache remembers for a rollback, and the time between them.
pub(crate) const PAST_COUNT: usize = 32;
pub(crate) const PAST_GAP_NS: u64 = 2_000_000_000;

/// A way to misbehave, while a fault lasts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Misbehaviour {
    /// How: one of the faults of caches.
    pub(crate) kind: FaultKind,
    /// Answers that it concerns, of a million.
    pub(crate) part_ppm: u32,
    /// The fault's number.
    pub(crate) fault: usize,
}

/// Whether a reply is one of those that a fault hits; the fault's number.
pub(crate) fn misbehaves(misbehaviours: &[Misbehaviour], kind: FaultKind, random: &mut Random) -> Option<usize> {
    let mut hits = misbehaviours.iter().filter(|misbehaviour| misbehaviour.kind == kind);
    hits.find(|hit| random.below(1_000_000) < u64::from(hit.part_ppm)).map(|hit| hit.fault)
}

/// Whether an answer is a content, which its hash names.
pub(crate) fn is_object(target: &str) -> bool {
    target.starts_with("/v1/objects/")
}

/// Whether an answer says what is there now.
pub(crate) fn is_snapshot(target: &str) -> bool {
    target == "/v1/snapshot"
}

/// How long caches may keep what has this `Cache-Control`; none: not at all.
pub(crate) fn max_age(control: &str) -> Option<Duration> {
    let parts = || control.split(',').map(str::trim);
    if parts().any(|part| part == "no-store") {
        return None;
    }
    parts().find_map(|part| part.strip_prefix("max-age=")?.parse().ok()).map(Duration::from_secs)
}

/// A body as it is sent while faults last.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Spoilt {
    pub(crate) body: Bytes,
    /// Its head says a length that it does not have.
    pub(crate) is_cut: bool,
    /// The faults that have hit it.
    pub(crate) faults: Vec<usize>,
}

/// What faults make of a body that is not empty.
pub(crate) fn spoil(body: &Bytes, is_object: bool, misbehaviours: &[Misbehaviour], random: &mut Random) -> Spoilt {
    let mut spoilt = Spoilt { body: body.clone(), is_cut: false, faults: Vec::new() };
    let at = random.below(body.len() as u64) as usize;
    if let Some(fault) = misbehaves(misbehaviours, FaultKind::CacheCorrupt, random) {
        spoilt.faults.push(fault);
        spoilt.body = damaged(body, at, is_object, random);
    }
    if let Some(fault) = misbehaves(misbehaviours, FaultKind::CacheTruncate, random) {
        spoilt.faults.push(fault);
        spoilt.body = spoilt.body.slice(..at);
        // With or without a length in the head that says so.
        spoilt.is_cut = random.below(2) == 0;
    }
    spoilt
}

/// A body with one byte changed. Nothing but the hash tells a damaged object, or a damaged content that comes with
/// the changes; the rest has no hash until snapshots are signed, so that only damage to its form can be seen.
fn damaged(body: &Bytes, at: usize, is_object: bool, random: &mut Random) -> Bytes {
    let mut bytes = body.to_vec();
    let inline = if is_object { None } else { inline_content(body, random) };
    match inline.filter(|_| random.below(4) > 0) {
        Some(text) => {
            let at = text.start + random.below(text.len() as u64) as usize;
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        }
        None => bytes[at] = if is_object { bytes[at] ^ 0x10 } else { 0xff },
    }
    bytes.into()
}

/// Where the base64 of one of the contents stands that come with the changes in `body`, if there are any.
fn inline_content(body: &[u8], random: &mut Random) -> Option<Range<usize>> {
    const KEY: &[u8] = b"\"inline\":\"";
    let begins = body.windows(KEY.len()).enumerate().filter(|(_, bytes)| *bytes == KEY).map(|(at, _)| at + KEY.len());
    let texts = begins.filter_map(|at| Some(at..at + body[at..].iter().position(|byte| *byte == b'"')?));
    // The last characters may hold bits that no byte gets: another one there is no other content, or none at all.
    let mut texts: Vec<Range<usize>> = texts.map(|text| text.start..text.end.saturating_sub(4)).collect();
    texts.retain(|text| !text.is_empty());
    let chosen = random.below(texts.len() as u64) as usize;
    (!texts.is_empty()).then(|| texts.swap_remove(chosen))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_that_come_with_changes_are_found_without_their_last_characters() {
        let body = br#"{"entries":[{"path":"a","inline":"QUJDREVGRw=="},{"path":"b","inline":"QQ=="}],"inline":""}"#;
        let mut random = Random::new(1, "test");
        for _ in 0..20 {
            let found = inline_content(body, &mut random).unwrap();
            assert_eq!(&body[found], b"QUJDREVG");
        }
        assert_eq!(inline_content(b"{}", &mut random), None);
    }

    #[test]
    fn most_damage_to_changes_is_another_content_in_a_sound_form() {
        let mut random = Random::new(1, "test");
        let body = Bytes::from_static(br#"{"entries":[{"path":"a","inline":"QUJDREVGRw=="}]}"#);
        let damaged: Vec<Bytes> = (0..200).map(|at| damaged(&body, at % body.len(), false, &mut random)).collect();
        assert!(damaged.iter().all(|other| *other != body));
        let sound = damaged.iter().filter_map(|body| serde_json::from_slice::<serde_json::Value>(body).ok());
        let other = sound.filter(|json| json["entries"][0]["inline"].as_str().is_some_and(|text| text.len() == 12));
        assert!((120..180).contains(&other.count()));
    }
}
