//! The threads that put files in place for all receivers of a process, so that the disk keeps no delivery waiting.
//!
//! A receiver's applier travels: with each batch to a thread, and back with what became of it.

use super::{apply::Applier, files::FileDisk};
use crate::protocol::{
    Path,
    receiver::{Applied, BatchId, Change, Reached},
};
use mio::Waker;
use std::{
    io,
    sync::{
        Arc, Mutex,
        mpsc::{Receiver as Incoming, Sender, channel},
    },
    thread::JoinHandle,
};

/// Flushes of several directories overlap; more threads than this gain nothing.
const THREADS_MAX: usize = 4;
/// Enough for paths and system calls.
const STACK_LEN: usize = 256 << 10;

/// A batch on its way to a thread.
pub(super) struct Job {
    /// Whose.
    pub(super) member: usize,
    pub(super) applier: Box<Applier<FileDisk>>,
    pub(super) id: BatchId,
    pub(super) changes: Vec<Change>,
    pub(super) reached: Option<Reached>,
}

/// A batch that is over.
pub(super) struct Done {
    pub(super) member: usize,
    pub(super) applier: Box<Applier<FileDisk>>,
    pub(super) id: BatchId,
    pub(super) results: Vec<(Path, Applied)>,
    pub(super) is_noted: bool,
}

/// The threads.
#[derive(Debug)]
pub(super) struct Appliers {
    jobs: Option<Sender<Job>>,
    done: Incoming<Done>,
    threads: Vec<JoinHandle<()>>,
}

impl Appliers {
    /// For so many receivers. `waker` is woken when a batch is over. With `rests`, directories are only open meanwhile.
    pub(super) fn start(receivers: usize, rests: bool, waker: &Arc<Waker>) -> io::Result<Appliers> {
        let (jobs, todo) = channel();
        let (done_sender, done) = channel();
        let todo = Arc::new(Mutex::new(todo));
        let start = |_| {
            let (todo, done, waker) = (Arc::clone(&todo), done_sender.clone(), Arc::clone(waker));
            let thread = std::thread::Builder::new().name("apply".into()).stack_size(STACK_LEN);
            thread.spawn(move || apply_all(&todo, &done, &waker, rests))
        };
        let threads = (0..receivers.min(THREADS_MAX)).map(start).collect::<io::Result<_>>()?;
        Ok(Appliers { jobs: Some(jobs), done, threads })
    }

    /// Hands a batch over. False: the threads have ended.
    pub(super) fn begin(&self, job: Job) -> bool {
        self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok())
    }

    /// A batch that has ended since.
    pub(super) fn take_done(&self) -> Option<Done> {
        self.done.try_recv().ok()
    }

    /// Lets the batches at hand end; they can still be taken.
    pub(super) fn finish(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn apply_all(todo: &Mutex<Incoming<Job>>, done: &Sender<Done>, waker: &Waker, rests: bool) {
    loop {
        let next = todo.lock().expect("nothing panics while it holds this").recv();
        let Ok(Job { member, mut applier, id, changes, reached }) = next else { return };
        if rests && let Err(error) = applier.disk_mut().wake(!changes.is_empty()) {
            // Every entry fails for that reason, and is tried again.
            tracing::warn!("a directory cannot be opened: {error}");
        }
        let (results, is_noted) = applier.apply(changes, reached);
        if rests {
            applier.disk_mut().rest();
        }
        if done.send(Done { member, applier, id, results, is_noted }).is_err() || waker.wake().is_err() {
            return;
        }
    }
}
