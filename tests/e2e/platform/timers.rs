//! Timers, schedules and requests, over SIGKILL: each fires exactly once, and each request gets exactly one response.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::super::client::{Client, Packet};
use super::super::conformance::packets::{self, Connect, property, string};
use super::super::conformance::peer::Peer;
use super::super::harness::PATIENCE;
use super::{OBEYS, Plant, heard, listener, publish, silence, wall_clock_ms};

/// A durable subscriber to `out/#`, which sees what was published while it was away.
fn durable(plant: &Plant) -> Result<Client> {
    let mut client = Client::connect(plant.broker().mqtt, "durable", false)?;
    if !client.session_present {
        client.subscribe("out/#", 1)?;
    }
    Ok(client)
}

/// Takes messages until `count` different ones are there; repeats have to say that they are some.
fn collect(client: &mut Client, seen: &mut Vec<String>, count: usize) -> Result<()> {
    let began = Instant::now();
    while seen.len() < count {
        ensure!(began.elapsed() < PATIENCE, "only {seen:?}");
        let packet = client.receive(PATIENCE)?.with_context(|| format!("only {seen:?}"))?;
        let Packet::Publish { topic, payload, dup, packet_id, .. } = packet else { continue };
        let text = format!("{topic} {}", String::from_utf8_lossy(&payload));
        client.puback(packet_id)?;
        if seen.contains(&text) {
            ensure!(dup, "{text} came twice");
        } else {
            seen.push(text);
        }
    }
    Ok(())
}

#[test]
fn timers_fire_once_each_and_when_they_are_due_also_over_kills() -> Result<()> {
    let mut plant = Plant::start("")?;
    plant.deploy("obeys", "obeys", OBEYS)?;
    drop(durable(&plant)?);
    let now = wall_clock_ms();
    let mut commands = Vec::new();
    for timer in 0..40u64 {
        commands.push(format!("timer t{timer} {} publish out/fired {timer}", now + 500 + 50 * timer));
    }
    commands.push(format!("timer cancelled {} publish out/fired cancelled", now + 1_500));
    commands.push(format!("timer moved {} publish out/fired early", now + 1_000));
    publish(plant.broker(), "in/a", &commands.join("\n"))?;
    publish(plant.broker(), "in/a", &format!("cancel cancelled\ntimer moved {} publish out/fired late", now + 2_600))?;
    plant.broker().wait_plugin("obeys", "told", |shown| shown["counts"]["handled"].as_u64() >= Some(2))?;
    let mut seen = Vec::new();
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(350));
        plant.restart("")?;
    }
    let mut client = durable(&plant)?;
    collect(&mut client, &mut seen, 41)?;
    ensure!(wall_clock_ms() >= now + 2_600, "before the last was due");
    silence(&mut client)?;
    ensure!(seen.contains(&"out/fired late".to_owned()), "{seen:?}");
    for timer in 0..40 {
        ensure!(seen.contains(&format!("out/fired {timer}")), "{timer} is missing: {seen:?}");
    }
    let shown = plant.broker().show("obeys")?;
    ensure!(shown["usage"]["timers"] == 0 && shown["counts"]["dead_lettered"] == 0, "{shown:#}");
    Ok(())
}

#[test]
fn a_timer_that_fell_due_while_the_broker_was_down_fires_once_when_it_is_back() -> Result<()> {
    let mut plant = Plant::start("")?;
    plant.deploy("obeys", "obeys", OBEYS)?;
    drop(durable(&plant)?);
    let at = wall_clock_ms() + 600;
    publish(plant.broker(), "in/a", &format!("timer one {at} publish out/fired one"))?;
    plant.broker().wait_plugin("obeys", "told", |shown| shown["usage"]["timers"] == 1)?;
    plant.kill()?;
    std::thread::sleep(Duration::from_millis(1_000));
    plant.restart("")?;
    let mut client = durable(&plant)?;
    ensure!(heard(&mut client, "out/fired")? == "one");
    silence(&mut client)?;
    drop(client);
    plant.restart("")?;
    silence(&mut durable(&plant)?)
}

