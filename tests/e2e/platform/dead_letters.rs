//! Events that are given up: what is kept and told of each, how they come again, and the breaker that stops what keeps failing.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::super::conformance::packets::{Connect, property};
use super::super::conformance::peer::Peer;
use super::super::harness::Broker;
use super::{OBEYS, Plant, heard, listener, metric, publish};

/// All dead letters of `obeys`.
fn letters(broker: &Broker) -> Result<Vec<Value>> {
    let listed: Value = serde_json::from_str(&broker.ok(&["plugin", "dead", "list", "obeys", "--json"])?)?;
    listed.as_array().cloned().context("a list")
}

/// Each of these is in the text.
fn says(text: &str, words: &[&str]) -> Result<()> {
    for word in words {
        ensure!(text.contains(word), "{word:?} is not in: {text}");
    }
    Ok(())
}

/// Where the guest panics.
fn place() -> Result<String> {
    let source = std::fs::read_to_string(super::super::harness::root().join("tests/guests/examples/obeys.rs"))?;
    let line = source.lines().position(|line| line.contains("\"panic\" => panic!")).context("obeys panics")? + 1;
    Ok(format!("examples/obeys.rs:{line}:"))
}

#[test]
fn a_panic_is_reported_alike_in_dead_letter_publication_and_both_logs() -> Result<()> {
    let plant = Plant::start("[plugins]\nattempts = 2\n")?;
    let broker = plant.broker();
    plant.deploy("obeys", "obeys", OBEYS)?;
    let (mut watcher, _) = Peer::join_at(broker.mqtt, &Connect::new(5, "watcher"));
    watcher.subscribe("$dead/#", 1);
    publish(broker, "in/pump/7", "panic the mean is missing")?;
    let told = watcher.expect_publish("$dead/obeys/in/pump/7", b"panic the mean is missing");
    broker
        .wait_plugin("obeys", "done", |shown| shown["dead_letters"].as_array().is_some_and(|kept| kept.len() == 1))?;
    let letters = letters(broker)?;
    let letter = &letters[0];
    let (event, reason) = (letter["event"].to_string(), letter["reason"].as_str().context("no reason")?);
    ensure!(letter["topic"] == "in/pump/7" && letter["attempts"] == 2, "{letter}");
    let named = format!("event {event} ");
    let words = ["the mean is missing", &*place()?, "plugin obeys", "revision 1 (1.0.0)", &named, "attempt 2"];
    says(reason, &words)?;
    // The publication says the same in its user properties.
    let properties: Vec<String> = told
        .properties
        .all(property::USER)
        .into_iter()
        .map(|pair| String::from_utf8_lossy(pair).into_owned())
        .collect();
    // A length of two bytes stands before the name.
    let property =
        |name: &str| properties.iter().find(|pair| pair[2..].starts_with(name)).with_context(|| format!("no {name}"));
    says(property("reason")?, &words)?;
    ensure!(
        !reason.contains("panicking::") && !reason.contains("abort"),
        "it tells of the machinery of panics: {reason}"
    );
    ensure!(property("attempts")?.ends_with('2') && property("event")?.ends_with(&*event), "{properties:?}");
    // And so do the logs and the letter when it is shown.
    for text in [
        broker.log(),
        broker.ok(&["plugin", "logs", "obeys"])?,
        broker.ok(&["plugin", "dead", "show", "obeys", &event])?,
    ] {
        says(&text, &words)?;
    }
    let shown: Value = serde_json::from_str(&broker.ok(&["plugin", "dead", "show", "obeys", &event, "--json"])?)?;
    ensure!(shown["publisher"] == "to-in/pump/7" && shown["qos"] == 1 && shown["retain"] == false, "{shown:#}");
    Ok(())
}

