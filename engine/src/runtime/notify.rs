//! What a service manager is told: that the process serves, that it stops, that it lives. The protocol of sd_notify: a
//! datagram to the socket that `NOTIFY_SOCKET` names. Without that variable nobody is told.

use crate::protocol::{Duration, Instant};
use std::{
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

/// The way to the service manager.
#[derive(Debug, Default)]
pub struct Notify {
    manager: Option<(UnixDatagram, SocketAddr)>,
    /// Half of the time after which silence counts as death.
    interval: Option<Duration>,
    /// When it is to be told next that the process lives.
    next_at: Option<Instant>,
}

impl Notify {
    /// As the environment says.
    pub fn from_environment() -> Notify {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Notify::default();
        };
        let number = |name: &str| std::env::var_os(name)?.to_str()?.parse::<u64>().ok();
        let is_mine = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog_us = number("WATCHDOG_USEC").filter(|us| is_mine && *us > 0);
        match connect(&name) {
            Ok(manager) => Notify {
                manager: Some(manager),
                interval: watchdog_us.map(|us| Duration::from_micros(us / 2)),
                next_at: None,
            },
            Err(error) => {
                tracing::warn!("the service manager cannot be told anything at {}: {error}", name.display());
                Notify::default()
            }
        }
    }

    /// The process serves.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// The process ends.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// Says that the process lives, if it is time to.
    pub fn handle_timeout(&mut self, now: Instant) {
        let Some(interval) = self.interval else { return };
        if self.next_at.is_none_or(|at| at <= now) {
            self.next_at = Some(now.after(interval));
            self.tell("WATCHDOG=1");
        }
    }

    /// When [`handle_timeout`](Notify::handle_timeout) has something to say.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.interval.map(|_| self.next_at.unwrap_or_default())
    }

    fn tell(&self, what: &str) {
        if let Some((socket, addr)) = &self.manager
            && let Err(error) = socket.send_to_addr(what.as_bytes(), addr)
        {
            tracing::debug!("the service manager was not told {what}: {error}");
        }
    }
}

fn connect(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let addr = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read must not stop the loop.
    socket.set_nonblocking(true)?;
    Ok((socket, addr))
}
