//! When a technician works: days of the week and hours of the day, at the site's offset from UTC.
//!
//! A shift may pass midnight; it belongs to the day on which it begins. The site's offset is fixed: a site that changes its clocks
//! twice a year has its operator change `utc_offset_minutes` with them.

use serde::{Deserialize, Serialize};

/// One minute in milliseconds.
pub const MINUTE_MS: u64 = 60_000;

/// One day in milliseconds.
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;

/// A span of time: from, and up to but without to; milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The beginning.
    pub from_ts: u64,
    /// The end.
    pub to_ts: u64,
}

/// A day of the week; the number counts from Monday.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the days of the week")]
pub enum Weekday {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

/// A time of the day such as `08:30`, in minutes since midnight; `24:00` is the end of the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TimeOfDay(u32);

/// The text is no time of day.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no time of day such as 08:30")]
pub struct InvalidTimeOfDay(String);

/// Regular working hours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shift {
    /// The days on which it begins; all of them if left out.
    #[serde(default = "Shift::every_day")]
    pub days: Vec<Weekday>,
    /// When it begins.
    pub from: TimeOfDay,
    /// When it ends: on the next day if that is not after `from`.
    pub to: TimeOfDay,
}

impl Span {
    /// Whether the two have a moment in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.from_ts < other.to_ts && other.from_ts < self.to_ts
    }

    /// Whether `other` lies within this span.
    pub fn holds(&self, other: &Self) -> bool {
        self.from_ts <= other.from_ts && other.to_ts <= self.to_ts
    }
}

impl Weekday {
    /// All of them, from Monday.
    pub const ALL: [Self; 7] = [Self::Mon, Self::Tue, Self::Wed, Self::Thu, Self::Fri, Self::Sat, Self::Sun];

    /// The weekday of a day, counted from 1970-01-01, which was a Thursday.
    fn of_day(day: u64) -> Self {
        Self::ALL[((day + 3) % 7) as usize]
    }
}

impl Shift {
    /// All days of the week.
    pub fn every_day() -> Vec<Weekday> {
        Weekday::ALL.to_vec()
    }

    /// A shift on these days from one full hour to another.
    pub fn of_hours(days: &[Weekday], from: u32, to: u32) -> Self {
        Self { days: days.to_vec(), from: TimeOfDay(from * 60), to: TimeOfDay(to * 60) }
    }

    /// The working hours that have a moment in common with `within`, in order, as whole shifts.
    pub fn hours(&self, within: Span, utc_offset_minutes: i32) -> impl Iterator<Item = Span> + '_ {
        let offset_ms = i64::from(utc_offset_minutes) * MINUTE_MS as i64;
        let local_day = |ts: u64| ts.saturating_add_signed(offset_ms) / DAY_MS;
        // Yesterday's shift may still run.
        let days = local_day(within.from_ts).saturating_sub(1)..=local_day(within.to_ts);
        let (from, to) = (u64::from(self.from.0), u64::from(self.to.0));
        let minutes = if to > from { to - from } else { to + 24 * 60 - from };
        days.filter(|day| self.days.contains(&Weekday::of_day(*day)))
            .map(move |day| {
                let from_ts = (day * DAY_MS + from * MINUTE_MS).saturating_add_signed(-offset_ms);
                Span { from_ts, to_ts: from_ts + minutes * MINUTE_MS }
            })
            .filter(move |shift| shift.overlaps(&within))
    }
}

impl TryFrom<String> for TimeOfDay {
    type Error = InvalidTimeOfDay;

    fn try_from(text: String) -> Result<Self, InvalidTimeOfDay> {
        let parsed = text.split_once(':').and_then(|(hours, minutes)| {
            let digits = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
            if !digits(hours) || !digits(minutes) {
                return None;
            }
            let (hours, minutes): (u32, u32) = (hours.parse().ok()?, minutes.parse().ok()?);
            (minutes < 60 && hours * 60 + minutes <= 24 * 60).then_some(Self(hours * 60 + minutes))
        });
        parsed.ok_or(InvalidTimeOfDay(text))
    }
}

impl From<TimeOfDay> for String {
    fn from(time: TimeOfDay) -> Self {
        format!("{:02}:{:02}", time.0 / 60, time.0 % 60)
    }
}

#[cfg(test)]
mod tests {
    use vespiary_sdk::Timestamp;

    use super::*;

    /// 2026-01-01T00:00:00Z, a Thursday.
    const THURSDAY: u64 = 1_767_225_600_000;
    const HOUR_MS: u64 = 60 * MINUTE_MS;

    fn check(shift: &Shift, from_hour: u64, to_hour: u64, utc_offset_minutes: i32, expected: &[(&str, &str)]) {
        let within = Span { from_ts: THURSDAY + from_hour * HOUR_MS, to_ts: THURSDAY + to_hour * HOUR_MS };
        let text = |ts: u64| Timestamp::from_millis(ts).to_string()[5..16].to_owned();
        let hours: Vec<_> =
            shift.hours(within, utc_offset_minutes).map(|span| (text(span.from_ts), text(span.to_ts))).collect();
        let hours: Vec<_> = hours.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect();
        assert_eq!(hours, expected, "{shift:?}");
    }

    #[test]
    fn working_hours_follow_the_days_of_the_week() {
        let weekdays = Shift::of_hours(&Weekday::ALL[..5], 8, 16);
        let expected = [("01-01T08:00", "01-01T16:00"), ("01-02T08:00", "01-02T16:00"), ("01-05T08:00", "01-05T16:00")];
        check(&weekdays, 0, 5 * 24 - 8, 0, &expected);
        check(&weekdays, 16, 32, 0, &[]);
    }

    #[test]
    fn a_night_shift_belongs_to_the_day_on_which_it_begins() {
        let night = Shift::of_hours(&[Weekday::Wed, Weekday::Thu], 22, 6);
        check(&night, 5, 23, 0, &[("12-31T22:00", "01-01T06:00"), ("01-01T22:00", "01-02T06:00")]);
        check(&night, 6, 22, 0, &[]);
        check(&Shift::of_hours(&[Weekday::Thu], 6, 6), 0, 48, 0, &[("01-01T06:00", "01-02T06:00")]);
    }

    #[test]
    fn hours_are_those_of_the_site() {
        let day = Shift::of_hours(&[Weekday::Thu], 8, 16);
        check(&day, 0, 24, 60, &[("01-01T07:00", "01-01T15:00")]);
        check(&day, 0, 24, -300, &[("01-01T13:00", "01-01T21:00")]);
        // East of Greenwich, Thursday begins on UTC's Wednesday.
        check(&Shift::of_hours(&[Weekday::Fri], 0, 8), 0, 24, 600, &[("01-01T14:00", "01-01T22:00")]);
    }

    #[test]
    fn times_of_day_are_read_strictly() {
        let time = |text: &str| TimeOfDay::try_from(text.to_owned());
        assert_eq!(time("08:30"), Ok(TimeOfDay(510)));
        assert_eq!(time("24:00"), Ok(TimeOfDay(1440)));
        for text in ["8:30", "24:01", "12:60", "1200", "", "+1:00", "08:30:00"] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
