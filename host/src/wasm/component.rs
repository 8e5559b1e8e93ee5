//! A compiled component, and the cache of compiled components on disk.
//!
//! A cache file is named by the component's digest and the engine's fingerprint, and ends with a checksum of its content:
//! it is native code, so it is run only from a directory that belongs to us (0700, files 0600) and only undamaged.

use std::fmt;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU8;

use sha2::{Digest, Sha256};
use wasmtime::component::{Component, Instance, InstancePre, Linker};
use wasmtime::{Engine, Store};
use wasmtime_wasi_http::p2::bindings::sync::exports::wasi::http::incoming_handler;

use super::bindings::exports::vespiary::plugin::{handler, hooks, lifecycle, migration};
use super::deadline::Stop;
use super::error::{ComponentError, RuntimeError, bounded};
use super::host::HostState;
use super::inspect::{self, Inspection};

/// Longest message of the compiler in bytes.
const REASON_BYTES: usize = 1024;
/// Bytes of the checksum at the end of a cache file.
const CHECKSUM_BYTES: usize = 32;

/// A component that is compiled, checked against the host's interfaces, and ready to be instantiated; cheap to clone.
#[derive(Clone)]
pub struct Compiled {
    /// The component with its imports resolved.
    pub(super) pre: InstancePre<HostState>,
    /// Where its exports are.
    exports: Arc<ExportIndices>,
    /// Whether the guest marks its events; learned from its first call.
    pub(super) begins: Arc<AtomicU8>,
}

/// Where a component's exports are; `None` for those that it does not have.
struct ExportIndices {
    lifecycle: lifecycle::GuestIndices,
    handler: Option<handler::GuestIndices>,
    hooks: Option<hooks::GuestIndices>,
    migration: Option<migration::GuestIndices>,
    incoming_handler: Option<incoming_handler::GuestIndices>,
}

/// The exports of an instance.
pub(super) struct Exports {
    pub(super) lifecycle: lifecycle::Guest,
    pub(super) handler: Option<handler::Guest>,
    pub(super) hooks: Option<hooks::Guest>,
    pub(super) migration: Option<migration::Guest>,
    pub(super) incoming_handler: Option<incoming_handler::Guest>,
}

impl Compiled {
    pub(super) fn link(
        linker: &Linker<HostState>,
        component: &Component,
        inspection: &Inspection,
    ) -> Result<Self, ComponentError> {
        let mismatch = |error: wasmtime::Error| {
            let reason = bounded(&format!("{error:#}").replace('\n', " "), REASON_BYTES);
            ComponentError::Mismatch { reason }
        };
        let pre = linker.instantiate_pre(component).map_err(mismatch)?;
        let exports = ExportIndices::of(&pre, inspection).map_err(mismatch)?;
        Ok(Self { pre, exports: Arc::new(exports), begins: Arc::default() })
    }

    /// Makes an instance and finds its exports.
    pub(super) fn instantiate(&self, store: &mut Store<HostState>) -> wasmtime::Result<Exports> {
        let instance = self.pre.instantiate(&mut *store)?;
        self.exports.load(store, &instance)
    }
}

impl ExportIndices {
    fn of(pre: &InstancePre<HostState>, inspection: &Inspection) -> wasmtime::Result<Self> {
        Ok(Self {
            lifecycle: lifecycle::GuestIndices::new(pre)?,
            handler: inspection.has_handler().then(|| handler::GuestIndices::new(pre)).transpose()?,
            hooks: inspection.has_hooks().then(|| hooks::GuestIndices::new(pre)).transpose()?,
            migration: inspection.has_migration().then(|| migration::GuestIndices::new(pre)).transpose()?,
            incoming_handler: inspection.has_http().then(|| incoming_handler::GuestIndices::new(pre)).transpose()?,
        })
    }

    /// The exports of an instance. One whose types are others than the contract's is refused by name.
    fn load(&self, store: &mut Store<HostState>, instance: &Instance) -> wasmtime::Result<Exports> {
        let of_other_types = |interface: &'static str| {
            move |error: wasmtime::Error| {
                let reason = bounded(&format!("{error:#}").replace('\n', " "), REASON_BYTES);
                Stop::Contract(format!("its `{interface}` has other types than this broker's: {reason}"))
            }
        };
        macro_rules! load {
            ($export:expr, $name:expr) => {
                match &$export {
                    Some(indices) => Some(indices.load(&mut *store, instance).map_err(of_other_types($name))?),
                    None => None,
                }
            };
        }
        Ok(Exports {
            lifecycle: self.lifecycle.load(&mut *store, instance).map_err(of_other_types(inspect::LIFECYCLE))?,
            handler: load!(self.handler, inspect::HANDLER),
            hooks: load!(self.hooks, inspect::HOOKS),
            migration: load!(self.migration, inspect::MIGRATION),
            incoming_handler: load!(self.incoming_handler, inspect::INCOMING_HANDLER),
        })
    }
}