#[test]
fn schedules_of_manifest_and_code_fire_again_and_again_and_end_with_what_declared_them() -> Result<()> {
    let mut plant = Plant::start("")?;
    let schedule = r#"{"name":"second","cron":"* * * * * *","payload":"publish out/tick manifest"}"#;
    let ticking = format!(r#"{OBEYS},"schedules":[{schedule}]"#);
    plant.deploy("obeys", "obeys", &ticking)?;
    let mut client = listener(plant.broker(), "one")?;
    for _ in 0..2 {
        ensure!(heard(&mut client, "out/tick")? == "manifest");
    }
    let shown = plant.broker().show("obeys")?;
    ensure!(shown["schedules"]["second"] == "* * * * * *", "{shown:#}");
    // Over a kill, and what passes while the broker is down comes as one.
    plant.kill()?;
    std::thread::sleep(Duration::from_millis(2_500));
    plant.restart("")?;
    let mut client = listener(plant.broker(), "two")?;
    let began = Instant::now();
    for _ in 0..3 {
        heard(&mut client, "out/tick")?;
    }
    ensure!(began.elapsed() > Duration::from_millis(900), "times that passed piled up");
    // The next revision does not declare it.
    plant.broker().deploy(&plant.made("obeys", "obeys", "2.0.0", OBEYS)?)?;
    while client.receive_publish(Duration::from_millis(1_500))?.is_some() {}
    ensure!(plant.broker().show("obeys")?["schedules"].as_object().is_some_and(serde_json::Map::is_empty));
    // One that code sets.
    publish(plant.broker(), "in/a", "schedule own * * * * * *")?;
    let before = plant.broker().wait_plugin("obeys", "told", |shown| shown["usage"]["timers"] == 1)?;
    let handled = before["counts"]["handled"].as_u64().context("handled")?;
    plant.broker().wait_plugin("obeys", "ticking", |shown| shown["counts"]["handled"].as_u64() >= Some(handled + 2))?;
    publish(plant.broker(), "in/a", "cancel own")?;
    plant.broker().wait_plugin("obeys", "quiet", |shown| shown["usage"]["timers"] == 0)?;
    Ok(())
}

#[test]
fn each_request_gets_exactly_one_response_also_over_a_kill() -> Result<()> {
    let mut plant = Plant::start("")?;
    plant.deploy("obeys", "obeys", OBEYS)?;
    // Who answers: a 5.0 client with a durable session, so that a request is not lost with a connection.
    let answering = Connect::new(5, "answers").resume();
    let (mut peer, _) = Peer::join_at(plant.broker().mqtt, &answering);
    peer.subscribe("out/question", 1);
    drop(durable(&plant)?);
    publish(plant.broker(), "in/a", "request 30000 out/question one")?;
    let first = peer.expect_publish("out/question", b"one");
    peer.send(&packets::acknowledge(0x40, first.packet_id));
    // The broker dies between request and response.
    plant.restart("")?;
    let (mut peer, connack) = Peer::join_at(plant.broker().mqtt, &answering);
    ensure!(connack.flags == 1);
    let response_topic = first.properties.one(property::RESPONSE_TOPIC).context("no response topic")?[2..].to_vec();
    let correlation = first.properties.one(property::CORRELATION_DATA).context("no correlation data")?[2..].to_vec();
    ensure!(response_topic.starts_with(b"$reply/obeys/"), "{response_topic:?}");
    let correlated = [&[property::CORRELATION_DATA][..], &string(&correlation)].concat();
    // The first answer counts, the others do not.
    for answer in ["publish out/answered yes", "publish out/answered again", "publish out/answered more"] {
        peer.send(&packets::publish_with(5, 0x32, &response_topic, 5, &correlated, answer.as_bytes()));
        let packet = loop {
            let packet = peer.packet();
            // The question that comes again is not what is waited for.
            if packet[0] >> 4 == 4 {
                break packet;
            }
        };
        ensure!(packet[2..4] == [0, 5], "{packet:02x?}");
    }
    let (mut client, mut seen) = (durable(&plant)?, Vec::new());
    collect(&mut client, &mut seen, 3)?;
    ensure!(seen[0] == "out/question one" && seen.contains(&"out/answered yes".to_owned()), "{seen:?}");
    silence(&mut client)?;
    let shown = plant.broker().show("obeys")?;
    ensure!(shown["usage"]["timers"] == 0 && shown["counts"]["dead_lettered"] == 0, "{shown:#}");
    Ok(())
}

#[test]
fn a_request_that_nobody_answers_times_out_once_also_over_a_kill() -> Result<()> {
    let mut plant = Plant::start("")?;
    plant.deploy("obeys", "obeys", OBEYS)?;
    drop(durable(&plant)?);
    publish(plant.broker(), "in/a", "request 1500 out/question one\nrequest 300 out/question two")?;
    let (mut client, mut seen) = (durable(&plant)?, Vec::new());
    // Two questions, two identities, and the one that is over at once.
    collect(&mut client, &mut seen, 5)?;
    let unanswered = |seen: &[String]| seen.iter().filter(|text| text.starts_with("out/unanswered")).count();
    ensure!(unanswered(&seen) == 1, "{seen:?}");
    drop(client);
    plant.restart("")?;
    let mut client = durable(&plant)?;
    collect(&mut client, &mut seen, 6)?;
    ensure!(unanswered(&seen) == 2, "{seen:?}");
    for text in seen.iter().filter(|text| text.starts_with("out/unanswered")) {
        ensure!(text.contains("$reply/obeys/") && text.contains("timeout"), "{text}");
    }
    silence(&mut client)?;
    ensure!(plant.broker().show("obeys")?["usage"]["timers"] == 0);
    Ok(())
}
