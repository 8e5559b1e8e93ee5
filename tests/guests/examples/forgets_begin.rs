//! Never says which event it is at.

#![cfg(target_arch = "wasm32")]

use guests::{Event, Guest, Outcome};

struct Plugin;

impl Guest for Plugin {
    fn handle(events: Vec<Event>) -> Vec<Outcome> {
        let one = |event: Event| match guests::state::set(&event.topic, &event.payload) {
            Ok(()) => Outcome::Done,
            Err(error) => guests::retry(format!("{error:?}")),
        };
        events.into_iter().map(one).collect()
    }
}

guests::guest!(
    Plugin,
    br#"{"manifest":1,"name":"forgets-begin","version":"0.1.0","description":"A guest of the sandbox's tests.","subscribes":[{"filter":"in/#","qos":1}],"publishes":["out/#"]}"#
);
