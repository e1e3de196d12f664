//! What becomes durable together, and what is refused together. The commit thread of the process works by it, and so does
//! the simulated storage point.
//!
//! Invariant: of the writes that a storage point asked for, those that become durable come before any that was refused,
//! until it has taken note of the refusal. So what is durable is always a beginning of what it believed would be: an as-of
//! never stands in the log without the records that it speaks of.

use crate::{
    protocol::{Durable, durable::InlineContent, io::WriteId},
    store::{Log, Storage, StoreError},
};
use std::{collections::VecDeque, io};

/// Something for the committer to take, in the order in which it was asked for.
#[derive(Debug)]
pub enum Write {
    /// To be made durable.
    Records(WriteId, Vec<Durable>),
    /// Contents that maintenance moves: they go along with the next records. One set at a time.
    Copies(Vec<InlineContent>),
    /// Who asks has taken note of the last refusal: see [`Unanswered::refused`].
    RefusalNoted,
}

/// What one commit carries.
#[derive(Debug, Default)]
pub struct Batch {
    ids: Vec<WriteId>,
    writes: Vec<Vec<Durable>>,
    copies: Option<Vec<InlineContent>>,
}

impl Batch {
    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.copies.is_none()
    }

    /// Its records, in order.
    pub fn records(&self) -> impl Iterator<Item = &Durable> {
        self.writes.iter().flatten()
    }
}

/// What became of the writes of a batch.
#[derive(Debug)]
pub enum Answer {
    /// They are durable.
    Persisted(Vec<WriteId>),
    /// Nothing of them was written, for this reason; nor of anything asked for since.
    Refused(String),
    /// The log takes nothing more.
    Failed(StoreError),
}

/// What became of a batch.
#[derive(Debug)]
pub struct Committed {
    /// Of its writes, if it had any; and a failure in any case.
    pub answer: Option<Answer>,
    /// Of its copies, if it had any and the log has not failed.
    pub copies: Option<Result<(), StoreError>>,
}

/// See the module.
pub struct Committer<S: Storage> {
    log: Log<S>,
    waiting: Batch,
    /// A refusal that who asks has not taken note of.
    refuses: bool,
}

impl<S: Storage> std::fmt::Debug for Committer<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Committer").field("waiting", &self.waiting).finish_non_exhaustive()
    }
}

impl<S: Storage> Committer<S> {
    /// Commits to this log.
    pub fn new(log: Log<S>) -> Committer<S> {
        Committer { log, waiting: Batch::default(), refuses: false }
    }

    /// Takes something up.
    pub fn take(&mut self, write: Write) {
        match write {
            Write::Records(..) if self.refuses => {}
            Write::Records(id, records) => {
                self.waiting.ids.push(id);
                self.waiting.writes.push(records);
            }
            Write::Copies(copies) => self.waiting.copies = Some(copies),
            Write::RefusalNoted => self.refuses = false,
        }
    }

    /// What the next commit will carry.
    pub fn waiting(&self) -> &Batch {
        &self.waiting
    }

    /// What it carries: what is taken up from now on goes with the one after it.
    pub fn begin(&mut self) -> Batch {
        std::mem::take(&mut self.waiting)
    }

    /// Commits a batch. Where it does not fit, its records may fit without its copies.
    pub fn commit(&mut self, batch: Batch) -> Committed {
        let Batch { ids, writes, copies } = batch;
        let commit = |log: &mut Log<S>, copies: &[InlineContent]| {
            log.commit_writes(writes.iter().map(|records| &records[..]), copies)
        };
        let mut committed = commit(&mut self.log, copies.as_deref().unwrap_or_default());
        let is_refused = |result: &Result<(), StoreError>| result.as_ref().is_err_and(StoreError::is_refusal);
        let mut copied = None;
        if copies.is_some() {
            if !is_refused(&committed) {
                copied = committed.is_ok().then_some(Ok(()));
            } else if ids.is_empty() {
                copied = Some(std::mem::replace(&mut committed, Ok(())));
            } else {
                copied = Some(Err(StoreError::Full(io::ErrorKind::StorageFull.into())));
                committed = commit(&mut self.log, &[]);
            }
        }
        let answer = match committed {
            Ok(()) => (!ids.is_empty()).then_some(Answer::Persisted(ids)),
            Err(error) if error.is_refusal() => {
                self.refuse();
                Some(Answer::Refused(error.to_string()))
            }
            Err(error) => Some(Answer::Failed(error)),
        };
        Committed { answer, copies: copied }
    }

    /// Refuses a batch as a disk without any room would: for disks that are simulated.
    pub fn turn_away(&mut self, batch: Batch) -> Committed {
        let full = || StoreError::Full(io::ErrorKind::StorageFull.into());
        let answer = (!batch.ids.is_empty()).then(|| {
            self.refuse();
            Answer::Refused(full().to_string())
        });
        Committed { answer, copies: batch.copies.map(|_| Err(full())) }
    }

    /// What was asked for since then was asked for in the belief that all before it would be durable.
    fn refuse(&mut self) {
        self.refuses = true;
        self.waiting.ids.clear();
        self.waiting.writes.clear();
    }

    /// The log, for what is committed beside the batches.
    pub fn log(&mut self) -> &mut Log<S> {
        &mut self.log
    }
}

/// The writes that a storage point has asked for and that have no answer yet, in order.
#[derive(Clone, Debug, Default)]
pub struct Unanswered(VecDeque<WriteId>);

impl Unanswered {
    /// One more is asked for.
    pub fn ask(&mut self, id: WriteId) {
        self.0.push_back(id);
    }

    /// These are durable.
    pub fn persisted(&mut self, ids: &[WriteId]) {
        self.0.retain(|id| !ids.contains(id));
    }

    /// A refusal has come: all of these were refused with it. Then give the committer [`Write::RefusalNoted`].
    pub fn refused(&mut self) -> Vec<WriteId> {
        self.0.drain(..).collect()
    }
}
