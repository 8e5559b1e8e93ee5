//! What plugins see of clients, and the end that they may put to one.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::super::client::Client;
use super::super::conformance::packets::{self, Connect};
use super::super::conformance::peer::Peer;
use super::{Plant, heard, listener, publish};

/// What `obeys` was told next about `client`: the event, and what it says.
fn told(listening: &mut Client, client: &str) -> Result<(String, Value)> {
    loop {
        let text = heard(listening, "out/client")?;
        let (topic, json) = text.split_once(' ').context("no payload")?;
        let mut levels = topic.split('/').skip(1);
        if levels.next() == Some(client) {
            return Ok((levels.collect(), serde_json::from_str(json)?));
        }
    }
}

#[test]
fn a_plugin_is_told_what_happens_to_clients() -> Result<()> {
    let plant = Plant::start("")?;
    let broker = plant.broker();
    let fields = r#""subscribes":[{"filter":"$clients/#","qos":1},{"filter":"in/#","qos":1}],"publishes":["out/#"]"#;
    plant.deploy("obeys", "obeys", fields)?;
    let mut listening = listener(broker, "listener")?;
    let connect = Connect::new(5, "a/b+c").resume().user_name(b"ann");
    let (mut peer, connack) = Peer::join_at(broker.mqtt, &connect);
    ensure!(connack.reason == 0);
    let id = "a%2Fb%2Bc";
    let mut events = vec![told(&mut listening, id)?, told(&mut listening, id)?];
    events.sort_by(|one, other| one.0.cmp(&other.0));
    let (connected, created) = (&events[0], &events[1]);
    ensure!(connected.0 == "connected" && created.0 == "session-created", "{events:?}");
    let said = &connected.1;
    ensure!(said["client_id"] == "a/b+c" && said["user"] == "ann" && said["protocol"] == "5.0", "{said}");
    ensure!(said["clean_start"] == false && said["at"].as_u64() > Some(1_700_000_000_000), "{said}");
    ensure!(said["address"].as_str().is_some_and(|address| address.starts_with("127.0.0.1:")), "{said}");
    ensure!(created.1["durable"] == true, "{events:?}");

    peer.subscribe("some/+", 1);
    let (event, said) = told(&mut listening, id)?;
    ensure!(event == "subscribed" && said["filter"] == "some/+" && said["qos"] == 1 && said["new"] == true, "{said}");
    peer.send(&packets::unsubscribe(5, 4, &["some/+"]));
    ensure!(peer.reasons(0xB0, 4) == [0]);
    ensure!(told(&mut listening, id)?.0 == "unsubscribed");

    // Another connection takes the session over; that one is lost, and the last says goodbye.
    let (second, connack) = Peer::join_at(broker.mqtt, &connect);
    ensure!(connack.flags == 1);
    let mut names = Vec::new();
    while !(names.contains(&"connected".to_owned()) && names.contains(&"disconnected".to_owned())) {
        names.push(told(&mut listening, id)?.0);
    }
    ensure!(names.contains(&"session-taken-over".to_owned()), "{names:?}");
    drop(second);
    let (event, said) = loop {
        let told = told(&mut listening, id)?;
        if told.0 == "disconnected" {
            break told;
        }
    };
    ensure!(event == "disconnected" && said["reason"] == "lost", "{said}");
    let (third, _) = Peer::join_at(broker.mqtt, &Connect::new(5, "a/b+c"));
    let mut names = Vec::new();
    while !names.contains(&"connected".to_owned()) {
        names.push(told(&mut listening, id)?.0);
    }
    third.leave();
    let mut ended = false;
    loop {
        let (event, said) = told(&mut listening, id)?;
        names.push(event.clone());
        if event == "disconnected" {
            ensure!(said["reason"] == "client", "{said}");
            ended = true;
        }
        if ended && names.iter().filter(|name| *name == "session-ended").count() == 2 {
            break;
        }
    }
    Ok(())
}

#[test]
fn a_plugin_ends_the_connection_of_a_client_where_that_was_granted() -> Result<()> {
    let plant = Plant::start("")?;
    let broker = plant.broker();
    let disconnects = format!(r#"{},"disconnects":true"#, super::OBEYS);
    plant.deploy("obeys", "obeys", &disconnects)?;
    for level in [4, 5] {
        let (mut victim, _) = Peer::join_at(broker.mqtt, &Connect::new(level, "victim"));
        let (mut other, _) = Peer::join_at(broker.mqtt, &Connect::new(level, "other"));
        publish(broker, "in/a", "disconnect victim")?;
        victim.expect_disconnect(&[0x98]);
        other.expect_silence();
    }
    // Who is not there is no error, and who was not granted it may not.
    publish(broker, "in/a", "disconnect victim\npublish out/done x")?;
    let mut listening = listener(broker, "listener")?;
    plant.deploy("obeys", "meek", r#""subscribes":[{"filter":"meek/#","qos":1}],"publishes":["out/#"]"#)?;
    let (mut victim, _) = Peer::join_at(broker.mqtt, &Connect::new(5, "victim"));
    publish(broker, "meek/a", "disconnect victim")?;
    let mut refused = heard_any(&mut listening)?;
    if refused.0 == "out/done" {
        refused = heard_any(&mut listening)?;
    }
    ensure!(refused.0 == "out/disconnect" && refused.1.to_lowercase().contains("denied"), "{refused:?}");
    victim.expect_silence();
    ensure!(broker.show("obeys")?["counts"]["dead_lettered"] == 0);
    Ok(())
}

fn heard_any(client: &mut Client) -> Result<(String, String)> {
    let (topic, payload) = client.receive_publish(super::PATIENCE)?.context("nothing came")?;
    Ok((topic, String::from_utf8_lossy(&payload).into_owned()))
}
