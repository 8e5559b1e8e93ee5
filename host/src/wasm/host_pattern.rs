//! A host that plugins may call: `scheme://host[:port]`, where the host may begin with `*.`.

use std::fmt;
use std::net::Ipv6Addr;

/// Longest name of a host, in bytes (RFC 1035).
const HOST_BYTES: usize = 253;

/// Where an HTTP request may go.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPattern {
    /// Whether it is `https`; else `http`.
    tls: bool,
    /// Whether every name that ends in `.host` is meant, and not the host itself.
    any_below: bool,
    /// A name in lower case, an IPv4 address, or an IPv6 address in brackets.
    host: String,
    /// The port; the scheme's own where the pattern names none.
    port: u16,
}

impl HostPattern {
    /// Understands a pattern.
    pub fn parse(text: &str) -> Result<Self, String> {
        let refuse = |reason: &str| {
            format!("{text:?} is not a host: {reason}; write scheme://host or scheme://host:port, with http or https")
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(|| refuse("it has no scheme"))?;
        let tls = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err(refuse("its scheme is another")),
        };
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (rest, None),
        };
        let port = match port {
            None => scheme_port(tls),
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                port.parse::<u16>().ok().filter(|&port| port > 0).ok_or_else(|| refuse("its port does not exist"))?
            }
            Some(_) => return Err(refuse("its port is no number")),
        };
        let (any_below, name) = host.strip_prefix("*.").map_or((false, host), |name| (true, name));
        let is_address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let made_well = match is_address {
            Some(address) => !any_below && address.parse::<Ipv6Addr>().is_ok(),
            None => is_name(name),
        };
        if !made_well {
            return Err(refuse("its host is neither a name nor an address"));
        }
        Ok(Self { tls, any_below, host: name.to_ascii_lowercase(), port })
    }

    /// Whether every request that `other` allows is allowed by this one too.
    pub fn covers(&self, other: &Self) -> bool {
        let below = |host: &str| host.strip_suffix(&*self.host).is_some_and(|rest| rest.ends_with('.'));
        let host = match (self.any_below, other.any_below) {
            (false, false) => self.host == other.host,
            (false, true) => false,
            (true, false) => below(&other.host),
            (true, true) => self.host == other.host || below(&other.host),
        };
        host && self.tls == other.tls && self.port == other.port
    }
}

impl HostPattern {
    /// Whether it allows a request to this host and port.
    pub fn allows(&self, tls: bool, host: &str, port: u16) -> bool {
        let (any_below, host) = (false, host.to_ascii_lowercase());
        self.covers(&Self { tls, any_below, host, port })
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        let below = if self.any_below { "*." } else { "" };
        write!(f, "{scheme}://{below}{}", self.host)?;
        if self.port != scheme_port(self.tls) {
            write!(f, ":{}", self.port)?;
        }
        Ok(())
    }
}

fn scheme_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

fn is_name(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    name.len() <= HOST_BYTES && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_allows_its_scheme_host_and_port_only() {
        for (pattern, tls, host, port, expected) in [
            ("https://cmdb.example.com", true, "cmdb.example.com", 443, true),
            ("https://cmdb.example.com", true, "CMDB.Example.com", 443, true),
            ("https://cmdb.example.com", true, "cmdb.example.com", 8443, false),
            ("https://cmdb.example.com", false, "cmdb.example.com", 443, false),
            ("https://cmdb.example.com", true, "cmdb.example.com.evil.net", 443, false),
            ("https://*.example.com", true, "a.example.com", 443, true),
            ("https://*.example.com", true, "a.b.example.com", 443, true),
            ("https://*.example.com", true, "example.com", 443, false),
            ("https://*.example.com", true, "evilexample.com", 443, false),
            ("http://10.0.0.7:8080", false, "10.0.0.7", 8080, true),
            ("http://[::1]:8080", false, "[::1]", 8080, true),
        ] {
            let parsed = HostPattern::parse(pattern).unwrap();
            assert_eq!(parsed.allows(tls, host, port), expected, "{pattern} {host}:{port}");
            assert_eq!(parsed.to_string(), pattern);
        }
    }

    #[test]
    fn what_is_no_host_is_refused_with_the_reason() {
        for (text, expected) in [
            ("cmdb.example.com", "it has no scheme"),
            ("ftp://example.com", "its scheme is another"),
            ("http://example.com:0", "its port does not exist"),
            ("http://example.com:a", "its port is no number"),
            ("http://", "its host is neither a name nor an address"),
            ("http://a/b", "its host is neither a name nor an address"),
            ("http://*", "its host is neither a name nor an address"),
            ("http://a@b", "its host is neither a name nor an address"),
            ("http://*.[::1]", "its host is neither a name nor an address"),
        ] {
            let error = HostPattern::parse(text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
