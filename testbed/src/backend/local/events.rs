//! Reads what all processes tell, on one thread: a thread for each would make starting one more slow, as the memory of all of
//! them is copied for each child.

use super::process::Readiness;
use crate::trace::{Kind, Recorder, Text, parse_line};
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};
use std::{
    cell::OnceCell,
    collections::BTreeMap,
    io::{self, ErrorKind, PipeReader, Read as _},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

/// What a process tells in one of its lives.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) events: PipeReader,
    pub(super) ready: Readiness,
    /// Names of the receivers in it, or its only one.
    pub(super) names: Vec<Text>,
    pub(super) incarnation: u32,
    pub(super) recorder: Option<Recorder>,
}

/// Reads it to its end, and notes when the process is ready.
pub(super) fn follow(told: Told) -> io::Result<()> {
    static READER: OnceLock<Arc<Reader>> = OnceLock::new();
    let reader = match READER.get() {
        Some(reader) => reader,
        None => {
            let reader = Reader::start()?;
            READER.get_or_init(|| reader)
        }
    };
    reader.add(told)
}

#[derive(Debug)]
struct Reader {
    epoll: Epoll,
    sources: Mutex<(u64, BTreeMap<u64, Source>)>,
}

#[derive(Debug)]
struct Source {
    told: Told,
    /// The beginning of a line whose end has not come yet.
    line: Vec<u8>,
    /// How many of its names are not ready.
    unready: usize,
}

impl Reader {
    fn start() -> io::Result<Arc<Reader>> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let reader = Arc::new(Reader { epoll, sources: Mutex::default() });
        let own = Arc::clone(&reader);
        std::thread::Builder::new().name("events".to_owned()).spawn(move || own.read_all())?;
        Ok(reader)
    }

    fn lock(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, Source>)> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, told: Told) -> io::Result<()> {
        fcntl(&told.events, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let mut sources = self.lock();
        sources.0 += 1;
        let number = sources.0;
        self.epoll.add(&told.events, EpollEvent::new(EpollFlags::EPOLLIN, number))?;
        let unready = told.names.len();
        sources.1.insert(number, Source { told, line: Vec::new(), unready });
        Ok(())
    }

    fn read_all(&self) {
        let (mut events, mut buffer) = ([EpollEvent::empty(); 64], vec![0; 64 << 10]);
        loop {
            let count = self.epoll.wait(&mut events, EpollTimeout::NONE).unwrap_or(0);
            for event in &events[..count] {
                let number = event.data();
                // Out of the map while it is read, so that others can be added.
                let Some(mut source) = self.lock().1.remove(&number) else { continue };
                if source.read(&mut buffer) {
                    self.lock().1.insert(number, source);
                } else {
                    source.told.ready.close();
                }
            }
        }
    }
}

impl Source {
    /// Reads what is there, but no more than once: others are waiting. False at the end.
    fn read(&mut self, buffer: &mut [u8]) -> bool {
        let len = match self.told.events.read(buffer) {
            Ok(0) => return false,
            Ok(len) => len,
            Err(error) => return matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        };
        // A last line without its end was cut off by a kill: not all of it was said.
        for part in buffer[..len].split_inclusive(|byte| *byte == b'\n') {
            match part.strip_suffix(b"\n") {
                None => self.line.extend_from_slice(part),
                Some(whole) if self.line.is_empty() => self.take(whole),
                Some(rest) => {
                    let mut line = std::mem::take(&mut self.line);
                    line.extend_from_slice(rest);
                    self.take(&line);
                }
            }
        }
        true
    }

    fn take(&mut self, line: &[u8]) {
        let Told { ready, names, incarnation, recorder, .. } = &self.told;
        let nobody = OnceCell::new();
        let texts = recorder.as_ref().unwrap_or_else(|| nobody.get_or_init(Recorder::new));
        match parse_line(line, names, *incarnation, texts) {
            Ok(event) => {
                if event.kind == Kind::Ready {
                    self.unready = self.unready.saturating_sub(1);
                    if self.unready == 0 {
                        ready.set_ready();
                    }
                }
                if let Some(recorder) = recorder {
                    recorder.record(event);
                }
            }
            Err(error) => {
                tracing::warn!(process = %names[0], line = %String::from_utf8_lossy(line), "{error}");
                recorder.iter().for_each(Recorder::count_bad_line);
            }
        }
    }
}
