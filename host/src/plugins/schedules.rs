//! Timers that fall due again and again.
//!
//! The broker fires a timer once. One that has a schedule is set again in the transaction that its event leaves the inbox
//! by, handled or given up, at the next time that the schedule names from then: what passes meanwhile comes as one event. A
//! plugin's own timer writes of the same event come after it, and so have the last word.
//!
//! Not set again: one that the plugin set or cancelled itself since it fell due, and one that the manifest of an earlier
//! revision declared and that of the active one does not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vespiary_core::Timestamp;
use vespiary_core::event::{InboxEvent, SCHEDULE_PROPERTY, TIMER_TOPICS, Timer, TimerWrite};

use super::manifest::Schedule;
use crate::schedule;

/// Names of timers that are remembered because the plugin touched them; the oldest go.
const TOUCHED: usize = 10_000;

/// What the active revision declares, and what has become of timers meanwhile.
#[derive(Debug, Default)]
pub(super) struct Schedules {
    /// Name and expression of those that the active manifest declares.
    declared: BTreeMap<Arc<str>, Arc<str>>,
    /// Name and expression of those that a manifest before declared.
    retired: BTreeSet<(Arc<str>, Arc<str>)>,
    /// When the plugin last set or cancelled a timer by itself.
    touched: BTreeMap<Arc<str>, Timestamp>,
}

impl Schedules {
    /// Takes what the manifest of a revision that becomes active declares; what was declared before is retired.
    pub(super) fn declare(&mut self, schedules: &[Schedule]) {
        let before = std::mem::take(&mut self.declared);
        self.retired.extend(before);
        for Schedule { name, cron, .. } in schedules {
            self.declared.insert(name.as_str().into(), cron.as_str().into());
        }
        let declared = &self.declared;
        self.retired.retain(|(name, cron)| declared.get(name) != Some(cron));
    }

    /// Takes what the manifest of a revision that is not active any more declared.
    pub(super) fn retire(&mut self, schedules: &[Schedule]) {
        for Schedule { name, cron, .. } in schedules {
            if self.declared.get(name.as_str()).is_none_or(|declared| **declared != **cron) {
                self.retired.insert((name.as_str().into(), cron.as_str().into()));
            }
        }
    }

    /// Notes the timers that the plugin sets and cancels.
    pub(super) fn touch(&mut self, now: Timestamp, writes: &[TimerWrite]) {
        for write in writes {
            self.touched.insert(Arc::clone(&write.name), now);
        }
        if self.touched.len() > TOUCHED {
            let mut times: Vec<Timestamp> = self.touched.values().copied().collect();
            times.sort_unstable();
            let middle = times[times.len() / 2];
            self.touched.retain(|_, at| *at > middle);
        }
    }

    /// The write that sets the timer of this event again, if the event is that of a timer with a schedule that is still
    /// wanted.
    pub(super) fn again(&self, now: Timestamp, event: &InboxEvent) -> Option<TimerWrite> {
        let name = event.message.topic.as_str().strip_prefix(TIMER_TOPICS)?.strip_prefix('/')?;
        let properties = event.message.properties.as_ref()?;
        let (_, expression) = properties.user_properties.iter().find(|(name, _)| **name == *SCHEDULE_PROPERTY)?;
        if self.touched.get(name).is_some_and(|&at| at >= event.message.received_at) {
            return None;
        }
        let (name, expression): (Arc<str>, Arc<str>) = (name.into(), (&**expression).into());
        let declared = match self.declared.get(&name) {
            Some(cron) if *cron == expression => true,
            // The one of the same name that is declared now has a timer of its own.
            Some(_) => return None,
            None if self.retired.contains(&(Arc::clone(&name), Arc::clone(&expression))) => return None,
            None => false,
        };
        let payload = Arc::from(&*event.message.payload);
        let timer = next_timer(now, &expression, declared, payload)?;
        Some(TimerWrite { name, timer: Some(timer) })
    }
}

/// The timers that a manifest's schedules come to, by name.
pub(super) fn timers(now: Timestamp, schedules: &[Schedule]) -> Vec<(Arc<str>, Timer)> {
    let timer = |schedule: &Schedule| {
        let timer = next_timer(now, &schedule.cron, true, schedule.payload.as_slice().into())?;
        Some((schedule.name.as_str().into(), timer))
    };
    schedules.iter().filter_map(timer).collect()
}

