//! The threads that put files in place for all receivers of a process, so that the disk keeps no delivery waiting.
//!
//! A receiver's applier travels: with each batch to a thread, and back with what became of it.

use super::{
    apply::{Applier, SINGLE_FLUSHES_MAX},
    files::FileDisk,
};
use crate::protocol::{
    Path,
    receiver::{Applied, BatchId, Change, Reached},
};
use mio::Waker;
use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs::File,
    io,
    sync::{
        Arc, Mutex,
        mpsc::{Receiver as Incoming, Sender, channel},
    },
    thread::JoinHandle,
    time::Duration,
};

/// Flushes of several directories overlap; more threads than this gain nothing.
const THREADS_MAX: usize = 4;
/// Enough for paths and system calls.
const STACK_LEN: usize = 256 << 10;
/// Notes of so much time share a flush. Receivers of a process come to the end of their held requests one after the other.
const GATHER_TIME: Duration = Duration::from_millis(20);

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
    /// Takes batches without entries where many receivers share a process.
    notes: Option<Sender<Job>>,
    done: Incoming<Done>,
    threads: Vec<JoinHandle<()>>,
}

impl Appliers {
    /// For so many receivers. `waker` is woken when a batch is over. With `rests`, directories are only open meanwhile.
    pub(super) fn start(receivers: usize, rests: bool, waker: &Arc<Waker>) -> io::Result<Appliers> {
        let (jobs, todo) = channel();
        let (done_sender, done) = channel();
        let todo = Arc::new(Mutex::new(todo));
        let thread = || std::thread::Builder::new().name("apply".into()).stack_size(STACK_LEN);
        let start = |_| {
            let (todo, ended) = (Arc::clone(&todo), Ended { done: done_sender.clone(), waker: Arc::clone(waker) });
            thread().spawn(move || apply_all(&todo, &ended, rests))
        };
        let mut threads = (0..receivers.min(THREADS_MAX)).map(start).collect::<io::Result<Vec<_>>>()?;
        let mut notes = None;
        if rests {
            let (sender, todo) = channel();
            let ended = Ended { done: done_sender.clone(), waker: Arc::clone(waker) };
            threads.push(thread().spawn(move || note_all(&todo, &ended))?);
            notes = Some(sender);
        }
        Ok(Appliers { jobs: Some(jobs), notes, done, threads })
    }

    /// Hands a batch over. False: the threads have ended.
    pub(super) fn begin(&self, job: Job) -> bool {
        let is_note = job.changes.is_empty() && !job.applier.is_owed();
        let queue = self.notes.as_ref().filter(|_| is_note).or(self.jobs.as_ref());
        queue.is_some_and(|queue| queue.send(job).is_ok())
    }

    /// A batch that has ended since.
    pub(super) fn take_done(&self) -> Option<Done> {
        self.done.try_recv().ok()
    }

