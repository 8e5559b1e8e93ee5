//! The component's side: the host behind the imports, and what the exports call.
//!
//! Only in WebAssembly. The bindings are generated from `wit/`, and their types do not leave this file. A component has
//! one thread and one plugin.

use std::cell::Cell;
use std::panic;

pub use wit_bindgen;

use self::bindings::exports::vespiary::plugin::handler;
use self::bindings::vespiary::plugin::{broker, state, transaction, types};
use self::bindings::wasi::config::store;
use self::bindings::wasi::logging::logging;
use crate::config::ConfigError;
use crate::event::{Event, Property, Qos, Timestamp};
use crate::host::{Host, Publication};
use crate::log::Level;
use crate::message::PublishError;
use crate::plugin::{Outcome, Plugin};
use crate::state::StateError;

/// What `wit-bindgen` makes of `wit/`.
#[expect(missing_docs, reason = "generated; the documentation is in wit/")]
pub mod bindings {
    wit_bindgen::generate!({
        path: "wit",
        world: "plugin",
        generate_all,
        ownership: Borrowing { duplicate_if_necessary: true },
        pub_export_macro: true,
        default_bindings_module: "::vespiary_sdk::__private::bindings",
        runtime_path: "::vespiary_sdk::__private::wit_bindgen::rt",
    });
}

/// Makes the component's exports and its manifest section.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_plugin {
    ($plugin:expr, $manifest:expr) => {
        const _: () = {
            #[used]
            #[unsafe(link_section = "vespiary:manifest")]
            static MANIFEST: [u8; $manifest.len()] = match $manifest.first_chunk() {
                ::core::option::Option::Some(bytes) => *bytes,
                ::core::option::Option::None => ::core::unreachable!(),
            };

            struct Component;

            impl $crate::__private::bindings::exports::vespiary::plugin::lifecycle::Guest for Component {
                fn init() -> ::core::result::Result<(), ::std::string::String> {
                    $crate::__private::init(&$plugin)
                }

                fn health() -> ::core::result::Result<(), ::std::string::String> {
                    $crate::__private::health(&$plugin)
                }
            }

            impl $crate::__private::bindings::exports::vespiary::plugin::handler::Guest for Component {
                fn handle(
                    events: ::std::vec::Vec<$crate::__private::bindings::exports::vespiary::plugin::handler::Event>,
                ) -> ::std::vec::Vec<$crate::__private::bindings::exports::vespiary::plugin::handler::Outcome> {
                    $crate::__private::handle(&$plugin, events)
                }
            }

    $crate::__private::bindings::export!(Component with_types_in $crate::__private::bindings);
        };
    };
}

thread_local! {
    /// The plugin's name, the context of its log lines.
    static NAME: Cell<&'static str> = const { Cell::new("") };
}

/// `lifecycle.init`.
pub fn init(plugin: &Plugin) -> Result<(), String> {
    NAME.set(plugin.name());
    panic::set_hook(Box::new(|info| log(Level::Critical, &crate::panic::describe(info))));
    plugin.init(&Imports)
}

/// `lifecycle.health`.
pub fn health(plugin: &Plugin) -> Result<(), String> {
    plugin.health(&Imports)
}

/// `handler.handle`.
pub fn handle(plugin: &Plugin, events: Vec<handler::Event>) -> Vec<handler::Outcome> {
    let outcomes = plugin.handle(&Imports, events.into_iter().map(event));
    outcomes.into_iter().map(outcome).collect()
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

impl Host for Imports {
    fn begin(&self, event: u64) {
        transaction::begin(event);
    }

    fn rollback(&self) {
        transaction::rollback();
    }

    fn state_get(&self, key: &str) -> Result<Option<Vec<u8>>, StateError> {
        state::get(key).map_err(state_error)
    }

    fn state_set(&self, key: &str, value: &[u8]) -> Result<(), StateError> {
        state::set(key, value).map_err(state_error)
    }

    fn state_delete(&self, key: &str) -> Result<(), StateError> {
        state::delete(key).map_err(state_error)
    }

    fn state_scan(&self, prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<(String, Vec<u8>)>, StateError> {
        let entries = state::scan(prefix, after, limit).map_err(state_error)?;
        Ok(entries.into_iter().map(|entry| (entry.key, entry.value)).collect())
    }

    fn publish(&self, publication: &Publication<'_>) -> Result<(), PublishError> {
        let properties: Vec<types::PropertyParam<'_>> = publication
            .properties
            .iter()
            .map(|property| types::PropertyParam { name: &property.name, value: &property.value })
            .collect();
        let message = broker::Publication {
            topic: publication.topic,
            payload: publication.payload,
            qos: match publication.qos {
                Qos::AtMostOnce => types::Qos::AtMostOnce,
                Qos::AtLeastOnce => types::Qos::AtLeastOnce,
                Qos::ExactlyOnce => types::Qos::ExactlyOnce,
            },
            retain: publication.retain,
            properties: &properties,
        };
        broker::publish(message).map_err(|error| match error {
            broker::Error::Invalid(reason) => PublishError::Invalid(reason),
            broker::Error::Denied(reason) => PublishError::Denied(reason),
            broker::Error::QuotaExceeded(reason) => PublishError::QuotaExceeded(reason),
        })
    }

    fn config(&self, key: &str) -> Result<Option<String>, ConfigError> {
        store::get(key).map_err(config_error)
    }

    fn config_all(&self) -> Result<Vec<(String, String)>, ConfigError> {
        store::get_all().map_err(config_error)
    }
}

fn state_error(error: state::Error) -> StateError {
    match error {
        state::Error::TooLarge(reason) => StateError::TooLarge(reason),
        state::Error::QuotaExceeded(reason) => StateError::QuotaExceeded(reason),
        state::Error::Unavailable(reason) => StateError::Unavailable(reason),
    }
}

fn config_error(error: store::Error) -> ConfigError {
    match error {
        store::Error::Upstream(reason) | store::Error::Io(reason) => ConfigError::Unavailable(reason),
    }
}

fn event(event: handler::Event) -> Event {
    Event {
        id: event.id,
        topic: event.topic,
        payload: event.payload,
        qos: match event.qos {
            types::Qos::AtMostOnce => Qos::AtMostOnce,
            types::Qos::AtLeastOnce => Qos::AtLeastOnce,
            types::Qos::ExactlyOnce => Qos::ExactlyOnce,
        },
        retained: event.retain,
        publisher: event.publisher,
        received_at: Timestamp::from_millis(event.received_at),
        attempt: event.attempt,
        properties: event
            .properties
            .into_iter()
            .map(|property| Property { name: property.name, value: property.value })
            .collect(),
    }
}

fn outcome(outcome: Outcome) -> handler::Outcome {
    match outcome {
        Outcome::Done => handler::Outcome::Done,
        Outcome::Retry(reason) => handler::Outcome::Retry(reason),
        Outcome::Reject(reason) => handler::Outcome::Reject(reason),
    }
}
