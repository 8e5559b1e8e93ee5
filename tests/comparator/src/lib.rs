//! One service, written several times: as a plugin of Vespiary, and as a client of a broker, as people build it today.
//!
//! [`vibration`] holds the service's rules and is the same code in all variants in Rust, so that what differs between them
//! is only how events, state and acknowledgements travel. [`service`] and [`store`] are the rest of the external ones:
//! [`group`] is the main comparator, [`tuned`] what can be had from a client by hand. The plugin is
//! `examples/vibration.rs`; Python's variants are in `python/`. Nothing here is a test; `README.md` tells how to run it.

pub mod vibration;

#[cfg(not(target_family = "wasm"))]
pub mod service;
#[cfg(not(target_family = "wasm"))]
pub mod store;

#[cfg(not(target_family = "wasm"))]
pub mod group;
#[cfg(not(target_family = "wasm"))]
pub mod tuned;

#[cfg(not(target_family = "wasm"))]
mod wire;
