//! What goes wrong for a while, and whom it hits.

use super::{Bytes, Fraction, Shift, Span};
use crate::faults::FaultKind;
use serde::{Deserialize, Serialize};

/// Something that goes wrong for a while. Beside kind, target and time each kind has the parameters that
/// [`FaultKind::parameters`] lists.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What.
    pub kind: FaultKind,
    /// Whom it hits.
    pub target: Target,
    /// When it begins, counted from the first update.
    pub at: Span,
    /// How long it lasts; without it, to the end of the updates (a restart: no longer than it takes).
    #[serde(rename = "for", default, skip_serializing_if = "Option::is_none")]
    pub lasts: Option<Span>,
    /// Faults of links: the other end; without it, everyone else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<Target>,
    /// Faults of links: which way, seen from the target; without it, both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// `loss`: the part of what is sent that is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<Fraction>,
    /// `slow-link`: bytes a second that pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Bytes>,
    /// `slow-link`: one way takes so much longer. `disk-slow`: a flush does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Span>,
    /// `clock-jump`, `clock-skew`: how far the clock is off then; `-3s` is behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Shift>,
    /// `flap`, `crash-loop`: how long it works in between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up: Option<Span>,
    /// `flap`, `crash-loop`: how long it does not work each time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down: Option<Span>,
    /// `disk-rot`: how many stored contents are damaged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// Faults of caches: the part of replies that is hit; without it, all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Fraction>,
}

impl Fault {
    /// A fault without parameters.
    pub fn new(kind: FaultKind, target: impl Into<Target>, at: Span, lasts: Option<Span>) -> Fault {
        let target = target.into();
        let (peer, direction, loss, rate, delay) = (None, None, None, None, None);
        let (by, up, down, count, part) = (None, None, None, None, None);
        Fault { kind, target, at, lasts, peer, direction, loss, rate, delay, by, up, down, count, part }
    }

    /// The parameters that are given, by their keys.
    pub fn given(&self) -> impl Iterator<Item = &'static str> {
        let given = [
            ("peer", self.peer.is_some()),
            ("direction", self.direction.is_some()),
            ("loss", self.loss.is_some()),
            ("rate", self.rate.is_some()),
            ("delay", self.delay.is_some()),
            ("by", self.by.is_some()),
            ("up", self.up.is_some()),
            ("down", self.down.is_some()),
            ("count", self.count.is_some()),
            ("part", self.part.is_some()),
        ];
        given.into_iter().filter(|(_, is_given)| *is_given).map(|(key, _)| key)
    }
}

/// Which way a fault of a link goes, seen from its target.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// What the target sends.
    Out,
    /// What is sent to it.
    In,
    /// Either.
    #[default]
    Both,
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
        let meant = |host: &str| self.patterns().iter().any(|pattern| is_meant(pattern, host));
        hosts.iter().map(String::as_str).filter(|host| meant(host)).collect()
    }

    /// The first name or pattern that means none of `hosts`.
    pub(super) fn stranger(&self, hosts: &[String]) -> Option<&str> {
        let found = self.patterns().iter().find(|pattern| !hosts.iter().any(|host| is_meant(pattern, host)));
        found.map(String::as_str)
    }
}

fn is_meant(pattern: &str, host: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => host.strip_prefix(start).is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit())),
        None => host == pattern,
    }
}

impl From<&str> for Target {
    fn from(name: &str) -> Target {
        Target::One(name.to_owned())
    }
}

impl From<Vec<String>> for Target {
    fn from(mut names: Vec<String>) -> Target {
        if names.len() == 1 { Target::One(names.remove(0)) } else { Target::Several(names) }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.patterns().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_names_and_patterns() {
        let hosts: Vec<String> = ["sp1", "sp2", "sp12", "receiver1"].map(String::from).to_vec();
        let select = |target: &Target| target.select(&hosts).join(" ");
        assert_eq!(select(&"sp1".into()), "sp1");
        assert_eq!(select(&"sp*".into()), "sp1 sp2 sp12");
        assert_eq!(select(&"sp1*".into()), "sp1 sp12");
        assert_eq!(select(&vec!["receiver1".to_owned(), "sp2".to_owned()].into()), "sp2 receiver1");
        assert_eq!(select(&"cache1".into()), "");
        assert_eq!(Target::from(vec!["sp1".to_owned(), "sp9".to_owned()]).stranger(&hosts), Some("sp9"));
    }
}
