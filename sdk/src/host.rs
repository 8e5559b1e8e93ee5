//! What a plugin asks of its host, with two implementors: the imports of the component (`guest`) and `testing`.
//!
//! Mirrors `wit/`, one method a function; the contract of each is there. Which implementor it is, the target decides: not
//! a trait object, so that a component holds only the imports that it uses.

use crate::config::ConfigError;
use crate::event::{Property, Qos, Timestamp};
use crate::http::{HttpError, HttpRequest, Response};
use crate::message::{BrokerError, Message};
use crate::secret::SecretError;
use crate::state::StateError;
use crate::timers::TimerError;

#[cfg(target_arch = "wasm32")]
pub(crate) use crate::guest::{Imports as TheHost, SecretHandle, log};
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use crate::testing::{SecretHandle, World as TheHost, log};

/// The host, as the guest loop and the [`Context`](crate::Context) see it.
pub(crate) trait Host {
    /// `transaction.begin`: what follows belongs to this event.
    fn begin(&self, event: u64);
    /// `transaction.rollback`: drops what was written and published since `begin`.
    fn rollback(&self);
    /// The wall clock, for calls that handle no event.
    fn now(&self) -> Timestamp;
    /// `state.get`.
    fn state_get(&self, key: &str) -> Result<Option<Vec<u8>>, StateError>;
    /// `state.set`.
    fn state_set(&self, key: &str, value: &[u8]) -> Result<(), StateError>;
    /// `state.set-for`.
    fn state_set_for(&self, key: &str, value: &[u8], ttl_ms: u64) -> Result<(), StateError>;
    /// `state.compare-and-set`.
    fn state_swap(&self, key: &str, expected: Option<&[u8]>, value: Option<&[u8]>) -> Result<bool, StateError>;
    /// `state.add`.
    fn state_add(&self, key: &str, amount: i64) -> Result<i64, StateError>;
    /// `state.delete`.
    fn state_delete(&self, key: &str) -> Result<(), StateError>;
    /// `state.scan`.
    fn state_scan(&self, prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<(String, Vec<u8>)>, StateError>;
    /// `broker.publish`.
    fn publish(&self, publication: &Publication<'_>) -> Result<(), BrokerError>;
    /// `broker.request`.
    fn request(&self, publication: &Publication<'_>, timeout_ms: u64) -> Result<u64, BrokerError>;
    /// `broker.disconnect`.
    fn disconnect(&self, client: &str) -> Result<(), BrokerError>;
    /// `broker.retained`.
    fn retained(&self, topic: &str) -> Result<Option<Message>, BrokerError>;
    /// `timers.set`.
    fn timer_set(&self, name: &str, at: Timestamp, payload: &[u8]) -> Result<(), TimerError>;
    /// `timers.schedule`.
    fn timer_schedule(&self, name: &str, cron: &str, payload: &[u8]) -> Result<(), TimerError>;
    /// `timers.cancel`.
    fn timer_cancel(&self, name: &str) -> Result<(), TimerError>;
    /// `metrics.count`.
    fn count(&self, name: &str, labels: &[(&str, &str)], amount: u64);
    /// `metrics.gauge`.
    fn gauge(&self, name: &str, labels: &[(&str, &str)], value: f64);
    /// `metrics.observe`.
    fn observe(&self, name: &str, labels: &[(&str, &str)], value: f64);
    /// `secrets.get`.
    fn secret(&self, name: &str) -> Result<SecretHandle, SecretError>;
    /// `wasi:config/store.get`.
    fn config(&self, key: &str) -> Result<Option<String>, ConfigError>;
    /// `wasi:config/store.get-all`.
    fn config_all(&self) -> Result<Vec<(String, String)>, ConfigError>;
    /// `wasi:http/outgoing-handler.handle`, to the end of the response's body.
    fn send_http(&self, request: &HttpRequest) -> Result<Response, HttpError>;
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
