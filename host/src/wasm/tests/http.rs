//! HTTP, both ways, against a server on this machine.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ::http::{Request, StatusCode};
use bytes::Bytes;

use super::*;

/// A server that answers each connection once, by its path, and ends with the process.
struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, connections) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&connections);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                counted.fetch_add(1, Ordering::SeqCst);
                // A client that goes away in the middle is what some tests are about.
                let _gone = answer(stream.unwrap(), address);
            }
        });
        Self { address, connections }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn answer(mut stream: TcpStream, address: SocketAddr) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    let body = loop {
        let count = stream.read(&mut buffer)?;
        text.extend_from_slice(&buffer[..count]);
        if text.first() == Some(&0x16) {
            // What a TLS handshake begins with.
            return stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
        if count == 0 || text.ends_with(b"0\r\n\r\n") || text.starts_with(b"GET") && text.ends_with(b"\r\n\r\n") {
            break String::from_utf8_lossy(&text).into_owned();
        }
    };
    let path = body.split(' ').nth(1).unwrap_or("/");
    let length = |text: &str| format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len());
    let response = match path.split_once('?').unwrap_or((path, "")) {
        ("/hello", _) => length(&format!("hello from {}", host_of(&body))),
        ("/body", _) => length(if body.contains("over the sea") { "it came" } else { "it did not come" }),
        ("/redirect", _) => {
            format!("HTTP/1.1 302 Found\r\nlocation: http://{address}/hello\r\ncontent-length: 0\r\n\r\n")
        }
        ("/large", bytes) => length(&"x".repeat(bytes.parse().unwrap())),
        ("/never", _) => loop {
            // Ends when the client goes.
            if stream.read(&mut buffer)? == 0 {
                return Ok(());
            }
        },
        _ => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
    };
    stream.write_all(response.as_bytes())
}

fn host_of(request: &str) -> &str {
    let host = request.lines().find_map(|line| line.strip_prefix("host: "));
    host.unwrap_or("nowhere")
}

/// A bed whose plugins may send requests to these hosts.
fn bed(hosts: &[&str], private_addresses: bool) -> Bed {
    let mut bed = Bed::with(WasmLimits { http_call_deadline_ms: 20_000, http_body_bytes: 10_000, ..small() });
    bed.context.http_hosts = hosts.iter().map(|host| HostPattern::parse(host).unwrap()).collect();
    bed.context.private_addresses = private_addresses;
    bed
}

fn request(path: &str, headers: &[(&str, &str)], body: &str) -> Request<Bytes> {
    let mut builder = Request::builder().method("POST").uri(path);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(Bytes::copy_from_slice(body.as_bytes())).unwrap()
}

fn serve(instance: &mut Instance, path: &str, headers: &[(&str, &str)], body: &str) -> Result<Served, CallError> {
    instance.serve(Timestamp(77), MapState::of(&[("visits", "41")]), request(path, headers, body))
}

/// Lets a guest fetch, and gives the status and the text that it passed on.
fn fetch(instance: &mut Instance, url: &str, body: &str) -> (u16, String) {
    let served = serve(instance, "/fetch", &[("x-url", url)], body).unwrap();
    (served.response.status().as_u16(), String::from_utf8_lossy(served.response.body()).into_owned())
}

#[test]
fn a_request_arrives_whole_and_so_does_its_response() {
    let mut instance = Bed::new().start("serves");
    for _again in 0..2 {
        let served =
            serve(&mut instance, "/echo", &[("x-kept", "1"), ("host", "example.com")], "over the sea").unwrap();
        assert_eq!(served.response.status(), StatusCode::CREATED);
        assert_eq!(served.response.headers()["x-kept"], "1");
        assert_eq!(&served.response.body()[..], b"Method::Post example.com over the sea");
        assert!(served.publishes.is_empty() && served.writes.is_empty());
    }
    assert_eq!(serve(&mut instance, "/other", &[], "").unwrap().response.status(), StatusCode::NOT_FOUND);
}

