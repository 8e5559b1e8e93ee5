//! The empty virtual WASI: what Rust's standard library imports, with nothing behind it.
//!
//! No arguments, environment, files or sockets; clocks and random numbers work; what a guest prints goes to its log.
//! Waiting is the one thing of WASI that could hold a thread beyond a call's deadline, since no guest code runs
//! meanwhile; so waiting is ours, and ends with the call.

use std::future::Future;
use std::time::Instant;

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::bindings::io::poll as waiting;
use wasmtime_wasi::p2::bindings::sync::io::poll;
use wasmtime_wasi::p2::{DynPollable, OutputStream, Pollable, StreamResult, add_to_linker_sync};
use wasmtime_wasi::runtime::in_tokio;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView, async_trait};

use super::deadline::CallTime;
use super::engine::TICK;
use super::host::HostState;
use super::log::{GuestLog, Printed};

/// Streams, pollables and the like that one instance may hold.
const RESOURCES: usize = 1_000;
/// Most random bytes of one call of `get-random-bytes`.
const RANDOM_BYTES: u64 = 64 << 10;
/// Bytes that a guest may print at once.
const PRINT_BYTES: usize = 64 << 10;

/// Offers the virtual WASI to guests.
pub(super) fn add_to_linker(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    add_to_linker_sync(linker)?;
    linker.allow_shadowing(true);
    poll::add_to_linker::<HostState, BoundedWaiting>(linker, |state| Waiting {
        table: &mut state.table,
        time: &state.time,
    })?;
    linker.allow_shadowing(false);
    Ok(())
}

/// A WASI for one instance.
pub(super) fn context(log: &GuestLog) -> (WasiCtx, ResourceTable) {
    let mut table = ResourceTable::new();
    table.set_max_capacity(RESOURCES);
    let context = WasiCtxBuilder::new()
        .stdout(PrintStream { log: log.clone(), stream: Printed::Stdout })
        .stderr(PrintStream { log: log.clone(), stream: Printed::Stderr })
        .max_random_size(RANDOM_BYTES)
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .build();
    (context, table)
}

impl WasiView for HostState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

// ---------------------------------------------------------------------------------------------- waiting

struct BoundedWaiting;

impl HasData for BoundedWaiting {
    type Data<'a> = Waiting<'a>;
}

/// `wasi:io/poll`, which ends with the call.
struct Waiting<'a> {
    /// The instance's pollables.
    table: &'a mut ResourceTable,
    /// When the call ends.
    time: &'a CallTime,
}

impl poll::Host for Waiting<'_> {
    fn poll(&mut self, pollables: Vec<Resource<DynPollable>>) -> wasmtime::Result<Vec<u32>> {
        in_tokio(until_deadline(self.time, waiting::Host::poll(self.table, pollables)))
    }
}

impl poll::HostPollable for Waiting<'_> {
    fn ready(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<bool> {
        in_tokio(until_deadline(self.time, waiting::HostPollable::ready(self.table, pollable)))
    }

    fn block(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        in_tokio(until_deadline(self.time, waiting::HostPollable::block(self.table, pollable)))
    }

    fn drop(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        waiting::HostPollable::drop(self.table, pollable)
    }
}

/// Waits for a future, and looks at every tick whether the call is over.
async fn until_deadline<T>(time: &CallTime, future: impl Future<Output = wasmtime::Result<T>>) -> wasmtime::Result<T> {
    let mut future = std::pin::pin!(future);
    loop {
        match tokio::time::timeout(TICK, &mut future).await {
            Ok(result) => return result,
            Err(_elapsed) => time.check()?,
        }
    }
}

// ---------------------------------------------------------------------------------------------- printing

/// Standard output or standard error of a guest.
struct PrintStream {
    /// Where the lines go.
    log: GuestLog,
    /// Which of the two it is.
    stream: Printed,
}

impl IsTerminal for PrintStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for PrintStream {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        // Only WASI 0.3 asks for this, which guests are not offered.
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(Self { log: self.log.clone(), stream: self.stream })
    }
}

impl OutputStream for PrintStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.log.printed(Instant::now(), self.stream, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(PRINT_BYTES)
    }
}

#[async_trait]
impl Pollable for PrintStream {
    async fn ready(&mut self) {}
}
