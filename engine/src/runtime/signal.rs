//! SIGTERM and SIGINT as readiness of a descriptor, so that an event loop stops in its own time.

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

impl StopSignals {
    /// Blocks the signals in this thread and in those that it starts from now on.
    pub fn new() -> io::Result<StopSignals> {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGTERM);
        signals.add(Signal::SIGINT);
        signals.thread_block()?;
        Ok(StopSignals(SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?))
    }

    /// Becomes readable, as `token`, when a signal has come.
    pub fn register(&self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut SourceFd(&self.0.as_raw_fd()), token, Interest::READABLE)
    }

    /// Takes all signals that have come; whether there was one.
    pub fn take(&self) -> bool {
        let mut any = false;
        while let Ok(Some(_)) = self.0.read_signal() {
            any = true;
        }
        any
    }
}
