//! The processes of a run.

use super::{
    ProcessId, VersionId,
    holdings::{Held, Pages},
};
use crate::trace::Text;
use acms_engine::protocol::{Hash, Prefix, SpId};

/// What part a process has, by its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// `sp2`.
    StoragePoint(SpId),
    /// `cache1`.
    Cache,
    /// `receiver17`.
    Receiver,
    /// Publishers, the testbed.
    Other,
}

impl Role {
    pub(crate) fn of(name: &str) -> Role {
        let is_numbered =
            |prefix: &str| name.strip_prefix(prefix).filter(|rest| rest.bytes().all(|b| b.is_ascii_digit()));
        if let Some(sp) = is_numbered("sp").and_then(|number| number.parse().ok()) {
            Role::StoragePoint(SpId(sp))
        } else if is_numbered("cache").is_some() {
            Role::Cache
        } else if name.starts_with("receiver") {
            Role::Receiver
        } else {
            Role::Other
        }
    }
}

/// One process, over all its lives.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) name: Text,
    pub(crate) role: Role,
    /// Whether it was ever started.
    pub(crate) is_started: bool,
    /// Whether it runs.
    pub(crate) is_up: bool,
    /// Since when it runs (ran, while it is down) without a break.
    pub(crate) up_since_ns: u64,
    /// When its present life began; a pause does not end a life.
    pub(crate) life_ns: u64,
    /// How often it was started.
    pub(super) lives: u32,
    /// Whether it said in its present life what it has from the one before, if there was one.
    pub(crate) has_said_recovered: bool,
    /// Which set of subscriptions it has.
    pub(super) group: Option<u32>,
    /// What it holds.
    pub(super) held: Pages<Held>,
    /// What the audit at the end found.
    pub(super) finals: Pages<Option<VersionId>>,
    /// Whether its audit is complete.
    pub(crate) is_audited: bool,
    /// The root of its index, as the audit found it.
    pub(crate) root: Option<Hash>,
}

impl Process {
    pub(super) fn new(name: &Text) -> Process {
        Process {
            name: Text::clone(name),
            role: Role::of(name),
            is_started: false,
            is_up: false,
            up_since_ns: 0,
            life_ns: 0,
            lives: 0,
            has_said_recovered: false,
            group: None,
            held: Pages::default(),
            finals: Pages::default(),
            is_audited: false,
            root: None,
        }
    }

    /// Which storage point it is.
    pub(crate) fn sp(&self) -> Option<SpId> {
        match self.role {
            Role::StoragePoint(sp) => Some(sp),
            _ => None,
        }
    }

    pub(crate) fn is_receiver(&self) -> bool {
        self.role == Role::Receiver
    }

    /// Whether it has run without a break since `from_ns`.
    pub(crate) fn ran_since(&self, from_ns: u64) -> bool {
        self.is_up && self.up_since_ns <= from_ns
    }
}

/// Receivers with the same subscriptions: what they want is worked out once for each path.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) prefixes: Vec<Prefix>,
    pub(super) wants: Vec<bool>,
    /// Who has them; a receiver that has subscribed to more since is of another group.
    pub(super) members: Vec<ProcessId>,
}

impl Group {
    pub(super) fn covers(&self, path: &str) -> bool {
        self.prefixes.iter().any(|prefix| prefix.covers(path))
    }
}
