//! `state`: the plugin's durable state, as of the beginning of the call, under the call's own writes.

use super::HostState;
use crate::wasm::batch::{Batch, Refusal};
use crate::wasm::bindings::vespiary::plugin::state;
use crate::wasm::limits::WasmLimits;

impl HostState {
    fn reader(&mut self) -> Result<(&mut Batch, &WasmLimits), state::Error> {
        match &mut self.batch {
            Some(batch) => Ok((batch, &self.limits)),
            None => {
                let reason = "the state is there while events, requests and hooks are handled only";
                Err(state::Error::Unavailable(reason.to_owned()))
            }
        }
    }
}

impl From<Refusal> for state::Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::TooLarge(reason) => Self::TooLarge(reason),
            Refusal::QuotaExceeded(reason) => Self::QuotaExceeded(reason),
            Refusal::Mismatch(reason) => Self::Mismatch(reason),
            Refusal::Unavailable(reason) => Self::Unavailable(reason),
        }
    }
}

impl state::Host for HostState {
    fn get(&mut self, key: String) -> Result<Option<Vec<u8>>, state::Error> {
        Ok(self.reader()?.0.get(&key)?)
    }

    fn set(&mut self, key: String, value: Vec<u8>) -> Result<(), state::Error> {
        let (batch, limits) = self.reader()?;
        Ok(batch.write(&key, Some(value), limits)?)
    }

    fn set_for(&mut self, key: String, value: Vec<u8>, ttl_ms: u64) -> Result<(), state::Error> {
        let (batch, limits) = self.reader()?;
        Ok(batch.write_for(&key, value, ttl_ms, limits)?)
    }

    fn compare_and_set(
        &mut self,
        key: String,
        expected: Option<Vec<u8>>,
        value: Option<Vec<u8>>,
    ) -> Result<bool, state::Error> {
        let (batch, limits) = self.reader()?;
        Ok(batch.compare_and_set(&key, expected.as_deref(), value, limits)?)
    }

    fn add(&mut self, key: String, amount: i64) -> Result<i64, state::Error> {
        let (batch, limits) = self.reader()?;
        Ok(batch.add(&key, amount, limits)?)
    }

    fn delete(&mut self, key: String) -> Result<(), state::Error> {
        let (batch, limits) = self.reader()?;
        Ok(batch.write(&key, None, limits)?)
    }

    fn scan(
        &mut self,
        prefix: String,
        after: Option<String>,
        limit: u32,
    ) -> Result<Vec<state::EntryResult>, state::Error> {
        let (batch, limits) = self.reader()?;
        let entries = batch.scan(&prefix, after.as_deref(), limit as usize, limits)?;
        Ok(entries.into_iter().map(|(key, value)| state::EntryResult { key, value }).collect())
    }
}
