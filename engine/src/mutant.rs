//! Deliberately broken variants of the engine, for testing the checkers.
//!
//! Only a build with the feature `mutants` has them; there the variable `ACMS_MUTANT`, or `choose`, names the one to
//! be. In every other build [`active`] is constantly false and the broken code is gone.

macro_rules! mutants {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A way to be broken. Those of the specification (`engine/spec`) have the names that they have there.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Mutant {
            $($(#[$doc])* $variant,)*
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &[Mutant] = &[$(Mutant::$variant),*];

            /// Its name in `ACMS_MUTANT` and in tables.
            pub fn name(self) -> &'static str {
                match self {
                    $(Mutant::$variant => $name,)*
                }
            }
        }
    };
}

mutants! {
    // The specification's mistakes.
    /// A vector names only the stores whose bits are set in it.
    VectorsCarryStoresOfSetBitsOnly = "vectors-carry-stores-of-set-bits-only",
    /// A UID does not say which store of its SP it came from.
    UidWithoutStoreNumber = "uid-without-store-number",
    /// An older store id overwrites a newer one.
    StoreIdsWithoutOrder = "store-ids-without-order",
    /// A join reply does not say which stores are void.
    JoinRepliesWithoutStoreIds = "join-replies-without-store-ids",
    /// An as-of reply lists pending publications only, not agreed ones that its root lacks.
    AsOfListsPendingOnly = "as-of-lists-pending-only",
    /// A pending publication is dropped for one whose content is not here.
    DropWithoutContent = "drop-without-content",
    /// Two-phase: a key completes a publication whose exchange never began.
    KeyCompletesUnstarted = "key-completes-unstarted",
    /// Two-phase: a joining SP sets its bit where no replier has.
    JoinSetsBitsOnUnstarted = "join-sets-bits-on-unstarted",
    /// A dropped publication takes its key along.
    DropForgetsKey = "drop-forgets-key",
    /// A bit is sent before its write is durable.
    BitBeforeDurable = "bit-before-durable",
    /// Answers to an earlier order query count.
    AnswersOfEarlierQuery = "answers-of-earlier-query",
    /// A quorum may lack one member.
    QuorumOneShort = "quorum-one-short",
    /// The clock starts anew after a restart.
    NoClockCeiling = "no-clock-ceiling",
    /// A replier to a join does not record the new store.
    JoinKeepsOldStoreId = "join-keeps-old-store-id",
    /// One reply is enough to join.
    JoinFromTooFew = "join-from-too-few",
    /// A joining SP answers order queries.
    JoiningAnswersQueries = "joining-answers-queries",
    /// Replies to an earlier as-of request count.
    AsOfRepliesOfEarlierRequest = "as-of-replies-of-earlier-request",
    /// As-of does not wait for publications with a UID above it.
    AsOfIgnoresUidsAboveIt = "as-of-ignores-uids-above-it",
    /// As-of is taken from the own clock alone.
    AsOfIgnoresRepliersClocks = "as-of-ignores-repliers-clocks",
    /// As-of does not wait for a quorum.
    AsOfFromTooFew = "as-of-from-too-few",
    /// Fused: *rejected* after offers have left.
    RejectedAfterOffer = "rejected-after-offer",
    /// Two-phase: *rejected* after the exchange has begun.
    RejectedAfterExchangeStarted = "rejected-after-exchange-started",
    /// Two-phase: a restart begins the exchange of what was only stored.
    RestartStartsExchange = "restart-starts-exchange",
    /// A pending publication is dropped for a newer one that is not agreed.
    DropWithoutAgreed = "drop-without-agreed",
    /// An order query is answered with the greatest agreed UID, whatever is held.
    AnswerKnowsAgreedOnly = "answer-knows-agreed-only",
    /// A newer store is written lazily, and counts as durable at once: its join is answered before.
    StoreLearnedLazily = "store-learned-lazily",

    // Beyond the specification.
    /// Contents are taken without a look at their hash.
    UnverifiedHash = "unverified-hash",
    /// An agreed publication enters the index before its contents are here.
    IndexBeforeContent = "index-before-content",
    /// A receiver renames its temporary before it is flushed.
    RenameBeforeFlush = "rename-before-flush",
    /// Index merging overlooks tombstones.
    TombstoneLostInMerge = "tombstone-lost-in-merge",
    /// A receiver takes its as-of from an older answer.
    StaleAnswerRaisesAsOf = "stale-answer-raises-as-of",
    /// A changes answer leaves out an entry.
    CursorSkipsEntry = "cursor-skips-entry",
    /// A content that came in several parts is not compared with its hash.
    ResumedTransferUnchecked = "resumed-transfer-unchecked",
    /// Bits of a void store count.
    OldStoreBitsCounted = "old-store-bits-counted",
    /// Records count as durable a second before they are written.
    HoldRecords = "hold-records",
    /// A receiver takes an older entry for a newer one.
    ReceiverGoesBack = "receiver-goes-back",
}

impl std::str::FromStr for Mutant {
    type Err = UnknownMutant;

    fn from_str(name: &str) -> Result<Mutant, UnknownMutant> {
        let found = Mutant::ALL.iter().find(|mutant| mutant.name() == name);
        found.copied().ok_or_else(|| UnknownMutant(name.to_owned()))
    }
}

/// No mutant has this name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("unknown mutant {0:?}")]
pub struct UnknownMutant(pub String);

#[cfg(feature = "mutants")]
mod chosen {
    use super::Mutant;
    use std::cell::Cell;

    thread_local! {
        static CHOSEN: Cell<Option<Mutant>> = Cell::new(from_environment());
    }

    /// A name that is none must not pass for an honest engine.
    fn from_environment() -> Option<Mutant> {
        let name = std::env::var("ACMS_MUTANT").ok()?;
        Some(name.parse().unwrap_or_else(|error| panic!("ACMS_MUTANT: {error}")))
    }

    /// Whether this thread is to be `mutant`.
    pub fn active(mutant: Mutant) -> bool {
        CHOSEN.get() == Some(mutant)
    }

    /// From now on this thread is this variant (none: honest).
    pub fn choose(mutant: Option<Mutant>) {
        CHOSEN.set(mutant);
    }
}

#[cfg(feature = "mutants")]
pub use chosen::{active, choose};

/// Never: this build has no mutants.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn active(_mutant: Mutant) -> bool {
    false
}
