//! Events for any number of readers of a Unix socket: each gets what happens from its connection on.
//!
//! Invariant: a reader misses nothing without noticing. One that does not keep up is cut off, and counted.

use mio::net::UnixListener;
use std::{
    io::{self, ErrorKind, Write as _},
    os::unix::{fs::FileTypeExt as _, net::UnixStream},
    path::PathBuf,
};

/// Bytes that wait for a reader beside those in its socket.
const PENDING_LEN_MAX: usize = 4 << 20;
/// Readers at once; more are turned away.
const READERS_MAX: usize = 64;

#[derive(Debug)]
struct Reader {
    stream: UnixStream,
    pending: Vec<u8>,
}

/// The socket and its readers.
#[derive(Debug)]
pub(super) struct EventReaders {
    listener: UnixListener,
    path: PathBuf,
    readers: Vec<Reader>,
    pub(super) dropped: u64,
}

impl EventReaders {
    /// Listens at `path`. A socket that an earlier process has left there is removed; one that somebody listens at is not.
    pub(super) fn listen(path: &std::path::Path) -> io::Result<EventReaders> {
        let is_socket = |path: &std::path::Path| {
            std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
        };
        let refused = |error: io::Error| error.kind() == ErrorKind::ConnectionRefused;
        if is_socket(path) && UnixStream::connect(path).err().is_some_and(refused) {
            std::fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        Ok(EventReaders { listener, path: path.to_owned(), readers: Vec::new(), dropped: 0 })
    }

    /// Writes a line to all readers.
    pub(super) fn write(&mut self, line: &[u8]) {
        self.accept();
        self.each(|reader| {
            reader.flush()?;
            if !reader.pending.is_empty() || line.is_empty() {
                return reader.keep(line);
            }
            match reader.stream.write(line) {
                Ok(len) => reader.keep(&line[len..]),
                Err(error) if is_full(&error) => reader.keep(line),
                Err(error) => Err(error),
            }
        });
    }

    /// Writes what waits.
    pub(super) fn flush(&mut self) {
        self.each(Reader::flush);
    }

    /// Whether something waits.
    pub(super) fn has_pending(&self) -> bool {
        self.readers.iter().any(|reader| !reader.pending.is_empty())
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.readers.len() < READERS_MAX {
                self.readers.push(Reader { stream: stream.into(), pending: Vec::new() });
            }
        }
    }

    fn each(&mut self, mut what: impl FnMut(&mut Reader) -> io::Result<()>) {
        let dropped = &mut self.dropped;
        self.readers.retain_mut(|reader| match what(reader) {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::OutOfMemory => {
                *dropped += 1;
                tracing::warn!("a reader of the events does not keep up and is cut off ({dropped} so far)");
                false
            }
            Err(_) => false,
        });
    }
}

impl Drop for EventReaders {
    fn drop(&mut self) {
        self.flush();
        let _ = std::fs::remove_file(&self.path);
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

impl Reader {
    fn keep(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.pending.len() + bytes.len() > PENDING_LEN_MAX {
            return Err(ErrorKind::OutOfMemory.into());
        }
        self.pending.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.pending.is_empty() {
            match self.stream.write(&self.pending) {
                Ok(len) => drop(self.pending.drain(..len)),
                Err(error) if is_full(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.pending.shrink_to(64 << 10);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use std::io::{BufRead as _, BufReader};

    #[test]
    fn every_reader_gets_all_lines_and_a_slow_one_is_cut_off_and_counted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let mut readers = EventReaders::listen(&path).unwrap();
        assert!(EventReaders::listen(&path).is_err(), "somebody listens there");
        let fast = UnixStream::connect(&path).unwrap();
        let slow = UnixStream::connect(&path).unwrap();
        let line = [vec![b'x'; 999], vec![b'\n']].concat();
        let count = 10_000;
        let reader = std::thread::spawn(move || BufReader::new(fast).lines().map(Result::unwrap).take(count).count());
        for _ in 0..count {
            readers.write(&line);
            while readers.readers.iter().any(|reader| reader.pending.len() > PENDING_LEN_MAX / 2)
                && !reader.is_finished()
            {
                // The fast one has the time that it needs; the slow one never reads.
                let before = readers.readers.len();
                std::thread::sleep(std::time::Duration::from_millis(1));
                readers.flush();
                if before == 2 && readers.readers[0].pending.is_empty() {
                    break;
                }
            }
        }
        while readers.readers.first().is_some_and(|reader| !reader.pending.is_empty()) {
            readers.flush();
        }
        assert_eq!(reader.join().unwrap(), count);
        assert_eq!(readers.dropped, 1);
        drop(slow);
        drop(readers);
        assert!(!path.exists());
    }
}
