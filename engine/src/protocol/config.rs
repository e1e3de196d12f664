//! Configuration of a cluster and of one storage point of it.

use crate::protocol::{
    Hash, SpId, StoreId,
    encoding::Writer,
    quorum::{Quorum, QuorumError, QuorumSystem},
};
use std::time::Duration;

/// How a publication is accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Storing and setting the own bit are one durable write.
    #[default]
    Fused,
    /// As published: storage points store and confirm; the exchange begins once a quorum has confirmed.
    TwoPhase,
}

/// What UIDs are ordered by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// A quorum's answers to the order query.
    #[default]
    Strict,
    /// The UID that the publisher knows, and clocks.
    Fast,
}

/// Bounds and intervals. SPs may differ in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A publication must be accepted this long after its content is here.
    pub publish: Duration,
    /// First interval of sending pending vectors again.
    pub resend_min: Duration,
    /// Last interval of sending pending vectors again.
    pub resend_max: Duration,
    /// Bits of others are passed on after this.
    pub relay: Duration,
    /// Roots that differ for this long are merged.
    pub merge: Duration,
    /// A new root is made after a quiet moment of this.
    pub root_quiet: Duration,
    /// A new root is made at latest after this.
    pub root_max: Duration,
    /// An idle SP mints a sequence after this.
    pub idle_sequence: Duration,
    /// The last change of a path is kept this long for cursors ...
    pub changes_kept: Duration,
    /// ... within this many bytes.
    pub changes_bytes_max: usize,
    /// Nodes and contents of roots served are kept this long.
    pub roots_kept: Duration,
    /// Submissions that may wait at once.
    pub submissions_max: usize,
    /// Largest content.
    pub content_len_max: u64,
    /// Versions of a path whose contents are kept, the current one among them.
    pub versions_kept: usize,
    /// Outcomes and keys are remembered for so long ...
    pub outcomes_kept: Duration,
    /// ... but no more than this many beside those of entries, pending publications and kept versions: each costs about
    /// a kilobyte of memory, and its manifest in the store. Where more than this many leave the kept versions in a day,
    /// the oldest are forgotten sooner: at a hundred a second, 200,000 last 33 minutes. A key that is forgotten is free.
    pub outcomes_max: usize,
    /// A round to raise as-of begins this often.
    pub as_of_round: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            publish: Duration::from_secs(9),
            resend_min: Duration::from_millis(100),
            resend_max: Duration::from_secs(5),
            relay: Duration::from_millis(5),
            merge: Duration::from_secs(20),
            root_quiet: Duration::from_millis(10),
            root_max: Duration::from_millis(250),
            idle_sequence: Duration::from_secs(25),
            changes_kept: Duration::from_secs(90),
            changes_bytes_max: 64 << 20,
            roots_kept: Duration::from_secs(300),
            submissions_max: 10_000,
            content_len_max: 256 << 20,
            versions_kept: 10,
            outcomes_kept: Duration::from_secs(24 * 3_600),
            outcomes_max: 200_000,
            as_of_round: Duration::from_secs(1),
        }
    }
}

/// What one storage point knows of its cluster when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The cluster's name.
    pub cluster: String,
    /// Number of this configuration of the cluster.
    pub epoch: u32,
    /// This SP.
    pub me: SpId,
    /// This SP's store.
    pub store: StoreId,
    /// All SPs, ascending, this one among them.
    pub members: Vec<SpId>,
    /// How publications are accepted.
    pub mode: Mode,
    /// What UIDs are ordered by unless a submission says otherwise.
    pub order: Order,
    /// Which sets of SPs are quorums.
    pub quorum: QuorumSystem,
    /// How far an unagreed UID may be ahead of an SP's wall clock.
    pub max_drift: Duration,
    /// Bounds and intervals.
    pub limits: Limits,
}

/// Why a configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// No members, or an even number would be legal but this SP is none of them, or ids out of range or twice.
    #[error("{0}")]
    Members(String),
    /// The cluster's name is empty or too long.
    #[error("the cluster's name must have 1 to 63 characters of letters, digits and -")]
    Cluster,
    /// The quorum system does not fit the members.
    #[error("{0}")]
    Quorum(#[from] QuorumError),
}

/// Number of the index encoding; SPs change it together.
pub const INDEX_FORMAT: u32 = crate::protocol::node::FORMAT as u32;

impl Config {
    /// Checks what can be checked.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let name_ok = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if self.cluster.is_empty() || self.cluster.len() > 63 || !self.cluster.bytes().all(name_ok) {
            return Err(ConfigError::Cluster);
        }
        if !self.members.is_sorted_by(|a, b| a < b) {
            return Err(ConfigError::Members("ids of storage points must differ".into()));
        }
        if self.members.iter().any(|sp| *sp < SpId(1) || *sp > SpId::MAX) {
            return Err(ConfigError::Members("ids of storage points are 1 to 63".into()));
        }
        if !self.members.contains(&self.me) {
            return Err(ConfigError::Members(format!("storage point {} is not a member of its own cluster", self.me)));
        }
        Quorum::new(&self.quorum, &self.members)?;
        Ok(())
    }

    /// Hash over what all SPs must agree on: cluster, epoch, ids, quorum system, mode, `max_drift`, index format.
    /// Never addresses or limits.
    pub fn hash(&self) -> Hash {
        let mut out = Writer::new();
        out.str("acms configuration 1");
        out.str(&self.cluster);
        out.varint(self.epoch.into());
        out.varint(self.members.len() as u64);
        self.members.iter().for_each(|sp| out.u8(sp.0));
        out.str(&self.quorum.to_string());
        out.str(match self.mode {
            Mode::Fused => "fused",
            Mode::TwoPhase => "two-phase",
        });
        out.varint(u64::try_from(self.max_drift.as_micros()).unwrap_or(u64::MAX));
        out.varint(INDEX_FORMAT.into());
        Hash::of(&out.0)
    }
}
