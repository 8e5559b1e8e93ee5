//! State that is not in the database yet: what was handed over since, under which a [`StateSnapshot`] reads the tables.
//!
//! A write is here from the moment it is handed over, so the next call of a plugin sees it at once, whether it is on
//! disk or not: what is handed over is never taken back, and nothing that a call says leaves before all that it has read
//! is on disk. There are two *layers*: the *active* one takes writes; a checkpoint seals it, writes what it holds into the
//! database, and then drops it. The maps are persistent, so a snapshot has a copy of its generation for nothing, and what is
//! written meanwhile does not change it.
//!
//! A generation that goes as a whole stays here until the next checkpoint: nobody asks for it any more.
//!
//! [`StateSnapshot`]: super::StateSnapshot

use std::collections::{HashMap, HashSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex};

use imbl::OrdMap;
use vespiary_core::event::{Change, ChangeNumber, SessionId, StateWrite};
use vespiary_core::message::Timestamp;

use super::exchange::locked;

/// State that is not in the database yet.
#[derive(Debug, Default)]
pub(super) struct Overlay(Mutex<Layers>);

#[derive(Debug, Default)]
struct Layers {
    /// What was written since the last checkpoint began, by generation.
    active: HashMap<u64, Layer>,
    /// What the checkpoint under way writes.
    sealed: HashMap<u64, Layer>,
    /// Generations that were written on a probation that may be undone: what they were only the database can tell.
    undoable: HashSet<u64>,
    /// The last probation that was undone: until that is in the database, there are no snapshots of these generations.
    barrier: Option<ChangeNumber>,
}

/// Writes to one generation.
#[derive(Debug, Default, Clone)]
pub(super) struct Layer {
    rows: OrdMap<Arc<str>, Row>,
    /// Bytes of the keys and values in it.
    bytes: u64,
}

/// What a write left.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// The value; `None` if the key was deleted.
    pub(super) value: Option<Arc<[u8]>>,
    /// When the value is gone by itself.
    pub(super) expires_at: Option<Timestamp>,
}

/// The writes to one generation that are not in the database, as of one moment.
#[derive(Debug, Default, Clone)]
pub(super) struct Unwritten {
    active: Layer,
    sealed: Layer,
}

impl Overlay {
    /// Takes changes that were handed over, up to the one with the number `last`.
    pub(super) fn note(&self, changes: &[Change], last: ChangeNumber) {
        let of_state = |change: &&Change| {
            matches!(change, Change::StateWritten { .. } | Change::ProbationEnded { undone: true, .. })
        };
        let mut of_state = changes.iter().filter(of_state).peekable();
        if of_state.peek().is_none() {
            return;
        }
        let mut layers = locked(&self.0);
        for change in of_state {
            match change {
                Change::StateWritten { state, write, undo } => {
                    if *undo {
                        layers.undoable.insert(state.0);
                    }
                    layers.active.entry(state.0).or_default().insert(write);
                }
                // Values are again what they were, and nobody has read what that is.
                _ => layers.barrier = Some(last),
            }
        }
    }

    /// Takes note of probations that were found under way.
    pub(super) fn expect_undo(&self, restored: &[Change]) {
        let shared = restored.iter().filter_map(|change| match change {
            Change::PluginActivated { state, probation: Some(before), .. } if before.state == *state => Some(state.0),
            _ => None,
        });
        locked(&self.0).undoable.extend(shared);
    }

    /// Until which change there are no snapshots of a generation, if there are none.
    pub(super) fn barrier(&self, state: SessionId) -> Option<ChangeNumber> {
        let layers = locked(&self.0);
        layers.barrier.filter(|_| layers.undoable.contains(&state.0))
    }

    /// Gives what is not in the database of a generation, together with what `look` finds in there.
    pub(super) fn with<T>(&self, generation: u64, look: impl FnOnce() -> T) -> (Unwritten, T) {
        let layers = locked(&self.0);
        let of = |layers: &HashMap<u64, Layer>| layers.get(&generation).cloned().unwrap_or_default();
        let unwritten = Unwritten { active: of(&layers.active), sealed: of(&layers.sealed) };
        // With the lock held: nothing is dropped here before it is found there.
        (unwritten, look())
    }

    /// A checkpoint of all that was noted begins. The one before has ended.
    pub(super) fn seal(&self) {
        let mut layers = locked(&self.0);
        debug_assert!(layers.sealed.is_empty(), "there is one checkpoint at a time");
        layers.sealed = std::mem::take(&mut layers.active);
    }

    /// The checkpoint has ended: all that was sealed is in the database, with all changes up to `last`.
    pub(super) fn drop_sealed(&self, last: ChangeNumber) {
        let mut layers = locked(&self.0);
        let sealed = std::mem::take(&mut layers.sealed);
        layers.barrier = layers.barrier.filter(|&barrier| barrier > last);
        drop(layers);
        // Freed without the lock.
        drop(sealed);
    }
}

impl Layer {
    fn insert(&mut self, write: &StateWrite) {
        let row = Row { value: write.value.clone(), expires_at: write.expires_at };
        self.bytes += row.size(&write.key);
        if let Some(before) = self.rows.insert(write.key.clone(), row) {
            self.bytes -= before.size(&write.key);
        }
    }
}

