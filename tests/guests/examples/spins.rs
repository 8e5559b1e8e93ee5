//! Never returns.

#![cfg(target_arch = "wasm32")]

use guests::{Event, Guest, Outcome};

struct Plugin;

impl Guest for Plugin {
    fn event(event: Event) -> Outcome {
        let mut state = event.id;
        loop {
            state = std::hint::black_box(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
    }
}

guests::guest!(
    Plugin,
    br#"{"manifest":1,"name":"spins","version":"0.1.0","description":"A guest of the sandbox's tests.","subscribes":[{"filter":"in/#","qos":1}],"publishes":[]}"#
);
