//! What a certificate says of its holder: one `acms://` address among its names.

use crate::protocol::{Manifest, Path, Prefix, SpId};
use rustls::pki_types::CertificateDer;
use std::{fmt, str::FromStr};

/// Who holds a certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Identity {
    /// The authority itself.
    Authority {
        /// Whose.
        cluster: String,
    },
    /// A storage point.
    StoragePoint {
        /// Of which cluster.
        cluster: String,
        /// Which.
        sp: SpId,
    },
    /// A cache: it reads, and others read from it.
    Cache {
        /// Of which cluster.
        cluster: String,
        /// Which.
        name: String,
    },
    /// A publisher.
    Publisher {
        /// Of which cluster.
        cluster: String,
        /// Who, and what it may publish.
        grant: Grant,
    },
}

/// The right to publish.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    /// The publisher's name, which stands in its publications.
    pub name: String,
    /// Where it may publish; nothing: everywhere.
    pub under: Vec<Prefix>,
}

/// A text or a certificate names nobody of a cluster.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadIdentity(String);

impl Grant {
    /// Of this name. Fails if no publication could carry it.
    pub fn new(name: &str, under: Vec<Prefix>) -> Result<Grant, BadIdentity> {
        let is_plain = name.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && name.trim() == name;
        if name.is_empty() || name.len() > Manifest::NAME_LEN_MAX || !is_plain {
            let max = Manifest::NAME_LEN_MAX;
            return Err(BadIdentity(format!(
                "{name:?} is no name: write 1 to {max} printable ASCII characters, no space at either end"
            )));
        }
        Ok(Grant { name: name.to_owned(), under })
    }

    /// Whether `path` may be published.
    pub fn covers(&self, path: &Path) -> bool {
        self.under.is_empty() || self.under.iter().any(|prefix| prefix.covers(path.as_str()))
    }
}

impl Identity {
    /// The cluster that it belongs to.
    pub fn cluster(&self) -> &str {
        match self {
            Identity::Authority { cluster }
            | Identity::StoragePoint { cluster, .. }
            | Identity::Cache { cluster, .. }
            | Identity::Publisher { cluster, .. } => cluster,
        }
    }

    /// What `certificate` says; its signature is checked elsewhere.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Identity, BadIdentity> {
        let parsed = webpki::EndEntityCert::try_from(certificate)
            .map_err(|error| BadIdentity(format!("it is no certificate: {error}")))?;
        let mut names = parsed.valid_uri_names().filter(|name| name.starts_with("acms://"));
        match (names.next(), names.next()) {
            (Some(name), None) => name.parse(),
            (None, _) => Err(BadIdentity("the certificate has no acms:// name: `acms certificate` makes ones".into())),
            _ => Err(BadIdentity("the certificate has several acms:// names".into())),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "acms://{}/", self.cluster())?;
        match self {
            Identity::Authority { .. } => f.write_str("authority"),
            Identity::StoragePoint { sp, .. } => write!(f, "storage-point/{sp}"),
            Identity::Cache { name, .. } => write!(f, "cache/{}", Encoded(name)),
            Identity::Publisher { grant, .. } => {
                write!(f, "publisher/{}", Encoded(&grant.name))?;
                let mut before = '?';
                grant.under.iter().try_for_each(|prefix| {
                    write!(f, "{before}under={prefix}")?;
                    before = '&';
                    Ok(())
                })
            }
        }
    }
}

impl FromStr for Identity {
    type Err = BadIdentity;

    fn from_str(text: &str) -> Result<Identity, BadIdentity> {
        let bad = || BadIdentity(format!("{:?} names nobody of a cluster", text.chars().take(200).collect::<String>()));
        let (cluster, rest) = text.strip_prefix("acms://").and_then(|rest| rest.split_once('/')).ok_or_else(bad)?;
        let (place, query) = rest.split_once('?').map_or((rest, None), |(place, query)| (place, Some(query)));
        let (kind, name) = place.split_once('/').map_or((place, None), |(kind, name)| (kind, Some(name)));
        let cluster = cluster.to_owned();
        match (kind, name, query) {
            ("authority", None, None) => Ok(Identity::Authority { cluster }),
            ("storage-point", Some(id), None) => {
                Ok(Identity::StoragePoint { cluster, sp: SpId(id.parse().map_err(|_| bad())?) })
            }
            ("cache", Some(name), None) => Ok(Identity::Cache { cluster, name: decoded(name).ok_or_else(bad)? }),
            ("publisher", Some(name), query) => {
                let under = query.into_iter().flat_map(|query| query.split('&'));
                let under = under.map(|pair| pair.strip_prefix("under=")?.parse().ok());
                let under = under.collect::<Option<Vec<Prefix>>>().ok_or_else(bad)?;
                let grant = Grant::new(&decoded(name).ok_or_else(bad)?, under)?;
                Ok(Identity::Publisher { cluster, grant })
            }
            _ => Err(bad()),
        }
    }
}

/// A name as part of an address.
struct Encoded<'a>(&'a str);

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.bytes().try_for_each(|byte| match byte {
            b'-' | b'.' | b'_' | b'~' => write!(f, "{}", char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => write!(f, "{}", char::from(byte)),
            byte => write!(f, "%{byte:02X}"),
        })
    }
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |digit: Option<u8>| char::from(digit?).to_digit(16);
                let (high, low) = (digit(rest.next())?, digit(rest.next())?);
                (high * 16 + low) as u8
            }
            b'/' => return None,
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let cluster = || "demo".to_owned();
        let under = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Prefix>>();
        let grant = |name, texts| Grant::new(name, under(texts)).unwrap();
        for (identity, text) in [
            (Identity::Authority { cluster: cluster() }, "acms://demo/authority"),
            (Identity::StoragePoint { cluster: cluster(), sp: SpId(3) }, "acms://demo/storage-point/3"),
            (Identity::Cache { cluster: cluster(), name: "edge 1/a".into() }, "acms://demo/cache/edge%201%2Fa"),
            (Identity::Publisher { cluster: cluster(), grant: grant("me", &[]) }, "acms://demo/publisher/me"),
            (
                Identity::Publisher { cluster: cluster(), grant: grant("a?b", &["etc/x", "b"]) },
                "acms://demo/publisher/a%3Fb?under=etc/x&under=b",
            ),
        ] {
            assert_eq!(identity.to_string(), text);
            assert_eq!(text.parse(), Ok(identity));
        }
    }

    #[test]
    fn what_names_nobody() {
        for text in [
            "",
            "acms://demo",
            "acms://demo/",
            "acms://demo/authority/x",
            "acms://demo/storage-point",
            "acms://demo/storage-point/300",
            "acms://demo/storage-point/3?under=a",
            "acms://demo/publisher/",
            "acms://demo/publisher/a?over=b",
            "acms://demo/publisher/a?under=../b",
            "acms://demo/publisher/a%0A",
            "acms://demo/publisher/%G0",
            "http://demo/authority",
        ] {
            assert!(text.parse::<Identity>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_grant_covers_what_it_names_and_what_is_below() {
        let grant = Grant::new("p", vec!["etc/a".parse().unwrap()]).unwrap();
        let covers = |path: &str| grant.covers(&path.parse().unwrap());
        assert!(covers("etc/a") && covers("etc/a/b"));
        assert!(!covers("etc") && !covers("etc/ab") && !covers("b/etc/a"));
    }
}
