//! The same as `cargo run --release`, each search cut short.

use std::time::Duration;

use acms_spec::cases::{FULL, PLAIN, QUICK, cases, mutants, walks};
use acms_spec::search::{Bounds, search, walk};
use acms_spec::state::Config;

#[test]
fn configurations_hold() {
    for config in cases() {
        let report = search(&config, QUICK);
        assert_eq!(report.broken, None, "{}", config.name);
    }
}

#[test]
fn walks_hold() {
    for config in walks() {
        let report = walk(&config, 120, Duration::from_secs(2), 2);
        assert_eq!(report.broken, None, "{}", config.name);
    }
}

#[test]
fn the_plain_configuration_is_searched_completely() {
    let report = search(&PLAIN, FULL);
    assert!(report.complete && report.broken.is_none());
    assert!(report.healed > 100, "healing was checked");
}

#[test]
fn mistakes_are_caught() {
    for (mistake, promise, config) in mutants() {
        let bounds = Bounds { states_max: 4_000_000, ..FULL };
        let report = search(&Config { mistake: Some(mistake), ..config }, bounds);
        assert_eq!(report.broken.map(|(broken, _)| broken), Some(promise), "{mistake:?}");
    }
}

#[test]
fn any_two_quorums_share_an_sp() {
    for config in cases() {
        let quorums: Vec<u8> = (0..1 << config.n).filter(|&set| config.is_quorum(set)).collect();
        assert!(quorums.iter().all(|a| quorums.iter().all(|b| a & b != 0)), "{}", config.name);
    }
}
