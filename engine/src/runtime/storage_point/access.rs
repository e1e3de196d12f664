//! Who may do what: certificates, tokens, and the one function that every request passes. Files are read again while the
//! process runs.
//!
//! Invariant: files that cannot be used change nothing; what was read last stays in force.

use crate::{
    protocol::Instant,
    runtime::{
        config::{Listener, StoragePointConfig},
        http::{
            connection::Role,
            head::{BadHead, Head, Method},
            service::{Client, Refused},
            target::{ANONYMOUS, Resource},
        },
        renewal::{RenewedFiles, WARN_BEFORE, WallClock, tell_of_reading},
        tokens::{TokenError, Tokens},
    },
    tls::{Grant, Identity, LoadError, ServerTls},
};
use rustls::ServerConfig;
use std::sync::Arc;

/// Why certificates or tokens cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// The certificates.
    #[error(transparent)]
    Tls(#[from] LoadError),
    /// The tokens.
    #[error(transparent)]
    Tokens(#[from] TokenError),
}

/// Certificates and tokens in force, and what is open to whom.
#[derive(Debug)]
pub(super) struct Access {
    config: StoragePointConfig,
    tls: Option<Arc<ServerTls>>,
    tokens: Tokens,
    files: RenewedFiles,
}

/// Who sends a request.
#[derive(Clone, Debug)]
pub(super) enum Who {
    /// Nobody who is known.
    Anonymous,
    /// A publisher by certificate or token.
    Publisher(Arc<Grant>),
    /// Somebody with a certificate that gives no right to publish.
    Other(Arc<Identity>),
    /// A token that is not in force.
    BadToken,
}

impl Who {
    /// Whether it has shown its name.
    pub(super) fn is_known(&self) -> bool {
        matches!(self, Who::Publisher(_))
    }

    /// Whose publications these are: the name that was shown, else the one that the request says.
    pub(super) fn name(&self, head: &Head<'_>) -> Result<String, BadHead> {
        match self {
            Who::Publisher(grant) => Ok(grant.name.clone()),
            _ => Ok(head.single("acms-publisher")?.unwrap_or(ANONYMOUS).to_owned()),
        }
    }
}

impl Access {
    /// Reads the files that the configuration names.
    pub(super) fn load(config: &StoragePointConfig, now: Instant) -> Result<Access, AccessError> {
        let tls = config.tls.iter().flat_map(|files| [&files.authority, &files.certificate, &files.key]);
        let files = RenewedFiles::new(tls.chain(&config.tokens).cloned(), now);
        let mut access = Access { config: config.clone(), tls: None, tokens: Tokens::default(), files };
        access.read()?;
        Ok(access)
    }

    fn read(&mut self) -> Result<(), AccessError> {
        let StoragePointConfig { cluster, me, tls, tokens, .. } = &self.config;
        let load = |files| ServerTls::load(files, cluster, *me, Arc::new(WallClock));
        let tls = tls.as_ref().map(load).transpose()?.map(Arc::new);
        let tokens = tokens.as_deref().map(Tokens::load).transpose()?.unwrap_or_default();
        (self.tls, self.tokens) = (tls, tokens);
        self.warn_of_expiry();
        Ok(())
    }

    fn warn_of_expiry(&mut self) {
        let expires = self.tls.as_ref().is_some_and(|tls| tls.expires_within(WARN_BEFORE));
        self.files.warn_of_expiry("storage point", expires);
    }

    /// Reads the files again; whether what is in force has changed.
    pub(super) fn reload(&mut self) -> bool {
        self.files.mark();
        tell_of_reading("certificates and tokens", self.read())
    }

    /// Reads the files again if one of them has changed.
    pub(super) fn look(&mut self, now: Instant) -> bool {
        let seen = self.files.look(now);
        if seen.is_day_over {
            self.warn_of_expiry();
        }
        seen.is_changed && self.reload()
    }

    /// When [`look`](Access::look) is due; never where there are no files.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.files.poll_timeout()
    }

    /// How TLS is spoken with clients; nothing: it is not.
    pub(super) fn tls(&self, role: Role) -> Option<Arc<ServerConfig>> {
        let tls = self.tls.as_ref()?;
        match role {
            Role::Publish => self.config.speaks_tls(Listener::Publish).then(|| tls.publish.clone()),
            Role::Deliver => self.config.speaks_tls(Listener::Deliver).then(|| tls.deliver.clone()),
        }
    }

    /// How TLS is spoken with the other storage points; nothing: it is not.
    pub(super) fn peer_tls(&self) -> Option<Arc<ServerTls>> {
        self.tls.clone().filter(|_| self.config.speaks_tls(Listener::Peer))
    }

    /// Who sends a request. A token counts before a certificate.
    pub(super) fn identify(&self, client: &Client, head: &Head<'_>) -> Result<Who, BadHead> {
        if let Some(value) = head.single("authorization")? {
            let token = value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
            let grant = token.and_then(|(_, token)| self.tokens.find(token.trim()));
            return Ok(grant.map_or(Who::BadToken, Who::Publisher));
        }
        Ok(match client.identity.as_deref() {
            Some(Identity::Publisher { cluster, grant }) if *cluster == self.config.cluster => {
                Who::Publisher(Arc::new(grant.clone()))
            }
            Some(_) => client.identity.clone().map_or(Who::Anonymous, Who::Other),
            None => Who::Anonymous,
        })
    }

    /// Whether `who` may do `method` to `resource` at a listener of this role. Every request passes here.
    pub(super) fn authorize(
        &self,
        role: Role,
        who: &Who,
        resource: Option<&Resource>,
        method: Method,
    ) -> Result<(), Refused> {
        // At the deliver listener nobody publishes, whoever it is: its resources do not take these methods (405).
        if !matches!(method, Method::Put | Method::Delete) || role == Role::Deliver {
            return Ok(());
        }
        let remedy = "show a publisher's certificate (`acms certificate publisher`) or a token (`acms token`)";
        match who {
            Who::BadToken => Err(Refused::new(401, "the token is not known here", remedy)),
            Who::Anonymous if self.config.allows_anonymous() => Ok(()),
            Who::Anonymous => Err(Refused::new(401, "who publishes here must say who it is", remedy)),
            Who::Other(identity) => {
                Err(Refused::new(403, format!("the certificate of {identity} gives no right to publish"), remedy))
            }
            Who::Publisher(grant) => match resource {
                Some(Resource::Config(path)) if !grant.covers(path) => {
                    let under = grant.under.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                    let reason = format!("{} may publish under {under}, not {path}", grant.name);
                    Err(Refused::new(403, reason, "publish there, or ask for a certificate or token for this path"))
                }
                _ => Ok(()),
            },
        }
    }
}
