//! A service that writes down every event it handles, so that a test can compare what happened with what should have.
//!
//! `in/KEY` with a number appends the number to the key's list and publishes `out/KEY` with the number and the version
//! of the code; `dump/KEY` publishes the list as `dumped/KEY`. The list is kept in chunks, so that an append costs the
//! same however long it is.

use crate::{Event, Outcome, publish, state};

/// Numbers in one chunk of a list.
const CHUNK: u32 = 256;

/// Handles one event for the ledger of this version.
pub fn record(event: &Event, version: u32) -> Outcome {
    let done = match event.topic.split_once('/') {
        Some(("in", key)) => append(key, &event.payload, version),
        Some(("dump", key)) => dump(key),
        _ => Err(format!("nothing is known of topic {}", event.topic)),
    };
    done.map_or_else(Outcome::Reject, |()| Outcome::Done)
}

fn append(key: &str, payload: &[u8], version: u32) -> Result<(), String> {
    let text = std::str::from_utf8(payload).map_err(|error| error.to_string())?;
    let number: u32 = text.parse().map_err(|error| format!("{text:?}: {error}"))?;
    let count = read(key)?.first().copied().unwrap_or(0);
    let chunk_key = format!("{key}/{:08}", count / CHUNK);
    let mut chunk = read(&chunk_key)?;
    chunk.push(number);
    write(&chunk_key, &chunk)?;
    write(key, &[count + 1])?;
    publish(&format!("out/{key}"), format!("{number} {version}").as_bytes()).map_err(|error| format!("{error:?}"))
}

fn dump(key: &str) -> Result<(), String> {
    let mut numbers: Vec<String> = Vec::new();
    let prefix = format!("{key}/");
    let mut after = None;
    loop {
        let entries = state::scan(&prefix, after.as_deref(), 100).map_err(|error| format!("{error:?}"))?;
        let Some(last) = entries.last() else { break };
        after = Some(last.key.clone());
        numbers.extend(entries.iter().flat_map(|entry| numbers_of(&entry.value)).map(|number| number.to_string()));
    }
    publish(&format!("dumped/{key}"), numbers.join(" ").as_bytes()).map_err(|error| format!("{error:?}"))
}

fn read(key: &str) -> Result<Vec<u32>, String> {
    let bytes = state::get(key).map_err(|error| format!("{error:?}"))?.unwrap_or_default();
    Ok(numbers_of(&bytes).collect())
}

fn write(key: &str, numbers: &[u32]) -> Result<(), String> {
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    state::set(key, &bytes).map_err(|error| format!("{error:?}"))
}

fn numbers_of(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.chunks_exact(4).map(|four| u32::from_le_bytes([four[0], four[1], four[2], four[3]]))
}
