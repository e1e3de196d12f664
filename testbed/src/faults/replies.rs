//! What faults of caches do to replies.

use super::FaultKind;
use crate::workload::Random;
use bytes::Bytes;
use std::{collections::VecDeque, ops::Range, time::Duration};

/// Snapshots that a cache remembers for a rollback, and the time between them.
const PAST_COUNT: usize = 32;
const PAST_GAP_NS: u64 = 2_000_000_000;

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
fn misbehaves(misbehaviours: &[Misbehaviour], kind: FaultKind, random: &mut Random) -> Option<usize> {
    let mut hits = misbehaviours.iter().filter(|misbehaviour| misbehaviour.kind == kind);
    hits.find(|hit| random.below(1_000_000) < u64::from(hit.part_ppm)).map(|hit| hit.fault)
}

/// Whether an answer is a content, which its hash names.
pub(crate) fn is_object(target: &str) -> bool {
    target.starts_with("/v1/objects/")
}

/// Answers of earlier times that say what was there then.
#[derive(Debug)]
pub(crate) struct Past<A>(VecDeque<(u64, A)>);

impl<A: Clone> Past<A> {
    pub(crate) fn new() -> Past<A> {
        Past(VecDeque::new())
    }

    /// Notes an answer, unless it is of no use or another one has just been noted.
    pub(crate) fn note(&mut self, now_ns: u64, target: &str, answer: &A) {
        let has_gap = self.0.back().is_none_or(|(at_ns, _)| now_ns - at_ns >= PAST_GAP_NS);
        if is_snapshot(target) && has_gap {
            self.0.push_back((now_ns, answer.clone()));
            if self.0.len() > PAST_COUNT {
                self.0.pop_front();
            }
        }
    }

    fn oldest(&self, target: &str) -> Option<&A> {
        self.0.front().filter(|_| is_snapshot(target)).map(|(_, answer)| answer)
    }
}

/// Whether an answer says what is there now.
pub(crate) fn is_snapshot(target: &str) -> bool {
    target == "/v1/snapshot"
}

/// An old reply that a cache gives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Old<A> {
    /// The fault that makes it do so.
    pub(crate) fault: usize,
    /// The answer of an earlier time; none: the one that is kept.
    pub(crate) past: Option<A>,
}

/// Whether a cache that keeps an answer to this request, still fresh or not, gives an old one.
pub(crate) fn old_reply<A: Clone>(
    target: &str,
    is_fresh: bool,
    past: &Past<A>,
    misbehaviours: &[Misbehaviour],
    random: &mut Random,
) -> Option<Old<A>> {
    if let Some(fault) = misbehaves(misbehaviours, FaultKind::CacheRollback, random) {
        let past = past.oldest(target).cloned();
        if past.is_some() || !is_fresh {
            return Some(Old { fault, past });
        }
    }
    let fault = if is_fresh { None } else { misbehaves(misbehaviours, FaultKind::CacheStale, random) };
    fault.map(|fault| Old { fault, past: None })
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
    fn old_replies_are_snapshots_of_before_and_what_is_no_longer_fresh() {
        const SNAPSHOT: &str = "/v1/snapshot";
        const CHANGES: &str = "/v1/changes/1.1.1";
        let mut past = Past::new();
        for (at_ns, answer) in [(0, "first"), (PAST_GAP_NS - 1, "too early"), (PAST_GAP_NS, "second")] {
            past.note(at_ns, CHANGES, &"never");
            past.note(at_ns, SNAPSHOT, &answer);
        }
        assert_eq!(past.0.iter().map(|(_, answer)| *answer).collect::<Vec<_>>(), ["first", "second"]);
        let old = |kind, target, is_fresh| {
            let always = [Misbehaviour { kind, part_ppm: 1_000_000, fault: 7 }];
            let old = old_reply(target, is_fresh, &past, &always, &mut Random::new(1, "test"));
            old.map(|Old { fault, past }| (fault, past))
        };
        assert_eq!(old(FaultKind::CacheRollback, SNAPSHOT, true), Some((7, Some("first"))));
        assert_eq!(old(FaultKind::CacheRollback, CHANGES, true), None);
        assert_eq!(old(FaultKind::CacheRollback, CHANGES, false), Some((7, None)), "the one that is kept");
        assert_eq!(old(FaultKind::CacheStale, SNAPSHOT, true), None);
        assert_eq!(old(FaultKind::CacheStale, SNAPSHOT, false), Some((7, None)));
        (0..PAST_COUNT as u64).for_each(|turn| past.note((turn + 2) * PAST_GAP_NS, SNAPSHOT, &"later"));
        assert_eq!((past.0.len(), past.oldest(SNAPSHOT)), (PAST_COUNT, Some(&"later")));
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
