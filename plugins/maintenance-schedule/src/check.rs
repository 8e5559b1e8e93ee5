//! Planned checks: what is published to `checks/{check}`, and what is kept.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use vespiary_sdk::Timestamp;

use crate::shift::Span;

/// The number of a check; written `CHK-000042`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CheckNumber(pub u64);

/// The text is no check number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no check number such as CHK-000042")]
pub struct InvalidCheckNumber(String);

/// A check: who goes where, when and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Its number.
    pub check: CheckNumber,
    /// What became of it.
    #[serde(flatten)]
    pub status: Status,
    /// The work order that it is for.
    pub order: String,
    /// The asset.
    pub asset: String,
    /// Where the asset stands.
    pub location: String,
    /// What to bring.
    pub tools: Vec<String>,
    /// Who goes: the technician's key.
    pub technician: String,
    /// The name of the technician.
    pub technician_name: String,
    /// When.
    #[serde(flatten)]
    pub span: Span,
    /// When it must be over; milliseconds since the Unix epoch.
    pub due_ts: u64,
}

/// What became of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "kebab-case")]
pub enum Status {
    /// It is to take place.
    Planned,
    /// It took place.
    Completed {
        /// What came of it.
        outcome: Outcome,
    },
    /// It will not take place.
    Cancelled {
        /// Why.
        why: String,
    },
}

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The asset was repaired.
    Repaired,
    /// Nothing was found.
    NoFaultFound,
}

/// What is published to `checks/{check}`; `event` in the payload names the variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum CheckEvent {
    /// The check was planned.
    CheckPlanned,
    /// It takes place at another time, or somebody else goes.
    CheckMoved,
    /// It took place.
    CheckCompleted,
    /// It will not take place.
    CheckCancelled,
    /// Its time is over, and nobody has said what came of it.
    CheckOverdue,
}

/// The payload of `checks/{check}`.
#[derive(Debug, Serialize)]
pub struct Published<'a> {
    /// What happened.
    event: CheckEvent,
    /// The check as it is now.
    #[serde(flatten)]
    check: &'a Check,
    /// When it begins, for people: RFC 3339, UTC.
    from: String,
    /// When it ends, likewise.
    to: String,
}

impl Check {
    /// What is published when `event` happened to it.
    pub fn published(&self, event: CheckEvent) -> Published<'_> {
        let text = |ts: u64| Timestamp::from_millis(ts).to_string();
        Published { event, check: self, from: text(self.span.from_ts), to: text(self.span.to_ts) }
    }
}

impl fmt::Display for CheckNumber {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "CHK-{:06}", self.0)
    }
}

impl FromStr for CheckNumber {
    type Err = InvalidCheckNumber;

    fn from_str(text: &str) -> Result<Self, InvalidCheckNumber> {
        let number = text.strip_prefix("CHK-").and_then(|digits| digits.parse().ok()).map(Self);
        // One check has one spelling, or it would have several topics.
        number.filter(|number| number.to_string() == text).ok_or_else(|| InvalidCheckNumber(text.to_owned()))
    }
}

impl TryFrom<String> for CheckNumber {
    type Error = InvalidCheckNumber;

    fn try_from(text: String) -> Result<Self, InvalidCheckNumber> {
        text.parse()
    }
}

impl From<CheckNumber> for String {
    fn from(number: CheckNumber) -> Self {
        number.to_string()
    }
}
