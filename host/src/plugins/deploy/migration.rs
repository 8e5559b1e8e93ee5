//! What a migration has to remember while the old revision runs: which keys are written meanwhile, and what became of which.
//!
//! An old entry becomes none, one or several new ones, mostly one of the same key; only what differs from that is
//! remembered. When an entry is migrated again, new keys that it no longer gives are removed.

use std::collections::{BTreeMap, BTreeSet};

use vespiary_core::event::StateWrite;

use super::super::plugin::Run;

/// Renamed entries that are remembered, at most.
const RENAMED: usize = 5_000_000;

/// Keys that were written since they were last migrated.
#[derive(Debug, Default)]
pub(in super::super) struct Dirty(BTreeSet<Box<str>>);

/// Which new keys old entries became, where that is not the one key of the same name.
#[derive(Debug, Default)]
pub(super) struct Renames {
    /// New keys, by old key.
    new: BTreeMap<Box<str>, Vec<Box<str>>>,
    /// Old key, by new key.
    old: BTreeMap<Box<str>, Box<str>>,
}

impl Dirty {
    /// Takes the keys out.
    pub(super) fn take(&mut self) -> Vec<Box<str>> {
        std::mem::take(&mut self.0).into_iter().collect()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Run {
    /// Notes what a settlement writes, for whoever has to know.
    pub(in super::super) fn note_writes(&mut self, writes: &[StateWrite]) {
        if self.is_concurrent() {
            self.conflicts.settle(writes.iter().map(|write| &*write.key));
        }
        if let Some(dirty) = &mut self.dirty {
            dirty.0.extend(writes.iter().map(|write| Box::from(&*write.key)));
        }
    }
}

impl Renames {
    /// An old entry, which was migrated `before` or not, now gives these new keys, none if it is gone. Gives the new keys to
    /// remove. `is_taken` says of a key whether another old entry of that name has become the new entry of that name.
    pub(super) fn replace(
        &mut self,
        old: &str,
        new: &[&str],
        before: bool,
        is_taken: impl Fn(&str) -> bool,
    ) -> Result<Vec<Box<str>>, String> {
        let same = |one: &str, other: &str| Err(format!("its entries {one:?} and {other:?} give the same key"));
        for &key in new {
            match self.old.get(key) {
                Some(owner) if **owner != *old => return same(owner, old),
                Some(_) => {}
                None if key != old && !self.new.contains_key(key) && is_taken(key) => return same(key, old),
                None => {}
            }
        }
        if new.iter().collect::<BTreeSet<_>>().len() < new.len() {
            return Err(format!("its entry {old:?} gives a key twice"));
        }
        let previous = match self.new.remove(old) {
            Some(keys) => keys,
            None if before => vec![old.into()],
            None => Vec::new(),
        };
        for key in &previous {
            if self.old.get(key).is_some_and(|owner| **owner == *old) {
                self.old.remove(key);
            }
        }
        let mut removed = previous;
        removed.retain(|key| !new.contains(&&**key) && !self.old.contains_key(key));
        if new != [old] {
            if self.new.len() >= RENAMED {
                return Err(format!("it renames more than {RENAMED} entries"));
            }
            self.new.insert(old.into(), new.iter().map(|&key| key.into()).collect());
            for &key in new {
                self.old.insert(key.into(), old.into());
            }
        }
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn removed(renames: &mut Renames, old: &str, new: &[&str], before: bool) -> Vec<String> {
        let removed = renames.replace(old, new, before, |_| false).unwrap();
        removed.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_an_entry_no_longer_gives_is_removed() {
        let mut renames = Renames::default();
        assert_eq!(removed(&mut renames, "a", &["a"], false), [""; 0]);
        assert_eq!(removed(&mut renames, "a", &["a/1", "a/2"], true), ["a"]);
        assert_eq!(removed(&mut renames, "a", &["a/2", "a/3"], true), ["a/1"]);
        assert_eq!(removed(&mut renames, "a", &[], true), ["a/2", "a/3"]);
        assert_eq!(removed(&mut renames, "a", &["a"], true), [""; 0]);
        assert_eq!(removed(&mut renames, "a", &[], true), ["a"]);
        assert_eq!(removed(&mut renames, "b", &["b"], false), [""; 0]);
        assert!(renames.old.is_empty(), "{renames:?}");
    }

    #[test]
    fn a_new_key_that_another_entry_gives_is_not_removed() {
        let mut renames = Renames::default();
        // The entries "a" and "b" change places.
        assert_eq!(removed(&mut renames, "a", &["b"], false), [""; 0]);
        assert_eq!(removed(&mut renames, "b", &["a"], false), [""; 0]);
        assert_eq!(removed(&mut renames, "b", &[], true), ["a"]);
        assert_eq!(removed(&mut renames, "a", &["b"], true), [""; 0]);
    }

    #[test]
    fn two_entries_that_give_one_key_are_an_error() {
        let mut renames = Renames::default();
        removed(&mut renames, "a", &["x"], false);
        let error = renames.replace("b", &["x"], false, |_| false).unwrap_err();
        assert_eq!(error, "its entries \"a\" and \"b\" give the same key");
        let error = renames.replace("x", &["x"], false, |_| false).unwrap_err();
        assert_eq!(error, "its entries \"a\" and \"x\" give the same key");
        let error = renames.replace("d", &["c"], false, |key| key == "c").unwrap_err();
        assert_eq!(error, "its entries \"c\" and \"d\" give the same key");
        let error = renames.replace("e", &["y", "y"], false, |_| false).unwrap_err();
        assert_eq!(error, "its entry \"e\" gives a key twice");
    }
}
