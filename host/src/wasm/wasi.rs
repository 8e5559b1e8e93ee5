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
use wasmtime_wasi::p2::bindings::io::{error, poll as pollable, streams as stream};
use wasmtime_wasi::p2::bindings::sync::io::{poll, streams};
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream, DynPollable, OutputStream, Pollable, StreamError, StreamResult, add_to_linker_sync,
};
use wasmtime_wasi::runtime::{in_tokio, poll_noop};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView, async_trait};

use super::deadline::CallTime;
use super::engine::TICK;
use super::error::bounded;
use super::host::HostState;
use super::http::Reply;
use super::log::{GuestLog, Printed};

/// Streams, pollables and the like that one instance may hold.
const RESOURCES: usize = 1_000;
/// Most random bytes of one call of `get-random-bytes`.
const RANDOM_BYTES: u64 = 64 << 10;
/// Bytes that a guest may print at once.
const PRINT_BYTES: usize = 64 << 10;

/// Longest description of an error of a stream in bytes.
const ERROR_BYTES: usize = 512;

/// Offers the virtual WASI to guests.
pub(super) fn add_to_linker(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    add_to_linker_sync(linker)?;
    linker.allow_shadowing(true);
    poll::add_to_linker::<HostState, BoundedWaiting>(linker, waiting)?;
    streams::add_to_linker::<HostState, BoundedWaiting>(linker, waiting)?;
    error::add_to_linker::<HostState, BoundedWaiting>(linker, waiting)?;
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

/// `wasi:io`, whose waits end with the call.
struct Waiting<'a> {
    /// The instance's pollables and streams.
    table: &'a mut ResourceTable,
    /// When the call ends.
    time: &'a CallTime,
    /// The response that the guest writes, which is taken from it before it waits for room.
    reply: &'a Reply,
}

fn waiting(state: &mut HostState) -> Waiting<'_> {
    Waiting { table: &mut state.table, time: &state.time, reply: &state.http.reply }
}

impl poll::Host for Waiting<'_> {
    fn poll(&mut self, pollables: Vec<Resource<DynPollable>>) -> wasmtime::Result<Vec<u32>> {
        self.reply.collect();
        in_tokio(until_deadline(self.time, pollable::Host::poll(self.table, pollables)))?
    }
}

impl poll::HostPollable for Waiting<'_> {
    fn ready(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<bool> {
        self.reply.collect();
        in_tokio(until_deadline(self.time, pollable::HostPollable::ready(self.table, pollable)))?
    }

    fn block(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        self.reply.collect();
        in_tokio(until_deadline(self.time, pollable::HostPollable::block(self.table, pollable)))?
    }

    fn drop(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        pollable::HostPollable::drop(self.table, pollable)
    }
}

impl error::Host for Waiting<'_> {}

impl error::HostError for Waiting<'_> {
    /// In words that say nothing of the host: the standard's own may come with a backtrace.
    fn to_debug_string(&mut self, error: Resource<error::Error>) -> wasmtime::Result<String> {
        Ok(bounded(&format!("{:#}", self.table.get(&error)?), ERROR_BYTES))
    }

    fn drop(&mut self, error: Resource<error::Error>) -> wasmtime::Result<()> {
        self.table.delete(error)?;
        Ok(())
    }
}

impl streams::Host for Waiting<'_> {
    fn convert_stream_error(&mut self, error: StreamError) -> wasmtime::Result<streams::StreamError> {
        streams::Host::convert_stream_error(self.table, error)
    }
}

