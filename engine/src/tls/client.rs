//! What clients of `https://` addresses need: whom they trust, and who they are.

use super::{
    Fault, FileError, Session,
    files::{read_certificates, read_key, read_roots},
    provider,
};
use rustls::{ClientConfig, RootCertStore, client::Resumption, pki_types::ServerName};
use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Where systems keep the authorities that they trust.
const SYSTEM_AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Why `https://` addresses cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientTlsError {
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
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
    /// One of the two is missing.
    #[error("a certificate needs its key and a key its certificate: give both --cert and --cert-key")]
    Half,
    /// No authority is known.
    #[error("no authority is known: name the cluster's with --ca FILE (authority.pem, made by `acms init`)")]
    NoAuthority,
}

/// How to speak TLS as a client.
#[derive(Clone)]
pub struct ClientTls(Arc<ClientConfig>);

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientTls")
    }
}

impl ClientTls {
    /// Trusts the authorities of the file `ca`, without it those that this system trusts; presents the certificate and
    /// key of two files, if given.
    pub fn load(ca: Option<&Path>, pair: (Option<&Path>, Option<&Path>)) -> Result<ClientTls, ClientTlsError> {
        let roots = match ca {
            Some(ca) => read_roots(ca)?,
            None => system_roots()?,
        };
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = builder.with_safe_default_protocol_versions().map_err(|_| ClientTlsError::NoAuthority)?;
        let builder = builder.with_root_certificates(roots);
        let mut config = match pair {
            (Some(certificate), Some(key)) => {
                let made = builder.with_client_auth_cert(read_certificates(certificate)?, read_key(key)?);
                made.map_err(|error| ClientTlsError::Pair {
                    certificate: certificate.to_owned(),
                    key: key.to_owned(),
                    detail: error.to_string(),
                })?
            }
            (None, None) => builder.with_no_client_auth(),
            _ => return Err(ClientTlsError::Half),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = Resumption::disabled();
        Ok(ClientTls(Arc::new(config)))
    }

    /// A session with the server at `host`, a name or an address.
    pub fn connect(&self, host: &str) -> io::Result<Session> {
        let name = ServerName::try_from(host.to_owned()).map_err(|error| Fault {
            cause: super::Cause::Identity,
            problem: format!("{host:?} is no name that a certificate could have: {error}"),
            remedy: "use a host name of letters, digits and hyphens, or an address",
        })?;
        Session::client(&self.0, name)
    }
}

fn system_roots() -> Result<RootCertStore, ClientTlsError> {
    let path =
        SYSTEM_AUTHORITIES.iter().map(Path::new).find(|path| path.exists()).ok_or(ClientTlsError::NoAuthority)?;
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(read_certificates(path)?);
    if added == 0 { Err(ClientTlsError::NoAuthority) } else { Ok(roots) }
}
