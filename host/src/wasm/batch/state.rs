//! The state as a call sees it: the snapshot under the call's own writes, within its limits.

use std::collections::BTreeMap;
use std::sync::Arc;

use vespiary_core::event::StateWrite;
use vespiary_core::message::Timestamp;

use super::{Batch, LoggedWrite, Refusal};
use crate::wasm::limits::WasmLimits;
use crate::wasm::state::{StateRead, StateUnavailable};

/// Longest key in bytes.
const KEY_BYTES: usize = 512;
/// What each write counts beyond its key and value, so that many tiny ones are bounded by what they cost the host.
pub(super) const WRITE_OVERHEAD_BYTES: usize = 64;
/// Most entries that one scan gives.
const SCAN_ENTRIES: usize = 1_000;
/// Entries asked of the snapshot at a time, so that large values do not pile up before they are counted.
const SCAN_PAGE: usize = 64;

/// What is known of the size of the state that the call found.
#[derive(Debug, Default)]
pub(super) struct Usage {
    /// Bytes of all keys and values, or more; asked for once.
    at_most: Option<u64>,
    /// Bytes of all keys and values; asked for once, near the limit only.
    found: Option<u64>,
    /// Bytes of single entries, by key; asked for near the limit only.
    entries: BTreeMap<Arc<str>, u64>,
}

impl Batch {
    pub(in crate::wasm) fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Refusal> {
        check_key(key)?;
        match self.overlay.get(key) {
            Some(&newest) => Ok(visible(&self.writes[newest].write, self.now).map(<[u8]>::to_vec)),
            None => self.state.get(key).map_err(|error| Refusal::Unavailable(error.0)),
        }
    }

    /// Sets a key, or deletes it.
    pub(in crate::wasm) fn write(
        &mut self,
        key: &str,
        value: Option<Vec<u8>>,
        limits: &WasmLimits,
    ) -> Result<(), Refusal> {
        self.record(StateWrite::lasting(key, value.map(Into::into)), limits)
    }

    /// Sets a key for a time.
    pub(in crate::wasm) fn write_for(
        &mut self,
        key: &str,
        value: Vec<u8>,
        ttl_ms: u64,
        limits: &WasmLimits,
    ) -> Result<(), Refusal> {
        let expires_at = Some(self.now.after_ms(ttl_ms));
        self.record(StateWrite { key: key.into(), value: Some(value.into()), expires_at }, limits)
    }

    /// Sets a key, or deletes it, if its value is `expected`; gives whether it was.
    pub(in crate::wasm) fn compare_and_set(
        &mut self,
        key: &str,
        expected: Option<&[u8]>,
        value: Option<Vec<u8>>,
        limits: &WasmLimits,
    ) -> Result<bool, Refusal> {
        self.check_may_write()?;
        let matches = self.get(key)?.as_deref() == expected;
        if matches {
            self.write(key, value, limits)?;
        }
        Ok(matches)
    }

    /// Adds to a counter, and gives the sum.
    pub(in crate::wasm) fn add(&mut self, key: &str, amount: i64, limits: &WasmLimits) -> Result<i64, Refusal> {
        self.check_may_write()?;
        let before = match self.get(key)? {
            None => 0,
            Some(value) => integer(&value)
                .ok_or_else(|| Refusal::Mismatch(format!("the value of `{key}` is no integer of 64 bits in text")))?,
        };
        let sum = before
            .checked_add(amount)
            .ok_or_else(|| Refusal::Mismatch(format!("{before} and {amount} have no sum within 64 bits")))?;
        self.write(key, Some(sum.to_string().into_bytes()), limits)?;
        Ok(sum)
    }

