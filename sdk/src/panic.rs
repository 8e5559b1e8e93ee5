//! What a panic says: its message and where it happened.
//!
//! Natively and in a component alike, so that a test shows what the log would.

use std::panic::PanicHookInfo;

/// `panicked at src/lib.rs:12: the message`.
pub(crate) fn describe(panic: &PanicHookInfo<'_>) -> String {
    let message = panic.payload_as_str().unwrap_or("with a value that is no text");
    match panic.location() {
        Some(location) => format!("panicked at {}:{}: {message}", location.file(), location.line()),
        None => format!("panicked: {message}"),
    }
}
