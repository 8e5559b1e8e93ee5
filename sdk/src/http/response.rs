//! Responses: what a route gives, and what a server answered.

use serde::{Deserialize, Serialize};

use super::HttpError;
use crate::error::{Error, Result};
use crate::extract::{Json, Text};
use crate::json;
use crate::message::Payload;

/// Most of a body that an error quotes, in characters.
const MAX_QUOTED: usize = 200;

/// A response, with its whole body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status, such as 200.
    pub(crate) status: u16,
    /// Names and values.
    pub(crate) headers: Vec<(String, String)>,
    /// The body.
    pub(crate) body: Vec<u8>,
}

/// What a route may give, alone or in a `Result`: `Response`, `Json<T>`, text, nothing (204), or an `Option` (404 for `None`).
#[diagnostic::on_unimplemented(
    message = "a route cannot answer with `{Self}`",
    label = "not what a route gives",
    note = "a route gives `Response`, `Json<T>`, text, nothing, an `Option` of these, or a `Result` of them"
)]
pub trait IntoResponse {
    /// The response.
    fn into_response(self) -> Result<Response>;
}

/// What a route may return: something that is an [`IntoResponse`], or a `Result` of it.
#[diagnostic::on_unimplemented(
    message = "a route cannot return `{Self}`",
    label = "not what a route returns",
    note = "a route returns `Response`, `Json<T>`, text, nothing, an `Option` of these, or a `Result` of them"
)]
pub trait RouteResult {
    /// The response.
    fn into_route_result(self) -> Result<Response>;
}

impl Response {
    /// A response without a body.
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    /// A response with status 200 and this text.
    pub fn text(text: impl Into<String>) -> Self {
        let text: String = text.into();
        Self::new(200).header("content-type", "text/plain; charset=utf-8").with_body(text)
    }

    /// A response with status 200 and this value as JSON.
    pub fn json(value: &(impl Serialize + ?Sized)) -> Result<Self> {
        let body = Json(value).bytes()?.into_owned();
        Ok(Self::new(200).header("content-type", "application/json").with_body(body))
    }

    /// Sets the status.
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// The status.
    pub fn code(&self) -> u16 {
        self.status
    }

    /// The first header of this name, in whatever case.
    pub fn header_value(&self, name: &str) -> Option<&str> {
        super::find(&self.headers, name)
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The body as text; what is no UTF-8 becomes U+FFFD.
    pub fn body_text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body, read from JSON; the error names the field and the position.
    pub fn body_json<'body, T: Deserialize<'body>>(&'body self) -> Result<T> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Error::retry(format!("the response: {}", json::explain(&self.body, &error))))
    }

    /// This response, if its status is below 400; otherwise an error that quotes it.
    pub fn success(self) -> Result<Self, HttpError> {
        if self.status < 400 {
            return Ok(self);
        }
        Err(HttpError::Status(self.status, self.body_text().chars().take(MAX_QUOTED).collect()))
    }
}

impl IntoResponse for Response {
    fn into_response(self) -> Result<Response> {
        Ok(self)
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Result<Response> {
        Response::json(&self.0)
    }
}

impl IntoResponse for Text {
    fn into_response(self) -> Result<Response> {
        Ok(Response::text(self.0))
    }
}

impl IntoResponse for String {
    fn into_response(self) -> Result<Response> {
        Ok(Response::text(self))
    }
}

impl IntoResponse for &str {
    fn into_response(self) -> Result<Response> {
        Ok(Response::text(self))
    }
}

impl IntoResponse for () {
    fn into_response(self) -> Result<Response> {
        Ok(Response::new(204))
    }
}

impl<T: IntoResponse> IntoResponse for Option<T> {
    fn into_response(self) -> Result<Response> {
        match self {
            Some(value) => value.into_response(),
            None => Ok(Response::text("not found").status(404)),
        }
    }
}

impl<T: IntoResponse> RouteResult for T {
    fn into_route_result(self) -> Result<Response> {
        self.into_response()
    }
}

impl<T: IntoResponse, E: Into<Error>> RouteResult for Result<T, E> {
    fn into_route_result(self) -> Result<Response> {
        self.map_err(Into::into).and_then(IntoResponse::into_response)
    }
}
