//! The smallest plugin that does something: bytes in, bytes kept, bytes out, and no JSON.
//!
//! `cargo build -p vespiary-sdk --example relay --target wasm32-wasip2 --profile component` makes the component; its size is
//! the floor for plugins in Rust.

use vespiary_sdk::prelude::*;

plugin! {
    name: "relay",
    description: "Announces what changes and keeps still about what stays.",
    handlers: [changed],
    publishes: ["changes/#"],
}

#[on("values/{name..}")]
fn changed(cx: &mut Context, name: &str, value: &[u8]) -> Result<()> {
    if cx.state().get_bytes(name)?.as_deref() == Some(value) {
        return Ok(());
    }
    cx.state().set_bytes(name, value)?;
    cx.publish(format!("changes/{name}"), value)
}
