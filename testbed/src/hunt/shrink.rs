//! From a scenario that fails to a smaller one that fails alike.
//!
//! Delta debugging (Zeller and Hildebrandt 2002) over faults and publications: parts are left out, larger ones first,
//! as long as the rest still fails; before that, all that concerns one path, one kind of fault or one host. Then parameters are made plainer one by one ([`super::simplify`]), and all again
//! until nothing more can go. What is still large then is tried with other seeds: what fails by a chance meeting fails
//! again by another one.

use super::{simplify::plainer, sound::unsound};
use crate::{
    faults::FaultKind,
    scenario::{Bytes, Scenario},
    trace::now_ns,
};
use std::{collections::BTreeSet, time::Duration};

/// How much effort shrinking may take.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Runs at most.
    pub runs: u32,
    /// Time at most.
    pub time: Duration,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { runs: 6_000, time: Duration::from_secs(300) }
    }
}

/// The smallest scenario that was found to fail.
#[derive(Clone, PartialEq, Debug)]
pub struct Shrunk<V> {
    /// The scenario.
    pub scenario: Scenario,
    /// How it fails.
    pub violation: V,
    /// How many runs it took.
    pub runs: u32,
    /// Whether nothing more could go; else the budget ended first.
    pub is_minimal: bool,
}

/// Shrinks `scenario`, which fails with `violation`. `fails` runs another one and says how it fails, if it fails in a
/// way that counts as the same.
///
/// Whatever is tried is valid and sound.
pub fn shrink<V>(
    scenario: &Scenario,
    violation: V,
    budget: Budget,
    fails: &mut dyn FnMut(&Scenario) -> Option<V>,
) -> Shrunk<V> {
    let deadline_ns = now_ns().saturating_add(u64::try_from(budget.time.as_nanos()).unwrap_or(u64::MAX));
    let best = with_keys(scenario.clone());
    let mut search = Search { best, violation, runs: 0, runs_max: budget.runs, deadline_ns, other_seeds: 0, fails };
    let mut is_minimal = false;
    while !search.is_over() {
        search.leave_out_groups();
        let faults = search.leave_out(|scenario| &mut scenario.faults);
        let publications = search.leave_out(|scenario| &mut scenario.workload.publications);
        let parameters = search.make_plainer();
        if !(faults || publications || parameters) && search.is_large() && search.other_seeds == 0 {
            search.other_seeds = OTHER_SEEDS;
            search.make_bulkier();
        } else if !(faults || publications || parameters) {
            is_minimal = !search.is_over();
            break;
        }
    }
    Shrunk { scenario: search.best, violation: search.violation, runs: search.runs, is_minimal }
}

/// A failure of more faults or publications than these is hard to read.
const FAULTS_FEW: usize = 10;
const PUBLICATIONS_FEW: usize = 20;
/// So many other seeds are tried for each part that is left out of what stays large.
const OTHER_SEEDS: u64 = 5;

/// Keys that follow from places in the list would change when others are left out.
fn with_keys(mut scenario: Scenario) -> Scenario {
    for (index, publication) in scenario.workload.publications.iter_mut().enumerate() {
        publication.key = Some(publication.key(index));
    }
    scenario
}

struct Search<'f, V> {
    best: Scenario,
    violation: V,
    runs: u32,
    runs_max: u32,
    deadline_ns: u64,
    /// How many other seeds are tried when something is left out.
    other_seeds: u64,
    fails: &'f mut dyn FnMut(&Scenario) -> Option<V>,
}

