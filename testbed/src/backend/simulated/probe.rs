//! Probes: once all faults have stopped, a publication at each storage point, which must be accepted and delivered, and
//! as-ofs that must move on.

use super::{
    host::Role,
    phases::{BOUND_NS, MS, Run, SECOND},
    world::World,
};
use crate::{trace::Text, workload::Attempt};
use acms_engine::protocol::{Hash, Path, api::ListedEntry};
use bytes::Bytes;
use std::time::Duration;

/// Which probe a storage point could not accept is tried again after this long.
const AGAIN_NS: u64 = 2 * SECOND;

impl Run<'_> {
    /// Publishes at each storage point, until each has accepted one, and waits until all have them and as-ofs have passed
    /// the end of the faults. How many there were.
    pub(super) fn probe(&mut self) -> u64 {
        self.phase("probe");
        let end_ns = self.now_ns() + BOUND_NS;
        let mut due: Vec<usize> = (0..self.publishers.len()).collect();
        let (mut number, mut count) = (0, 0);
        let mut why = String::new();
        while !due.is_empty() && self.now_ns() < end_ns {
            number += 1;
            for sp in &due {
                self.publish_probe(*sp, number);
            }
            count += due.len() as u64;
            self.world.run_while(MS, BOUND_NS, |world| world.shared.attempts_open == 0);
            let refused = std::mem::take(&mut self.world.shared.refused);
            due = refused.iter().map(|(attempt, _)| attempt.to).collect();
            if let Some((attempt, cause)) = refused.first() {
                why = format!("no probe at sp{} was accepted: {cause}", attempt.to + 1);
                let at_ns = self.now_ns() + AGAIN_NS;
                self.world.run_until(at_ns);
            }
        }
        if !due.is_empty() {
            self.unsettled(&why);
        }
        self.wait_until_all_hold_the_latest();
        self.wait_for_as_of();
        count
    }

    fn publish_probe(&mut self, to: usize, number: u32) {
        let id = self.publishers[to];
        if let Role::Publisher(publisher) = &mut self.world.roles[id.0 as usize] {
            publisher.forget_idle(&mut self.world.shared, id);
        }
        let key = format!("probe-sp{}-{number}", to + 1);
        let Some((path, is_deletion)) = self.probe_path(to) else { return };
        let content = (!is_deletion).then(|| Bytes::from(format!("{key} of seed {}", self.scenario.seed)));
        let hash = Hash::of(content.as_deref().unwrap_or_default());
        let (at, order) = (Duration::ZERO, None);
        let now_ns = self.now_ns();
        self.plan(now_ns, Attempt { at, to, path, content, hash, key: Some(key), known: false, order });
    }

    /// A path that receivers subscribe to and that nothing is in the way of; else one of theirs to be deleted.
    fn probe_path(&self, to: usize) -> Option<(Path, bool)> {
        let live = self.live_entries();
        let prefixes = self.scenario.subscriptions();
        let name = format!("probe-sp{}", to + 1);
        let made = prefixes.iter().map(|prefix| match prefix.as_str() {
            "" => name.clone(),
            prefix => format!("{prefix}/{name}"),
        });
        let known = live.iter().map(|entry| entry.path.as_str().to_owned());
        let covered = |path: &str| prefixes.iter().any(|prefix| prefix.covers(path));
        let begins = |one: &str, other: &str| one.strip_prefix(other).is_some_and(|rest| rest.starts_with('/'));
        let clashes = |path: &str| {
            live.iter().any(|entry| begins(path, entry.path.as_str()) || begins(entry.path.as_str(), path))
        };
        let known: Vec<String> = known.filter(|path| covered(path)).collect();
        let free = made.clone().chain(known.iter().cloned()).find(|path| !clashes(path));
        let path = free.map(|path| (path, false)).or_else(|| known.first().map(|path| (path.clone(), true)));
        // Whatever is in the way of a file is in nobody's way of being deleted.
        let gone = prefixes.iter().map(|prefix| prefix.as_str()).find(|prefix| !prefix.is_empty());
        let path = path.or_else(|| gone.map(|path| (path.to_owned(), true))).unwrap_or((name, false));
        let (path, is_deletion) = path;
        Some((path.parse().ok()?, is_deletion))
    }

    /// What the first storage point that runs has in its index and is no tombstone.
    fn live_entries(&self) -> Vec<ListedEntry> {
        let running = self.world.storage_points().find(|(_, sp)| sp.machine().is_some());
        let entries = running.map_or(Vec::new(), |(id, _)| self.sample(id).1);
        entries.into_iter().filter(|entry| !entry.flags.deleted).collect()
    }

    /// Waits until the as-of of every storage point and receiver has passed the end of the faults.
    pub(super) fn wait_for_as_of(&mut self) {
        if !self.world.run_while(50 * MS, BOUND_NS, |world| standing_still(world).is_none()) {
            let who = standing_still(&self.world).unwrap_or_default();
            self.unsettled(&format!("the as-of of {who} stands still"));
        }
    }
}

/// Who has told no as-of after the end of the faults, by the slowest clock of a storage point.
fn standing_still(world: &World<'_>) -> Option<Text> {
    /// Clocks drift on until the end.
    const MARGIN_US: u64 = 100_000;
    let shared = &world.shared;
    let ahead_us = world.storage_points().map(|(id, _)| shared.host(id).clock.ahead_us(shared.now_ns));
    let slow_us = ahead_us.min().unwrap_or(0).min(0).unsigned_abs();
    let end_us = super::shared::WALL_START_US + shared.record.faults_end_ns() / 1_000;
    let wanted_us = (end_us + MARGIN_US).saturating_sub(slow_us);
    let storage_points = world.storage_points().map(|(id, _)| id);
    let all = storage_points.chain(world.receivers().map(|(id, _)| id));
    let mut names = all.map(|id| &shared.host(id).name);
    names.find(|name| shared.record.as_of_us(name) < wanted_us).cloned()
}
