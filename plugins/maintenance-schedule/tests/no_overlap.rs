//! The one promise that must never break, checked from outside: whatever happens, in the messages that the service publishes
//! no two checks of one technician are at one time, and no order has two.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use vespiary_sdk::serde_json::{Value, json};
use vespiary_sdk::testing::TestHost;

const HOUR_MS: u64 = 3_600_000;
const SKILLS: [&str; 3] = ["bearings", "welding", "electrical"];

/// Something that happens to the service.
#[derive(Debug, Clone)]
enum Happening {
    Order { number: u32, closed: bool, due_hours: u64, minutes: u32, skill: usize, lost: bool },
    Complete { check: u32 },
    Cancel { check: u32 },
    Technician { id: u32, skills: usize, from: u32, to: u32, active: bool },
    Gone { id: u32 },
    Time { minutes: u64 },
}

fn happening() -> impl Strategy<Value = Happening> {
    let order = (1..12_u32, 0..8_u8, 0..100_u64, 1..400_u32, 0..3_usize, any::<bool>()).prop_map(
        |(number, closed, due_hours, minutes, skill, lost)| Happening::Order {
            number,
            closed: closed == 0,
            due_hours,
            minutes,
            skill,
            lost,
        },
    );
    let technician = (0..3_u32, 1..4_usize, 0..24_u32, 0..25_u32, 0..4_u8)
        .prop_map(|(id, skills, from, to, active)| Happening::Technician { id, skills, from, to, active: active > 0 });
    prop_oneof![
        8 => order,
        2 => (1..12_u32).prop_map(|check| Happening::Complete { check }),
        2 => (1..12_u32).prop_map(|check| Happening::Cancel { check }),
        2 => technician,
        1 => (0..3_u32).prop_map(|id| Happening::Gone { id }),
        2 => (0..600_u64).prop_map(|minutes| Happening::Time { minutes }),
    ]
}

fn apply(host: &mut TestHost, happening: Happening) {
    match happening {
        Happening::Order { number, closed, due_hours, minutes, skill, lost } => {
            if lost {
                host.crash_after_next_call();
            }
            let order = format!("WO-{number:06}");
            let due_ts = host.now().as_millis() + due_hours * HOUR_MS;
            let status = if closed { "closed" } else { "open" };
            let payload = json!({ "order": &order, "status": status, "asset": "PUMP-01", "location": "x",
                "skills": [SKILLS[skill]], "tools": [], "check_minutes": minutes, "due_ts": due_ts });
            host.publish(format!("workorders/{order}"), payload);
        }
        Happening::Complete { check } => {
            host.publish(format!("checks/CHK-{check:06}/complete"), json!({ "outcome": "repaired" }));
        }
        Happening::Cancel { check } => {
            host.publish(format!("checks/CHK-{check:06}/cancel"), json!({ "why": "x" }));
        }
        Happening::Technician { id, skills, from, to, active } => {
            let shift = json!({ "from": format!("{from:02}:00"), "to": format!("{to:02}:00") });
            let profile = json!({ "name": "x", "skills": &SKILLS[..skills], "shift": shift, "active": active });
            host.publish(format!("registry/technicians/{id}"), profile);
        }
        Happening::Gone { id } => {
            host.publish_bytes(format!("registry/technicians/{id}"), "");
        }
        Happening::Time { minutes } => host.advance(Duration::from_secs(minutes * 60)),
    }
    host.settle();
}

proptest! {
    #[test]
    fn no_two_checks_of_one_technician_overlap(happenings in proptest::collection::vec(happening(), 1..80)) {
        let mut host = TestHost::new(maintenance_schedule::plugin());
        for happening in happenings {
            apply(&mut host, happening);
        }
        let mut planned: BTreeMap<String, (String, u64, u64, String)> = BTreeMap::new();
        for message in host.published("checks/+") {
            let check: Value = message.json();
            let text = |field: &str| check[field].as_str().unwrap_or_default().to_owned();
            let number = |field: &str| check[field].as_u64().unwrap_or_default();
            if text("event") == "CheckOverdue" {
                prop_assert!(planned.contains_key(&text("check")) && number("to_ts") < message.at.as_millis(), "{check}");
                continue;
            }
            planned.remove(&text("check"));
            if text("status") != "planned" {
                continue;
            }
            let (from, to) = (number("from_ts"), number("to_ts"));
            prop_assert!(from < to && to <= number("due_ts"), "{check}");
            prop_assert!(from > message.at.as_millis(), "planned in the past: {check}");
            for (technician, other_from, other_to, order) in planned.values() {
                let apart = to <= *other_from || *other_to <= from;
                prop_assert!(*technician != text("technician") || apart, "overlaps {other_from}..{other_to}: {check}");
                prop_assert!(*order != text("order"), "a second check for the order: {check}");
            }
            planned.insert(text("check"), (text("technician"), from, to, text("order")));
        }
        for letter in host.dead_letters() {
            prop_assert!(!letter.reason.contains("missing") && !letter.reason.contains("overlap"), "{}", letter.reason);
        }
    }
}
