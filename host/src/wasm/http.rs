//! HTTP for plugins, both ways, in the standard's own interfaces.
//!
//! Out (`http/outgoing.rs`): to granted hosts only, to the address that was checked, and no redirect is followed. In: one request at
//! a time, its body already here, and the response is collected while the guest writes it ([`Reply`]). Bodies are bounded.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use wasmtime::component::Linker;
use wasmtime_wasi::runtime::poll_noop;
use wasmtime_wasi_http::p2::add_only_http_to_linker_sync;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use self::outgoing::Outgoing;
pub(super) use self::outgoing::Tls;
use super::host::HostState;
use super::host_pattern::HostPattern;
use super::limits::WasmLimits;
use super::log::GuestLog;

mod address;
mod outgoing;

/// Offers `wasi:http` to guests.
pub(super) fn add_to_linker(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    add_only_http_to_linker_sync(linker)
}

/// The HTTP of one instance.
pub(super) struct Http {
    /// The standard's own state.
    context: WasiHttpCtx,
    /// Requests that the guest sends.
    outgoing: Outgoing,
    /// The response to the request that the guest answers.
    pub(super) reply: Reply,
}

impl Http {
    pub(super) fn new(
        hosts: Arc<[HostPattern]>,
        private_addresses: bool,
        (log, tls): (GuestLog, Tls),
        limits: &WasmLimits,
    ) -> Self {
        let outgoing = Outgoing::new(hosts, private_addresses, (log, tls), limits);
        let reply = Reply { answer: Arc::default(), limit_bytes: limits.http_body_bytes };
        Self { context: WasiHttpCtx::new(), outgoing, reply }
    }

    /// Forgets what belongs to an earlier call.
    pub(super) fn begin_call(&mut self) {
        self.outgoing.begin_call();
    }

    /// How many requests were denied since this was asked.
    pub(super) fn take_denied(&mut self) -> u32 {
        self.outgoing.take_denied()
    }
}

impl WasiHttpView for HostState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.http.outgoing, table: &mut self.table, ctx: &mut self.http.context }
    }
}

/// The response of a guest, as it comes.
///
/// A guest writes the body into a short channel. Nobody else runs meanwhile, so the channel is emptied whenever the guest asks
/// for room in a stream or waits ([`Self::collect`]).
#[derive(Clone)]
pub(super) struct Reply {
    /// What has come.
    answer: Arc<Mutex<Answer>>,
    /// Most bytes of a body.
    limit_bytes: usize,
}

#[derive(Default)]
enum Answer {
    /// Nothing has come.
    #[default]
    Awaited,
    /// The head, and as much of the body.
    Begun(http::response::Parts, HyperOutgoingBody, Vec<u8>),
    /// All of it.
    Whole(http::response::Parts, Vec<u8>),
    /// It cannot be, and why.
    Failed(String),
}

impl Reply {
    /// Takes the response of the guest, or its excuse.
    pub(super) fn answer(&self, response: Result<http::Response<HyperOutgoingBody>, ErrorCode>) {
        *self.lock() = match response {
            Ok(response) => {
                let (parts, body) = response.into_parts();
                Answer::Begun(parts, body, Vec::new())
            }
            Err(code) => Answer::Failed(format!("it answered with the error {code}")),
        };
    }

    /// Takes what the guest has written.
    pub(super) fn collect(&self) {
        let mut answer = self.lock();
        if let Answer::Begun(..) = &*answer {
            *answer = std::mem::take(&mut *answer).further(self.limit_bytes);
        }
    }

    /// The response, once the guest is done.
    pub(super) fn take(&self) -> Result<http::Response<Bytes>, String> {
        self.collect();
        match std::mem::take(&mut *self.lock()) {
            Answer::Whole(parts, body) => Ok(http::Response::from_parts(parts, body.into())),
            Answer::Awaited => Err("it gave no response".to_owned()),
            Answer::Begun(..) => Err("it did not finish the body of its response".to_owned()),
            Answer::Failed(reason) => Err(reason),
        }
    }

    /// A request begins: what an earlier one left is gone.
    pub(super) fn await_answer(&self) {
        *self.lock() = Answer::Awaited;
    }

    fn lock(&self) -> MutexGuard<'_, Answer> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answer {
    /// With what has come of the body since.
    fn further(self, limit_bytes: usize) -> Self {
        let Self::Begun(parts, mut body, mut bytes) = self else { return self };
        loop {
            match poll_noop(std::pin::pin!(body.frame())) {
                None => return Self::Begun(parts, body, bytes),
                Some(None) => return Self::Whole(parts, bytes),
                Some(Some(Err(error))) => return Self::Failed(format!("its body broke off: {error}")),
                Some(Some(Ok(frame))) => {
                    // Trailers are not passed on: who answers the client has sent the length by then.
                    let Ok(data) = frame.into_data() else { continue };
                    if bytes.len() + data.len() > limit_bytes {
                        return Self::Failed(format!("the body of its response has more than {limit_bytes} bytes"));
                    }
                    bytes.extend_from_slice(&data);
                }
            }
        }
    }
}
