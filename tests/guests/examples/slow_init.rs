//! Takes far too long to start.

#![cfg(target_arch = "wasm32")]

use guests::Guest;

struct Plugin;

impl Guest for Plugin {
    fn init() -> Result<(), String> {
        std::thread::sleep(std::time::Duration::from_secs(3600));
        Ok(())
    }
}

guests::guest!(
    Plugin,
    br#"{"manifest":1,"name":"slow-init","version":"0.1.0","description":"A guest of the sandbox's tests.","subscribes":[{"filter":"in/#","qos":1}],"publishes":[]}"#
);
