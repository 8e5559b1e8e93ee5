//! What a plugin asks of its host, with two implementors: the imports of the component (`guest`) and `testing`.
//!
//! Mirrors `wit/`, one method a function; the contract of each is there. Which implementor it is, the target decides: not
//! a trait object, so that a component holds only the imports that it uses.

use crate::config::ConfigError;
use crate::event::{Property, Qos};
use crate::message::PublishError;
use crate::state::StateError;

#[cfg(target_arch = "wasm32")]
pub(crate) use crate::guest::{Imports as TheHost, log};
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use crate::testing::{World as TheHost, log};

/// The host, as the guest loop and the [`Context`](crate::Context) see it.
pub(crate) trait Host {
    /// `transaction.begin`: what follows belongs to this event.
    fn begin(&self, event: u64);
    /// `transaction.rollback`: drops what was written and published since `begin`.
    fn rollback(&self);
    /// `state.get`.
    fn state_get(&self, key: &str) -> Result<Option<Vec<u8>>, StateError>;
    /// `state.set`.
    fn state_set(&self, key: &str, value: &[u8]) -> Result<(), StateError>;
    /// `state.delete`.
    fn state_delete(&self, key: &str) -> Result<(), StateError>;
    /// `state.scan`.
    fn state_scan(&self, prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<(String, Vec<u8>)>, StateError>;
    /// `broker.publish`.
    fn publish(&self, publication: &Publication<'_>) -> Result<(), PublishError>;
    /// `wasi:config/store.get`.
    fn config(&self, key: &str) -> Result<Option<String>, ConfigError>;
    /// `wasi:config/store.get-all`.
    fn config_all(&self) -> Result<Vec<(String, String)>, ConfigError>;
}

/// A message to publish, borrowed.
pub(crate) struct Publication<'a> {
    /// The topic name.
    pub topic: &'a str,
    /// The payload.
    pub payload: &'a [u8],
    /// The QoS.
    pub qos: Qos,
    /// Whether it becomes the topic's retained message.
    pub retain: bool,
    /// Further properties.
    pub properties: &'a [Property],
}