    /// Lets the batches at hand end; they can still be taken.
    pub(super) fn finish(&mut self) {
        (self.jobs, self.notes) = (None, None);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Where batches go that are over.
struct Ended {
    done: Sender<Done>,
    waker: Arc<Waker>,
}

impl Ended {
    /// False: nobody wants to know any more.
    fn send(&self, all: impl IntoIterator<Item = Done>) -> bool {
        all.into_iter().all(|done| self.done.send(done).is_ok()) && self.waker.wake().is_ok()
    }
}

impl Job {
    /// Opens what the batch needs, if it is closed.
    fn wake(&mut self) {
        if let Err(error) = self.applier.disk_mut().wake(!self.changes.is_empty()) {
            // Every entry fails for that reason, and is tried again.
            tracing::warn!("a directory cannot be opened: {error}");
        }
    }

    fn apply(mut self, rests: bool) -> Done {
        if rests {
            self.wake();
        }
        let Job { member, mut applier, id, changes, reached } = self;
        let (results, is_noted) = applier.apply(changes, reached);
        if rests {
            applier.disk_mut().rest();
        }
        Done { member, applier, id, results, is_noted }
    }
}

fn apply_all(todo: &Mutex<Incoming<Job>>, ended: &Ended, rests: bool) {
    loop {
        let next = todo.lock().expect("nothing panics while it holds this").recv();
        let Ok(job) = next else { return };
        if !ended.send([job.apply(rests)]) {
            return;
        }
    }
}

/// Notes what receivers have reached, one flush for many.
fn note_all(todo: &Incoming<Job>, ended: &Ended) {
    let mut file_systems: BTreeMap<u64, File> = BTreeMap::new();
    while let Ok(first) = todo.recv() {
        std::thread::sleep(GATHER_TIME);
        let mut by_device: BTreeMap<u64, Vec<Job>> = BTreeMap::new();
        for job in std::iter::once(first).chain(todo.try_iter()) {
            by_device.entry(job.applier.disk().device()).or_default().push(job);
        }
        for (device, jobs) in by_device {
            let done = match open_file_system(&mut file_systems, device, &jobs) {
                Some(file_system) if jobs.len() > SINGLE_FLUSHES_MAX => note(jobs, file_system),
                _ => jobs.into_iter().map(|job| job.apply(true)).collect(),
            };
            if !ended.send(done) {
                return;
            }
        }
    }
}

/// The file system of these directories. It is opened before anything is written to it, and stays open: a flush tells the
/// errors since then.
fn open_file_system<'a>(all: &'a mut BTreeMap<u64, File>, device: u64, jobs: &[Job]) -> Option<&'a File> {
    match all.entry(device) {
        Entry::Occupied(file) => Some(file.into_mut()),
        Entry::Vacant(place) => Some(place.insert(File::open(jobs.first()?.applier.disk().own()).ok()?)),
    }
}

/// Notes for receivers whose directories are on one file system.
fn note(jobs: Vec<Job>, file_system: &File) -> Vec<Done> {
    let begin = |mut job: Job| {
        job.wake();
        let begun = job.applier.begin_note(job.reached.as_ref());
        job.applier.disk_mut().rest();
        (job, begun)
    };
    let begun: Vec<_> = jobs.into_iter().map(begin).collect();
    let flushed = nix::unistd::syncfs(file_system);
    let end = |(mut job, begun): (Job, io::Result<()>)| {
        let flushed = begun.and_then(|()| flushed.map_err(io::Error::from));
        if flushed.is_err() {
            job.wake();
        }
        let Job { member, mut applier, id, reached, .. } = job;
        let is_noted = applier.end_note(reached, flushed);
        applier.disk_mut().rest();
        Done { member, applier, id, results: Vec::new(), is_noted }
    };
    begun.into_iter().map(end).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::runtime::receive::apply::tests::reached;
    use mio::{Poll, Token};

    #[test]
    fn many_receivers_note_what_they_reached_at_once() {
        const RECEIVERS: usize = 20;
        let directory = tempfile::tempdir().unwrap();
        let waker = Arc::new(Waker::new(Poll::new().unwrap().registry(), Token(0)).unwrap());
        let open =
            |at: usize| Applier::open(FileDisk::open(&directory.path().join(at.to_string())).unwrap()).unwrap().0;
        let mut appliers = Appliers::start(RECEIVERS, true, &waker).unwrap();
        for member in 0..RECEIVERS {
            let mut applier = Box::new(open(member));
            applier.disk_mut().rest();
            let job =
                Job { member, applier, id: BatchId(7), changes: Vec::new(), reached: Some(reached(member as u64)) };
            assert!(appliers.begin(job));
        }
        appliers.finish();
        let mut done: Vec<Done> = std::iter::from_fn(|| appliers.take_done()).collect();
        done.sort_by_key(|done| done.member);
        let members: Vec<_> = done.iter().map(|done| (done.member, done.id, done.is_noted)).collect();
        assert_eq!(members, (0..RECEIVERS).map(|member| (member, BatchId(7), true)).collect::<Vec<_>>());
        drop(done);
        for member in 0..RECEIVERS {
            assert_eq!(open(member).recovered().reached, Some(reached(member as u64)));
        }
    }
}
