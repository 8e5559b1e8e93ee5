//! Allocates without end.

#![cfg(target_arch = "wasm32")]

use guests::{Event, Guest, Outcome};

struct Plugin;

impl Guest for Plugin {
    fn event(event: Event) -> Outcome {
        let mut hoard = Vec::new();
        loop {
            hoard.push(std::hint::black_box(vec![event.id as u8; 1 << 20]));
        }
    }
}

guests::guest!(
    Plugin,
    br#"{"manifest":1,"name":"hogs","version":"0.1.0","description":"A guest of the sandbox's tests.","subscribes":[{"filter":"in/#","qos":1}],"publishes":[]}"#
);
