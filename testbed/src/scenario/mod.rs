//! A scenario: system, fleet, network, workload, faults and expectations of a run, as TOML.

mod builtin;
mod parse;
mod units;

pub use builtin::{builtin, builtin_names};
pub use parse::ScenarioError;
pub use units::{ByteRange, Bytes, Span};

use crate::faults::FaultKind;
use acms_engine::protocol::{Mode, Order, Prefix};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

/// What is run, and what is expected of it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name, also of the directory of results.
    pub name: String,
    /// One line for people.
    #[serde(default)]
    pub description: String,
    /// All that is drawn by chance follows from it.
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// How long updates are published.
    #[serde(default = "default_duration")]
    pub duration: Span,
    /// What runs it.
    #[serde(default)]
    pub backend: BackendName,
    /// Options of the system under test.
    #[serde(default)]
    pub acms: AcmsOptions,
    /// Who takes part.
    #[serde(default)]
    pub fleet: Fleet,
    /// What lies between them.
    #[serde(default)]
    pub network: Network,
    /// What is published.
    #[serde(default)]
    pub workload: Workload,
    /// What goes wrong, and when.
    #[serde(default)]
    pub faults: Vec<Fault>,
    /// Bounds on results: a metric's name and the most that it may be.
    #[serde(default)]
    pub expect: BTreeMap<String, f64>,
}

fn default_seed() -> u64 {
    1
}

fn default_duration() -> Span {
    Span(Duration::from_secs(30))
}

/// What runs a scenario.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackendName {
    /// Real processes on this machine.
    #[default]
    Local,
    /// Virtual time.
    Simulated,
    /// Containers.
    Docker,
}

/// Options of the system under test.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AcmsOptions {
    /// How publications are accepted.
    pub mode: Mode,
    /// What UIDs are ordered by.
    pub order: Order,
}

/// Who takes part.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fleet {
    /// Storage points: an odd number.
    pub storage_points: u8,
    /// Caches between them and the receivers.
    pub caches: u32,
    /// Receivers.
    pub receivers: u32,
    /// Path prefixes that every receiver subscribes to; the empty one is everything.
    pub subscribe: Vec<String>,
    /// How many receivers share a process.
    pub receivers_per_process: u32,
}

impl Default for Fleet {
    fn default() -> Fleet {
        Fleet { storage_points: 5, caches: 0, receivers: 10, subscribe: vec![String::new()], receivers_per_process: 1 }
    }
}

/// What lies between the hosts.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// Round trips: `loopback` is no emulation.
    pub rtt: String,
}

impl Default for Network {
    fn default() -> Network {
        Network { rtt: "loopback".to_owned() }
    }
}

/// When updates are due.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arrival {
    /// As independent publishers come: exponential gaps.
    #[default]
    Poisson,
    /// At equal gaps.
    Fixed,
}

/// What is published.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Workload {
    /// A directory whose world-readable regular files are published; without one, contents are generated.
    pub tree: Option<PathBuf>,
    /// How many files are generated; of a tree, how many are taken at most.
    pub files: Option<u32>,
    /// Sizes of generated files.
    pub size: Option<ByteRange>,
    /// Larger files of a tree are skipped.
    pub file_size_max: Bytes,
    /// Paths begin with this; of a tree by default its directory's name.
    pub prefix: Option<String>,
    /// How many publications of the first load are under way at once.
    pub concurrency: u32,
    /// Updates of random files a second, once all files are loaded.
    pub updates_per_s: f64,
    /// When updates are due.
    pub arrival: Arrival,
    /// The part of updates that delete their file; the next update of it brings it back.
    pub deletes: f64,
}

impl Default for Workload {
    fn default() -> Workload {
        Workload {
            tree: None,
            files: None,
            size: None,
            file_size_max: Bytes(1 << 20),
            prefix: None,
            concurrency: 16,
            updates_per_s: 5.0,
            arrival: Arrival::Poisson,
            deletes: 0.0,
        }
    }
}

/// Something that goes wrong for a while.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What.
    pub kind: FaultKind,
    /// Whom it hits.
    pub target: Target,
    /// When it begins, counted from the first update.
    pub at: Span,
    /// How long it lasts; without it, to the end of the updates (a restart: no longer than it takes).
    #[serde(rename = "for", default)]
    pub lasts: Option<Span>,
}

/// Whom a fault hits: a name, a pattern such as `sp*`, or a list of them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Target {
    /// One name or pattern.
    One(String),
    /// Several.
    Several(Vec<String>),
}

impl Target {
    /// The names or patterns.
    pub fn patterns(&self) -> &[String] {
        match self {
            Target::One(name) => std::slice::from_ref(name),
            Target::Several(names) => names,
        }
    }

    /// Those of `hosts` that are meant, in their order.
    pub fn select<'h>(&self, hosts: &'h [String]) -> Vec<&'h str> {
        let meant = |host: &str| {
            self.patterns().iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(start) => {
                    host.strip_prefix(start).is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
                }
                None => host == pattern,
            })
        };
        hosts.iter().map(String::as_str).filter(|host| meant(host)).collect()
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.patterns().join(","))
    }
}

impl Scenario {
    /// Reads a scenario: a file, or the name of a built-in one; then sets the `overrides` (`fleet.receivers`, `20`).
    pub fn load(name: &str, overrides: &[(String, String)]) -> Result<Scenario, ScenarioError> {
        let text = match builtin(name) {
            Some(text) => text.to_owned(),
            None => builtin::read(name)?,
        };
        Scenario::parse(name, &text, overrides)
    }

