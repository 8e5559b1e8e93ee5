//! What is kept of a saga, under `saga/NAME/ID`, as versioned JSON.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::event::Timestamp;

/// The form of the records that this SDK writes.
const FORM: u32 = 1;

/// How far a saga is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Its steps are being done.
    Running,
    /// All steps are done.
    Completed,
    /// The steps that were done are being undone.
    Compensating,
    /// All steps that were done are undone.
    Compensated,
    /// A compensation was not acknowledged: somebody has to look.
    Stuck,
}

/// Which of a saga's moves an event belongs to: the last level of tags and timers. What belongs to an earlier one comes too
/// late and is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn(pub(super) Of);

/// What a turn is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// The deadline of the whole saga.
    Deadline,
    /// The question, or the pause, of this number.
    Number(u64),
}

/// What is kept of a saga.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record<D> {
    /// The form of this record. First, so that of another form nothing else is read.
    pub(super) form: Form,
    /// How far it is.
    pub(super) status: Status,
    /// The step that is asked for.
    pub(super) step: Option<String>,
    /// What has to come next.
    pub(super) awaits: Awaits,
    /// How many turns there were; the last one is what it waits for.
    pub(super) turn: u64,
    /// How often the compensation of the last step in `done` was tried in vain.
    pub(super) attempt: u32,
    /// Steps that are done, or may be, and are not undone, in order.
    pub(super) done: Vec<String>,
    /// Why it is not completed.
    pub(super) reason: Option<String>,
    /// When it began; milliseconds since the Unix epoch.
    pub(super) began_ts: Timestamp,
    /// When it ended; likewise.
    pub(super) ended_ts: Option<Timestamp>,
    /// What it knows.
    pub(super) data: D,
}

/// What has to come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Awaits {
    /// An answer.
    Answer,
    /// The end of a pause between two attempts.
    Pause,
    /// Nothing.
    Nothing,
}

/// The form of a record; only the one that is known can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub(super) struct Form;

impl<D> Record<D> {
    /// A saga that begins.
    pub(super) fn new(now: Timestamp, data: D) -> Self {
        Self {
            form: Form,
            status: Status::Running,
            step: None,
            awaits: Awaits::Nothing,
            turn: 0,
            attempt: 0,
            done: Vec::new(),
            reason: None,
            began_ts: now,
            ended_ts: None,
            data,
        }
    }

    /// Begins the next turn, in which this has to come.
    pub(super) fn next_turn(&mut self, awaits: Awaits) -> Turn {
        self.turn += 1;
        self.awaits = awaits;
        Turn(Of::Number(self.turn))
    }
}

impl Status {
    /// Whether nothing more happens by itself.
    pub fn is_end(self) -> bool {
        match self {
            Self::Completed | Self::Compensated | Self::Stuck => true,
            Self::Running | Self::Compensating => false,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Compensating => "compensating",
            Self::Compensated => "compensated",
            Self::Stuck => "stuck",
        })
    }
}

impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Of::Deadline => f.write_str("deadline"),
            Of::Number(number) => number.fmt(f),
        }
    }
}

impl FromStr for Turn {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        if text == "deadline" { Ok(Self(Of::Deadline)) } else { text.parse().map(|number| Self(Of::Number(number))) }
    }
}

impl TryFrom<u32> for Form {
    type Error = String;

    fn try_from(form: u32) -> Result<Self, String> {
        if form == FORM { Ok(Self) } else { Err(format!("a saga's record of form {form}: only {FORM} is known")) }
    }
}

impl From<Form> for u32 {
    fn from(_: Form) -> Self {
        FORM
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_read_as_they_are_written() {
        for turn in [Turn(Of::Deadline), Turn(Of::Number(0)), Turn(Of::Number(u64::MAX))] {
            assert_eq!(turn.to_string().parse(), Ok(turn));
        }
        assert!("later".parse::<Turn>().is_err());
    }

    #[test]
    fn a_record_of_another_form_is_not_read() {
        let written = serde_json::to_string(&Record::new(Timestamp::from_millis(7), "data")).unwrap();
        assert!(written.starts_with(r#"{"form":1,"status":"running","#), "{written}");
        assert!(serde_json::from_str::<Record<String>>(&written).is_ok());
        let later = r#"{"form":2,"state":"other"}"#;
        let error = serde_json::from_str::<Record<String>>(later).unwrap_err().to_string();
        assert!(error.starts_with("a saga's record of form 2: only 1 is known"), "{error}");
    }
}
