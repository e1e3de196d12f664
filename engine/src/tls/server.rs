//! What a storage point needs for its listeners and links, from its files.

use super::{Fault, FileError, TlsFiles, files::read_roots, later, pair::Pair, provider, verify::PeerVerifier};
use crate::protocol::SpId;
use rustls::{
    ClientConfig, Error, RootCertStore, ServerConfig, client::Resumption, server::WebPkiClientVerifier,
    time_provider::TimeProvider, version::TLS13,
};
use std::{path::PathBuf, sync::Arc, time::Duration};

/// Why files do not make a server's TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The certificate is not this storage point's, or no longer.
    #[error("{path} cannot be used by storage point {sp} of {cluster}: {fault}")]
    Certificate {
        /// Which file.
        path: PathBuf,
        /// Who wants to use it.
        sp: SpId,
        /// Of which cluster.
        cluster: String,
        /// What is wrong.
        fault: Fault,
    },
    /// The certificate is none that a listener can show, or no longer.
    #[error("{path} cannot be used: {fault}")]
    Listener {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        fault: Fault,
    },
    /// Certificate and key do not fit together.
    #[error("{certificate} and {key} do not fit together: {detail}")]
    Pair {
        /// Which certificate.
        certificate: PathBuf,
        /// Which key.
        key: PathBuf,
        /// What is wrong.
        detail: String,
    },
}

/// The TLS of a storage point.
#[derive(Debug)]
pub struct ServerTls {
    cluster: String,
    roots: Arc<RootCertStore>,
    pair: Pair,
    time: Arc<dyn TimeProvider>,
    /// For listeners where clients may show a certificate.
    pub publish: Arc<ServerConfig>,
    /// For listeners where nobody needs one.
    pub deliver: Arc<ServerConfig>,
    /// For links that other storage points make.
    pub peer: Arc<ServerConfig>,
}

impl ServerTls {
    /// Reads and checks the files of storage point `me`, by the clock `time`.
    pub fn load(
        files: &TlsFiles,
        cluster: &str,
        me: SpId,
        time: Arc<dyn TimeProvider>,
    ) -> Result<ServerTls, LoadError> {
        let roots = Arc::new(read_roots(&files.authority)?);
        let pair = Pair::read(&files.certificate, &files.key)?;
        let unusable = |error: Error| LoadError::Certificate {
            path: files.certificate.clone(),
            sp: me,
            cluster: cluster.to_owned(),
            fault: error.into(),
        };
        let unfit = |error: Error| LoadError::Pair {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
            detail: error.to_string(),
        };
        let now = time.current_time().ok_or(Error::FailedToGetCurrentTime).map_err(unusable)?;
        let myself = PeerVerifier::new(cluster, Some(me), roots.clone()).map_err(unusable)?;
        myself.check(&pair.chain[0], &pair.chain[1..], now).map_err(unusable)?;
        let anyone = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider())
            .allow_unauthenticated()
            .build()
            .map_err(|error| unusable(Error::General(error.to_string())))?;
        let peers = Arc::new(PeerVerifier::new(cluster, None, roots.clone()).map_err(unusable)?);
        Ok(ServerTls {
            publish: pair.server(Some(anyone), rustls::ALL_VERSIONS, b"http/1.1", &time).map_err(unfit)?,
            deliver: pair.server(None, rustls::ALL_VERSIONS, b"http/1.1", &time).map_err(unfit)?,
            peer: pair.server(Some(peers), &[&TLS13], PEER_PROTOCOL, &time).map_err(unfit)?,
            cluster: cluster.to_owned(),
            roots,
            pair,
            time,
        })
    }

    /// For a link to storage point `sp`, and nobody else.
    pub fn dial(&self, sp: SpId) -> Result<Arc<ClientConfig>, Fault> {
        let verifier = PeerVerifier::new(&self.cluster, Some(sp), self.roots.clone())?;
        let mut config = ClientConfig::builder_with_details(provider(), self.time.clone())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(self.pair.chain.clone(), self.pair.key.clone_key())?;
        config.alpn_protocols = vec![PEER_PROTOCOL.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        Ok(Arc::new(config))
    }

    /// Whether the certificate, or an authority above it, is no longer valid after this time from now.
    pub fn expires_within(&self, time: Duration) -> bool {
        let Some(later) = later(&*self.time, time) else { return false };
        let chain = &self.pair.chain;
        PeerVerifier::new(&self.cluster, None, self.roots.clone())
            .is_ok_and(|verifier| verifier.check(&chain[0], &chain[1..], later).is_err())
    }
}

/// What is spoken over links, so that they are never mistaken for HTTP.
const PEER_PROTOCOL: &[u8] = b"acms-peer";
