//! Chains of changes that a receiver follows.

use crate::protocol::{
    Duration, Instant, Prefix,
    api::{Changes, Cursor, Snapshot},
};

/// Most feeds; more subscriptions share one feed of their longest common prefix.
pub const FEEDS_MAX: usize = 8;
/// So many immediate answers in a row make a receiver look at the snapshot: it may be reading the past from a cache.
const IMMEDIATE_MAX: u32 = 8;
/// An answer that came within this was not held.
const IMMEDIATE: Duration = Duration::from_millis(500);
/// A snapshot this much younger than the last answer means that walking is quicker than following.
const BEHIND_US: u64 = 2_000_000;

/// One chain.
#[derive(Debug)]
pub(super) struct Feed {
    prefix: Prefix,
    pub(super) cursor: Cursor,
    /// Since when an answer is awaited.
    pub(super) asked_at: Option<Instant>,
    immediate: u32,
    /// The snapshot of the last answer.
    pub(super) last: Snapshot,
}

/// What an answer means for the chain.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Apply the entries and go on.
    Follow {
        /// The snapshot should be read: this may be the past.
        look: bool,
    },
    /// Walk the tree of the answer's snapshot and go on.
    Walk,
    /// The chain leads nowhere.
    Stuck,
}

impl Feed {
    /// A feed for each subscription, from `snapshot` on.
    pub(super) fn all(prefixes: &[Prefix], snapshot: &Snapshot) -> Vec<Feed> {
        let mut prefixes: Vec<Prefix> = prefixes.to_vec();
        prefixes.sort();
        prefixes.dedup();
        let all = prefixes.clone();
        prefixes.retain(|prefix| !all.iter().any(|other| other != prefix && other.covers(prefix.as_str())));
        if prefixes.len() > FEEDS_MAX {
            prefixes = vec![common(&prefixes)];
        }
        let feed =
            |prefix| Feed { prefix, cursor: snapshot.cursor(), asked_at: None, immediate: 0, last: snapshot.clone() };
        prefixes.into_iter().map(feed).collect()
    }

    /// The URL's path to ask with.
    pub(super) fn target(&self) -> String {
        let separator = if self.prefix.as_str().is_empty() { "" } else { "/" };
        format!("/v1/changes/{}{separator}{}", self.cursor, self.prefix)
    }

    /// An answer has come.
    pub(super) fn step(&mut self, now: Instant, changes: &Changes) -> Step {
        let asked_at = self.asked_at.take().unwrap_or(now);
        let (asked, next) = (self.cursor, changes.next);
        self.cursor = next;
        self.last = changes.snapshot.clone();
        if changes.full {
            return Step::Walk;
        }
        let same_life = (asked.sp, asked.incarnation) == (next.sp, next.incarnation);
        if !same_life || next.sequence <= asked.sequence {
            return Step::Stuck;
        }
        self.immediate = if now.since(asked_at) < IMMEDIATE { self.immediate + 1 } else { 0 };
        let look = self.immediate >= IMMEDIATE_MAX;
        if look {
            self.immediate = 0;
        }
        Step::Follow { look }
    }

    /// Whether `snapshot`, read just now, shows that this chain is far behind.
    pub(super) fn is_behind(&self, snapshot: &Snapshot) -> bool {
        let life = |snapshot: &Snapshot| (snapshot.sp, snapshot.incarnation);
        life(snapshot) == life(&self.last) && snapshot.issued_at_us > self.last.issued_at_us.saturating_add(BEHIND_US)
    }
}

/// The longest prefix by whole segments that covers all of `prefixes`.
fn common(prefixes: &[Prefix]) -> Prefix {
    let mut shared: Vec<&str> = prefixes.first().map_or_else(Vec::new, |first| first.as_str().split('/').collect());
    for prefix in prefixes {
        let same = shared.iter().zip(prefix.as_str().split('/')).take_while(|(a, b)| *a == b).count();
        shared.truncate(same);
    }
    shared.join("/").parse().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        let hash = crate::protocol::Hash::of(b"");
        let cluster = "demo".into();
        Snapshot {
            cluster,
            sp: 1,
            incarnation: Default::default(),
            sequence: 5,
            root: hash,
            as_of_us: 0,
            issued_at_us: 0,
        }
    }

    fn targets(prefixes: &[&str]) -> Vec<String> {
        let prefixes: Vec<Prefix> = prefixes.iter().map(|text| text.parse().expect("a prefix")).collect();
        Feed::all(&prefixes, &snapshot()).iter().map(Feed::target).collect()
    }

    #[test]
    fn a_feed_for_each_subscription_up_to_eight() {
        assert_eq!(targets(&[""]), ["/v1/changes/1.0-0.5"]);
        assert_eq!(targets(&["b/", "a", "a/x"]), ["/v1/changes/1.0-0.5/a", "/v1/changes/1.0-0.5/b"]);
        let nine = ["a/b/1", "a/b/2", "a/b/3", "a/b/4", "a/b/5", "a/b/6", "a/b/7", "a/b/8", "a/bc"];
        assert_eq!(targets(&nine), ["/v1/changes/1.0-0.5/a"]);
        let apart = ["1", "2", "3", "4", "5", "6", "7", "8", "9"];
        assert_eq!(targets(&apart), ["/v1/changes/1.0-0.5"]);
    }

    #[test]
    fn a_chain_must_advance() {
        let mut feed = Feed::all(&[Prefix::default()], &snapshot()).remove(0);
        let at = |sequence| Cursor { sequence, ..snapshot().cursor() };
        let answer = |next, full| Changes { snapshot: snapshot(), entries: Vec::new(), next, full };
        assert_eq!(feed.step(Instant(0), &answer(at(6), false)), Step::Follow { look: false });
        assert_eq!(feed.step(Instant(0), &answer(at(6), false)), Step::Stuck);
        assert_eq!(feed.step(Instant(0), &answer(at(3), true)), Step::Walk);
    }
}
