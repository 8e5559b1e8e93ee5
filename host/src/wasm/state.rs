//! What a call reads: a plugin's state, as of the beginning of the call.

use crate::store::StateSnapshot;

/// A plugin's state as of the beginning of a call.
pub trait StateRead: Send {
    /// The value of a key.
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StateUnavailable>;

    /// Up to `limit` entries whose keys begin with `prefix`, in the order of keys, from the first key greater than
    /// `after` if it is given.
    fn scan(&self, prefix: &str, after: Option<&str>, limit: usize)
    -> Result<Vec<(String, Vec<u8>)>, StateUnavailable>;

    /// Bytes of all keys and values.
    fn usage(&self) -> Result<u64, StateUnavailable>;

    /// As many or more, where that costs less to tell.
    fn usage_at_most(&self) -> Result<u64, StateUnavailable> {
        self.usage()
    }
}

/// The store could not be read, and what it says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the state cannot be read: {0}")]
pub struct StateUnavailable(pub String);

impl StateRead for StateSnapshot {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StateUnavailable> {
        self.get(key).map_err(|error| StateUnavailable(error.to_string()))
    }

    fn scan(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, StateUnavailable> {
        self.scan(prefix, after, limit).map_err(|error| StateUnavailable(error.to_string()))
    }

    fn usage(&self) -> Result<u64, StateUnavailable> {
        self.usage().map_err(|error| StateUnavailable(error.to_string()))
    }

    fn usage_at_most(&self) -> Result<u64, StateUnavailable> {
        self.usage_at_most().map_err(|error| StateUnavailable(error.to_string()))
    }
}
