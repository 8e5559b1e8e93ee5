//! The sandbox: compiles components and runs calls into them. `wasmtime` is used in this folder only.
//!
//! A [`Runtime`] compiles a component once ([`Compiled`]), makes instances of it, and each [`Instance`] handles batches of
//! events. A call is synchronous, bounded in time, memory and output, and gives back data: nothing that a guest does has an
//! effect before the caller commits it. Which component is live, and what becomes of a failed event, is decided above.
//!
//! Reading order: [`Runtime`], `instance` (a call), `batch` (what a call does to the world), `host` (what guests import),
//! `wasi` (the empty system around them), `http`, `component` and `engine`.

use std::path::Path;
use std::sync::Arc;

use wasmtime::Engine;
use wasmtime::component::Linker;

use crate::config::Authorities;

mod context;
mod instance;

pub mod hooks;

mod batch;
mod captures;
mod state;

mod host;
mod host_pattern;
mod http;
mod properties;
mod wasi;

mod bindings;
mod component;
mod inspect;

mod deadline;
mod engine;
mod log;
mod trap;

mod error;
mod limits;

#[cfg(test)]
mod testing;
#[cfg(test)]
pub(crate) mod tests;

pub use batch::{EventResult, Handled};
pub use component::Compiled;
pub use context::{InstanceContext, MeasuredValue, Measurement, MetricSink, RetainedLookup, Secret};
pub use deadline::Interrupter;
pub use error::{CallError, ComponentError, RuntimeError, TrapReport};
pub use host_pattern::HostPattern;
pub use inspect::{Inspection, MANIFEST_SECTION};
pub use instance::{Instance, Served};
pub use limits::WasmLimits;
pub use log::{LogLevel, LogLine, LogSink};
pub use state::{StateRead, StateUnavailable};

/// The engine with all that instances share. Can be used from several threads.
pub struct Runtime {
    /// Compiles and runs.
    engine: Engine,
    /// What guests may import.
    linker: Linker<host::HostState>,
    /// Compiled components on disk.
    cache: component::Cache,
    /// Measures time; lives as long as the last instance.
    ticker: Arc<engine::Ticker>,
    /// How guests' requests are encrypted.
    tls: http::Tls,
    /// The bounds of everything.
    limits: WasmLimits,
}

impl Runtime {
    /// Sets the engine up. `cache` is a directory for compiled components; it is made if it is not there.
    pub fn new(limits: WasmLimits, cache: &Path) -> Result<Self, RuntimeError> {
        let engine = engine::build(&limits)?;
        let mut linker = Linker::new(&engine);
        host::add_to_linker(&mut linker).map_err(|error| RuntimeError::Engine { reason: format!("{error:#}") })?;
        let cache = component::Cache::open(cache, &engine)?;
        let ticker = Arc::new(engine::Ticker::start(&engine)?);
        Ok(Self { engine, linker, cache, ticker, tls: http::Tls::trusting(Authorities::default()), limits })
    }

    /// Guests' requests trust these authorities, too, from the next instance on.
    pub fn trusting(self, authorities: Authorities) -> Self {
        Self { tls: http::Tls::trusting(authorities), ..self }
    }

    /// Reads what a component says of itself, and refuses what cannot be a plugin of this host: what is no component,
    /// lacks `lifecycle` or anything to be called by, or imports what is not offered. Compiles nothing.
    pub fn inspect(bytes: &[u8]) -> Result<Inspection, ComponentError> {
        inspect::inspect(bytes)
    }

    /// Compiles a component, or loads what was compiled before. `digest` is the SHA-256 of `bytes`. Takes tens of
    /// milliseconds: not for a thread that others wait for.
    pub fn compile(&self, digest: &[u8; 32], bytes: &[u8]) -> Result<Compiled, ComponentError> {
        let limit_bytes = self.limits.component_bytes;
        if bytes.len() > limit_bytes {
            return Err(ComponentError::TooLarge { bytes: bytes.len(), limit_bytes });
        }
        let inspection = inspect::inspect(bytes)?;
        let component = self.cache.component(&self.engine, digest, bytes)?;
        Compiled::link(&self.linker, &component, &inspection)
    }

    /// Removes what was compiled of all components but those with these digests, and whatever another engine left; gives how many
    /// files went.
    pub fn prune(&self, kept: &[[u8; 32]]) -> std::io::Result<usize> {
        self.cache.prune(kept)
    }

    /// Makes an instance. [`Instance::init`] is the caller's next step.
    pub fn instantiate(&self, compiled: &Compiled, context: InstanceContext) -> Result<Instance, CallError> {
        Instance::new(compiled, context, (&self.limits, &self.tls), Arc::clone(&self.ticker))
    }
}
