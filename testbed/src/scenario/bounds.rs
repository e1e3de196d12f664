//! Between what bounds the hunt draws scenarios: the section `[hunt]` (see [`crate::hunt`]).

use super::{ByteRange, Delivery, Fraction, Range, Span, SpanRange};
use crate::faults::FaultKind;
use acms_engine::protocol::{Mode, Order};
use serde::{Deserialize, Serialize};

/// Which quorum systems are drawn.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QuorumFamily {
    /// More than half.
    Majority,
    /// Votes (Gifford 1979).
    Weighted,
    /// Majorities of majorities (Kumar 1991).
    Hierarchical,
    /// Explicit sets.
    Sets,
}

/// Bounds of what a seed draws. A list is a choice between its members, a range includes both ends.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    /// The scenarios ask for `refine`.
    #[serde(default)]
    pub refine: bool,
    /// Numbers of storage points.
    pub storage_points: Vec<u8>,
    /// Quorum systems.
    pub quorums: Vec<QuorumFamily>,
    /// Modes.
    pub modes: Vec<Mode>,
    /// Orders.
    pub orders: Vec<Order>,
    /// `acms.max_drift`.
    pub max_drift: Vec<Span>,
    /// Number of caches.
    pub caches: Range,
    /// Number of receivers.
    pub receivers: Range,
    /// How long updates go on and faults come and go; then all faults stop and delivery is demanded.
    pub duration: SpanRange,
    /// `network.rtt`.
    pub rtt: Vec<String>,
    /// `network.delivery`.
    pub delivery: Vec<Delivery>,
    /// `network.jitter` at most.
    pub jitter_max: Fraction,
    /// `network.loss` at most.
    pub loss_max: Fraction,
    /// `network.duplicate` at most.
    pub duplicate_max: Fraction,
    /// `network.reorder` at most.
    pub reorder_max: Fraction,
    /// `network.rate` of those clusters that have one.
    pub rate: ByteRange,
    /// Clocks of storage points behind by at most this; those of a set without a quorum ahead, too.
    pub skew_max: Span,
    /// `clocks.drift_ppm` at most.
    pub drift_ppm_max: u32,
    /// `disk.flush`.
    pub flush: SpanRange,
    /// Number of publications.
    pub publications: Range,
    /// Number of different paths: few, so that publications collide.
    pub paths: Range,
    /// The part of publications above 64 KiB.
    pub large: Fraction,
    /// Sizes of those.
    pub large_size: ByteRange,
    /// The part that is tried again under the same key.
    pub retried: Fraction,
    /// The part that deletes.
    pub deletes: Fraction,
    /// Number of faults.
    pub faults: Range,
    /// How many different kinds of faults each run has at least.
    pub fault_kinds_min: u32,
    /// How long a fault lasts.
    pub fault_length: SpanRange,
    /// Kinds of faults.
    pub fault_kinds: Vec<FaultKind>,
}
