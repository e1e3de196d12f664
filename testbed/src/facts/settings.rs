//! What a trace says about the run at its start: settings, the true wall clock, and how far hosts' clocks are off it.

use super::Event;
use acms_engine::protocol::{QuorumSystem, SpId, SpSet, quorum::Quorum};
use std::collections::BTreeMap;

/// Events `config`.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    pub(crate) scenario: Option<String>,
    pub(crate) seed: Option<String>,
    pub(crate) backend: Option<String>,
    quorum: QuorumSystem,
    /// A quorum system that this version cannot read.
    pub(crate) bad: Option<String>,
    storage_points: Option<u8>,
    /// Whether publications are ordered by clocks and known UIDs alone, unless they ask for more.
    pub(crate) is_fast: bool,
    /// Whether the scenario is another than its name says.
    is_changed: bool,
}

impl Settings {
    pub(super) fn take(&mut self, name: &str, value: &str) {
        match name {
            "scenario" => self.scenario = Some(value.to_owned()),
            "seed" => self.seed = Some(value.to_owned()),
            "backend" => self.backend = Some(value.to_owned()),
            "changed" => self.is_changed = true,
            "order" => self.is_fast = value == "fast",
            "storage_points" => self.storage_points = value.parse().ok(),
            "quorum" => match value.parse() {
                Ok(quorum) => self.quorum = quorum,
                Err(error) => self.bad = Some(format!("config quorum={value}: {error}")),
            },
            // Later versions may say more.
            _ => {}
        }
    }

    /// The quorums; `started` are the SPs that were seen to start, for a trace that does not say how many there are.
    pub(super) fn quorum(&self, started: SpSet) -> Option<Quorum> {
        let members: Vec<SpId> = match self.storage_points {
            Some(count) => (1..=count).map(SpId).collect(),
            None => started.iter().collect(),
        };
        Quorum::new(&self.quorum, &members).ok()
    }

    /// The command that makes the trace again, as far as the trace itself tells: of scenarios that come with the testbed,
    /// if nothing of them was set otherwise.
    pub(crate) fn replay(&self) -> Option<String> {
        let (scenario, seed) = (self.scenario.as_ref()?, self.seed.as_ref()?);
        if self.is_changed || !crate::scenario::builtin_names().any(|name| name == scenario) {
            return None;
        }
        let backend = self.backend.as_deref().unwrap_or("local");
        Some(format!("acms-testbed run {scenario} --backend {backend} --seed {seed}"))
    }
}

/// The true wall clock and those of the hosts.
#[derive(Debug, Default)]
pub(crate) struct Clocks {
    /// A time of the trace and the true microseconds since 1970 at it.
    wall: Option<(u64, u64)>,
    /// Of each SP: since when, how far ahead in microseconds, and the drift in parts per million.
    ahead: BTreeMap<SpId, (u64, i64, i64)>,
    /// SPs whose clock was ever fast by more than the bound.
    fast: SpSet,
}

impl Clocks {
    /// Epsilon of promise P7.
    pub(crate) const ERROR_US_MAX: u64 = 500_000;

    pub(super) fn take_wall(&mut self, event: &Event) {
        let us = event.cause.as_deref().and_then(|text| text.parse().ok());
        self.wall = us.map(|us| (event.time_ns, us)).or(self.wall);
    }

    pub(super) fn take_clock(&mut self, sp: SpId, event: &Event) {
        let mut words =
            event.cause.as_deref().unwrap_or_default().split(' ').map(|word| word.parse::<i64>().unwrap_or(0));
        let (ahead_us, drift_ppm) = (words.next().unwrap_or(0), words.next().unwrap_or(0));
        // Of the clock as it was until now, too.
        self.look(event.time_ns);
        self.ahead.insert(sp, (event.time_ns, ahead_us, drift_ppm));
        self.look(event.time_ns);
    }

    /// The true microseconds since 1970 at a time of the trace.
    pub(crate) fn true_us(&self, time_ns: u64) -> Option<u64> {
        let (wall_ns, wall_us) = self.wall?;
        Some(wall_us.saturating_add(time_ns / 1000).saturating_sub(wall_ns / 1000))
    }

