//! What is kept of plugins: revisions, generations and probation, timers, and the values of their state.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vespiary_core::event::{ProbationRecord, Revision, SessionId, Timer};
use vespiary_core::message::Timestamp;

use super::{InvalidRow, RECORD_VERSION, append_as, in_one_piece, take_fields, take_version, whole};

/// The version byte of plugins that have generations of their state.
const GENERATIONS_VERSION: u8 = 2;

/// The version byte of values that expire.
const EXPIRING_VERSION: u8 = 2;

/// A revision of a plugin, in `plugin_revisions` and within `plugins`.
#[derive(Serialize, Deserialize)]
pub(in crate::store) struct RevisionRow<'a> {
    number: u32,
    digest: [u8; 32],
    version: &'a str,
    activated_at: u64,
}

impl<'a> RevisionRow<'a> {
    pub(in crate::store) fn new(revision: &'a Revision) -> Self {
        Self {
            number: revision.number,
            digest: revision.digest,
            version: &revision.version,
            activated_at: revision.activated_at.0,
        }
    }

    pub(in crate::store) fn revision(&self) -> Revision {
        Revision {
            number: self.number,
            digest: self.digest,
            version: self.version.into(),
            activated_at: Timestamp(self.activated_at),
        }
    }
}

/// What is kept of a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct PluginRecord {
    /// Holds its inbox and its timers.
    pub(in crate::store) session: SessionId,
    /// The active revision.
    pub(in crate::store) active: Revision,
    /// The generation of its state in use.
    pub(in crate::store) state: SessionId,
    /// What a probation may go back to.
    pub(in crate::store) probation: Option<ProbationRecord>,
    /// A generation that was begun and is not in use.
    pub(in crate::store) begun: Option<SessionId>,
}

/// A plugin, in `plugins`.
#[derive(Serialize, Deserialize)]
pub(in crate::store) struct PluginRow<'a> {
    #[serde(borrow)]
    first: FirstPluginRow<'a>,
    state: u64,
    #[serde(borrow)]
    probation: Option<(RevisionRow<'a>, u64)>,
    begun: Option<u64>,
}

/// A plugin as version 1 has it.
#[derive(Serialize, Deserialize)]
struct FirstPluginRow<'a> {
    session: u64,
    #[serde(borrow)]
    active: RevisionRow<'a>,
}

impl<'a> PluginRow<'a> {
    pub(in crate::store) fn new(plugin: &'a PluginRecord) -> Self {
        let PluginRecord { session, active, state, probation, begun } = plugin;
        Self {
            first: FirstPluginRow { session: session.0, active: RevisionRow::new(active) },
            state: state.0,
            probation: probation.as_ref().map(|before| (RevisionRow::new(&before.revision), before.state.0)),
            begun: begun.map(|state| state.0),
        }
    }

    pub(in crate::store) fn encode(&self, scratch: &mut Vec<u8>) -> Result<(), InvalidRow> {
        scratch.clear();
        self.append(scratch)
    }

    /// The same behind what is there.
    pub(in crate::store) fn append(&self, out: &mut Vec<u8>) -> Result<(), InvalidRow> {
        append_as(GENERATIONS_VERSION, out, self)
    }

    /// Decodes a row. The state of a plugin of version 1 is under the name of its session.
    pub(in crate::store) fn decode(value: &'a [u8]) -> Result<Self, InvalidRow> {
        whole(value, Self::take)
    }

    /// The same from the beginning of `bytes`, which are moved behind it.
    pub(in crate::store) fn take(bytes: &mut &'a [u8]) -> Result<Self, InvalidRow> {
        match take_version(bytes)? {
            GENERATIONS_VERSION => take_fields(bytes),
            RECORD_VERSION => {
                let first: FirstPluginRow<'a> = take_fields(bytes)?;
                Ok(Self { state: first.session, first, probation: None, begun: None })
            }
            version => Err(InvalidRow::Version(version)),
        }
    }

    pub(in crate::store) fn plugin(&self) -> PluginRecord {
        let before = |(revision, state): &(RevisionRow<'a>, u64)| ProbationRecord {
            revision: revision.revision(),
            state: SessionId(*state),
        };
        PluginRecord {
            session: SessionId(self.first.session),
            active: self.first.active.revision(),
            state: SessionId(self.state),
            probation: self.probation.as_ref().map(before),
            begun: self.begun.map(SessionId),
        }
    }
}

/// A timer, in `timers`.
#[derive(Serialize, Deserialize)]
pub(in crate::store) struct TimerRow<'a> {
    at: u64,
    schedule: Option<&'a str>,
    declared: bool,
    #[serde(serialize_with = "in_one_piece")]
    payload: &'a [u8],
}

impl<'a> TimerRow<'a> {
    pub(in crate::store) fn new(timer: &'a Timer) -> Self {
        Self { at: timer.at.0, schedule: timer.schedule.as_deref(), declared: timer.declared, payload: &timer.payload }
    }

    pub(in crate::store) fn timer(&self) -> Timer {
        Timer {
            at: Timestamp(self.at),
            schedule: self.schedule.map(Arc::from),
            declared: self.declared,
            payload: self.payload.into(),
        }
    }
}

/// A value of a plugin's state, in `plugin_state` and `plugin_undo`. Not a record: most of it is the plugin's own bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct StateRow<'a> {
    /// As the plugin wrote them.
    pub(in crate::store) bytes: &'a [u8],
    /// When it is gone by itself.
    pub(in crate::store) expires_at: Option<Timestamp>,
}

impl<'a> StateRow<'a> {
    pub(in crate::store) fn encode(&self, scratch: &mut Vec<u8>) {
        scratch.clear();
        match self.expires_at {
            None => scratch.push(RECORD_VERSION),
            Some(at) => {
                scratch.push(EXPIRING_VERSION);
                scratch.extend_from_slice(&at.0.to_be_bytes());
            }
        }
        scratch.extend_from_slice(self.bytes);
    }

    pub(in crate::store) fn decode(mut value: &'a [u8]) -> Result<Self, InvalidRow> {
        match take_version(&mut value)? {
            RECORD_VERSION => Ok(Self { bytes: value, expires_at: None }),
            EXPIRING_VERSION => {
                let (at, bytes) = value.split_first_chunk().ok_or(InvalidRow::Field("expires_at"))?;
                Ok(Self { bytes, expires_at: Some(Timestamp(u64::from_be_bytes(*at))) })
            }
            version => Err(InvalidRow::Version(version)),
        }
    }

    /// Bytes of it and of its key, by which a state is measured.
    pub(in crate::store) fn size(&self, key: &str) -> u64 {
        (key.len() + self.bytes.len()) as u64
    }

    /// Whether it is gone at `now`.
    pub(in crate::store) fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}
