//! Work orders and which of them belongs to which fault.
//!
//! Per asset and fault at most one order is open. Whether an event about an anomaly opens an order, worsens the open one or
//! is already known is decided by [`Fault::take`] alone, so that it holds however often and in whichever order events
//! come.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::alert::{Anomaly, Severity};
use crate::registration::Registration;

/// Anomalies that are remembered per asset and fault, so that an event which comes again opens nothing.
const MAX_REMEMBERED: usize = 16;

/// The number of an order; written `WO-000042`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OrderNumber(pub u64);

/// The text is no order number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no order number such as WO-000042")]
pub struct InvalidOrderNumber(String);

/// A work order: what is published to `workorders/{order}`, and what is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Its number.
    pub order: OrderNumber,
    /// Whether there is still something to do.
    #[serde(flatten)]
    pub status: Status,
    /// The asset to work on.
    pub asset: String,
    /// What is wrong with it.
    pub fault: String,
    /// The anomaly for which the order was opened.
    pub anomaly: String,
    /// How soon somebody has to act: the worst so far.
    pub severity: Severity,
    /// Where the asset stands.
    pub location: String,
    /// What a technician must be able to do.
    pub skills: Vec<String>,
    /// What a technician has to bring.
    pub tools: Vec<String>,
    /// How long the check takes.
    pub check_minutes: u32,
    /// Who is reserved for it, and the tools as well; nobody if they could not be had together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved_technician: Option<String>,
    /// When it was opened; milliseconds since the Unix epoch, by the broker's clock.
    pub opened_ts: u64,
    /// When the asset must have been checked; likewise.
    pub due_ts: u64,
}

/// Whether there is still something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "kebab-case")]
pub enum Status {
    /// Yes.
    Open,
    /// No: it was closed.
    Closed {
        /// With this outcome.
        outcome: Outcome,
        /// At this time; milliseconds since the Unix epoch.
        closed_ts: u64,
    },
}

/// What came of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The asset was repaired.
    Repaired,
    /// Somebody looked and found nothing.
    NoFaultFound,
}

/// What is published to `workorders/{order}`; `event` in the payload names the variant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event")]
pub enum OrderEvent<'a> {
    /// The order was opened.
    WorkOrderCreated(&'a Order),
    /// Its severity grew, and so it is due earlier.
    WorkOrderEscalated(&'a Order),
    /// It was closed.
    WorkOrderClosed(&'a Order),
}

/// What is kept per asset and fault.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The open order.
    pub open: Option<OrderNumber>,
    /// Names of anomalies that an order was opened for or that joined one; the last [`MAX_REMEMBERED`].
    remembered: Vec<String>,
}

/// What is to be done about an anomaly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Open an order, and tell the fault.
    Open,
    /// An order is open: it is about this one too.
    Join(OrderNumber),
    /// Its order was closed: nothing.
    Settled,
}

impl Fault {
    /// Takes an event about an anomaly.
    pub fn take(&mut self, anomaly: &str) -> Decision {
        let known = self.remembered.iter().any(|known| known == anomaly);
        if !known {
            self.remembered.push(anomaly.to_owned());
            if self.remembered.len() > MAX_REMEMBERED {
                self.remembered.remove(0);
            }
        }
        match self.open {
            Some(order) => Decision::Join(order),
            None if known => Decision::Settled,
            None => Decision::Open,
        }
    }
}

impl Order {
    /// Opens an order at `now`.
    pub fn open(order: OrderNumber, anomaly: &Anomaly, registration: Registration, now: u64) -> Self {
        let Registration { location, skills, tools, check_minutes } = registration;
        Self {
            order,
            status: Status::Open,
            asset: anomaly.asset.clone(),
            fault: anomaly.fault.clone(),
            anomaly: anomaly.anomaly.clone(),
            severity: anomaly.severity,
            location,
            skills,
            tools,
            check_minutes,
            reserved_technician: None,
            opened_ts: now,
            due_ts: now.saturating_add(anomaly.severity.due_after_ms()),
        }
    }

