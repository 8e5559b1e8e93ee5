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
        frames: error.downcast_ref::<WasmBacktrace>().map(|trace| frames(&trace.to_string())).unwrap_or_default(),
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
/// it prints a backtrace: for each frame a line `  0: 0x1234 - module!function`, or without the module where file and line are
/// known, which follow as `at file:line:column`; what was inlined comes as `- function`.
fn frames(backtrace: &str) -> Vec<String> {
    let mut frames: Vec<String> = Vec::new();
    let mut lines = backtrace.lines().skip(1).map(str::trim).peekable();
    while let Some(line) = lines.next() {
        let Some(name) = name(line) else { continue };
        let place = lines.peek().and_then(|next| next.strip_prefix("at ")).map(place);
        if name == "abort" || PANIC_MACHINERY.iter().any(|machinery| name.contains(machinery)) {
            continue;
        }
        let name = name.as_str();
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

/// The function that a line of a backtrace names, if it names one.
fn name(line: &str) -> Option<String> {
    let numbered = line.split_once(": ").filter(|(number, _)| number.bytes().all(|byte| byte.is_ascii_digit()));
    let rest = match numbered {
        Some((_, rest)) => rest
            .split_once(" - ")
            .filter(|(offset, _)| offset.trim_start().starts_with("0x"))
            .map_or(rest, |(_, name)| name),
        None => line.strip_prefix("- ")?,
    };
    let named_by_module = rest.split_once('!').filter(|(module, _)| !module.contains("::") && !module.contains(' '));
    Some(without_hash(named_by_module.map_or(rest, |(_, name)| name)))
}

/// A place in the sources, from the last folder that is named `src`: what comes before it is of the machine that built the component.
fn place(place: &str) -> &str {
    place.rfind("/src/").map_or(place, |at| &place[at + 1..])
}

/// A function's name without the hash that Rust appends to it, and without those that newer compilers put behind the name of each
/// crate: `std[0123456789abcdef]::process::abort`.
fn without_hash(name: &str) -> String {
    let is_hash =
        |hash: &str| !hash.is_empty() && hash.len() <= 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    let name = match name.rsplit_once("::h") {
        Some((name, hash)) if hash.len() == 16 && is_hash(hash) => name,
        _ => name,
    };
    let mut parts = name.split('[');
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once(']') {
            Some((hash, rest)) if hash.len() > 8 && is_hash(hash) => result.push_str(rest),
            Some(_) | None => {
                result.push('[');
                result.push_str(part);
            }
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_named_with_their_places_where_these_are_known() {
        let backtrace = "error while executing at wasm backtrace:
    0:   0x8a1f - plugin.wasm!__rustc::rust_panic
    1:   0x71c2 - core::panicking::panic_fmt::h0123456789abcdef
                    at /rustc/59807616/library/core/src/panicking.rs:80:14
    1:   0x71c2 - plugin.wasm!abort
    1:   0x71c2 - std[d123b7a1a2ed1472]::sys::pal::wasi::helpers::abort_internal
    1:   0x71c2 - plugin.wasm!<[u8] as core[6d9e98711c484d2e]::fmt::Debug>::fmt
    2:    0x91a - inlined::deeper
                    at /home/ada/plugin/src/rules.rs:7:9
                - plugin::vibration::h0123456789abcdef
                    at /home/ada/plugin/src/lib.rs:31:5
    3:    0xa00 - plugin.wasm!<fn() -> ! as core::ops::FnOnce>::call
    4:    0xa00 - plugin.wasm!handle
note: using the environment variable may show more";
        let expected = [
            "<[u8] as core::fmt::Debug>::fmt",
            "inlined::deeper at src/rules.rs:7:9",
            "plugin::vibration at src/lib.rs:31:5",
            "<fn() -> ! as core::ops::FnOnce>::call",
            "handle",
        ];
        assert_eq!(frames(backtrace), expected);
        assert_eq!(frames(""), [] as [&str; 0]);
    }
}
