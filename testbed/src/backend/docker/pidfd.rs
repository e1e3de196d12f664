//! Descriptors of processes: unlike a number, a descriptor is never another process's.

#![allow(unsafe_code, reason = "the standard library does not give a process's descriptor yet")]

use nix::{libc, sys::signal::Signal};
use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

/// The descriptor of a process that has not been waited for.
pub(super) fn open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: two numbers; the kernel makes a new descriptor.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it for this process.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}

/// Sends a signal to the process.
pub(super) fn send_signal(process: BorrowedFd<'_>, signal: Signal) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open, and without further particulars the kernel reads nothing.
    let sent =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal as libc::c_int, none, 0) };
    if sent == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The number that the process has here.
pub(super) fn number(process: BorrowedFd<'_>) -> io::Result<u32> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", process.as_raw_fd()))?;
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    pid.filter(|pid| *pid != 0).ok_or_else(|| io::Error::other("the process cannot be seen from here"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        os::{fd::AsFd as _, unix::process::ExitStatusExt as _},
        process::Command,
    };

    #[test]
    fn a_process_is_found_and_signalled_by_its_descriptor() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = open(child.id()).unwrap();
        assert_eq!(number(process.as_fd()).unwrap(), child.id());
        send_signal(process.as_fd(), Signal::SIGTERM).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::SIGTERM as i32));
        assert!(send_signal(process.as_fd(), Signal::SIGTERM).is_err() && number(process.as_fd()).is_err());
    }
}
