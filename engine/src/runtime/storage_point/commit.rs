//! The commit thread: everything that was asked for while one flush ran becomes durable with the next.

use crate::{
    mutant::{self, Mutant},
    protocol::{Durable, io::WriteId},
    runtime::storage_point::{
        completion::{Completion, Completions},
        maintenance::Copies,
    },
    store::{DirStorage, Log, Pacer, StoreError},
};
use std::{
    collections::VecDeque,
    io,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Something to be committed.
#[derive(Debug)]
enum Write {
    Records(WriteId, Vec<Durable>),
    /// Contents that maintenance moves: they go along with the next records.
    Copies(Copies),
}

/// What the next commit carries.
#[derive(Debug, Default)]
struct Batch {
    ids: Vec<WriteId>,
    records: Vec<Durable>,
    copies: Option<Copies>,
}

impl Batch {
    fn take(&mut self, write: Write) {
        match write {
            Write::Records(id, records) => {
                self.ids.push(id);
                self.records.extend(records);
            }
            // There is one at a time: maintenance waits for the answer.
            Write::Copies(copies) => self.copies = Some(copies),
        }
    }

    /// Commits it and tells who waits; whether the log can go on.
    fn commit(&mut self, log: &mut Log<DirStorage>, completions: &Completions) -> bool {
        let copies = self.copies.as_ref().map_or(&[][..], |(contents, _)| contents);
        let mut committed = log.commit_with(&self.records, copies);
        if let Some((_, answer)) = self.copies.take() {
            let refused = matches!(committed, Err(StoreError::Full(_) | StoreError::TooLarge { .. }));
            if refused && !self.records.is_empty() {
                // The records may fit without them.
                committed = log.commit(&self.records);
                let _ = answer.send(Err(StoreError::Full(io::ErrorKind::StorageFull.into())));
            } else if refused {
                let _ = answer.send(std::mem::replace(&mut committed, Ok(())));
            } else if committed.is_ok() {
                let _ = answer.send(Ok(()));
            }
        }
        self.records.clear();
        let ids = std::mem::take(&mut self.ids);
        (ids.is_empty() && committed.is_ok()) || report(committed, ids, completions)
    }
}

/// The way to the commit thread.
#[derive(Debug)]
pub(super) struct CommitThread {
    sender: Sender<Write>,
    thread: JoinHandle<()>,
}

impl CommitThread {
    pub(super) fn start(log: Log<DirStorage>, completions: Completions) -> io::Result<CommitThread> {
        let (sender, receiver) = channel();
        let thread = thread::Builder::new().name("commit".into()).spawn(move || {
            if mutant::active(Mutant::HoldRecords) {
                hold(log, &receiver, &completions)
            } else {
                run(log, &receiver, &completions)
            }
        })?;
        Ok(CommitThread { sender, thread })
    }

    /// Asks for a write; its id comes back once it is durable.
    pub(super) fn write(&self, id: WriteId, records: Vec<Durable>) {
        // The thread ends early only at a failure that it has reported, and that ends the process.
        let _ = self.sender.send(Write::Records(id, records));
    }

    /// Hands over contents to be moved; false if the thread has ended.
    pub(super) fn copier(&self) -> impl Fn(Copies) -> bool + Send + 'static {
        let sender = self.sender.clone();
        move |copies| sender.send(Write::Copies(copies)).is_ok()
    }

    /// Waits until everything asked for is durable. Every [`copier`](Self::copier) must be gone.
    pub(super) fn finish(self) {
        drop(self.sender);
        let _ = self.thread.join();
    }
}

fn run(mut log: Log<DirStorage>, receiver: &Receiver<Write>, completions: &Completions) {
    let mut pacer = Pacer::default();
    let mut batch = Batch::default();
    while let Ok(first) = receiver.recv() {
        batch.take(first);
        receiver.try_iter().for_each(|write| batch.take(write));
        let delay = pacer.delay(Instant::now(), batch.records.len());
        if !delay.is_zero() {
            thread::sleep(delay);
            receiver.try_iter().for_each(|write| batch.take(write));
        }
        pacer.begun(Instant::now());
        if !batch.commit(&mut log, completions) {
            return;
        }
    }
}

/// Tells the loop; whether the log can go on.
fn report(committed: Result<(), StoreError>, ids: Vec<WriteId>, completions: &Completions) -> bool {
    match committed {
        Ok(()) => completions.send(Completion::Persisted(ids)),
        Err(error @ (StoreError::Full(_) | StoreError::TooLarge { .. })) => {
            completions.send(Completion::Refused(ids, error.to_string()));
        }
        Err(error) => {
            completions.send(Completion::StoreFailed(error.to_string()));
            return false;
        }
    }
    true
}

/// The mutant `hold-records`: says durable at once, and writes a second later.
fn hold(mut log: Log<DirStorage>, receiver: &Receiver<Write>, completions: &Completions) {
    const HELD: Duration = Duration::from_secs(1);
    let mut held: VecDeque<(Instant, Vec<Durable>)> = VecDeque::new();
    loop {
        let wait = held.front().map_or(HELD, |(since, _)| HELD.saturating_sub(since.elapsed()));
        match receiver.recv_timeout(wait) {
            Ok(Write::Copies((copies, answer))) => {
                let _ = answer.send(log.commit_with(&[], &copies));
            }
            Ok(Write::Records(id, records)) => {
                held.push_back((Instant::now(), records));
                completions.send(Completion::Persisted(vec![id]));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        while held.front().is_some_and(|(since, _)| since.elapsed() >= HELD) {
            let (_, records) = held.pop_front().expect("there is a front");
            if !report(log.commit(&records), Vec::new(), completions) {
                return;
            }
        }
    }
    held.into_iter().for_each(|(_, records)| {
        let _ = log.commit(&records);
    });
}
