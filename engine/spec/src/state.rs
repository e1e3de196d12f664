//! What a cluster may look like: configuration, publications, storage points, and messages on their way.

use std::hash::{Hash, Hasher};

/// Most storage points in a configuration.
pub const N: usize = 5;
/// Most submissions in a configuration (searched ones have up to 3; traces of the engine have more).
pub const P: usize = 8;
/// Number of a publication or of a storage point, where a state holds one.
pub type Id = u8;
/// A set of storage points, or of publications, as bits.
pub type Set = u8;

/// The set of one member.
pub fn one(i: usize) -> Set {
    1 << i
}

/// Whether `set` contains `i`.
pub fn has(set: Set, i: usize) -> bool {
    set & one(i) != 0
}

/// The members of `set`, ascending.
pub fn members(set: Set) -> impl Iterator<Item = usize> {
    (0..8).filter(move |&i| has(set, i))
}

/// (hybrid logical clock, SP id, number of the SP's store); the derived order is the protocol's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Uid {
    /// Hybrid logical clock.
    pub time: u8,
    /// The accepting SP.
    pub sp: u8,
    /// Which of its stores it had then.
    pub store: u8,
}

/// How a publication is accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Storing and setting the own bit are one durable write.
    Fused,
    /// Store and confirm; Vector Exchange starts once a quorum has confirmed.
    TwoPhase,
}

/// What UIDs are ordered by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// A quorum's answers to the order query.
    Strict,
    /// The UID that the publisher knows (here: of everything accepted before), and clocks.
    Fast,
}

/// A deliberate mistake. `Flaw*`: a reading that an earlier wording of the protocol permitted. `Claim*`: a promise that
/// cannot be kept. `Alternative*`: a rule that was considered and has a price. The others are mutants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the names say it; README.md has the counterexamples")]
pub enum Mistake {
    FlawVectorsCarryStoresOfSetBitsOnly,
    FlawUidWithoutStoreNumber,
    FlawStoreIdsWithoutOrder,
    FlawJoinRepliesWithoutStoreIds,
    FlawAsOfListsPendingOnly,
    FlawDropWithoutContent,
    FlawKeyCompletesUnstarted,
    FlawJoinSetsBitsOnUnstarted,
    FlawDropForgetsKey,
    ClaimOneAgreedPerKey,
    AlternativeOneBitPerKey,
    BitSentBeforeDurable,
    AnswersOfEarlierSubmission,
    QuorumOneShort,
    NoClockCeiling,
    JoinKeepsOldStoreId,
    JoinFromTooFew,
    JoiningAnswersQueries,
    AsOfRepliesOfEarlierRequest,
    AsOfIgnoresUidsAboveIt,
    AsOfIgnoresRepliersClocks,
    AsOfFromTooFew,
    RejectedAfterOffer,
    RejectedAfterExchangeStarted,
    RestartStartsExchange,
    DropWithoutAgreed,
    AnswerKnowsAgreedOnly,
    StoreLearnedLazily,
}

/// Which sets of storage points are quorums.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Quorums {
    /// More than half of all.
    Majority,
    /// Votes of each, and how many are enough.
    Weighted([u8; N], u8),
    /// These sets, and all that contain one of them.
    Sets(&'static [Set]),
}

/// One configuration to search: sizes, modes and budgets of faults.
#[derive(Clone, Debug)]
pub struct Config {
    /// Short name for the table.
    pub name: &'static str,
    /// Storage points.
    pub n: usize,
    /// Submissions.
    pub submissions: usize,
    /// Idempotency key of each submission; equal keys: the later one is a retry of the earlier.
    pub keys: [u8; P],
    /// Quorum system.
    pub quorums: Quorums,
    /// Acceptance mode.
    pub mode: Mode,
    /// Order mode.
    pub order: Order,
    /// Clocks read any of 1..=times, independently at each naming (arbitrary skew).
    pub times: u8,
    /// Which SPs publishers contact.
    pub accepting: Set,
    /// Crashes, each followed by a restart, in all.
    pub crashes: u8,
    /// Lost disks, each followed by `replace`, in all.
    pub losses: u8,
    /// A flush is a step of its own (else: a write is durable at once or was never asked for).
    pub flushes: bool,
    /// A vector carries all bits its sender knows (else: only its own, which is more general for safety).
    pub relay: bool,
    /// Vectors are sent again with the stores known by then, and every message, not only a vector, says which stores
    /// its sender knows.
    pub headers: bool,
    /// SPs also catch up by index merging.
    pub merging: bool,
    /// As-of requests made by SP 0.
    pub asks: u8,
    /// Real time runs from 0 to this, for as-of.
    pub ticks: u8,
    /// Clock minus real time of each SP when it answers an as-of request.
    pub skew: [i8; N],
    /// The mistake to make.
    pub mistake: Option<Mistake>,
}

