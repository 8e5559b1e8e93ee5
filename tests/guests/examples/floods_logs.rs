//! Logs ten thousand lines an event, and prints as many.

#![cfg(target_arch = "wasm32")]

use guests::{Event, Guest, Outcome, logging};

struct Plugin;

impl Guest for Plugin {
    fn event(event: Event) -> Outcome {
        for line in 0..10_000 {
            logging::log(logging::Level::Info, "flood", &format!("line {line} of event {}", event.id));
            println!("printed {line}");
        }
        Outcome::Done
    }
}

guests::guest!(
    Plugin,
    br#"{"manifest":1,"name":"floods-logs","version":"0.1.0","description":"A guest of the sandbox's tests.","subscribes":[{"filter":"in/#","qos":1}],"publishes":[]}"#
);
