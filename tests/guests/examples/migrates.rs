//! Brings state into another form, well or badly, by the key.
//!
//! `drop` is gone, `split` becomes two entries, `panic` panics, `error` is an error, `short` gives nothing at all, `twice` gives the
//! same key for two entries, `long` gives a key that is too long; any other key K becomes `vN/K`, N being the version it comes from.

#![cfg(target_arch = "wasm32")]

mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package test:migrates;

            world migrates {
                include vespiary:plugin/plugin@0.1.0;
                include vespiary:plugin/migrating@0.1.0;
            }
        ",
        world: "test:migrates/migrates",
        generate_all,
        default_bindings_module: "bindings",
        export_macro_name: "export",
    });
}

use bindings::exports::vespiary::plugin::{handler, lifecycle, migration};
use bindings::vespiary::plugin::state::{self, Entry};

#[used]
#[unsafe(link_section = "vespiary:manifest")]
static MANIFEST: [u8; MANIFEST_TEXT.len()] = *MANIFEST_TEXT;
const MANIFEST_TEXT: &[u8; 157] =
    br##"{"manifest":1,"name":"migrates","version":"2.0.0","description":"A guest of the sandbox's tests.","state_version":2,"subscribes":[{"filter":"in/#","qos":1}]}"##;

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

impl migration::Guest for Plugin {
    fn migrate(from: u32, entries: Vec<Entry>) -> Result<Vec<Vec<Entry>>, String> {
        let mut migrated = Vec::new();
        for entry in entries {
            let with_key = |key: String| Entry { key, value: entry.value.clone() };
            migrated.push(match entry.key.as_str() {
                "drop" => Vec::new(),
                "split" => vec![with_key("split/a".into()), with_key("split/b".into())],
                "panic" => panic!("cannot stand the key {}", entry.key),
                "error" => return Err(format!("no form for {}: {:?}", entry.key, state::get("error"))),
                "short" => return Ok(Vec::new()),
                "long" => vec![with_key("k".repeat(513))],
                "twice" | "again" => vec![with_key("same".into())],
                key => vec![with_key(format!("v{from}/{key}"))],
            });
        }
        Ok(migrated)
    }
}

bindings::export!(Plugin with_types_in bindings);