    /// Takes news about the severity, and says whether they are any. What is worse is due earlier, never later.
    pub fn escalate(&mut self, severity: Severity, now: u64) -> bool {
        if severity <= self.severity || self.status != Status::Open {
            return false;
        }
        self.severity = severity;
        self.due_ts = self.due_ts.min(now.saturating_add(severity.due_after_ms()));
        true
    }

    /// Closes the order, and says whether it was open.
    pub fn close(&mut self, outcome: Outcome, now: u64) -> bool {
        if self.status != Status::Open {
            return false;
        }
        self.status = Status::Closed { outcome, closed_ts: now };
        true
    }
}

impl fmt::Display for OrderNumber {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "WO-{:06}", self.0)
    }
}

impl FromStr for OrderNumber {
    type Err = InvalidOrderNumber;

    fn from_str(text: &str) -> Result<Self, InvalidOrderNumber> {
        let number = text.strip_prefix("WO-").and_then(|digits| digits.parse().ok()).map(Self);
        // One order has one spelling, or it would have several topics.
        number.filter(|number| number.to_string() == text).ok_or_else(|| InvalidOrderNumber(text.to_owned()))
    }
}

impl TryFrom<String> for OrderNumber {
    type Error = InvalidOrderNumber;

    fn try_from(text: String) -> Result<Self, InvalidOrderNumber> {
        text.parse()
    }
}

impl From<OrderNumber> for String {
    fn from(number: OrderNumber) -> Self {
        number.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_790_000_000_000;

    fn order(severity: Severity) -> Order {
        let anomaly =
            Anomaly { anomaly: "P-01:x:1:1".into(), asset: "P-01".into(), fault: "bearing-vibration".into(), severity };
        Order::open(OrderNumber(1), &anomaly, Registration::default(), NOW)
    }

    #[test]
    fn order_numbers_have_one_spelling() {
        assert_eq!("WO-000042".parse(), Ok(OrderNumber(42)));
        assert_eq!("WO-1234567".parse(), Ok(OrderNumber(1_234_567)));
        for text in ["WO-42", "WO-+00042", "wo-000042", "WO-", "", "WO-99999999999999999999999"] {
            assert!(text.parse::<OrderNumber>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_gets_worse_is_due_earlier_and_never_later() {
        let mut order = order(Severity::Advisory);
        let hour = 3_600_000;
        assert!(order.escalate(Severity::Warning, NOW + hour));
        assert_eq!(order.due_ts, NOW + 73 * hour);
        assert!(!order.escalate(Severity::Advisory, NOW + 2 * hour));
        // An hour before it is due anyway, eight more hours are not granted.
        assert!(order.escalate(Severity::Critical, NOW + 72 * hour));
        assert_eq!(order.due_ts, NOW + 73 * hour);
    }

    #[test]
    fn an_order_is_closed_once() {
        let mut order = order(Severity::Critical);
        assert!(order.close(Outcome::Repaired, NOW + 1));
        assert!(!order.close(Outcome::NoFaultFound, NOW + 2));
        assert_eq!(order.status, Status::Closed { outcome: Outcome::Repaired, closed_ts: NOW + 1 });
        assert!(!order.escalate(Severity::Critical, NOW + 3));
    }

    #[test]
    fn a_fault_decides_by_what_is_open_and_what_is_known() {
        let mut fault = Fault::default();
        assert_eq!(fault.take("first"), Decision::Open);
        fault.open = Some(OrderNumber(1));
        assert_eq!(fault.take("first"), Decision::Join(OrderNumber(1)));
        assert_eq!(fault.take("second"), Decision::Join(OrderNumber(1)));
        fault.open = None;
        assert_eq!(fault.take("first"), Decision::Settled);
        assert_eq!(fault.take("second"), Decision::Settled);
        assert_eq!(fault.take("third"), Decision::Open);
    }

    #[test]
    fn what_a_fault_remembers_is_bounded() {
        let mut fault = Fault::default();
        for number in 0..1_000 {
            assert_eq!(fault.take(&number.to_string()), Decision::Open);
        }
        assert_eq!(fault.remembered.len(), MAX_REMEMBERED);
    }
}
