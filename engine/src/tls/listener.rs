//! What a listener needs at which nobody but the server shows a certificate. Of which authority that is, is a matter of
//! those who connect: it may be the cluster's or one that everybody trusts.

use super::{LoadError, PairFiles, later, pair::Pair, provider};
use rustls::{
    CertificateError, Error, RootCertStore, ServerConfig,
    client::verify_server_cert_signed_by_trust_anchor,
    pki_types::{CertificateDer, UnixTime},
    server::ParsedCertificate,
    time_provider::TimeProvider,
};
use std::{sync::Arc, time::Duration};

/// The TLS of such a listener.
#[derive(Debug)]
pub struct ListenerTls {
    chain: Vec<CertificateDer<'static>>,
    time: Arc<dyn TimeProvider>,
    /// How it is spoken.
    pub config: Arc<ServerConfig>,
}

impl ListenerTls {
    /// Reads and checks two files, by the clock `time`.
    pub fn load(files: &PairFiles, time: Arc<dyn TimeProvider>) -> Result<ListenerTls, LoadError> {
        let pair = Pair::read(&files.certificate, &files.key)?;
        let unusable = |error: Error| LoadError::Listener { path: files.certificate.clone(), fault: error.into() };
        let now = time.current_time().ok_or(Error::FailedToGetCurrentTime).map_err(unusable)?;
        check(&pair.chain, now).map_err(unusable)?;
        let config = pair.server(None, rustls::ALL_VERSIONS, b"http/1.1", &time);
        let config = config.map_err(|error| LoadError::Pair {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
            detail: error.to_string(),
        })?;
        Ok(ListenerTls { chain: pair.chain, time, config })
    }

    /// Whether the certificate, or one behind it in its file, is no longer valid after this time from now.
    pub fn expires_within(&self, time: Duration) -> bool {
        later(&*self.time, time).is_some_and(|later| check(&self.chain, later).is_err())
    }
}

/// Whether clients that trust whoever has certified it may take it for a server's at `now`.
fn check(chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Error> {
    let parsed = ParsedCertificate::try_from(&chain[0])?;
    let algorithms = provider().signature_verification_algorithms.all;
    // Everything else is looked at before the authority is looked for, and here nobody is one.
    let nobody = RootCertStore::empty();
    match verify_server_cert_signed_by_trust_anchor(&parsed, &nobody, &chain[1..], now, algorithms) {
        Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => Ok(()),
        other => other,
    }
}
