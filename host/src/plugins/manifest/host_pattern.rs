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
