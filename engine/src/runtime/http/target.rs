//! What a request's target names.

use crate::protocol::{Hash, Path, Prefix, Uid, api::Cursor};

/// A resource.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Resource {
    /// `/v1/snapshot`
    Snapshot,
    /// `/v1/changes/<cursor>[/<prefix>]`
    Changes(Cursor, Prefix),
    /// `/v1/objects/<hash>`
    Object(Hash),
    /// `/v1/config/<path>`
    Config(Path),
    /// `/v1/history/<path>`
    History(Path),
    /// `/v1/publications/<uid>`
    Publication(Uid),
    /// `/v1/publications?key=&publisher=`
    PublicationByKey {
        /// Idempotency key.
        key: String,
        /// Its publisher.
        publisher: String,
    },
    /// `/v1/uploads?key=&publisher=`
    Upload {
        /// Idempotency key.
        key: String,
        /// Its publisher.
        publisher: String,
    },
    /// `/v1/index/<prefix>?after=&limit=`
    Index {
        /// Paths under it.
        prefix: Prefix,
        /// Only paths above this text.
        after: String,
        /// At most this many.
        limit: usize,
    },
    /// `/v1/status`
    Status,
    /// `/v1/openapi.json`
    OpenApi,
    /// `/metrics`
    Metrics,
    /// `/healthz`
    Health,
}

/// The interface as an OpenAPI document.
pub const OPENAPI: &str = include_str!("openapi.json");

impl Resource {
    /// The path as the OpenAPI document has it.
    pub fn template(&self) -> &'static str {
        match self {
            Resource::Snapshot => "/v1/snapshot",
            Resource::Changes(_, prefix) if prefix.as_str().is_empty() => "/v1/changes/{cursor}",
            Resource::Changes(..) => "/v1/changes/{cursor}/{prefix}",
            Resource::Object(_) => "/v1/objects/{hash}",
            Resource::Config(_) => "/v1/config/{path}",
            Resource::History(_) => "/v1/history/{path}",
            Resource::Publication(_) => "/v1/publications/{uid}",
            Resource::PublicationByKey { .. } => "/v1/publications",
            Resource::Upload { .. } => "/v1/uploads",
            Resource::Index { prefix, .. } if prefix.as_str().is_empty() => "/v1/index",
            Resource::Index { .. } => "/v1/index/{prefix}",
            Resource::Status => "/v1/status",
            Resource::OpenApi => "/v1/openapi.json",
            Resource::Metrics => "/metrics",
            Resource::Health => "/healthz",
        }
    }
}

/// A target names nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BadTarget {
    /// No such resource: 404.
    NotFound,
    /// The resource's name is malformed: 400, with the reason.
    Malformed(String),
}

/// Most entries of one page of a listing.
pub const INDEX_LIMIT_MAX: usize = 1000;
/// Who publishes when nobody says so.
pub const ANONYMOUS: &str = "anonymous";

fn malformed(error: impl ToString) -> BadTarget {
    BadTarget::Malformed(error.to_string())
}

/// Finds the resource of a path and a query, both still percent-encoded.
pub fn resource(path: &str, query: Option<&str>) -> Result<Resource, BadTarget> {
    match path {
        "/healthz" => return Ok(Resource::Health),
        "/metrics" => return Ok(Resource::Metrics),
        _ => {}
    }
    let rest = path.strip_prefix("/v1/").ok_or(BadTarget::NotFound)?;
    let (name, rest) = rest.split_once('/').map_or((rest, None), |(name, rest)| (name, Some(rest)));
    match (name, rest) {
        ("config", Some(rest)) => Ok(Resource::Config(decode_path(rest)?.parse().map_err(malformed)?)),
        ("changes", Some(rest)) => {
            let (cursor, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let prefix = decode_path(prefix)?.parse().map_err(malformed)?;
            Ok(Resource::Changes(cursor.parse().map_err(malformed)?, prefix))
        }
        ("history", Some(rest)) => Ok(Resource::History(decode_path(rest)?.parse().map_err(malformed)?)),
        ("snapshot", None) => Ok(Resource::Snapshot),
        ("objects", Some(hash)) => Ok(Resource::Object(hash.parse().map_err(malformed)?)),
        ("publications", Some(uid)) => Ok(Resource::Publication(uid.parse().map_err(malformed)?)),
        ("publications", None) => {
            let key = parameter(query, "key")?.ok_or(malformed("the parameter key is missing"))?;
            let publisher = parameter(query, "publisher")?.unwrap_or_else(|| ANONYMOUS.to_owned());
            Ok(Resource::PublicationByKey { key, publisher })
        }
        ("uploads", None) => {
            let key = parameter(query, "key")?.ok_or(malformed("the parameter key is missing"))?;
            let publisher = parameter(query, "publisher")?.unwrap_or_else(|| ANONYMOUS.to_owned());
            Ok(Resource::Upload { key, publisher })
        }
        ("index", rest) => {
            let prefix = decode_path(rest.unwrap_or_default())?.parse().map_err(malformed)?;
            let after = parameter(query, "after")?.unwrap_or_default();
            let limit = match parameter(query, "limit")? {
                Some(text) => text.parse().map_err(|_| malformed("the parameter limit is no number"))?,
                None => INDEX_LIMIT_MAX,
            };
            Ok(Resource::Index { prefix, after, limit: limit.clamp(1, INDEX_LIMIT_MAX) })
        }
        ("status", None) => Ok(Resource::Status),
        ("openapi.json", None) => Ok(Resource::OpenApi),
        _ => Err(BadTarget::NotFound),
    }
}

fn parameter(query: Option<&str>, name: &str) -> Result<Option<String>, BadTarget> {
    for pair in query.unwrap_or_default().split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if key == name {
            return percent_decode(value).map(Some);
        }
    }
    Ok(None)
}

