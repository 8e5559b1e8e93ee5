//! The component's side: the host behind the imports, and what the exports call.
//!
//! Only in WebAssembly. Bindings are generated from `wit/`; their types do not leave this file. A component has one thread and one
//! plugin.

use std::cell::Cell;
use std::rc::Rc;

pub use wit_bindgen;

use crate::config::ConfigError;
use crate::event::{Event, Property, Qos, Timestamp};
use crate::host::{Host, Publication};
use crate::log::Level;
use crate::message::PublishError;
use crate::plugin::{Outcome, Plugin};
use crate::state::StateError;

use self::bindings::exports::vespiary::plugin::handler;
use self::bindings::vespiary::plugin::{broker, state, transaction, types};
use self::bindings::wasi::{config::store, logging::logging};

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
