//! A work order as this service sees it: something to plan, once.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::check::CheckNumber;
use crate::planner::Unplannable;
use crate::technician::{MAX_NAME_BYTES, MAX_SKILLS};

/// The longest check: no shift is longer than a day.
const MAX_CHECK_MINUTES: u32 = 24 * 60;

/// What this service reads of the payload of `workorders/{order}`. Which event it was does not matter: the payload says
/// how the order is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Its number; repeats the topic.
    pub order: String,
    /// Whether there is still something to do.
    pub status: OrderStatus,
    /// The asset to work on.
    pub asset: String,
    /// Where the asset stands.
    pub location: String,
    /// What a technician must be able to do.
    pub skills: BTreeSet<String>,
    /// What a technician has to bring.
    pub tools: Vec<String>,
    /// How long the check takes.
    pub check_minutes: u32,
    /// Who is reserved for it, if somebody is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved_technician: Option<String>,
    /// When it must be over; milliseconds since the Unix epoch.
    pub due_ts: u64,
}

/// Whether there is still something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OrderStatus {
    /// Yes.
    Open,
    /// No.
    Closed,
}

/// Why an order is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOrder {
    /// The payload speaks of another order than the topic.
    #[error("order {payload:?} published for {topic:?}")]
    AnotherOrder {
        /// The order in the topic.
        topic: String,
        /// The order in the payload.
        payload: String,
    },
    /// A name that cannot be part of a key.
    #[error("an order's name of {0} bytes is empty or longer than {MAX_NAME_BYTES}")]
    Name(usize),
    /// A check of no length, or one that no shift holds.
    #[error("a check of {0} minutes is outside 1..={MAX_CHECK_MINUTES}")]
    CheckMinutes(u32),
    /// More skills than anybody has.
    #[error("{0} skills are more than {MAX_SKILLS}")]
    TooManySkills(usize),
}

/// What is kept per order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The order as it was last published.
    pub order: Order,
    /// No check may begin earlier: one that was to take place before fell through. Milliseconds since the Unix epoch.
    pub not_before_ts: u64,
    /// How far its planning is.
    pub progress: Progress,
}

/// How far the planning of an order is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Progress {
    /// Not begun.
    New,
    /// A check is planned.
    Planned(CheckNumber),
    /// It could not be planned, for this reason; tried again when somebody becomes free.
    Waiting(Unplannable),
    /// Nothing is left to do.
    Done,
}

impl Order {
    /// Checks an order that arrived for `order`.
    pub fn checked(self, order: &str) -> Result<Self, InvalidOrder> {
        if self.order != order {
            return Err(InvalidOrder::AnotherOrder { topic: order.to_owned(), payload: self.order });
        }
        if !(1..=MAX_NAME_BYTES).contains(&order.len()) {
            return Err(InvalidOrder::Name(order.len()));
        }
        if !(1..=MAX_CHECK_MINUTES).contains(&self.check_minutes) {
            return Err(InvalidOrder::CheckMinutes(self.check_minutes));
        }
        if self.skills.len() > MAX_SKILLS {
            return Err(InvalidOrder::TooManySkills(self.skills.len()));
        }
        Ok(self)
    }
}

impl Job {
    /// A job that nobody has planned.
    pub fn new(order: Order) -> Self {
        Self { order, not_before_ts: 0, progress: Progress::New }
    }

    /// Where it stands among those that wait: what is due first is tried first.
    pub fn waiting_key(&self) -> String {
        format!("waiting/{:020}/{}", self.order.due_ts, self.order.order)
    }
}
