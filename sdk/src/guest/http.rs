//! HTTP over `wasi:http`: the export `incoming-handler`, and requests through `outgoing-handler`.
//!
//! The imports are in a component only if its plugin makes requests, or has routes. Streams are read and written to their
//! end: the host holds bodies whole anyway.

use self::client::wasi::http::outgoing_handler;
use self::client::wasi::http::types::{
    ErrorCode, Fields, IncomingBody, IncomingRequest, IncomingResponse, Method, OutgoingBody, OutgoingRequest,
    OutgoingResponse, RequestOptions, ResponseOutparam, Scheme,
};
use self::client::wasi::io::streams::{InputStream, StreamError};
use super::Imports;
use crate::http::{self, HttpError, HttpRequest, Incoming, Response};
use crate::plugin::Plugin;

/// Most bytes that a stream takes or gives at a time, as `blocking-write-and-flush` prescribes.
const CHUNK: usize = 4096;

/// What `wit-bindgen` makes of the imports.
#[expect(missing_docs, reason = "generated; the documentation is in wit/")]
pub mod client {
    wit_bindgen::generate!({
        inline: "
            package vespiary:sdk-http-client;
            world importing { import wasi:http/outgoing-handler@0.2.12; }
        ",
        path: "wit",
        world: "vespiary:sdk-http-client/importing",
        generate_all,
        default_bindings_module: "::vespiary_sdk::__private::guest::http::client",
        runtime_path: "::vespiary_sdk::__private::guest::wit_bindgen::rt",
    });
}

/// What `wit-bindgen` makes of the export.
#[expect(missing_docs, reason = "generated; the documentation is in wit/")]
pub mod bindings {
    wit_bindgen::generate!({
        inline: "
            package vespiary:sdk-http-server;
            world exporting-http-server { export wasi:http/incoming-handler@0.2.12; }
        ",
        path: "wit",
        world: "vespiary:sdk-http-server/exporting-http-server",
        with: {
            "wasi:http/types@0.2.12": ::vespiary_sdk::__private::guest::http::client::wasi::http::types,
            "wasi:io/streams@0.2.12": ::vespiary_sdk::__private::guest::http::client::wasi::io::streams,
            "wasi:io/error@0.2.12": ::vespiary_sdk::__private::guest::http::client::wasi::io::error,
            "wasi:io/poll@0.2.12": ::vespiary_sdk::__private::guest::http::client::wasi::io::poll,
            "wasi:clocks/monotonic-clock@0.2.12": ::vespiary_sdk::__private::guest::http::client::wasi::clocks::monotonic_clock,
        },
        pub_export_macro: true,
        default_bindings_module: "::vespiary_sdk::__private::guest::http::bindings",
        runtime_path: "::vespiary_sdk::__private::guest::wit_bindgen::rt",
    });
}

/// Exports `wasi:http/incoming-handler`.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_http {
    ($plugin:expr) => {
        const _: () = {
            use $crate::__private::guest::http::client::wasi::http::types::{IncomingRequest, ResponseOutparam};
            use $crate::__private::guest::http::{self, bindings};

            struct Component;

            impl bindings::exports::wasi::http::incoming_handler::Guest for Component {
                fn handle(request: IncomingRequest, out: ResponseOutparam) {
                    http::handle(&$plugin, &request, out)
                }
            }

    bindings::export!(Component with_types_in bindings);
        };
    };
}

/// `incoming-handler.handle`.
pub fn handle(plugin: &Plugin, request: &IncomingRequest, out: ResponseOutparam) {
    let response = match incoming(request) {
        Ok(request) => http::serve(plugin.declaration().routes, &Imports, &request),
        Err(reason) => Response::text(reason).status(400),
    };
    if let Err(reason) = answer(&response, out) {
        crate::warn!("the response could not be given: {reason}");
    }
}

/// The request, with its whole body.
fn incoming(request: &IncomingRequest) -> Result<Incoming, String> {
    let target = request.path_with_query().unwrap_or_else(|| "/".into());
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let body = request.consume().map_err(|()| "the request has no body to read")?;
    Ok(Incoming {
        method: method_name(request.method()),
        path: path.into(),
        query: query.into(),
        headers: header_pairs(&request.headers()),
        body: whole(&body)?,
    })
}

fn answer(response: &Response, out: ResponseOutparam) -> Result<(), String> {
    let sent = OutgoingResponse::new(fields(&response.headers)?);
    sent.set_status_code(response.status).map_err(|()| format!("{} is no status", response.status))?;
    let body = sent.body().map_err(|()| "the response has no body to write")?;
    ResponseOutparam::set(out, Ok(sent));
    write_all(body, &response.body)
}

