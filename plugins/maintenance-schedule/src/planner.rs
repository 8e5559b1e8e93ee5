//! Finds who can do a check, and when: the earliest free time of a technician who has the skills, before it is due.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::diary::Diary;
use crate::shift::{MINUTE_MS, Span};
use crate::technician::Technician;

/// Checks begin at full quarters of an hour.
const STEP_MS: u64 = 15 * MINUTE_MS;

/// How far past the due time an alternative is looked for.
const LOOK_PAST_DUE_MS: u64 = 14 * 24 * 60 * MINUTE_MS;

/// How far ahead anything is planned at all.
const HORIZON_MS: u64 = 90 * 24 * 60 * MINUTE_MS;

/// Somebody who might be sent, with the diary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The technician's key.
    pub id: String,
    /// Who it is.
    pub technician: Technician,
    /// What the technician has to do already.
    pub diary: Diary,
}

/// What is to be planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// What it takes.
    pub skills: BTreeSet<String>,
    /// How long it takes.
    pub minutes: u32,
    /// Who is reserved for it, if somebody is.
    pub reserved: Option<String>,
    /// When it may begin, and when it must be over.
    pub within: Span,
}

/// Who goes, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Index into the candidates.
    pub candidate: usize,
    /// When.
    pub span: Span,
}

/// Why nobody can be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum Unplannable {
    /// No technician has all of the skills.
    #[error("no technician can do {}", missing.join(" and "))]
    NoTechnician {
        /// The skills that nobody has; all of them if each is there, but nobody has them together.
        missing: Vec<String>,
    },
    /// Those who have the skills are not there, or have other checks, until it is due.
    #[error("no technician who can do it is free before it is due")]
    NoFreeTime {
        /// The first free time after that, if there is one within two weeks; milliseconds since the Unix epoch.
        earliest_ts: Option<u64>,
    },
    /// It waited until it was due.
    #[error("it is due, and nobody could be sent before")]
    Overdue,
}

/// Finds the earliest slot of the technician who is reserved; if there is none, the earliest of all, and of several, that of the
/// technician with the fewest bookings, then of the first candidate.
pub fn plan(candidates: &[Candidate], need: &Need, utc_offset_minutes: i32) -> Result<Slot, Unplannable> {
    if !candidates.iter().any(|candidate| candidate.technician.can(&need.skills)) {
        return Err(no_technician(candidates, need));
    }
    let horizon = need.within.from_ts.saturating_add(HORIZON_MS);
    let until = |to_ts: u64| Span { from_ts: need.within.from_ts, to_ts: to_ts.min(horizon) };
    earliest(candidates, need, until(need.within.to_ts), utc_offset_minutes).ok_or_else(|| {
        let past_due = until(need.within.to_ts.max(need.within.from_ts).saturating_add(LOOK_PAST_DUE_MS));
        let alternative = earliest(candidates, need, past_due, utc_offset_minutes);
        Unplannable::NoFreeTime { earliest_ts: alternative.map(|slot| slot.span.from_ts) }
    })
}

fn earliest(candidates: &[Candidate], need: &Need, within: Span, utc_offset_minutes: i32) -> Option<Slot> {
    let able = candidates.iter().enumerate().filter(|(_, candidate)| candidate.technician.can(&need.skills));
    let slots = able.filter_map(|(index, candidate)| {
        let span = first_free(candidate, need.minutes, within, utc_offset_minutes)?;
        let is_other = need.reserved.as_ref() != Some(&candidate.id);
        Some(((is_other, span.from_ts, candidate.diary.bookings().len(), index), Slot { candidate: index, span }))
    });
    slots.min_by_key(|(rank, _)| *rank).map(|(_, slot)| slot)
}

fn first_free(candidate: &Candidate, minutes: u32, within: Span, utc_offset_minutes: i32) -> Option<Span> {
    if within.from_ts >= within.to_ts || !candidate.diary.has_room() {
        return None;
    }
    candidate.technician.shift.hours(within, utc_offset_minutes).find_map(|shift| {
        let hours = Span { from_ts: shift.from_ts.max(within.from_ts), to_ts: shift.to_ts.min(within.to_ts) };
        candidate.diary.first_gap(hours, u64::from(minutes) * MINUTE_MS, STEP_MS)
    })
}

