//! Writes keys until it is refused, and says how far it came.

#![cfg(target_arch = "wasm32")]

use guests::{Event, Guest, Outcome};

struct Plugin;

impl Guest for Plugin {
    fn event(event: Event) -> Outcome {
        let value = vec![b'x'; 1000];
        for number in 0.. {
            if let Err(error) = guests::state::set(&format!("{:04}/{number:04}", event.id), &value) {
                return Outcome::Reject(format!("after {number}: {error:?}"));
            }
        }
        Outcome::Done
    }
}

guests::guest!(
    Plugin,
    br#"{"manifest":1,"name":"floods-state","version":"0.1.0","description":"A guest of the sandbox's tests.","subscribes":[{"filter":"in/#","qos":1}],"publishes":[]}"#
);
