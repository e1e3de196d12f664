//! A scenario: system, fleet, network, workload, faults and expectations of a run, as TOML.

mod bounds;
mod builtin;
mod fault;
mod network;
mod parse;
mod placement;
mod units;
mod validate;
mod workload;

pub use bounds::{Bounds, QuorumFamily};
pub use builtin::{builtin, builtin_names};
pub use fault::{Direction, Fault, Target};
pub use network::{Clocks, Delivery, Disk, Network};
pub use parse::ScenarioError;
pub use units::{ByteRange, Bytes, Fraction, Range, Shift, Span, SpanRange};
pub use workload::{Arrival, Publication, Workload};

use acms_engine::protocol::{Mode, Order, Prefix, QuorumSystem};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

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
    /// How far their clocks are off.
    #[serde(default)]
    pub clocks: Clocks,
    /// What each may use of the machine, where hosts are in containers.
    #[serde(default, skip_serializing_if = "is_default")]
    pub containers: ContainerLimits,
    /// What their disks are like.
    #[serde(default)]
    pub disk: Disk,
    /// What is published.
    #[serde(default)]
    pub workload: Workload,
    /// Simulated: the steps of the storage points are replayed in the protocol's specification. It knows small clusters,
    /// one path and few publications.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refine: bool,
    /// What goes wrong, and when.
    #[serde(default)]
    pub faults: Vec<Fault>,
    /// Bounds on results: a metric's name and the most that it may be.
    #[serde(default)]
    pub expect: BTreeMap<String, f64>,
    /// Bounds between which the hunt draws everything above from a seed. `run` does not look at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hunt: Option<Bounds>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn default_seed() -> u64 {
    1
}

fn default_duration() -> Span {
    Span(Duration::from_secs(30))
}

/// What runs a scenario.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
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

impl BackendName {
    /// Whether it runs real processes.
    pub fn is_real(self) -> bool {
        matches!(self, BackendName::Local | BackendName::Docker)
    }
}

impl std::fmt::Display for BackendName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            BackendName::Local => "local",
            BackendName::Simulated => "simulated",
            BackendName::Docker => "docker",
        })
    }
}

/// Options of the system under test.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AcmsOptions {
    /// How publications are accepted.
    pub mode: Mode,
    /// What UIDs are ordered by.
    pub order: Order,
    /// Which sets of storage points are quorums.
    pub quorum: QuorumSystem,
    /// How far ahead of a storage point's clock an unagreed publication may be; without it, the engine's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_drift: Option<Span>,
}

/// What each container may use of the machine.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ContainerLimits {
    /// Bytes of memory; without it, all that there is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Bytes>,
    /// Processors, such as 0.5; without it, all that there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<f64>,
}

/// Who takes part.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fleet {
    /// Storage points: an odd number.
    pub storage_points: u8,
    /// Caches between them and the receivers.
    pub caches: u32,
    /// Tiers of caches: the first asks storage points, the next asks the first, receivers ask the last.
    pub cache_tiers: u32,
    /// Receivers.
    pub receivers: u32,
    /// Path prefixes that every receiver subscribes to; the empty one is everything.
    pub subscribe: Vec<String>,
    /// Receivers read the snapshot this often (the published way) instead of following changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub poll: Option<Span>,
    /// How many receivers share a process.
    pub receivers_per_process: u32,
}

impl Default for Fleet {
    fn default() -> Fleet {
        Fleet {
            storage_points: 5,
            caches: 0,
            cache_tiers: 1,
            receivers: 10,
            subscribe: vec![String::new()],
            poll: None,
            receivers_per_process: 1,
        }
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
        match validate::validate(&scenario) {
            Ok(()) => Ok(scenario),
            Err(refusal) => Err(parse::placed(name, text, overrides, &refusal.key, refusal.error)),
        }
    }

