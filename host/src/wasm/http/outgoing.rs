//! Requests that guests send: who may be asked, at which address, and how much may pass.
//!
//! The grant is checked by scheme, host and port; the host is resolved here, and the connection goes to an address that was looked
//! at. A redirect is an answer like others: the guest may follow it with a request of its own, which is checked again.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use http::uri::Scheme;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::client::conn::http1;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use wasmtime_wasi::runtime::spawn;
use wasmtime_wasi_http::io::TokioIo;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use super::address::is_public;
use crate::config::Authorities;
use crate::wasm::error::bounded;
use crate::wasm::host_pattern::HostPattern;
use crate::wasm::limits::WasmLimits;
use crate::wasm::log::{GuestLog, LogLevel};

/// Chunks of a body that a guest may have written and that are not yet taken.
const BODY_CHUNKS: usize = 16;
/// Longest host in log lines.
const HOST_BYTES: usize = 128;

/// What an instance may send.
pub(super) struct Outgoing {
    /// Where it may send requests.
    hosts: Arc<[HostPattern]>,
    /// What each request is judged by.
    policy: Policy,
    /// Requests of the current call so far.
    sent: u32,
    /// Most requests of a call.
    most_requests: u32,
}

/// What a request takes with it on its way.
#[derive(Clone)]
struct Policy {
    /// Whether addresses beyond the public internet may be connected to.
    private_addresses: bool,
    /// Most bytes of a body.
    body_bytes: usize,
    /// How a connection is encrypted.
    tls: Tls,
    /// The plugin's log, for what was denied.
    log: GuestLog,
    /// Requests denied and not yet counted.
    denied: Arc<AtomicU32>,
}

/// How connections are encrypted, and whose word for a server is taken.
#[derive(Clone)]
pub(in crate::wasm) struct Tls(Arc<ClientConfig>);

/// Where a request goes.
struct Target {
    tls: bool,
    /// A name or an address, in brackets where it is of IPv6.
    host: String,
    port: u16,
}

/// The response, and what carries its body on.
type Answer = (http::Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>);

impl Outgoing {
    pub(super) fn new(
        hosts: Arc<[HostPattern]>,
        private_addresses: bool,
        (log, tls): (GuestLog, Tls),
        limits: &WasmLimits,
    ) -> Self {
        let policy = Policy { private_addresses, body_bytes: limits.http_body_bytes, tls, log, denied: Arc::default() };
        Self { hosts, policy, sent: 0, most_requests: limits.http_requests_per_call }
    }

    pub(super) fn begin_call(&mut self) {
        self.sent = 0;
    }

    pub(super) fn take_denied(&mut self) -> u32 {
        // Almost always there are none, and a plain read is cheaper than a swap.
        if self.policy.denied.load(Ordering::Relaxed) == 0 { 0 } else { self.policy.denied.swap(0, Ordering::Relaxed) }
    }

    /// Where a request goes, if it may go there.
    fn admit(&mut self, uri: &http::Uri) -> Result<Target, Error> {
        let authority = uri.authority().ok_or(Error::HttpRequestUriInvalid)?;
        if authority.as_str().contains('@') {
            return Err(Error::HttpRequestUriInvalid);
        }
        let tls = uri.scheme() == Some(&Scheme::HTTPS);
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let target = Target { tls, host: authority.host().to_owned(), port };
        if !self.hosts.iter().any(|granted| granted.allows(tls, &target.host, port)) {
            let (scheme, host) = (uri.scheme_str().unwrap_or_default(), bounded(&target.host, HOST_BYTES));
            self.policy.deny(&format!("the plugin is not granted the host `{scheme}://{host}:{port}`"));
            return Err(Error::HttpRequestDenied);
        }
        if self.sent == self.most_requests {
            return Err(Error::ConnectionLimitReached);
        }
        self.sent += 1;
        Ok(target)
    }
}

impl WasiHttpHooks for Outgoing {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _sent: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<Answer, Error>> + Send> {
        match self.admit(request.uri()) {
            Ok(target) => Box::new(send(request, target, options.unwrap_or_default(), self.policy.clone())),
            Err(error) => Box::new(std::future::ready(Err(error))),
        }
    }

    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        BODY_CHUNKS
    }

    // The guest is told of errors; in the broker's own log, which they go to by default, they would have no bound.

    fn p2_error_from_hyper(&mut self, error: &hyper::Error) -> ErrorCode {
        if error.is_timeout() { ErrorCode::HttpResponseTimeout } else { ErrorCode::HttpProtocolError }
    }

    fn p2_error_from_connect(&mut self, _error: &std::io::Error) -> ErrorCode {
        ErrorCode::ConnectionRefused
    }

    fn p2_error_from_tls(&mut self, error: &std::io::Error) -> ErrorCode {
        ErrorCode::InternalError(Some(bounded(&format!("TLS: {error}"), HOST_BYTES)))
    }
}