#[test]
fn dead_letters_outlive_a_kill_and_are_replayed_or_dropped_one_by_one() -> Result<()> {
    let mut plant = Plant::start("[plugins]\nattempts = 1\n")?;
    plant.deploy("obeys", "obeys", OBEYS)?;
    for number in 0..4 {
        publish(plant.broker(), &format!("in/{number}"), "cas gate - -\nget gate\nreject gated\nlog info x")?;
    }
    plant.broker().wait_plugin("obeys", "done", |shown| shown["usage"]["dead_letters"] == 4)?;
    plant.restart("[plugins]\nattempts = 1\n")?;
    let broker = plant.broker();
    let mut listening = listener(broker, "listener")?;
    let events: Vec<String> = letters(broker)?.iter().map(|letter| letter["event"].to_string()).collect();
    ensure!(events.len() == 4, "{events:?}");
    // What a rejected event published before is not there.
    super::silence(&mut listening)?;
    broker.ok(&["plugin", "dead", "drop", "obeys", &events[0]])?;
    broker.ok(&["plugin", "dead", "replay", "obeys", &events[1]])?;
    broker.wait_plugin("obeys", "done", |shown| shown["counts"]["dead_lettered"] == 1)?;
    let left = letters(broker)?;
    let topics: Vec<_> = left.iter().filter_map(|letter| letter["topic"].as_str()).collect();
    ensure!(topics == ["in/2", "in/3", "in/1"], "{topics:?}");

    // Another revision can do what this one could not.
    let tells =
        plant.made("echo", "obeys", "2.0.0", r#""subscribes":[{"filter":"in/#","qos":1}],"publishes":["out/#"]"#)?;
    broker.deploy(&tells)?;
    broker.ok(&["replay", "obeys"])?;
    broker.wait_plugin("obeys", "through", |shown| {
        shown["usage"]["dead_letters"] == 0 && shown["usage"]["inbox_events"] == 0
    })?;
    ensure!(broker.ok(&["plugin", "dead", "list", "obeys"])?.contains("has no dead letters"));
    Ok(())
}

#[test]
fn a_breaker_opens_tries_one_event_after_a_while_and_shows_everywhere_what_it_does() -> Result<()> {
    let plant = Plant::start("[plugins]\nattempts = 1\nbreaker_failures = 3\n")?;
    let broker = plant.broker();
    plant.deploy("obeys", "obeys", OBEYS)?;
    let mut listening = listener(broker, "listener")?;
    let status = |status: &str| format!("vespiary_plugins_status{{plugin=\"obeys\",status=\"{status}\"}} ");
    ensure!(broker.show("obeys")?["breaker"].is_null());
    ensure!(metric(broker, &status("running"))? == Some(1.0));
    for number in 0..3 {
        publish(broker, &format!("in/{number}"), "panic no bearing")?;
    }
    let shown = broker.wait_plugin("obeys", "stopped", |shown| shown["breaker"]["state"] == "open")?;
    ensure!(shown["status"] == "stopped" && shown["breaker"]["until"].as_u64().is_some(), "{shown:#}");
    says(shown["breaker"]["reason"].as_str().context("no reason")?, &["no bearing", &place()?])?;
    says(&broker.ok(&["plugin", "show", "obeys"])?, &["breaker", "open since"])?;
    ensure!(broker.log().lines().any(|line| line.contains("obeys") && line.contains("stopped: it keeps failing")));
    ensure!(metric(broker, &status("stopped"))? == Some(1.0) && metric(broker, &status("running"))? != Some(1.0));
    // What comes meanwhile waits, and its publisher does not.
    publish(broker, "in/4", "publish out/well yes")?;
    let shown = broker.show("obeys")?;
    ensure!(shown["inbox_events"] == 1 && shown["status"] == "stopped", "{shown:#}");
    ensure!(listening.receive(Duration::from_secs(1))?.is_none(), "nothing is tried so soon");
    ensure!(heard(&mut listening, "out/well")? == "yes");
    let shown = broker.wait_plugin("obeys", "well", |shown| shown["breaker"].is_null())?;
    ensure!(shown["status"] == "running" && metric(broker, &status("running"))? == Some(1.0), "{shown:#}");
    // An operator need not wait.
    for number in 0..3 {
        publish(broker, &format!("in/{number}"), "panic no bearing")?;
    }
    broker.wait_plugin("obeys", "stopped", |shown| shown["breaker"]["state"] == "open")?;
    publish(broker, "in/4", "publish out/well again")?;
    broker.ok(&["plugin", "resume", "obeys"])?;
    ensure!(heard(&mut listening, "out/well")? == "again");
    Ok(())
}

#[test]
fn a_retry_comes_again_later_and_holds_up_its_own_key_alone() -> Result<()> {
    let plant = Plant::start("[plugins]\nattempts = 3\n")?;
    let broker = plant.broker();
    plant.deploy("obeys", "obeys", OBEYS)?;
    let mut listening = listener(broker, "listener")?;
    publish(broker, "in/a", "later 2000")?;
    publish(broker, "in/a", "publish out/a behind")?;
    publish(broker, "in/b", "publish out/b beside")?;
    ensure!(heard(&mut listening, "out/b")? == "beside");
    let shown = broker.show("obeys")?;
    ensure!(shown["usage"]["retrying"] == 1 && shown["inbox_events"] == 2, "{shown:#}");
    ensure!(heard(&mut listening, "out/a")? == "behind");
    let letters = letters(broker)?;
    ensure!(letters.len() == 1 && letters[0]["attempts"] == 3, "{letters:?}");
    Ok(())
}
