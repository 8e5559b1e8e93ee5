//! Logging: `info!("{asset} is back")`, from anywhere in a plugin.
//!
//! Lines go to the host (`wasi:logging`), with the plugin's name as their context; `vespiary plugin logs NAME` shows them. They are
//! not part of the event's transaction: what a failed attempt logged stays logged. In tests they are printed and kept
//! in [`TestHost::logs`](crate::testing::TestHost::logs).

use std::borrow::Cow;
use std::fmt;

use crate::host;

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// The values of variables and the flow of control.
    Trace,
    /// Of interest to someone who looks for an error in the plugin.
    Debug,
    /// Of interest to someone who watches the plugin.
    Info,
    /// Something is not as it should be.
    Warn,
    /// Something failed.
    Error,
    /// The plugin cannot go on; panics are logged at this level.
    Critical,
}

/// Logs a line. Usually through [`info!`](crate::info) and its siblings.
pub fn log(level: Level, message: fmt::Arguments<'_>) {
    let message = message.as_str().map_or_else(|| Cow::Owned(message.to_string()), Cow::Borrowed);
    host::log(level, &message);
}

/// Logs a line at level trace; arguments as in [`format!`].
#[macro_export]
macro_rules! trace {
    ($($argument:tt)+) => { $crate::log::log($crate::log::Level::Trace, ::core::format_args!($($argument)+)) };
}

/// Logs a line at level debug; arguments as in [`format!`].
#[macro_export]
macro_rules! debug {
    ($($argument:tt)+) => { $crate::log::log($crate::log::Level::Debug, ::core::format_args!($($argument)+)) };
}

/// Logs a line at level info; arguments as in [`format!`].
#[macro_export]
macro_rules! info {
    ($($argument:tt)+) => { $crate::log::log($crate::log::Level::Info, ::core::format_args!($($argument)+)) };
}

/// Logs a line at level warn; arguments as in [`format!`].
#[macro_export]
macro_rules! warn {
    ($($argument:tt)+) => { $crate::log::log($crate::log::Level::Warn, ::core::format_args!($($argument)+)) };
}

/// Logs a line at level error; arguments as in [`format!`].
#[macro_export]
macro_rules! error {
    ($($argument:tt)+) => { $crate::log::log($crate::log::Level::Error, ::core::format_args!($($argument)+)) };
}
