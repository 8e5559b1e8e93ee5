//! Names this version of the contract, and means an event of another shape: the one before captures were known.

#![cfg(target_arch = "wasm32")]

mod bindings {
    wit_bindgen::generate!({
        inline: "
            package test:shape;

            world shape {
                export vespiary:plugin/lifecycle@0.1.0;
                export vespiary:plugin/handler@0.1.0;
            }

            package vespiary:plugin@0.1.0 {
                interface lifecycle {
                    init: func() -> result<_, string>;
                    health: func() -> result<_, string>;
                }

                interface handler {
                    record event {
                        id: u64,
                        topic: string,
                        payload: list<u8>,
                    }
                    variant outcome {
                        done,
                        retry(string),
                        reject(string),
                    }
                    handle: func(events: list<event>) -> list<outcome>;
                }
            }
        ",
        world: "test:shape/shape",
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
    fn handle(events: Vec<handler::Event>) -> Vec<handler::Outcome> {
        events.iter().map(|_| handler::Outcome::Done).collect()
    }
}

bindings::export!(Plugin with_types_in bindings);
