//! Calls itself until the stack is full.

#![cfg(target_arch = "wasm32")]

use guests::{Event, Guest, Outcome};

struct Plugin;

impl Guest for Plugin {
    fn event(event: Event) -> Outcome {
        if deeper(event.id) > 0 { Outcome::Done } else { Outcome::Reject("shallow".into()) }
    }
}

guests::guest!(
    Plugin,
    br#"{"manifest":1,"name":"recurses","version":"0.1.0","description":"A guest of the sandbox's tests.","subscribes":[{"filter":"in/#","qos":1}],"publishes":[]}"#
);

#[inline(never)]
fn deeper(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 8]);
    if frame[0] == u64::MAX {
        return 0;
    }
    1 + deeper(std::hint::black_box(depth + 1)) + frame[3]
}
