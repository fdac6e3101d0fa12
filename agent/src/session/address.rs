//! Addresses of Connectors and proxies.

use std::fmt;
use std::str::FromStr;

use secrecy::SecretString;

/// A host and a port.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct HostPort {
    /// A name or an IP address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Where a Connector is: `host`, `host:port` or `https://host:port`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Address {
    /// Where to connect to.
    pub target: HostPort,
    /// The name that its certificate must have.
    pub server_name: String,
}

/// An HTTP proxy on the way to a Connector.
#[derive(Clone, Debug)]
pub(crate) struct Proxy {
    /// Where it is.
    pub address: HostPort,
    /// `user:password`, for a proxy that wants to know who asks (RFC 7617).
    pub credentials: Option<SecretString>,
}

/// A text that is no address.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{text}` is no address: expected {expected}")]
pub(crate) struct InvalidAddress {
    text: String,
    expected: &'static str,
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let plain = text.strip_prefix("https://").unwrap_or(text);
        let plain = plain.strip_suffix('/').unwrap_or(plain);
        let target = HostPort::parse(plain, Some(DEFAULT_PORT)).ok_or_else(|| InvalidAddress {
            text: text.escape_debug().to_string(),
            expected: "`host`, `host:port` or `https://host:port`",
        })?;
        Ok(Self {
            server_name: target.host.clone(),
            target,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.target.fmt(f)
    }
}

impl HostPort {
    /// A proxy: `http://host:port`.
    ///
    /// # Errors
    ///
    /// The text is none. It is not repeated if there could be a password in it.
    pub(crate) fn proxy(text: &str) -> Result<Self, InvalidAddress> {
        let plain = text.strip_prefix("http://").unwrap_or(text);
        let plain = plain.strip_suffix('/').unwrap_or(plain);
        Self::parse(plain, None).ok_or_else(|| InvalidAddress {
            text: match text.contains('@') {
                true => "(user)@(proxy)".into(),
                false => text.escape_debug().to_string(),
            },
            expected: "`http://host:port`; user and password belong into proxy_credentials_file",
        })
    }

    fn parse(text: &str, default_port: Option<u16>) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']')?;
                host.parse::<std::net::Ipv6Addr>().ok()?;
                (
                    host,
                    rest.strip_prefix(':').or(rest.is_empty().then_some("")),
                )
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, Some("")),
            },
        };
        let port = match port? {
            "" if !text.ends_with(':') => default_port?,
            port => port.parse().ok().filter(|port| *port != 0)?,
        };
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
        (!host.is_empty() && host.len() <= 253 && host.bytes().all(is_name)).then(|| Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// The port of a Connector that is named without one.
const DEFAULT_PORT: u16 = 443;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        for (text, shown) in [
            ("connector.example", "connector.example:443"),
            ("connector.example:8443", "connector.example:8443"),
            ("https://connector.example/", "connector.example:443"),
            ("10.0.0.1:1", "10.0.0.1:1"),
            ("https://[fd00::1]:8443", "[fd00::1]:8443"),
            ("[fd00::1]", "[fd00::1]:443"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), shown);
        }
        assert_eq!(HostPort::proxy("http://p:3128").unwrap().port, 3128);
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            ":443",
            "http://h",
            "h:",
            "h:0",
            "h:65536",
            "h:1:2",
            "[::1",
            "[x]:1",
            "[::1]x",
            "a b",
            "h/path",
            "user@h",
            "h\r\nX: y:1",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text:?}");
        }
        let error = HostPort::proxy("http://me:s3cret@p:1").unwrap_err();
        assert!(!error.to_string().contains("s3cret"));
        assert!(HostPort::proxy("p").is_err());
    }
}
