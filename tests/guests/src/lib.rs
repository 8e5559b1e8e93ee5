//! What the guests share: the bindings of `wit/`, the loop over a batch, and the manifest in its custom section.
//!
//! Each guest is an example of this package: one file, one component, one way to behave badly. They are written directly
//! on the contract, so that the sandbox is tested with what a plugin could do and not with what the SDK would let it do.
//! Built natively, the package and its examples are empty.

#![cfg(target_arch = "wasm32")]

pub mod ledger;
pub mod swaps;

/// Generated from `wit/`.
#[expect(missing_docs, reason = "generated; the contract itself is documented")]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "plugin",
        generate_all,
        pub_export_macro: true,
        export_macro_name: "export",
        default_bindings_module: "guests::bindings",
    });
}

pub use bindings::exports::vespiary::plugin::handler::{Event, Outcome, Retry};
pub use bindings::vespiary::plugin::types::{Message, Property, Qos};
pub use bindings::vespiary::plugin::{broker, metrics, secrets, state, timers, transaction};
pub use bindings::wasi::config::store;
pub use bindings::wasi::logging::logging;

/// A guest: what it does with one event, and around its life. The loop over a batch is the same for all.
pub trait Guest {
    /// Called once on each instance.
    fn init() -> Result<(), String> {
        Ok(())
    }

    /// Called after `init` on a deploy.
    fn health() -> Result<(), String> {
        Ok(())
    }

    /// Handles one event.
    fn event(event: Event) -> Outcome {
        drop(event);
        Outcome::Done
    }

    /// Handles a batch, each event as a transaction of its own.
    fn handle(events: Vec<Event>) -> Vec<Outcome> {
        let one = |event: Event| {
            transaction::begin(event.id);
            let outcome = Self::event(event);
            if !matches!(outcome, Outcome::Done) {
                transaction::rollback();
            }
            outcome
        };
        events.into_iter().map(one).collect()
    }
}

/// Publishes with QoS 1 and without properties.
pub fn publish(topic: &str, payload: &[u8]) -> Result<(), broker::Error> {
    broker::publish(&message(topic, payload))
}

/// A message with QoS 1 and without properties.
pub fn message(topic: &str, payload: &[u8]) -> Message {
    let (topic, payload, properties) = (topic.into(), payload.into(), Vec::new());
    Message { topic, payload, qos: Qos::AtLeastOnce, retain: false, properties }
}

/// An event that failed for now, without a wish for when it comes again.
pub fn retry(reason: impl Into<String>) -> Outcome {
    Outcome::Retry(Retry { reason: reason.into(), after_ms: None })
}

/// Exports a [`Guest`] and embeds its manifest.
#[macro_export]
macro_rules! guest {
    ($guest:ident, $manifest:literal) => {
        #[used]
        #[unsafe(link_section = "vespiary:manifest")]
        static MANIFEST: [u8; $manifest.len()] = *$manifest;

        impl $crate::bindings::exports::vespiary::plugin::lifecycle::Guest for $guest {
            fn init() -> Result<(), String> {
                <Self as $crate::Guest>::init()
            }

            fn health() -> Result<(), String> {
                <Self as $crate::Guest>::health()
            }
        }

        impl $crate::bindings::exports::vespiary::plugin::handler::Guest for $guest {
            fn handle(events: Vec<$crate::Event>) -> Vec<$crate::Outcome> {
                <Self as $crate::Guest>::handle(events)
            }
        }

        $crate::bindings::export!($guest with_types_in $crate::bindings);
    };
}
