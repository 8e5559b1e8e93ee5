//! What a call does to the world, collected until it ends: writes, publishes, and to which event they belong.
//!
//! Pure: no engine, no store. A batch begins with the events handed to the guest and a snapshot of the plugin's state, and
//! ends as one [`Handled`] for each event. Reads see the snapshot under the batch's own writes.
//!
//! Invariants: `overlay` names the newest write of each key that was written; writes and publishes of the event that is
//! being handled are the tail of their lists, so that a rollback cuts them off.

use std::collections::BTreeMap;
use std::ops::Bound;

use vespiary_core::event::{Sequence, StateWrite};
use vespiary_core::message::Message;

use super::limits::WasmLimits;
use super::state::StateRead;

/// Longest key in bytes.
const KEY_BYTES: usize = 512;
/// What each write counts beyond its key and value, so that many tiny ones are bounded by what they cost the host.
const WRITE_OVERHEAD_BYTES: usize = 64;
/// Most entries that one scan gives.
const SCAN_ENTRIES: usize = 1_000;
/// Entries asked of the snapshot at a time, so that large values do not pile up before they are counted.
const SCAN_PAGE: usize = 64;

/// An event that was handed to a guest, and what came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Handled {
    /// The event.
    pub sequence: Sequence,
    /// What became of it.
    pub result: EventResult,
    /// What it published; empty unless it is done.
    pub publishes: Vec<Message>,
    /// What it wrote; empty unless it is done.
    pub writes: Vec<StateWrite>,
    /// Publishes that were denied because the topic is not granted.
    pub denied: u32,
}

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventResult {
    /// Handled; its writes and publishes count.
    Done,
    /// Failed for now, with the reason.
    Retry(String),
    /// Given up, with the reason.
    Reject(String),
    /// Not handled, or handled with knowledge of what an earlier event of the batch should not have left: hand it out
    /// again.
    Untouched,
}

/// Why a function of `state` or `broker` refuses; the same cases as in the contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A key or a value is too large.
    TooLarge(String),
    /// The call is at one of its limits.
    QuotaExceeded(String),
    /// The store cannot be read.
    Unavailable(String),
}

/// What a call has done so far.
pub(super) struct Batch {
    /// The state before the call.
    state: Box<dyn StateRead>,
    /// The events handed to the guest, in order.
    events: Vec<Sequence>,
    /// What belongs to each event that was begun; the last of them is being handled.
    begun: Vec<Section>,
    /// Number of the newest write to each key.
    overlay: BTreeMap<Box<str>, usize>,
    /// All writes that count, in order.
    writes: Vec<LoggedWrite>,
    /// All publishes that count, in order.
    publishes: Vec<Message>,
    /// Where the current event began: what a rollback goes back to.
    mark: Mark,
    /// Bytes of `writes`.
    written_bytes: usize,
    /// Weight of `publishes`.
    published_bytes: usize,
    /// Publishes denied so far.
    denied: u32,
}

/// What belongs to one event: everything up to the next section's beginning.
#[derive(Debug, Clone, Copy)]
struct Section {
    /// Its first write.
    first_write: usize,
    /// Its first publish.
    first_publish: usize,
    /// Publishes denied before it began.
    denied_before: u32,
}

struct LoggedWrite {
    /// The write.
    write: StateWrite,
    /// The write to the same key that it hides, if there is one.
    hides: Option<usize>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    /// Length of `writes`.
    writes: usize,
    /// Length of `publishes`.
    publishes: usize,
}

impl Batch {
    pub(super) fn new(state: Box<dyn StateRead>, events: Vec<Sequence>) -> Self {
        Self {
            state,
            events,
            begun: Vec::new(),
            overlay: BTreeMap::new(),
            writes: Vec::new(),
            publishes: Vec::new(),
            mark: Mark::default(),
            written_bytes: 0,
            published_bytes: 0,
            denied: 0,
        }
    }

    // ------------------------------------------------------------------------------------------ transactions

    /// From here on, writes and publishes belong to this event. What came before the first event belongs to it too.
    pub(super) fn begin(&mut self, event: u64) -> Result<(), String> {
        let next = self.events.get(self.begun.len());
        if next != Some(&Sequence(event)) {
            return Err(match (self.events.iter().position(|known| known.0 == event), next) {
                (None, _) => format!("it began event {event}, which is not in the batch"),
                (Some(_), None) => format!("it began event {event} again after the last event of the batch"),
                (Some(_), Some(next)) => format!("it began event {event} where event {} comes next", next.0),
            });
        }
        let first = self.begun.is_empty();
        self.mark = Mark { writes: self.writes.len(), publishes: self.publishes.len() };
        self.begun.push(Section {
            first_write: if first { 0 } else { self.mark.writes },
            first_publish: if first { 0 } else { self.mark.publishes },
            denied_before: if first { 0 } else { self.denied },
        });
        Ok(())
    }

    /// Drops what was written and published since the last `begin`, or since the call began.
    pub(super) fn rollback(&mut self) {
        for logged in self.writes.drain(self.mark.writes..).rev() {
            self.written_bytes -= weight(&logged.write);
            match logged.hides {
                Some(hidden) => {
                    if let Some(newest) = self.overlay.get_mut(&logged.write.key) {
                        *newest = hidden;
                    }
                }
                None => {
                    self.overlay.remove(&logged.write.key);
                }
            }
        }
        for message in self.publishes.drain(self.mark.publishes..) {
            self.published_bytes -= message.weight();
        }
    }

    /// Whether the guest said which event it was at.
    pub(super) fn began_any(&self) -> bool {
        !self.begun.is_empty()
    }

    // ------------------------------------------------------------------------------------------ state