    /// Notes which clocks are too fast now.
    pub(super) fn look(&mut self, time_ns: u64) {
        for (sp, (since_ns, ahead_us, drift_ppm)) in &self.ahead {
            let elapsed_s = i64::try_from(time_ns.saturating_sub(*since_ns) / 1_000_000_000).unwrap_or(i64::MAX);
            // A whole second is added, so that rounding down does not call a clock right that is not.
            let drift_us = elapsed_s.saturating_add(1).saturating_mul(*drift_ppm);
            let drifts = if *drift_ppm == 0 { 0 } else { drift_us };
            if ahead_us.saturating_add(drifts) > Clocks::ERROR_US_MAX as i64 {
                self.fast = self.fast.union(SpSet::one(*sp));
            }
        }
    }

    /// How far ahead the slowest clock is at a time of the trace, in microseconds; 0 if all are right or ahead.
    pub(crate) fn slowest_us(&self, time_ns: u64) -> i64 {
        let ahead = self.ahead.values().map(|(since_ns, ahead_us, drift_ppm)| {
            let elapsed_s = i64::try_from(time_ns.saturating_sub(*since_ns) / 1_000_000_000).unwrap_or(i64::MAX);
            ahead_us.saturating_add(elapsed_s.saturating_add(1).saturating_mul(*drift_ppm))
        });
        ahead.min().unwrap_or(0).min(0)
    }

    /// SPs whose clock was fast by more than epsilon at any time so far.
    pub(crate) fn fast(&self) -> SpSet {
        self.fast
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{Kind, Text};

    fn event(time_s: u64, cause: &str) -> Event {
        let cause = Some(Text::from(cause));
        Event { cause, ..Event::new(time_s * 1_000_000_000, &"sp1".into(), 0, Kind::Clock) }
    }

    #[test]
    fn clocks_that_were_ever_fast_are_remembered() {
        let mut clocks = Clocks::default();
        clocks.take_wall(&event(10, "1000000"));
        assert_eq!(
            (clocks.true_us(10_000_000_000), clocks.true_us(11_000_000_500)),
            (Some(1_000_000), Some(2_000_000))
        );
        clocks.take_clock(SpId(1), &event(0, "-3600000000"));
        clocks.take_clock(SpId(2), &event(0, "400000 100"));
        clocks.take_clock(SpId(3), &event(0, "600000"));
        clocks.take_clock(SpId(3), &event(1, "0"));
        assert_eq!(clocks.fast(), SpSet::one(SpId(3)));
        clocks.look(1_100_000_000_000);
        assert_eq!(clocks.fast(), [SpId(2), SpId(3)].into_iter().collect());
    }

    #[test]
    fn only_what_its_name_makes_again_has_a_command() {
        let mut settings = Settings::default();
        [("scenario", "quickstart"), ("seed", "7")].iter().for_each(|(name, value)| settings.take(name, value));
        assert_eq!(settings.replay().as_deref(), Some("acms-testbed run quickstart --backend local --seed 7"));
        settings.take("scenario", "storm-17");
        assert_eq!(settings.replay(), None);
        settings.take("scenario", "quickstart");
        settings.take("changed", "options or file");
        assert_eq!(settings.replay(), None);
    }

    #[test]
    fn the_quorum_system_is_the_scenarios() {
        let mut settings = Settings::default();
        let three: SpSet = [SpId(1), SpId(2), SpId(3)].into_iter().collect();
        let two: SpSet = [SpId(2), SpId(3)].into_iter().collect();
        assert!(settings.quorum(three).unwrap().is_quorum(two));
        settings.take("quorum", "weighted:1=3,2=1,3=1");
        assert!(!settings.quorum(three).unwrap().is_quorum(two));
        settings.take("storage_points", "5");
        settings.take("quorum", "majority");
        assert!(!settings.quorum(three).unwrap().is_quorum(two));
        settings.take("quorum", "nonsense");
        assert!(settings.bad.is_some());
    }
}
