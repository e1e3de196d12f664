//! The content thread: contents above 64 KiB, written, read, hashed and compared away from the loop.

use crate::{
    protocol::{Hash, Message, SpId, message::Wanted},
    runtime::storage_point::{
        completion::{Completion, Completions, UploadId},
        parts::{Incoming, read_chunk},
    },
    store::{Comparison, Contents, DirStorage, StoreError},
};
use bytes::Bytes;
use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, TryRecvError, channel},
    },
    thread,
    time::{Duration, Instant},
};

/// Large contents are written at this rate at most, or their flushes would delay those of the log.
const BYTES_PER_S: f64 = 64e6;
/// What may be written at once after a pause.
const BURST: f64 = 4e6;

/// Something for the thread to do, in order.
#[derive(Debug)]
pub(super) enum Job {
    /// Append to a content that is being fetched.
    Stage { hash: Hash, offset: u64, total: u64, bytes: Bytes },
    /// What was fetched of a content is of no use.
    StageAbort { hash: Hash },
    /// Read a part of a content for a peer.
    Read { to: SpId, hash: Hash, offset: u64, len: u32 },
    /// Compare a content with its hash, if that has not been done.
    Compare { hash: Hash },
    /// Append to a body, which begins with its first piece.
    UploadWrite { upload: UploadId, bytes: Bytes },
    /// The body is complete.
    UploadFinish { upload: UploadId },
    /// Its publisher is gone.
    UploadAbort { upload: UploadId },
}

/// The way to the content thread.
#[derive(Clone, Debug)]
pub(super) struct ContentThread {
    jobs: Sender<Job>,
    /// Bytes of bodies that are not written yet.
    waiting: Arc<AtomicUsize>,
}

impl ContentThread {
    pub(super) fn start(contents: Contents<DirStorage>, completions: Completions) -> io::Result<ContentThread> {
        let (content, worker, receiver) = ContentThread::prepare(contents, completions);
        thread::Builder::new().name("content".into()).spawn(move || worker.run(&receiver))?;
        Ok(content)
    }

    fn prepare(contents: Contents<DirStorage>, completions: Completions) -> (ContentThread, Worker, Receiver<Job>) {
        let (jobs, receiver) = channel();
        let waiting = Arc::default();
        let worker = Worker {
            incoming: Incoming::new(contents.clone()),
            contents,
            completions,
            comparisons: VecDeque::new(),
            waiting: Arc::clone(&waiting),
            credit: BURST,
            at: Instant::now(),
        };
        (ContentThread { jobs, waiting }, worker, receiver)
    }

    pub(super) fn give(&self, job: Job) {
        if let Job::UploadWrite { bytes, .. } = &job {
            self.waiting.fetch_add(bytes.len(), Ordering::Relaxed);
        }
        // The thread ends only with the process.
        let _ = self.jobs.send(job);
    }

    /// Bytes of bodies that were given and are not written yet. Those of a body that was given up are among them until
    /// its turn comes.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

struct Worker {
    contents: Contents<DirStorage>,
    completions: Completions,
    incoming: Incoming<DirStorage, UploadId>,
    /// Contents to be compared with their hashes, each with what waits for that.
    comparisons: VecDeque<(Comparison<DirStorage>, Vec<Job>)>,
    /// See [`ContentThread`].
    waiting: Arc<AtomicUsize>,
    credit: f64,
    at: Instant,
}

impl Worker {
    fn run(mut self, receiver: &Receiver<Job>) {
        loop {
            let job = match self.comparisons.is_empty() {
                true => receiver.recv().map_err(|_| TryRecvError::Disconnected),
                false => receiver.try_recv(),
            };
            match job {
                Ok(job) => self.do_job(job),
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return,
            }
            // A bounded part after each job: neither holds up the other.
            self.compare_on();
        }
    }

