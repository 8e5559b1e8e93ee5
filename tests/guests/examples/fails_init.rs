//! Refuses to start.

#![cfg(target_arch = "wasm32")]

use guests::Guest;

struct Plugin;

impl Guest for Plugin {
    fn init() -> Result<(), String> {
        Err("the key `station` is missing from the configuration".into())
    }
}

guests::guest!(
    Plugin,
    br#"{"manifest":1,"name":"fails-init","version":"0.1.0","description":"A guest of the sandbox's tests.","subscribes":[{"filter":"in/#","qos":1}],"publishes":[]}"#
);
