//! SIGTERM and SIGINT, and SIGHUP where it means to read files again, as readiness of a descriptor, so that an event loop
//! deals with them in its own time.

use mio::{Interest, Registry, Token, unix::SourceFd};
use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};
use std::{io, os::fd::AsRawFd as _};

/// Blocks SIGTERM and SIGINT and receives them by descriptor. Make it before any thread is started: threads inherit the
/// blocked signals.
#[derive(Debug)]
pub struct StopSignals(SignalFd);

/// What signals have asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Asked {
    /// To stop.
    pub stop: bool,
    /// To read files again.
    pub reload: bool,
}

impl StopSignals {
    /// Blocks the signals in this thread and in those that it starts from now on.
    pub fn new() -> io::Result<StopSignals> {
        StopSignals::of([Signal::SIGTERM, Signal::SIGINT])
    }

    /// The same with SIGHUP, which asks for files to be read again.
    pub fn with_reload() -> io::Result<StopSignals> {
        StopSignals::of([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP])
    }

    fn of(signals: impl IntoIterator<Item = Signal>) -> io::Result<StopSignals> {
        let signals = SigSet::from_iter(signals);
        signals.thread_block()?;
        Ok(StopSignals(SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?))
    }

    /// Becomes readable, as `token`, when a signal has come.
    pub fn register(&self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut SourceFd(&self.0.as_raw_fd()), token, Interest::READABLE)
    }

    /// Takes all signals that have come; whether one of them asks to stop.
    pub fn take(&self) -> bool {
        self.take_all().stop
    }

    /// Takes all signals that have come.
    pub fn take_all(&self) -> Asked {
        let mut asked = Asked::default();
        while let Ok(Some(signal)) = self.0.read_signal() {
            match signal.ssi_signo == Signal::SIGHUP as u32 {
                true => asked.reload = true,
                false => asked.stop = true,
            }
        }
        asked
    }
}