fn no_technician(candidates: &[Candidate], need: &Need) -> Unplannable {
    let active = || candidates.iter().filter(|candidate| candidate.technician.active);
    let nobody_has = |skill: &&String| !active().any(|candidate| candidate.technician.skills.contains(*skill));
    let mut missing: Vec<String> = need.skills.iter().filter(nobody_has).cloned().collect();
    if missing.is_empty() {
        missing = need.skills.iter().cloned().collect();
    }
    Unplannable::NoTechnician { missing }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::CheckNumber;
    use crate::diary::Booking;
    use crate::shift::{Shift, Weekday};

    /// 2026-01-01T00:00:00Z, a Thursday.
    const THURSDAY: u64 = 1_767_225_600_000;
    const HOUR_MS: u64 = 60 * MINUTE_MS;

    fn candidate(id: &str, skills: &[&str], from: u32, to: u32, booked: &[(u64, u64)]) -> Candidate {
        let mut diary = Diary::default();
        for (number, (from, to)) in booked.iter().enumerate() {
            let span = Span { from_ts: THURSDAY + from * HOUR_MS, to_ts: THURSDAY + to * HOUR_MS };
            diary.book(Booking { span, check: CheckNumber(number as u64) });
        }
        let skills = skills.iter().map(|skill| (*skill).to_owned()).collect();
        let shift = Shift::of_hours(&Weekday::ALL[..5], from, to);
        Candidate { id: id.into(), technician: Technician { name: id.into(), skills, shift, active: true }, diary }
    }

    fn need(skills: &[&str], from_hour: u64, to_hour: u64) -> Need {
        let skills = skills.iter().map(|skill| (*skill).to_owned()).collect();
        let within = Span { from_ts: THURSDAY + from_hour * HOUR_MS, to_ts: THURSDAY + to_hour * HOUR_MS };
        Need { skills, minutes: 60, reserved: None, within }
    }

    /// Who goes, and at which hour after Thursday 00:00.
    fn planned(candidates: &[Candidate], need: &Need) -> Result<(String, u64), Unplannable> {
        let slot = plan(candidates, need, 0)?;
        Ok((candidates[slot.candidate].id.clone(), (slot.span.from_ts - THURSDAY) / HOUR_MS))
    }

    #[test]
    fn the_first_who_is_free_and_able_goes() {
        let early = candidate("early", &["bearings"], 6, 14, &[(6, 9)]);
        let late = candidate("late", &["bearings", "electrical"], 8, 16, &[]);
        let candidates = [early, late];
        assert_eq!(planned(&candidates, &need(&["bearings"], 0, 24)), Ok(("late".into(), 8)));
        assert_eq!(planned(&candidates, &need(&["electrical"], 9, 24)), Ok(("late".into(), 9)));
        // Both are free at nine: the one with fewer bookings.
        assert_eq!(planned(&candidates, &need(&["bearings"], 9, 24)), Ok(("late".into(), 9)));
    }

    #[test]
    fn who_is_reserved_goes_if_that_is_possible() {
        let early = candidate("early", &["bearings"], 6, 14, &[]);
        let late = candidate("late", &["bearings"], 8, 16, &[]);
        let candidates = [early, late];
        let reserved = |id: &str, to| Need { reserved: Some(id.to_owned()), ..need(&["bearings"], 0, to) };
        assert_eq!(planned(&candidates, &reserved("late", 24)), Ok(("late".into(), 8)));
        assert_eq!(planned(&candidates, &reserved("late", 8)), Ok(("early".into(), 6)));
        assert_eq!(planned(&candidates, &reserved("somebody else", 24)), Ok(("early".into(), 6)));
    }

    #[test]
    fn a_check_ends_within_the_shift_and_before_it_is_due() {
        let candidates = [candidate("ada", &["bearings"], 8, 16, &[(8, 15)])];
        assert_eq!(planned(&candidates, &need(&["bearings"], 0, 16)), Ok(("ada".into(), 15)));
        let late = planned(&candidates, &need(&["bearings"], 0, 15));
        assert_eq!(late, Err(Unplannable::NoFreeTime { earliest_ts: Some(THURSDAY + 15 * HOUR_MS) }));
    }

    #[test]
    fn over_the_weekend_nobody_of_the_week_goes() {
        let candidates = [candidate("ada", &["bearings"], 8, 16, &[])];
        let monday = THURSDAY + (4 * 24 + 8) * HOUR_MS;
        let weekend = planned(&candidates, &need(&["bearings"], 48, 72));
        assert_eq!(weekend, Err(Unplannable::NoFreeTime { earliest_ts: Some(monday) }));
    }

    #[test]
    fn what_nobody_can_do_is_named() {
        let candidates = [candidate("ada", &["bearings"], 8, 16, &[]), candidate("bo", &["electrical"], 8, 16, &[])];
        let missing = |skills: &[&str]| match planned(&candidates, &need(skills, 0, 24)) {
            Err(Unplannable::NoTechnician { missing }) => missing,
            other => panic!("{other:?}"),
        };
        assert_eq!(missing(&["bearings", "welding"]), ["welding"]);
        assert_eq!(missing(&["bearings", "electrical"]), ["bearings", "electrical"]);
        assert_eq!(
            planned(&candidates, &need(&["welding"], 0, 24)).map_err(|error| error.to_string()),
            Err("no technician can do welding".into())
        );
    }

    #[test]
    fn what_is_overdue_gets_an_alternative() {
        let candidates = [candidate("ada", &["bearings"], 8, 16, &[])];
        let overdue = planned(&candidates, &need(&["bearings"], 20, 10));
        assert_eq!(overdue, Err(Unplannable::NoFreeTime { earliest_ts: Some(THURSDAY + 32 * HOUR_MS) }));
    }
}
