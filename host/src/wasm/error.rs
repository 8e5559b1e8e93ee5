//! What can go wrong with a component and with a call, each in one line that names the reason.
//!
//! The messages are fit for "failed to deploy: {error}"; they are bounded in length, whatever the guest says.

use std::fmt;
use std::path::PathBuf;

/// Why the sandbox cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The engine refuses its configuration, or the machine does not give it address space.
    #[error("the WebAssembly engine cannot be set up: {reason}")]
    Engine {
        /// What the engine says.
        reason: String,
    },
    /// The directory of compiled components cannot be made.
    #[error("the cache directory {} cannot be made: {source}", directory.display())]
    Cache {
        /// The directory.
        directory: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// No thread can be started.
    #[error("the thread that measures time for calls cannot be started: {source}")]
    Ticker {
        /// What the system says.
        source: std::io::Error,
    },
}

/// Why a component is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ComponentError {
    /// It is not WebAssembly, or damaged.
    #[error("it is not a WebAssembly component: {reason}")]
    Malformed {
        /// What the parser says, with the offset.
        reason: String,
    },
    /// It is a core module.
    #[error("it is a core WebAssembly module and not a component; build it with `--target wasm32-wasip2`")]
    CoreModule,
    /// It is larger than the limit.
    #[error("its {bytes} bytes are more than the limit of {limit_bytes}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
    /// It has more than one manifest.
    #[error("it holds {count} manifests (custom sections `vespiary:manifest`) where one is expected")]
    ManyManifests {
        /// How many.
        count: usize,
    },
    /// It lacks an export that every plugin has.
    #[error("it does not export `{name}`")]
    MissingExport {
        /// The interface.
        name: String,
    },
    /// It exports nothing that a plugin could be called by.
    #[error(
        "it exports none of `vespiary:plugin/handler@0.1.0`, `vespiary:plugin/hooks@0.1.0` and \
         `wasi:http/incoming-handler@0.2.0`, so nothing would ever call it"
    )]
    NothingToCall,
    /// It is made for another version of the contract.
    #[error("it is made for `{name}`, and this broker offers version 0.1 of `vespiary:plugin`; build it anew")]
    OtherContract {
        /// The first such interface.
        name: String,
    },
    /// It imports what the host does not offer.
    #[error("it imports `{name}`, which the host does not offer to plugins")]
    UnknownImport {
        /// The interface.
        name: String,
    },
    /// Its imports or exports have the right names and other types.
    #[error("it does not fit the host's interfaces: {reason}")]
    Mismatch {
        /// What the linker says.
        reason: String,
    },
    /// The compiler refuses it.
    #[error("it cannot be compiled: {reason}")]
    Compile {
        /// What the compiler says.
        reason: String,
    },
}

/// Why a call into a guest came to nothing. Where it [is fatal](CallError::is_fatal), the instance is dead and must be dropped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The call ran longer than it may.
    #[error("the call exceeded its deadline of {deadline_ms} ms")]
    Deadline {
        /// The deadline.
        deadline_ms: u64,
    },
    /// The guest was refused memory, and ended itself.
    #[error("the plugin exceeded its memory limit of {limit_bytes} bytes")]
    OutOfMemory {
        /// The limit.
        limit_bytes: usize,
    },
    /// [`Interrupter::interrupt`](super::Interrupter::interrupt) ended the call.
    #[error("the call was interrupted")]
    Interrupted,
    /// The guest trapped.
    #[error("{0}")]
    Trap(Box<TrapReport>),
    /// The guest broke the contract of `transaction` or `handler`.
    #[error("the plugin broke its contract: {reason}")]
    Contract {
        /// What it did.
        reason: String,
    },
    /// The function gave an error, or an answer that cannot be. The instance lives.
    #[error("{function} failed: {reason}")]
    Failed {
        /// The function.
        function: &'static str,
        /// What the guest says.
        reason: String,
    },
    /// The component does not export what was called.
    #[error("it does not export `{interface}`")]
    NotExported {
        /// The interface.
        interface: &'static str,
    },
    /// No instance can be made now: as many are alive as may be.
    #[error("no instance can be made: {reason}")]
    Exhausted {
        /// Which bound is reached.
        reason: String,
    },
    /// An earlier call killed the instance.
    #[error("the instance is dead since an earlier call")]
    Dead,
}

impl CallError {
    /// Whether the instance is dead and must be dropped.
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::Failed { .. } | Self::NotExported { .. } => false,
            Self::Deadline { .. }
            | Self::OutOfMemory { .. }
            | Self::Interrupted
            | Self::Trap(_)
            | Self::Contract { .. }
            | Self::Exhausted { .. }
            | Self::Dead => true,
        }
    }
}

/// How a guest trapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrapReport {
    /// The kind of trap, such as `unreachable` or `call stack exhausted`.
    pub kind: String,
    /// The panic's message and place, where the guest told it.
    pub panic: Option<String>,
    /// Names of the innermost functions, innermost first; without those of the panic itself.
    pub frames: Vec<String>,
}

impl fmt::Display for TrapReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.panic {
            // The SDK's panic hook begins with the place, as Rust's own does.
            Some(message) => match message.strip_prefix("panicked at ") {
                Some(rest) => write!(f, "the plugin panicked at {rest}")?,
                None => write!(f, "the plugin panicked: {message}")?,
            },
            None => write!(f, "the plugin trapped: {}", self.kind)?,
        }
        if !self.frames.is_empty() {
            write!(f, " (in {})", self.frames.join(", called from "))?;
        }
        Ok(())
    }
}

/// Cuts a text to at most `max` bytes, at a character's boundary, and marks the cut.
pub(super) fn bounded(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let end = (0..=max).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    format!("{}...", &text[..end])
}
