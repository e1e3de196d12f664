//! The engine refines the specification (`engine/spec`): every step of small clusters under random schedules and faults
//! is zero or more steps that the specification allows.
//!
//! `ACMS_REFINEMENT_SEEDS=A..B` chooses the seeds; a failing one is shown with the steps before it.

#![allow(clippy::disallowed_methods, reason = "a variable chooses the seeds")]

#[path = "../support/mod.rs"]
mod support;

mod driver;

use driver::Plan;
use std::{collections::BTreeMap, ops::Range};

fn seeds() -> Range<u64> {
    let text = std::env::var("ACMS_REFINEMENT_SEEDS").unwrap_or("0..1000".to_owned());
    let parse = || {
        let (from, to) = text.split_once("..")?;
        Some(from.parse().ok()?..to.parse().ok()?)
    };
    parse().unwrap_or_else(|| panic!("ACMS_REFINEMENT_SEEDS={text}: write A..B"))
}

#[test]
fn random_runs_are_runs_of_the_specification() {
    let mut actions: BTreeMap<String, usize> = BTreeMap::new();
    let (mut steps, mut failed) = (0, 0);
    for seed in seeds() {
        match driver::run(seed, Plan::ANY) {
            Ok(summary) => {
                steps += summary.steps;
                summary.actions.into_iter().for_each(|(name, count)| *actions.entry(name).or_default() += count);
            }
            Err(not_allowed) => {
                failed += 1;
                println!("seed {seed}:\n{not_allowed}\n");
            }
        }
    }
    println!("{steps} steps; actions of the specification: {actions:#?}");
    assert_eq!(failed, 0, "seeds that the specification does not allow");
}
