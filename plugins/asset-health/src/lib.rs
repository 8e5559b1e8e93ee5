//! Learns each asset's normal vibration and reports what departs from it.

pub mod alarm;
pub mod alert;
pub mod baseline;
pub mod deviation;
pub mod health;
pub mod ledger;
pub mod reading;
pub mod severity;
pub mod trend;
