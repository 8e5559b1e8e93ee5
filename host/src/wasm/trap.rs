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
        Some(Stop::Deadline) => return CallError::Deadline { deadline_ms: state.time.length_ms() },
        Some(Stop::Interrupted) => return CallError::Interrupted,
        Some(Stop::Contract(reason)) => return CallError::Contract { reason: reason.clone() },
        Some(Stop::NotExported(interface)) => return CallError::NotExported { interface },
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
        panic: state.log.panic_message().map(|message| state.log.blotted(message)),
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

/// The innermost functions, demangled, with file and line where the component tells them. The engine demangles names only where
/// it prints a backtrace: a line `  0: 0x1234 - module!function` for each frame, and `at file:line:column` below it.
fn frames(backtrace: &WasmBacktrace) -> Vec<String> {
    let text = backtrace.to_string();
    let mut frames: Vec<String> = Vec::new();
    let mut lines = text.lines().skip(1).peekable();
    while let Some(line) = lines.next() {
        let Some(name) = line.split_once('!').map(|(_, name)| without_hash(name.trim())) else { continue };
        let place = lines.peek().and_then(|next| next.trim_start().strip_prefix("at ")).map(place);
        if PANIC_MACHINERY.iter().any(|machinery| name.contains(machinery)) {
            continue;
        }
        if frames.len() == FRAMES {
            break;
        }
        let frame = match place {
            Some(place) => format!("{} at {}", bounded(name, FRAME_BYTES), bounded(place, FRAME_BYTES)),
            None => bounded(name, FRAME_BYTES),
        };
        if frames.last() != Some(&frame) {
            frames.push(frame);
        }
    }
    frames
}

/// A place in the sources, from the last folder that is named `src`: what comes before it is of the machine that built the component.
fn place(place: &str) -> &str {
    place.rfind("/src/").map_or(place, |at| &place[at + 1..])
}

/// A function's name without the hash that Rust appends.
fn without_hash(name: &str) -> &str {
    match name.rsplit_once("::h") {
        Some((name, hash)) if hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => name,
        _ => name,
    }
}
