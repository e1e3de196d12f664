//! The commit thread: everything that was asked for while one flush ran becomes durable with the next.

use crate::{
    mutant::{self, Mutant},
    protocol::{Durable, io::WriteId},
    runtime::storage_point::completion::{Completion, Completions},
    store::{DirStorage, Log, Pacer, StoreError},
};
use std::{
    collections::VecDeque,
    io,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

type Write = (WriteId, Vec<Durable>);

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
        let _ = self.sender.send((id, records));
    }

    /// Waits until everything asked for is durable.
    pub(super) fn finish(self) {
        drop(self.sender);
        let _ = self.thread.join();
    }
}

fn run(mut log: Log<DirStorage>, receiver: &Receiver<Write>, completions: &Completions) {
    let mut pacer = Pacer::default();
    let (mut ids, mut records) = (Vec::new(), Vec::new());
    while let Ok(first) = receiver.recv() {
        let mut take = |write: Write, ids: &mut Vec<WriteId>| {
            ids.push(write.0);
            records.extend(write.1);
            records.len()
        };
        let mut waiting = take(first, &mut ids);
        receiver.try_iter().for_each(|write| waiting = take(write, &mut ids));
        let delay = pacer.delay(Instant::now(), waiting);
        if !delay.is_zero() {
            thread::sleep(delay);
            receiver.try_iter().for_each(|write| waiting = take(write, &mut ids));
        }
        pacer.begun(Instant::now());
        let committed = log.commit(&records);
        records.clear();
        if !report(committed, std::mem::take(&mut ids), completions) {
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
            Ok((id, records)) => {
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