impl Config {
    /// Whether `set` is a quorum.
    pub fn is_quorum(&self, set: Set) -> bool {
        match self.quorums {
            Quorums::Majority => set.count_ones() as usize > self.n / 2,
            Quorums::Weighted(votes, needed) => members(set).map(|x| votes[x]).sum::<u8>() >= needed,
            Quorums::Sets(sets) => sets.iter().any(|quorum| set & quorum == *quorum),
        }
    }

    /// Whether `set` is a quorum, as the storage points count it.
    pub fn counts_as_quorum(&self, set: Set) -> bool {
        let one_short = || self.makes(Mistake::QuorumOneShort) && (0..self.n).any(|x| self.is_quorum(set | one(x)));
        self.is_quorum(set) || one_short()
    }

    /// Whether this run makes `mistake`.
    pub fn makes(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }
}

/// How far a submission is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Phase {
    /// Not begun.
    #[default]
    Unborn,
    /// The order query is out.
    Asking,
    /// UID taken, offers sent: they can arrive from now on.
    Offered,
    /// A retry that completes the publication which already has its key.
    Completing(Id),
    /// Rejected, or the accepting SP crashed, before a UID was taken.
    Over,
}

/// A submission and, once it has a UID, its publication. What is not marked is known to the accepting SP only, or is
/// a fact that messages carry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Publication {
    /// The accepting SP.
    pub sp: Id,
    /// Progress.
    pub phase: Phase,
    /// Who answered the order query.
    pub answered: Set,
    /// The greatest UID that the publisher knew or an answer named.
    pub floor: Option<Uid>,
    /// A publication with the same key, named by an answer.
    pub same_key: Option<Id>,
    /// Its UID.
    pub uid: Option<Uid>,
    /// Two-phase: who sent a confirmation.
    pub confirmed: Set,
    /// Two-phase: the accepting SP may still start Vector Exchange or reject. Volatile.
    pub undecided: bool,
    /// Observer: the publisher was told *rejected*.
    pub rejected: bool,
    /// Observer: some SP knows or knew it agreed; from then on any SP may answer *accepted*.
    pub accepted: bool,
    /// Observer: when that was.
    pub accepted_at: u8,
    /// Observer: what was accepted when this submission began.
    pub accepted_before: Set,
}

/// What a joining SP was told by those that replied.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Join {
    /// Who replied.
    pub replied: Set,
    /// Publications that a replier holds.
    pub held: Set,
    /// Publications for which a replier has set its own bit.
    pub own: Set,
    /// Publications for which a replier ever had.
    pub own_ever: Set,
    /// Publications whose key a replier knows.
    pub keys: Set,
    /// Publications that a replier knows agreed.
    pub agreed: Set,
    /// The repliers' greatest clock.
    pub clock: u8,
    /// Their newest store numbers.
    pub stores: [u8; N],
}

impl Join {
    /// Adds what another reply says.
    pub fn take(&mut self, said: &Join) {
        self.replied |= said.replied;
        (self.held, self.own, self.own_ever) =
            (self.held | said.held, self.own | said.own, self.own_ever | said.own_ever);
        (self.keys, self.agreed) = (self.keys | said.keys, self.agreed | said.agreed);
        self.clock = self.clock.max(said.clock);
        (0..N).for_each(|y| self.stores[y] = self.stores[y].max(said.stores[y]));
    }
}

/// An as-of request under way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Ask {
    /// Whether one is open.
    pub open: bool,
    /// Who replied.
    pub replied: Set,
    /// The set W.
    pub waits_for: Set,
    /// Real time of the request (round trips are measured from it).
    pub since: u8,
    /// min(t0, each replier's clock - round trip).
    pub bound: i8,
}

