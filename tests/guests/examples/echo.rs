//! Behaves: counts each topic's events in its state, and publishes every sixteenth to `out/TOPIC`.

#![cfg(target_arch = "wasm32")]

use guests::{Event, Guest, Outcome};

struct Plugin;

impl Guest for Plugin {
    fn event(event: Event) -> Outcome {
        let count = match guests::state::get(&event.topic) {
            Ok(Some(bytes)) => bytes.try_into().map_or(0, u64::from_le_bytes),
            Ok(None) => 0,
            Err(error) => return guests::retry(format!("{error:?}")),
        };
        if let Err(error) = guests::state::set(&event.topic, &(count + 1).to_le_bytes()) {
            return guests::retry(format!("{error:?}"));
        }
        if count % 16 == 0
            && let Err(error) = guests::publish(&format!("out/{}", event.topic), &event.payload)
        {
            return guests::retry(format!("{error:?}"));
        }
        Outcome::Done
    }
}

guests::guest!(
    Plugin,
    br#"{"manifest":1,"name":"echo","version":"0.1.0","description":"A guest of the sandbox's tests.","subscribes":[{"filter":"in/#","qos":1}],"publishes":["out/#"]}"#
);
