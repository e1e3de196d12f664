//! The commit thread: everything that was asked for while one flush ran becomes durable with the next.

use crate::{
    mutant::{self, Mutant},
    protocol::{Durable, durable::InlineContent, io::WriteId},
    runtime::{
        exposition::Histogram,
        storage_point::{
            committer::{Answer, Committed, Committer, Unanswered, Write},
            completion::{Completion, Completions},
        },
    },
    store::{DirStorage, Log, Pacer, StoreError},
};
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Contents to be committed, and whether they were.
pub(super) type Copies = (Vec<InlineContent>, Sender<Result<(), StoreError>>);

/// What the thread is given: copies come with the place of their answer.
type Asked = (Write, Option<Sender<Result<(), StoreError>>>);

/// The way to the commit thread.
#[derive(Debug)]
pub(super) struct CommitThread {
    sender: Sender<Asked>,
    unanswered: Unanswered,
    /// When writes were asked for that are not durable yet.
    asked_at: BTreeMap<WriteId, Instant>,
    latency: Histogram,
    flushes: Arc<Histogram>,
    thread: JoinHandle<()>,
}

impl CommitThread {
    pub(super) fn start(log: Log<DirStorage>, completions: Completions) -> io::Result<CommitThread> {
        let (sender, receiver) = channel();
        let (committer, flushes) = (Committer::new(log), Arc::new(Histogram::default()));
        let theirs = Arc::clone(&flushes);
        let thread = thread::Builder::new().name("commit".into()).spawn(move || {
            if mutant::active(Mutant::HoldRecords) {
                hold(committer, &receiver, &completions)
            } else {
                run(committer, &receiver, &completions, &theirs)
            }
        })?;
        Ok(CommitThread {
            sender,
            unanswered: Unanswered::default(),
            asked_at: BTreeMap::new(),
            latency: Histogram::default(),
            flushes,
            thread,
        })
    }

    /// Asks for a write; its id comes back once it is durable.
    pub(super) fn write(&mut self, id: WriteId, records: Vec<Durable>) {
        self.unanswered.ask(id);
        self.asked_at.insert(id, Instant::now());
        self.give(Write::Records(id, records));
    }

    fn give(&self, write: Write) {
        // The thread ends early only at a failure that it has reported, and that ends the process.
        let _ = self.sender.send((write, None));
    }

    /// These writes are durable, the thread says.
    pub(super) fn persisted(&mut self, ids: &[WriteId]) {
        self.unanswered.persisted(ids);
        for at in ids.iter().filter_map(|id| self.asked_at.remove(id)) {
            self.latency.observe(at.elapsed());
        }
    }

    /// The thread has refused: gives all writes that this concerns.
    pub(super) fn refused(&mut self) -> Vec<WriteId> {
        self.give(Write::RefusalNoted);
        self.asked_at.clear();
        self.unanswered.refused()
    }

    /// How long writes took to become durable.
    pub(super) fn latency(&self) -> &Histogram {
        &self.latency
    }

    /// How long commits took on the disk.
    pub(super) fn flushes(&self) -> &Histogram {
        &self.flushes
    }

    /// Hands over contents to be moved; false if the thread has ended.
    pub(super) fn copier(&self) -> impl Fn(Copies) -> bool + Send + 'static {
        let sender = self.sender.clone();
        move |(copies, answer)| sender.send((Write::Copies(copies), Some(answer))).is_ok()
    }

    /// Waits until everything asked for is durable. Every [`copier`](Self::copier) must be gone.
    pub(super) fn finish(self) {
        drop(self.sender);
        let _ = self.thread.join();
    }
}

/// What the thread works with.
struct Worker {
    committer: Committer<DirStorage>,
    /// Who waits for the copies. There is one at a time: maintenance waits for the answer.
    copier: Option<Sender<Result<(), StoreError>>>,
}

impl Worker {
    fn take(&mut self, (write, copier): Asked) {
        self.copier = copier.or(self.copier.take());
        self.committer.take(write);
    }
}

fn run(committer: Committer<DirStorage>, receiver: &Receiver<Asked>, completions: &Completions, flushes: &Histogram) {
    let mut pacer = Pacer::default();
    let mut worker = Worker { committer, copier: None };
    while let Ok(first) = receiver.recv() {
        worker.take(first);
        receiver.try_iter().for_each(|asked| worker.take(asked));
        let delay = pacer.delay(Instant::now(), worker.committer.waiting().records().count());
        if !delay.is_zero() {
            thread::sleep(delay);
            receiver.try_iter().for_each(|asked| worker.take(asked));
        }
        if worker.committer.waiting().is_empty() {
            continue;
        }
        let begun = Instant::now();
        pacer.begun(begun);
        let batch = worker.committer.begin();
        let Committed { answer, copies } = worker.committer.commit(batch);
        flushes.observe(begun.elapsed());
        if let (Some(result), Some(copier)) = (copies, worker.copier.take()) {
            let _ = copier.send(result);
        }
        if answer.is_some_and(|answer| !report(answer, completions)) {
            return;
        }
    }
    if let Err(error) = worker.committer.log().close() {
        tracing::warn!("the log was not closed: {error}");
    }
}

/// Tells the loop; whether the log can go on.
fn report(answer: Answer, completions: &Completions) -> bool {
    let can_go_on = !matches!(answer, Answer::Failed(_));
    completions.send(match answer {
        Answer::Persisted(ids) => Completion::Persisted(ids),
        Answer::Refused(reason) => Completion::Refused(reason),
        Answer::Failed(error) => Completion::StoreFailed(error.to_string()),
    });
    can_go_on
}

/// The mutant `hold-records`: says durable at once, and writes a second later.
fn hold(mut committer: Committer<DirStorage>, receiver: &Receiver<Asked>, completions: &Completions) {
    const HELD: Duration = Duration::from_secs(1);
    let mut held: VecDeque<(Instant, Vec<Durable>)> = VecDeque::new();
    let log = committer.log();
    loop {
        let wait = held.front().map_or(HELD, |(since, _)| HELD.saturating_sub(since.elapsed()));
        match receiver.recv_timeout(wait) {
            Ok((Write::Copies(copies), answer)) => {
                if let Some(answer) = answer {
                    let _ = answer.send(log.commit_writes([], &copies));
                }
            }
            Ok((Write::Records(id, records), _)) => {
                held.push_back((Instant::now(), records));
                completions.send(Completion::Persisted(vec![id]));
            }
            Ok((Write::RefusalNoted, _)) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        while held.front().is_some_and(|(since, _)| since.elapsed() >= HELD) {
            let (_, records) = held.pop_front().expect("there is a front");
            if let Err(error) = log.commit(&records) {
                return completions.send(Completion::StoreFailed(error.to_string()));
            }
        }
    }
    held.into_iter().for_each(|(_, records)| {
        let _ = log.commit(&records);
    });
}