impl fmt::Debug for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compiled").finish_non_exhaustive()
    }
}

/// The directory of compiled components.
pub(super) struct Cache {
    /// The directory.
    directory: PathBuf,
    /// What of the engine a compiled component depends on.
    fingerprint: u64,
}

impl Cache {
    pub(super) fn open(directory: &Path, engine: &Engine) -> Result<Self, RuntimeError> {
        let failed = |source| RuntimeError::Cache { directory: directory.to_owned(), source };
        create_private(directory).map_err(failed)?;
        let mut hasher = Fingerprint(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Self { directory: directory.to_owned(), fingerprint: hasher.finish() })
    }

    /// The component of this digest: from the cache, or compiled and put there.
    pub(super) fn component(
        &self,
        engine: &Engine,
        digest: &[u8; 32],
        bytes: &[u8],
    ) -> Result<Component, ComponentError> {
        let path = self.path(digest);
        if let Some(component) = load(engine, &path) {
            return Ok(component);
        }
        let compile = |error: wasmtime::Error| ComponentError::Compile {
            reason: bounded(&format!("{error:#}").replace('\n', " "), REASON_BYTES),
        };
        let component = Component::new(engine, bytes).map_err(compile)?;
        let code = component.serialize().map_err(compile)?;
        if let Err(error) = save(&path, &code) {
            // Without the cache everything works, only slower after the next start.
            tracing::warn!(path = %path.display(), %error, "a compiled component cannot be kept");
        }
        Ok(component)
    }

    /// Removes all files but those of these components for this engine; gives how many went.
    pub(super) fn prune(&self, kept: &[[u8; 32]]) -> io::Result<usize> {
        let kept: Vec<PathBuf> = kept.iter().map(|digest| self.path(digest)).collect();
        let mut removed = 0;
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let ours = path.extension().is_some_and(|extension| extension == "cwasm" || extension == "tmp");
            if ours && !kept.contains(&path) {
                fs::remove_file(&path)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    pub(super) fn path(&self, digest: &[u8; 32]) -> PathBuf {
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        self.directory.join(format!("{digest}-{:016x}.cwasm", self.fingerprint))
    }
}

/// Loads a compiled component; `None` where there is none or where it cannot be used, which is logged.
fn load(engine: &Engine, path: &Path) -> Option<Component> {
    let unusable = |reason: &str| {
        tracing::warn!(path = %path.display(), reason, "a compiled component is damaged and is compiled again");
        None
    };
    let content = match fs::read(path) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => return unusable(&error.to_string()),
    };
    let Some((code, checksum)) = content.split_last_chunk::<CHECKSUM_BYTES>() else {
        return unusable("it is too short");
    };
    if Sha256::digest(code).as_slice() != checksum {
        return unusable("its checksum is wrong");
    }
    // SAFETY: the file is what `save` wrote: its checksum holds, and it lies in a directory that only we can write to. The
    // engine itself refuses code of another version or with other settings.
    match unsafe { Component::deserialize(engine, code) } {
        Ok(component) => Some(component),
        Err(error) => unusable(&format!("{error:#}")),
    }
}

/// Writes a file that is either there as a whole or not at all, readable by nobody else.
fn save(path: &Path, code: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let written = write_private(&temporary, code).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // Whatever is left of it is of no use; failing to remove it changes nothing.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn write_private(path: &Path, code: &[u8]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(code)?;
    file.write_all(&Sha256::digest(code))?;
    file.sync_all()
}

fn create_private(directory: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

/// Hashes with SHA-256, so that the fingerprint is the same in every process and with every version of Rust.
struct Fingerprint(Sha256);

impl Hasher for Fingerprint {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest = self.0.clone().finalize();
        digest.iter().take(8).fold(0, |number, &byte| number << 8 | u64::from(byte))
    }
}
