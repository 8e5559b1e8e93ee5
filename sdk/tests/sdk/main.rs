//! The SDK as a plugin's author uses it: macros, the loop and the test host together.
//!
//! Each module declares the plugins that it needs; nothing here sees the inside of the SDK.

mod asked;
#[path = "../../examples/bay.rs"]
mod bay;
mod example_bay;
mod handlers;
mod host;
mod manifest;
mod night_watch;
mod night_watch_hook;
mod night_watch_http;
mod saga;
mod template;
#[path = "../../examples/thermometer.rs"]
mod thermometer;
mod time;
mod versions;
