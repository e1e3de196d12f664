//! Whether an SP of the engine and one of the specification know the same.

use super::{Replay, Told, View};
use crate::protocol::Action;
use crate::state::*;

impl Replay<'_> {
    /// What publishers were told is true.
    pub(super) fn told(&mut self, told: &[(usize, Told)]) -> Result<(), String> {
        // Those first that are their own publication: what completes it shares its fate.
        let completes = |p: usize| matches!(self.state.publications[p].phase, Phase::Completing(_));
        let mut told = told.to_vec();
        told.sort_by_key(|&(p, _)| completes(p));
        for (p, told) in told {
            let Publication { phase, rejected, .. } = self.state.publications[p];
            // The publication that the submission is.
            let is = match phase {
                Phase::Completing(q) => self.given_up_for(q.into(), &told)?.or(Some(q.into())),
                Phase::Offered => self.given_up_for(p, &told)?.or(Some(p)),
                _ => None,
            };
            match told {
                Told::Accepted(name) => {
                    let q = self.number(name)?;
                    if is != Some(q) || !self.state.publications[q].accepted {
                        return Err(format!("submission {p} was told accepted as {name:?}, which is not agreed"));
                    }
                }
                Told::Rejected => match is.filter(|&q| q != p) {
                    None if rejected => {}
                    // Its UID may not be named yet, so it is not taken here; if it will be, it is rejected then.
                    None if self.unnamed.values().any(|q| *q == p) => self.rejected_unnamed.push(p),
                    None => self.must(Action::Reject { p })?,
                    Some(q) if self.state.publications[q].rejected => {}
                    Some(q) => return Err(format!("submission {p} was told rejected, publication {q} was not")),
                },
                Told::Undetermined { superseded_by: Some(by), .. } => {
                    let w = self.number(by)?;
                    let newer = is.is_none_or(|q| self.state.uid(q) < self.state.uid(w));
                    if !newer || !self.state.publications[w].accepted {
                        return Err(format!("submission {p} was told superseded by {by:?}, which is not so"));
                    }
                }
                Told::Undetermined { .. } => {}
            }
        }
        Ok(())
    }

    /// `two-phase`: an attempt whose publication is given up may be told of another one that its key names there by then.
    fn given_up_for(&mut self, p: usize, told: &Told) -> Result<Option<usize>, String> {
        let (Told::Accepted(name) | Told::Undetermined { of: Some(name), .. }) = told else { return Ok(None) };
        let q = self.number(*name)?;
        let named = self.config.same_keys(&self.state, p, self.state.accepting(p));
        if q == p
            || !self.state.publications[p].undecided && !self.state.publications[p].rejected
            || !named.contains(&Some(q as Id))
        {
            return Ok(None);
        }
        if !self.state.publications[p].rejected {
            self.must(Action::Reject { p })?;
        }
        Ok(Some(q))
    }

    pub(super) fn compare(&self, at: usize, view: &View) -> Result<(), String> {
        let sp = &self.state.sps[at];
        let stores: Vec<u32> = sp.stores[..self.config.n].iter().map(|store| u32::from(*store)).collect();
        same("the stores known", &view.stores, &stores)?;
        let mut seen: [Set; 5] = [0; 5];
        for (name, known) in &view.publications {
            let p = self.number(*name)?;
            let here = !known.dropped;
            let facts = [here && known.held, here && known.writing, here && known.own, known.agreed, known.dropped];
            seen.iter_mut().zip(facts).for_each(|(set, fact)| *set |= if fact { one(p) } else { 0 });
            if here && known.held && !known.agreed && known.bits != sp.bits[p] {
                return Err(format!("the vector of {name:?} is {:#b}, not {:#b}", known.bits, sp.bits[p]));
            }
        }
        let [held, writing, own, agreed, dropped] = seen;
        // What a joining SP was told dropped by one and agreed by another is superseded here in either case.
        let superseded = |p: &usize| has(sp.agreed, *p) && self.state.has_newer(sp.agreed & sp.held, *p);
        let told = members(dropped).filter(superseded).fold(0, |set, p| set | one(p));
        // So is what is only remembered.
        let mut over = told;
        for (name, _) in view.publications.iter().filter(|(_, known)| known.remembered) {
            let p = self.number(*name)?;
            if !superseded(&p) {
                return Err(format!("{name:?} is only remembered, though no newer one is here"));
            }
            over |= one(p);
        }
        same("the publications held durably", &self.names(held), &self.names(sp.held & !over))?;
        same("the publications not yet durable", &self.names(writing), &self.names(sp.writing & !over))?;
        same("the publications with the own bit", &self.names(own), &self.names(sp.own & !over))?;
        same("the publications known agreed", &self.names(agreed), &self.names(sp.agreed & !told))?;
        // What is only remembered lends its key, too: it is agreed.
        self.compare_keys(at, view, dropped | over)?;
        let entry = view.entry.map(|name| self.number(name)).transpose()?;
        let newest = self.state.greatest(sp.agreed & sp.held);
        if entry.map(|p| self.state.uid(p)) != newest.map(|p| self.state.uid(p)) {
            return Err(format!("the entry is publication {entry:?}, not {newest:?}"));
        }
        for (request, asking) in &view.asking {
            for p in self.asked(at, *request) {
                let Publication { phase, answered, .. } = self.state.publications[p];
                let strict = self.config.order == Order::Strict;
                if strict && phase == Phase::Asking && asking.answered & !answered != 0 {
                    return Err(format!(
                        "answers of {:#b} count for submission {p}, not {answered:#b}",
                        asking.answered
                    ));
                }
            }
        }
        Ok(())
    }

    /// Each key names a publication that has it, or nothing where none is known.
    fn compare_keys(&self, at: usize, view: &View, dropped: Set) -> Result<(), String> {
        let keys: std::collections::BTreeSet<u8> = self.numbers.values().map(|&p| self.config.keys[p]).collect();
        for key in keys {
            // Of each key any submission that has it.
            let Some(p) = (0..self.config.submissions).find(|&p| self.config.keys[p] == key) else { continue };
            let allowed = self.config.same_keys(&self.state, p, at);
            match view.keys.get(&key) {
                Some(None) => {}
                None if allowed == [None] => {}
                None => return Err(format!("key {key} names nothing, not {allowed:?}")),
                Some(Some(name)) => {
                    let q = self.number(*name)?;
                    let undecided = self.state.publications[q].undecided && self.state.accepting(q) == at;
                    if !allowed.contains(&Some(q as Id)) && !undecided && !has(dropped, q) {
                        return Err(format!("key {key} names publication {q}, not {allowed:?}"));
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn names(&self, set: Set) -> Vec<String> {
        let names = self.numbers.iter().filter(|&(_, &p)| has(set, p));
        names.map(|(name, p)| format!("{name:?} (submission {p})")).collect()
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, engine: &T, specification: &T) -> Result<(), String> {
    match engine == specification {
        true => Ok(()),
        false => Err(format!("{what} are {engine:?}, not {specification:?}")),
    }
}