/// One storage point.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct StoragePoint {
    /// Durable: the number of its store. Store ids of one SP are ordered by it.
    pub store: u8,
    /// The newest store number known of each SP; bits of older stores are void.
    pub stores: [u8; N],
    /// What of `stores` is durable for certain. The rest is so no later than any bit learned with it.
    pub stores_durable: [u8; N],
    /// Durable: the clock's ceiling.
    pub clock: u8,
    /// Durable: publications whose manifest and content are here.
    pub held: Set,
    /// Durable: publications for which the own bit is set.
    pub own: Set,
    /// Durable: publications for which the own bit was ever set, also those dropped since.
    pub own_ever: Set,
    /// Durable: publications whose key and outcome are remembered.
    pub keys: Set,
    /// Lazy (as-of configurations): the entry in the index root.
    pub root: Option<Id>,
    /// Durable.
    pub as_of: u8,
    /// Durable, in one commit with as-of: agreed marks that no crash takes back.
    pub marks: Set,
    /// Lazy: the vector of each pending publication held here.
    pub bits: [Set; P],
    /// Lazy: publications known agreed.
    pub agreed: Set,
    /// Lazy: publications dropped as superseded.
    pub dropped: Set,
    /// Volatile: writes asked for and not yet durable: manifest and content ...
    pub writing: Set,
    /// ... and own bits.
    pub writing_own: Set,
    /// Volatile: the store is new and not yet filled; the SP takes part in nothing else.
    pub join: Option<Join>,
    /// Volatile: the as-of request.
    pub ask: Ask,
}

/// A vector that was sent. It can arrive any number of times, at any time, or never.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Vector {
    /// Of this publication.
    pub publication: Id,
    /// The bits set.
    pub bits: Set,
    /// The stores that the bits belong to, and that the sender knows of.
    pub stores: [u8; N],
}

/// The whole cluster, the network and the observer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct State {
    /// Submissions and publications. Offers, confirmations and "agreed w" messages need no place of their own: they
    /// can arrive whenever `uid`, `confirmed` or `accepted` says that they were sent.
    pub publications: [Publication; P],
    /// Storage points; only the first n take part.
    pub sps: [StoragePoint; N],
    /// Vectors ever sent, sorted.
    pub vectors: Vec<Vector>,
    /// Observer: real time.
    pub now: u8,
    /// Observer: a publisher was told "superseded by w" for a w that was not agreed or not greater.
    pub false_claim: bool,
    /// Faults and requests used so far.
    pub crashes: u8,
    /// Lost disks so far.
    pub losses: u8,
    /// As-of requests so far.
    pub asks: u8,
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let State { publications, sps, vectors, now, false_claim, crashes, losses, asks } = self;
        let born = publications.iter().take_while(|publication| publication.phase != Phase::Unborn);
        born.for_each(|publication| publication.hash(hasher));
        (sps, vectors, now, false_claim, crashes, losses, asks).hash(hasher);
    }
}

impl State {
    /// UID of publication `p`.
    pub fn uid(&self, p: usize) -> Option<Uid> {
        self.publications[p].uid
    }

    /// The publication of `set` with the greatest UID.
    pub fn greatest(&self, set: Set) -> Option<usize> {
        members(set).max_by_key(|&p| self.uid(p))
    }

    /// UID of the entry in the root of `at`.
    pub fn root_uid(&self, at: usize) -> Option<Uid> {
        self.sps[at].root.and_then(|w| self.uid(w.into()))
    }

    /// The accepting SP of `p`.
    pub fn accepting(&self, p: usize) -> usize {
        self.publications[p].sp.into()
    }

    /// Observer: everything accepted so far.
    pub fn accepted(&self) -> Set {
        (0..P).filter(|&p| self.publications[p].accepted).fold(0, |set, p| set | one(p))
    }

    /// Whether `set` has a publication newer than `p`.
    pub fn has_newer(&self, set: Set, p: usize) -> bool {
        members(set).any(|w| self.uid(w) > self.uid(p))
    }

    /// SPs (of n) whose store is complete.
    pub fn serving(&self, n: usize) -> Set {
        (0..n).filter(|&x| self.sps[x].join.is_none()).fold(0, |set, x| set | one(x))
    }
}
