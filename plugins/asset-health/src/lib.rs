//! Learns each asset's normal vibration and reports what departs from it.
//!
//! One crate, two versions of the service, which differ in their detector alone: version 1 judges single readings, version 2 (the
//! feature `trend`) slow trends too. A component holds one of them; natively both exist, so that tests can let the second
//! take over the first one's state.

#[cfg(any(not(target_family = "wasm"), not(feature = "trend")))]
pub mod version1;
#[cfg(any(not(target_family = "wasm"), feature = "trend"))]
pub mod version2;

#[cfg(not(feature = "trend"))]
pub use version1::plugin;
#[cfg(feature = "trend")]
pub use version2::plugin;

pub mod service;

pub mod health;

pub mod deviation;
pub mod trend;

pub mod alarm;
pub mod alert;
pub mod baseline;
pub mod ledger;
pub mod reading;
pub mod severity;
