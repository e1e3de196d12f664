//! What the hunt has found: each scenario broke a promise once, and holds every check since.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use acms_testbed::{backend::simulated, hunt::trial, scenario::Scenario};

fn holds(name: &str, text: &str) {
    let scenario = Scenario::parse(name, text, &[]).unwrap();
    let trial = trial(&scenario, &|scenario, sink| simulated::run(scenario, sink).map(drop)).unwrap();
    assert!(trial.violations.is_empty(), "{name}: {:?}", trial.violations);
    assert!(trial.tally.outcomes.contains_key("accepted"), "{name}: {:?}", trial.tally);
}

/// P7, seed 35 of `storm`: as-of rose without what the peer had recovered, as its reply gave the root before it.
#[test]
fn as_of_after_restart() {
    holds("as-of-after-restart", include_str!("found/as-of-after-restart.toml"));
}

/// P7, seeds 186, 291 and 293 of `storm`: a receiver's as-of rose before a file was back that a deletion had brought to
/// light again.
#[test]
fn hidden_path_shown_again() {
    holds("hidden-path-shown-again-186", include_str!("found/hidden-path-shown-again-186.toml"));
    holds("hidden-path-shown-again-291", include_str!("found/hidden-path-shown-again-291.toml"));
}
