//! The scenarios that come with the testbed (`testbed/scenarios/`).

use super::parse::ScenarioError;

const BUILTIN: [(&str, &str); 10] = [
    ("quickstart", include_str!("../../scenarios/quickstart.toml")),
    ("smoke", include_str!("../../scenarios/smoke.toml")),
    ("failover", include_str!("../../scenarios/failover.toml")),
    ("blackout", include_str!("../../scenarios/blackout.toml")),
    ("stale-source", include_str!("../../scenarios/stale-source.toml")),
    ("wan", include_str!("../../scenarios/wan.toml")),
    ("clocks", include_str!("../../scenarios/clocks.toml")),
    ("storm", include_str!("../../scenarios/storm.toml")),
    ("refinement", include_str!("../../scenarios/refinement.toml")),
    ("edge", include_str!("../../scenarios/edge.toml")),
];

/// Text of the built-in scenario `name`.
pub fn builtin(name: &str) -> Option<&'static str> {
    BUILTIN.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// Names of the built-in scenarios.
pub fn builtin_names() -> impl Iterator<Item = &'static str> {
    BUILTIN.iter().map(|(name, _)| *name)
}

/// Text of the file `name`.
pub(super) fn read(name: &str) -> Result<String, ScenarioError> {
    std::fs::read_to_string(name).map_err(|source| {
        let looks_like_a_name = !name.contains(['/', '.']);
        if looks_like_a_name && source.kind() == std::io::ErrorKind::NotFound {
            let known = builtin_names().collect::<Vec<_>>();
            let nearest = acms_engine::runtime::spelling::nearest(name, known.iter().copied()).map(str::to_owned);
            return ScenarioError::UnknownName { name: name.to_owned(), nearest, known: known.join(", ") };
        }
        ScenarioError::Io { path: name.to_owned(), source }
    })
}
