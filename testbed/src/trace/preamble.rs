//! What a trace says about itself at its start, so that it can be judged without anything beside it.

use super::{Event, Kind, Text};
use crate::scenario::{Scenario, builtin_names};

/// The first events of a run's trace: settings that the checks depend on (`config`), and the true wall clock (`wall`) in
/// microseconds since 1970. `changed` is there if the scenario's name alone does not make it again.
pub fn preamble(scenario: &Scenario, backend: &str, time_ns: u64, wall_us: u64) -> Vec<Event> {
    let testbed: Text = "testbed".into();
    let event = |kind, outcome: Option<&str>, cause: String| Event {
        outcome: outcome.map(Text::from),
        cause: Some(cause.into()),
        ..Event::new(time_ns, &testbed, 0, kind)
    };
    let settings = [
        ("scenario", scenario.name.clone()),
        ("seed", scenario.seed.to_string()),
        ("backend", backend.to_owned()),
        ("mode", format!("{:?}", scenario.acms.mode).to_lowercase()),
        ("order", format!("{:?}", scenario.acms.order).to_lowercase()),
        ("quorum", scenario.acms.quorum.to_string()),
        ("storage_points", scenario.fleet.storage_points.to_string()),
    ];
    let changed = [("changed", "options or file".to_owned())];
    let settings = settings.into_iter().chain(changed.into_iter().filter(|_| !is_built_in(scenario)));
    let config = settings.map(|(name, value)| event(Kind::Config, Some(name), value));
    config.chain([event(Kind::Wall, None, wall_us.to_string())]).collect()
}

/// Whether a scenario is one that comes with the testbed, with nothing set otherwise but its seed and backend.
fn is_built_in(scenario: &Scenario) -> bool {
    let same = |known: Scenario| Scenario { seed: scenario.seed, backend: scenario.backend, ..known } == *scenario;
    builtin_names().any(|name| name == scenario.name) && Scenario::load(&scenario.name, &[]).is_ok_and(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_set_otherwise_is_said() {
        let says = |overrides: &[(String, String)]| {
            let scenario = Scenario::load("quickstart", overrides).unwrap();
            preamble(&scenario, "local", 0, 0).iter().any(|event| event.outcome.as_deref() == Some("changed"))
        };
        assert!(!says(&[]) && !says(&[("seed".to_owned(), "9".to_owned())]));
        assert!(says(&[("fleet.receivers".to_owned(), "3".to_owned())]));
    }
}
