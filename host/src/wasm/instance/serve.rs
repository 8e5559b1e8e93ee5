//! Requests to a plugin's HTTP service.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use vespiary_core::event::{StateWrite, TimerWrite};
use vespiary_core::message::{Message, Timestamp};
use wasmtime::Store;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::p2::bindings::sync::exports::wasi::http::incoming_handler;
use wasmtime_wasi_http::{Error, WasiHttpView as _};

use super::{Instance, exported};
use crate::wasm::batch::{Batch, Purpose};
use crate::wasm::error::CallError;
use crate::wasm::host::HostState;
use crate::wasm::inspect;
use crate::wasm::state::StateRead;

/// What a request to a plugin's HTTP service came to. The response is to be sent once the rest is committed. There is no rest
/// where the response is an error of the server (500 and above): then nothing of what the call did is to remain.
#[derive(Debug)]
pub struct Served {
    /// The response; without trailers.
    pub response: http::Response<Bytes>,
    /// What it published.
    pub publishes: Vec<Message>,
    /// What it wrote.
    pub writes: Vec<StateWrite>,
    /// Timers that it set or cancelled, also those of its requests.
    pub timers: Vec<TimerWrite>,
    /// Clients that it disconnects.
    pub disconnects: Vec<Arc<str>>,
    /// Uses of what the plugin is not granted, which were denied.
    pub denied: u32,
}

impl Instance {
    /// Hands a request to `wasi:http/incoming-handler`. A body beyond `http_body_bytes` is answered with 413 without asking the
    /// guest. A guest that gives no response, or one that cannot be, is [`CallError::Failed`].
    pub fn serve(
        &mut self,
        now: Timestamp,
        state: impl StateRead + 'static,
        request: http::Request<Bytes>,
    ) -> Result<Served, CallError> {
        let limit = self.store.data().limits.http_body_bytes;
        if request.body().len() > limit {
            return Ok(Served::too_large(limit));
        }
        let batch = Batch::new(Box::new(state), Purpose::Request, now);
        let ((), batch) = self.call_with(batch, None, |exports, store| {
            answer(exported(exports.incoming_handler.as_ref(), inspect::INCOMING_HANDLER)?, store, request)
        })?;
        let response = self.store.data().http.reply.take();
        let response = response.map_err(|reason| self.failed("the HTTP service", &reason))?;
        let done = batch.done();
        if response.status().is_server_error() {
            return Ok(Served::alone(response, done.denied));
        }
        Ok(Served {
            response,
            publishes: done.publishes,
            writes: done.writes,
            timers: done.timers,
            disconnects: done.disconnects,
            denied: done.denied,
        })
    }
}

fn answer(
    handler: &incoming_handler::Guest,
    store: &mut Store<HostState>,
    mut request: http::Request<Bytes>,
) -> wasmtime::Result<()> {
    if request.uri().authority().is_none() {
        // HTTP/1.0 knows requests without a host; the interface has to have one.
        request.headers_mut().entry(http::header::HOST).or_insert(http::HeaderValue::from_static("localhost"));
    }
    let scheme = if request.uri().scheme() == Some(&http::uri::Scheme::HTTPS) { Scheme::Https } else { Scheme::Http };
    let request = request.map(|body| Full::new(body).map_err(|never| -> Error { match never {} }));
    let reply = store.data().http.reply.clone();
    reply.await_answer();
    let mut http = store.data_mut().http();
    let request = http.new_incoming_request(scheme, request)?;
    let response = http.new_response_outparam_from_callback(move |response| reply.answer(response))?;
    handler.call_handle(store, request, response)
}

impl Served {
    fn too_large(limit: usize) -> Self {
        let body = format!("the body has more than {limit} bytes\n");
        let mut response = http::Response::new(Bytes::from(body));
        *response.status_mut() = http::StatusCode::PAYLOAD_TOO_LARGE;
        Self::alone(response, 0)
    }

    /// A response that changes nothing.
    fn alone(response: http::Response<Bytes>, denied: u32) -> Self {
        let (publishes, writes, timers, disconnects) = <_>::default();
        Self { response, publishes, writes, timers, disconnects, denied }
    }
}
