//! Sagas: whatever fails, either all steps are done or all that were done are undone, or it shows.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use vespiary_sdk::prelude::*;
use vespiary_sdk::saga::{Ask, Ended, Reply, Saga, Status, Step as SagaStep, Turn};
use vespiary_sdk::serde_json::Value;
use vespiary_sdk::testing::{Delivery, TestHost};

plugin! {
    name: "builder",
    handlers: [wanted, answered, due, floor, floor_gone, again, forget, more],
    publishes: ["do/+", "undo/+", "houses/+"],
}

/// What a saga of these tests knows.
#[derive(Debug, Default, Serialize, Deserialize)]
struct House {
    /// What the answers said.
    learned: Vec<String>,
    /// Whether it has no garden.
    gardenless: bool,
    /// What makes the step `roof` fail before it asks.
    roofless: bool,
}

/// An answer in these tests.
#[derive(Serialize, Deserialize)]
struct Answered {
    ok: bool,
}

fn house() -> Saga<House> {
    const TIMEOUT: Duration = Duration::from_secs(10);
    Saga::new("house")
        .step(
            SagaStep::new("walls", |_, id, _| Ok(Ask::request("do/walls", id.to_owned())?.timeout(TIMEOUT)), learn)
                .compensated_by(|_, id, _| Ok(Ask::request("undo/walls", id.to_owned())?.timeout(TIMEOUT)), learn),
        )
        .step(
            SagaStep::new("floor", |_, id, _| Ok(Ask::message("do/floor", id.to_owned())?.timeout(TIMEOUT)), learn)
                .compensated_by(|_, id, _| Ok(Ask::message("undo/floor", id.to_owned())?.timeout(TIMEOUT)), learn),
        )
        .step(
            SagaStep::new("garden", |_, id, house| garden(id, house), learn)
                .compensated_by(|_, id, _| Ok(Ask::request("undo/garden", id.to_owned())?.timeout(TIMEOUT)), learn)
                .optional(),
        )
        .step(
            SagaStep::new("roof", |_, id, house| roof(id, house), learn)
                .compensated_by(|_, id, _| Ok(Ask::request("undo/roof", id.to_owned())?.timeout(TIMEOUT)), learn),
        )
        .deadline(Duration::from_secs(25))
        .on_end(ended)
}

fn learn(house: &mut House, answer: &Event) -> Result<Reply> {
    let Answered { ok } = answer.json()?;
    house.learned.push(answer.text()?.to_owned());
    Ok(if ok { Reply::Accepted } else { Reply::refused("no") })
}

fn garden(id: &str, house: &House) -> Result<Ask> {
    if house.gardenless {
        Ask::nothing()
    } else {
        Ok(Ask::request("do/garden", id.to_owned())?.timeout(Duration::from_secs(10)))
    }
}

fn roof(id: &str, house: &House) -> Result<Ask> {
    if house.roofless {
        return Err(Error::reject("no tiles"));
    }
    Ok(Ask::request("do/roof", id.to_owned())?.timeout(Duration::from_secs(10)))
}

fn ended(cx: &Context, id: &str, ended: &Ended<'_, House>) -> Result<()> {
    cx.publish(format!("houses/{id}"), Json((ended.status, ended.reason, ended.data.learned.len())))
}

#[on("houses/{id}/wanted")]
fn wanted(cx: &mut Context, id: &str, Text(how): Text) -> Result<()> {
    let data = House { gardenless: how == "gardenless", roofless: how == "roofless", ..House::default() };
    let began = house().begin(cx, id, data)?;
    assert!(house().status(cx, id)?.is_some());
    info!("began: {began}");
    Ok(())
}

#[on_response("saga/house/{id}/{turn}")]
fn answered(cx: &mut Context, id: &str, turn: Turn) -> Result<()> {
    house().advance(cx, id, turn)
}

