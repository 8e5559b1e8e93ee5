//! Version 1 of the service that is swapped; see `guests::swaps`.

#![cfg(target_arch = "wasm32")]

use guests::swaps::{self, Form};
use guests::{Event, Guest, Outcome};

struct Plugin;

impl Guest for Plugin {
    fn event(event: Event) -> Outcome {
        swaps::handle(&event, 1, Form::Number)
    }
}

guests::guest!(
    Plugin,
    br#"{"manifest":1,"name":"swaps","version":"1.0.0","description":"Counts per key.","subscribes":[{"filter":"in/+","qos":1},{"filter":"slow/+","qos":1},{"filter":"dump/+","qos":1}],"publishes":["out/+","dumped/+"]}"#
);
