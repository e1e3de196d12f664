//! Random runs of a small cluster: one path, every fault that the specification knows.

use super::support::cluster::{Cluster, Options, Recording, Setup};
use acms_engine::protocol::{Mode, Order, SpId, Uid, random::Random};
use acms_spec::{
    engine,
    refine::{NotAllowed, Summary},
    state::P,
};
use std::{collections::BTreeMap, time::Duration};

/// Actions of the driver in a run.
const ACTIONS: usize = 160;

/// What all runs have in common; the rest is drawn.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    /// Storage points; none: mostly three, sometimes five.
    pub(crate) n: Option<u8>,
    pub(crate) mode: Option<Mode>,
    pub(crate) order: Option<Order>,
    /// Changes the faults that were drawn.
    pub(crate) faults: fn(&mut Faults),
}

impl Plan {
    /// Everything is drawn.
    pub(crate) const ANY: Plan = Plan { n: None, mode: None, order: None, faults: |_| {} };
}

/// Draws a run from `seed`, and replays it in the specification.
pub(crate) fn run(seed: u64, plan: Plan) -> Result<Summary, NotAllowed> {
    let (cluster, steps) = record(seed, plan);
    engine::replay(cluster, &steps)
}

struct Run {
    cluster: Cluster,
    random: Random,
    /// Keys of the submissions.
    submitted: Vec<String>,
    down: Vec<SpId>,
    /// The greatest UID that was ever known agreed.
    agreed: Option<Uid>,
    seen: usize,
    /// Numbers of the stores.
    stores: BTreeMap<SpId, u32>,
    faults: Faults,
}

/// What may happen in a run; drawn, so that quiet runs occur, too.
pub(crate) struct Faults {
    pub(crate) crashes: bool,
    pub(crate) replacements: bool,
    /// Many more crashes and replacements.
    pub(crate) often: bool,
    pub(crate) losses: bool,
    pub(crate) duplicates: bool,
    pub(crate) cuts: bool,
    pub(crate) clocks: bool,
    pub(crate) slow_flushes: bool,
    pub(crate) retries: bool,
}

fn record(seed: u64, plan: Plan) -> (engine::Cluster, Vec<engine::Step>) {
    let mut random = Random::new(seed);
    let mode = if random.below(2) == 0 { Mode::Fused } else { Mode::TwoPhase };
    let order = if random.below(4) == 0 { Order::Fast } else { Order::Strict };
    let n = if random.below(8) == 0 { 5 } else { 3 };
    let (mode, order, n) = (plan.mode.unwrap_or(mode), plan.order.unwrap_or(order), plan.n.unwrap_or(n));
    let mut cluster = Cluster::new(n, Setup { mode, order, ..Setup::default() });
    cluster.recording = Some(Recording::default());
    let mut draw = |of: u64| random.below(of) == 0;
    let mut faults = Faults {
        crashes: !draw(3),
        replacements: draw(2),
        often: draw(8),
        losses: draw(2),
        duplicates: draw(2),
        cuts: draw(2),
        clocks: draw(2),
        slow_flushes: draw(2),
        retries: draw(2),
    };
    (plan.faults)(&mut faults);
    let stores = cluster.sps().map(|sp| (sp, 0)).collect();
    let mut run =
        Run { cluster, random, submitted: Vec::new(), down: Vec::new(), agreed: None, seen: 0, stores, faults };
    for _ in 0..ACTIONS {
        run.act();
    }
    run.heal();
    let steps = run.cluster.recording.take().expect("recorded").steps;
    (engine::Cluster { n: n.into(), mode, order }, steps)
}

impl Run {
    fn draw(&mut self, below: usize) -> usize {
        self.random.below(below as u64) as usize
    }

    fn chance(&mut self, of: u64) -> bool {
        self.random.below(of) == 0
    }

    fn one_up(&mut self) -> Option<SpId> {
        let up: Vec<SpId> = self.cluster.sps().filter(|sp| self.cluster.is_up(*sp)).collect();
        let place = self.random.below(up.len().max(1) as u64) as usize;
        up.get(place).copied()
    }

    fn act(&mut self) {
        let choice = self.draw(100);
        match choice {
            0..8 if self.submitted.len() < P => self.submit(),
            8..12 if self.faults.crashes && self.submitted.len() > 1 => self.crash(),
            12..18 => self.start(),
            34..38 if self.faults.often => self.crash(),
            38..46 if self.faults.often => self.start(),
            18..21 if self.faults.losses => self.lose(),
            21..27 => self.fire(),
            27..29 if self.faults.cuts => self.cut(),
            29..32 if self.faults.clocks => self.set_clock(),
            32..34 if self.faults.duplicates => {
                let choice = self.random.draw();
                self.cluster.deliver_late(choice);
            }
            _ => self.go_on(),
        }
        self.look();
    }