#[on_timer("saga/house/{id}/{turn}")]
fn due(cx: &mut Context, id: &str, turn: Turn) -> Result<()> {
    house().advance(cx, id, turn)
}

#[on("floors/{id}/laid")]
fn floor(cx: &mut Context, id: &str) -> Result<()> {
    house().resume(cx, id, "floor").map(drop)
}

#[on("floors/{id}/gone")]
fn floor_gone(cx: &mut Context, id: &str) -> Result<()> {
    house().acknowledge(cx, id, "floor").map(drop)
}

#[on("houses/{id}/again")]
fn again(cx: &mut Context, id: &str) -> Result<()> {
    house().retry(cx, id).map(drop)
}

#[on("houses/{id}/forget")]
fn forget(cx: &mut Context, id: &str) -> Result<()> {
    house().forget(cx, id).map(drop)
}

#[on("houses/{id}/more")]
fn more(cx: &mut Context, id: &str) -> Result<()> {
    let changed = house().update(cx, id, |house| house.roofless = true)?;
    info!("changed: {changed}");
    Ok(())
}

const YES: Json<Answered> = Json(Answered { ok: true });
const NO: Json<Answered> = Json(Answered { ok: false });

fn begun() -> TestHost {
    let mut host = TestHost::new(plugin());
    host.publish_bytes("houses/7/wanted", "");
    host
}

/// A saga of which this many of the four steps are done.
fn done(steps: usize) -> TestHost {
    let mut host = begun();
    for step in ["walls", "floor", "garden", "roof"].into_iter().take(steps) {
        accept(&mut host, step);
    }
    host
}

fn accept(host: &mut TestHost, step: &str) {
    if step == "floor" {
        host.publish("floors/7/laid", json!({ "ok": true }));
    } else {
        host.answer(&format!("do/{step}"), YES);
    }
}

fn undo(host: &mut TestHost, step: &str) {
    if step == "floor" {
        host.publish("floors/7/gone", json!({ "ok": true }));
    } else {
        host.answer(&format!("undo/{step}"), YES);
    }
}

/// What was asked for so far.
fn asked(host: &TestHost) -> Vec<String> {
    let mut asked: Vec<String> = Vec::new();
    for message in host.published("#") {
        if message.topic.starts_with("do/") || message.topic.starts_with("undo/") {
            asked.push(message.topic);
        }
    }
    asked
}

fn record(host: &TestHost) -> Value {
    host.state("saga/house/7").unwrap()
}

#[test]
fn steps_follow_each_other_and_the_saga_is_completed() {
    let mut host = begun();
    let request = &host.published("do/walls")[0];
    assert!(request.properties.iter().any(|one| one.name == "user:saga" && one.value == "house/7/walls"));
    assert_eq!(asked(&host), ["do/walls"]);
    for step in ["walls", "floor", "garden", "roof"] {
        host.assert_nothing_published("houses/7");
        accept(&mut host, step);
    }
    assert_eq!(asked(&host), ["do/walls", "do/floor", "do/garden", "do/roof"]);
    host.assert_published("houses/7", json!(["completed", null, 4]));
    assert!(host.timers().is_empty(), "{:?}", host.timers());
    let measured = host.measurements();
    assert_eq!(measured[0].labels[1], ("status".to_owned(), "completed".to_owned()));
}

#[test]
fn a_refusal_undoes_what_is_done_the_last_first_and_not_what_was_refused() {
    let mut host = done(3);
    host.answer("do/roof", NO);
    for step in ["garden", "floor", "walls"] {
        host.assert_nothing_published("houses/7");
        undo(&mut host, step);
    }
    assert_eq!(asked(&host)[4..], ["undo/garden", "undo/floor", "undo/walls"]);
    host.assert_published("houses/7", json!(["compensated", "roof: no", 7]));
    assert!(host.timers().is_empty(), "{:?}", host.timers());
}

