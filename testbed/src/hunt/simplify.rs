//! Plainer versions of a scenario: one parameter each, made more like the default.

use crate::scenario::{Bytes, Clocks, Direction, Disk, Fleet, Fraction, Network, Scenario, Span, Target};
use acms_engine::protocol::{Mode, Order, QuorumSystem};
use std::{collections::BTreeSet, time::Duration};

/// Small enough that nothing about its size matters.
const SMALL: Bytes = Bytes(16);
/// No length of time is made shorter than this.
const SHORT: Duration = Duration::from_millis(10);
/// The end comes so long after the last thing that happens.
const AFTER_LAST: Duration = Duration::from_secs(1);

/// What might fail as well, more promising ones first. Some may be invalid.
pub(super) fn plainer(scenario: &Scenario) -> Vec<Scenario> {
    let mut all = Plainer { of: scenario, found: Vec::new() };
    all.fleet();
    all.network();
    all.hosts();
    all.system();
    all.publications();
    all.faults();
    all.times();
    all.found
}

struct Plainer<'s> {
    of: &'s Scenario,
    found: Vec<Scenario>,
}

impl Plainer<'_> {
    fn with(&mut self, change: impl FnOnce(&mut Scenario)) {
        let mut other = self.of.clone();
        change(&mut other);
        if other != *self.of {
            self.found.push(other);
        }
    }

    fn fleet(&mut self) {
        self.with(|s| s.fleet.caches = 0);
        self.with(|s| (s.fleet.caches, s.fleet.cache_tiers) = (s.fleet.caches.min(1), 1));
        self.with(|s| s.fleet.cache_tiers = 1);
        self.with(|s| s.fleet.receivers = s.fleet.receivers.min(1));
        self.with(|s| s.fleet.receivers = s.fleet.receivers.saturating_sub(1).max(1));
        self.with(|s| s.fleet.poll = None);
        self.with(|s| s.fleet.subscribe = Fleet::default().subscribe);
        self.with(|s| fewer_storage_points(s, 3));
        self.with(|s| fewer_storage_points(s, 5));
    }

    fn network(&mut self) {
        let plain = Network::default;
        self.with(|s| s.network = plain());
        self.with(|s| s.network.delivery = plain().delivery);
        self.with(|s| (s.network.duplicate, s.network.reorder) = (Fraction(0), Fraction(0)));
        self.with(|s| (s.network.loss, s.network.jitter) = (Fraction(0), Fraction(0)));
        self.with(|s| s.network.duplicate = Fraction(0));
        self.with(|s| s.network.reorder = Fraction(0));
        self.with(|s| s.network.loss = Fraction(0));
        self.with(|s| s.network.jitter = Fraction(0));
        self.with(|s| s.network.rate = None);
        self.with(|s| {
            s.network.rtt = plain().rtt;
            (s.network.regions, s.network.sp_regions) = (Vec::new(), Vec::new());
        });
    }

    fn hosts(&mut self) {
        self.with(|s| s.clocks = Clocks::default());
        self.with(|s| s.clocks.drift_ppm = 0);
        for host in self.of.clocks.offsets.keys() {
            self.with(|s| s.clocks.offsets.retain(|other, _| other != host));
        }
        self.with(|s| s.disk = Disk::default());
        self.with(|s| s.disk.jitter = Fraction(0));
    }

    fn system(&mut self) {
        self.with(|s| s.acms.quorum = QuorumSystem::Majority);
        self.with(|s| s.acms.max_drift = None);
        self.with(|s| s.acms.order = Order::Strict);
        self.with(|s| s.acms.mode = Mode::Fused);
    }

    fn publications(&mut self) {
        let each = |s: &mut Scenario, change: fn(&mut crate::scenario::Publication)| {
            s.workload.publications.iter_mut().for_each(change);
        };
        self.with(|s| each(s, |p| p.size = p.size.min(SMALL)));
        self.with(|s| each(s, |p| p.known = false));
        self.with(|s| each(s, |p| p.order = None));
        for i in 0..self.of.workload.publications.len() {
            self.with(|s| s.workload.publications[i].size = s.workload.publications[i].size.min(SMALL));
            self.with(|s| s.workload.publications[i].known = false);
            self.with(|s| s.workload.publications[i].order = None);
            self.with(|s| s.workload.publications[i].deleted = false);
            self.with(|s| {
                s.workload.publications[i].at = halved(s.workload.publications[i].at);
                s.workload.publications.sort_by_key(|publication| publication.at);
            });
        }
    }

    fn faults(&mut self) {
        let hosts = self.of.hosts();
        for (i, fault) in self.of.faults.iter().enumerate() {
            for target in few(&fault.target, &hosts) {
                self.with(|s| s.faults[i].target = target);
            }
            for peer in fault.peer.iter().flat_map(|peer| few(peer, &hosts)) {
                self.with(|s| s.faults[i].peer = Some(peer));
            }
            if fault.direction == Some(Direction::Both) {
                self.with(|s| s.faults[i].direction = None);
            }
            self.with(|s| s.faults[i].lasts = fault.lasts.map(halved));
            self.with(|s| s.faults[i].at = halved(fault.at));
            self.with(|s| s.faults[i].count = fault.count.map(|count| count.min(1)));
        }
    }

    fn times(&mut self) {
        self.with(|s| {
            let publications = s.workload.publications.iter().map(|publication| publication.at.0);
            let ends = s.faults.iter().map(|fault| fault.at.0 + fault.lasts.unwrap_or_default().0);
            let last = publications.chain(ends).max().unwrap_or_default();
            s.duration = s.duration.min(Span(last + AFTER_LAST));
        });
        self.with(|s| {
            let publications = s.workload.publications.iter().map(|publication| publication.at.0);
            let first = publications.chain(s.faults.iter().map(|fault| fault.at.0)).min().unwrap_or_default();
            // Whole seconds keep the texts short, and the phase against what happens each second.
            let earlier = Duration::from_secs(first.as_secs());
            s.workload.publications.iter_mut().for_each(|publication| publication.at.0 -= earlier);
            s.faults.iter_mut().for_each(|fault| fault.at.0 -= earlier);
            s.duration = Span(s.duration.0.saturating_sub(earlier));
        });
    }
}

