//! Snapshots and changes that may be answered again for a while: in memory, within a bound, for as long as their
//! Cache-Control says.

use super::service::VIA;
use crate::{
    client::response::Head,
    protocol::{Duration, Instant},
    runtime::http::answer::Outbox,
};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Bytes of all kept answers.
const BYTES_MAX: usize = 64 << 20;
/// What a kept answer costs beside its body.
const COST: usize = 512;

/// A sound answer of upstream.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// Its Cache-Control, as it came.
    pub(super) control: String,
    pub(super) body: Bytes,
    /// Who has passed it on.
    via: String,
    /// When it was made, by what upstream says.
    made_at: Instant,
    fresh_until: Instant,
}

impl Answer {
    /// From what came at `now`.
    pub(super) fn new(head: &Head, body: Bytes, now: Instant) -> Answer {
        let control = head.header("cache-control").unwrap_or("no-store").to_owned();
        let age =
            head.header("age").and_then(|age| age.trim().parse().ok()).map_or(Duration::ZERO, Duration::from_secs);
        let made_at = Instant(now.0.saturating_sub(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX)));
        let fresh_until = max_age(&control).map_or(now, |fresh| made_at.after(fresh));
        let vias = head.headers.iter().filter(|(name, _)| name == "via").map(|(_, value)| value.as_str());
        let via = vias.chain([VIA]).collect::<Vec<_>>().join(", ");
        Answer { control, body, via, made_at, fresh_until }
    }

    /// Seconds since it was made.
    fn age_s(&self, now: Instant) -> u64 {
        now.since(self.made_at).as_secs()
    }

    /// Writes it.
    pub(super) fn write(&self, now: Instant, out: &mut Outbox<'_>) {
        out.begin(200).header("Cache-Control", &self.control).header("Age", self.age_s(now));
        out.header("Via", &self.via);
        out.header("Content-Type", "application/json").shared_body(self.body.clone());
    }
}

/// How long an answer may be kept, if at all.
fn max_age(control: &str) -> Option<Duration> {
    let mut words = control.split(',').map(str::trim);
    if words.clone().any(|word| ["no-store", "no-cache", "private"].iter().any(|no| word.eq_ignore_ascii_case(no))) {
        return None;
    }
    let age = words.find_map(|word| word.split_once('=').filter(|(name, _)| name.eq_ignore_ascii_case("max-age")));
    age.and_then(|(_, seconds)| seconds.trim_matches('"').parse().ok()).map(Duration::from_secs)
}

#[derive(Debug)]
struct Kept {
    answer: Answer,
    used: u64,
}

/// Kept answers by the target that was asked for.
#[derive(Debug, Default)]
pub(super) struct Answers {
    kept: BTreeMap<String, Kept>,
    by_use: BTreeMap<u64, String>,
    uses: u64,
    bytes: usize,
}

impl Answers {
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The answer to `target`, if there is one that may be given.
    pub(super) fn find(&mut self, target: &str, now: Instant) -> Option<Answer> {
        let kept = self.kept.get_mut(target)?;
        if now >= kept.answer.fresh_until {
            self.forget(target);
            return None;
        }
        self.uses += 1;
        let name = self.by_use.remove(&kept.used)?;
        kept.used = self.uses;
        self.by_use.insert(self.uses, name);
        Some(kept.answer.clone())
    }

    /// Keeps an answer, in place of what was not used for longest; unless it must not be kept.
    pub(super) fn keep(&mut self, target: &str, answer: &Answer, now: Instant) {
        self.forget(target);
        let cost = cost(target, answer);
        if now >= answer.fresh_until || cost > BYTES_MAX {
            return;
        }
        while self.bytes + cost > BYTES_MAX
            && let Some((_, oldest)) = self.by_use.first_key_value()
        {
            let oldest = oldest.clone();
            self.forget(&oldest);
        }
        self.uses += 1;
        self.bytes += cost;
        self.by_use.insert(self.uses, target.to_owned());
        self.kept.insert(target.to_owned(), Kept { answer: answer.clone(), used: self.uses });
    }

    fn forget(&mut self, target: &str) {
        if let Some(kept) = self.kept.remove(target) {
            self.by_use.remove(&kept.used);
            self.bytes -= cost(target, &kept.answer);
        }
    }

    /// Gives up what may not be given any more.
    pub(super) fn sweep(&mut self, now: Instant) {
        let stale = self.kept.iter().filter(|(_, kept)| now >= kept.answer.fresh_until);
        let stale: Vec<String> = stale.map(|(target, _)| target.clone()).collect();
        stale.iter().for_each(|target| self.forget(target));
    }
}

fn cost(target: &str, answer: &Answer) -> usize {
    COST + 2 * target.len() + answer.body.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(control: &str, age: Option<&str>, body: &[u8], now: Instant) -> Answer {
        let mut headers = vec![("cache-control".to_owned(), control.to_owned())];
        headers.extend(age.map(|age| ("age".to_owned(), age.to_owned())));
        Answer::new(&Head { status: 200, http11: true, headers }, Bytes::copy_from_slice(body), now)
    }

    #[test]
    fn an_answer_is_given_for_as_long_as_it_is_fresh() {
        let at = |seconds| Instant(1_000_000_000_000).after(Duration::from_secs(seconds));
        for (control, age, fresh_s) in [
            ("max-age=60, stale-while-revalidate=0", None, 60),
            ("public, Max-Age=\"5\"", None, 5),
            ("max-age=60", Some("50"), 10),
            ("max-age=60", Some("70"), 0),
            ("no-store", None, 0),
            ("no-store, max-age=60", None, 0),
            ("", None, 0),
        ] {
            let mut answers = Answers::default();
            answers.keep("/a", &answer(control, age, b"body", at(0)), at(0));
            assert_eq!(answers.find("/a", at(fresh_s)).map(|found| found.body), None, "{control}");
            answers.keep("/a", &answer(control, age, b"body", at(0)), at(0));
            let last = answers.find("/a", at(fresh_s.saturating_sub(1)));
            assert_eq!(last.is_some(), fresh_s > 0, "{control}");
            answers.sweep(at(fresh_s));
            assert_eq!((answers.len(), answers.bytes()), (0, 0), "{control}");
        }
    }

    #[test]
    fn what_was_not_used_for_longest_makes_room() {
        let now = Instant(1_000_000_000);
        let mut answers = Answers::default();
        let large = vec![0; BYTES_MAX / 4];
        for target in ["/1", "/2", "/3"] {
            answers.keep(target, &answer("max-age=9", None, &large, now), now);
        }
        assert!(answers.find("/1", now).is_some());
        answers.keep("/4", &answer("max-age=9", None, &large, now), now);
        let kept: Vec<&str> = ["/1", "/2", "/3", "/4"].into_iter().filter(|t| answers.find(t, now).is_some()).collect();
        assert_eq!(kept, ["/1", "/3", "/4"]);
        assert!(answers.bytes() <= BYTES_MAX);
    }
}