    fn do_job(&mut self, job: Job) {
        match job {
            Job::Stage { hash, offset, total, bytes } => {
                self.pace(bytes.len());
                let offset_end = offset + bytes.len() as u64;
                self.completions.send(match self.incoming.stage(hash, offset, total, &bytes) {
                    Ok(staged) => Completion::Staged { hash, offset_end, staged },
                    Err(error) => Completion::StoreFailed(error.to_string()),
                });
            }
            Job::StageAbort { hash } => self.incoming.abort_stage(&hash),
            Job::Read { hash, .. } | Job::Compare { hash } if self.contents.needs_comparing(&hash) => {
                self.compare_first(hash, job);
            }
            Job::Read { to, hash, offset, len } => {
                let missing = Message::Missing { what: Wanted::Content(hash) };
                let message = read_chunk(&self.contents, hash, offset, len).unwrap_or_else(|size| {
                    self.completions.send(Completion::Damaged { hash, size });
                    missing
                });
                self.completions.send(Completion::Chunk { to, message });
            }
            Job::Compare { hash } => self.completions.send(Completion::Compared { hash }),
            Job::UploadWrite { upload, bytes } => {
                self.pace(bytes.len());
                self.incoming.upload(upload, &bytes);
                self.waiting.fetch_sub(bytes.len(), Ordering::Relaxed);
                self.completions.send(Completion::UploadWritten { upload, len: bytes.len() });
            }
            Job::UploadFinish { upload } => {
                self.completions.send(match self.incoming.finish(&upload) {
                    Err(error) if error.is_disk_failure() => Completion::StoreFailed(error.to_string()),
                    result => Completion::UploadFinished { upload, result: result.map_err(|error| error.to_string()) },
                });
            }
            Job::UploadAbort { upload } => self.incoming.abort(&upload),
        }
    }

    /// Has `job` wait until the content was compared.
    fn compare_first(&mut self, hash: Hash, job: Job) {
        if let Some((_, waiting)) = self.comparisons.iter_mut().find(|(comparison, _)| comparison.hash() == hash) {
            return waiting.push(job);
        }
        match self.contents.comparison(&hash) {
            Ok(comparison) => self.comparisons.push_back((comparison, vec![job])),
            Err(error) => self.give_up(hash, &error, [job]),
        }
    }

    /// One step of the first comparison.
    fn compare_on(&mut self) {
        let Some((comparison, _)) = self.comparisons.front_mut() else { return };
        let hash = comparison.hash();
        let compared = comparison.step();
        if matches!(compared, Ok(false)) {
            return;
        }
        let waiting = self.comparisons.pop_front().map(|(_, waiting)| waiting).unwrap_or_default();
        match compared {
            Ok(_) => waiting.into_iter().for_each(|job| self.do_job(job)),
            Err(error) => self.give_up(hash, &error, waiting),
        }
    }

    /// The content is not as it was, or the disk does not give it.
    fn give_up(&mut self, hash: Hash, error: &StoreError, waiting: impl IntoIterator<Item = Job>) {
        match (error, self.contents.len(&hash)) {
            (StoreError::CorruptContent(_), Some(size)) => self.completions.send(Completion::Damaged { hash, size }),
            _ => tracing::error!("content {hash} cannot be compared with its hash: {error}"),
        }
        for job in waiting {
            match job {
                Job::Read { to, hash, .. } => {
                    let message = Message::Missing { what: Wanted::Content(hash) };
                    self.completions.send(Completion::Chunk { to, message });
                }
                _ => self.completions.send(Completion::Compared { hash }),
            }
        }
    }

    /// Waits until `len` more bytes may be written.
    fn pace(&mut self, len: usize) {
        self.credit = (self.credit + self.at.elapsed().as_secs_f64() * BYTES_PER_S).min(BURST);
        self.at = Instant::now();
        self.credit -= len as f64;
        if self.credit < 0.0 {
            thread::sleep(Duration::from_secs_f64(-self.credit / BYTES_PER_S));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        protocol::StoreId,
        store::{Store, StoreIdentity},
    };
    use mio::{Poll, Token, Waker};

    #[test]
    fn bytes_of_a_body_that_was_given_up_wait_until_its_turn_comes() {
        let dir = tempfile::tempdir().unwrap();
        let storage = DirStorage::new(dir.path()).unwrap();
        let identity = StoreIdentity { cluster: "test".into(), sp: SpId(1), store: StoreId { number: 0, nonce: 1 } };
        Store::create(storage.clone(), &identity).unwrap();
        let contents = Store::open(storage).unwrap().contents;
        let poll = Poll::new().unwrap();
        let (completions, done) = Completions::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let (content, mut worker, jobs) = ContentThread::prepare(contents, completions);
        for upload in [UploadId(1), UploadId(2)] {
            content.give(Job::UploadWrite { upload, bytes: vec![7; 100_000].into() });
            content.give(Job::UploadAbort { upload });
        }
        assert_eq!(content.waiting(), 200_000);
        jobs.try_iter().for_each(|job| worker.do_job(job));
        assert_eq!((content.waiting(), done.try_iter().count()), (0, 2));
    }
}