    /// Reads a scenario from `text`, which messages call `name`.
    pub fn parse(name: &str, text: &str, overrides: &[(String, String)]) -> Result<Scenario, ScenarioError> {
        let scenario = parse::parse(name, text, overrides)?;
        scenario.validate()?;
        Ok(scenario)
    }

    /// The scenario as TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a scenario has no values that TOML lacks")
    }

    /// Names of all storage points and receivers.
    pub fn hosts(&self) -> Vec<String> {
        let storage_points = (1..=self.fleet.storage_points).map(|i| format!("sp{i}"));
        storage_points.chain((1..=self.fleet.receivers).map(|i| format!("receiver{i}"))).collect()
    }

    /// The subscriptions of the receivers.
    pub fn subscriptions(&self) -> Vec<Prefix> {
        self.fleet.subscribe.iter().filter_map(|prefix| prefix.parse().ok()).collect()
    }

    fn validate(&self) -> Result<(), ScenarioError> {
        let refuse = |what: String| Err(ScenarioError::Invalid(what));
        let (fleet, workload) = (&self.fleet, &self.workload);
        if self.backend != BackendName::Local {
            return Err(ScenarioError::Unavailable("backends other than `local`".into()));
        }
        if self.network.rtt != "loopback" {
            return Err(ScenarioError::Unavailable(format!(
                "an emulated network (network.rtt = {:?})",
                self.network.rtt
            )));
        }
        if fleet.caches > 0 {
            return Err(ScenarioError::Unavailable("a cache tier (fleet.caches)".into()));
        }
        if fleet.receivers_per_process != 1 {
            return Err(ScenarioError::Unavailable(
                "several receivers in one process (fleet.receivers_per_process)".into(),
            ));
        }
        if fleet.storage_points == 0 || fleet.storage_points > 63 || fleet.storage_points.is_multiple_of(2) {
            return refuse(format!("fleet.storage_points must be odd and at most 63, not {}", fleet.storage_points));
        }
        if fleet.receivers > 2000 {
            return refuse(format!(
                "fleet.receivers: {} processes are too many for one machine (2000)",
                fleet.receivers
            ));
        }
        for prefix in &fleet.subscribe {
            if let Err(error) = prefix.parse::<Prefix>() {
                return refuse(format!("fleet.subscribe: {prefix:?}: {error}"));
            }
        }
        if workload.tree.is_some() && workload.size.is_some() {
            return refuse("workload.size is for generated files, but workload.tree is given".into());
        }
        if !(0.0..=100_000.0).contains(&workload.updates_per_s) || !(0.0..=1.0).contains(&workload.deletes) {
            return refuse("workload.updates_per_s must be 0 to 100000, workload.deletes 0 to 1".into());
        }
        if workload.concurrency == 0 || workload.files == Some(0) {
            return refuse("workload.concurrency and workload.files must be at least 1".into());
        }
        self.validate_faults()
    }

    fn validate_faults(&self) -> Result<(), ScenarioError> {
        let hosts = self.hosts();
        for (i, fault) in self.faults.iter().enumerate() {
            if fault.target.select(&hosts).is_empty() {
                let what = format!("fault {}: no host is called {} (sp1.., receiver1..)", i + 1, fault.target);
                return Err(ScenarioError::Invalid(what));
            }
            if fault.at.0 > self.duration.0 {
                let what = format!("fault {}: begins at {}, after the duration of {}", i + 1, fault.at, self.duration);
                return Err(ScenarioError::Invalid(what));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_scenarios_are_valid_and_read_back() {
        for name in builtin_names() {
            let scenario = Scenario::load(name, &[]).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(scenario.name, name);
            assert_eq!(Scenario::parse(name, &scenario.to_toml(), &[]).unwrap(), scenario);
        }
        let error = Scenario::load("quickstrat", &[]).unwrap_err().to_string();
        assert!(error.contains("quickstart"), "{error}");
    }

    #[test]
    fn targets_are_names_and_patterns() {
        let hosts: Vec<String> = ["sp1", "sp2", "sp12", "receiver1"].map(String::from).to_vec();
        let select = |target: &Target| target.select(&hosts).join(" ");
        assert_eq!(select(&Target::One("sp1".into())), "sp1");
        assert_eq!(select(&Target::One("sp*".into())), "sp1 sp2 sp12");
        assert_eq!(select(&Target::One("sp1*".into())), "sp1 sp12");
        assert_eq!(select(&Target::Several(vec!["receiver1".into(), "sp2".into()])), "sp2 receiver1");
        assert_eq!(select(&Target::One("cache1".into())), "");
    }

    #[test]
    fn what_cannot_be_run_is_refused_with_the_reason() {
        let refuse = |text: &str, reason: &str| {
            let error = Scenario::parse("x", &format!("name = \"x\"\n{text}"), &[]).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        };
        refuse("backend = \"simulated\"", "not available in this version");
        refuse("[network]\nrtt = \"azure-50\"", "not available in this version");
        refuse("[fleet]\ncaches = 2", "not available in this version");
        refuse("[fleet]\nstorage_points = 4", "odd");
        refuse("[fleet]\nsubscribe = [\"a//b\"]", "empty segment");
        refuse("[[faults]]\nkind = \"partition\"\ntarget = \"sp1\"\nat = \"1s\"", "not available in this version");
        refuse("[[faults]]\nkind = \"kill\"\ntarget = \"sp9\"\nat = \"1s\"", "no host is called sp9");
        refuse("duration = \"5s\"\n[[faults]]\nkind = \"kill\"\ntarget = \"sp1\"\nat = \"9s\"", "after the duration");
        refuse("[workload]\ntree = \"/etc\"\nsize = \"1KiB\"", "generated");
    }
}
