//! HTTP, both ways: the service's own routes, and requests to servers that the plugin was granted.
//!
//! Bodies are bytes, held whole; the host bounds them. What crosses the wire, the host's standard interface does
//! (`wasi:http`); here are the plain types, the client and the router.

mod client;
mod response;
mod router;

pub use self::client::{Http, HttpError, HttpRequest};
pub use self::response::{IntoResponse, Response, RouteResult};
pub(crate) use self::router::serve;
pub use self::router::{FromRequest, Query, Route, into_response};

/// A request to one of the plugin's routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// The method, in capitals.
    pub(crate) method: String,
    /// The path, percent-encoded as it came, below where the service is mounted.
    pub(crate) path: String,
    /// What stands behind `?`, as it came; often empty.
    pub(crate) query: String,
    /// Names, in lower case, and values.
    pub(crate) headers: Vec<(String, String)>,
    /// The body.
    pub(crate) body: Vec<u8>,
}

impl Incoming {
    /// The method, in capitals.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// The path below where the service is mounted, as it came.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What stands behind `?`.
    pub fn query(&self) -> Query<'_> {
        Query(&self.query)
    }

    /// The first header of this name, in whatever case; `None` if its value is no text.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }
}

/// The first header of a name.
fn find<'headers>(headers: &'headers [(String, String)], name: &str) -> Option<&'headers str> {
    headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// Decodes `%2F` and the like; with `plus`, `+` is a space. What is no UTF-8 becomes U+FFFD.
fn percent_decoded(text: &str, plus: bool) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let pair = bytes.get(index + 1..index + 3).and_then(|pair| std::str::from_utf8(pair).ok());
        match (bytes[index], pair.and_then(|pair| u8::from_str_radix(pair, 16).ok())) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                index += 2;
            }
            (b'+', _) if plus => decoded.push(b' '),
            (byte, _) => decoded.push(byte),
        }
        index += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_percent_encoded_is_decoded_once() {
        for (text, plus, expected) in [
            ("a%2Fb", false, "a/b"),
            ("a+b%20c", true, "a b c"),
            ("a+b", false, "a+b"),
            ("100%", false, "100%"),
            ("%zz%2", false, "%zz%2"),
            ("%2541", false, "%41"),
            ("%C3%A4%FF", false, "\u{e4}\u{fffd}"),
        ] {
            assert_eq!(percent_decoded(text, plus), expected, "{text}");
        }
    }
}