/// Fewer than `target` names: each alone, and either half.
fn few(target: &Target, hosts: &[String]) -> Vec<Target> {
    let names: Vec<String> = target.select(hosts).into_iter().map(str::to_owned).collect();
    if names.len() < 2 {
        return Vec::new();
    }
    let halves = [&names[..names.len() / 2], &names[names.len() / 2..]];
    let halves = halves.into_iter().filter(|half| half.len() > 1).map(<[String]>::to_vec);
    halves.chain(names.iter().map(|name| vec![name.clone()])).map(Target::from).collect()
}

fn halved(span: Span) -> Span {
    if span.0 <= SHORT { span } else { Span(Duration::from_millis(span.0.as_millis() as u64 / 2)) }
}

/// Those beyond `n` are gone; what they were to do others do.
fn fewer_storage_points(scenario: &mut Scenario, n: u8) {
    if scenario.fleet.storage_points <= n {
        return;
    }
    let hosts = scenario.hosts();
    let number = |name: &str| name.strip_prefix("sp").and_then(|number| number.parse::<u8>().ok());
    let kept = |name: &str| match number(name).filter(|number| *number > n) {
        Some(beyond) => format!("sp{}", beyond % n + 1),
        None => name.to_owned(),
    };
    for publication in &mut scenario.workload.publications {
        publication.to = kept(&publication.to);
    }
    for fault in &mut scenario.faults {
        for target in std::iter::once(&mut fault.target).chain(&mut fault.peer) {
            let names: BTreeSet<String> = target.select(&hosts).into_iter().map(kept).collect();
            *target = names.into_iter().collect::<Vec<_>>().into();
        }
    }
    scenario.clocks.offsets.retain(|host, _| number(host).is_none_or(|number| number <= n));
    scenario.network.sp_regions.truncate(n.into());
    scenario.acms.quorum = QuorumSystem::Majority;
    scenario.fleet.storage_points = n;
}
