//! Turns what the engine says about a call that failed into a [`CallError`].

use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::deadline::Stop;
use super::error::{CallError, TrapReport, bounded};
use super::host::HostState;

/// Most frames that a report names.
const FRAMES: usize = 6;
/// Longest name of a frame in bytes.
const FRAME_BYTES: usize = 160;
/// Longest message of the engine in bytes.
const REASON_BYTES: usize = 512;
/// Functions between a panic and the trap, which say nothing about the plugin.
const PANIC_MACHINERY: [&str; 8] = [
    "rust_panic",
    "__rust",
    "core::panicking::",
    "core::result::unwrap_failed",
    "core::option::",
    "std::panicking::",
    "std::process::",
    "std::sys::",
];

/// Explains why a call failed.
pub(super) fn explain(error: &wasmtime::Error, state: &HostState) -> CallError {
    match error.downcast_ref::<Stop>() {
        Some(Stop::Deadline) => return CallError::Deadline { deadline_ms: state.limits.call_deadline_ms },
        Some(Stop::Interrupted) => return CallError::Interrupted,
        Some(Stop::Contract(reason)) => return CallError::Contract { reason: reason.clone() },
        None => {}
    }
    if error.is::<PoolConcurrencyLimitError>() {
        return CallError::Exhausted { reason: bounded(&format!("{error:#}"), REASON_BYTES) };
    }
    if state.memory.refused {
        return CallError::OutOfMemory { limit_bytes: state.limits.memory_bytes };
    }
    CallError::Trap(Box::new(TrapReport {
        kind: kind(error),
        panic: state.log.panic_message(),
        frames: error.downcast_ref::<WasmBacktrace>().map(frames).unwrap_or_default(),
    }))
}

fn kind(error: &wasmtime::Error) -> String {
    if let Some(I32Exit(code)) = error.downcast_ref::<I32Exit>() {
        return format!("it called exit({code})");
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => "call stack exhausted".to_owned(),
        Some(Trap::UnreachableCodeReached) => "unreachable instruction executed".to_owned(),
        Some(trap) => bounded(&trap.to_string(), REASON_BYTES),
        None => bounded(&error.root_cause().to_string(), REASON_BYTES),
    }
}

/// The names of the innermost functions, demangled. The engine demangles names only where it prints a backtrace, one frame
/// a line: `  0: 0x1234 - module!function`.
fn frames(backtrace: &WasmBacktrace) -> Vec<String> {
    let text = backtrace.to_string();
    let names = text.lines().skip(1).filter_map(|line| line.split_once('!').map(|(_, name)| without_hash(name.trim())));
    let mut frames: Vec<String> = Vec::new();
    for name in names.filter(|name| !PANIC_MACHINERY.iter().any(|machinery| name.contains(machinery))) {
        if frames.len() == FRAMES {
            break;
        }
        if frames.last().is_none_or(|last| last != name) {
            frames.push(bounded(name, FRAME_BYTES));
        }
    }
    frames
}

/// A function's name without the hash that Rust appends.
fn without_hash(name: &str) -> &str {
    match name.rsplit_once("::h") {
        Some((name, hash)) if hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => name,
        _ => name,
    }
}
