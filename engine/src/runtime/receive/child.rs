//! Starting a command that ends with the process that started it.

#![allow(unsafe_code, reason = "what a child does before it becomes the command can be said in no other way")]

use nix::sys::signal::{SigSet, Signal};
use std::{
    io,
    os::unix::process::CommandExt as _,
    process::{Child, Command},
};

/// Starts `command` in a process group of its own. It receives all signals, which this process may block, and is killed
/// when the calling thread ends, however that happens.
pub(super) fn spawn(mut command: Command) -> io::Result<Child> {
    command.process_group(0);
    let prepare = || {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        SigSet::empty().thread_set_mask()?;
        Ok(())
    };
    // SAFETY: between fork and exec it makes two system calls, which are async-signal-safe, and allocates nothing.
    unsafe { command.pre_exec(prepare) };
    command.spawn()
}
