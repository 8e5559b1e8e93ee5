//! A technician's diary: bookings in order of time, of which no two overlap.

use serde::{Deserialize, Serialize};

use crate::check::CheckNumber;
use crate::shift::Span;

/// The most bookings in a diary: all of them may have to be moved by one event.
pub const MAX_BOOKINGS: usize = 200;

/// How long a booking stays in the diary after it ended: what the clock of a broker may be set back.
const KEPT_MS: u64 = 24 * 3_600_000;

/// A booking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Booking {
    /// When.
    #[serde(flatten)]
    pub span: Span,
    /// For which check.
    pub check: CheckNumber,
}

/// The bookings of one technician.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Diary(Vec<Booking>);

impl Diary {
    /// The bookings, in order of time.
    pub fn bookings(&self) -> &[Booking] {
        &self.0
    }

    /// Whether there is room for another booking.
    pub fn has_room(&self) -> bool {
        self.0.len() < MAX_BOOKINGS
    }

    /// Enters a booking.
    ///
    /// # Panics
    /// If it overlaps another one, or there is no room: the planner does not choose such a time.
    pub fn book(&mut self, booking: Booking) {
        let overlapped = self.0.iter().find(|other| other.span.overlaps(&booking.span));
        assert!(overlapped.is_none(), "{booking:?} overlaps {overlapped:?}");
        assert!(booking.span.from_ts < booking.span.to_ts && self.has_room(), "{booking:?} cannot be entered");
        let index = self.0.partition_point(|other| other.span.from_ts < booking.span.from_ts);
        self.0.insert(index, booking);
    }

    /// Takes a booking out; one that is not there is no error.
    pub fn release(&mut self, check: CheckNumber) {
        self.0.retain(|booking| booking.check != check);
    }

    /// Forgets what ended long before `now`, and says whether that was anything.
    pub fn forget(&mut self, now: u64) -> bool {
        let bookings = self.0.len();
        self.0.retain(|booking| booking.span.to_ts.saturating_add(KEPT_MS) > now);
        self.0.len() < bookings
    }

    /// The first time from `within.from_ts` on, in whole steps, at which `length_ms` fit into `within` between the bookings.
    pub fn first_gap(&self, within: Span, length_ms: u64, step_ms: u64) -> Option<Span> {
        let mut from_ts = within.from_ts.next_multiple_of(step_ms);
        let ahead = self.0.iter().filter(|booking| booking.span.to_ts > from_ts).collect::<Vec<_>>();
        for booking in ahead {
            if from_ts + length_ms <= booking.span.from_ts {
                break;
            }
            from_ts = from_ts.max(booking.span.to_ts.next_multiple_of(step_ms));
        }
        let gap = Span { from_ts, to_ts: from_ts + length_ms };
        within.holds(&gap).then_some(gap)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn span(from_ts: u64, to_ts: u64) -> Span {
        Span { from_ts, to_ts }
    }

    fn diary(spans: &[(u64, u64)]) -> Diary {
        let mut diary = Diary::default();
        for (number, (from, to)) in spans.iter().enumerate() {
            diary.book(Booking { span: span(*from, *to), check: CheckNumber(number as u64) });
        }
        diary
    }

    #[test]
    fn the_first_gap_is_found() {
        let diary = diary(&[(20, 30), (40, 50), (0, 10)]);
        let gap = |from, to, length| diary.first_gap(span(from, to), length, 5).map(|gap| gap.from_ts);
        assert_eq!(gap(0, 100, 10), Some(10));
        assert_eq!(gap(0, 100, 11), Some(50));
        assert_eq!(gap(11, 100, 10), Some(30));
        assert_eq!(gap(11, 100, 5), Some(15));
        assert_eq!(gap(0, 60, 11), None);
        assert_eq!(gap(90, 100, 10), Some(90));
        assert_eq!(gap(91, 100, 6), None);
    }

    #[test]
    #[should_panic(expected = "overlaps")]
    fn an_overlap_is_a_bug() {
        diary(&[(0, 10), (9, 11)]);
    }

    proptest! {
        /// Each gap that is found is free and the earliest one, and whatever is booked there, no two bookings overlap.
        #[test]
        fn gaps_are_free_and_the_earliest(wishes in proptest::collection::vec((0_u64..200, 1_u64..40, any::<bool>()), 1..60)) {
            let mut diary = Diary::default();
            for (number, (from, length, release)) in wishes.into_iter().enumerate() {
                let within = span(from, 260);
                let free = |start: u64, diary: &Diary| {
                    let wanted = span(start, start + length);
                    within.holds(&wanted) && diary.bookings().iter().all(|booking| !booking.span.overlaps(&wanted))
                };
                let expected = (0..300).step_by(5).find(|start| free(*start, &diary));
                let gap = diary.first_gap(within, length, 5);
                prop_assert_eq!(gap.map(|gap| gap.from_ts), expected);
                if let Some(gap) = gap {
                    diary.book(Booking { span: gap, check: CheckNumber(number as u64) });
                }
                if release {
                    diary.release(CheckNumber(number as u64 / 2));
                }
            }
        }
    }
}
