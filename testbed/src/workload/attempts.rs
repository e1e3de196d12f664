//! Attempts at publishing, which seed and scenario decide, whatever becomes of those before.

use super::{Contents, Random, Updates};
use crate::scenario::{Publication, Scenario};
use acms_engine::protocol::{Hash, Order, Path};
use bytes::Bytes;
use std::{collections::BTreeMap, time::Duration};

/// One attempt to come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attempt {
    /// When it is due, from the first moment of the updates.
    pub at: Duration,
    /// The storage point that it is handed to, from 0.
    pub to: usize,
    /// The file.
    pub path: Path,
    /// Its content; `None` deletes it.
    pub content: Option<Bytes>,
    /// Hash of the content, of the empty one if it is deleted.
    pub hash: Hash,
    /// Idempotency key. Attempts under one key have the same content.
    pub key: Option<String>,
    /// The publisher names the greatest UID that it was told so far.
    pub known: bool,
    /// The order that it asks for.
    pub order: Option<Order>,
}

/// Above this a content travels in chunks.
const LARGE_LEN_MIN: u64 = (64 << 10) + 1;
const LARGE_LEN_MAX: u64 = 1 << 20;
/// A retry comes so long after the first attempt.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
const RETRY_AFTER_SPAN_NS: u64 = 11_000_000_000;

/// The first load: every file once, spread over the storage points.
pub fn load(scenario: &Scenario, contents: &Contents) -> Vec<Attempt> {
    let storage_points = usize::from(scenario.fleet.storage_points);
    let attempt = |(number, file): (usize, &super::File)| Attempt {
        at: Duration::ZERO,
        to: number % storage_points,
        path: file.path.clone(),
        content: Some(file.content.clone()),
        hash: file.hash,
        key: Some(format!("load-{number:06}")),
        known: false,
        order: None,
    };
    contents.files.iter().enumerate().map(attempt).collect()
}

/// Updates with what is special about some of them, by time; or the scenario's list. Contents are made when their turn comes.
pub fn attempts<'a>(scenario: &'a Scenario, contents: &'a Contents) -> Box<dyn Iterator<Item = Attempt> + 'a> {
    if scenario.workload.publications.is_empty() {
        return Box::new(Drawn::new(scenario, contents));
    }
    let mut listed = listed(scenario);
    listed.sort_by_key(|attempt| attempt.at);
    Box::new(listed.into_iter())
}

fn listed(scenario: &Scenario) -> Vec<Attempt> {
    let attempt = |(number, publication): (usize, &Publication)| {
        let content = (!publication.deleted).then(|| Bytes::from(publication.content(scenario.seed, number)));
        Some(Attempt {
            at: publication.at.0,
            to: publication.to.strip_prefix("sp")?.parse::<usize>().ok()?.checked_sub(1)?,
            path: publication.path.parse().ok()?,
            hash: Hash::of(content.as_deref().unwrap_or_default()),
            content,
            key: Some(publication.key(number)),
            known: publication.known,
            order: publication.order,
        })
    };
    scenario.workload.publications.iter().enumerate().filter_map(attempt).collect()
}

/// Updates, and later than they what is tried again.
struct Drawn<'a> {
    scenario: &'a Scenario,
    updates: std::iter::Enumerate<Updates<'a>>,
    random: Random,
    /// The next that is not tried again.
    next: Option<Attempt>,
    /// Retries to come, by time and then by the number of the update.
    retries: BTreeMap<(Duration, usize), Attempt>,
}

impl<'a> Drawn<'a> {
    fn new(scenario: &'a Scenario, contents: &'a Contents) -> Drawn<'a> {
        let updates = Updates::new(&contents.files, &scenario.workload, scenario.duration.0, scenario.seed).enumerate();
        let random = Random::new(scenario.seed, "attempts");
        let mut drawn = Drawn { scenario, updates, random, next: None, retries: BTreeMap::new() };
        drawn.next = drawn.draw();
        drawn
    }

    /// The next update, and its retry among those to come.
    fn draw(&mut self) -> Option<Attempt> {
        let (number, update) = self.updates.next()?;
        let (workload, random) = (&self.scenario.workload, &mut self.random);
        let storage_points = u64::from(self.scenario.fleet.storage_points);
        let to = number % storage_points as usize;
        let mut content = update.content;
        if random.chance(workload.large.0) && content.is_some() {
            let len = LARGE_LEN_MIN + random.below(LARGE_LEN_MAX - LARGE_LEN_MIN + 1);
            content = Some(random.bytes(len as usize).into());
        }
        let first = Attempt {
            at: update.at,
            to,
            path: update.path,
            hash: Hash::of(content.as_deref().unwrap_or_default()),
            content,
            key: Some(format!("publisher-{number:06}")),
            known: random.chance(workload.known.0),
            order: random.chance(workload.fast.0).then_some(Order::Fast),
        };
        let retried = random.chance(workload.retried.0);
        let after = RETRY_AFTER_MIN + Duration::from_nanos(random.below(RETRY_AFTER_SPAN_NS));
        let other = (to as u64 + 1 + random.below((storage_points - 1).max(1))) % storage_points;
        if retried {
            let at = first.at + after;
            self.retries.insert((at, number), Attempt { at, to: other as usize, ..first.clone() });
        }
        Some(first)
    }
}

impl Iterator for Drawn<'_> {
    type Item = Attempt;

    fn next(&mut self) -> Option<Attempt> {
        // A retry is later than its update: none that is not drawn yet can come before the next update.
        let retry_at = self.retries.first_key_value().map(|((at, _), _)| *at);
        let next_at = self.next.as_ref().map(|next| next.at);
        if retry_at.is_some_and(|at| next_at.is_none_or(|next_at| at <= next_at)) {
            return self.retries.pop_first().map(|(_, retry)| retry);
        }
        let drawn = self.draw();
        std::mem::replace(&mut self.next, drawn)
    }
}
