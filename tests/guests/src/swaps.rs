//! A service whose swaps can be watched and disturbed: it counts per key, refuses what comes lost, twice or out of order, and
//! dawdles or fails where its configuration says so.
//!
//! `in/KEY` with a number takes it if it is one more than the last of the key, and publishes `out/KEY` with the number and the
//! version of the code; any other number is rejected. `dump/KEY` publishes the last number and the version as `dumped/KEY`. Of the
//! configuration, `init_ms`, `handle_ms` and `migrate_ms` say how long to dawdle (version 2 only, but `handle_ms` of both; an event
//! whose topic is `slow/KEY` dawdles for that long), and `fails` = `yes` that version 2 panics on each event, or `later` that it
//! does once it has handled three events of a key.

use std::time::{Duration, Instant};

use crate::{Event, Outcome, publish, state, store};

/// Handles one event; `form` is how the state looks.
pub fn handle(event: &Event, version: u32, form: Form) -> Outcome {
    let (kind, key) = event.topic.split_once('/').unwrap_or_default();
    if kind == "slow" {
        dawdle("handle_ms");
    }
    let last = read(key, form);
    if version > 1 && (configured("fails") == "yes" || (configured("fails") == "later" && last % 10 >= 3)) {
        panic!("version {version} cannot stand {}", event.topic);
    }
    let done = match kind {
        "in" | "slow" => {
            let text = String::from_utf8_lossy(&event.payload).into_owned();
            if text != (last + 1).to_string() {
                return Outcome::Reject(format!("{text} came after {last}"));
            }
            write(key, last + 1, form);
            publish(&format!("out/{key}"), format!("{text} {version}").as_bytes())
        }
        _ => publish(&format!("dumped/{key}"), format!("{last} {version}").as_bytes()),
    };
    match done {
        Ok(()) => Outcome::Done,
        Err(error) => Outcome::Reject(format!("{error:?}")),
    }
}

/// How a version keeps its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Version 1: a little-endian number under the key.
    Number,
    /// Version 2: a decimal number in text under `v2/KEY`.
    Text,
}

/// An entry of form [`Form::Number`] in form [`Form::Text`].
pub fn migrate(key: &str, value: &[u8]) -> (String, Vec<u8>) {
    let number = value.try_into().map_or(0, u32::from_le_bytes);
    (format!("v2/{key}"), number.to_string().into_bytes())
}

/// Spends the time that the configuration names, computing.
pub fn dawdle(name: &str) {
    let until = Instant::now() + Duration::from_millis(configured(name).parse().unwrap_or(0));
    while Instant::now() < until {
        std::hint::spin_loop();
    }
}

fn configured(name: &str) -> String {
    store::get(name).ok().flatten().unwrap_or_default()
}

fn read(key: &str, form: Form) -> u32 {
    let value = |key: &str| state::get(key).ok().flatten().unwrap_or_default();
    match form {
        Form::Number => value(key).as_slice().try_into().map_or(0, u32::from_le_bytes),
        Form::Text => String::from_utf8_lossy(&value(&format!("v2/{key}"))).parse().unwrap_or(0),
    }
}

fn write(key: &str, number: u32, form: Form) {
    let written = match form {
        Form::Number => state::set(key, &number.to_le_bytes()),
        Form::Text => state::set(&format!("v2/{key}"), number.to_string().as_bytes()),
    };
    written.expect("the state takes it");
}
