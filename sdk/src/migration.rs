//! Migrations: how the state of an earlier revision becomes that of this one.
//!
//! A migration takes one entry of state version `from` to version `from + 1`. It is a function of the entry and of nothing
//! else, since the broker calls it while the earlier revision still serves, and again for what changes meanwhile. Entries
//! that no migration takes stay as they are. Over several versions, the steps follow each other.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::extract::{Json, Raw, Text};
use crate::json;
use crate::pattern::{self, Level, MAX_WILDCARDS};

/// An entry of the plugin's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The value, as it is stored.
    pub value: Vec<u8>,
}

/// What `#[migrate(..)]` declares about a function.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub struct Migration {
    /// The function's name.
    pub name: &'static str,
    /// The state version that it starts from.
    pub from: u32,
    /// The pattern that keys are matched against.
    pub levels: &'static [Level<'static>],
    /// Fetches the parameters and calls the function; gets what the key captured.
    pub run: fn(&Entry, &[&str]) -> Result<Vec<Entry>>,
}

impl Entry {
    /// An entry with this value, as JSON.
    pub fn json(key: impl Into<String>, value: &(impl Serialize + ?Sized)) -> Result<Self> {
        Ok(Self { key: key.into(), value: serde_json::to_vec(value)? })
    }
}

/// A type that a migration can take as a parameter.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be taken from an entry of the state",
    label = "neither a capture of the key nor an extractor",
    note = "a parameter is named like a capture of the key, or `Json<T>`, `&[u8]`, `Raw`, `Text` or `&Entry`"
)]
pub trait FromEntry<'entry>: Sized {
    /// Takes the value from the entry.
    fn from_entry(entry: &'entry Entry) -> Result<Self>;
}

impl<T: DeserializeOwned> FromEntry<'_> for Json<T> {
    fn from_entry(entry: &Entry) -> Result<Self> {
        serde_json::from_slice(&entry.value)
            .map(Self)
            .map_err(|error| Error::reject(format!("`{}`: {}", entry.key, json::explain(&entry.value, &error))))
    }
}

impl FromEntry<'_> for Text {
    fn from_entry(entry: &Entry) -> Result<Self> {
        std::str::from_utf8(&entry.value)
            .map(|text| Self(text.to_owned()))
            .map_err(|error| Error::reject(format!("`{}` is not UTF-8: {error}", entry.key)))
    }
}

impl FromEntry<'_> for Raw {
    fn from_entry(entry: &Entry) -> Result<Self> {
        Ok(Self(entry.value.clone()))
    }
}

impl<'entry> FromEntry<'entry> for &'entry [u8] {
    fn from_entry(entry: &'entry Entry) -> Result<Self> {
        Ok(&entry.value)
    }
}

impl<'entry> FromEntry<'entry> for &'entry Entry {
    fn from_entry(entry: &'entry Entry) -> Result<Self> {
        Ok(entry)
    }
}

/// What a migration may return, alone or in a `Result`: `Json<T>` or `Raw` (the new value under the same key), `Entry`
/// (under another key), `Vec<Entry>`, or an `Option` of these (`None`: the entry goes).
#[diagnostic::on_unimplemented(
    message = "a migration cannot return `{Self}`",
    label = "not what a migration returns",
    note = "a migration returns `Json<T>` or `Raw` for the same key, `Entry`, `Vec<Entry>`, an `Option` of these, or a `Result` of them"
)]
pub trait IntoEntries {
    /// The entries that come of the one under this key.
    fn into_entries(self, key: &str) -> Result<Vec<Entry>>;
}

impl<T: Serialize> IntoEntries for Json<T> {
    fn into_entries(self, key: &str) -> Result<Vec<Entry>> {
        Ok(vec![Entry::json(key, &self.0)?])
    }
}

impl IntoEntries for Raw {
    fn into_entries(self, key: &str) -> Result<Vec<Entry>> {
        Ok(vec![Entry { key: key.into(), value: self.0 }])
    }
}

impl IntoEntries for Entry {
    fn into_entries(self, _key: &str) -> Result<Vec<Entry>> {
        Ok(vec![self])
    }
}

impl IntoEntries for Vec<Entry> {
    fn into_entries(self, _key: &str) -> Result<Vec<Entry>> {
        Ok(self)
    }
}

impl<T: IntoEntries> IntoEntries for Option<T> {
    fn into_entries(self, key: &str) -> Result<Vec<Entry>> {
        self.map_or_else(|| Ok(Vec::new()), |entries| entries.into_entries(key))
    }
}

impl<T: IntoEntries, E: Into<Error>> IntoEntries for Result<T, E> {
    fn into_entries(self, key: &str) -> Result<Vec<Entry>> {
        self.map_err(Into::into).and_then(|entries| entries.into_entries(key))
    }
}

/// The entries that come of what a migration returned.
#[doc(hidden)]
pub fn into_entries(returned: impl IntoEntries, key: &str) -> Result<Vec<Entry>> {
    returned.into_entries(key)
}

/// Checks at compile time that there is a way from each version that a migration begins at to the present one.
#[doc(hidden)]
pub const fn check_migrations(state_version: u32, migrations: &[Migration]) {
    let mut version = 1;
    let mut begun = false;
    while version < state_version {
        let mut found = false;
        let mut index = 0;
        while index < migrations.len() {
            assert!(
                migrations[index].from > 0 && migrations[index].from < state_version,
                "a migration's `from` is a state version before the present one"
            );
            found = found || migrations[index].from == version;
            index += 1;
        }
        begun = begun || found;
        assert!(
            found || !begun,
            "a state version between two migrations has no migration of its own: no way leads on from it"
        );
        version += 1;
    }
    assert!(begun || state_version < 2, "the state version before the present one has no migration");
}

/// Brings one entry of state version `from` to the present version.
pub(crate) fn migrate(migrations: &[Migration], from: u32, to: u32, entry: Entry) -> Result<Vec<Entry>> {
    if from != to && !migrations.iter().any(|migration| migration.from == from) {
        return Err(Error::reject(format!("no migration begins at state version {from}")));
    }
    // What the SDK keeps is the same in all versions.
    if entry.key.starts_with('$') {
        return Ok(vec![entry]);
    }
    let mut entries = vec![entry];
    for version in from..to {
        let mut next = Vec::with_capacity(entries.len());
        for entry in entries {
            next.extend(step(migrations, version, entry)?);
        }
        entries = next;
    }
    Ok(entries)
}

/// Brings one entry to the next version.
fn step(migrations: &[Migration], from: u32, entry: Entry) -> Result<Vec<Entry>> {
    for migration in migrations.iter().filter(|migration| migration.from == from) {
        let mut captures = [""; MAX_WILDCARDS];
        if pattern::matches(migration.levels.iter().copied(), &entry.key, &mut captures) {
            return (migration.run)(&entry, &captures).map_err(|error| {
                Error::reject(format!(
                    "migration `{}` from state version {from}, `{}`: {error}",
                    migration.name, entry.key
                ))
            });
        }
    }
    Ok(vec![entry])
}
