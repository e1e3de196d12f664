//! ICMP echoes: the other host's kernel answers by itself, and this one says when the answer came, so that no process's turn
//! is in what is measured.

use super::{
    namespace::Namespace,
    packets::{ECHO_REPLY, ECHO_REQUEST, echo_key, sum},
};
use nix::sys::{
    socket::{
        AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recvmsg, sendto,
        setsockopt, socket, sockopt,
    },
    time::TimeSpec,
};
use std::{
    io::{self, IoSliceMut},
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    time::Duration,
};

/// Bytes of an echo request: its head, and padding to what `ping` sends.
const REQUEST_LEN: usize = 64;
/// No [`Prober`](super::Prober) has so many hosts.
const PING_KEY: u32 = 0xffff_0000;

/// Asks other hosts from a namespace.
#[derive(Debug)]
pub(super) struct EchoSocket(OwnedFd);

impl EchoSocket {
    /// Needs `CAP_NET_RAW` over the namespace.
    pub(super) fn new(namespace: &Namespace) -> io::Result<EchoSocket> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let made = namespace.within(|| Ok(socket(AddressFamily::Inet, SockType::Raw, flags, SockProtocol::Icmp)?))?;
        setsockopt(&made, sockopt::ReceiveTimestampns, &true)?;
        Ok(EchoSocket(made))
    }

    /// Asks `to`; when that was, in nanoseconds of the wall clock.
    pub(super) fn ask(&self, to: Ipv4Addr, key: u32) -> io::Result<u64> {
        let mut request = [0; REQUEST_LEN];
        request[0] = ECHO_REQUEST;
        request[4..8].copy_from_slice(&key.to_be_bytes());
        let checksum = !sum(&request, 0);
        request[2..4].copy_from_slice(&checksum.to_be_bytes());
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_REALTIME)?;
        let to = SockaddrIn::from(SocketAddrV4::new(to, 0));
        sendto(self.0.as_raw_fd(), &request, &to, MsgFlags::empty())?;
        Ok(nanos(now))
    }

    /// The next answer: its key, and when the kernel got it, in nanoseconds of the wall clock. None if there is none now.
    pub(super) fn answer(&self) -> Option<(u32, u64)> {
        let mut buffer = [0; 256];
        let mut control = nix::cmsg_space!(TimeSpec);
        loop {
            let mut slices = [IoSliceMut::new(&mut buffer)];
            let message = recvmsg::<()>(self.0.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::empty()).ok()?;
            let came = message.cmsgs().ok()?.find_map(|control| match control {
                ControlMessageOwned::ScmTimestampns(at) => Some(nanos(at)),
                _ => None,
            });
            let len = message.bytes;
            // It hears what is asked of this host, too.
            let is_reply = buffer.get(usize::from(buffer[0] & 0xf) * 4) == Some(&ECHO_REPLY);
            if let (true, Some(key), Some(came_ns)) = (is_reply, echo_key(&buffer[..len]), came) {
                return Some((key, came_ns));
            }
        }
    }
}

impl AsFd for EchoSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Asks `to` once from a namespace: how long the answer took, if it came within that time.
pub fn ping(from: &Namespace, to: Ipv4Addr, within: Duration) -> io::Result<Option<Duration>> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let socket = EchoSocket::new(from)?;
    let asked_ns = socket.ask(to, PING_KEY)?;
    let begun = std::time::Instant::now();
    loop {
        if let Some((PING_KEY, came_ns)) = socket.answer() {
            return Ok(Some(Duration::from_nanos(came_ns.saturating_sub(asked_ns))));
        }
        let Some(left) = within.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) else { return Ok(None) };
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], timeout)?;
    }
}

fn nanos(time: TimeSpec) -> u64 {
    time.tv_sec().unsigned_abs() * 1_000_000_000 + time.tv_nsec().unsigned_abs()
}
