//! Whether a recorded run of the engine is a run of the specification.
//!
//! A run is a sequence of [`Step`]s of single storage points, each with what came in, what publishers were told, and
//! what the storage point knows afterwards ([`View`]). [`replay`] finds for each step zero or more actions of the
//! specification, all of them possible, that lead to a state in which that storage point knows the same. Actions are
//! looked for only where the view calls for them, so a step that the specification does not allow stops the replay.
//!
//! How engine and specification meet:
//! - UIDs are named after the run: their times by rank, so that the order is the same.
//! - A publication whose manifest has come and that is not durable is one whose write was asked for; if its content has
//!   not come, only where it is known agreed: else it is not here at all.
//! - Writes become durable only in the step that says so. A crash is recorded at the restart; what of the lazy writes
//!   survived is what is known then.
//! - An order query's answer counts with what the answering SP knew when it gave it, from the step on in which the
//!   asker took it. The specification has both as one step; what the asker does in between depends on neither.
//! - Any vector that was ever sent may arrive again, so bits are explained by vectors sent, not by the message that
//!   brought them.

mod as_of;
mod compare;
mod goals;
mod record;

pub use record::{Answer, Asking, Input, JoinReply, Known, Name, NotAllowed, Request, Step, Summary, Told, View};

use crate::protocol::Action;
use crate::state::*;
use std::collections::BTreeMap;

/// Steps that a report of a failure shows before the one that failed.
const SHOWN: usize = 20;

/// An answer to an order query that was given and perhaps not yet taken.
struct Given {
    asker: usize,
    request: Request,
    by: usize,
    answer: Answer,
    /// What the specification would have answered, by submission.
    floors: BTreeMap<usize, (Option<Uid>, Option<Id>)>,
}

/// A reply to a joining SP that was given and perhaps not yet taken.
struct GivenToJoin {
    to: usize,
    by: usize,
    content: String,
    said: Join,
}

struct Replay<'a> {
    config: &'a Config,
    state: State,
    /// Rank of each time of a UID.
    ranks: BTreeMap<u64, u8>,
    /// The submission that became the publication of this name.
    numbers: BTreeMap<Name, usize>,
    /// Submissions that have taken a UID which nothing could name when last seen.
    unnamed: BTreeMap<Name, usize>,
    /// Of those, the ones told rejected.
    rejected_unnamed: Vec<usize>,
    /// Submissions by place of every query, as it was when it began.
    queries: BTreeMap<(usize, Request), Vec<Vec<usize>>>,
    /// By SP: queries that were out after its last step.
    open: [Vec<Request>; N],
    given: Vec<Given>,
    given_to_join: Vec<GivenToJoin>,
    given_as_of: Vec<as_of::Given>,
    /// By SP: the as-of round under way, what is being written of its outcome, what was asked, what is durable.
    rounds: [Option<as_of::Round>; N],
    raised: [Vec<as_of::Raised>; N],
    asked_us: [u64; N],
    durable_us: [u64; N],
    summary: Summary,
    /// Actions of the current step.
    taken: Vec<Action>,
    /// The action last looked for that was not possible.
    refused: Option<String>,
}

/// Replays `steps`. `config` says how many SPs and submissions there are, keys, mode, order and quorums; budgets of faults
/// do not matter, nor do times.
pub fn replay(config: &Config, steps: &[Step]) -> Result<Summary, NotAllowed> {
    let all = u8::MAX;
    let config = Config {
        times: all,
        accepting: all,
        crashes: all,
        losses: all,
        flushes: true,
        relay: true,
        headers: true,
        merging: true,
        asks: all,
        skew: [0; N],
        ..config.clone()
    };
    let mut replay = Replay {
        state: config.initial(),
        config: &config,
        ranks: ranks(steps),
        numbers: BTreeMap::new(),
        unnamed: BTreeMap::new(),
        rejected_unnamed: Vec::new(),
        queries: BTreeMap::new(),
        open: Default::default(),
        given: Vec::new(),
        given_to_join: Vec::new(),
        given_as_of: Vec::new(),
        rounds: Default::default(),
        raised: Default::default(),
        asked_us: [0; N],
        durable_us: [0; N],
        summary: Summary::default(),
        taken: Vec::new(),
        refused: None,
    };
    let mut before: Vec<String> = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        replay.taken.clear();
        replay.refused = None;
        let result = replay.step(step);
        before.push(format!("{number:>4} sp{} {} {:?}", step.at + 1, step.text, replay.taken));
        if let Err(why) = result {
            let why = match replay.refused {
                Some(refused) => format!("{why}; {refused} is not possible"),
                None => why,
            };
            before.drain(..before.len().saturating_sub(SHOWN + 1));
            return Err(NotAllowed { step: number, why, before });
        }
        replay.summary.steps += 1;
    }
    Ok(replay.summary)
}

fn ranks(steps: &[Step]) -> BTreeMap<u64, u8> {
    let mut micros: Vec<u64> = steps.iter().flat_map(Step::names).map(|name| name.micros).collect();
    micros.sort_unstable();
    micros.dedup();
    micros.into_iter().zip(1..).collect()
}