/// Decodes a path of segments. An encoded slash would make two names out of one, so it is refused.
fn decode_path(text: &str) -> Result<String, BadTarget> {
    if text.as_bytes().windows(3).any(|window| window.eq_ignore_ascii_case(b"%2f")) {
        return Err(malformed("a slash inside a segment cannot be part of a path"));
    }
    percent_decode(text)
}

fn percent_decode(text: &str) -> Result<String, BadTarget> {
    if !text.contains('%') {
        return Ok(text.to_owned());
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(malformed("a percent sign without two hex digits"));
        };
        decoded.push((high << 4 | low) as u8);
    }
    String::from_utf8(decoded).map_err(|_| malformed("not UTF-8 after percent-decoding"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every name that `resource` knows, so a new one is noticed here: it needs a line, and a place in the document.
    #[test]
    fn the_document_has_every_resource_and_no_other() {
        let examples = [
            "/v1/snapshot",
            "/v1/changes/3.0-1.42",
            "/v1/changes/3.0-1.42/etc",
            "/v1/objects/0000000000000000000000000000000000000000000000000000000000000000",
            "/v1/config/a/b",
            "/v1/history/a/b",
            "/v1/publications/1.1.0",
            "/v1/publications?key=k",
            "/v1/uploads?key=k",
            "/v1/index",
            "/v1/index/etc",
            "/v1/status",
            "/v1/openapi.json",
            "/metrics",
            "/healthz",
        ];
        let template = |target: &str| {
            let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
            resource(path, query).unwrap().template()
        };
        let mut known: Vec<&str> = examples.into_iter().map(template).collect();
        known.sort_unstable();
        let document: serde_json::Value = serde_json::from_str(OPENAPI).unwrap();
        let mut written: Vec<&str> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
        written.sort_unstable();
        assert_eq!(known, written);
    }

    #[test]
    fn targets() {
        let find = |target: &str| {
            let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
            resource(path, query)
        };
        assert_eq!(find("/v1/config/a/b%40c"), Ok(Resource::Config("a/b@c".parse().unwrap())));
        let cursor = "3.0-1.42".parse().unwrap();
        assert_eq!(find("/v1/changes/3.0-1.42"), Ok(Resource::Changes(cursor, Prefix::default())));
        assert_eq!(find("/v1/changes/3.0-1.42/etc/"), Ok(Resource::Changes(cursor, "etc".parse().unwrap())));
        assert_eq!(
            find("/v1/publications?publisher=p&key=a%20b"),
            Ok(Resource::PublicationByKey { key: "a b".into(), publisher: "p".into() })
        );
        assert_eq!(
            find("/v1/index/etc?after=etc/a&limit=5000"),
            Ok(Resource::Index { prefix: "etc".parse().unwrap(), after: "etc/a".into(), limit: INDEX_LIMIT_MAX })
        );
        for missing in ["/", "/v1", "/v1/", "/v1/nothing", "/v1/snapshot/x", "/v2/snapshot", "/v1/config"] {
            assert_eq!(find(missing), Err(BadTarget::NotFound), "{missing}");
        }
        for wrong in [
            "/v1/config/",
            "/v1/config/a//b",
            "/v1/config/../etc",
            "/v1/config/a%2Fb",
            "/v1/config/%zz",
            "/v1/config/%ff",
            "/v1/config/~x",
            "/v1/changes/x",
            "/v1/objects/12",
            "/v1/publications",
            "/v1/publications/1.2",
            "/v1/index?limit=x",
        ] {
            assert!(matches!(find(wrong), Err(BadTarget::Malformed(_))), "{wrong}");
        }
    }
}