#[test]
fn a_step_without_an_answer_in_time_is_undone_too() {
    for (steps, step) in
        ["walls", "floor", "roof"].into_iter().enumerate().map(|(index, step)| ([0, 1, 3][index], step))
    {
        let mut host = done(steps);
        host.advance(Duration::from_secs(10));
        assert_eq!(asked(&host)[steps + 1], format!("undo/{step}"));
        assert_eq!(record(&host)["reason"], json!(format!("{step}: no answer came in time")));
        // The answer comes after all: too late.
        if step == "floor" {
            accept(&mut host, "floor");
            assert_eq!(record(&host)["status"], json!("compensating"));
        }
    }
}

#[test]
fn an_answer_that_makes_no_sense_leaves_open_whether_the_step_is_done() {
    let mut host = begun();
    host.answer("do/walls", "{");
    undo(&mut host, "walls");
    let ended: Value = host.published("houses/7")[0].json();
    assert_eq!(ended[0], json!("compensated"));
    assert!(ended[1].as_str().unwrap().starts_with("walls: the payload: EOF"), "{ended}");
}

#[test]
fn an_optional_step_is_left_out_if_it_fails_and_undone_if_it_may_be_done() {
    let mut host = done(2);
    host.answer("do/garden", NO);
    accept(&mut host, "roof");
    host.assert_published("houses/7", json!(["completed", null, 4]));

    let mut host = done(2);
    host.advance(Duration::from_secs(10));
    host.answer("do/roof", NO);
    assert_eq!(asked(&host)[4..], ["undo/garden"]);
}

#[test]
fn a_step_that_asks_nothing_is_passed_over_and_one_that_rejects_is_refused() {
    let mut host = TestHost::new(plugin());
    host.publish_bytes("houses/7/wanted", "gardenless");
    for step in ["walls", "floor", "roof"] {
        accept(&mut host, step);
    }
    host.assert_published("houses/7", json!(["completed", null, 3]));

    let mut host = done(2);
    host.publish_bytes("houses/7/more", "");
    accept(&mut host, "garden");
    assert_eq!(record(&host)["reason"], json!("roof: no tiles"));
    host.publish_bytes("houses/7/more", "");
    for step in ["garden", "floor", "walls"] {
        undo(&mut host, step);
    }
    host.publish_bytes("houses/7/more", "");
    let changed: Vec<String> =
        host.logs().into_iter().map(|line| line.message).filter(|line| line.starts_with("changed")).collect();
    assert_eq!(changed, ["changed: true", "changed: true", "changed: false"]);
}

#[test]
fn the_deadline_ends_the_steps_and_gives_the_compensations_their_time() {
    let mut host = begun();
    for step in ["walls", "floor", "garden"] {
        host.advance(Duration::from_secs(8));
        accept(&mut host, step);
    }
    host.advance(Duration::from_secs(1));
    assert_eq!(record(&host)["reason"], json!("roof: the deadline of the saga has passed"));
    assert_eq!(host.answer("do/roof", YES), Delivery::Done, "it comes too late");
    for step in ["roof", "garden", "floor", "walls"] {
        host.advance(Duration::from_secs(9));
        undo(&mut host, step);
    }
    assert_eq!(record(&host)["status"], json!("compensated"));
}

#[test]
fn a_compensation_is_tried_again_until_it_is_acknowledged_and_then_the_saga_is_stuck() {
    let mut host = done(1);
    host.publish("floors/7/laid", json!({ "ok": false }));
    for pause in [1, 2, 4, 8] {
        host.answer("undo/walls", NO);
        assert!(host.requests("undo/walls").is_empty());
        host.advance(Duration::from_secs(pause));
    }
    host.advance(Duration::from_secs(9));
    host.assert_nothing_published("houses/7");
    host.advance(Duration::from_secs(1));
    let reason = "floor: no; the compensation of walls: no answer came in time";
    host.assert_published("houses/7", json!(["stuck", reason, 6]));
    assert!(host.logs().iter().any(|line| line.message == format!("saga house/7 is stuck: {reason}")));
    // It stays for whoever looks, and can be tried again.
    host.advance(Duration::from_secs(30 * 24 * 3_600));
    assert_eq!((record(&host)["status"].clone(), record(&host)["done"].clone()), (json!("stuck"), json!(["walls"])));
    host.publish_bytes("houses/7/again", "");
    undo(&mut host, "walls");
    assert_eq!(record(&host)["status"], json!("compensated"));
    host.publish_bytes("houses/7/again", "");
    assert_eq!(host.published("houses/7").len(), 2);
}