impl streams::HostOutputStream for Waiting<'_> {
    fn drop(&mut self, stream: Resource<DynOutputStream>) -> wasmtime::Result<()> {
        at_once_or_in_tokio(self.time, stream::HostOutputStream::drop(self.table, stream))?
    }

    fn check_write(&mut self, stream: Resource<DynOutputStream>) -> StreamResult<u64> {
        self.reply.collect();
        stream::HostOutputStream::check_write(self.table, stream)
    }

    fn write(&mut self, stream: Resource<DynOutputStream>, bytes: Vec<u8>) -> StreamResult<()> {
        stream::HostOutputStream::write(self.table, stream, bytes)
    }

    fn blocking_write_and_flush(&mut self, stream: Resource<DynOutputStream>, bytes: Vec<u8>) -> StreamResult<()> {
        self.reply.collect();
        let written = stream::HostOutputStream::blocking_write_and_flush(self.table, stream, bytes);
        at_once_or_in_tokio(self.time, written).map_err(StreamError::Trap)?
    }

    fn blocking_write_zeroes_and_flush(&mut self, stream: Resource<DynOutputStream>, len: u64) -> StreamResult<()> {
        self.reply.collect();
        let written = stream::HostOutputStream::blocking_write_zeroes_and_flush(self.table, stream, len);
        at_once_or_in_tokio(self.time, written).map_err(StreamError::Trap)?
    }

    fn subscribe(&mut self, stream: Resource<DynOutputStream>) -> wasmtime::Result<Resource<DynPollable>> {
        stream::HostOutputStream::subscribe(self.table, stream)
    }

    fn write_zeroes(&mut self, stream: Resource<DynOutputStream>, len: u64) -> StreamResult<()> {
        stream::HostOutputStream::write_zeroes(self.table, stream, len)
    }

    fn flush(&mut self, stream: Resource<DynOutputStream>) -> StreamResult<()> {
        stream::HostOutputStream::flush(self.table, stream)
    }

    fn blocking_flush(&mut self, stream: Resource<DynOutputStream>) -> StreamResult<()> {
        self.reply.collect();
        let flushed = stream::HostOutputStream::blocking_flush(self.table, stream);
        at_once_or_in_tokio(self.time, flushed).map_err(StreamError::Trap)?
    }

    fn splice(&mut self, to: Resource<DynOutputStream>, from: Resource<DynInputStream>, len: u64) -> StreamResult<u64> {
        self.reply.collect();
        stream::HostOutputStream::splice(self.table, to, from, len)
    }

    fn blocking_splice(
        &mut self,
        to: Resource<DynOutputStream>,
        from: Resource<DynInputStream>,
        len: u64,
    ) -> StreamResult<u64> {
        self.reply.collect();
        let spliced = stream::HostOutputStream::blocking_splice(self.table, to, from, len);
        at_once_or_in_tokio(self.time, spliced).map_err(StreamError::Trap)?
    }
}

impl streams::HostInputStream for Waiting<'_> {
    fn drop(&mut self, stream: Resource<DynInputStream>) -> wasmtime::Result<()> {
        at_once_or_in_tokio(self.time, stream::HostInputStream::drop(self.table, stream))?
    }

    fn read(&mut self, stream: Resource<DynInputStream>, len: u64) -> StreamResult<Vec<u8>> {
        stream::HostInputStream::read(self.table, stream, len)
    }

    fn blocking_read(&mut self, stream: Resource<DynInputStream>, len: u64) -> StreamResult<Vec<u8>> {
        let read = stream::HostInputStream::blocking_read(self.table, stream, len);
        at_once_or_in_tokio(self.time, read).map_err(StreamError::Trap)?
    }

    fn skip(&mut self, stream: Resource<DynInputStream>, len: u64) -> StreamResult<u64> {
        stream::HostInputStream::skip(self.table, stream, len)
    }

    fn blocking_skip(&mut self, stream: Resource<DynInputStream>, len: u64) -> StreamResult<u64> {
        let skipped = stream::HostInputStream::blocking_skip(self.table, stream, len);
        at_once_or_in_tokio(self.time, skipped).map_err(StreamError::Trap)?
    }

    fn subscribe(&mut self, stream: Resource<DynInputStream>) -> wasmtime::Result<Resource<DynPollable>> {
        stream::HostInputStream::subscribe(self.table, stream)
    }
}

/// The result of a future. Most are ready when they are asked, such as whatever a guest prints: then no runtime is needed, which
/// otherwise starts threads.
fn at_once_or_in_tokio<T>(time: &CallTime, future: impl Future<Output = T>) -> wasmtime::Result<T> {
    let mut future = std::pin::pin!(future);
    match poll_noop(future.as_mut()) {
        Some(result) => Ok(result),
        None => in_tokio(until_deadline(time, future)),
    }
}

/// Waits for a future, and looks at every tick whether the call is over.
async fn until_deadline<T>(time: &CallTime, future: impl Future<Output = T>) -> wasmtime::Result<T> {
    let mut future = std::pin::pin!(future);
    loop {
        match tokio::time::timeout(TICK, &mut future).await {
            Ok(result) => return Ok(result),
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
