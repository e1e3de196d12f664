//! From TOML and `key=value` overrides to a scenario, with errors that name the line and the nearest right key.

use super::Scenario;
use acms_engine::runtime::spelling::{nearest, nearest_in};
use toml::{
    Table, Value,
    de::{DeTable, DeValue},
};

/// Why a scenario cannot be used. Nothing was started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScenarioError {
    /// The file cannot be read.
    #[error("cannot read the scenario {path}: {source}")]
    Io {
        /// Which file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Neither a file nor built in.
    #[error("no scenario is called {name:?}{}; built-in ones: {known}; or give a file", maybe(.nearest.as_deref()))]
    UnknownName {
        /// What was asked for.
        name: String,
        /// What was meant, perhaps.
        nearest: Option<String>,
        /// What there is.
        known: String,
    },
    /// The text is no scenario.
    #[error("{place}: {what}")]
    Syntax {
        /// File and line, or the override.
        place: String,
        /// What is wrong, and the nearest right key.
        what: String,
    },
    /// A value that makes no sense.
    #[error("the scenario is not valid: {0}")]
    Invalid(String),
    /// What is wrong, and where that stands.
    #[error("{place}: {error}")]
    At {
        /// File and line, or the override.
        place: String,
        /// What is wrong.
        error: Box<ScenarioError>,
    },
    /// A legal thing that other backends can do.
    #[error("real processes cannot do {0}; with `backend = \"simulated\"` it runs in virtual time")]
    NotReal(String),
}

/// The end of a message about an unknown name.
pub(super) fn did_you_mean<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> String {
    nearest(name, known).map_or(String::new(), |nearest| format!("; did you mean {nearest:?}?"))
}

fn maybe(nearest: Option<&str>) -> String {
    nearest.map_or(String::new(), |nearest| format!(" (did you mean {nearest:?}?)"))
}

pub(super) fn parse(name: &str, text: &str, overrides: &[(String, String)]) -> Result<Scenario, ScenarioError> {
    let scenario: Scenario = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        syntax(format!("{name}, line {line}"), error.message())
    })?;
    if overrides.is_empty() {
        return Ok(scenario);
    }
    let mut table: Table = toml::from_str(text).map_err(|error| syntax(name.to_owned(), error.message()))?;
    let mut scenario = scenario;
    for (key, value) in overrides {
        let place = || format!("--set {key}={value}");
        set(&mut table, key, parse_value(value)).map_err(|what| ScenarioError::Syntax { place: place(), what })?;
        // Again after each, so that the message names the override that is wrong.
        scenario = table.clone().try_into().map_err(|error: toml::de::Error| syntax(place(), error.message()))?;
    }
    Ok(scenario)
}

/// An error about `key` (`faults.0.target`), with the override that gave it or the line where it stands, if it does.
pub(super) fn placed(
    name: &str,
    text: &str,
    overrides: &[(String, String)],
    key: &str,
    error: ScenarioError,
) -> ScenarioError {
    let is_about = |set: &str| key == set || key.strip_prefix(set).is_some_and(|rest| rest.starts_with('.'));
    let place = match overrides.iter().rev().find(|(set, _)| is_about(set)) {
        Some((set, value)) => Some(format!("--set {set}={value}")),
        None => line_of_key(text, key).map(|line| format!("{name}, line {line}")),
    };
    match place {
        Some(place) => ScenarioError::At { place, error: Box::new(error) },
        None => error,
    }
}

