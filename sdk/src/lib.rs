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
mod message;
mod state;

mod config;
mod error;
pub mod log;

mod host;
mod json;
mod manifest;
mod panic;
mod pattern;

#[cfg(target_arch = "wasm32")]
mod guest;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

pub use config::{Config, ConfigError};
pub use context::Context;
pub use error::{Error, OrReject, Result};
pub use event::{Event, Property, Qos, Timestamp};
pub use extract::{FromEvent, Json, Raw, Text};
pub use message::{Message, Payload, PublishError};
pub use plugin::{Outcome, Plugin};
pub use serde_json;
pub use state::{State, StateError};
pub use vespiary_sdk_macros::{on, plugin};

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
#[cfg(doctest)]
pub struct CompileErrors;

/// What most plugins use: `use vespiary_sdk::prelude::*;`.
///
/// With `Serialize` and `Deserialize`, whose derive macros need `serde` among the plugin's own dependencies.
pub mod prelude {
    pub use crate::{
        Config, Context, Error, Event, Json, Message, OrReject, Qos, Raw, Result, State, Text, Timestamp, debug, error,
        info, on, plugin, trace, warn,
    };
    pub use serde::{Deserialize, Serialize};
    pub use serde_json::json;
}

/// What the macros' output names. Not for plugins: it changes without notice.
#[doc(hidden)]
pub mod __private {
    pub use crate::extract::parse_capture;
    #[cfg(target_arch = "wasm32")]
    pub use crate::guest::{bindings, handle, health, init, wit_bindgen};
    pub use crate::manifest::{manifest, manifest_length};
    pub use crate::pattern::Level;
    pub use crate::plugin::{Handler, into_result, plugin};
}
