//! What `/v1/status` says, as far as `acms status` looks at it. What another version does not say is absent, no error.

use crate::protocol::QuorumSystem;
use serde::Deserialize;
use serde_json::Value;

/// One storage point's status.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Answer {
    pub(super) cluster: String,
    pub(super) sp: u8,
    pub(super) epoch: u32,
    pub(super) incarnation: String,
    pub(super) root: String,
    pub(super) version: String,
    pub(super) quorum: Option<String>,
    pub(super) as_of_us: u64,
    pub(super) clock_us: u64,
    pub(super) uptime_s: u64,
    pub(super) peers: Vec<Peer>,
    pub(super) protocol: Protocol,
    pub(super) store: Store,
    /// All of it.
    #[serde(skip)]
    pub(super) raw: Value,
}

/// What it says of another one.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Peer {
    pub(super) id: u8,
    pub(super) url: Option<String>,
    pub(super) connected: bool,
    pub(super) round_trip_us: Option<u64>,
    pub(super) clock_offset_us: Option<i64>,
    pub(super) down_s: Option<u64>,
    pub(super) problem: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Protocol {
    pub(super) pending: u64,
    pub(super) paths: u64,
    pub(super) contents_damaged_total: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Store {
    pub(super) free_bytes: Option<u64>,
    pub(super) disk_bytes: Option<u64>,
    pub(super) log: Log,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Log {
    pub(super) log_bytes: u64,
    pub(super) failures_total: u64,
}

impl Answer {
    /// How old its as-of is; none: nothing is promised yet.
    pub(super) fn as_of_age_ms(&self) -> Option<u64> {
        (self.as_of_us > 0).then(|| self.clock_us.saturating_sub(self.as_of_us) / 1_000)
    }

    /// Part of the disk that is taken, in percent.
    pub(super) fn disk_used_percent(&self) -> Option<u64> {
        let (all, free) = (self.store.disk_bytes.filter(|bytes| *bytes > 0)?, self.store.free_bytes?);
        Some(100 - (free.min(all) * 100).div_ceil(all))
    }

    pub(super) fn quorum(&self) -> QuorumSystem {
        self.quorum.as_ref().and_then(|text| text.parse().ok()).unwrap_or_default()
    }
}
