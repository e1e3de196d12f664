//! A process whose file system calls are looked at before the kernel does them: by a seccomp filter that it gets between fork
//! and exec, and whose listener is here. That needs no privilege and leaves nothing behind: the filter is gone with the process.

#![allow(unsafe_code, reason = "the filter is installed by system calls in a child that has not yet begun its program")]

use nix::{
    libc::{self, c_int, c_long},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, socketpair},
};
use std::{
    fs::File,
    io::{self, IoSliceMut},
    os::{
        fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::{fs::FileExt as _, process::CommandExt as _},
    },
    path::PathBuf,
    process::Command,
    time::Duration,
};

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("say how this architecture is called in linux/audit.h");

/// What a process is about to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Intent {
    /// Wait until all that was written is on the disk.
    Flush,
    /// Write so many bytes to a file from an offset on, where it has one.
    Write { fd: c_int, offset: Option<u64>, len: u64 },
    /// Make a file as long as this.
    Lengthen { fd: c_int, len: u64 },
    /// Make a file or directory, or open it if it is there.
    Make { directory: c_int, path: u64 },
}

/// A call that waits for an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    id: u64,
    pub(super) pid: u32,
    pub(super) intent: Intent,
}

/// The child's end of what brings the listener here. Lives in the command.
pub(in crate::backend) struct Hook(OwnedFd);

/// Has `command` install the filter. [`Hook::listener`] is for after its start.
pub(in crate::backend) fn intercept(command: &mut Command) -> io::Result<Hook> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let (here, there) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags)?;
    let filter = filter();
    let install = move || {
        let listener = install(&filter)?;
        send(there.as_raw_fd(), listener.as_raw_fd())
    };
    // SAFETY: only system calls, on memory that was there before the fork.
    unsafe { command.pre_exec(install) };
    Ok(Hook(here))
}

impl Hook {
    /// The listener of the process that was started.
    pub(in crate::backend) fn listener(self) -> io::Result<Listener> {
        let mut byte = [0];
        let mut control = nix::cmsg_space!(c_int);
        let mut slices = [IoSliceMut::new(&mut byte)];
        let message = recvmsg::<()>(self.0.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
        let fd = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
            _ => None,
        });
        let fd = fd.ok_or_else(|| io::Error::other("the process sent no listener"))?;
        // SAFETY: the kernel has just made it for this process.
        Ok(Listener(unsafe { OwnedFd::from_raw_fd(fd) }))
    }
}

/// Where the calls of one process and its threads arrive.
#[derive(Debug)]
pub(in crate::backend) struct Listener(OwnedFd);

impl From<OwnedFd> for Listener {
    fn from(listener: OwnedFd) -> Listener {
        Listener(listener)
    }
}

impl From<Listener> for OwnedFd {
    fn from(listener: Listener) -> OwnedFd {
        listener.0
    }
}

/// What [`Listener::next`] has seen.
pub(super) enum Seen {
    /// A call.
    Call(Call),
    /// Nothing in that time.
    Nothing,
    /// The process is gone.
    End,
}

impl Listener {
    /// Waits for the next call.
    pub(super) fn next(&self, within: Duration) -> io::Result<Seen> {
        let timeout = PollTimeout::try_from(within).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => return Ok(Seen::Nothing),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = fds[0].revents().unwrap_or(PollFlags::empty());
        if !flags.contains(PollFlags::POLLIN) {
            return Ok(Seen::End);
        }
        // SAFETY: all fields are numbers, for which zero is a value; the kernel wants them to be zero.
        let mut notification: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the descriptor is a listener, and the kernel writes one `seccomp_notif`.
        match unsafe { ioctl::receive(self.0.as_raw_fd(), &mut notification) } {
            Ok(_) => Ok(Seen::Call(call(&notification))),
            // Whoever called was killed meanwhile.
            Err(nix::errno::Errno::ENOENT | nix::errno::Errno::EINTR) => Ok(Seen::Nothing),
            Err(error) => Err(error.into()),
        }
    }

    /// Lets the kernel do a call, or has it fail with `error`.
    pub(super) fn answer(&self, call: &Call, error: Option<c_int>) {
        let flags = if error.is_none() { libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32 } else { 0 };
        let mut response = libc::seccomp_notif_resp { id: call.id, val: 0, error: -error.unwrap_or(0), flags };
        // SAFETY: the descriptor is a listener, and the kernel reads one `seccomp_notif_resp`. It fails if the process is gone.
        let _ = unsafe { ioctl::send(self.0.as_raw_fd(), &mut response) };
    }
}

fn call(notification: &libc::seccomp_notif) -> Call {
    let args = notification.data.args;
    let fd = args[0] as c_int;
    let intent = match c_long::from(notification.data.nr) {
        libc::SYS_write | libc::SYS_writev => Intent::Write { fd, offset: None, len: args[2] },
        libc::SYS_pwrite64 => Intent::Write { fd, offset: Some(args[3]), len: args[2] },
        libc::SYS_ftruncate => Intent::Lengthen { fd, len: args[1] },
        libc::SYS_fallocate => Intent::Lengthen { fd, len: args[2].saturating_add(args[3]) },
        libc::SYS_openat | libc::SYS_mkdirat => Intent::Make { directory: fd, path: args[1] },
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open | libc::SYS_mkdir => Intent::Make { directory: libc::AT_FDCWD, path: args[0] },
        _ => Intent::Flush,
    };
    Call { id: notification.id, pid: notification.pid, intent }
}

