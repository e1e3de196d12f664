//! A cluster's own small authority: a key and a certificate in a directory, and what it signs.

use super::{BadIdentity, FileError, Identity, files::read_certificates, write_secret};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

const CERTIFICATE_FILE: &str = "authority.pem";
const KEY_FILE: &str = "authority.key";
const LIFETIME: Duration = Duration::from_secs(20 * 365 * 86_400);
/// Certificates are valid from this long before they are made: clocks differ.
const BACKDATE: Duration = Duration::from_secs(3600);

/// Why an authority cannot be made or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file cannot be written.
    #[error("{path} cannot be written: {source}; nothing is overwritten")]
    Write {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The certificate is no cluster's.
    #[error(
        "{path} is not the certificate of a cluster's authority: {source}; name the directory that `acms init --tls` made"
    )]
    Identity {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        source: BadIdentity,
    },
    /// A publisher's name is none.
    #[error(transparent)]
    Holder(#[from] BadIdentity),
    /// A name cannot stand in a certificate.
    #[error("{0:?} can be no name in a certificate: write a host name or an address")]
    Name(String),
    /// The library refused.
    #[error("the certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
}

/// Signs certificates.
#[derive(Debug)]
pub struct Authority {
    cluster: String,
    key: KeyPair,
    certificate_pem: String,
}

/// A certificate and its key, as PEM.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate.
    pub certificate_pem: String,
    /// Its key.
    pub key_pem: String,
    /// The authority's certificate.
    pub authority_pem: String,
}

impl Authority {
    /// Makes the authority of `cluster`, in a directory that has none.
    pub fn create(cluster: &str, directory: &Path) -> Result<Authority, AuthorityError> {
        let write = |path: &Path| {
            let path = path.to_owned();
            move |source| AuthorityError::Write { path, source }
        };
        std::fs::create_dir_all(directory).map_err(write(directory))?;
        let key = KeyPair::generate()?;
        let certificate_pem = params(cluster)?.self_signed(&key)?.pem();
        let (key_file, certificate_file) = (directory.join(KEY_FILE), directory.join(CERTIFICATE_FILE));
        write_secret(&key_file, key.serialize_pem().as_bytes()).map_err(write(&key_file))?;
        std::fs::write(&certificate_file, &certificate_pem).map_err(write(&certificate_file))?;
        Ok(Authority { cluster: cluster.to_owned(), key, certificate_pem })
    }

    /// The authority of a directory.
    pub fn open(directory: &Path) -> Result<Authority, AuthorityError> {
        let (key_file, certificate_file) = (directory.join(KEY_FILE), directory.join(CERTIFICATE_FILE));
        let read = |path: &Path| {
            let failed = |source| FileError::Read { path: path.to_owned(), source };
            std::fs::read_to_string(path).map_err(failed)
        };
        let certificates = read_certificates(&certificate_file)?;
        let wrong = |source| AuthorityError::Identity { path: certificate_file.clone(), source };
        let cluster = Identity::of(&certificates[0]).map_err(wrong)?.cluster().to_owned();
        let key = KeyPair::from_pem(&read(&key_file)?)?;
        Ok(Authority { cluster, key, certificate_pem: read(&certificate_file)? })
    }

    /// Whose it is.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// A certificate for `holder`, whom others reach under `names` (host names and addresses; none for those who only
    /// connect to others), valid for `lifetime`.
    pub fn issue(&self, holder: &Identity, names: &[String], lifetime: Duration) -> Result<Issued, AuthorityError> {
        let bad_name = |name: &str| AuthorityError::Name(name.to_owned());
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, self.cluster.as_str());
        params.distinguished_name.push(DnType::CommonName, common_name(holder));
        params.subject_alt_names = vec![SanType::URI(holder.to_string().try_into()?)];
        for name in names {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) if is_host(name) => SanType::DnsName(name.as_str().try_into().map_err(|_| bad_name(name))?),
                Err(_) => return Err(bad_name(name)),
            });
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match holder {
            Identity::Publisher { .. } => vec![ExtendedKeyUsagePurpose::ClientAuth],
            _ => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        };
        params.use_authority_key_identifier_extension = true;
        set_lifetime(&mut params, lifetime);
        let key = KeyPair::generate()?;
        let issuer = Issuer::new(self::params(&self.cluster)?, &self.key);
        Ok(Issued {
            certificate_pem: params.signed_by(&key, &issuer)?.pem(),
            key_pem: key.serialize_pem(),
            authority_pem: self.certificate_pem.clone(),
        })
    }
}

impl Issued {
    /// Writes `certificate.pem`, `key.pem` and `authority.pem` into a directory that has none of the first two.
    pub fn write(&self, directory: &Path) -> Result<(), AuthorityError> {
        let failed = |path: PathBuf| move |source| AuthorityError::Write { path, source };
        std::fs::create_dir_all(directory).map_err(failed(directory.to_owned()))?;
        let (certificate, key) = (directory.join("certificate.pem"), directory.join("key.pem"));
        if certificate.exists() {
            return Err(failed(certificate)(io::ErrorKind::AlreadyExists.into()));
        }
        write_secret(&key, self.key_pem.as_bytes()).map_err(failed(key))?;
        std::fs::write(&certificate, &self.certificate_pem).map_err(failed(certificate))?;
        let authority = directory.join(CERTIFICATE_FILE);
        std::fs::write(&authority, &self.authority_pem).map_err(failed(authority))
    }
}

/// The authority's own certificate. Its name follows from the cluster's alone, so that it can be said again as the issuer
/// of others.
fn params(cluster: &str) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("ACMS authority of {cluster}"));
    let identity = Identity::Authority { cluster: cluster.to_owned() };
    params.subject_alt_names = vec![SanType::URI(identity.to_string().try_into()?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_lifetime(&mut params, LIFETIME);
    Ok(params)
}

fn set_lifetime(params: &mut CertificateParams, lifetime: Duration) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at = |since_1970: Duration| date_time_ymd(1970, 1, 1) + since_1970;
    params.not_before = at(now.saturating_sub(BACKDATE));
    params.not_after = at(now + lifetime);
}

fn common_name(holder: &Identity) -> String {
    match holder {
        Identity::Authority { cluster } => format!("authority of {cluster}"),
        Identity::StoragePoint { sp, .. } => format!("storage point {sp}"),
        Identity::Cache { name, .. } => format!("cache {name}"),
        Identity::Publisher { grant, .. } => grant.name.clone(),
    }
}

fn is_host(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let rest = name.strip_prefix("*.").unwrap_or(name);
    rest.len() <= 253 && rest.split('.').all(label)
}
