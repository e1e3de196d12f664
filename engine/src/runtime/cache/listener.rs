//! The certificate that a cache shows to its clients, read again when it changes.
//!
//! Invariant: files that cannot be used change nothing; what was read last stays in force.

use crate::{
    protocol::Instant,
    runtime::renewal::{RenewedFiles, WARN_BEFORE, WallClock, tell_of_reading},
    tls::{ListenerTls, LoadError, PairFiles},
};
use rustls::ServerConfig;
use std::sync::Arc;

/// The certificate in force, and where it is from.
#[derive(Debug)]
pub(super) struct Certificate {
    pair: PairFiles,
    tls: ListenerTls,
    files: RenewedFiles,
}

impl Certificate {
    pub(super) fn load(pair: PairFiles, now: Instant) -> Result<Certificate, LoadError> {
        let files = RenewedFiles::new([pair.certificate.clone(), pair.key.clone()], now);
        let tls = read(&pair)?;
        let mut certificate = Certificate { pair, tls, files };
        certificate.warn_of_expiry();
        Ok(certificate)
    }

    fn warn_of_expiry(&mut self) {
        self.files.warn_of_expiry("cache", self.tls.expires_within(WARN_BEFORE));
    }

    /// Reads the files again.
    pub(super) fn reload(&mut self) {
        self.files.mark();
        let read = read(&self.pair).map(|tls| self.tls = tls);
        if tell_of_reading("certificate and key", read) {
            self.warn_of_expiry();
        }
    }

    /// Reads the files again if one of them has changed.
    pub(super) fn look(&mut self, now: Instant) {
        let seen = self.files.look(now);
        if seen.is_day_over {
            self.warn_of_expiry();
        }
        if seen.is_changed {
            self.reload();
        }
    }

    /// When [`look`](Certificate::look) is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.files.poll_timeout()
    }

    /// How TLS is spoken with clients.
    pub(super) fn tls(&self) -> Arc<ServerConfig> {
        self.tls.config.clone()
    }
}

fn read(pair: &PairFiles) -> Result<ListenerTls, LoadError> {
    ListenerTls::load(pair, Arc::new(WallClock))
}