    /// A frame arrives, or a write becomes durable.
    fn go_on(&mut self) {
        let (writes, links) = self.cluster.enabled();
        let slow = if self.faults.slow_flushes { 6 } else { 2 };
        if !writes.is_empty() && (links.is_empty() || self.chance(slow)) {
            let sp = writes[self.draw(writes.len())];
            self.cluster.flush(sp);
        } else if !links.is_empty() {
            let (from, to) = links[self.draw(links.len())];
            let (other, again) = (self.faults.duplicates && self.chance(4), self.faults.duplicates && self.chance(8));
            let choice = if other { self.random.draw() } else { 0 };
            self.cluster.deliver_any(from, to, choice, again);
        } else {
            self.fire();
        }
    }

    fn submit(&mut self) {
        let Some(sp) = self.one_up().filter(|sp| self.cluster.sp(*sp).is_serving()) else { return };
        let number = self.submitted.len();
        let earlier = (self.faults.retries && number > 0 && self.chance(3)).then(|| self.draw(number));
        let key = earlier.map_or(format!("k{number}"), |earlier| self.submitted[earlier].clone());
        let content = format!("content of {key}");
        let known = self.agreed.filter(|_| self.cluster.setup.order == Order::Fast);
        let options = Options { key: Some(key.clone()), known };
        self.submitted.push(key);
        self.cluster.submit(&format!("s{number}"), sp, "p", Some(content.as_bytes()), options);
    }

    /// One or all crash; some of them in the middle of a flush.
    fn crash(&mut self) {
        let all = self.chance(6);
        let victims: Vec<SpId> = match all {
            true => self.cluster.sps().filter(|sp| self.cluster.is_up(*sp)).collect(),
            false => self.one_up().into_iter().collect(),
        };
        for sp in victims {
            let writes = self.cluster.enabled().0;
            if writes.contains(&sp) && self.chance(2) {
                let disk = self.cluster.disk(sp);
                disk.stop_at_sync(disk.syncs() + 1);
                self.cluster.flush(sp);
            }
            self.cluster.crash(sp);
            self.down.push(sp);
        }
    }

    /// One that is down comes back, perhaps with another clock, perhaps with an empty disk.
    fn start(&mut self) {
        if self.down.is_empty() {
            return;
        }
        let place = self.draw(self.down.len());
        let sp = self.down[place];
        if self.faults.clocks {
            self.set_clock_of(sp);
        }
        let one_of = if self.faults.often { 1 } else { 3 };
        if self.faults.replacements && self.chance(one_of) && self.may_replace(sp) {
            self.cluster.replace(sp);
            *self.stores.entry(sp).or_default() += 1;
        }
        self.down.swap_remove(place);
        self.cluster.start(sp);
    }

    /// One after another: all others have filled stores, and a quorum of them knows the store that is lost. (The
    /// specification makes all stores that a replier knows durable with its reply, which is more than is needed.)
    fn may_replace(&self, sp: SpId) -> bool {
        let knows = |other: SpId| self.cluster.sp(other).inspect().stores.get(&sp) == self.stores.get(&sp);
        let is_filled = |other: SpId| self.cluster.is_up(other) && self.cluster.sp(other).is_serving();
        let others = || self.cluster.sps().filter(|other| *other != sp);
        others().all(is_filled) && others().filter(|other| knows(*other)).count() > self.cluster.sps().count() / 2
    }

    fn lose(&mut self) {
        let links = self.cluster.enabled().1;
        if !links.is_empty() {
            let (from, to) = links[self.draw(links.len())];
            self.cluster.drop_frame(from, to);
        }
    }

    fn fire(&mut self) {
        if let Some(sp) = self.one_up() {
            self.cluster.fire(sp);
        }
    }

    fn cut(&mut self) {
        let pairs = self.pairs();
        let (a, b) = pairs[self.draw(pairs.len())];
        if self.chance(2) {
            self.cluster.cut(a, b);
        } else {
            self.cluster.heal(a, b);
        }
    }

    fn pairs(&self) -> Vec<(SpId, SpId)> {
        let sps = || self.cluster.sps();
        sps().flat_map(|a| sps().filter(move |b| *b > a).map(move |b| (a, b))).collect()
    }

    fn set_clock(&mut self) {
        if let Some(sp) = self.one_up() {
            self.set_clock_of(sp);
        }
    }

    fn set_clock_of(&mut self, sp: SpId) {
        let micros: u64 = [1_000, 1_000_000, 100_000_000, 5_000_000_000][self.draw(4)];
        let offset = self.random.below(2 * micros) as i64 - micros as i64;
        self.cluster.set_clock(sp, offset);
    }

    /// Takes note of what became known agreed.
    fn look(&mut self) {
        let recording = self.cluster.recording.as_ref().expect("recorded");
        let new = recording.steps[self.seen..].iter().flat_map(|step| &step.inspection.publications);
        let agreed = new.filter(|(_, known)| known.agreed).map(|(uid, _)| *uid).max();
        self.agreed = self.agreed.max(agreed);
        self.seen = recording.steps.len();
    }

    /// Faults stop, and everything goes on for a while.
    fn heal(&mut self) {
        for (a, b) in self.pairs() {
            self.cluster.heal(a, b);
        }
        for sp in std::mem::take(&mut self.down) {
            self.cluster.start(sp);
        }
        self.cluster.run_for(Duration::from_secs(3));
    }
}
