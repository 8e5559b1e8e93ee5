//! Write Vespiary plugins: microservices that live inside an MQTT broker.
//!
//! A plugin is a set of handlers. A handler takes an event, reads and writes the plugin's state, publishes, and returns; what it
//! wrote and published is committed together with the event's acknowledgement, or not at all. So a handler needs no
//! code against lost, repeated or half-handled events.
//!
//! ```
//! use vespiary_sdk::prelude::*;
//!
//! #[derive(Deserialize)]
//! struct Reading { celsius: f64 }
//!
//! plugin! { name: "thermometer", handlers: [temperature], publishes: ["rooms/+/alerts"] }
//!
//! #[on("rooms/{room}/temperature", qos = 1)]
//! fn temperature(cx: &mut Context, room: &str, Json(reading): Json<Reading>) -> Result<()> {
//!     let highest = cx.state().get::<f64>(room)?.unwrap_or(f64::MIN);
//!     if reading.celsius > highest {
//!         cx.state().set(room, &reading.celsius)?;
//!         cx.publish(format!("rooms/{room}/alerts"), Json(&json!({ "highest": reading.celsius })))?;
//!     }
//!     Ok(())
//! }
//!
//! // In tests, natively:
//! use vespiary_sdk::testing::TestHost;
//! let mut host = TestHost::new(plugin());
//! host.publish("rooms/attic/temperature", json!({ "celsius": 31.5 }));
//! host.assert_published("rooms/+/alerts", json!({ "highest": 31.5 }));
//! assert_eq!(host.state::<f64>("attic"), Some(31.5));
//! ```
//!
//! Compiled for `wasm32-wasip2`, the crate of a plugin (`crate-type = ["cdylib", "rlib"]`) is a component with its
//! manifest inside. On every other target nothing of WebAssembly is compiled.

// The generated bindings write `::vespiary_sdk`, also within this crate.
#[cfg(target_arch = "wasm32")]
extern crate self as vespiary_sdk;

mod plugin;

mod context;
mod event;
mod extract;
mod handler;

mod client_event;
mod message;
mod metrics;
mod request;
mod secret;
mod state;
mod timers;

pub mod hooks;
pub mod http;
pub mod migration;
pub mod saga;

mod config;
mod error;
pub mod log;

mod host;
mod json;
mod manifest;
mod panic;
mod pattern;

#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod guest;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

pub use client_event::ClientEvent;
pub use config::{Config, ConfigError};
pub use context::Context;
pub use error::{Error, OrReject, Result};
pub use event::{Event, EventKind, Property, Qos, Timestamp};
pub use extract::{FromEvent, Json, Properties, Raw, Text};
pub use message::{BrokerError, Draft, Message, Payload};
pub use metrics::Metrics;
pub use plugin::{Outcome, Plugin};
pub use request::{Answer, Request, RequestId};
pub use secret::{Secret, SecretError};
pub use serde_json;
pub use state::{State, StateError};
pub use timers::{TimerError, Timers};
pub use vespiary_sdk_macros::{
    auth_step, authenticate, authorize, http, intercept_deliver, intercept_publish, intercept_subscribe, migrate, on,
    on_client, on_response, on_timer, plugin, schedule,
};

/// Mistakes that do not compile; their messages are tested in `vespiary-sdk-macros`.
///
/// ```compile_fail
/// use vespiary_sdk::prelude::*;
/// #[on("a/{x}")]
/// fn unknown_capture(y: &str) {}
/// ```
/// ```compile_fail
/// use vespiary_sdk::prelude::*;
/// #[on("a/b", qos = 3)]
/// fn no_such_qos() {}
/// ```
/// ```compile_fail
/// use vespiary_sdk::prelude::*;
/// struct NoExtractor;
/// #[on("a/b")]
/// fn handler(value: NoExtractor) {}
/// ```
/// ```compile_fail
/// use vespiary_sdk::prelude::*;
/// #[on("a/b")]
/// fn handler() -> u32 { 7 }
/// ```
/// ```compile_fail
/// use vespiary_sdk::prelude::*;
/// fn not_marked() {}
/// plugin! { name: "a", handlers: [not_marked] }
/// ```
/// ```compile_fail
/// use vespiary_sdk::prelude::*;
/// #[authorize("a/#")]
/// fn another_answer(access: &Access) -> Authentication { Authentication::Pass }
/// ```
/// ```compile_fail
/// use vespiary_sdk::prelude::*;
/// #[authenticate]
/// fn another_question(message: &Message) -> Authentication { Authentication::Pass }
/// ```
/// ```compile_fail
/// use vespiary_sdk::prelude::*;
/// #[http(GET, "/a")]
/// fn no_response() -> u32 { 7 }
/// ```
/// ```compile_fail
/// use vespiary_sdk::prelude::*;
/// #[on("a")]
/// fn handler() {}
/// #[migrate("a", from = 1)]
/// fn first() -> Raw { Raw(Vec::new()) }
/// // Nothing leads from version 2 to version 3.
/// plugin! { name: "a", handlers: [handler], state_version: 3, migrations: [first] }
/// ```
/// ```compile_fail
/// use vespiary_sdk::prelude::*;
/// #[authorize("a/#", priority = 1)]
/// fn one(access: &Access) -> Authorization { Authorization::Pass }
/// #[authorize("b/#", priority = 2)]
/// fn other(access: &Access) -> Authorization { Authorization::Pass }
/// plugin! { name: "a", hooks: [one, other] }
/// ```
#[cfg(doctest)]
pub struct CompileErrors;

/// What most plugins use: `use vespiary_sdk::prelude::*;`.
///
/// With `Serialize` and `Deserialize`, whose derive macros need `serde` among the plugin's own dependencies.
pub mod prelude {
    pub use crate::hooks::{
        Access, Action, Authentication, Authorization, Client, Credentials, DeliverVerdict, Progress, PublishVerdict,
        Refusal, Step, SubscribeVerdict, Subscription,
    };
    pub use crate::http::{Incoming, Query, Response};
    pub use crate::migration::Entry;
    pub use crate::{
        Answer, ClientEvent, Config, Context, Error, Event, Json, Message, OrReject, Properties, Qos, Raw, RequestId,
        Result, State, Text, Timestamp, auth_step, authenticate, authorize, debug, error, http, info,
        intercept_deliver, intercept_publish, intercept_subscribe, migrate, on, on_client, on_response, on_timer,
        plugin, schedule, trace, warn,
    };
    pub use serde::{Deserialize, Serialize};
    pub use serde_json::json;
}

/// What the macros' output names. Not for plugins: it changes without notice.
#[doc(hidden)]
pub mod __private {
    pub use crate::extract::parse_capture;
    #[cfg(target_arch = "wasm32")]
    pub use crate::guest;
    pub use crate::handler::{Handler, Trigger, into_result};
    pub use crate::hooks::{FromQuestion, Hook, HookRun, InFlight, Wanted, into_verdict};
    pub use crate::http::{FromRequest, Route, into_response};
    pub use crate::manifest::{Parts, manifest, manifest_length};
    pub use crate::migration::{FromEntry, Migration, check_migrations, into_entries};
    pub use crate::pattern::Level;
    pub use crate::plugin::{Declaration, plugin};
}
