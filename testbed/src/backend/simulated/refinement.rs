//! The steps of the storage points beside those of the specification (`acms-spec`): a step that it does not allow is said
//! in the trace.

use super::{Observer, Step, Summary, Taken, phases};
use crate::{
    backend::{BackendError, Stop},
    scenario::Scenario,
    trace::{self, Kind, Sink, Text},
};
use acms_engine::protocol::{
    Durable, Message, Now, Path, SpId, StoragePoint,
    io::{Event, Output, Submission},
};
use acms_spec::{
    engine::{self, Input},
    refine::NotAllowed,
};
use std::collections::BTreeMap;

/// Runs a scenario of one path, and replays it in the specification when it is over: UIDs are named after their order,
/// which only the end of a run tells.
pub(super) fn run(scenario: &Scenario, sink: &mut dyn Sink, stop: &Stop) -> Result<Summary, BackendError> {
    let first = scenario.workload.publications.first();
    let path = first.and_then(|publication| publication.path.parse().ok());
    let path = path.ok_or_else(|| BackendError::Simulated("there is no publication to follow".to_owned()))?;
    let mut follower = Follower::new(path);
    let mut summary = phases::run(scenario, sink, Some(&mut follower), stop)?;
    let acms = &scenario.acms;
    let cluster = engine::Cluster { n: scenario.fleet.storage_points.into(), mode: acms.mode, order: acms.order };
    let followed = engine::followed(&follower.steps);
    let (outcome, cause) = match engine::replay(cluster, followed) {
        Ok(summary) => {
            let left_out = follower.steps.len() - followed.len();
            ("allowed", format!("{} steps replayed, {left_out} left out", summary.steps))
        }
        Err(NotAllowed { why, before, .. }) => ("not-allowed", format!("{why}: {}", before.join("; "))),
    };
    let end_ns = u64::try_from(summary.duration.as_nanos()).unwrap_or(u64::MAX);
    let event = trace::Event::new(end_ns, &"testbed".into(), 0, Kind::Refined);
    sink.record(trace::Event { outcome: Some(Text::from(outcome)), cause: Some(Text::from(cause)), ..event });
    summary.events += 1;
    Ok(summary)
}

/// Notes the steps of all storage points.
struct Follower {
    /// Submissions to other paths are none of the specification's.
    path: Path,
    steps: Vec<engine::Step>,
    lives: BTreeMap<SpId, Life>,
}

/// The present life of a storage point.
#[derive(Default)]
struct Life {
    /// The number of its store.
    store: u32,
    /// Stores that were lost since the last step.
    lost: u32,
    /// It has had a life before.
    is_later: bool,
    /// Its start is durable.
    has_started: bool,
    /// What was being written when earlier lives ended.
    begun: Vec<Durable>,
    /// Steps of the cycle under way, each with how many of the cycle's messages and outcomes are its own or an earlier
    /// one's.
    cycle: Vec<(engine::Step, Count)>,
}

#[derive(Clone, Copy, Default)]
struct Count {
    sent: usize,
    told: usize,
}

impl Count {
    /// What has been asked for in this cycle and not been taken yet.
    fn of(machine: &StoragePoint) -> Count {
        machine.outputs().fold(Count::default(), |count, output| match output {
            Output::Send { .. } => Count { sent: count.sent + 1, ..count },
            Output::Event(Event::Outcome { .. }) => Count { told: count.told + 1, ..count },
            _ => count,
        })
    }
}

impl Observer for Follower {
    fn step(&mut self, now: Now, sp: SpId, step: Step<'_>, machine: &StoragePoint) {
        let life = self.lives.entry(sp).or_default();
        match step {
            Step::Started => {
                let store = machine.config().store.number;
                life.lost += store - life.store;
                (life.store, life.has_started) = (store, false);
                life.cycle.clear();
            }
            Step::Ended(flushing) => {
                life.begun.extend_from_slice(flushing);
                life.cycle.clear();
            }
            Step::CycleEnded(taken) if life.has_started => self.close(now, sp, taken, machine),
            Step::CycleEnded(_) => self.begin(now, sp, machine),
            _ if life.has_started => {
                let step = seen(now, sp, self.input(&step), machine, &self.path);
                let life = self.lives.entry(sp).or_default();
                life.cycle.push((step, Count::of(machine)));
            }
            // All of a start is one step.
            _ => {}
        }
    }
}

impl Follower {
    fn new(path: Path) -> Follower {
        Follower { path, steps: Vec::new(), lives: BTreeMap::new() }
    }

    fn input(&self, step: &Step<'_>) -> Input {
        match step {
            Step::Submitted(Submission { publisher, key: Some(key), entries, .. }, ticket)
                if entries.iter().any(|entry| entry.path == self.path) =>
            {
                Input::Submitted { ticket: *ticket, key: (publisher.clone(), key.clone()) }
            }
            Step::Message(from, message) => Input::Message { from: *from, message: Message::clone(message) },
            Step::Persisted(records) => Input::Flushed { records: records.to_vec() },
            _ => Input::Other(format!("{step:?}")),
        }
    }

    /// What the start has written may be durable by now.
    fn begin(&mut self, now: Now, sp: SpId, machine: &StoragePoint) {
        let life = self.lives.entry(sp).or_default();
        if !machine.has_started() {
            return;
        }
        life.has_started = true;
        let (replaced, begun) = (std::mem::take(&mut life.lost), std::mem::take(&mut life.begun));
        let inputs = match (std::mem::replace(&mut life.is_later, true), replaced) {
            (false, 0) => vec![Input::Other("first start".to_owned())],
            (true, 0) => vec![Input::Restarted { begun }],
            (_, stores) => vec![Input::Replaced; stores as usize],
        };
        self.steps.extend(inputs.into_iter().map(|input| seen(now, sp, input, machine, &self.path)));
    }

    /// Gives each step of the cycle its part of what was taken; the last one has all that the end of a cycle brings.
    fn close(&mut self, now: Now, sp: SpId, taken: &Taken, machine: &StoragePoint) {
        let mut cycle = std::mem::take(&mut self.lives.entry(sp).or_default().cycle);
        if cycle.is_empty() {
            cycle.push((seen(now, sp, Input::Other("a cycle".to_owned()), machine, &self.path), Count::default()));
        }
        let outcomes: Vec<&Event> =
            taken.events.iter().filter(|event| matches!(event, Event::Outcome { .. })).collect();
        let all = Count { sent: taken.sent.len(), told: outcomes.len() };
        let (last, mut from) = (cycle.len() - 1, Count::default());
        for (place, (mut step, mut to)) in cycle.into_iter().enumerate() {
            if place == last {
                to = all;
                step = seen(now, sp, step.input, machine, &self.path);
            }
            to = Count { sent: to.sent.clamp(from.sent, all.sent), told: to.told.clamp(from.told, all.told) };
            step.sent = taken.sent[from.sent..to.sent].to_vec();
            step.events = outcomes[from.told..to.told].iter().copied().cloned().collect();
            from = to;
            self.steps.push(step);
        }
    }
}

fn seen(now: Now, at: SpId, input: Input, machine: &StoragePoint, path: &Path) -> engine::Step {
    let entry = machine.lookup(path).map(|entry| entry.uid);
    let (sent, events) = (Vec::new(), Vec::new());
    engine::Step { at, now, input, sent, events, inspection: machine.inspect(), entry }
}
