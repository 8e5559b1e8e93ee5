//! Publishes to a topic that its manifest does not ask for.

#![cfg(target_arch = "wasm32")]

use guests::{Event, Guest, Outcome};

struct Plugin;

impl Guest for Plugin {
    fn event(event: Event) -> Outcome {
        match guests::publish("elsewhere/secret", &event.payload) {
            Ok(()) => Outcome::Done,
            Err(error) => Outcome::Reject(format!("{error:?}")),
        }
    }
}

guests::guest!(
    Plugin,
    br#"{"manifest":1,"name":"publishes-elsewhere","version":"0.1.0","description":"A guest of the sandbox's tests.","subscribes":[{"filter":"in/#","qos":1}],"publishes":["out/#"]}"#
);