/// The line of a key, or of what stands round it.
fn line_of_key(text: &str, key: &str) -> Option<usize> {
    let document = DeTable::parse(text).ok()?.into_inner();
    let mut parts = key.split('.');
    let first = parts.next()?;
    let (name, mut here) = document.iter().find(|(name, _)| name.get_ref() == first)?;
    let mut offset = name.span().start;
    for part in parts {
        let found = match here.get_ref() {
            DeValue::Table(table) => {
                let found = table.iter().find(|(name, _)| name.get_ref() == part);
                found.map(|(name, value)| (name.span().start, value))
            }
            DeValue::Array(values) => {
                let found = part.parse::<usize>().ok().and_then(|place| values.get(place));
                found.map(|value| (value.span().start, value))
            }
            _ => None,
        };
        let Some((start, value)) = found else { break };
        (offset, here) = (start, value);
    }
    Some(line_of(text, offset))
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// Adds the nearest right name to a message about an unknown one.
fn syntax(place: String, message: &str) -> ScenarioError {
    let mut what = message.trim_end().to_owned();
    if let Some(nearest) = nearest_in(message) {
        what.push_str(&format!("; did you mean `{nearest}`?"));
    }
    ScenarioError::Syntax { place, what }
}

/// A value of TOML, or else a text.
fn parse_value(text: &str) -> Value {
    let parsed = toml::from_str::<Table>(&format!("value = {text}")).ok();
    parsed.and_then(|mut table| table.remove("value")).unwrap_or_else(|| Value::String(text.to_owned()))
}

fn set(table: &mut Table, key: &str, value: Value) -> Result<(), String> {
    let (parents, last) = key.rsplit_once('.').map_or((None, key), |(parents, last)| (Some(parents), last));
    let mut place = table;
    let mut parents = parents.into_iter().flat_map(|parents| parents.split('.')).peekable();
    while let Some(parent) = parents.next() {
        let next = place.entry(parent).or_insert_with(|| Value::Table(Table::new()));
        place = match next {
            Value::Table(table) => table,
            Value::Array(values) => {
                let number =
                    parents.next().ok_or_else(|| format!("{parent} is a list: say which, as in {parent}.0"))?;
                let index: usize =
                    number.parse().map_err(|_| format!("{number:?} is no place in the list {parent}"))?;
                let count = values.len();
                let element = values.get_mut(index).and_then(Value::as_table_mut);
                element.ok_or_else(|| format!("the list {parent} has {count} elements, 0 is the first"))?
            }
            _ => return Err(format!("{parent} is a value, not a section")),
        };
    }
    place.insert(last.to_owned(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const TEXT: &str = "name = \"x\"\nduration = \"30s\"\n[fleet]\nreceivers = 7\n[[faults]]\nkind = \"kill\"\n\
                        target = \"sp2\"\nat = \"10s\"\nfor = \"5s\"\n";

    fn with(overrides: &[(&str, &str)]) -> Result<Scenario, ScenarioError> {
        let overrides: Vec<_> = overrides.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        Scenario::parse("x.toml", TEXT, &overrides)
    }

    #[test]
    fn unknown_keys_name_line_and_nearest() {
        let error = Scenario::parse("x.toml", "name = \"x\"\n[fleet]\nrecievers = 7\n", &[]).unwrap_err().to_string();
        assert!(error.contains("line 3") && error.contains("did you mean `receivers`"), "{error}");
        let error = with(&[("workload.updates_per_sec", "3")]).unwrap_err().to_string();
        assert!(error.contains("--set") && error.contains("did you mean `updates_per_s`"), "{error}");
    }

    #[test]
    fn overrides_are_toml_values_or_texts() {
        let scenario = with(&[
            ("fleet.receivers", "20"),
            ("workload.tree", "/usr/share/doc"),
            ("fleet.subscribe", "[\"a\", \"b\"]"),
            ("faults.0.at", "3s"),
            ("expect.convergence_99_ms_p99", "2000"),
        ])
        .unwrap();
        assert_eq!(scenario.fleet.receivers, 20);
        assert_eq!(scenario.workload.tree.as_deref(), Some("/usr/share/doc".as_ref()));
        assert_eq!(scenario.fleet.subscribe, ["a", "b"]);
        assert_eq!(scenario.faults[0].at.0, Duration::from_secs(3));
        assert_eq!(scenario.expect["convergence_99_ms_p99"], 2000.0);
    }

    #[test]
    fn overrides_that_lead_nowhere_say_so() {
        for (key, word) in [("faults.9.at", "1 elements"), ("name.x", "is a value"), ("faults.x.at", "no place")] {
            let error = with(&[(key, "1s")]).unwrap_err().to_string();
            assert!(error.contains(word), "{key}: {error}");
        }
    }
}
