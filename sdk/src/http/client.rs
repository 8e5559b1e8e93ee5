//! Requests that a plugin makes to servers.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::Response;
use crate::error::Result;
use crate::extract::Json;
use crate::host::{Host, TheHost};
use crate::message::Payload;

/// Makes requests over HTTP; from [`Context::http`](crate::Context::http).
///
/// ```
/// use vespiary_sdk::prelude::*;
///
/// plugin! {
///     name: "places",
///     handlers: [moved],
///     publishes: ["assets/+/place"],
///     http_hosts: ["https://cmdb.example.com"],
///     secrets: ["cmdb-token"],
/// }
///
/// #[on("assets/{asset}/moved")]
/// fn moved(cx: &mut Context, asset: &str) -> Result<()> {
///     let token = cx.secret("cmdb-token")?.reveal();
///     let answer = cx
///         .http()
///         .get(format!("https://cmdb.example.com/assets/{asset}"))
///         .header("authorization", format!("Bearer {token}"))
///         .send()?
///         .success()?;
///     cx.publish(format!("assets/{asset}/place"), answer.body())
/// }
///
/// use vespiary_sdk::testing::TestHost;
/// let mut host = TestHost::new(plugin()).with_secret("cmdb-token", "s3cret");
/// host.answer_http(|request| {
///     assert_eq!(request.header("authorization"), Some("Bearer s3cret"));
///     Ok(Response::text("hall 3"))
/// });
/// host.publish("assets/pump/moved", json!({}));
/// assert_eq!(host.published("assets/pump/place")[0].text(), "hall 3");
/// ```
pub struct Http<'context> {
    /// Who sends them.
    host: &'context TheHost,
}

/// A request to a server, to set up and then [`send`](Self::send).
#[must_use = "a request leaves only when `send` is called"]
pub struct HttpCall<'context> {
    /// Who sends it.
    host: &'context TheHost,
    /// What is sent.
    request: HttpRequest,
}

/// What is sent to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// The method, in capitals.
    pub method: String,
    /// The whole URL, `http` or `https`.
    pub url: String,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// The body; often empty.
    pub body: Vec<u8>,
    /// How long it may take to connect, and until the first byte of the answer; without it, as long as the call may last.
    pub timeout: Option<Duration>,
}

/// Why there is no answer from a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpError {
    /// The URL, the method or a header is not valid.
    Invalid(String),
    /// The plugin was not granted this server: the declaration's `http_hosts` does not name it.
    Denied(String),
    /// The server did not answer, or not in time.
    Failed(String),
    /// The answer has a status of 400 or above; see [`Response::success`].
    Status(u16, String),
}

impl<'context> Http<'context> {
    pub(crate) fn new(host: &'context TheHost) -> Self {
        Self { host }
    }

    /// A request with the method GET.
    pub fn get(&self, url: impl Into<String>) -> HttpCall<'context> {
        self.request("GET", url)
    }

    /// A request with the method POST.
    pub fn post(&self, url: impl Into<String>) -> HttpCall<'context> {
        self.request("POST", url)
    }

    /// A request with the method PUT.
    pub fn put(&self, url: impl Into<String>) -> HttpCall<'context> {
        self.request("PUT", url)
    }

    /// A request with the method DELETE.
    pub fn delete(&self, url: impl Into<String>) -> HttpCall<'context> {
        self.request("DELETE", url)
    }

    /// A request with a method of your choice.
    pub fn request(&self, method: &str, url: impl Into<String>) -> HttpCall<'context> {
        let method = method.to_ascii_uppercase();
        let request = HttpRequest { method, url: url.into(), headers: Vec::new(), body: Vec::new(), timeout: None };
        HttpCall { host: self.host, request }
    }
}

impl HttpCall<'_> {
    /// Adds a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.request.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.request.body = body.into();
        self
    }

    /// Sets the body to this value as JSON, with its content type.
    pub fn json(mut self, value: &(impl Serialize + ?Sized)) -> Result<Self> {
        self.request.body = Json(value).bytes()?.into_owned();
        Ok(self.header("content-type", "application/json"))
    }

    /// Sets how long it may take to connect, and until the first byte of the answer.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.request.timeout = Some(timeout);
        self
    }

    /// Sends it and waits for the answer, which may have any status.
    pub fn send(self) -> Result<Response, HttpError> {
        self.host.send_http(&self.request)
    }
}

impl HttpRequest {
    /// The first header of this name, in whatever case.
    pub fn header(&self, name: &str) -> Option<&str> {
        super::find(&self.headers, name)
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(reason) => write!(f, "the request is not valid: {reason}"),
            Self::Denied(reason) => write!(f, "the plugin may not reach this server: {reason}"),
            Self::Failed(reason) => write!(f, "the server did not answer: {reason}"),
            Self::Status(status, reason) => write!(f, "the server answered {status}: {reason}"),
        }
    }
}

impl std::error::Error for HttpError {}
