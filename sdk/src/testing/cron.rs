//! When a schedule falls due, in tests: five or six fields of numbers, names, ranges, lists and steps, in UTC.
//!
//! The host knows more (`L`, `#`, `W`); such an expression fails the test with a message that says so.

use crate::event::{Timestamp, civil_from_days};

/// Names of months, from 1 on.
const MONTHS: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];

/// Names of days of the week, from 0 on.
const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// Days that are looked through: a leap day may be eight years away.
const MAX_DAYS: u64 = 9 * 366;

/// A field: which numbers it takes, and whether it is `*`.
struct Field {
    /// Whether each number is taken.
    taken: Vec<bool>,
    /// Whether it says nothing.
    any: bool,
}

/// The first time after `now` that an expression means.
pub(super) fn next_after(expression: &str, now: Timestamp) -> Result<Timestamp, String> {
    let expression = match expression {
        "@hourly" => "0 * * * *",
        "@daily" | "@midnight" => "0 0 * * *",
        "@weekly" => "0 0 * * 0",
        "@monthly" => "0 0 1 * *",
        "@yearly" | "@annually" => "0 0 1 1 *",
        other => other,
    };
    let mut texts: Vec<&str> = expression.split_whitespace().collect();
    if texts.len() == 5 {
        texts.insert(0, "0");
    }
    let [seconds, minutes, hours, days, months, weekdays] = texts.as_slice() else {
        return Err(format!("`{expression}` has not five or six fields"));
    };
    let seconds = field(seconds, 0, 59, &[])?;
    let minutes = field(minutes, 0, 59, &[])?;
    let hours = field(hours, 0, 23, &[])?;
    let days = field(days, 1, 31, &[])?;
    let months = field(months, 1, 12, &MONTHS)?;
    let mut weekdays = field(weekdays, 0, 7, &DAYS)?;
    weekdays.taken[0] |= weekdays.taken[7];
    let first_second = now.as_millis() / 1_000 + 1;
    let first_day = first_second / 86_400;
    for day in first_day..first_day + MAX_DAYS {
        let (_, month, day_of_month) = civil_from_days(day);
        let by_day = days.taken[usize::from(day_of_month)];
        let by_weekday = weekdays.taken[((day + 4) % 7) as usize];
        // As in all crons: where both are given, one of them is enough.
        let concerned = if days.any || weekdays.any { by_day && by_weekday } else { by_day || by_weekday };
        if !concerned || !months.taken[usize::from(month)] {
            continue;
        }
        let start = if day == first_day { first_second % 86_400 } else { 0 };
        let taken = |second: &u64| {
            hours.taken[(second / 3_600) as usize]
                && minutes.taken[(second / 60 % 60) as usize]
                && seconds.taken[(second % 60) as usize]
        };
        if let Some(second) = (start..86_400).find(taken) {
            return Ok(Timestamp::from_millis((day * 86_400 + second) * 1_000));
        }
    }
    Err(format!("`{expression}` means no time in the next years"))
}

fn field(text: &str, least: usize, most: usize, names: &[&str]) -> Result<Field, String> {
    let mut taken = vec![false; most + 1];
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, step.parse::<usize>().ok().filter(|step| *step > 0)),
            None => (part, Some(1)),
        };
        let step = step.ok_or_else(|| format!("the step in `{part}` is no number"))?;
        let (first, last) = match range.split_once('-') {
            _ if range == "*" || range == "?" => (least, most),
            Some((first, last)) => (number(first, names, least)?, number(last, names, least)?),
            None if part.contains('/') => (number(range, names, least)?, most),
            None => {
                let only = number(range, names, least)?;
                (only, only)
            }
        };
        if first < least || last > most || first > last {
            return Err(format!("`{part}` is not within {least} to {most}"));
        }
        (first..=last).step_by(step).for_each(|number| taken[number] = true);
    }
    Ok(Field { taken, any: text == "*" || text == "?" })
}

fn number(text: &str, names: &[&str], least: usize) -> Result<usize, String> {
    let named = names.iter().position(|name| name.eq_ignore_ascii_case(text)).map(|index| index + least);
    named
        .or_else(|| text.parse().ok())
        .ok_or_else(|| format!("the test host does not understand `{text}` in a schedule"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_time_is_found() {
        // 2026-01-01 is a Thursday.
        let now = crate::testing::START;
        for (expression, expected) in [
            ("0 3 * * *", "2026-01-01T03:00:00.000Z"),
            ("0 0 * * *", "2026-01-02T00:00:00.000Z"),
            ("* * * * *", "2026-01-01T00:01:00.000Z"),
            ("*/10 * * * * *", "2026-01-01T00:00:10.000Z"),
            ("30 8 * * MON-FRI", "2026-01-01T08:30:00.000Z"),
            ("0 8 * * 7", "2026-01-04T08:00:00.000Z"),
            ("0 0 29 2 *", "2028-02-29T00:00:00.000Z"),
            ("0 12 13 * FRI", "2026-01-02T12:00:00.000Z"),
            ("15,45 22-23/1 * mar *", "2026-03-01T22:15:00.000Z"),
            ("@monthly", "2026-02-01T00:00:00.000Z"),
        ] {
            assert_eq!(next_after(expression, now).unwrap().to_string(), expected, "{expression}");
        }
        for expression in ["0 3 * *", "0 25 * * *", "0 3 L * *", "0 0 30 2 *", "x * * * *", "*/0 * * * *"] {
            assert!(next_after(expression, now).is_err(), "{expression}");
        }
    }
}
