//! Kinds of faults, whom each may hit and what it needs to be told.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{fmt, str::FromStr};

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A way to go wrong.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        #[non_exhaustive]
        pub enum FaultKind {
            $($(#[$doc])* $variant,)*
        }

        impl FaultKind {
            /// All of them.
            pub const ALL: &[FaultKind] = &[$(FaultKind::$variant),*];

            /// Its name in scenarios and traces.
            pub fn name(self) -> &'static str {
                match self {
                    $(FaultKind::$variant => $name,)*
                }
            }
        }
    };
}

kinds! {
    // Processes.
    /// `kill -9`: memory is gone; what was written stays, flushed or not. Undone by starting the process again.
    Kill = "kill",
    /// SIGSTOP, of a container the engine's freezer; undone by SIGCONT, or by thawing.
    Pause = "pause",
    /// SIGTERM and a graceful end; undone by starting the process again.
    Restart = "restart",
    /// Killed and started again and again: `up` long up (default 1 s), `down` long down (default 100 ms); at its end up.
    CrashLoop = "crash-loop",

    // Links.
    /// Nothing passes between the target and anyone.
    Isolate = "isolate",
    /// Nothing passes between target and `peer`, in one `direction` or both.
    Partition = "partition",
    /// A partition that comes and goes: `up` long it works (default 1 s), `down` long it does not (default 1 s).
    Flap = "flap",
    /// A part of what is sent is lost: `loss`.
    Loss = "loss",
    /// Narrow or long links: `rate` bytes a second on each of them, one way `delay` longer.
    SlowLink = "slow-link",

    // Disks.
    /// No file grows and none is made, for want of room, and on half of the simulated disks the log has no blank space left either:
    /// what is to be written is refused; what is there can be read.
    DiskFull = "disk-full",
    /// Flushes take `delay` longer (default 100 ms).
    DiskSlow = "disk-slow",
    /// Writes and flushes fail. A storage point ends, which is undone by a disk that works and a start; a receiver goes
    /// on without what it cannot put in place.
    DiskFail = "disk-fail",
    /// The process is killed and its disk is gone; undone by replacing the store and a start.
    DiskLost = "disk-lost",
    /// The process stands still, and another with an empty store takes its place, as if its disk were lost; when the
    /// fault ends, the old one goes on beside it, finds out that its store is void, and stops.
    StoreReplaced = "store-replaced",
    /// Bits of `count` stored contents change (default 1). A storage point that reads one fetches it again; its end undoes nothing.
    DiskRot = "disk-rot",
    /// Power fails: the process is killed, and of each write that no flush has reached any part may be there, in any
    /// order; undone by starting the process again.
    DiskTorn = "disk-torn",

    // Clocks.
    /// The clock moves away evenly until it is off `by` so much when the fault ends; undone by setting it right.
    ClockSkew = "clock-skew",
    /// The clock is off `by` so much at once; undone by setting it right.
    ClockJump = "clock-jump",

    // Caches. Each hits a `part` of the replies (default: all).
    /// Bytes of replies change.
    CacheCorrupt = "cache-corrupt",
    /// Replies end too early.
    CacheTruncate = "cache-truncate",
    /// What the cache has is served, however old, and nothing is asked again.
    CacheStale = "cache-stale",
    /// Replies are those of an earlier time, though newer ones were served since.
    CacheRollback = "cache-rollback",
}

/// What a host is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Role {
    /// A storage point.
    StoragePoint,
    /// A cache.
    Cache,
    /// A receiver.
    Receiver,
}

impl Role {
    /// What the host called `name` is.
    pub fn of(name: &str) -> Option<Role> {
        match name.trim_end_matches(|c: char| c.is_ascii_digit()) {
            "sp" => Some(Role::StoragePoint),
            "cache" => Some(Role::Cache),
            "receiver" => Some(Role::Receiver),
            _ => None,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::StoragePoint => "a storage point",
            Role::Cache => "a cache",
            Role::Receiver => "a receiver",
        })
    }
}

/// A key that a kind of fault understands, and whether it must be given.
pub type Parameter = (&'static str, bool);

impl FaultKind {
    /// The keys that it understands beside `kind`, `target`, `at` and `for`, and whether each must be given.
    pub fn parameters(self) -> &'static [Parameter] {
        use FaultKind::*;
        match self {
            Kill | Pause | Restart | DiskFull | DiskFail | DiskLost | StoreReplaced | DiskTorn => &[],
            CrashLoop => &[("up", false), ("down", false)],
            Isolate => &[("direction", false)],
            Partition => &[("peer", true), ("direction", false)],
            Flap => &[("peer", false), ("direction", false), ("up", false), ("down", false)],
            Loss => &[("loss", true), ("peer", false), ("direction", false)],
            SlowLink => &[("rate", false), ("delay", false), ("peer", false), ("direction", false)],
            DiskSlow => &[("delay", false)],
            DiskRot => &[("count", false)],
            ClockSkew | ClockJump => &[("by", true)],
            CacheCorrupt | CacheTruncate | CacheStale | CacheRollback => &[("part", false)],
        }
    }

    /// Whether hosts of this role have what it breaks.
    pub fn may_hit(self, role: Role) -> bool {
        use FaultKind::*;
        match self {
            Kill | Pause | Restart | CrashLoop | Isolate | Partition | Flap | Loss | SlowLink => true,
            DiskFull | DiskFail | DiskSlow | DiskTorn | ClockSkew | ClockJump => role != Role::Cache,
            DiskLost | StoreReplaced | DiskRot => role == Role::StoragePoint,
            CacheCorrupt | CacheTruncate | CacheStale | CacheRollback => role == Role::Cache,
        }
    }

    /// Whether it happens on the way between hosts.
    pub fn is_of_link(self) -> bool {
        use FaultKind::*;
        matches!(self, Isolate | Partition | Flap | Loss | SlowLink)
    }

    /// Whether it moves a clock.
    pub fn is_of_clock(self) -> bool {
        matches!(self, FaultKind::ClockSkew | FaultKind::ClockJump)
    }

    /// Whether it shows in how calls of the file system fare.
    pub fn is_of_calls(self) -> bool {
        matches!(self, FaultKind::DiskFull | FaultKind::DiskSlow | FaultKind::DiskFail)
    }

    /// Whether it shows in what caches answer.
    pub fn is_of_replies(self) -> bool {
        use FaultKind::*;
        matches!(self, CacheCorrupt | CacheTruncate | CacheStale | CacheRollback)
    }

    /// Whether it can be brought about with real processes.
    pub fn is_real(self) -> bool {
        use FaultKind::*;
        let is_of_process = matches!(self, Kill | Pause | Restart | CrashLoop | DiskLost);
        is_of_process || self.is_of_link() || self.is_of_clock() || self.is_of_calls() || self.is_of_replies()
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text names no fault.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadFault {
    /// No such fault.
    #[error("unknown fault `{0}`, expected one of {all}", all = names())]
    Unknown(String),
}

fn names() -> String {
    let quoted: Vec<String> = FaultKind::ALL.iter().map(|kind| format!("`{kind}`")).collect();
    quoted.join(", ")
}

impl FromStr for FaultKind {
    type Err = BadFault;

    fn from_str(name: &str) -> Result<FaultKind, BadFault> {
        let found = FaultKind::ALL.iter().find(|kind| kind.name() == name);
        found.copied().ok_or_else(|| BadFault::Unknown(name.chars().take(40).collect()))
    }
}

impl Serialize for FaultKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FaultKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<FaultKind, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}
