//! Messages between the testbed and a container's agent, with open files in them.

#![allow(unsafe_code, reason = "descriptors that have come in a message are owned from then on")]

use nix::{
    cmsg_space,
    sys::socket::{
        AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, accept4,
        bind, connect, getsockopt, listen, recvmsg, sendmsg, socket, sockopt::PeerCredentials,
    },
    unistd::Pid,
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
    path::Path,
};

/// No message is longer.
const MESSAGE_LEN_MAX: usize = 64 << 10;
/// No message has more open files.
const FILES_MAX: usize = 2;

/// A connection of messages, each of which arrives whole.
#[derive(Debug)]
pub(super) struct Wire(OwnedFd);

/// Where connections of messages arrive.
#[derive(Debug)]
pub(super) struct Door(OwnedFd);

fn sequenced() -> io::Result<OwnedFd> {
    Ok(socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?)
}

impl Door {
    /// A socket at `path`, in place of one that is there.
    pub(super) fn at(path: &Path) -> io::Result<Door> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let door = sequenced()?;
        bind(door.as_raw_fd(), &UnixAddr::new(path)?)?;
        listen(&door, Backlog::new(1)?)?;
        Ok(Door(door))
    }

    /// Waits for who comes; [`Door::as_fd`] tells whether somebody is there.
    pub(super) fn accept(&self) -> io::Result<Wire> {
        let come = accept4(self.0.as_raw_fd(), SockFlag::SOCK_CLOEXEC)?;
        // SAFETY: the kernel has just made it for this process.
        Ok(Wire(unsafe { OwnedFd::from_raw_fd(come) }))
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Wire {
    /// Goes to the door at `path`.
    pub(super) fn to(path: &Path) -> io::Result<Wire> {
        let wire = sequenced()?;
        connect(wire.as_raw_fd(), &UnixAddr::new(path)?)?;
        Ok(Wire(wire))
    }

    /// The process at the other end, by the number that it has here.
    pub(super) fn peer(&self) -> io::Result<Pid> {
        Ok(Pid::from_raw(getsockopt(&self.0, PeerCredentials)?.pid()))
    }

    /// Sends a message, and open files with it.
    pub(super) fn send(&self, message: &impl Serialize, files: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        if bytes.len() > MESSAGE_LEN_MAX {
            return Err(io::Error::other(format!("a message of {} bytes is too long", bytes.len())));
        }
        let files: Vec<RawFd> = files.iter().map(|file| file.as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&files)];
        let control = if files.is_empty() { &[][..] } else { &rights[..] };
        // Who has gone is an error, not a signal.
        sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(&bytes)], control, MsgFlags::MSG_NOSIGNAL, None)?;
        Ok(())
    }

    /// The next message, with the open files in it; none at the end.
    pub(super) fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut bytes = vec![0; MESSAGE_LEN_MAX];
        let mut control = cmsg_space!([RawFd; FILES_MAX]);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let message = loop {
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            match recvmsg::<()>(self.0.as_raw_fd(), &mut slices, Some(&mut control), flags) {
                Err(nix::Error::EINTR) => {}
                // Who was killed before it had read all.
                Err(nix::Error::ECONNRESET) => return Ok(None),
                message => break message?,
            }
        };
        let mut files = Vec::new();
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(come) = control {
                // SAFETY: the kernel has just made them for this process.
                files.extend(come.into_iter().map(|file| unsafe { OwnedFd::from_raw_fd(file) }));
            }
        }
        let len = message.bytes;
        if len == 0 {
            return Ok(None);
        }
        Ok(Some((serde_json::from_slice(&bytes[..len])?, files)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::File, io::Read as _};

    #[test]
    fn messages_arrive_whole_with_their_files_and_the_end_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("door");
        let door = Door::at(&path).unwrap();
        let (here, there) = (Wire::to(&path).unwrap(), door.accept().unwrap());
        assert_eq!(there.peer().unwrap(), Pid::this());
        std::fs::write(dir.path().join("file"), "words").unwrap();
        let file = File::open(dir.path().join("file")).unwrap();
        here.send(&("first", 1), &[file.as_fd()]).unwrap();
        here.send(&("second", 2), &[]).unwrap();
        let ((word, number), files) = there.receive::<(String, u32)>().unwrap().unwrap();
        assert_eq!((&*word, number, files.len()), ("first", 1, 1));
        let mut text = String::new();
        File::from(files.into_iter().next().unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "words");
        assert_eq!(there.receive::<(String, u32)>().unwrap().unwrap().0, ("second".to_owned(), 2));
        assert!(here.send(&"x".repeat(MESSAGE_LEN_MAX), &[]).is_err());
        drop(here);
        assert!(there.receive::<(String, u32)>().unwrap().is_none());
        Door::at(&path).unwrap();
    }
}
