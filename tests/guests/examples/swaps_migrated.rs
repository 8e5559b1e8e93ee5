//! Version 3 of the service that is swapped, with the state in another form; see `guests::swaps`.

#![cfg(target_arch = "wasm32")]

use guests::swaps::{self, Form};
use guests::{Event, Guest, Outcome};

mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "migrating",
        generate_all,
        default_bindings_module: "bindings",
        export_macro_name: "export",
    });
}

use bindings::exports::vespiary::plugin::migration;
use bindings::vespiary::plugin::state::Entry;

struct Plugin;

impl Guest for Plugin {
    fn init() -> Result<(), String> {
        swaps::dawdle("init_ms");
        Ok(())
    }

    fn event(event: Event) -> Outcome {
        swaps::handle(&event, 3, Form::Text)
    }
}

impl migration::Guest for Plugin {
    fn migrate(from: u32, entries: Vec<Entry>) -> Result<Vec<Vec<Entry>>, String> {
        if from != 1 {
            return Err(format!("nothing is known of version {from}"));
        }
        swaps::dawdle("migrate_ms");
        let one = |entry: Entry| {
            let (key, value) = swaps::migrate(&entry.key, &entry.value);
            vec![Entry { key, value }]
        };
        Ok(entries.into_iter().map(one).collect())
    }
}

bindings::export!(Plugin with_types_in bindings);

guests::guest!(
    Plugin,
    br#"{"manifest":1,"name":"swaps","version":"3.0.0","description":"Counts per key.","state_version":2,"subscribes":[{"filter":"in/+","qos":1},{"filter":"slow/+","qos":1},{"filter":"dump/+","qos":1}],"publishes":["out/+","dumped/+"]}"#
);