    /// The snapshot's entries merged with the batch's own writes, as [`StateRead::scan`] says; at most 1,000.
    pub(in crate::wasm) fn scan(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        limits: &WasmLimits,
    ) -> Result<Vec<(String, Vec<u8>)>, Refusal> {
        let limit = limit.min(SCAN_ENTRIES);
        let mut own = self.own_entries(prefix, after).into_iter().peekable();
        let mut found = FoundEntries::new(self.state.as_ref(), prefix, after);
        let (mut entries, mut bytes) = (Vec::new(), 0);
        while entries.len() < limit {
            let theirs = found.peek(limit - entries.len())?;
            let (key, value) = match (own.peek(), theirs) {
                (None, None) => break,
                (Some((key, _)), Some(theirs)) if **key > *theirs => found.take(),
                (None, Some(_)) => found.take(),
                (Some((key, _)), theirs) => {
                    if theirs.is_some_and(|theirs| theirs == *key) {
                        found.take();
                    }
                    match own.next() {
                        Some((key, Some(value))) => (key.to_string(), value.to_vec()),
                        Some((_, None)) | None => continue,
                    }
                }
            };
            bytes += key.len() + value.len();
            if bytes > limits.state_scan_bytes {
                let limit = limits.state_scan_bytes;
                return Err(Refusal::QuotaExceeded(format!(
                    "these entries hold more than {limit} bytes; ask for fewer"
                )));
            }
            entries.push((key, value));
        }
        Ok(entries)
    }

    /// The batch's own entries, deleted and expired ones as `None`, in the order of keys.
    fn own_entries(&self, prefix: &str, after: Option<&str>) -> Vec<(&str, Option<&[u8]>)> {
        let is_wanted = |key: &str| key.starts_with(prefix) && after.is_none_or(|after| key > after);
        let newest = self.overlay.iter().filter(|(key, _)| is_wanted(key));
        let mut own: Vec<_> =
            newest.map(|(key, &newest)| (&**key, visible(&self.writes[newest].write, self.now))).collect();
        own.sort_unstable_by_key(|&(key, _)| key);
        own
    }

    fn record(&mut self, write: StateWrite, limits: &WasmLimits) -> Result<(), Refusal> {
        self.check_may_write()?;
        check_key(&write.key)?;
        let bytes = write.value.as_ref().map_or(0, |value| value.len());
        if bytes > limits.state_value_bytes {
            let limit = limits.state_value_bytes;
            return Err(Refusal::TooLarge(format!("the value has {bytes} bytes; {limit} are allowed")));
        }
        let newest = self.overlay.get(&write.key).copied();
        // A key that the same event wrote before is written in place, so that a loop does not make the list longer.
        let replaced = newest.filter(|&newest| newest >= self.mark.writes);
        let written_bytes =
            self.written_bytes + weight(&write) - replaced.map_or(0, |at| weight(&self.writes[at].write));
        if written_bytes > limits.write_bytes_per_call {
            let limit = limits.write_bytes_per_call;
            return Err(Refusal::QuotaExceeded(format!("one call may write {limit} bytes of state")));
        }
        if write.value.is_some() {
            self.check_quota(&write, written_bytes, limits)?;
        }
        self.written_bytes = written_bytes;
        match replaced {
            Some(at) => self.writes[at].write = write,
            None => {
                self.overlay.insert(write.key.clone(), self.writes.len());
                self.writes.push(LoggedWrite { write, hides: newest });
            }
        }
        Ok(())
    }