/// Makes a request and waits for the whole response.
pub(super) fn send(request: &HttpRequest) -> Result<Response, HttpError> {
    let outgoing = outgoing(request).map_err(HttpError::Invalid)?;
    let options = RequestOptions::new();
    if let Some(timeout) = request.timeout {
        let nanos = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        let _ = options.set_connect_timeout(Some(nanos));
        let _ = options.set_first_byte_timeout(Some(nanos));
    }
    let body = outgoing.body().map_err(|()| HttpError::Failed("the request has no body to write".into()))?;
    let future = outgoing_handler::handle(outgoing, Some(options)).map_err(failed)?;
    write_all(body, &request.body).map_err(HttpError::Failed)?;
    future.subscribe().block();
    let response = match future.get() {
        Some(Ok(response)) => response.map_err(failed)?,
        Some(Err(())) | None => return Err(HttpError::Failed("the response was lost".into())),
    };
    received(&response).map_err(HttpError::Failed)
}

fn received(response: &IncomingResponse) -> Result<Response, String> {
    let body = response.consume().map_err(|()| "the response has no body to read")?;
    Ok(Response { status: response.status(), headers: header_pairs(&response.headers()), body: whole(&body)? })
}

fn outgoing(request: &HttpRequest) -> Result<OutgoingRequest, String> {
    let (scheme, rest) = match request.url.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (Scheme::Https, rest),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (Scheme::Http, rest),
        Some(_) | None => return Err(format!("`{}` is no URL with http or https", request.url)),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(end);
    let target = target.split('#').next().unwrap_or_default();
    let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
    let outgoing = OutgoingRequest::new(fields(&request.headers)?);
    let refused = |part: &str| format!("the {part} of `{} {}` is not valid", request.method, request.url);
    outgoing.set_method(&method(&request.method)).map_err(|()| refused("method"))?;
    outgoing.set_scheme(Some(&scheme)).map_err(|()| refused("scheme"))?;
    outgoing.set_authority(Some(authority)).map_err(|()| refused("host"))?;
    outgoing.set_path_with_query(Some(&target)).map_err(|()| refused("path"))?;
    Ok(outgoing)
}

fn failed(error: ErrorCode) -> HttpError {
    match error {
        ErrorCode::HttpRequestDenied => HttpError::Denied("the server is not among the plugin's `http_hosts`".into()),
        ErrorCode::DestinationIpProhibited => HttpError::Denied("the server's address is private".into()),
        other => HttpError::Failed(other.to_string()),
    }
}

fn fields(headers: &[(String, String)]) -> Result<Fields, String> {
    let entries: Vec<(String, Vec<u8>)> =
        headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone().into_bytes())).collect();
    Fields::from_list(&entries).map_err(|error| format!("a header is not valid: {error}"))
}

/// Headers whose values are text.
fn header_pairs(headers: &Fields) -> Vec<(String, String)> {
    let pair = |(name, value): (String, Vec<u8>)| Some((name.to_ascii_lowercase(), String::from_utf8(value).ok()?));
    headers.entries().into_iter().filter_map(pair).collect()
}

fn whole(body: &IncomingBody) -> Result<Vec<u8>, String> {
    let stream: InputStream = body.stream().map_err(|()| "the body was read already")?;
    let mut bytes = Vec::new();
    loop {
        match stream.blocking_read(CHUNK as u64 * 16) {
            Ok(chunk) => bytes.extend(chunk),
            Err(StreamError::Closed) => return Ok(bytes),
            Err(StreamError::LastOperationFailed(error)) => return Err(error.to_debug_string()),
        }
    }
}

fn write_all(body: OutgoingBody, bytes: &[u8]) -> Result<(), String> {
    let stream = body.write().map_err(|()| "the body was written already")?;
    for chunk in bytes.chunks(CHUNK) {
        stream.blocking_write_and_flush(chunk).map_err(|error| error.to_string())?;
    }
    drop(stream);
    OutgoingBody::finish(body, None).map_err(|error| error.to_string())
}

fn method(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "PATCH" => Method::Patch,
        "OPTIONS" => Method::Options,
        other => Method::Other(other.into()),
    }
}

fn method_name(method: Method) -> String {
    match method {
        Method::Get => "GET".into(),
        Method::Head => "HEAD".into(),
        Method::Post => "POST".into(),
        Method::Put => "PUT".into(),
        Method::Delete => "DELETE".into(),
        Method::Connect => "CONNECT".into(),
        Method::Options => "OPTIONS".into(),
        Method::Trace => "TRACE".into(),
        Method::Patch => "PATCH".into(),
        Method::Other(other) => other.to_ascii_uppercase(),
    }
}
