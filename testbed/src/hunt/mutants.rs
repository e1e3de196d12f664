//! Deliberately broken engines, each hunted until it is caught.

use super::{HuntError, HuntOptions, Report, hunt, trial::Backend};
use crate::scenario::Scenario;
use std::ops::Range;

/// So many seeds of each scenario are tried first, and then so many times as many: some mutants are caught by the first
/// seeds of one scenario and by none of another.
const FIRST_SEEDS: u64 = 100;
const TIMES: u64 = 6;

/// From now on this thread's engine is `mutant` (none: honest). Only builds with the feature `mutants` have any.
pub fn choose_mutant(mutant: Option<&str>) -> Result<(), HuntError> {
    #[cfg(feature = "mutants")]
    {
        let parsed = mutant.map(str::parse).transpose();
        let unknown = |error: acms_engine::mutant::UnknownMutant| HuntError::Mutant(error.to_string());
        acms_engine::mutant::choose(parsed.map_err(unknown)?);
        Ok(())
    }
    #[cfg(not(feature = "mutants"))]
    match mutant {
        None => Ok(()),
        Some(_) => Err(HuntError::Mutant("this build has no mutants: build it with `--features mutants`".to_owned())),
    }
}

/// Names of all deliberate defects that this build has: none without the feature `mutants`.
pub fn mutants() -> Vec<&'static str> {
    #[cfg(feature = "mutants")]
    {
        acms_engine::mutant::Mutant::ALL.iter().map(|mutant| mutant.name()).collect()
    }
    #[cfg(not(feature = "mutants"))]
    Vec::new()
}

/// The command line of a hunt for this defect.
pub fn with_mutant(command: &str, mutant: Option<&str>) -> String {
    mutant.map_or(command.to_owned(), |mutant| format!("{command} --mutant {mutant}"))
}

/// Hunts `mutant` in `scenarios`, each with the command line that names it, until a seed fails in one of them; `None`: none
/// did. The report of the hunt that caught it, or that was interrupted.
pub fn catch(
    mutant: &str,
    scenarios: &[(Scenario, String)],
    options: &HuntOptions,
    backend: &Backend,
) -> Result<Option<Report>, HuntError> {
    let Range { mut start, end } = options.seeds;
    let mut len = FIRST_SEEDS;
    while start < end {
        let seeds = start..start.saturating_add(len).min(end);
        for (scenario, command) in scenarios {
            let (mutant, command) = (Some(mutant.to_owned()), with_mutant(command, Some(mutant)));
            let options = HuntOptions { seeds: seeds.clone(), mutant, command, keep_going: false, ..options.clone() };
            let report = hunt(scenario, &options, backend)?;
            if report.interrupted || !report.failures.is_empty() {
                return Ok(Some(report));
            }
        }
        (start, len) = (seeds.end, len * TIMES);
    }
    Ok(None)
}
