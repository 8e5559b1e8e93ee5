//! Panics on every event.

#![cfg(target_arch = "wasm32")]

use guests::{Event, Guest, Outcome};

struct Plugin;

impl Guest for Plugin {
    fn event(event: Event) -> Outcome {
        panic!("cannot stand the topic {}", event.topic);
    }
}

guests::guest!(
    Plugin,
    br#"{"manifest":1,"name":"traps","version":"0.1.0","description":"A guest of the sandbox's tests.","subscribes":[{"filter":"in/#","qos":1}],"publishes":[]}"#
);
