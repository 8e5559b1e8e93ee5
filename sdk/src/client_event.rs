//! What happens to clients, as the broker tells it on topics that begin with `$clients/`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::error::Result;
use crate::event::{Event, Timestamp};
use crate::extract::FromEvent;

/// Something that happened to a client: a parameter of handlers marked `#[on_client("connected")]`, say.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ClientEvent {
    /// Client identifier.
    pub client_id: String,
    /// User name, if it authenticated with one.
    #[serde(default)]
    pub user: Option<String>,
    /// When it happened.
    pub at: Timestamp,
    /// Whatever else is told of this kind of event, by its name.
    #[serde(flatten)]
    pub details: BTreeMap<String, Value>,
}

impl FromEvent<'_> for ClientEvent {
    fn from_event(event: &Event) -> Result<Self> {
        event.json()
    }
}