impl Call {
    /// The file that it is about, as this process can reach it.
    pub(super) fn file(&self, fd: c_int) -> PathBuf {
        format!("/proc/{}/fd/{fd}", self.pid).into()
    }

    /// The path that it names, as this process can reach it.
    pub(super) fn path(&self, directory: c_int, at: u64) -> io::Result<PathBuf> {
        let memory = File::open(format!("/proc/{}/mem", self.pid))?;
        let mut bytes = vec![0; libc::PATH_MAX as usize];
        let len = memory.read_at(&mut bytes, at)?;
        let len =
            bytes[..len].iter().position(|byte| *byte == 0).ok_or_else(|| io::Error::other("a path without end"))?;
        let path = PathBuf::from(std::str::from_utf8(&bytes[..len]).map_err(io::Error::other)?);
        Ok(match directory {
            _ if path.is_absolute() => path,
            libc::AT_FDCWD => PathBuf::from(format!("/proc/{}/cwd", self.pid)).join(path),
            fd => self.file(fd).join(path),
        })
    }
}

// ---- The filter ---------------------------------------------------------------------------------------------------

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const IF_GREATER: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
const IF_ANY_BIT: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// Offsets in `seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
/// The low half of an argument.
const fn argument(number: u32) -> u32 {
    16 + 8 * number
}

const fn step(code: u16, k: u32, if_true: u8, if_false: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt: if_true, jf: if_false, k }
}

/// Calls that are looked at whatever their arguments.
const ALWAYS: &[c_long] = &[
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_syncfs,
    libc::SYS_sync_file_range,
    libc::SYS_pwrite64,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_mkdirat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
];
/// Calls that are looked at unless they go to standard output or error.
const BY_DESCRIPTOR: &[c_long] = &[libc::SYS_write, libc::SYS_writev];
/// Calls that are looked at if they may make a file, and which argument says so.
const BY_FLAGS: &[(c_long, u32)] = &[
    (libc::SYS_openat, 2),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, 1),
];

fn filter() -> Vec<libc::sock_filter> {
    let (allow, ask) = (step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0), step(RETURN, libc::SECCOMP_RET_USER_NOTIF, 0, 0));
    let mut all = vec![step(LOAD, ARCH, 0, 0), step(IF_EQUAL, ARCHITECTURE, 1, 0), allow, step(LOAD, NUMBER, 0, 0)];
    for number in ALWAYS {
        all.extend([step(IF_EQUAL, *number as u32, 0, 1), ask]);
    }
    for number in BY_DESCRIPTOR {
        let test = [step(LOAD, argument(0), 0, 0), step(IF_GREATER, libc::STDERR_FILENO as u32, 0, 1), ask, allow];
        all.push(step(IF_EQUAL, *number as u32, 0, test.len() as u8));
        all.extend(test);
    }
    for (number, flags) in BY_FLAGS {
        let test = [step(LOAD, argument(*flags), 0, 0), step(IF_ANY_BIT, libc::O_CREAT as u32, 0, 1), ask, allow];
        all.push(step(IF_EQUAL, *number as u32, 0, test.len() as u8));
        all.extend(test);
    }
    all.push(allow);
    all
}

/// Installs the filter in this process, which is about to exec. Its listener.
fn install(filter: &[libc::sock_filter]) -> io::Result<OwnedFd> {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the program lives until the call returns, and the kernel only reads it.
    let fd = unsafe {
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 {
            return Err(io::Error::last_os_error());
        }
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it.
    let listener = unsafe { OwnedFd::from_raw_fd(fd as c_int) };
    Ok(listener)
}

/// Sends a descriptor. Without allocation: between fork and exec there may be none.
fn send(socket: c_int, descriptor: c_int) -> io::Result<()> {
    #[repr(C, align(8))]
    struct Control([u8; 24]);
    let mut control = Control([0; 24]);
    let mut byte = 0_u8;
    let mut slice = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // SAFETY: all fields are numbers and pointers, for which zero is a value. The control message has room for one
    // descriptor and its head: 24 bytes.
    let sent = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut slice;
        message.msg_iovlen = 1;
        message.msg_control = (&raw mut control.0).cast();
        message.msg_controllen = control.0.len();
        let head = libc::CMSG_FIRSTHDR(&raw const message);
        (*head).cmsg_level = libc::SOL_SOCKET;
        (*head).cmsg_type = libc::SCM_RIGHTS;
        (*head).cmsg_len = libc::CMSG_LEN(size_of::<c_int>() as u32) as usize;
        libc::CMSG_DATA(head).cast::<c_int>().write_unaligned(descriptor);
        libc::sendmsg(socket, &raw const message, 0)
    };
    if sent == 1 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[allow(missing_docs, reason = "each is the ioctl of that name")]
mod ioctl {
    use nix::libc;

    nix::ioctl_readwrite!(receive, b'!', 0, libc::seccomp_notif);
    nix::ioctl_readwrite!(send, b'!', 1, libc::seccomp_notif_resp);
}
