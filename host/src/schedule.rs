//! Schedules: cron expressions in UTC, and when they fall due.
//!
//! Five fields (minute, hour, day of month, month, day of week) or six (seconds first); names of months and days, ranges, lists,
//! steps, `L`, `W`, `#` and the nicknames `@hourly` to `@yearly` as in croner.

use chrono::{DateTime, Utc};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use vespiary_core::Timestamp;

/// Longest expression in bytes.
const EXPRESSION_BYTES: usize = 256;

/// When something falls due, again and again.
#[derive(Debug, Clone)]
pub struct Schedule(Cron);

impl Schedule {
    /// Understands a cron expression; the error says what is wrong with it.
    pub fn parse(expression: &str) -> Result<Self, String> {
        if expression.len() > EXPRESSION_BYTES {
            let bytes = expression.len();
            return Err(format!("the schedule has {bytes} bytes; {EXPRESSION_BYTES} are allowed"));
        }
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let cron = parser.parse(expression);
        cron.map(Self).map_err(|error| format!("the schedule {expression:?} is not a cron expression: {error}"))
    }

    /// The first time after `time`; `None` where there is none in the next thousands of years.
    pub fn next_after(&self, time: Timestamp) -> Option<Timestamp> {
        // Whole seconds: what is left of one would be in the result too.
        let time = DateTime::<Utc>::from_timestamp(i64::try_from(time.0 / 1_000).ok()?, 0)?;
        let next = self.0.find_next_occurrence(&time, false).ok()?;
        u64::try_from(next.timestamp_millis()).ok().map(Timestamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        let time = DateTime::parse_from_rfc3339(text).unwrap();
        Timestamp(u64::try_from(time.timestamp_millis()).unwrap())
    }

    #[test]
    fn the_next_time_is_after_the_one_that_is_given() {
        for (expression, after, expected) in [
            ("0 3 * * *", "2026-02-27T12:00:00Z", "2026-02-28T03:00:00Z"),
            ("0 3 * * *", "2026-02-28T03:00:00Z", "2026-03-01T03:00:00Z"),
            ("0 3 * * *", "2026-02-28T02:59:59.999Z", "2026-02-28T03:00:00Z"),
            ("*/15 * * * *", "2026-02-28T23:46:00Z", "2026-03-01T00:00:00Z"),
            ("*/10 * * * * *", "2026-02-28T23:59:51Z", "2026-03-01T00:00:00Z"),
            ("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("30 6 * * MON", "2026-11-23T06:30:00Z", "2026-11-30T06:30:00Z"),
            ("@hourly", "2026-11-23T06:30:00Z", "2026-11-23T07:00:00Z"),
        ] {
            let next = Schedule::parse(expression).unwrap().next_after(time(after));
            assert_eq!(next, Some(time(expected)), "{expression} after {after}");
        }
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        let long = "*".repeat(257);
        for expression in ["", "* * * *", "60 * * * *", "* * * * * * *", "every day", "0 0 * * 8", &long] {
            let error = Schedule::parse(expression).map(drop).unwrap_err();
            assert!(error.contains("the schedule"), "{error}");
        }
    }

    #[test]
    fn a_schedule_without_a_time_to_come_has_none() {
        assert_eq!(Schedule::parse("0 0 30 2 *").unwrap().next_after(Timestamp(0)), None);
        assert_eq!(Schedule::parse("* * * * *").unwrap().next_after(Timestamp(u64::MAX)), None);
    }
}
