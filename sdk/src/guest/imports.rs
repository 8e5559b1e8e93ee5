//! The host, behind the component's imports.

use std::cell::Cell;

use super::bindings::vespiary::plugin::{broker, metrics, secrets, state, timers, transaction, types};
use super::bindings::wasi::config::store;
use super::bindings::wasi::logging::logging;
use super::http;
use crate::config::ConfigError;
use crate::event::{Property, Qos, Timestamp};
use crate::host::{Host, Publication};
use crate::http::{HttpError, HttpRequest, Response};
use crate::log::Level;
use crate::message::{BrokerError, Message};
use crate::secret::SecretError;
use crate::state::StateError;
use crate::timers::TimerError;

thread_local! {
    /// The plugin's name, the context of its log lines.
    static NAME: Cell<&'static str> = const { Cell::new("") };
}

/// Sets the context of log lines.
pub(super) fn set_name(name: &'static str) {
    NAME.set(name);
}

/// Logs a line.
pub(crate) fn log(level: Level, message: &str) {
    let level = match level {
        Level::Trace => logging::Level::Trace,
        Level::Debug => logging::Level::Debug,
        Level::Info => logging::Level::Info,
        Level::Warn => logging::Level::Warn,
        Level::Error => logging::Level::Error,
        Level::Critical => logging::Level::Critical,
    };
    logging::log(level, NAME.get(), message);
}

/// The component's imports.
#[derive(Clone)]
pub(crate) struct Imports;

/// The host's handle to a secret.
pub(crate) struct SecretHandle(secrets::Secret);

impl SecretHandle {
    pub(crate) fn reveal(&self) -> String {
        self.0.reveal()
    }
}

impl Host for Imports {
    fn begin(&self, event: u64) {
        transaction::begin(event);
    }

    fn rollback(&self) {
        transaction::rollback();
    }

    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn state_get(&self, key: &str) -> Result<Option<Vec<u8>>, StateError> {
        state::get(key).map_err(state_error)
    }

    fn state_set(&self, key: &str, value: &[u8]) -> Result<(), StateError> {
        state::set(key, value).map_err(state_error)
    }

    fn state_set_for(&self, key: &str, value: &[u8], ttl_ms: u64) -> Result<(), StateError> {
        state::set_for(key, value, ttl_ms).map_err(state_error)
    }

    fn state_swap(&self, key: &str, expected: Option<&[u8]>, value: Option<&[u8]>) -> Result<bool, StateError> {
        state::compare_and_set(key, expected, value).map_err(state_error)
    }

    fn state_add(&self, key: &str, amount: i64) -> Result<i64, StateError> {
        state::add(key, amount).map_err(state_error)
    }

    fn state_delete(&self, key: &str) -> Result<(), StateError> {
        state::delete(key).map_err(state_error)
    }

