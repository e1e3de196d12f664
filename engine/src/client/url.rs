//! Addresses of storage points and caches: `http://host:port`.

use std::{fmt, str::FromStr};

/// Where a storage point or cache listens.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Url {
    is_https: bool,
    host: String,
    port: u16,
}

/// Why a text is no address of a storage point or cache.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no address of a storage point: {why}")]
pub struct BadUrl {
    /// The text, cut if long.
    pub text: String,
    /// What is wrong and how it should look.
    pub why: &'static str,
}

impl Url {
    /// Whether TLS is spoken there.
    pub fn is_https(&self) -> bool {
        self.is_https
    }

    /// Host name or address, without the brackets of IPv6.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What a Host header says.
    pub fn authority(&self) -> String {
        let colon = self.host.contains(':');
        let (open, close) = if colon { ("[", "]") } else { ("", "") };
        format!("{open}{}{close}:{}", self.host, self.port)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

impl FromStr for Url {
    type Err = BadUrl;

    fn from_str(text: &str) -> Result<Url, BadUrl> {
        let bad = |why| BadUrl { text: text.chars().take(200).collect(), why };
        let (scheme, rest) = text.split_once("://").ok_or(bad("write it as http://host:port or https://host:port"))?;
        let is_https = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err(bad("only http:// and https:// are spoken")),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#']) {
            return Err(bad("nothing may follow host and port"));
        }
        if authority.contains('@') {
            return Err(bad("it must not contain a user name"));
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or(bad("the bracket of the IPv6 address is not closed"))?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| bad("in brackets there must be an IPv6 address"))?;
                (host, if port.is_empty() { None } else { Some(port.strip_prefix(':').unwrap_or("")) })
            }
            None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
        };
        let host_ok = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
        if host.is_empty() || host.len() > 253 || !host.bytes().all(host_ok) {
            return Err(bad("the host is no name or address"));
        }
        let digits = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
        let port = match port {
            None => {
                if is_https {
                    443
                } else {
                    80
                }
            }
            Some(port) if digits(port) => {
                port.parse().ok().filter(|port| *port > 0).ok_or(bad("the port is 1 to 65535"))?
            }
            Some(_) => return Err(bad("the port is no number")),
        };
        Ok(Url { is_https, host: host.to_owned(), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_an_address_and_what_is_not() {
        for (text, shown) in [
            ("http://127.0.0.1:7400", "http://127.0.0.1:7400"),
            ("HTTP://sp1.example:7400/", "http://sp1.example:7400"),
            ("http://sp1", "http://sp1:80"),
            ("https://sp1", "https://sp1:443"),
            ("https://[::1]:7400/", "https://[::1]:7400"),
            ("http://[::1]:7400", "http://[::1]:7400"),
        ] {
            assert_eq!(text.parse::<Url>().unwrap().to_string(), shown);
        }
        for text in [
            "127.0.0.1:7400",
            "ftp://a:1",
            "http://",
            "http://:1",
            "http://a:",
            "http://a:0",
            "http://a:65536",
            "http://a:+1",
            "http://a:1/x",
            "http://a:1?x",
            "http://u@a:1",
            "http://[::1:1",
            "http://[x]:1",
            "http://[::1]1",
            "http://a b:1",
            "http://a:1:2",
            "",
        ] {
            assert!(text.parse::<Url>().is_err(), "{text}");
        }
    }
}