impl<V> Search<'_, V> {
    fn is_over(&self) -> bool {
        self.runs >= self.runs_max || now_ns() >= self.deadline_ns
    }

    /// Takes `candidate` if it fails too.
    fn try_out(&mut self, candidate: Scenario) -> bool {
        if candidate == self.best || self.is_over() || candidate.validate().is_err() || unsound(&candidate).is_some() {
            return false;
        }
        let has_list = |scenario: &Scenario| !scenario.workload.publications.is_empty();
        if has_list(&self.best) && !has_list(&candidate) {
            // Without a list other things would be published.
            return false;
        }
        self.runs += 1;
        match (self.fails)(&candidate) {
            Some(violation) => {
                (self.best, self.violation) = (candidate, violation);
                true
            }
            None => false,
        }
    }

    fn is_large(&self) -> bool {
        self.best.faults.len() > FAULTS_FEW || self.best.workload.publications.len() > PUBLICATIONS_FEW
    }

    /// The same, perhaps with another seed.
    fn try_smaller(&mut self, candidate: Scenario) -> bool {
        let seed = candidate.seed;
        let seeds = (0..=self.other_seeds).map(|other| seed.wrapping_add(other));
        seeds.into_iter().any(|seed| self.try_out(Scenario { seed, ..candidate.clone() }))
    }

    /// Where it takes many bytes, fewer publications have as many.
    fn make_bulkier(&mut self) {
        const BULKY: Bytes = Bytes(60 << 10);
        let mut candidate = self.best.clone();
        candidate.workload.publications.iter_mut().filter(|p| !p.deleted).for_each(|p| p.size = p.size.max(BULKY));
        self.try_smaller(candidate);
    }

    /// Leaves out all publications of a path, all faults of a kind, all faults of a host.
    fn leave_out_groups(&mut self) {
        let paths: BTreeSet<String> = self.best.workload.publications.iter().map(|p| p.path.clone()).collect();
        for path in paths {
            let mut candidate = self.best.clone();
            candidate.workload.publications.retain(|publication| publication.path != path);
            self.try_smaller(candidate);
        }
        let kinds: BTreeSet<FaultKind> = self.best.faults.iter().map(|fault| fault.kind).collect();
        for kind in kinds {
            let mut candidate = self.best.clone();
            candidate.faults.retain(|fault| fault.kind != kind);
            self.try_smaller(candidate);
        }
        let hosts = self.best.hosts();
        for host in &hosts {
            let mut candidate = self.best.clone();
            candidate.faults.retain(|fault| fault.target.select(&hosts) != [host.as_str()]);
            self.try_smaller(candidate);
        }
    }

    /// Leaves out what can be left out of a list; whether anything could.
    fn leave_out<T: Clone>(&mut self, list: fn(&mut Scenario) -> &mut Vec<T>) -> bool {
        let mut any = false;
        let mut part = list(&mut self.best).len();
        while part > 0 && !self.is_over() {
            // From the end: what comes last is least often needed.
            let mut end = list(&mut self.best).len();
            while end > 0 {
                let begin = end.saturating_sub(part);
                let mut candidate = self.best.clone();
                list(&mut candidate).drain(begin..end);
                any |= self.try_smaller(candidate);
                end = begin;
            }
            part /= 2;
        }
        any
    }

    fn make_plainer(&mut self) -> bool {
        let mut any = false;
        // Each list is made from the best so far: what was found shapes what is tried next.
        let mut next = 0;
        while !self.is_over() {
            let Some(candidate) = plainer(&self.best).into_iter().nth(next) else { break };
            if self.try_out(candidate) {
                any = true;
            } else {
                next += 1;
            }
        }
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hunt::draw;

    fn drawn(seed: u64) -> Scenario {
        draw("storm", &Scenario::load("storm", &[]).unwrap().hunt.unwrap(), seed)
    }

    /// A kill of anyone, a retried key and a partition that begins before that key's retry.
    fn synthetic(scenario: &Scenario) -> Option<String> {
        let has = |kind| scenario.faults.iter().any(|fault| fault.kind == kind);
        let mut seen = BTreeSet::new();
        let retry = scenario.workload.publications.iter().find(|p| !seen.insert(p.key.clone()))?;
        (has(FaultKind::Kill) && has(FaultKind::Partition)).then(|| retry.path.clone())
    }

    #[test]
    fn finds_the_few_that_matter() {
        let mut shrunk = 0;
        for seed in 0..200 {
            let scenario = drawn(seed);
            let Some(violation) = synthetic(&scenario) else { continue };
            let result = shrink(&scenario, violation, Budget::default(), &mut synthetic);
            let found = &result.scenario;
            assert!(result.is_minimal && result.runs < 3_000, "seed {seed}: {} runs", result.runs);
            assert_eq!((found.faults.len(), found.workload.publications.len()), (2, 2), "seed {seed}");
            assert!(synthetic(found).is_some() && found.validate().is_ok());
            let fleet = (found.fleet.caches, found.fleet.receivers, found.fleet.cache_tiers);
            let named = |name| found.faults.iter().any(|f| format!("{} {:?}", f.target, f.peer).contains(name));
            assert!(fleet == (0, 1, 1) || named("cache") || named("receiver"), "seed {seed}: {fleet:?}");
            assert!(found.fleet.storage_points <= 3 || named("sp"), "seed {seed}");
            assert_eq!(found.network, crate::scenario::Network::default(), "seed {seed}");
            assert!(found.clocks.offsets.is_empty() && found.duration < scenario.duration);
            assert!(found.workload.publications.iter().all(|publication| publication.size.0 <= 16));
            shrunk += 1;
        }
        assert!(shrunk > 10, "{shrunk} seeds have both kinds");
    }

    /// Fails by chance, and only with many publications at once: each seed needs other ones.
    #[test]
    fn what_fails_by_chance_is_made_small_with_other_seeds() {
        let scenario = drawn(3);
        let mut chancy = |candidate: &Scenario| -> Option<()> {
            let list = &candidate.workload.publications;
            let mut hasher = blake3::Hasher::new();
            for publication in list {
                hasher.update(publication.key.as_deref().unwrap_or_default().as_bytes());
            }
            hasher.update(&candidate.seed.to_le_bytes());
            (list.len() > 15 && hasher.finalize().as_bytes()[0] < 100).then_some(())
        };
        let Some(first) = (0..).map(|seed| Scenario { seed, ..scenario.clone() }).find(|s| chancy(s).is_some()) else {
            return;
        };
        let result = shrink(&first, (), Budget::default(), &mut chancy);
        assert!(result.scenario.workload.publications.len() <= 20, "{}", result.scenario.workload.publications.len());
    }

    #[test]
    fn stops_when_the_budget_is_used() {
        let scenario = drawn(1);
        let budget = Budget { runs: 7, ..Budget::default() };
        let mut runs = 0;
        let result = shrink(&scenario, (), budget, &mut |_| {
            runs += 1;
            None
        });
        assert_eq!((runs, result.runs, result.is_minimal), (7, 7, false));
        assert_eq!(result.scenario, scenario);
        let result = shrink(&scenario, (), Budget { time: Duration::ZERO, ..budget }, &mut |_| Some(()));
        assert_eq!(result.runs, 0);
    }

    #[test]
    fn what_always_fails_shrinks_to_one_publication() {
        let result = shrink(&drawn(2), (), Budget::default(), &mut |_| Some(()));
        assert!(result.is_minimal && result.scenario.faults.is_empty());
        assert_eq!(result.scenario.workload.publications.len(), 1);
    }
}