    fn state_scan(&self, prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<(String, Vec<u8>)>, StateError> {
        let entries = state::scan(prefix, after, limit).map_err(state_error)?;
        Ok(entries.into_iter().map(|entry| (entry.key, entry.value)).collect())
    }

    fn publish(&self, publication: &Publication<'_>) -> Result<(), BrokerError> {
        with_message(publication, |message| broker::publish(message)).map_err(broker_error)
    }

    fn request(&self, publication: &Publication<'_>, timeout_ms: u64) -> Result<u64, BrokerError> {
        with_message(publication, |message| broker::request(message, timeout_ms)).map_err(broker_error)
    }

    fn disconnect(&self, client: &str) -> Result<(), BrokerError> {
        broker::disconnect(client).map_err(broker_error)
    }

    fn retained(&self, topic: &str) -> Result<Option<Message>, BrokerError> {
        Ok(broker::retained(topic).map_err(broker_error)?.map(message))
    }

    fn timer_set(&self, name: &str, at: Timestamp, payload: &[u8]) -> Result<(), TimerError> {
        timers::set(name, at.as_millis(), payload).map_err(timer_error)
    }

    fn timer_schedule(&self, name: &str, cron: &str, payload: &[u8]) -> Result<(), TimerError> {
        timers::schedule(name, cron, payload).map_err(timer_error)
    }

    fn timer_cancel(&self, name: &str) -> Result<(), TimerError> {
        timers::cancel(name).map_err(timer_error)
    }

    fn count(&self, name: &str, labels: &[(&str, &str)], amount: u64) {
        metrics::count(name, &host_labels(labels), amount);
    }

    fn gauge(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        metrics::gauge(name, &host_labels(labels), value);
    }

    fn observe(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        metrics::observe(name, &host_labels(labels), value);
    }

    fn secret(&self, name: &str) -> Result<SecretHandle, SecretError> {
        secrets::get(name).map(SecretHandle).map_err(|error| match error {
            secrets::Error::Denied(reason) => SecretError::Denied(reason),
            secrets::Error::Missing(reason) => SecretError::Missing(reason),
        })
    }

    fn config(&self, key: &str) -> Result<Option<String>, ConfigError> {
        store::get(key).map_err(config_error)
    }

    fn config_all(&self) -> Result<Vec<(String, String)>, ConfigError> {
        store::get_all().map_err(config_error)
    }

    fn send_http(&self, request: &HttpRequest) -> Result<Response, HttpError> {
        http::send(request)
    }
}

/// Does something with a message in the form that the host takes.
fn with_message<T>(publication: &Publication<'_>, send: impl FnOnce(types::MessageParam<'_>) -> T) -> T {
    let properties: Vec<types::PropertyParam<'_>> = publication
        .properties
        .iter()
        .map(|property| types::PropertyParam { name: &property.name, value: &property.value })
        .collect();
    send(types::MessageParam {
        topic: publication.topic,
        payload: publication.payload,
        qos: host_qos(publication.qos),
        retain: publication.retain,
        properties: &properties,
    })
}

fn host_labels<'labels>(labels: &[(&'labels str, &'labels str)]) -> Vec<metrics::Label<'labels>> {
    labels.iter().map(|(name, value)| metrics::Label { name, value }).collect()
}

fn state_error(error: state::Error) -> StateError {
    match error {
        state::Error::TooLarge(reason) => StateError::TooLarge(reason),
        state::Error::QuotaExceeded(reason) => StateError::QuotaExceeded(reason),
        state::Error::Mismatch(reason) => StateError::Mismatch(reason),
        state::Error::Unavailable(reason) => StateError::Unavailable(reason),
    }
}

fn broker_error(error: broker::Error) -> BrokerError {
    match error {
        broker::Error::Invalid(reason) => BrokerError::Invalid(reason),
        broker::Error::Denied(reason) => BrokerError::Denied(reason),
        broker::Error::QuotaExceeded(reason) => BrokerError::QuotaExceeded(reason),
        broker::Error::Unavailable(reason) => BrokerError::Unavailable(reason),
    }
}

fn timer_error(error: timers::Error) -> TimerError {
    match error {
        timers::Error::Invalid(reason) => TimerError::Invalid(reason),
        timers::Error::QuotaExceeded(reason) => TimerError::QuotaExceeded(reason),
        timers::Error::Unavailable(reason) => TimerError::Unavailable(reason),
    }
}

fn config_error(error: store::Error) -> ConfigError {
    match error {
        store::Error::Upstream(reason) | store::Error::Io(reason) => ConfigError::Unavailable(reason),
    }
}

fn message(message: types::MessageResult) -> Message {
    Message {
        topic: message.topic,
        payload: message.payload,
        qos: qos(message.qos),
        retain: message.retain,
        properties: properties(message.properties),
    }
}

fn properties(properties: Vec<types::PropertyResult>) -> Vec<Property> {
    properties.into_iter().map(|property| Property { name: property.name, value: property.value }).collect()
}

fn qos(qos: types::Qos) -> Qos {
    match qos {
        types::Qos::AtMostOnce => Qos::AtMostOnce,
        types::Qos::AtLeastOnce => Qos::AtLeastOnce,
        types::Qos::ExactlyOnce => Qos::ExactlyOnce,
    }
}

fn host_qos(qos: Qos) -> types::Qos {
    match qos {
        Qos::AtMostOnce => types::Qos::AtMostOnce,
        Qos::AtLeastOnce => types::Qos::AtLeastOnce,
        Qos::ExactlyOnce => types::Qos::ExactlyOnce,
    }
}