#[test]
fn a_saga_begins_once_while_it_is_remembered() {
    let mut host = TestHost::new(plugin());
    host.deliver_twice();
    host.publish_bytes("houses/7/wanted", "");
    assert_eq!(asked(&host), ["do/walls"]);
    host.publish_bytes("houses/7/forget", "");
    host.answer("do/walls", NO);
    assert_eq!(record(&host)["status"], json!("compensated"));
    host.publish_bytes("houses/7/wanted", "");
    assert_eq!(asked(&host), ["do/walls"]);
    host.publish_bytes("houses/7/forget", "");
    assert!(host.state_keys("saga/").is_empty());
    host.publish_bytes("houses/7/wanted", "");
    host.answer("do/walls", NO);
    host.advance(Duration::from_secs(7 * 24 * 3_600));
    assert!(host.state_keys("saga/").is_empty());
}

#[test]
fn an_answer_that_comes_twice_moves_the_saga_once() {
    let mut host = done(1);
    host.deliver_twice();
    host.publish("floors/7/laid", json!({ "ok": true }));
    assert_eq!(asked(&host), ["do/walls", "do/floor", "do/garden"]);
    accept(&mut host, "floor");
    assert_eq!(record(&host)["step"], json!("garden"));
}

#[test]
fn a_saga_of_an_impossible_identity_is_refused_and_one_of_another_form_is_left_alone() {
    let mut host = TestHost::new(plugin());
    let Delivery::Reject(reason) = host.publish_bytes(format!("houses/{}/wanted", "x".repeat(129)), "") else {
        panic!()
    };
    assert!(reason.ends_with("cannot be the identity of a saga"), "{reason}");
    host.set_state("saga/house/8", json!({ "form": 2 }));
    let Delivery::Retry(reason) = host.publish_bytes("houses/8/wanted", "") else { panic!() };
    assert!(reason.contains("a saga's record of form 2: only 1 is known"), "{reason}");
}

#[test]
fn a_step_that_a_later_version_does_not_know_fails_or_is_stuck() {
    let mut host = done(1);
    let mut kept = record(&host);
    kept["step"] = json!("cellar");
    host.set_state("saga/house/7", &kept);
    host.advance(Duration::from_secs(10));
    assert_eq!(
        (record(&host)["status"].clone(), record(&host)["done"].clone()),
        (json!("stuck"), json!(["walls", "cellar"]))
    );
    assert_eq!(record(&host)["reason"], json!("cellar: this version of the plugin cannot undo the step"));
}

/// What becomes of something that is asked for.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Done,
    DoneSlowly,
    DoneAndAnsweredTwice,
    DoneButSilent,
    DoneButGarbled,
    Refused,
    Lost,
}

fn fate() -> impl Strategy<Value = (Fate, bool)> {
    let fate = prop_oneof![
        8 => Just(Fate::Done),
        3 => Just(Fate::DoneSlowly),
        2 => Just(Fate::DoneAndAnsweredTwice),
        1 => Just(Fate::DoneButSilent),
        1 => Just(Fate::DoneButGarbled),
        1 => Just(Fate::Refused),
        1 => Just(Fate::Lost),
    ];
    (fate, prop::bool::weighted(0.3))
}