    /// Refuses a write that would make the state larger than it may be.
    ///
    /// Far from the limit it is enough that everything the call wrote would fit beside what it found. Near it, each entry
    /// that the call replaces is looked up once, and takes its place.
    fn check_quota(&mut self, write: &StateWrite, written_bytes: usize, limits: &WasmLimits) -> Result<(), Refusal> {
        let unavailable = |error: StateUnavailable| Refusal::Unavailable(error.0);
        let at_most = match self.usage.at_most {
            Some(bytes) => bytes,
            None => *self.usage.at_most.insert(self.state.usage_at_most().map_err(unavailable)?),
        };
        if at_most.saturating_add(written_bytes as u64) <= limits.state_bytes {
            return Ok(());
        }
        let found = match self.usage.found {
            Some(bytes) => bytes,
            None => *self.usage.found.insert(self.state.usage().map_err(unavailable)?),
        };
        let mut after = found;
        let newest = self.overlay.iter().filter(|(key, _)| **key != write.key);
        for write in newest.map(|(_, &newest)| &self.writes[newest].write).chain([write]) {
            let before = match self.usage.entries.get(&write.key) {
                Some(&bytes) => bytes,
                None => {
                    let value = self.state.get(&write.key).map_err(unavailable)?;
                    let bytes = value.map_or(0, |value| (write.key.len() + value.len()) as u64);
                    self.usage.entries.insert(write.key.clone(), bytes);
                    bytes
                }
            };
            after = (after + size(write)).saturating_sub(before);
        }
        if after > limits.state_bytes && after > found {
            let limit = limits.state_bytes;
            return Err(Refusal::QuotaExceeded(format!("the plugin may keep {limit} bytes of state")));
        }
        Ok(())
    }

    fn check_may_write(&self) -> Result<(), Refusal> {
        if self.may_act() {
            return Ok(());
        }
        Err(Refusal::Unavailable("a hook may read the state, and not write it".to_owned()))
    }
}

/// The snapshot's entries, a page at a time.
struct FoundEntries<'a> {
    /// The snapshot.
    state: &'a dyn StateRead,
    /// What keys begin with.
    prefix: &'a str,
    /// The key after which the next page begins.
    after: Option<String>,
    /// What is left of the current page.
    page: std::vec::IntoIter<(String, Vec<u8>)>,
    /// Whether the snapshot has no further page.
    exhausted: bool,
}

impl<'a> FoundEntries<'a> {
    fn new(state: &'a dyn StateRead, prefix: &'a str, after: Option<&str>) -> Self {
        Self { state, prefix, after: after.map(str::to_owned), page: Vec::new().into_iter(), exhausted: false }
    }

    /// The key that comes next; `wanted` is how many entries could still be used.
    fn peek(&mut self, wanted: usize) -> Result<Option<&str>, Refusal> {
        if self.page.as_slice().is_empty() && !self.exhausted {
            let size = wanted.min(SCAN_PAGE);
            let page = self
                .state
                .scan(self.prefix, self.after.as_deref(), size)
                .map_err(|error| Refusal::Unavailable(error.0))?;
            self.exhausted = page.len() < size;
            if let Some((last, _)) = page.last() {
                self.after = Some(last.clone());
            }
            self.page = page.into_iter();
        }
        Ok(self.page.as_slice().first().map(|(key, _)| key.as_str()))
    }

    /// The entry that [`Self::peek`] showed.
    fn take(&mut self) -> (String, Vec<u8>) {
        self.page.next().expect("taken only after it was peeked at")
    }
}

fn check_key(key: &str) -> Result<(), Refusal> {
    match key.len() {
        0 => Err(Refusal::TooLarge("the key is empty".to_owned())),
        1..=KEY_BYTES => Ok(()),
        bytes => Err(Refusal::TooLarge(format!("the key has {bytes} bytes; {KEY_BYTES} are allowed"))),
    }
}

/// The value that a write leaves, unless it has expired already.
fn visible(write: &StateWrite, now: Timestamp) -> Option<&[u8]> {
    write.value.as_deref().filter(|_| write.expires_at.is_none_or(|at| at > now))
}

/// A decimal integer as JSON has them.
fn integer(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    if text.starts_with('+') { None } else { text.parse().ok() }
}

/// Bytes of the entry that a write leaves in the state.
fn size(write: &StateWrite) -> u64 {
    write.value.as_ref().map_or(0, |value| (write.key.len() + value.len()) as u64)
}

/// What a write counts against the limit of a call.
pub(super) fn weight(write: &StateWrite) -> usize {
    write.key.len() + write.value.as_ref().map_or(0, |value| value.len()) + WRITE_OVERHEAD_BYTES
}
