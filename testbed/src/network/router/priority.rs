//! The router's turn on a processor: before everyone else, if the kernel lets us.

#![allow(unsafe_code, reason = "no safe library sets a thread's scheduling policy")]

use nix::libc;

/// This thread runs whenever it can, before all that have ordinary turns: as long as those that are timed by it have them, a
/// packet would be late. Needs `CAP_SYS_NICE`; false without it.
pub(super) fn go_first() -> bool {
    const LEAST: libc::c_int = 1;
    // SAFETY: all fields are numbers, for which zero is a value.
    let mut parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    parameters.sched_priority = LEAST;
    // SAFETY: the kernel reads one `sched_param`; 0 is this thread.
    let set =
        unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const parameters) };
    set == 0
}