/// Those who build: what stands, and which questions they have seen.
#[derive(Default)]
struct Builders {
    stands: BTreeSet<String>,
    seen: usize,
}

impl Builders {
    /// Does what is asked for next; `false` if nothing is.
    fn work(&mut self, host: &mut TestHost, fate: Fate, crash: bool) -> bool {
        let Some(topic) = asked(host).get(self.seen).cloned() else { return false };
        self.seen += 1;
        let (what, part) = topic.split_once('/').unwrap();
        if !matches!(fate, Fate::Refused | Fate::Lost) {
            if what == "do" {
                self.stands.insert(part.to_owned())
            } else {
                self.stands.remove(part)
            };
        }
        if crash {
            host.crash_after_next_call();
        }
        match fate {
            Fate::Done => self.answer(host, &topic, r#"{"ok":true}"#),
            Fate::DoneSlowly => {
                host.advance(Duration::from_secs(8));
                self.answer(host, &topic, r#"{"ok":true}"#);
            }
            Fate::DoneAndAnsweredTwice => {
                self.answer(host, &topic, r#"{"ok":true}"#);
                self.answer(host, &topic, r#"{"ok":true}"#);
            }
            Fate::DoneButGarbled => self.answer(host, &topic, "so to say"),
            Fate::Refused => self.answer(host, &topic, r#"{"ok":false}"#),
            Fate::DoneButSilent | Fate::Lost => {}
        }
        true
    }

    fn answer(&self, host: &mut TestHost, topic: &str, answer: &str) {
        match topic {
            "do/floor" => drop(host.publish_bytes("floors/7/laid", answer)),
            "undo/floor" => drop(host.publish_bytes("floors/7/gone", answer)),
            _ if host.requests(topic).is_empty() => {}
            _ => drop(host.answer(topic, answer)),
        }
    }
}

proptest! {
    /// Seen from the builders: when a saga is completed, all that it needs stands; when it is compensated, nothing does; and
    /// what stands when it is stuck, it says. It always ends.
    #[test]
    fn all_steps_are_done_or_all_that_were_done_are_undone(fates in prop::collection::vec(fate(), 0..24)) {
        let mut host = begun();
        let mut builders = Builders::default();
        let mut fates = fates.into_iter();
        for _ in 0..400 {
            let (fate, crash) = fates.next().unwrap_or((Fate::Done, false));
            if !builders.work(&mut host, fate, crash) {
                host.advance(Duration::from_secs(1));
            }
        }
        let record = record(&host);
        let done: Vec<String> = record["done"].as_array().unwrap().iter().map(|step| step.as_str().unwrap().into()).collect();
        match record["status"].as_str().unwrap() {
            "completed" => {
                for part in ["walls", "floor", "roof"] {
                    prop_assert!(builders.stands.contains(part), "{} does not stand", part);
                }
                prop_assert!(builders.stands.iter().all(|part| done.contains(part)));
            }
            "compensated" => prop_assert!(builders.stands.is_empty(), "{:?} stands", builders.stands),
            "stuck" => prop_assert!(builders.stands.iter().all(|part| done.contains(part))),
            other => prop_assert!(false, "the saga is {}", other),
        }
        prop_assert_eq!(host.published("houses/7").len(), 1);
        prop_assert!(host.timers().is_empty() && host.state_keys("$").is_empty());
        host.assert_no_dead_letters();
    }
}

#[test]
fn names_and_steps_are_checked_when_a_saga_is_declared() {
    let two = std::panic::catch_unwind(|| {
        let step = || SagaStep::<House>::new("walls", |_, _, _| Ask::nothing(), Reply::accepted);
        Saga::new("house").step(step()).step(step())
    });
    assert!(two.is_err());
    assert!(std::panic::catch_unwind(|| Saga::<House>::new("a/b")).is_err());
    assert!(!Status::Running.is_end() && Status::Stuck.is_end());
}