impl Policy {
    fn deny(&self, reason: &str) {
        self.denied.fetch_add(1, Ordering::Relaxed);
        self.log.host(Instant::now(), LogLevel::Warn, &format!("http denied: {reason}"));
    }

    /// Addresses of the host that may be connected to; one at the least.
    async fn resolve(&self, target: &Target) -> Result<Vec<SocketAddr>, Error> {
        let name = target.host.trim_start_matches('[').trim_end_matches(']');
        let unknown = |_| Error::DnsError { rcode: Some("address not available".to_owned()), info_code: None };
        let mut addresses: Vec<SocketAddr> = lookup_host((name, target.port)).await.map_err(unknown)?.collect();
        let Some(first) = addresses.first().copied() else { return Err(Error::DestinationNotFound) };
        if !self.private_addresses {
            addresses.retain(|address| is_public(address.ip()));
        }
        if addresses.is_empty() {
            let host = bounded(&target.host, HOST_BYTES);
            self.deny(&format!("the host `{host}` is at {}, which is not of the public internet", first.ip()));
            return Err(Error::DestinationIpProhibited);
        }
        Ok(addresses)
    }
}

async fn send(
    mut request: http::Request<WasiBody>,
    target: Target,
    options: RequestOptions,
    policy: Policy,
) -> Result<Answer, Error> {
    let connected = connect(&target, &policy);
    let stream = within(options.connect_timeout, connected, || Error::ConnectionTimeout).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the response's body, and with the call: whoever is handed the handle drops it then.
    let carrier = spawn(connection);
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse().map_err(|_| Error::HttpRequestUriInvalid)?;
    let limit = policy.body_bytes;
    let request = request.map(|body| Limited::new(body, limit));
    let response = async { sender.send_request(request).await.map_err(|error| refused_by_size(error, limit)) };
    let response = within(options.first_byte_timeout, response, || Error::ConnectionReadTimeout).await?;
    let response = response.map(|body| {
        let bounded = Limited::new(body, limit);
        bounded.map_err(move |error| body_error(error, limit)).boxed_unsync()
    });
    let carry = async move {
        let _ended = (carrier.await, sender);
        Ok(())
    };
    Ok((response, Box::new(carry)))
}

async fn connect(target: &Target, policy: &Policy) -> Result<Box<dyn Stream>, Error> {
    let mut failure = Error::DestinationNotFound;
    for address in policy.resolve(target).await? {
        match TcpStream::connect(address).await {
            Ok(stream) if target.tls => return policy.tls.encrypt(target, stream).await,
            Ok(stream) => return Ok(Box::new(stream)),
            Err(error) => failure = Error::Connect(error),
        }
    }
    Err(failure)
}

impl Tls {
    /// Takes the word of the public authorities, as browsers do, and of these.
    pub(in crate::wasm) fn trusting(authorities: Authorities) -> Self {
        let roots = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().chain(authorities.0).collect();
        let config = ClientConfig::builder().with_root_certificates(RootCertStore { roots }).with_no_client_auth();
        Self(Arc::new(config))
    }

    async fn encrypt(&self, target: &Target, stream: TcpStream) -> Result<Box<dyn Stream>, Error> {
        let name = target.host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(name).map_err(|_| Error::HttpRequestUriInvalid)?;
        let stream = TlsConnector::from(Arc::clone(&self.0)).connect(name, stream).await.map_err(Error::Tls)?;
        Ok(Box::new(stream))
    }
}

/// What HTTP is spoken over.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Waits, at most as long as the guest asked for; the call's own deadline comes in any case.
async fn within<T>(
    timeout: Option<Duration>,
    future: impl Future<Output = Result<T, Error>>,
    late: impl FnOnce() -> Error,
) -> Result<T, Error> {
    match timeout {
        Some(timeout) => tokio::time::timeout(timeout, future).await.unwrap_or_else(|_elapsed| Err(late())),
        None => future.await,
    }
}

/// An error of a request, which may be that its own body was too large.
fn refused_by_size(error: hyper::Error, limit: usize) -> Error {
    let cause = std::error::Error::source(&error);
    if cause.is_some_and(|cause| cause.is::<LengthLimitError>()) {
        return Error::HttpRequestBodySize(Some(limit as u64));
    }
    error.into()
}

fn body_error(error: Box<dyn std::error::Error + Send + Sync>, limit: usize) -> Error {
    match error.downcast::<hyper::Error>() {
        Ok(error) => (*error).into(),
        Err(_length) => Error::HttpResponseBodySize(Some(limit as u64)),
    }
}
