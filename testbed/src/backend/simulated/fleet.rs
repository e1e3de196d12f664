//! Caches and receivers of a run: where they ask, when they start, and what is found at them in the end.

use super::{
    cache::CacheHost,
    directory::{ContentPool, Directory},
    host::{HostId, Role},
    phases::Run,
    receiver::{ReceiverHost, Subscription},
    world::World,
};
use crate::{
    backend::clock::Clock,
    scenario::Scenario,
    trace::{Kind, Template, Text},
    workload::Random,
};
use acms_engine::protocol::{Hash, Uid};
use bytes::Bytes;
use std::{collections::BTreeMap, rc::Rc};

/// Adds all caches and receivers, in the order in which the network knows them.
pub(super) fn add_fleet(scenario: &Scenario, world: &mut World<'_>) {
    let fleet = &scenario.fleet;
    let pool = ContentPool::default();
    let flush_ns = u64::try_from(scenario.disk.flush.0.as_nanos()).unwrap_or(u64::MAX);
    let sources = scenario.sources(&world.shared.network);
    let sources = |world: &World<'_>| -> Vec<(HostId, String)> {
        let all = sources[world.roles.len()].iter();
        all.map(|host| (*host, world.shared.host(*host).name.to_string())).collect()
    };
    for number in 1..=fleet.caches {
        let name = format!("cache{number}");
        let random = Random::new(scenario.seed, &format!("replies of {name}"));
        let cache = CacheHost::new(&name, sources(world), scenario.cache_tier(number), pool.clone(), random);
        world.add(&name, Clock::of(scenario, &name), Role::Cache(Box::new(cache)));
    }
    for number in 1..=fleet.receivers {
        let name = format!("receiver{number}");
        let (sources, names) = sources(world).into_iter().unzip();
        let subscription =
            Subscription { sources, names, prefixes: scenario.subscriptions(), poll: fleet.poll.map(|poll| poll.0) };
        let random = Random::new(scenario.seed, &format!("disk of {name}"));
        let directory = Directory::new(pool.clone(), flush_ns, random);
        let receiver = ReceiverHost::new(Rc::new(subscription), directory);
        world.add(&name, Clock::of(scenario, &name), Role::Receiver(Box::new(receiver)));
    }
}

/// Whether every receiver that runs holds the latest of all that it subscribes to. `last_behind`: who did not when it
/// was asked last, and is looked at first.
pub(super) fn receivers_hold_the_latest(world: &World<'_>, last_behind: &mut Option<HostId>) -> bool {
    let latest = world.shared.record.latest();
    if let Some(id) = *last_behind
        && let Role::Receiver(receiver) = &world.roles[id.0 as usize]
        && !holds(receiver, latest)
    {
        return false;
    }
    *last_behind = world.receivers().find(|(_, receiver)| !holds(receiver, latest)).map(|(id, _)| id);
    last_behind.is_none()
}

fn holds(receiver: &ReceiverHost, latest: &BTreeMap<Text, Uid>) -> bool {
    let wanted = |path: &str| receiver.prefixes().iter().any(|prefix| prefix.covers(path));
    latest.iter().filter(|(path, _)| wanted(path)).all(|(path, uid)| receiver.held(path) >= Some(*uid))
}

impl Run<'_> {
    /// Starts caches and receivers.
    pub(super) fn start_fleet(&mut self) {
        let world = &mut self.world;
        for id in world.ids() {
            let prefixes: Vec<String> = match &world.roles[id.0 as usize] {
                Role::Cache(_) => Vec::new(),
                Role::Receiver(receiver) => {
                    receiver.prefixes().iter().map(|prefix| prefix.as_str().to_owned()).collect()
                }
                _ => continue,
            };
            world.start(id);
            for prefix in &prefixes {
                world.shared.say(id, Kind::Subscribe, Template { path: Some(prefix), ..Template::default() });
            }
        }
    }

    /// Says what each receiver's state and directory have.
    pub(super) fn audit_receivers(&mut self) {
        let mut hashes = Hashes::default();
        let World { shared, roles, .. } = &mut self.world;
        for (at, role) in roles.iter().enumerate() {
            let Role::Receiver(receiver) = role else { continue };
            let (directory, name) = (receiver.directory(), Text::clone(&shared.hosts[at].name));
            let mut note = |kind, about| shared.record.note(shared.now_ns, &name, 0, kind, about);
            for (path, held) in directory.state() {
                let about = Template {
                    path: Some(path.as_str()),
                    uid: Some(held.uid),
                    hash: Some(held.hash),
                    outcome: held.flags.deleted.then_some("deleted"),
                    ..Template::default()
                };
                note(Kind::AuditState, about);
            }
            for (path, content) in directory.files() {
                let hash = Some(hashes.of(content));
                note(Kind::AuditFile, Template { path: Some(path.as_str()), hash, ..Template::default() });
            }
            note(Kind::AuditEnd, Template { outcome: Some("complete"), ..Template::default() });
        }
    }
}

/// Hashes of contents that many receivers have in the same memory: each computed once.
#[derive(Default)]
struct Hashes(BTreeMap<(usize, usize), Hash>);

impl Hashes {
    fn of(&mut self, content: &Bytes) -> Hash {
        *self.0.entry((content.as_ptr() as usize, content.len())).or_insert_with(|| Hash::of(content))
    }
}
