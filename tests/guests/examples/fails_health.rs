//! Starts, and is not well.

#![cfg(target_arch = "wasm32")]

use guests::Guest;

struct Plugin;

impl Guest for Plugin {
    fn health() -> Result<(), String> {
        Err("calibration is out of date".into())
    }
}

guests::guest!(
    Plugin,
    br#"{"manifest":1,"name":"fails-health","version":"0.1.0","description":"A guest of the sandbox's tests.","subscribes":[{"filter":"in/#","qos":1}],"publishes":[]}"#
);
