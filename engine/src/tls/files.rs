//! Certificates and keys as files (PEM).

use rustls::{
    RootCertStore,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
};
use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

/// No file of certificates is longer.
const FILE_LEN_MAX: u64 = 1 << 20;

/// Where the certificates of a process are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFiles {
    /// Certificates of the authorities that are trusted.
    pub authority: PathBuf,
    /// The certificate of this process, then those between it and the authority, if any.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Where a certificate and its key are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PairFiles {
    /// The certificate, then those between it and the authority, if any.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Why a file of certificates or keys cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// It cannot be read.
    #[error("{path} cannot be read: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It does not have what it should.
    #[error("{path} has no usable {what}: {detail}; it should be PEM, as `acms certificate` writes it")]
    Content {
        /// Which.
        path: PathBuf,
        /// What is looked for.
        what: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// Others can read a key.
    #[error("{path} is a key that others on this machine can read (mode {mode:o}): chmod 600 it")]
    Exposed {
        /// Which.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
}

fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let failed = |source| FileError::Read { path: path.to_owned(), source };
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if metadata.len() > FILE_LEN_MAX {
        return Err(failed(io::Error::other("it is too long for certificates")));
    }
    std::fs::read(path).map_err(failed)
}

fn content(path: &Path, what: &'static str, detail: impl ToString) -> FileError {
    FileError::Content { path: path.to_owned(), what, detail: detail.to_string() }
}

/// The certificates of a file, in its order; at least one.
pub(super) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let bytes = read(path)?;
    let certificates = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, pem::Error>>();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(content(path, "certificate", "there is none in it")),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(content(path, "certificate", error)),
    }
}

/// The authorities of a file.
pub(super) fn read_roots(path: &Path) -> Result<RootCertStore, FileError> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(path)? {
        roots.add(certificate).map_err(|error| content(path, "authority", error))?;
    }
    Ok(roots)
}

/// The private key of a file that nobody else may read.
pub(super) fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    let failed = |source| FileError::Read { path: path.to_owned(), source };
    let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o007 != 0 {
        return Err(FileError::Exposed { path: path.to_owned(), mode });
    }
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|error| content(path, "private key", error))
}

/// Writes a new file that nobody else may read. One that exists is an error.
pub fn write_secret(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