impl Replay<'_> {
    fn step(&mut self, step: &Step) -> Result<(), String> {
        let Step { at, input, told, view, .. } = step;
        let open = view.asking.keys().copied().collect();
        match input {
            Input::Submitted { submission } => self.must(Action::Submit { p: *submission, at: *at })?,
            Input::OrderAnswer { from, request, answer } => self.take_answer(*at, *from, *request, answer)?,
            Input::Restarted { begun } => self.restart(*at, begun, view)?,
            Input::Replaced => {
                self.given_to_join.retain(|given| given.to != *at);
                self.forget_as_of(*at);
                self.must(Action::LoseDisk { at: *at })?;
            }
            Input::JoinReply { from, content } => self.take_join_reply(*at, *from, content),
            _ => {}
        }
        self.open[*at] = open;
        // What is answered in the same step as something else becomes durable was answered before it, after it, or when
        // some of it was. Not to an earlier store, whose request came late.
        let is_of_now = |reply: &&JoinReply| view.stores[reply.to] == u32::from(self.state.sps[reply.to].store);
        let mut replies: Vec<&JoinReply> = step.join_replies.iter().filter(is_of_now).collect();
        self.give_join_replies(*at, &mut replies)?;
        if view.joining {
            return Ok(());
        }
        if self.state.sps[*at].join.is_some() {
            self.must(Action::FinishJoin { at: *at })?;
        }
        // The first of those that wait for it took it.
        for (&p, &name) in &view.unnamed {
            self.unnamed.entry(name).or_insert(p);
        }
        while self.pursue(step) {
            self.give_join_replies(*at, &mut replies)?;
        }
        if let Some(reply) = replies.first() {
            return Err(format!("the reply to joining sp{} has what is not here", reply.to + 1));
        }
        for name in &step.vectors {
            if let Ok(p) = self.number(*name) {
                self.may(Action::SendAgain { at: *at, p });
            }
        }
        self.refused = None;
        self.told(told)?;
        self.refresh(step)?;
        for (to, request) in &step.as_of_replies {
            self.give_as_of(*to, *request, step)?;
        }
        if let Input::OrderQuery { from, request, answer: Some(answer) } = input {
            self.give_answer(*from, *request, *at, answer)?;
        }
        self.compare(*at, view)?;
        self.config.broken(&self.state).map_or(Ok(()), |promise| Err(format!("broken: {promise}")))
    }

    /// Takes `action` if it is possible.
    fn may(&mut self, action: Action) -> bool {
        match self.config.apply(&self.state, action) {
            Some(next) => {
                self.state = next;
                self.taken.push(action);
                let name = format!("{action:?}");
                let name = name.split_whitespace().next().unwrap_or_default().to_owned();
                *self.summary.actions.entry(name).or_default() += 1;
                true
            }
            None => {
                self.refused = Some(format!("{action:?}"));
                false
            }
        }
    }

    fn must(&mut self, action: Action) -> Result<(), String> {
        if self.may(action) {
            return Ok(());
        }
        self.refused = None;
        Err(format!("{action:?} is not possible"))
    }

    // ---- Order queries ----------------------------------------------------------------------------------------------

    /// The SP `by` has answered: not less than the specification would.
    fn give_answer(&mut self, asker: usize, request: Request, by: usize, answer: &Answer) -> Result<(), String> {
        let Some(places) = self.queries.get(&(asker, request)).cloned() else { return Ok(()) };
        let mut floors = BTreeMap::new();
        for (place, submissions) in places.iter().enumerate() {
            let name = answer.names.get(place).copied().flatten();
            let names = name.map(|name| self.number(name)).transpose()?.map(|q| q as Id);
            if self.config.order == Order::Fast {
                continue;
            }
            for &p in submissions.iter().filter(|&&p| self.state.publications[p].phase == Phase::Asking) {
                let fresh = Publication { answered: 0, floor: None, same_key: None, ..self.state.publications[p] };
                let mut asked = self.state.clone();
                asked.publications[p] = fresh;
                let action = Action::AnswerOrderQuery { p, by, names };
                let answered =
                    self.config.apply(&asked, action).ok_or_else(|| format!("{action:?} is not possible"))?;
                let Publication { floor, same_key, .. } = answered.publications[p];
                if floor > answer.greatest.map(|name| self.uid(name)) {
                    return Err(format!("the answer names {:?} as the greatest UID, not {floor:?}", answer.greatest));
                }
                floors.insert(p, (floor, same_key));
            }
        }
        self.given.push(Given { asker, request, by, answer: answer.clone(), floors });
        Ok(())
    }

    /// The asker has taken an answer to a query that is still open.
    fn take_answer(&mut self, at: usize, from: usize, request: Request, answer: &Answer) -> Result<(), String> {
        let is_it =
            |given: &&Given| (given.asker, given.request, given.by) == (at, request, from) && given.answer == *answer;
        let Some(given) = self.given.iter().find(is_it).filter(|_| self.open[at].contains(&request)) else {
            return Ok(());
        };
        for (&p, &(floor, same_key)) in &given.floors {
            let asking = &mut self.state.publications[p];
            if asking.phase == Phase::Asking && usize::from(asking.sp) == at {
                asking.answered |= one(from);
                asking.floor = asking.floor.max(floor);
                asking.same_key = asking.same_key.or(same_key);
                *self.summary.actions.entry("AnswerOrderQuery".to_owned()).or_default() += 1;
            }
        }
        Ok(())
    }

    // ---- Joining ----------------------------------------------------------------------------------------------------

    /// Gives those that `by` holds enough for; the others stay.
    fn give_join_replies(&mut self, by: usize, replies: &mut Vec<&JoinReply>) -> Result<(), String> {
        for reply in std::mem::take(replies) {
            if !self.give_join_reply(by, reply)? {
                replies.push(reply);
            }
        }
        Ok(())
    }

    /// The SP `by` tells a joining one what it holds, after it has recorded the new store durably. False: it tells of more
    /// than it holds.
    fn give_join_reply(&mut self, by: usize, reply: &JoinReply) -> Result<bool, String> {
        let to = reply.to;
        if self.state.sps[to].join.is_none() {
            return Ok(true);
        }
        let number =
            |names: &[Name]| names.iter().map(|name| self.number(*name)).collect::<Result<Vec<usize>, String>>();
        let (held, own, agreed) = (number(&reply.held)?, number(&reply.own)?, number(&reply.agreed)?);
        let action = Action::ReplyToJoin { of: to, by };
        let mut asked = self.state.clone();
        asked.sps[to].join = Some(Join::default());
        let replied = self.config.apply(&asked, action).ok_or_else(|| format!("{action:?} is not possible"))?;
        let said = replied.sps[to].join.unwrap_or_default();
        let has_all = |set: Set, of: &[usize]| of.iter().all(|&p| has(set, p));
        if !(has_all(said.held, &held) && has_all(said.own, &own) && has_all(said.agreed, &agreed)) {
            return Ok(false);
        }
        self.state.sps[by] = replied.sps[by];
        self.given_to_join.push(GivenToJoin { to, by, content: reply.content.clone(), said });
        Ok(true)
    }

    /// The joining SP has all that `from` holds.
    fn take_join_reply(&mut self, at: usize, from: usize, content: &str) {
        let is_it = |given: &&GivenToJoin| (given.to, given.by, given.content.as_str()) == (at, from, content);
        let Some(said) = self.given_to_join.iter().rev().find(is_it).map(|given| given.said) else { return };
        if let Some(join) = self.state.sps[at].join.as_mut().filter(|join| !has(join.replied, from)) {
            join.take(&said);
            *self.summary.actions.entry("ReplyToJoin".to_owned()).or_default() += 1;
        }
    }

    // ---- Crashes ----------------------------------------------------------------------------------------------------

    /// A crash at some time since the last step, and the restart that ends with `view`. Of the writes in flight, those
    /// `begun` may have become durable.
    fn restart(&mut self, at: usize, begun: &[Name], view: &View) -> Result<(), String> {
        for name in begun {
            let Some(known) = view.publications.get(name) else { continue };
            if !self.name_written(at, *name) {
                return Err(format!("{name:?} cannot have been offered here before it was written"));
            }
            let p = self.number(*name)?;
            let sp = &self.state.sps[at];
            if (known.held && has(sp.writing, p)) || (known.own && has(sp.writing_own, p)) {
                self.must(Action::BecomeDurable { at, p })?;
            }
            // The own bit may have been in the same write.
            if known.own && !has(self.state.sps[at].own, p) && self.ask_own(at, p) {
                self.must(Action::BecomeDurable { at, p })?;
            }
        }
        self.forget_rounds(at, view.as_of_us)?;
        if self.state.sps[at].join.is_some() && !view.joining {
            self.must(Action::FinishJoin { at })?;
        }
        let sp = &self.state.sps[at];
        let mut of = 0;
        let seen = view.publications.iter().filter(|_| !view.joining);
        for (name, known) in seen {
            let p = self.number(*name)?;
            let agreed = (known.agreed || known.dropped) && has(sp.agreed, p);
            let dropped = known.dropped && has(sp.dropped, p);
            let bits = !known.agreed && !has(sp.agreed, p) && known.bits & !one(at) != 0;
            of |= if agreed || dropped || bits { one(p) } else { 0 };
        }
        let stores = view.stores.iter().zip(sp.stores).all(|(known, before)| *known >= u32::from(before));
        // Where nothing was lost, a crash is no step.
        self.may(Action::Crash { at, kept: crate::protocol::Kept { of, stores } });
        self.unnamed.retain(|name, _| name.sp != at);
        self.refused = None;
        Ok(())
    }

    // ---- Names ------------------------------------------------------------------------------------------------------

    fn uid(&self, name: Name) -> Uid {
        Uid { time: self.ranks[&name.micros], sp: name.sp as u8, store: name.store as u8 }
    }

    fn number(&self, name: Name) -> Result<usize, String> {
        self.numbers.get(&name).copied().ok_or_else(|| format!("{name:?} was named by no storage point"))
    }
}
