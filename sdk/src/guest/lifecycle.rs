//! The export `lifecycle`, which every component has.

use std::panic;

use super::Imports;
use super::imports::{log, set_name};
use crate::log::Level;
use crate::plugin::Plugin;

/// What `wit-bindgen` makes of the export.
#[expect(missing_docs, reason = "generated; the documentation is in wit/")]
pub mod bindings {
    wit_bindgen::generate!({
        inline: "
            package vespiary:sdk-lifecycle;
            world exporting-lifecycle { export vespiary:plugin/lifecycle@0.1.0; }
        ",
        path: "wit",
        world: "vespiary:sdk-lifecycle/exporting-lifecycle",
        pub_export_macro: true,
        default_bindings_module: "::vespiary_sdk::__private::guest::lifecycle::bindings",
        runtime_path: "::vespiary_sdk::__private::guest::wit_bindgen::rt",
    });
}

/// Exports `lifecycle`.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_lifecycle {
    ($plugin:expr) => {
        const _: () = {
            use $crate::__private::guest::lifecycle::{self, bindings};

            struct Component;

            impl bindings::exports::vespiary::plugin::lifecycle::Guest for Component {
                fn init() -> ::core::result::Result<(), ::std::string::String> {
                    lifecycle::init(&$plugin)
                }

                fn health() -> ::core::result::Result<(), ::std::string::String> {
                    lifecycle::health(&$plugin)
                }
            }

    bindings::export!(Component with_types_in bindings);
        };
    };
}

/// `lifecycle.init`.
pub fn init(plugin: &Plugin) -> Result<(), String> {
    set_name(plugin.name());
    panic::set_hook(Box::new(|info| log(Level::Critical, &crate::panic::describe(info))));
    plugin.init(&Imports)
}

/// `lifecycle.health`.
pub fn health(plugin: &Plugin) -> Result<(), String> {
    plugin.health(&Imports)
}
