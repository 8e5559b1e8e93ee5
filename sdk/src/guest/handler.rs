//! The export `handler`: events in, outcomes out.

use self::bindings::exports::vespiary::plugin::handler::{
    self, Event as HostEvent, EventKind as HostKind, Outcome as HostOutcome,
};
use self::bindings::vespiary::plugin::types;
use super::Imports;
use crate::event::{Event, EventKind, Property, Qos, Timestamp};
use crate::plugin::{Outcome, Plugin};

/// What `wit-bindgen` makes of the export.
#[expect(missing_docs, reason = "generated; the documentation is in wit/")]
pub mod bindings {
    wit_bindgen::generate!({
        inline: "
            package vespiary:sdk-handler;
            world exporting-handler { export vespiary:plugin/handler@0.1.0; }
        ",
        path: "wit",
        world: "vespiary:sdk-handler/exporting-handler",
        generate_all,
        pub_export_macro: true,
        default_bindings_module: "::vespiary_sdk::__private::guest::handler::bindings",
        runtime_path: "::vespiary_sdk::__private::guest::wit_bindgen::rt",
    });
}

/// Exports `handler`.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_handler {
    ($plugin:expr) => {
        const _: () = {
            use bindings::exports::vespiary::plugin::handler::{Event, Guest, Outcome};
            use $crate::__private::guest::handler::{self, bindings};

            struct Component;

            impl Guest for Component {
                fn handle(events: ::std::vec::Vec<Event>) -> ::std::vec::Vec<Outcome> {
                    handler::handle(&$plugin, events)
                }
            }

    bindings::export!(Component with_types_in bindings);
        };
    };
}

/// `handler.handle`.
pub fn handle(plugin: &Plugin, events: Vec<HostEvent>) -> Vec<HostOutcome> {
    let outcomes = plugin.handle(&Imports, events.into_iter().map(event));
    outcomes.into_iter().map(outcome).collect()
}

fn event(event: HostEvent) -> Event {
    Event {
        id: event.id,
        kind: match event.kind {
            HostKind::Message => EventKind::Message,
            HostKind::Timer => EventKind::Timer,
            HostKind::Response => EventKind::Response,
            HostKind::Client => EventKind::Client,
        },
        topic: event.topic,
        captures: event.captures,
        payload: event.payload,
        qos: match event.qos {
            types::Qos::AtMostOnce => Qos::AtMostOnce,
            types::Qos::AtLeastOnce => Qos::AtLeastOnce,
            types::Qos::ExactlyOnce => Qos::ExactlyOnce,
        },
        retained: event.retain,
        publisher: event.publisher,
        user: event.user,
        received_at: Timestamp::from_millis(event.received_at),
        attempt: event.attempt,
        properties: event
            .properties
            .into_iter()
            .map(|property| Property { name: property.name, value: property.value })
            .collect(),
    }
}

fn outcome(outcome: Outcome) -> HostOutcome {
    match outcome {
        Outcome::Done => HostOutcome::Done,
        Outcome::Retry { reason, after } => {
            let after_ms = after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
            HostOutcome::Retry(handler::Retry { reason, after_ms })
        }
        Outcome::Reject(reason) => HostOutcome::Reject(reason),
    }
}