/// The next timer of a schedule; `None` where there is no next time.
fn next_timer(now: Timestamp, expression: &str, declared: bool, payload: Arc<[u8]>) -> Option<Timer> {
    let at = schedule::Schedule::parse(expression).ok()?.next_after(now)?;
    Some(Timer { at, schedule: Some(expression.into()), declared, payload })
}

#[cfg(test)]
mod tests {
    use vespiary_core::event::Sequence;
    use vespiary_core::message::MessageProperties;
    use vespiary_core::{Message, Qos, Topic};

    use super::*;

    const HOUR_MS: u64 = 3_600_000;

    fn schedule(name: &str, cron: &str) -> Schedule {
        Schedule { name: name.to_owned(), cron: cron.to_owned(), payload: b"x".to_vec() }
    }

    fn fired(name: &str, cron: Option<&str>, at: u64) -> InboxEvent {
        let user_properties = cron.map(|cron| (SCHEDULE_PROPERTY.into(), cron.into())).into_iter().collect();
        let message = Message {
            topic: Topic::parse(&format!("$timer/{name}")).unwrap(),
            payload: b"x".as_slice().into(),
            qos: Qos::AtLeastOnce,
            retain: false,
            properties: Some(Box::new(MessageProperties { user_properties, ..MessageProperties::default() })),
            expires_at: None,
            received_at: Timestamp(at),
            publisher: "".into(),
            user: None,
        };
        let (sequence, message) = (Sequence(1), Arc::new(message));
        InboxEvent { sequence, message, qos: Qos::AtLeastOnce, retain: false, attempt: 0, replayed: false }
    }

    #[test]
    fn a_declared_schedule_is_set_again_from_now_as_one() {
        let mut schedules = Schedules::default();
        schedules.declare(&[schedule("hourly", "0 * * * *")]);
        let now = Timestamp(5 * HOUR_MS + 1);
        let write = schedules.again(now, &fired("hourly", Some("0 * * * *"), HOUR_MS)).unwrap();
        let timer = write.timer.unwrap();
        assert_eq!((&*write.name, timer.at, timer.declared), ("hourly", Timestamp(6 * HOUR_MS), true));
        assert_eq!((timer.schedule.as_deref(), &*timer.payload), (Some("0 * * * *"), &b"x"[..]));
    }

    #[test]
    fn only_what_is_still_wanted_is_set_again() {
        let mut schedules = Schedules::default();
        schedules.declare(&[
            schedule("kept", "0 * * * *"),
            schedule("gone", "0 * * * *"),
            schedule("new", "0 1 * * *"),
        ]);
        schedules.declare(&[schedule("kept", "0 * * * *"), schedule("new", "0 2 * * *")]);
        let cancel = TimerWrite { name: "cancelled".into(), timer: None };
        schedules.touch(Timestamp(20), &[cancel]);
        for (name, cron, at, expected) in [
            ("kept", Some("0 * * * *"), 10, Some(true)),
            ("gone", Some("0 * * * *"), 10, None),
            ("new", Some("0 1 * * *"), 10, None),
            ("new", Some("0 2 * * *"), 10, Some(true)),
            ("own", Some("*/5 * * * *"), 10, Some(false)),
            ("cancelled", Some("*/5 * * * *"), 10, None),
            ("cancelled", Some("*/5 * * * *"), 30, Some(false)),
            ("once", None, 10, None),
            ("odd", Some("never"), 10, None),
        ] {
            let write = schedules.again(Timestamp(40), &fired(name, cron, at));
            let declared = write.map(|write| write.timer.unwrap().declared);
            assert_eq!(declared, expected, "{name} {cron:?} {at}");
        }
    }

    #[test]
    fn a_schedule_that_is_declared_again_is_not_retired() {
        let mut schedules = Schedules::default();
        schedules.retire(&[schedule("a", "0 * * * *")]);
        assert_eq!(schedules.again(Timestamp(0), &fired("a", Some("0 * * * *"), 0)), None);
        schedules.declare(&[schedule("a", "0 * * * *")]);
        assert!(schedules.again(Timestamp(0), &fired("a", Some("0 * * * *"), 0)).is_some());
    }
}
