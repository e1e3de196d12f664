//! Virtual time on one thread: the engine's own state machines, frames and stores, on simulated networks, disks and
//! clocks.
//!
//! Invariant: the same scenario gives the same events at the same times on every machine. Everything that happens comes
//! out of one queue in the order of time and then of arrival there; whatever is drawn is drawn from the seed; no map
//! without order is ever walked; no real clock is read.

mod cache;
mod client;
mod connection;
mod directory;
mod disk;
mod faults;
mod fleet;
mod host;
mod http;
mod peer;
mod phases;
mod probe;
mod publisher;
mod queue;
mod reader;
mod reads;
mod receiver;
mod record;
mod refinement;
mod shared;
mod storage_point;
mod world;

use super::{Backend, BackendError, Context, Stop};
use crate::{faults::FaultKind, scenario::Scenario, trace::Sink};
use acms_engine::protocol::{
    Durable, Message, Now, SpId, StoragePoint,
    io::{Event, Submission, Ticket, WriteId},
};
use std::{collections::BTreeMap, time::Duration};

/// Runs every scenario in virtual time, as fast as this machine can.
#[derive(Clone, Copy, Default, Debug)]
pub struct SimulatedBackend;

impl Backend for SimulatedBackend {
    fn name(&self) -> &'static str {
        "simulated"
    }

    fn run(&self, scenario: &Scenario, context: &Context, sink: &mut dyn Sink) -> Result<Vec<String>, BackendError> {
        context.progress.phase(&format!("simulating {} and what follows", scenario.duration));
        let mut notes = run_unless(scenario, sink, &context.stop)?.notes;
        if !context.captures.is_empty() {
            notes.push("left out: packets in files, as nobody sends any here".to_owned());
        }
        Ok(notes)
    }
}

/// What came of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Summary {
    /// Faults that took effect, by kind.
    pub faults: BTreeMap<FaultKind, u64>,
    /// Attempts at publishing, the first load and the probes at the end among them.
    pub publications: u64,
    /// Events of the trace, its preamble left out.
    pub events: u64,
    /// Virtual time from the start of the first process to the end.
    pub duration: Duration,
    /// What a reader of the results should know.
    pub notes: Vec<String>,
}

/// Runs a scenario from beginning to end and gives its events to `sink`.
pub fn run(scenario: &Scenario, sink: &mut dyn Sink) -> Result<Summary, BackendError> {
    run_unless(scenario, sink, &Stop::new())
}

/// The same, unless it is asked to stop.
fn run_unless(scenario: &Scenario, sink: &mut dyn Sink, stop: &Stop) -> Result<Summary, BackendError> {
    if scenario.refine { refinement::run(scenario, sink, stop) } else { phases::run(scenario, sink, None, stop) }
}

/// The same; `observer` sees every step of every storage point's state machine.
pub fn run_observed(
    scenario: &Scenario,
    sink: &mut dyn Sink,
    observer: &mut dyn Observer,
) -> Result<Summary, BackendError> {
    phases::run(scenario, sink, Some(observer), &Stop::new())
}

/// Sees the steps of storage points' state machines.
pub trait Observer {
    /// `sp` took `step` when its clocks showed `now`; `machine` is as it is after it, its outputs not yet taken.
    fn step(&mut self, now: Now, sp: SpId, step: Step<'_>, machine: &StoragePoint);
}

/// An input of a storage point's state machine.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    /// Its process started, from what its store recovered.
    Started,
    /// Its process is gone: `machine` is what it was before. These records were being flushed: durable or not.
    Ended(&'a [Durable]),
    /// A link is up; the header of the peer's hello was handled before.
    Connected(SpId),
    /// A link is down.
    Disconnected(SpId),
    /// A message came; the header of its frame was handled before.
    Message(SpId, &'a Message),
    /// A publisher handed in a publication.
    Submitted(&'a Submission, Ticket),
    /// These records are durable.
    Persisted(&'a [Durable]),
    /// The disk refused these writes.
    Refused(&'a [WriteId]),
    /// Time has passed.
    Timeout,
    /// Something that concerns contents only.
    Other,
    /// A cycle of inputs has ended, and its outputs were taken.
    CycleEnded(&'a Taken),
}

/// What a storage point's state machine asked for in a cycle, as far as others see it.
#[derive(Clone, Debug, Default)]
pub struct Taken {
    /// What it sent.
    pub sent: Vec<(SpId, Message)>,
    /// What it said.
    pub events: Vec<Event>,
}
