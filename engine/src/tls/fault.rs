//! Why a TLS connection came to nothing, in words that say what to do.

use rustls::{AlertDescription, CertificateError, Error};
use std::{fmt, io};

/// What kind of fault it is, for counting.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Cause {
    /// A certificate is no longer valid, or not yet.
    Expired,
    /// A certificate is of another authority, or its signature is wrong.
    Authority,
    /// A certificate was asked for and none came.
    Missing,
    /// A certificate of the right authority, but for somebody else or something else.
    Identity,
    /// The other end has refused the certificate of this end, before it looked at anything else.
    Alert,
    /// The bytes are no TLS, or none that both ends speak.
    Protocol,
}

impl Cause {
    /// All of them.
    pub const ALL: [Cause; 6] =
        [Cause::Expired, Cause::Authority, Cause::Missing, Cause::Identity, Cause::Alert, Cause::Protocol];

    /// One word.
    pub fn word(self) -> &'static str {
        match self {
            Cause::Expired => "expired",
            Cause::Authority => "authority",
            Cause::Missing => "missing",
            Cause::Identity => "identity",
            Cause::Alert => "alert",
            Cause::Protocol => "protocol",
        }
    }
}

/// Why a connection came to nothing, and what to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// What kind.
    pub cause: Cause,
    /// What happened, with the other end as "it".
    pub problem: String,
    /// What to do.
    pub remedy: &'static str,
}

const RENEW: &str = "make it a new certificate (`acms certificate`), and check the clocks of both ends";
const SAME_AUTHORITY: &str = "both ends need certificates of one authority: compare their authority files";
const CERTIFY: &str = "give it a certificate of the cluster's authority (`acms certificate`)";

impl Fault {
    fn new(cause: Cause, problem: impl Into<String>, remedy: &'static str) -> Fault {
        Fault { cause, problem: problem.into(), remedy }
    }

    /// The fault in an error of reading or writing, if it is one of TLS.
    pub fn of(error: &io::Error) -> Option<&Fault> {
        error.get_ref()?.downcast_ref()
    }

    /// The other end closed the connection before the handshake was over.
    pub(super) fn cut() -> Fault {
        let remedy = "check that it speaks TLS (https://), and its log";
        Fault::new(Cause::Protocol, "it closed the connection during the TLS handshake", remedy)
    }

    fn of_certificate(error: &CertificateError) -> Fault {
        match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                Fault::new(Cause::Expired, "its certificate has expired", RENEW)
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Fault::new(Cause::Expired, "its certificate is not valid yet", RENEW)
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Fault::new(
                Cause::Authority,
                "its certificate is of an authority that is not trusted here",
                SAME_AUTHORITY,
            ),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Fault::new(
                Cause::Identity,
                "its certificate does not have the name or address in the URL",
                "use a name that the certificate has, or make one that has this name (`acms certificate --name`)",
            ),
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                Fault::new(Cause::Identity, "its certificate is not made for this use", CERTIFY)
            }
            CertificateError::Other(other) => Fault::new(Cause::Identity, other.to_string(), CERTIFY),
            other => Fault::new(Cause::Identity, format!("its certificate cannot be used: {other}"), CERTIFY),
        }
    }

    fn of_alert(alert: AlertDescription) -> Fault {
        let (problem, remedy) = match alert {
            AlertDescription::CertificateExpired => ("it says that the certificate of this end has expired", RENEW),
            AlertDescription::UnknownCA | AlertDescription::DecryptError => {
                ("it says that the certificate of this end is of an authority that it does not trust", SAME_AUTHORITY)
            }
            AlertDescription::CertificateRequired => ("it asks for a certificate, and this end has none", CERTIFY),
            AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::AccessDenied => ("it refuses the certificate of this end", "its log says why"),
            other => return Fault::new(Cause::Protocol, format!("it ended TLS with {other:?}"), "its log says why"),
        };
        Fault::new(Cause::Alert, problem, remedy)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        match &error {
            Error::InvalidCertificate(error) => Fault::of_certificate(error),
            Error::NoCertificatesPresented => Fault::new(Cause::Missing, "it has presented no certificate", CERTIFY),
            Error::AlertReceived(alert) => Fault::of_alert(*alert),
            Error::InvalidMessage(_) => {
                let remedy = "check that both ends use TLS: https:// in addresses, [tls] in configurations";
                Fault::new(Cause::Protocol, "what it sends is no TLS", remedy)
            }
            other => Fault::new(Cause::Protocol, other.to_string(), "check that it speaks TLS 1.2 or 1.3"),
        }
    }
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, fault)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.problem, self.remedy)
    }
}

impl std::error::Error for Fault {}