    pub(super) fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Refusal> {
        check_key(key)?;
        match self.overlay.get(key) {
            Some(&newest) => Ok(self.writes[newest].write.value.as_deref().map(<[u8]>::to_vec)),
            None => self.state.get(key).map_err(|error| Refusal::Unavailable(error.0)),
        }
    }

    /// Sets a key, or deletes it.
    pub(super) fn write(&mut self, key: &str, value: Option<Vec<u8>>, limits: &WasmLimits) -> Result<(), Refusal> {
        check_key(key)?;
        let bytes = value.as_ref().map_or(0, Vec::len);
        if bytes > limits.state_value_bytes {
            let limit = limits.state_value_bytes;
            return Err(Refusal::TooLarge(format!("the value has {bytes} bytes; {limit} are allowed")));
        }
        let write = StateWrite::lasting(key, value.map(Vec::into_boxed_slice));
        let newest = self.overlay.get(key).copied();
        // A key that the same event wrote before is written in place, so that a loop does not make the list longer.
        let replaced = newest.filter(|&newest| newest >= self.mark.writes);
        let written_bytes =
            self.written_bytes + weight(&write) - replaced.map_or(0, |at| weight(&self.writes[at].write));
        if written_bytes > limits.write_bytes_per_call {
            let limit = limits.write_bytes_per_call;
            return Err(Refusal::QuotaExceeded(format!("one call may write {limit} bytes of state")));
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

    /// The snapshot's entries merged with the batch's own writes, as [`StateRead::scan`] says; at most 1,000.
    pub(super) fn scan(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        limits: &WasmLimits,
    ) -> Result<Vec<(String, Vec<u8>)>, Refusal> {
        let limit = limit.min(SCAN_ENTRIES);
        let mut own = self.own_entries(prefix, after).peekable();
        let mut committed = CommittedEntries::new(self.state.as_ref(), prefix, after);
        let (mut entries, mut bytes) = (Vec::new(), 0);
        while entries.len() < limit {
            let theirs = committed.peek(limit - entries.len())?;
            let (key, value) = match (own.peek(), theirs) {
                (None, None) => break,
                (Some((key, _)), Some(theirs)) if **key > *theirs => committed.take(),
                (None, Some(_)) => committed.take(),
                (Some((key, _)), theirs) => {
                    if theirs.is_some_and(|theirs| theirs == *key) {
                        committed.take();
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

    /// The batch's own entries, deleted ones as `None`, in the order of keys.
    fn own_entries<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + use<'a> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        self.overlay
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(key, &newest)| (&**key, self.writes[newest].write.value.as_deref()))
    }

    // ------------------------------------------------------------------------------------------ publishing

    pub(super) fn publish(&mut self, message: Message, limits: &WasmLimits) -> Result<(), Refusal> {
        if self.publishes.len() >= limits.publishes_per_call {
            let limit = limits.publishes_per_call;
            return Err(Refusal::QuotaExceeded(format!("one call may publish {limit} messages")));
        }
        let published_bytes = self.published_bytes + message.weight();
        if published_bytes > limits.publish_bytes_per_call {
            let limit = limits.publish_bytes_per_call;
            return Err(Refusal::QuotaExceeded(format!("one call may publish {limit} bytes")));
        }
        self.published_bytes = published_bytes;
        self.publishes.push(message);
        Ok(())
    }

    /// Counts a publish that was denied.
    pub(super) fn count_denied(&mut self) {
        self.denied = self.denied.saturating_add(1);
    }

    // ------------------------------------------------------------------------------------------ end

    /// Ends the batch: each event with what belongs to it. An event that failed and left writes behind makes every later
    /// event [`EventResult::Untouched`], since these could have seen the writes.
    pub(super) fn finish(mut self, results: Vec<EventResult>) -> Result<Vec<Handled>, String> {
        if results.len() != self.events.len() {
            return Err(format!("it gave {} outcomes for {} events", results.len(), self.events.len()));
        }
        if self.begun.is_empty() && self.events.len() == 1 {
            self.begun.push(Section { first_write: 0, first_publish: 0, denied_before: 0 });
        }
        if self.begun.len() != self.events.len() {
            return Err(format!("it began {} of {} events", self.begun.len(), self.events.len()));
        }
        let ends = self.begun.iter().skip(1).copied().chain([Section {
            first_write: self.writes.len(),
            first_publish: self.publishes.len(),
            denied_before: self.denied,
        }]);
        let mut writes = self.writes.into_iter().map(|logged| logged.write);
        let mut publishes = self.publishes.into_iter();
        let mut seen_what_failed = false;
        let mut handled = Vec::with_capacity(results.len());
        for (((sequence, section), end), result) in self.events.iter().zip(&self.begun).zip(ends).zip(results) {
            let mut writes: Vec<_> = writes.by_ref().take(end.first_write - section.first_write).collect();
            let mut publishes: Vec<_> = publishes.by_ref().take(end.first_publish - section.first_publish).collect();
            let result = if seen_what_failed { EventResult::Untouched } else { result };
            if result != EventResult::Done {
                seen_what_failed |= !writes.is_empty();
                writes.clear();
                publishes.clear();
            }
            let denied = end.denied_before - section.denied_before;
            handled.push(Handled { sequence: *sequence, result, publishes, writes, denied });
        }
        Ok(handled)
    }
}

/// The snapshot's entries, a page at a time.
struct CommittedEntries<'a> {
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

impl<'a> CommittedEntries<'a> {
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

/// What a write counts against the limit of a call.
fn weight(write: &StateWrite) -> usize {
    write.key.len() + write.value.as_ref().map_or(0, |value| value.len()) + WRITE_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests;
