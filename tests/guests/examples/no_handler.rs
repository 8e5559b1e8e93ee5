//! Exports `lifecycle` and forgets `handler`.

#![cfg(target_arch = "wasm32")]

mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package test:partial;

            world partial {
                export vespiary:plugin/lifecycle@0.1.0;
            }
        ",
        world: "test:partial/partial",
        generate_all,
        default_bindings_module: "bindings",
        export_macro_name: "export",
    });
}

#[used]
#[unsafe(link_section = "vespiary:manifest")]
static MANIFEST: [u8; 2] = *b"{}";

struct Plugin;

impl bindings::exports::vespiary::plugin::lifecycle::Guest for Plugin {
    fn init() -> Result<(), String> {
        Ok(())
    }

    fn health() -> Result<(), String> {
        Ok(())
    }
}

bindings::export!(Plugin with_types_in bindings);
