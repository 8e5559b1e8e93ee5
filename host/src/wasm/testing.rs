//! State in memory, for tests of this floor.

use std::collections::BTreeMap;

use super::{StateRead, StateUnavailable};

/// A plugin's committed state as a map.
#[derive(Default)]
pub(crate) struct MapState(pub(crate) BTreeMap<String, Vec<u8>>);

impl MapState {
    /// The state with these keys and values.
    pub(crate) fn of(entries: &[(&str, &str)]) -> Self {
        Self(entries.iter().map(|(key, value)| (key.to_string(), value.as_bytes().to_vec())).collect())
    }
}

impl StateRead for MapState {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StateUnavailable> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, StateUnavailable> {
        let wanted = |key: &str| key.starts_with(prefix) && after.is_none_or(|after| key > after);
        let entries = self.0.iter().filter(|(key, _)| wanted(key));
        Ok(entries.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn usage(&self) -> Result<u64, StateUnavailable> {
        Ok(self.0.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum())
    }
}
