//! A certificate with its key, as servers show them.

use super::{
    FileError,
    files::{read_certificates, read_key},
    provider,
};
use rustls::{
    Error, ServerConfig, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::{NoServerSessionStorage, danger::ClientCertVerifier},
    time_provider::TimeProvider,
};
use std::{path::Path, sync::Arc};

/// A certificate, those between it and the authority, and its key.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

impl Pair {
    /// What is in two files.
    pub(super) fn read(certificate: &Path, key: &Path) -> Result<Pair, FileError> {
        Ok(Pair { chain: read_certificates(certificate)?, key: read_key(key)? })
    }

    /// How a server with this certificate speaks `protocol`, with clients that may show certificates where there is somebody
    /// who knows `clients`. Fails if certificate and key do not fit together.
    pub(super) fn server(
        &self,
        clients: Option<Arc<dyn ClientCertVerifier>>,
        versions: &[&'static SupportedProtocolVersion],
        protocol: &[u8],
        time: &Arc<dyn TimeProvider>,
    ) -> Result<Arc<ServerConfig>, Error> {
        let builder = ServerConfig::builder_with_details(provider(), time.clone());
        let builder = builder.with_protocol_versions(versions)?;
        let builder = match clients {
            Some(clients) => builder.with_client_cert_verifier(clients),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![protocol.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }
}
