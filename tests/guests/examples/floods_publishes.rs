//! Publishes until it is refused, and then tells how often it could.

#![cfg(target_arch = "wasm32")]

use guests::{Event, Guest, Outcome};

struct Plugin;

impl Guest for Plugin {
    fn event(event: Event) -> Outcome {
        let mut count = 0_u32;
        loop {
            match guests::publish("out/flood", &event.payload) {
                Ok(()) => count += 1,
                Err(guests::broker::Error::QuotaExceeded(reason)) => {
                    return Outcome::Reject(format!("after {count}: {reason}"));
                }
                Err(error) => return Outcome::Reject(format!("{error:?}")),
            }
        }
    }
}

guests::guest!(
    Plugin,
    br#"{"manifest":1,"name":"floods-publishes","version":"0.1.0","description":"A guest of the sandbox's tests.","subscribes":[{"filter":"in/#","qos":1}],"publishes":["out/#"]}"#
);