    /// The scenario as TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a scenario has no values that TOML lacks")
    }

    /// Whether the scenario makes sense and its backend can run it; what was read from a text does.
    pub fn validate(&self) -> Result<(), ScenarioError> {
        validate::validate(self).map_err(|refusal| refusal.error)
    }

    /// Whether its hosts stand apart on a network of their own, for what lies between them or what becomes of it.
    pub fn needs_network(&self) -> bool {
        self.network.is_emulated() || self.faults.iter().any(|fault| fault.kind.is_of_link())
    }

    /// Names of all storage points, caches and receivers, in this order.
    pub fn hosts(&self) -> Vec<String> {
        let storage_points = (1..=self.fleet.storage_points).map(|i| format!("sp{i}"));
        let caches = (1..=self.fleet.caches).map(|i| format!("cache{i}"));
        storage_points.chain(caches).chain((1..=self.fleet.receivers).map(|i| format!("receiver{i}"))).collect()
    }

    /// The tier of cache `number` (from 1), from 0: next to the storage points. Tiers are of equal size, or differ by one.
    pub fn cache_tier(&self, number: u32) -> u32 {
        let fleet = &self.fleet;
        let tier = u64::from(number.max(1) - 1) * u64::from(fleet.cache_tiers) / u64::from(fleet.caches.max(1));
        u32::try_from(tier).unwrap_or(u32::MAX)
    }

    /// The subscriptions of the receivers.
    pub fn subscriptions(&self) -> Vec<Prefix> {
        self.fleet.subscribe.iter().filter_map(|prefix| prefix.parse().ok()).collect()
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
    fn what_cannot_be_run_is_refused_with_the_reason() {
        let refuse = |text: &str, reason: &str| {
            let error = Scenario::parse("x", &format!("name = \"x\"\n{text}"), &[]).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        };
        refuse("[containers]\nmemory = \"1MiB\"", "containers.memory must be at least 16MiB");
        refuse("[containers]\ncpus = 0.0", "containers.cpus must be from 0.01");
        refuse("[network]\ndelivery = \"datagram\"", "real processes cannot do frames that are lost one by one");
        refuse("[network]\nloss = 7", "line 3: 7 is not a part");
        refuse("[fleet]\nreceivers = 5000", "fleet.receivers_per_process");
        refuse("[disk]\nflush = \"1ms\"", "real processes cannot do disks of a chosen speed");
        let shared = "[fleet]\nreceivers_per_process = 2\n[[faults]]\nat = \"1s\"\ntarget = \"receiver2\"\n";
        refuse(&format!("{shared}kind = \"kill\""), "receiver2 shares its process");
        refuse("[fleet]\nstorage_points = 4", "odd");
        refuse("[fleet]\nsubscribe = [\"a//b\"]", "empty segment");
        refuse("[fleet]\npoll = \"1ms\"", "fleet.poll");
        refuse("[acms]\nquorum = \"sets:1+2,3\"", "without a common member");
        refuse("[[faults]]\nkind = \"disk-rot\"\ntarget = \"sp1\"\nat = \"1s\"", "cannot do the fault `disk-rot`");
        refuse("[[faults]]\nkind = \"kill\"\ntarget = \"sp9\"\nat = \"1s\"", "no host is called sp9");
        refuse("duration = \"5s\"\n[[faults]]\nkind = \"kill\"\ntarget = \"sp1\"\nat = \"9s\"", "after the duration");
        refuse("[workload]\ntree = \"/etc\"\nsize = \"1KiB\"", "generated");
    }

    #[test]
    fn what_the_specification_does_not_know_is_not_compared_with_it() {
        let text = "name = \"x\"\nrefine = true\n";
        let one = "[[workload.publications]]\nat = \"1s\"\nto = \"sp1\"\npath = \"a\"\n";
        let refuse = |text: &str, reason: &str| {
            let error = Scenario::parse("x", text, &[]).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        };
        refuse(text, "line 2: real processes cannot do a comparison with the specification");
        let text = format!("{text}backend = \"simulated\"\n");
        refuse(&text, "line 2: the scenario is not valid: refine needs listed publications");
        refuse(&format!("{text}{one}{}", one.replace("\"a\"", "\"b\"")), "line 11: ");
        refuse(&format!("{text}[fleet]\nstorage_points = 7\n{one}"), "must be at most 5 with refine");
        refuse(&format!("{text}[acms]\norder = \"fast\"\n{one}"), "acms.order must be strict");
        refuse(&format!("{text}{one}order = \"fast\"\n"), "line 8: ");
        let fault = |kind: &str| format!("{text}{one}[[faults]]\nkind = \"{kind}\"\ntarget = \"sp1\"\nat = \"1s\"\n");
        refuse(&fault("disk-full"), "faults.0.kind is none that the specification knows");
        assert!(Scenario::parse("x", &fault("disk-lost"), &[]).is_ok());
        let storm = builtin("storm").unwrap().replace("[hunt]", "[hunt]\nrefine = true");
        refuse(&storm, "hunt.storage_points must be at most 5");
    }

    #[test]
    fn faults_that_make_no_sense_are_refused_with_the_reason() {
        let text = "name = \"x\"\nbackend = \"simulated\"\n[fleet]\ncaches = 2\n[[faults]]\nat = \"1s\"\n";
        let parse = |fault: &str| Scenario::parse("x", &format!("{text}{fault}"), &[]);
        let refuse = |fault: &str, reason: &str| {
            let error = parse(fault).unwrap_err().to_string();
            assert!(error.contains(reason), "{fault}: {error}");
        };
        refuse("kind = \"partition\"\ntarget = \"sp1\"", "fault 1 (partition): needs `peer`");
        refuse("kind = \"partition\"\ntarget = \"sp1\"\npeer = \"sp1\"", "the same host");
        refuse("kind = \"partition\"\ntarget = \"sp1\"\npeer = \"spx\"", "no host is called spx");
        refuse("kind = \"kill\"\ntarget = \"sp1\"\nloss = 0.5", "`loss` means nothing");
        refuse("kind = \"slow-link\"\ntarget = \"sp1\"", "`rate` or `delay`");
        refuse("kind = \"clock-jump\"\ntarget = \"sp1\"\nby = \"x\"", "offset such as");
        refuse("kind = \"disk-lost\"\ntarget = \"receiver1\"", "cannot hit a receiver");
        assert!(parse("kind = \"disk-full\"\ntarget = \"receiver1\"").is_ok());
        refuse("kind = \"cache-stale\"\ntarget = \"sp1\"", "cannot hit a storage point, such as sp1");
        refuse("kind = \"disk-rott\"\ntarget = \"sp1\"", "line 7: unknown fault `disk-rott`");
        refuse("kind = \"disk-rott\"\ntarget = \"sp1\"", "did you mean `disk-rot`");
        refuse("kind = \"kill\"\ntarget = \"sp1\"\ndirektion = \"in\"", "did you mean `direction`");
        let way =
            parse("kind = \"partition\"\ntarget = \"sp*\"\npeer = [\"cache1\", \"receiver3\"]\ndirection = \"in\"");
        let way = way.unwrap();
        assert_eq!(way.faults[0].direction(), Direction::In);
        assert_eq!(Scenario::parse("x", &way.to_toml(), &[]).unwrap(), way);
    }

    #[test]
    fn caches_stand_in_tiers() {
        let text = "name = \"x\"\nbackend = \"simulated\"\n[fleet]\ncaches = 5\ncache_tiers = 2\n";
        let scenario = Scenario::parse("x", text, &[]).unwrap();
        let tiers: Vec<u32> = (1..=5).map(|cache| scenario.cache_tier(cache)).collect();
        assert_eq!(tiers, [0, 0, 0, 1, 1]);
        assert_eq!(scenario.hosts()[4..7], ["sp5", "cache1", "cache2"]);
        for (caches, tiers) in [(4, 3), (7, 5), (3, 3), (10, 4)] {
            let text =
                format!("name = \"x\"\nbackend = \"simulated\"\n[fleet]\ncaches = {caches}\ncache_tiers = {tiers}\n");
            let scenario = Scenario::parse("x", &text, &[]).unwrap();
            let mut all: Vec<u32> = (1..=caches).map(|cache| scenario.cache_tier(cache)).collect();
            assert!(all.is_sorted());
            all.dedup();
            assert_eq!(all, (0..tiers).collect::<Vec<_>>(), "{caches} in {tiers}");
        }
    }

    #[test]
    fn what_is_wrong_has_its_line_and_the_nearest_right_name() {
        let text = |more: &str| format!("name = \"x\"\nbackend = \"simulated\"\n{more}");
        let refuse = |more: &str, reasons: &[&str]| {
            let error = Scenario::parse("x.toml", &text(more), &[]).unwrap_err().to_string();
            assert!(reasons.iter().all(|reason| error.contains(reason)), "{more}: {error}");
        };
        let fault = "[[faults]]\nkind = \"kill\"\nat = \"1s\"\n";
        refuse(
            &format!("{fault}target = \"sp1\"\n{fault}target = \"sp11\""),
            &["x.toml, line 10:", "did you mean \"sp1\""],
        );
        refuse(&format!("{fault}target = [\"sp1\"]\nloss = 0.1"), &["line 7:", "`loss` means nothing"]);
        refuse("[clocks.offsets]\nreciever1 = \"1s\"", &["line 4:", "did you mean \"receiver1\""]);
        refuse("[network]\nduplicate = 0.1", &["line 4:", "network.duplicate means nothing"]);
        refuse("[network]\nloss = 0.1\nqueue = \"1KiB\"", &["line 5:", "network.queue means nothing"]);
        refuse("[network]\ndelivery = \"datagram\"\nqueue = \"1KiB\"", &["line 5:", "without a rate"]);
        refuse("[fleet]\ncache_tiers = 2", &["line 4:", "number of caches, 0"]);
        refuse("[expect]\nconvergance_99_ms_p99 = 3", &["line 4:", "did you mean \"convergence_99_ms_p99\""]);
        let one = "[[workload.publications]]\npath = \"a\"\n";
        refuse(&format!("{one}at = \"1s\"\nto = \"sp9\""), &["line 6:", "did you mean \"sp1\""]);
        refuse(&format!("duration = \"5s\"\n{one}at = \"5s\"\nto = \"sp1\""), &["line 6:", "not within the duration"]);
        refuse(
            &format!("[workload]\nretried = 0.1\n{one}at = \"1s\"\nto = \"sp1\""),
            &["line 4:", "beside workload.publ"],
        );
        refuse("[acms]\nquorum = \"sets:1+2,3\"", &["line 4:"]);
        refuse("[fleet]\nsubscribe = [\n\"a\",\n\"a//b\"]", &["line 6:"]);
        let set = [("fleet.storage_points".to_owned(), "4".to_owned())];
        let error = Scenario::parse("x", &text(""), &set).unwrap_err().to_string();
        assert!(error.contains("--set fleet.storage_points=4: "), "{error}");
    }

    #[test]
    fn a_hunt_that_no_seed_could_draw_is_refused() {
        for (key, value, reason) in [
            ("paths", "0..0", "must be within 1.."),
            ("storage_points", "[3, 4]", "must be odd"),
            ("storage_points", "[0]", "must be odd"),
            ("rtt", "[\"moon\"]", "is \"loopback\" or"),
            ("rtt", "[\"azure-5\"]", "did you mean \"azure-50\""),
            ("receivers", "2..5000000000", "must be within 0..200000"),
            ("caches", "0..20000", "must be within"),
            ("fault_length", "0s..1s", "longer than nothing"),
            ("fault_length", "1s..2h", "within the shortest"),
            ("rate", "0..1KiB", "one byte"),
            ("large_size", "1KiB..2GiB", "at most 1 GiB"),
            ("modes", "[]", "choice between nothing"),
            ("fault_kinds_min", "99", "is more than"),
        ] {
            let set = [(format!("hunt.{key}"), value.to_owned())];
            let error = Scenario::load("storm", &set).unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains(&format!("--set hunt.{key}")), "{key} = {value}: {error}");
        }
    }
}
