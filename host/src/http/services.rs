//! `/services/NAME/...`: a plugin's own HTTP, any method.
//!
//! The plugin sees its own paths: `/services/NAME` is taken off and told as `X-Forwarded-Prefix`. Headers that belong to one
//! connection (RFC 9110 section 7.6.1) are dropped both ways. Bodies are read whole, within a bound and a time; how long the
//! plugin may take is for the floors below.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use super::plugins::known;
use super::{Api, Failure};
use crate::plugins::ServiceError;

/// Tells the plugin under which path it is mounted.
const PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// Headers that belong to one connection, beside those that `Connection` names.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Hands a request to the plugin that the path names.
pub(super) async fn serve(State(api): State<Api>, request: Request) -> Result<Response, Failure> {
    let name = request.uri().path().split('/').nth(2).unwrap_or_default().to_owned();
    let plugin = known(&name)?;
    let method = request.method().clone();
    let request = inwards(request, &name, api.options.body_bytes, api.options.body_timeout).await?;
    let response =
        api.plugins.serve(&plugin, request).await.map_err(|error| Failure(status_of(&error), error.to_string()))?;
    Ok(outwards(response, &method))
}

fn status_of(error: &ServiceError) -> StatusCode {
    match error {
        ServiceError::Unknown(_) => StatusCode::NOT_FOUND,
        ServiceError::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        ServiceError::Failed { .. } => StatusCode::BAD_GATEWAY,
        ServiceError::TooSlow { .. } => StatusCode::GATEWAY_TIMEOUT,
        ServiceError::Unconfirmed(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The request as the plugin sees it.
async fn inwards(
    request: Request,
    name: &str,
    bytes: usize,
    timeout: Duration,
) -> Result<http::Request<Bytes>, Failure> {
    let (mut parts, body) = request.into_parts();
    let prefix = format!("/services/{name}");
    parts.uri = without_prefix(&parts.uri, &prefix)?;
    drop_hop_by_hop(&mut parts.headers);
    let prefix = HeaderValue::try_from(prefix)
        .map_err(|_| Failure(StatusCode::BAD_REQUEST, "the path is not one of a service".into()))?;
    parts.headers.insert(PREFIX, prefix);
    Ok(http::Request::from_parts(parts, read(body, bytes, timeout).await?))
}

/// The body, whole.
async fn read(body: Body, bytes: usize, timeout: Duration) -> Result<Bytes, Failure> {
    match tokio::time::timeout(timeout, Limited::new(body, bytes).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Failure(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is larger than {bytes} bytes, the most that a service takes (plugins.http_body_bytes)"),
        )),
        Ok(Err(error)) => Err(Failure(StatusCode::BAD_REQUEST, format!("the body broke off: {error}"))),
        Err(_) => {
            Err(Failure(StatusCode::REQUEST_TIMEOUT, format!("the body did not come within {} s", timeout.as_secs())))
        }
    }
}

/// The response as the client sees it.
fn outwards(response: http::Response<Bytes>, method: &Method) -> Response {
    let (mut parts, body) = response.into_parts();
    drop_hop_by_hop(&mut parts.headers);
    // The length is that of what is sent; only an answer to HEAD has one of its own.
    if method != Method::HEAD {
        parts.headers.remove(header::CONTENT_LENGTH);
    }
    parts.version = http::Version::HTTP_11;
    if parts.status.is_informational() {
        let reason = format!("the service answered with status {}, which ends no request", parts.status);
        return Failure(StatusCode::BAD_GATEWAY, reason).into_response();
    }
    Response::from_parts(parts, Body::from(body))
}

fn without_prefix(uri: &Uri, prefix: &str) -> Result<Uri, Failure> {
    let bad = || Failure(StatusCode::BAD_REQUEST, "the path is not one of a service".into());
    let whole = uri.path_and_query().map_or("/", |path| path.as_str());
    let rest = whole.strip_prefix(prefix).ok_or_else(bad)?;
    let rest = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
    rest.parse().map_err(|_| bad())
}

fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = (headers.get_all(header::CONNECTION).iter())
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, body: &[u8]) -> Request {
        let request = http::Request::builder().method("POST").uri(uri);
        let request = request.header("connection", "close, x-secret-hop").header("x-secret-hop", "1");
        let request = request.header("te", "trailers").header("x-kept", "1").header("x-forwarded-prefix", "/forged");
        request.body(Body::from(body.to_vec())).unwrap()
    }

    #[tokio::test]
    async fn a_service_sees_its_own_path_and_no_header_of_the_connection() {
        let seen = inwards(request("/services/a/b/c?d=e%2Ff", b"x"), "a", 10, Duration::from_secs(9)).await.unwrap();
        assert_eq!((seen.uri().to_string().as_str(), &seen.body()[..]), ("/b/c?d=e%2Ff", &b"x"[..]));
        let mut names: Vec<_> =
            seen.headers().iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        // Headers of different names have no order.
        names.sort_unstable();
        assert_eq!(names, [("x-forwarded-prefix", "/services/a"), ("x-kept", "1")]);
        for (path, expected) in [("/services/a", "/"), ("/services/a/", "/"), ("/services/a?x=1", "/?x=1")] {
            let seen = inwards(request(path, b""), "a", 10, Duration::from_secs(9)).await.unwrap();
            assert_eq!(seen.uri().to_string(), expected, "{path}");
        }
    }

    #[tokio::test]
    async fn a_body_is_bounded_in_size_and_time() {
        let large = inwards(request("/services/a/", &[0; 11]), "a", 10, Duration::from_secs(9)).await.unwrap_err();
        assert_eq!(large.0, StatusCode::PAYLOAD_TOO_LARGE);
        assert!(large.1.contains("larger than 10 bytes"), "{}", large.1);
        struct Never;
        impl http_body::Body for Never {
            type Data = Bytes;
            type Error = std::convert::Infallible;
            fn poll_frame(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
                std::task::Poll::Pending
            }
        }
        let slow = read(Body::new(Never), 10, Duration::from_millis(10)).await.unwrap_err();
        assert_eq!(slow.0, StatusCode::REQUEST_TIMEOUT);
    }

    #[test]
    fn an_answer_has_the_length_that_it_has() {
        let answer = || {
            http::Response::builder()
                .header("content-length", "99")
                .header("transfer-encoding", "chunked")
                .body(Bytes::new())
        };
        let sent = outwards(answer().unwrap(), &Method::GET);
        assert!(sent.headers().is_empty());
        assert_eq!(outwards(answer().unwrap(), &Method::HEAD).headers().len(), 1);
        let mut early = answer().unwrap();
        *early.status_mut() = StatusCode::CONTINUE;
        assert_eq!(outwards(early, &Method::GET).status(), StatusCode::BAD_GATEWAY);
    }
}
