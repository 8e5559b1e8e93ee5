//! What the broker does, told in scripts.
//!
//! A script is lines of inputs, each followed by what the broker does about it, indented. [`script::check`] runs it and
//! compares. A mark `*` ends what has to wait for the disk. `script.rs` says which lines there are.

#![expect(unreachable_pub, reason = "a test has no public interface")]

mod script;

mod backlog;
mod durability;
mod fan_out;
mod held;
mod lanes;
mod limits;
mod news;
mod plugins;
mod probation;
mod qos;
mod retained;
mod sessions;
mod shared;
mod subscriptions;
mod timers;
mod wills;
