//! What is recorded of a run.

use crate::state::Set;
use std::collections::BTreeMap;
use std::fmt;

/// A UID as the engine has it. Storage points count from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// Hybrid logical clock, microseconds.
    pub micros: u64,
    /// The accepting SP.
    pub sp: usize,
    /// Number of its store.
    pub store: u32,
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.micros, self.sp + 1, self.store)
    }
}

/// Number of an order query of an SP: (starts, number).
pub type Request = (u32, u64);

/// What an SP answers to an order query.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Answer {
    /// The greatest UID held durably or known agreed.
    pub greatest: Option<Name>,
    /// By place in the query: what its key names.
    pub names: Vec<Option<Name>>,
}

/// What came in.
#[derive(Clone, Debug)]
pub enum Input {
    /// A publisher handed in this submission. They are numbered in the order of time.
    Submitted {
        /// Its number.
        submission: usize,
    },
    /// An order query.
    OrderQuery {
        /// Who asks.
        from: usize,
        /// Its number.
        request: Request,
        /// What was answered, if anything.
        answer: Option<Answer>,
    },
    /// An answer to an order query.
    OrderAnswer {
        /// Who answers.
        from: usize,
        /// The query's number.
        request: Request,
        /// What it says.
        answer: Answer,
    },
    /// The last page of what an SP holds, for this one's new store.
    JoinReply {
        /// Who replies.
        from: usize,
        /// What it says; told apart from other replies by that.
        content: String,
    },
    /// A reply in an as-of round.
    AsOfReply {
        /// Who replies.
        from: usize,
        /// The round's number.
        request: Request,
        /// The replier's clock, microseconds.
        clock_us: u64,
    },
    /// A write has become durable.
    Flushed {
        /// Publications whose manifest and content it holds (with the own bit where that is one write) ...
        held: Vec<Name>,
        /// ... and whose own bit it holds.
        own: Vec<Name>,
    },
    /// The SP has crashed since its last step and is up again; all that its start wrote is durable.
    Restarted {
        /// Publications (or their own bits) in a write that was under way when it crashed: durable or not.
        begun: Vec<Name>,
    },
    /// The SP has lost its disk since its last step; it is up with a new, empty store.
    Replaced,
    /// Anything else.
    Other,
}

/// What a publisher was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    /// Accepted under this name.
    Accepted(Name),
    /// It will never be agreed.
    Rejected,
    /// It may be agreed.
    Undetermined {
        /// Its name, once it has one.
        of: Option<Name>,
        /// What supersedes it, if that is why.
        superseded_by: Option<Name>,
    },
}

/// A publication whose manifest is at an SP.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Known {
    /// Manifest and content are durable.
    pub held: bool,
    /// It is agreed, and its contents are not kept, since a newer one of its path is here.
    pub remembered: bool,
    /// Their write was asked for, or will be as soon as the content has come: it is known agreed.
    pub writing: bool,
    /// The own bit is durable.
    pub own: bool,
    /// Its write was asked for, apart from manifest and content.
    pub own_asked: bool,
    /// It is known agreed.
    pub agreed: bool,
    /// It was dropped, superseded.
    pub dropped: bool,
    /// Its vector.
    pub bits: Set,
}

/// An order query that is out.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Asking {
    /// By place in the query: the submissions that wait (several if they have one key).
    pub submissions: Vec<Vec<usize>>,
    /// Whose answers were taken, the own one among them.
    pub answered: Set,
}

/// What an SP knows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct View {
    /// By SP: the number of its newest store known here; its own among them.
    pub stores: Vec<u32>,
    /// Publications whose manifest is here.
    pub publications: BTreeMap<Name, Known>,
    /// The store is new and not yet filled.
    pub joining: bool,
    /// What each key names (none: a UID that nothing may name yet).
    pub keys: BTreeMap<u8, Option<Name>>,
    /// Nothing accepted before this time is missing here, durably.
    pub as_of_us: u64,
    /// The same, as it was last asked to be written.
    pub as_of_asked_us: u64,
    /// The as-of round under way.
    pub round: Option<Request>,
    /// The entry of the one path.
    pub entry: Option<Name>,
    /// Order queries that are out.
    pub asking: BTreeMap<Request, Asking>,
    /// Submissions here that wait for the outcome of a publication.
    pub named: BTreeMap<usize, Name>,
    /// Submissions here that have taken a UID which nothing may name yet: a crash may undo that, so it is as good as not
    /// taken.
    pub unnamed: BTreeMap<usize, Name>,
}

/// The last page of what an SP holds, for a joining one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinReply {
    /// Who joins.
    pub to: usize,
    /// What it says; told apart from other replies by that.
    pub content: String,
    /// Publications that it says are held ...
    pub held: Vec<Name>,
    /// ... with its own bit ...
    pub own: Vec<Name>,
    /// ... or agreed.
    pub agreed: Vec<Name>,
}

/// A step of one SP.
#[derive(Clone, Debug)]
pub struct Step {
    /// Which one.
    pub at: usize,
    /// What came in.
    pub input: Input,
    /// What publishers were told: (submission, outcome).
    pub told: Vec<(usize, Told)>,
    /// Publications whose vector it sent.
    pub vectors: Vec<Name>,
    /// Last pages of replies that it sent to joining SPs.
    pub join_replies: Vec<JoinReply>,
    /// Replies in as-of rounds that it sent: (to, the round's number).
    pub as_of_replies: Vec<(usize, Request)>,
    /// Time without clocks.
    pub now_ns: u64,
    /// Its wall clock.
    pub clock_us: u64,
    /// What it knows afterwards.
    pub view: View,
    /// For people: what came in.
    pub text: String,
}

impl Step {
    /// Every name in it.
    pub(super) fn names(&self) -> Vec<Name> {
        let mut names: Vec<Name> = self.view.publications.keys().chain(self.view.named.values()).copied().collect();
        names.extend(self.view.unnamed.values());
        if let Input::OrderAnswer { answer, .. } | Input::OrderQuery { answer: Some(answer), .. } = &self.input {
            names.extend(answer.greatest.iter().chain(answer.names.iter().flatten()));
        }
        for (_, told) in &self.told {
            match told {
                Told::Accepted(name) => names.push(*name),
                Told::Rejected => {}
                Told::Undetermined { of, superseded_by } => names.extend(of.iter().chain(superseded_by)),
            }
        }
        names
    }
}

/// What was replayed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// Steps of the engine.
    pub steps: usize,
    /// Actions of the specification, by name.
    pub actions: BTreeMap<String, usize>,
}

/// A step that the specification does not allow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NotAllowed {
    /// Its number.
    pub step: usize,
    /// What differs.
    pub why: String,
    /// It and the steps before it, with the actions found for each.
    pub before: Vec<String>,
}

impl fmt::Display for NotAllowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.before.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        write!(f, "step {}: {}", self.step, self.why)
    }
}
