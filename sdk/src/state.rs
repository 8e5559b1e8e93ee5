//! The plugin's durable state: ordered string keys with JSON values.
//!
//! JSON, so that operators and plugins in other languages can read it. Every failure names its key.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Result;
use crate::host::{Host, TheHost};
use crate::json;

/// Entries asked for at a time by [`State::scan`]; the most that the host gives.
const PAGE: u32 = 1_000;

/// The plugin's durable state.
///
/// A handler sees what was committed before and what it wrote itself. Nobody else sees its writes before the event's
/// transaction commits. The state stays when a new version of the plugin takes over.
pub struct State {
    /// Where it is kept.
    host: TheHost,
}

/// Why reading or writing state failed.
#[derive(Debug)]
pub enum StateError {
    /// The key is empty or longer than 512 bytes, or the value is longer than the limit.
    TooLarge(String),
    /// The plugin's state, or what one call may write, is at its limit.
    QuotaExceeded(String),
    /// The value of the key is not what is worked on: `add` on what is no integer.
    Mismatch(String),
    /// The store cannot be read, or may not be written here.
    Unavailable(String),
    /// The value of this key is not what the program expects, or cannot be written as JSON; and why.
    Json(String, String),
}

impl State {
    pub(crate) fn new(host: TheHost) -> Self {
        Self { host }
    }

    /// The value of a key, or `None`.
    pub fn get<T: DeserializeOwned>(&self, key: impl AsRef<str>) -> Result<Option<T>, StateError> {
        let key = key.as_ref();
        match self.host.state_get(key)? {
            None => Ok(None),
            Some(bytes) => parse(key, &bytes).map(Some),
        }
    }

    /// The value of a key, or the type's default.
    pub fn get_or_default<T: DeserializeOwned + Default>(&self, key: impl AsRef<str>) -> Result<T, StateError> {
        self.get(key).map(Option::unwrap_or_default)
    }

    /// Sets a key.
    pub fn set<T: Serialize + ?Sized>(&self, key: impl AsRef<str>, value: &T) -> Result<(), StateError> {
        let key = key.as_ref();
        self.host.state_set(key, &write(key, value)?)
    }

    /// Sets a key that is gone after this time, or earlier if it is set again without.
    pub fn set_for<T>(&self, key: impl AsRef<str>, value: &T, time: Duration) -> Result<(), StateError>
    where
        T: Serialize + ?Sized,
    {
        let key = key.as_ref();
        self.host.state_set_for(key, &write(key, value)?, u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }

    /// Sets a key, or deletes it (`None`), if its value is `expected` (`None`: if there is no value), and gives whether it
    /// was. Values are compared as they are written, in JSON.
    ///
    /// Events of one key of the plugin's lanes come one after the other; this is for what several lanes share.
    pub fn compare_and_set<T>(
        &self,
        key: impl AsRef<str>,
        expected: Option<&T>,
        value: Option<&T>,
    ) -> Result<bool, StateError>
    where
        T: Serialize + ?Sized,
    {
        let key = key.as_ref();
        let expected = expected.map(|expected| write(key, expected)).transpose()?;
        let value = value.map(|value| write(key, value)).transpose()?;
        self.host.state_swap(key, expected.as_deref(), value.as_deref())
    }

    /// Adds to a counter and gives the sum; a key without a value counts as 0. As JSON, a counter is a number.
    ///
    /// ```
    /// # use vespiary_sdk::prelude::*;
    /// # fn handler(cx: &mut Context) -> Result<()> {
    /// let number = cx.state().add("orders", 1)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn add(&self, key: impl AsRef<str>, amount: i64) -> Result<i64, StateError> {
        self.host.state_add(key.as_ref(), amount)
    }

    /// Changes the value of a key, beginning with the type's default if there is none, and gives what the closure gives.
    ///
    /// ```
    /// # use vespiary_sdk::prelude::*;
    /// # fn handler(cx: &mut Context) -> Result<()> {
    /// let count = cx.state().update("count", |count: &mut u64| { *count += 1; *count })?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn update<T, R>(&self, key: impl AsRef<str>, change: impl FnOnce(&mut T) -> R) -> Result<R, StateError>
    where
        T: Serialize + DeserializeOwned + Default,
    {
        let key = key.as_ref();
        let mut value = self.get_or_default::<T>(key)?;
        let result = change(&mut value);
        self.set(key, &value)?;
        Ok(result)
    }

    /// Deletes a key; one that does not exist is no error.
    pub fn delete(&self, key: impl AsRef<str>) -> Result<(), StateError> {
        self.host.state_delete(key.as_ref())
    }

    /// All entries whose keys begin with `prefix`, in the order of keys. For many, use [`scan_page`](Self::scan_page).
    pub fn scan<T: DeserializeOwned>(&self, prefix: impl AsRef<str>) -> Result<Vec<(String, T)>, StateError> {
        let prefix = prefix.as_ref();
        let mut entries = self.scan_page(prefix, None, PAGE as usize)?;
        let mut more = entries.len() == PAGE as usize;
        while more {
            let after = entries.last().map(|(key, _): &(String, T)| key.clone());
            let page = self.scan_page(prefix, after.as_deref(), PAGE as usize)?;
            more = page.len() == PAGE as usize;
            entries.extend(page);
        }
        Ok(entries)
    }

    /// Up to `limit` entries (at most 1,000) whose keys begin with `prefix`, in the order of keys, from the first key
    /// greater than `after` if it is given.
    pub fn scan_page<T: DeserializeOwned>(
        &self,
        prefix: impl AsRef<str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, T)>, StateError> {
        let limit = u32::try_from(limit).unwrap_or(PAGE).min(PAGE);
        let entries = self.host.state_scan(prefix.as_ref(), after, limit)?;
        entries.into_iter().map(|(key, bytes)| parse(&key, &bytes).map(|value| (key, value))).collect()
    }

    /// The value of a key as bytes, or `None`.
    pub fn get_bytes(&self, key: impl AsRef<str>) -> Result<Option<Vec<u8>>, StateError> {
        self.host.state_get(key.as_ref())
    }

    /// Sets a key to bytes. What is not JSON, operators' tools show as base64.
    pub fn set_bytes(&self, key: impl AsRef<str>, value: &[u8]) -> Result<(), StateError> {
        self.host.state_set(key.as_ref(), value)
    }
}

fn write<T: Serialize + ?Sized>(key: &str, value: &T) -> Result<Vec<u8>, StateError> {
    serde_json::to_vec(value).map_err(|error| StateError::Json(key.into(), error.to_string()))
}

pub(crate) fn parse<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, StateError> {
    serde_json::from_slice(bytes).map_err(|error| StateError::Json(key.into(), json::explain(bytes, &error)))
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge(reason) => write!(f, "a key or a value is too large: {reason}"),
            Self::QuotaExceeded(reason) => write!(f, "the state is at its limit: {reason}"),
            Self::Mismatch(reason) => write!(f, "the state is of another kind: {reason}"),
            Self::Unavailable(reason) => write!(f, "the state cannot be used: {reason}"),
            Self::Json(key, reason) => write!(f, "the state of `{key}`: {reason}"),
        }
    }
}

impl std::error::Error for StateError {}
