//! Answers HTTP requests, and sends some.
//!
//! `/echo` gives back method, headers and body; `/count` adds to the state key `visits` and publishes the sum (with the
//! status that the header `x-status` names), `/fail` does the same and answers 500, `/fall` does and panics; `/visits` gives what
//! stands under the key; `/fetch` sends what the header `x-url` names (with the body of the request, if it has one, or `x-bytes`
//! bytes) and gives back status and body, or the error; `/large` writes as many bytes as the header `x-bytes` says; `/silent` gives
//! no response, `/unfinished` one whose body
//! does not end, `/panic` panics, `/spin` never ends.

#![cfg(target_arch = "wasm32")]

mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package test:serves;

            world serves {
                include vespiary:plugin/imports@0.1.0;
                import wasi:http/outgoing-handler@0.2.12;
                export vespiary:plugin/lifecycle@0.1.0;
                export wasi:http/incoming-handler@0.2.12;
            }
        ",
        world: "test:serves/serves",
        generate_all,
        default_bindings_module: "bindings",
        export_macro_name: "export",
    });
}

use bindings::exports::vespiary::plugin::lifecycle;
use bindings::exports::wasi::http::incoming_handler;
use bindings::vespiary::plugin::{broker, state, types};
use bindings::wasi::http::outgoing_handler;
use bindings::wasi::http::types::{
    Fields, IncomingBody, IncomingRequest, Method, OutgoingBody, OutgoingRequest, OutgoingResponse, ResponseOutparam,
    Scheme,
};
use bindings::wasi::io::streams::StreamError;

#[used]
#[unsafe(link_section = "vespiary:manifest")]
static MANIFEST: [u8; MANIFEST_TEXT.len()] = *MANIFEST_TEXT;
const MANIFEST_TEXT: &[u8; 157] =
    br##"{"manifest":1,"name":"serves","version":"0.1.0","description":"A guest of the sandbox's tests.","publishes":["out/#"],"http_hosts":["http://127.0.0.1:8080"]}"##;

struct Plugin;

impl lifecycle::Guest for Plugin {
    fn init() -> Result<(), String> {
        Ok(())
    }

    fn health() -> Result<(), String> {
        Ok(())
    }
}

impl incoming_handler::Guest for Plugin {
    fn handle(request: IncomingRequest, response: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        let headers = request.headers().entries();
        let header = |name: &str| {
            let value = headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
            String::from_utf8(value.unwrap_or_default()).unwrap_or_default()
        };
        let body = read(request.consume().expect("the body is there")).expect("the body can be read");
        match path.as_str() {
            "/echo" => {
                let kept: Vec<_> = headers.iter().filter(|(name, _)| name.starts_with("x-")).cloned().collect();
                let text = format!("{:?} {} ", request.method(), request.authority().unwrap_or_default());
                reply(response, 201, &kept, [text.as_bytes(), &body].concat().chunks(3));
            }
            "/count" => {
                let status = header("x-status").parse().unwrap_or(200);
                reply(response, status, &[], count().as_bytes().chunks(4096));
            }
            "/fail" => reply(response, 500, &[], count().as_bytes().chunks(4096)),
            "/fall" => panic!("{} {path}", count()),
            "/visits" => {
                let visits = state::get("visits").expect("a key").unwrap_or_else(|| b"0".to_vec());
                reply(response, 200, &[], visits.chunks(4096));
            }
            "/fetch" => {
                let body = header("x-bytes").parse().map_or(body, |bytes| vec![b'x'; bytes]);
                let (status, text) = match fetch(&header("x-url"), &body) {
                    Ok((status, text)) => (status, text),
                    Err(reason) => (502, reason.into_bytes()),
                };
                reply(response, status, &[], text.chunks(4096));
            }
            "/large" => {
                let bytes = vec![b'x'; header("x-bytes").parse().expect("bytes")];
                reply(response, 200, &[], bytes.chunks(4096));
            }
            "/silent" => {}
            "/unfinished" => {
                let head = OutgoingResponse::new(Fields::new());
                let body = head.body().expect("taken once");
                ResponseOutparam::set(response, Ok(head));
                std::mem::forget(body);
            }
            "/panic" => panic!("cannot stand {path}"),
            "/spin" => loop {
                std::hint::black_box(&path);
            },
            _ => reply(response, 404, &[], [].chunks(1)),
        }
    }
}

fn count() -> String {
    let sum = state::add("visits", 1).expect("a counter");
    let message = types::Message {
        topic: "out/visits".into(),
        payload: sum.to_string().into_bytes(),
        qos: types::Qos::AtLeastOnce,
        retain: false,
        properties: Vec::new(),
    };
    broker::publish(&message).expect("out/# is granted");
    broker::request(&message, 1_000).expect("out/# is granted").to_string()
}

fn reply<'a>(
    response: ResponseOutparam,
    status: u16,
    headers: &[(String, Vec<u8>)],
    chunks: impl Iterator<Item = &'a [u8]>,
) {
    let head = OutgoingResponse::new(Fields::from_list(headers).expect("headers that came"));
    head.set_status_code(status).expect("a status");
    let body = head.body().expect("taken once");
    ResponseOutparam::set(response, Ok(head));
    let _cut_off = write(body, chunks);
}

fn write<'a>(body: OutgoingBody, chunks: impl Iterator<Item = &'a [u8]>) -> Result<(), String> {
    let stream = body.write().expect("taken once");
    for chunk in chunks {
        stream.blocking_write_and_flush(chunk).map_err(|error| format!("{error:?}"))?;
    }
    drop(stream);
    OutgoingBody::finish(body, None).map_err(|error| format!("{error:?}"))
}

fn read(body: IncomingBody) -> Result<Vec<u8>, String> {
    let stream = body.stream().expect("taken once");
    let mut bytes = Vec::new();
    loop {
        match stream.blocking_read(64 << 10) {
            Ok(more) => bytes.extend(more),
            Err(StreamError::Closed) => return Ok(bytes),
            Err(StreamError::LastOperationFailed(error)) => return Err(error.to_debug_string()),
        }
    }
}

fn fetch(url: &str, body: &[u8]) -> Result<(u16, Vec<u8>), String> {
    let (scheme, rest) = url.split_once("://").ok_or("no scheme")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let request = OutgoingRequest::new(Fields::new());
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    request.set_scheme(Some(&scheme)).map_err(|()| "a scheme that cannot be")?;
    request.set_authority(Some(authority)).map_err(|()| "an authority that cannot be")?;
    request.set_path_with_query(Some(path)).map_err(|()| "a path that cannot be")?;
    if !body.is_empty() {
        request.set_method(&Method::Post).map_err(|()| "a method that cannot be")?;
    }
    let outgoing = request.body().expect("taken once");
    let response = outgoing_handler::handle(request, None).map_err(|error| format!("{error:?}"))?;
    // An error of the body shows in the response too, and there with its reason.
    let _cut_off = write(outgoing, body.chunks(4096));
    response.subscribe().block();
    let response = response.get().expect("it is ready").expect("taken once").map_err(|error| format!("{error:?}"))?;
    let status = response.status();
    Ok((status, read(response.consume().expect("taken once"))?))
}

bindings::export!(Plugin with_types_in bindings);
