//! The Vespiary broker: floors from the outside in. See `docs/architecture.md`.

pub mod cli;
pub mod server;

pub mod http;
pub mod mqtt;

pub mod driver;

pub mod plugins;

pub mod wasm;

pub mod store;

pub mod config;

pub mod clock;

pub mod schedule;

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