impl Row {
    /// Bytes of the entry.
    pub(super) fn size(&self, key: &str) -> u64 {
        self.value.as_ref().map_or(0, |value| (key.len() + value.len()) as u64)
    }
}

impl Unwritten {
    /// What was written to a key last, if anything was.
    pub(super) fn get(&self, key: &str) -> Option<&Row> {
        self.active.rows.get(key).or_else(|| self.sealed.rows.get(key))
    }

    /// What was written last to each key from this one on, in the order of keys.
    pub(super) fn from<'a>(&'a self, first: &'a str) -> impl Iterator<Item = (&'a str, &'a Row)> {
        let from = (Bound::Included(first), Bound::Unbounded);
        let mut active = self.active.rows.range::<_, str>(from).peekable();
        let mut sealed = self.sealed.rows.range::<_, str>(from).peekable();
        std::iter::from_fn(move || {
            let earlier = match (active.peek(), sealed.peek()) {
                (Some((one, _)), Some((other, _))) => one.cmp(other),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, _) => std::cmp::Ordering::Greater,
            };
            if earlier.is_eq() {
                sealed.next();
            }
            let (key, row) = if earlier.is_le() { active.next() } else { sealed.next() }?;
            Some((&**key, row))
        })
    }

    /// Bytes of all keys and values written, and no less than what they add to those in the database.
    pub(super) fn bytes_at_most(&self) -> u64 {
        self.active.bytes + self.sealed.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATE: SessionId = SessionId(1);

    fn written(state: SessionId, key: &str, value: Option<&str>) -> Change {
        let value = value.map(|value| value.as_bytes().into());
        Change::StateWritten { state, write: StateWrite::lasting(key, value), undo: false }
    }

    fn rows(unwritten: &Unwritten, first: &str) -> Vec<(String, Option<String>)> {
        let text = |value: &Arc<[u8]>| String::from_utf8(value.to_vec()).unwrap();
        unwritten.from(first).map(|(key, row)| (key.to_owned(), row.value.as_ref().map(text))).collect()
    }

    fn expected(rows: &[(&str, Option<&str>)]) -> Vec<(String, Option<String>)> {
        rows.iter().map(|(key, value)| (key.to_string(), value.map(str::to_owned))).collect()
    }

    #[test]
    fn the_active_layer_covers_the_sealed_one_and_a_copy_stays_as_it_was() {
        let overlay = Overlay::default();
        overlay.note(&[written(STATE, "a", Some("1")), written(STATE, "c", Some("1"))], ChangeNumber(2));
        overlay.seal();
        let sealed = overlay.with(STATE.0, || ()).0;
        overlay.note(&[written(STATE, "c", None), written(STATE, "b", Some("22"))], ChangeNumber(4));
        overlay.note(&[written(SessionId(2), "d", Some("other"))], ChangeNumber(5));
        let both = overlay.with(STATE.0, || ()).0;
        assert_eq!(rows(&both, ""), expected(&[("a", Some("1")), ("b", Some("22")), ("c", None)]));
        assert_eq!(rows(&both, "b"), expected(&[("b", Some("22")), ("c", None)]));
        assert_eq!((both.get("c").map(|row| row.value.is_some()), both.get("d").is_some()), (Some(false), false));
        assert_eq!(rows(&sealed, ""), expected(&[("a", Some("1")), ("c", Some("1"))]));
        assert_eq!(both.bytes_at_most(), 7);
        overlay.note(&[written(STATE, "b", Some("3"))], ChangeNumber(6));
        assert_eq!(overlay.with(STATE.0, || ()).0.bytes_at_most(), 6);

        overlay.drop_sealed(ChangeNumber(2));
        assert_eq!(rows(&overlay.with(STATE.0, || ()).0, ""), expected(&[("b", Some("3")), ("c", None)]));
        assert_eq!(rows(&both, ""), expected(&[("a", Some("1")), ("b", Some("22")), ("c", None)]));
    }

    #[test]
    fn values_that_are_restored_are_waited_for() {
        let overlay = Overlay::default();
        let plugin = vespiary_core::event::PluginName("p".into());
        let ended = |undone| Change::ProbationEnded { plugin: plugin.clone(), session: STATE, undone };
        let Change::StateWritten { state, write, .. } = written(STATE, "a", Some("1")) else { unreachable!() };
        overlay.note(&[Change::StateWritten { state, write, undo: true }, ended(false)], ChangeNumber(2));
        assert_eq!(overlay.barrier(STATE), None);
        overlay.seal();
        overlay.note(&[ended(true)], ChangeNumber(3));
        overlay.drop_sealed(ChangeNumber(2));
        assert_eq!(overlay.barrier(STATE), Some(ChangeNumber(3)), "that checkpoint began before");
        assert_eq!(overlay.barrier(SessionId(2)), None, "it was not on probation");
        overlay.seal();
        overlay.drop_sealed(ChangeNumber(3));
        assert_eq!(overlay.barrier(STATE), None);
    }
}
