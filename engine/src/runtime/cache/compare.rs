//! A thread that compares large objects with their names, away from the event loop.

use crate::protocol::Hash;
use mio::Waker;
use std::{
    fs::File,
    io,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
};

/// The loop's end.
#[derive(Debug)]
pub(super) struct Comparer {
    jobs: Sender<(Hash, PathBuf)>,
    results: Receiver<(Hash, io::Result<bool>)>,
}

impl Comparer {
    /// Starts the thread, which ends with this. It wakes the loop.
    pub(super) fn start(waker: Arc<Waker>) -> io::Result<Comparer> {
        let (jobs, todo) = channel::<(Hash, PathBuf)>();
        let (done, results) = channel();
        std::thread::Builder::new().name("compare".into()).spawn(move || {
            for (hash, path) in todo {
                if done.send((hash, is_right(hash, &path))).is_err() || waker.wake().is_err() {
                    return;
                }
            }
        })?;
        Ok(Comparer { jobs, results })
    }

    /// Has the object at `path` compared with its name.
    pub(super) fn give(&self, hash: Hash, path: PathBuf) {
        // The thread lives as long as this does.
        let _ = self.jobs.send((hash, path));
    }

    /// One that was compared, and whether its name is right, if it could be read.
    pub(super) fn take(&self) -> Option<(Hash, io::Result<bool>)> {
        self.results.try_recv().ok()
    }
}

/// Whether the file at `path` has this hash.
pub(super) fn is_right(hash: Hash, path: &PathBuf) -> io::Result<bool> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(Hash(*hasher.finalize().as_bytes()) == hash)
}
