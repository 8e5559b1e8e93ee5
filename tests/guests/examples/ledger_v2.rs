//! Version 2 of the ledger; see `guests::ledger`.

#![cfg(target_arch = "wasm32")]

use guests::{Event, Guest, Outcome, ledger};

struct Plugin;

impl Guest for Plugin {
    fn event(event: Event) -> Outcome {
        ledger::record(&event, 2)
    }
}

guests::guest!(
    Plugin,
    br#"{"manifest":1,"name":"ledger","version":"2.0.0","description":"Writes down every event.","subscribes":[{"filter":"in/+","qos":1},{"filter":"dump/+","qos":1}],"publishes":["out/+","dumped/+"]}"#
);
