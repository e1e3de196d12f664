//! What a trace says about itself at its start, so that it can be judged without anything beside it.

use super::{Event, Kind, Text};
use crate::scenario::Scenario;

/// The first events of a run's trace: settings that the checks depend on (`config`), and the true wall clock (`wall`) in
/// microseconds since 1970.
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
    let config = settings.into_iter().map(|(name, value)| event(Kind::Config, Some(name), value));
    config.chain([event(Kind::Wall, None, wall_us.to_string())]).collect()
}