#[test]
fn what_a_request_does_comes_with_its_response() {
    let served = serve(&mut Bed::new().start("serves"), "/count", &[], "").unwrap();
    assert_eq!((&*served.writes[0].key, served.writes[0].value.as_deref()), ("visits", Some(&b"42"[..])));
    assert_eq!((served.publishes.len(), served.timers.len(), served.denied), (2, 1, 0));
    let identity: u64 = std::str::from_utf8(served.response.body()).unwrap().parse().unwrap();
    assert!(identity < 1 << 63);
    assert_eq!(&*served.timers[0].name, format!("$request/{identity}"));
}

#[test]
fn an_error_of_the_server_leaves_nothing_behind() {
    let mut instance = Bed::new().start("serves");
    for (status, remains) in [("200", true), ("404", true), ("500", false), ("503", false)] {
        let served = serve(&mut instance, "/count", &[("x-status", status)], "").unwrap();
        assert_eq!(served.response.status().as_str(), status);
        let effects = (served.writes.len(), served.publishes.len(), served.timers.len());
        assert_eq!(effects, if remains { (1, 2, 1) } else { (0, 0, 0) }, "{status}");
    }
}

#[test]
fn bodies_are_bounded_on_their_way_in_and_out() {
    let bed = Bed::with(WasmLimits { http_body_bytes: 10_000, ..small() });
    let mut instance = bed.start("serves");
    let large = "x".repeat(10_001);
    let served = serve(&mut instance, "/echo", &[], &large).unwrap();
    assert_eq!(served.response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let served = serve(&mut instance, "/large", &[("x-bytes", "10000")], "").unwrap();
    assert_eq!(served.response.body().len(), 10_000);
    let error = serve(&mut instance, "/large", &[("x-bytes", "1000000")], "").map(drop).unwrap_err();
    assert_eq!(error.to_string(), "the HTTP service failed: the body of its response has more than 10000 bytes");
    assert!(serve(&mut instance, "/echo", &[], "").is_ok(), "the instance lives");
}

#[test]
fn a_guest_that_gives_no_response_is_told_from_one_that_traps() {
    let bed = Bed::with(WasmLimits { call_deadline_ms: 500, ..small() });
    let mut instance = bed.start("serves");
    for (path, expected) in [
        ("/silent", "the HTTP service failed: it gave no response"),
        ("/unfinished", "the HTTP service failed: it did not finish the body of its response"),
    ] {
        assert_eq!(serve(&mut instance, path, &[], "").map(drop).unwrap_err().to_string(), expected);
    }
    let error = serve(&mut instance, "/panic", &[], "").map(drop).unwrap_err();
    assert!(error.is_fatal() && error.to_string().contains("cannot stand /panic"), "{error}");
    let error = serve(&mut bed.start("serves"), "/spin", &[], "").map(drop).unwrap_err();
    assert_eq!(error, CallError::Deadline { deadline_ms: 500 });
}

#[test]
fn a_granted_host_is_asked_and_its_answer_arrives() {
    let server = Server::start();
    let grant = format!("http://{}", server.address);
    let bed = bed(&[&grant], true);
    let mut instance = bed.start("serves");
    let hello = format!("hello from {}", server.address);
    assert_eq!(fetch(&mut instance, &format!("{grant}/hello"), ""), (200, hello));
    assert_eq!(fetch(&mut instance, &format!("{grant}/body"), "over the sea"), (200, "it came".to_owned()));
    assert_eq!(fetch(&mut instance, &format!("{grant}/none"), "").0, 404);
    assert_eq!(bed.messages(), [] as [&str; 0]);
}

#[test]
fn a_host_that_is_not_granted_is_not_asked() {
    let server = Server::start();
    let port = server.address.port();
    for (grants, url) in [
        (&[][..], format!("http://127.0.0.1:{port}/hello")),
        (&["http://127.0.0.1:1"], format!("http://127.0.0.1:{port}/hello")),
        (&["https://127.0.0.1:1"], "http://127.0.0.1:1/hello".to_owned()),
        (&["http://*.localhost"], "http://localhost/hello".to_owned()),
    ] {
        let bed = bed(grants, true);
        let (status, text) = fetch(&mut bed.start("serves"), &url, "");
        assert_eq!(status, 502);
        assert!(text.contains("HttpRequestDenied"), "{url}: {text}");
        assert!(
            bed.messages()[0].starts_with("http denied: the plugin is not granted the host `http"),
            "{:?}",
            bed.messages()
        );
    }
    assert_eq!(server.connections(), 0);
}

#[test]
fn a_denied_request_is_counted() {
    let mut instance = bed(&[], true).start("serves");
    let served = serve(&mut instance, "/fetch", &[("x-url", "http://example.com/")], "").unwrap();
    assert_eq!(served.denied, 1);
}

#[test]
fn an_address_beyond_the_public_internet_is_not_connected_to() {
    let server = Server::start();
    for host in ["127.0.0.1", "localhost"] {
        let grant = format!("http://{host}:{}", server.address.port());
        let bed = bed(&[&grant], false);
        let (_, text) = fetch(&mut bed.start("serves"), &format!("{grant}/hello"), "");
        assert!(text.contains("DestinationIpProhibited"), "{text}");
        let expected = format!("http denied: the host `{host}` is at ");
        assert!(bed.messages()[0].starts_with(&expected), "{:?}", bed.messages());
    }
    assert_eq!(server.connections(), 0);
}

#[test]
fn a_redirect_is_an_answer_and_is_not_followed() {
    let server = Server::start();
    let grant = format!("http://{}", server.address);
    let (status, _) = fetch(&mut bed(&[&grant], true).start("serves"), &format!("{grant}/redirect"), "");
    assert_eq!((status, server.connections()), (302, 1));
}

#[test]
fn bodies_of_requests_that_are_sent_are_bounded_too() {
    let server = Server::start();
    let grant = format!("http://{}", server.address);
    let mut instance = bed(&[&grant], true).start("serves");
    assert_eq!(fetch(&mut instance, &format!("{grant}/large?9999"), "").1.len(), 9_999);
    let (status, text) = fetch(&mut instance, &format!("{grant}/large?1000000"), "");
    assert_eq!(status, 502);
    assert_eq!(text, "HTTP response body size exceeds limit: 10000 bytes");
    let headers = [("x-url", &*format!("{grant}/body")), ("x-bytes", "20000")];
    let served = serve(&mut instance, "/fetch", &headers, "").unwrap();
    let text = String::from_utf8_lossy(served.response.body()).into_owned();
    assert!(served.response.status() == 502 && text.contains("HttpRequestBodySize(Some(10000))"), "{text}");
}

#[test]
fn what_speaks_no_tls_is_not_trusted() {
    let server = Server::start();
    let grant = format!("https://localhost:{}", server.address.port());
    let (status, text) = fetch(&mut bed(&[&grant], true).start("serves"), &format!("{grant}/hello"), "");
    assert_eq!(status, 502);
    assert!(text.contains("TLS: "), "{text}");
}

#[test]
fn one_call_sends_so_many_requests_and_no_more() {
    let server = Server::start();
    let grant = format!("http://{}", server.address);
    let mut bed = bed(&[&grant], true);
    bed.runtime.limits.http_requests_per_call = 0;
    let (_, text) = fetch(&mut bed.start("serves"), &format!("{grant}/hello"), "");
    assert!(text.contains("ConnectionLimitReached"), "{text}");
}

#[test]
fn waiting_for_an_answer_ends_with_the_call() {
    let server = Server::start();
    let grant = format!("http://{}", server.address);
    let mut bed = bed(&[&grant], true);
    bed.runtime.limits.http_call_deadline_ms = 300;
    let mut instance = bed.start("serves");
    let begun = Instant::now();
    let error = serve(&mut instance, "/fetch", &[("x-url", &format!("{grant}/never"))], "").map(drop).unwrap_err();
    assert_eq!(error, CallError::Deadline { deadline_ms: 300 });
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}
