//! Is made for a version of the contract that was never released.

#![cfg(target_arch = "wasm32")]

mod bindings {
    wit_bindgen::generate!({
        inline: "
            package test:old;

            world old {
                export vespiary:plugin/lifecycle@0.0.9;
                export vespiary:plugin/handler@0.0.9;
            }

            package vespiary:plugin@0.0.9 {
                interface lifecycle {
                    init: func() -> result<_, string>;
                    health: func() -> result<_, string>;
                }

                interface handler {
                    handle: func(topic: string, payload: list<u8>) -> bool;
                }
            }
        ",
        world: "test:old/old",
        default_bindings_module: "bindings",
        export_macro_name: "export",
    });
}

use bindings::exports::vespiary::plugin::{handler, lifecycle};

struct Plugin;

impl lifecycle::Guest for Plugin {
    fn init() -> Result<(), String> {
        Ok(())
    }

    fn health() -> Result<(), String> {
        Ok(())
    }
}

impl handler::Guest for Plugin {
    fn handle(topic: String, payload: Vec<u8>) -> bool {
        topic.len() > payload.len()
    }
}

bindings::export!(Plugin with_types_in bindings);
