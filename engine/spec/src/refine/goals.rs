//! Finding the actions that a view calls for.

use super::{Input, Known, Name, Replay, Request, Step, Told, View};
use crate::protocol::Action;
use crate::state::*;

impl Replay<'_> {
    /// One pass over everything that `step` calls for. False: nothing could be done.
    pub(super) fn pursue(&mut self, step: &Step) -> bool {
        let before = self.taken.len();
        let Step { at, input, told, view, .. } = step;
        self.hear(*at, view);
        let has_flushed = match input {
            Input::Flushed { held, own } => self.flush(*at, held, own),
            _ => false,
        };
        for (name, known) in &view.publications {
            if let Ok(p) = self.number(*name) {
                self.receive(*at, p, known);
                self.exchange(*at, p, known, view);
            }
        }
        // Nothing is dropped before all that was written counts.
        if !has_flushed {
            self.drop_superseded(*at, view);
        }
        self.ask(*at, view);
        let now_named = view.publications.keys().filter(|name| !self.numbers.contains_key(name));
        let taken = now_named.filter_map(|name| Some((*name, *self.unnamed.get(name)?)));
        let mut named: Vec<(Name, usize)> = view.named.iter().map(|(p, name)| (*name, *p)).chain(taken).collect();
        named.sort_unstable();
        named.into_iter().for_each(|(name, p)| self.name(p, name));
        for (p, told) in told {
            if let Told::Accepted(name) | Told::Undetermined { of: Some(name), .. } = told {
                self.name(*p, *name);
            }
        }
        self.taken.len() > before
    }

    fn drop_superseded(&mut self, at: usize, view: &View) {
        let sp = &self.state.sps[at];
        let is_dropped = |name: &Name, p: usize| match view.publications.get(name) {
            Some(known) => known.dropped,
            // A joining SP lets go what is superseded before it came, and of which no exchange had begun; after a crash it
            // does not know of it.
            None => !has(sp.agreed | sp.own_ever, p) && self.state.has_newer(sp.agreed & sp.held, p),
        };
        let here = self.numbers.iter().filter(|&(_, &p)| has(sp.held | sp.writing, p));
        let dropped: Vec<usize> = here.filter(|&(name, &p)| is_dropped(name, p)).map(|(_, &p)| p).collect();
        for p in dropped {
            self.may(Action::MintRoot { at });
            self.may(Action::DropSuperseded { at, p });
        }
    }

    /// Newer stores of others.
    fn hear(&mut self, at: usize, view: &View) {
        for (of, &store) in view.stores.iter().enumerate() {
            if store > u32::from(self.state.sps[at].stores[of]) {
                self.may(Action::HearOfStore { at, of, store: store as u8 });
            }
        }
    }

    /// The next of what was written: what follows from each is done before the next, as the engine does it. False: there
    /// was no more.
    fn flush(&mut self, at: usize, held: &[Name], own: &[Name]) -> bool {
        for name in held {
            self.name_written(at, *name);
        }
        let sp = self.state.sps[at];
        let of = |names: &[Name], writing: Set| {
            names.iter().filter_map(|name| self.number(*name).ok()).find(|&p| has(writing, p))
        };
        let next = of(held, sp.writing).or_else(|| of(own, sp.writing_own));
        next.is_some_and(|p| self.may(Action::BecomeDurable { at, p }))
    }

    /// Asks for the own bit of a publication held durably, since it is known agreed or since others have theirs.
    pub(super) fn ask_own(&mut self, at: usize, p: usize) -> bool {
        if self.may(Action::StartExchange { p, at }) {
            return true;
        }
        let vectors = self.state.vectors.clone();
        vectors.into_iter().filter(|vector| usize::from(vector.publication) == p).any(|vector| {
            let action = Action::ReceiveVector { at, vector };
            let next = self.config.apply(&self.state, action);
            let asks =
                |next: &State| has(next.sps[at].writing_own, p) && next.sps[at].stores == self.state.sps[at].stores;
            next.as_ref().is_some_and(asks) && self.may(action)
        })
    }

    /// A publication whose manifest is newly here, or that came with the word that it is agreed.
    fn receive(&mut self, at: usize, p: usize, known: &Known) {
        let sp = self.state.sps[at];
        if known.dropped {
            return;
        }
        if known.agreed && !has(sp.agreed | sp.held, p) && self.state.publications[p].accepted {
            self.may(Action::LearnAgreed { at, p });
        }
        if (known.held || known.writing) && !has(sp.held | sp.writing, p) {
            self.may(Action::ReceiveOffer { p, at });
        }
    }

    /// Bits and agreement of a publication held here.
    fn exchange(&mut self, at: usize, p: usize, known: &Known, view: &View) {
        let sp = self.state.sps[at];
        if !has(sp.held, p) || known.dropped {
            return;
        }
        let wants_own = (known.own_asked || known.own) && !has(sp.own | sp.writing_own, p);
        if wants_own && (known.bits & !one(at) == 0 || has(sp.agreed, p)) {
            self.may(Action::StartExchange { p, at });
        }
        if has(sp.agreed, p) {
            return;
        }
        if known.agreed && self.state.publications[p].accepted {
            self.may(Action::LearnAgreed { at, p });
        } else if (known.agreed || sp.bits[p] != known.bits) && !self.receive_vectors(at, p, known, view) {
            // Perhaps a vector that was sent again with stores learned since.
            (0..self.config.n).filter(|&y| has(known.bits, y)).for_each(|y| {
                self.may(Action::SendAgain { at: y, p });
            });
            self.receive_vectors(at, p, known, view);
        }
    }

    /// Takes vectors that were sent and bring nothing beyond what `known` has.
    fn receive_vectors(&mut self, at: usize, p: usize, known: &Known, view: &View) -> bool {
        let before = self.taken.len();
        let vectors = self.state.vectors.clone();
        for vector in vectors.into_iter().filter(|vector| usize::from(vector.publication) == p) {
            let action = Action::ReceiveVector { at, vector };
            let Some(next) = self.config.apply(&self.state, action) else { continue };
            let sp = &next.sps[at];
            let stores = sp.stores.iter().zip(&view.stores).all(|(ours, theirs)| u32::from(*ours) <= *theirs);
            let agreed = known.agreed || !has(sp.agreed, p);
            if stores && agreed && sp.bits[p] & !known.bits == 0 && !has(self.state.sps[at].agreed, p) {
                self.may(action);
            }
        }
        self.taken.len() > before
    }

    /// Queries that are new: the asker's own answer.
    fn ask(&mut self, at: usize, view: &View) {
        for (request, asking) in &view.asking {
            if self.queries.contains_key(&(at, *request)) {
                continue;
            }
            self.queries.insert((at, *request), asking.submissions.clone());
            let strict = self.config.order == Order::Strict;
            for &p in asking.submissions.iter().flatten().filter(|_| strict) {
                let names = self.config.same_keys(&self.state, p, at)[0];
                self.may(Action::AnswerOrderQuery { p, by: at, names });
            }
        }
    }

    /// What nothing could name before it was written, as its ceiling was in the same write. False: it is that, and cannot
    /// have been offered here.
    pub(super) fn name_written(&mut self, at: usize, name: Name) -> bool {
        let Some(&p) = self.unnamed.get(&name).filter(|_| !self.numbers.contains_key(&name)) else { return true };
        self.name(p, name);
        self.may(Action::ReceiveOffer { p, at })
    }

    /// The submission `p` is the publication `name`.
    pub(super) fn name(&mut self, p: usize, name: Name) {
        if self.state.publications[p].phase != Phase::Asking {
            return;
        }
        match self.numbers.get(&name) {
            Some(&q) => {
                self.may(Action::CompleteSameKey { p, q });
            }
            None if name.sp == self.state.accepting(p) && name.store == u32::from(self.state.sps[name.sp].store) => {
                let time = self.uid(name).time;
                if self.may(Action::TakeUid { p, time }) {
                    self.numbers.insert(name, p);
                    self.unnamed.remove(&name);
                    if self.rejected_unnamed.contains(&p) {
                        self.may(Action::Reject { p });
                    }
                }
            }
            None => {}
        }
    }

    /// Submissions that wait in the query `request` of `at`, of each place the first.
    pub(super) fn asked(&self, at: usize, request: Request) -> impl Iterator<Item = usize> + '_ {
        let places = self.queries.get(&(at, request)).into_iter().flatten();
        places.filter_map(|place| place.first().copied())
    }
}
