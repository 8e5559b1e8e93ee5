//! Version 2 of the service that is swapped, with the state as it was; see `guests::swaps`.

#![cfg(target_arch = "wasm32")]

use guests::swaps::{self, Form};
use guests::{Event, Guest, Outcome};

struct Plugin;

impl Guest for Plugin {
    fn init() -> Result<(), String> {
        swaps::dawdle("init_ms");
        Ok(())
    }

    fn event(event: Event) -> Outcome {
        swaps::handle(&event, 2, Form::Number)
    }
}

guests::guest!(
    Plugin,
    br#"{"manifest":1,"name":"swaps","version":"2.0.0","description":"Counts per key.","subscribes":[{"filter":"in/+","qos":1},{"filter":"slow/+","qos":1},{"filter":"dump/+","qos":1}],"publishes":["out/+","dumped/+"]}"#
);
