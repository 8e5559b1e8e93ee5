//! From a request to the route that answers it.
//!
//! A route is a method and a path whose levels may be captured, as those of topics. No path: 404; no such method: 405 with
//! `Allow`. A handler that fails leaves nothing behind: what it rejects is answered with 400 and the reason, any other error
//! with 500, and the reason is logged.

use std::fmt::Display;
use std::str::FromStr;

use serde::Deserialize;

use super::{Incoming, Response, RouteResult, percent_decoded};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::extract::{Json, Raw, Text};
use crate::host::{Host, TheHost};
use crate::json;
use crate::pattern::{self, Level, MAX_WILDCARDS};

/// What `#[http(..)]` declares about a function.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub struct Route {
    /// The function's name.
    pub name: &'static str,
    /// The method, in capitals.
    pub method: &'static str,
    /// Levels of the path behind its first `/`.
    pub levels: &'static [Level<'static>],
    /// Fetches the parameters and calls the function; gets what the path captured.
    pub run: fn(&mut Context, &Incoming, &[&str]) -> Result<Response>,
}

/// A type that a route can take as a parameter.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be taken from a request",
    label = "neither a capture of the path nor an extractor",
    note = "a parameter is `&mut Context`, named like a capture of the path, or an extractor such as `Json<T>`, `Query`, `&[u8]` or `&Incoming`"
)]
pub trait FromRequest<'request>: Sized {
    /// Takes the value from the request; what is rejected is answered with 400.
    fn from_request(request: &'request Incoming) -> Result<Self>;
}

/// The query of a request: what stands behind `?`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query<'request>(pub(crate) &'request str);

impl Query<'_> {
    /// The first value of this name, decoded.
    pub fn get(&self, name: &str) -> Option<String> {
        self.pairs().find(|(other, _)| other == name).map(|(_, value)| value)
    }

    /// The first value of this name, parsed; what does not parse is answered with 400.
    pub fn parse<T>(&self, name: &str) -> Result<Option<T>>
    where
        T: FromStr,
        T::Err: Display,
    {
        let Some(text) = self.get(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|error| Error::reject(format!("`{name}` is `{text}`: {error}")))
    }

    /// All names and values, in order, decoded.
    pub fn pairs(&self) -> impl Iterator<Item = (String, String)> {
        self.0.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent_decoded(name, true), percent_decoded(value, true))
        })
    }
}

impl<'request, T: Deserialize<'request>> FromRequest<'request> for Json<T> {
    fn from_request(request: &'request Incoming) -> Result<Self> {
        serde_json::from_slice(&request.body)
            .map(Self)
            .map_err(|error| Error::reject(format!("the body: {}", json::explain(&request.body, &error))))
    }
}

impl FromRequest<'_> for Text {
    fn from_request(request: &Incoming) -> Result<Self> {
        std::str::from_utf8(&request.body)
            .map(|text| Self(text.to_owned()))
            .map_err(|error| Error::reject(format!("the body is not UTF-8: {error}")))
    }
}

impl FromRequest<'_> for Raw {
    fn from_request(request: &Incoming) -> Result<Self> {
        Ok(Self(request.body.clone()))
    }
}

impl<'request> FromRequest<'request> for &'request [u8] {
    fn from_request(request: &'request Incoming) -> Result<Self> {
        Ok(&request.body)
    }
}

impl<'request> FromRequest<'request> for Query<'request> {
    fn from_request(request: &'request Incoming) -> Result<Self> {
        Ok(request.query())
    }
}

impl<'request> FromRequest<'request> for &'request Incoming {
    fn from_request(request: &'request Incoming) -> Result<Self> {
        Ok(request)
    }
}

/// Makes a response of what a route returned.
#[doc(hidden)]
pub fn into_response(returned: impl RouteResult) -> Result<Response> {
    returned.into_route_result()
}

/// Answers a request.
pub(crate) fn serve(routes: &[Route], host: &TheHost, request: &Incoming) -> Response {
    let path = request.path.strip_prefix('/').unwrap_or(&request.path);
    let mut allowed: Vec<&str> = Vec::new();
    for route in routes {
        let mut captures = [""; MAX_WILDCARDS];
        if !pattern::matches(route.levels.iter().copied(), path, &mut captures) {
            continue;
        }
        if route.method != request.method {
            if !allowed.contains(&route.method) {
                allowed.push(route.method);
            }
            continue;
        }
        let decoded: Vec<String> = captures.iter().map(|text| percent_decoded(text, false)).collect();
        let captures: Vec<&str> = decoded.iter().map(String::as_str).collect();
        let mut context = Context::new(None, host);
        return (route.run)(&mut context, request, &captures).unwrap_or_else(|error| {
            host.rollback();
            failed(route, &error)
        });
    }
    if allowed.is_empty() {
        return Response::text("not found").status(404);
    }
    Response::text("method not allowed").status(405).header("allow", allowed.join(", "))
}

fn failed(route: &Route, error: &Error) -> Response {
    if error.is_reject() {
        return Response::text(error.message()).status(400);
    }
    crate::error!("route `{}` failed: {error}", route.name);
    Response::text("the service failed; its log says why").status(500)
}
