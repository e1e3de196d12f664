//! The content thread: contents above 64 KiB, written, read and hashed away from the loop.

use crate::{
    protocol::{
        Hash, Message, SpId,
        io::Staged,
        message::{CHUNK_LEN, Wanted},
    },
    runtime::storage_point::completion::{Completion, Completions, UploadId},
    store::{Contents, DirStorage, Staging, StoreError},
};
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    io,
    sync::mpsc::{Receiver, Sender, channel},
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
    /// Append to a body, which begins with its first piece.
    UploadWrite { upload: UploadId, bytes: Bytes },
    /// The body is complete.
    UploadFinish { upload: UploadId },
    /// Its publisher is gone.
    UploadAbort { upload: UploadId },
}

/// The way to the content thread.
#[derive(Clone, Debug)]
pub(super) struct ContentThread(Sender<Job>);

impl ContentThread {
    pub(super) fn start(contents: Contents<DirStorage>, completions: Completions) -> io::Result<ContentThread> {
        let (sender, receiver) = channel();
        let worker = Worker {
            contents,
            completions,
            fetched: BTreeMap::new(),
            uploads: BTreeMap::new(),
            credit: BURST,
            at: Instant::now(),
        };
        thread::Builder::new().name("content".into()).spawn(move || worker.run(&receiver))?;
        Ok(ContentThread(sender))
    }

    pub(super) fn give(&self, job: Job) {
        // The thread ends only with the process.
        let _ = self.0.send(job);
    }
}

/// A message with the bytes `offset..offset + len` of a content, or that it is missing; its size if it is damaged.
pub(super) fn read_chunk(contents: &Contents<DirStorage>, hash: Hash, offset: u64, len: u32) -> Result<Message, u64> {
    let missing = Message::Missing { what: Wanted::Content(hash) };
    let Some(total) = contents.len(&hash).filter(|total| offset <= *total) else { return Ok(missing) };
    match contents.read(&hash, offset, len.min(CHUNK_LEN).into()) {
        Ok(bytes) => Ok(Message::ContentChunk { hash, offset, total, bytes }),
        Err(StoreError::CorruptContent(_)) => Err(total),
        Err(error) => {
            tracing::error!("content {hash} cannot be read for a peer: {error}");
            Ok(missing)
        }
    }
}

struct Worker {
    contents: Contents<DirStorage>,
    completions: Completions,
    fetched: BTreeMap<Hash, Staging<DirStorage>>,
    /// `None`: it has failed.
    uploads: BTreeMap<UploadId, Result<Staging<DirStorage>, String>>,
    credit: f64,
    at: Instant,
}

impl Worker {
    fn run(mut self, receiver: &Receiver<Job>) {
        while let Ok(job) = receiver.recv() {
            match job {
                Job::Stage { hash, offset, total, bytes } => {
                    let staged = self.stage(hash, offset, total, &bytes).unwrap_or_else(|error| {
                        tracing::error!("content {hash} cannot be stored: {error}");
                        self.fetched.remove(&hash);
                        Staged::Failed
                    });
                    let offset_end = offset + bytes.len() as u64;
                    self.completions.send(Completion::Staged { hash, offset_end, staged });
                }
                Job::Read { to, hash, offset, len } => {
                    let missing = Message::Missing { what: Wanted::Content(hash) };
                    let message = read_chunk(&self.contents, hash, offset, len).unwrap_or_else(|size| {
                        self.completions.send(Completion::Damaged { hash, size });
                        missing
                    });
                    self.completions.send(Completion::Chunk { to, message });
                }
                Job::StageAbort { hash } => drop(self.fetched.remove(&hash)),
                Job::UploadWrite { upload, bytes } => {
                    self.upload(upload, &bytes);
                    self.completions.send(Completion::UploadWritten { upload, len: bytes.len() });
                }
                Job::UploadFinish { upload } => {
                    let staging = self.uploads.remove(&upload).unwrap_or_else(|| Ok(self.contents.stage()));
                    let result = staging.and_then(|staging| staging.finish(None).map_err(|error| error.to_string()));
                    self.completions.send(Completion::UploadFinished { upload, result });
                }
                Job::UploadAbort { upload } => drop(self.uploads.remove(&upload)),
            }
        }
    }

    fn stage(&mut self, hash: Hash, offset: u64, total: u64, bytes: &[u8]) -> Result<Staged, StoreError> {
        self.pace(bytes.len());
        if offset == 0 {
            self.fetched.insert(hash, self.contents.stage());
        }
        let Some(staging) = self.fetched.get_mut(&hash).filter(|staging| staging.len() == offset) else {
            return Ok(Staged::Failed);
        };
        staging.write(bytes)?;
        if staging.len() < total {
            return Ok(Staged::Part);
        }
        match self.fetched.remove(&hash).map(|staging| staging.finish(Some(hash))) {
            Some(Err(StoreError::WrongHash { .. })) => Ok(Staged::HashMismatch),
            Some(finished) => finished.map(|_| Staged::Whole),
            None => Ok(Staged::Failed),
        }
    }

    fn upload(&mut self, upload: UploadId, bytes: &[u8]) {
        self.pace(bytes.len());
        let staging = self.uploads.entry(upload).or_insert_with(|| Ok(self.contents.stage()));
        let written = staging.as_mut().map(|staging| staging.write(bytes));
        if let Ok(Err(error)) = written {
            tracing::error!("a body cannot be stored: {error}");
            *staging = Err(error.to_string());
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
