//! As-of rounds. A reply counts with what the replying SP knew when it gave it. The specification's times are ticks; here
//! the times of the run are compared outside of it.

use super::{Input, Replay, Request, Step};
use crate::protocol::Action;
use crate::state::*;

/// A round of one SP.
pub(super) struct Round {
    request: Request,
    since_ns: u64,
    /// Its own clock at the start.
    clock_us: u64,
    /// Own pending publications then.
    ask: Ask,
    taken: Vec<Taken>,
}

/// A reply that was taken.
#[derive(Clone, Copy)]
struct Taken {
    by: usize,
    waits_for: Set,
    bound_us: u64,
}

/// A reply that was given and perhaps not taken.
pub(super) struct Given {
    to: usize,
    request: Request,
    by: usize,
    clock_us: u64,
    waits_for: Set,
}

/// As-of that was asked to be written.
pub(super) struct Raised {
    as_of_us: u64,
    ask: Ask,
    /// Agreed marks that are written with it.
    marks: Set,
}

impl Replay<'_> {
    /// The SP `by` tells `to` what it has. Its root has all that is agreed there.
    pub(super) fn give_as_of(&mut self, to: usize, request: Request, step: &Step) -> Result<(), String> {
        let by = step.at;
        self.may(Action::MintRoot { at: by });
        let action = Action::ReplyAsOf { to, by };
        let mut asked = self.state.clone();
        asked.sps[to].ask = Ask { open: true, ..Ask::default() };
        let replied = self.config.apply(&asked, action).ok_or_else(|| format!("{action:?} is not possible"))?;
        let waits_for = replied.sps[to].ask.waits_for;
        self.given_as_of.push(Given { to, request, by, clock_us: step.clock_us, waits_for });
        Ok(())
    }

    /// Rounds that begin, replies taken, and as-of asked to be written.
    pub(super) fn refresh(&mut self, step: &Step) -> Result<(), String> {
        let Step { at, view, .. } = step;
        if let Input::AsOfReply { from, request, clock_us } = step.input
            && let Some(round) = self.rounds[*at].as_mut().filter(|round| round.request == request)
        {
            let is_it =
                |given: &&Given| (given.to, given.request, given.by, given.clock_us) == (*at, request, from, clock_us);
            let round_trip_us = (step.now_ns - round.since_ns) / 1_000;
            if let Some(given) = self.given_as_of.iter().find(is_it) {
                let bound_us = clock_us.saturating_sub(round_trip_us);
                round.taken.push(Taken { by: from, waits_for: given.waits_for, bound_us });
                *self.summary.actions.entry("ReplyAsOf".to_owned()).or_default() += 1;
            }
        }
        // A round may begin and end in one step only where nobody else is asked.
        if view.as_of_asked_us > self.asked_us[*at] {
            self.asked_us[*at] = view.as_of_asked_us;
            self.raise(*at, view.as_of_asked_us)?;
        }
        if let Some(request) = view.round
            && self.rounds[*at].as_ref().is_none_or(|round| round.request != request)
        {
            self.state.asks = 0;
            self.must(Action::AskAsOf { at: *at })?;
            let ask = self.state.sps[*at].ask;
            let (since_ns, clock_us) = (step.now_ns, step.clock_us);
            self.rounds[*at] = Some(Round { request, since_ns, clock_us, ask, taken: Vec::new() });
        }
        self.as_of_is_durable(*at, view.as_of_us)
    }

    /// As-of is about to be written: some of the replies allow it.
    fn raise(&mut self, at: usize, as_of_us: u64) -> Result<(), String> {
        let Some(round) = &self.rounds[at] else { return Err("as-of rises without a round".to_owned()) };
        let mut refused = String::from("no quorum has replied");
        for choice in 0u32..1 << round.taken.len() {
            let chosen = round.taken.iter().enumerate().filter(|(i, _)| choice & 1 << i != 0).map(|(_, taken)| *taken);
            let (mut ask, mut bound_us) = (round.ask, round.clock_us);
            for Taken { by, waits_for, bound_us: bound } in chosen {
                (ask.replied, ask.waits_for) = (ask.replied | one(by), ask.waits_for | waits_for);
                bound_us = bound_us.min(bound);
            }
            if as_of_us > bound_us {
                refused = format!("as-of rises to {as_of_us}, not {bound_us}");
            } else if self.raised_with(at, ask).is_some() {
                let StoragePoint { agreed, held, marks, .. } = self.state.sps[at];
                self.raised[at].push(Raised { as_of_us, ask, marks: marks | (agreed & held) });
                return Ok(());
            } else if self.config.is_quorum(ask.replied | one(at)) {
                let waits_for = self.names(ask.waits_for);
                refused = format!("as-of rises, and of {waits_for:?} some are neither agreed nor superseded here");
            }
        }
        Err(refused)
    }

    fn raised_with(&self, at: usize, ask: Ask) -> Option<State> {
        let mut asked = self.state.clone();
        asked.sps[at].ask = ask;
        let mut next = self.config.apply(&asked, Action::RaiseAsOf { at })?;
        next.sps[at].ask = self.state.sps[at].ask;
        Some(next)
    }

    /// What was asked to be written up to `as_of_us` is durable.
    pub(super) fn as_of_is_durable(&mut self, at: usize, as_of_us: u64) -> Result<(), String> {
        while self.raised[at].first().is_some_and(|raised| raised.as_of_us <= as_of_us) {
            let Raised { ask, marks, .. } = self.raised[at].remove(0);
            let action = Action::RaiseAsOf { at };
            self.state = self.raised_with(at, ask).ok_or_else(|| format!("{action:?} is not possible any more"))?;
            self.state.sps[at].marks = marks;
            self.durable_us[at] = as_of_us;
            self.taken.push(action);
            *self.summary.actions.entry("RaiseAsOf".to_owned()).or_default() += 1;
        }
        match self.durable_us[at] == as_of_us {
            true => Ok(()),
            false => Err(format!("as-of is {as_of_us}, not {}", self.durable_us[at])),
        }
    }

    /// The SP has crashed; as-of up to `as_of_us` had become durable.
    pub(super) fn forget_rounds(&mut self, at: usize, as_of_us: u64) -> Result<(), String> {
        self.rounds[at] = None;
        self.as_of_is_durable(at, as_of_us)?;
        self.raised[at].clear();
        self.asked_us[at] = as_of_us;
        Ok(())
    }

    /// A new store knows no as-of.
    pub(super) fn forget_as_of(&mut self, at: usize) {
        self.rounds[at] = None;
        self.raised[at].clear();
        (self.asked_us[at], self.durable_us[at]) = (0, 0);
    }
}
