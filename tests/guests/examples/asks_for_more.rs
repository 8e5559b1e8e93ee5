//! Asks in its manifest for everything there is.

#![cfg(target_arch = "wasm32")]

use guests::Guest;

struct Plugin;

impl Guest for Plugin {}

guests::guest!(
    Plugin,
    br##"{"manifest":1,"name":"asks-for-more","version":"0.1.0","description":"A guest of the sandbox's tests.","subscribes":[{"filter":"#","qos":1}],"publishes":["#"]}"##
);
