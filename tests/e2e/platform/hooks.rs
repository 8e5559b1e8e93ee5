//! Hooks, asked by the shipped binary about the packets of clients of both protocols: `decides` answers.

use anyhow::Result;

use super::super::conformance::packets::{self, Connect, property};
use super::super::conformance::peer::Peer;
use super::super::harness::Broker;
use super::{OBEYS, Plant, heard, listener, publish};

const LEVELS: [u8; 2] = [4, 5];

/// A client with a clean session, let in.
#[track_caller]
pub(super) fn peer(broker: &Broker, level: u8, name: &str) -> Peer {
    let (peer, connack) = Peer::join_at(broker.mqtt, &Connect::new(level, name));
    assert_eq!((connack.flags, connack.reason), (0, 0), "{connack:?}");
    peer
}

/// A client that shows a user name and a password; gives the reason of the answer.
#[track_caller]
pub(super) fn login(broker: &Broker, level: u8, password: &str) -> u8 {
    let connect = Connect::new(level, format!("login-{level}-{password}"));
    let connect = if password.is_empty() { connect } else { connect.user_name(b"ann").password(password.as_bytes()) };
    let (mut peer, connack) = Peer::join_at(broker.mqtt, &connect);
    if connack.reason == 0 {
        peer.expect_silence();
    } else {
        peer.expect_end();
    }
    connack.reason
}

/// The packet that opens a publish, and what of it the subscriber to all of it sees.
struct Row {
    payload: &'static str,
    delivered: Option<(&'static str, &'static str)>,
}

#[test]
fn a_publish_is_kept_replaced_dropped_or_moved_by_a_plugin_that_comes_and_goes_while_clients_stay() -> Result<()> {
    let plant = Plant::start("")?;
    let broker = plant.broker();
    let mut subscriber = peer(broker, 5, "subscriber");
    subscriber.subscribe("raw/#", 0);
    subscriber.subscribe("moved/#", 0);
    let mut publishers = LEVELS.map(|level| peer(broker, level, &format!("publisher-{level}")));
    let mut check = |rows: &[Row], qos_levels: &[u8]| {
        for publisher in &mut publishers {
            for qos in qos_levels {
                for row in rows {
                    publisher.publish_completely("raw/x", row.payload.as_bytes(), *qos);
                    if let Some((topic, payload)) = row.delivered {
                        subscriber.expect_publish(topic, payload.as_bytes());
                    }
                }
                // Nothing is left that came of the others.
                subscriber.expect_silence();
            }
        }
    };
    let as_they_are = [
        Row { payload: "hello", delivered: Some(("raw/x", "hello")) },
        Row { payload: "drop", delivered: Some(("raw/x", "drop")) },
        Row { payload: "move", delivered: Some(("raw/x", "move")) },
    ];
    check(&as_they_are, &[0, 1, 2]);
    plant.deploy(
        "decides",
        "decides",
        r#""hooks":[{"hook":"intercept-publish","filters":["raw/#"],"deadline_ms":5000}]"#,
    )?;
    check(
        &[
            Row { payload: "drop", delivered: None },
            Row { payload: "keep", delivered: Some(("raw/x", "keep")) },
            Row { payload: "hello", delivered: Some(("raw/x", "hello (seen)")) },
            Row { payload: "drop", delivered: None },
            Row { payload: "move", delivered: Some(("moved/raw/x", "move")) },
        ],
        &[0, 1, 2],
    );
    broker.ok(&["plugin", "remove", "decides"])?;
    check(&as_they_are, &[0, 1, 2]);
    Ok(())
}

#[test]
fn a_publish_that_a_plugin_denies_is_refused_in_the_words_of_the_protocol() -> Result<()> {
    let plant = Plant::start("")?;
    let broker = plant.broker();
    let mut subscriber = peer(broker, 5, "subscriber");
    subscriber.subscribe("raw/#", 0);
    let mut clients: Vec<_> = LEVELS
        .into_iter()
        .flat_map(|level| [0, 1, 2].map(|qos| (level, qos)))
        .map(|(level, qos)| (level, qos, peer(broker, level, &format!("publisher-{level}-{qos}"))))
        .collect();
    plant.deploy(
        "decides",
        "decides",
        r#""hooks":[{"hook":"intercept-publish","filters":["raw/#"],"deadline_ms":5000}]"#,
    )?;
    for (level, qos, client) in &mut clients {
        let packet_id = if *qos == 0 { 0 } else { 7 };
        client.send(&packets::publish(*level, 0x30 | *qos << 1, "raw/x", packet_id, b"deny"));
        match (*level, *qos) {
            (_, 0) => client.expect_silence(),
            (5, 1) => client.expect_acknowledgement(0x40, 7, 0x99),
            (5, _) => client.expect_acknowledgement(0x50, 7, 0x99),
            // 3.1.1 has no other word for it.
            (_, _) => client.expect_end(),
        }
        if *level == 5 {
            // The identifier is free again, and the client goes on.
            client.publish_completely("other/x", b"deny", *qos);
        }
    }
    subscriber.expect_silence();
    Ok(())
}

#[test]
fn a_client_is_let_in_refused_or_left_to_the_configuration() -> Result<()> {
    let hooks = r#""hooks":[{"hook":"authenticate","deadline_ms":5000}]"#;
    let mut plant = Plant::start("")?;
    let mut before = peer(plant.broker(), 5, "before");
    plant.deploy("decides", "decides", hooks)?;
    before.expect_silence();
    for (level, password, reason) in [
        (4, "right", 0),
        (5, "right", 0),
        (4, "wrong", 4),
        (5, "wrong", 0x86),
        (5, "odd", 0x88),
        (4, "", 0),
        (5, "", 0),
    ] {
        assert_eq!(login(plant.broker(), level, password), reason, "{level} {password:?}");
    }
    // Nobody is let in for whom nobody vouches, also after a kill.
    plant.restart("[mqtt]\nallow_anonymous = false\n")?;
    for (level, password, reason) in [(4, "right", 0), (5, "right", 0), (4, "wrong", 4), (4, "", 5), (5, "", 0x87)] {
        assert_eq!(login(plant.broker(), level, password), reason, "{level} {password:?}");
    }
    plant.broker().ok(&["plugin", "remove", "decides"])?;
    assert_eq!(login(plant.broker(), 5, "right"), 0x87);
    Ok(())
}

#[test]
fn a_publish_a_subscription_and_a_will_are_authorized_by_what_the_plugin_has_in_its_state() -> Result<()> {
    let plant = Plant::start("")?;
    let broker = plant.broker();
    let mut clients = LEVELS.map(|level| peer(broker, level, &format!("client-{level}")));
    // The first revision handles events and writes the state that the second decides by.
    plant.deploy("obeys", "decides", OBEYS)?;
    let mut listening = listener(broker, "listener")?;
    publish(broker, "in/a", "set allowed guarded/open\nget allowed")?;
    assert_eq!(heard(&mut listening, "out/get")?, "guarded/open");
    let fields = r#""hooks":[{"hook":"authorize","filters":["guarded/#"],"deadline_ms":5000}]"#;
    broker.deploy(&plant.made("decides", "decides", "2.0.0", fields)?)?;
    for client in &mut clients {
        let level = client.level;
        client.publish_completely("guarded/open", b"1", 1);
        client.publish_completely("elsewhere", b"1", 1);
        client.send(&packets::subscribe(level, 9, &[("guarded/+", 1), ("free/+", 1), ("#", 0)]));
        let refused = if level == 5 { 0x87 } else { 0x80 };
        assert_eq!(client.reasons(0x90, 9), [refused, 1, refused]);
        client.send(&packets::publish(level, 0x32, "guarded/closed", 8, b"1"));
        if level == 5 {
            client.expect_acknowledgement(0x40, 8, 0x87);
            client.expect_silence();
        } else {
            client.expect_end();
        }
        // The plugin passes wills on, and the configuration takes them.
        let will = Connect::new(level, format!("will-{level}")).will("guarded/closed", b"gone", 1, false);
        assert_eq!(Peer::join_at(broker.mqtt, &will).1.reason, 0);
    }
    Ok(())
}

#[test]
fn a_subscription_is_kept_replaced_or_refused() -> Result<()> {
    let plant = Plant::start("")?;
    let broker = plant.broker();
    plant.deploy(
        "decides",
        "decides",
        r##""hooks":[{"hook":"intercept-subscribe","filters":["#"],"deadline_ms":5000}]"##,
    )?;
    for level in LEVELS {
        let user = format!("ann{level}");
        let connect = Connect::new(level, format!("client-{level}")).user_name(user.as_bytes());
        let (mut client, connack) = Peer::join_at(broker.mqtt, &connect);
        assert_eq!(connack.reason, 0);
        client.send(&packets::subscribe(level, 9, &[("tenants/all", 1), ("a/b", 2), ("#", 0)]));
        let refused = if level == 5 { 0x8F } else { 0x80 };
        assert_eq!(client.reasons(0x90, 9), [1, 0, refused]);
        let own = format!("tenants/{user}/a/b");
        for topic in ["a/b", "tenants/all", &own] {
            client.publish_completely(topic, topic.as_bytes(), 0);
        }
        assert_eq!(client.publish().topic, "tenants/all");
        assert_eq!(client.publish().topic, own);
        client.expect_silence();
    }
    Ok(())
}

#[test]
fn each_delivery_is_decided_for_its_subscriber_and_what_is_dropped_holds_up_nothing() -> Result<()> {
    let plant = Plant::start("")?;
    let broker = plant.broker();
    let mut subscribers = LEVELS.map(|level| {
        // One message in flight: a delivery that is dropped and not released would hold up the next for ever.
        let connect = Connect::new(level, format!("subscriber-{level}"));
        let connect = if level == 5 { connect.property(property::RECEIVE_MAXIMUM, &[0, 1]) } else { connect };
        let (mut peer, _) = Peer::join_at(broker.mqtt, &connect);
        peer.subscribe("reports/#", 2);
        peer.subscribe("plain/#", 1);
        peer
    });
    plant.deploy(
        "decides",
        "decides",
        r#""hooks":[{"hook":"intercept-deliver","filters":["reports/#"],"deadline_ms":5000}]"#,
    )?;
    let mut publisher = peer(broker, 5, "publisher");
    for (topic, payload) in
        [("reports/a", "drop"), ("reports/a", "drop"), ("reports/a", "secret"), ("reports/a", "keep"), ("plain/a", "x")]
    {
        publisher.publish_completely(topic, payload.as_bytes(), 1);
    }
    for subscriber in &mut subscribers {
        for (topic, payload) in [("reports/a", "***"), ("reports/a", "keep"), ("plain/a", "x")] {
            let publish = subscriber.expect_publish(topic, payload.as_bytes());
            subscriber.send(&packets::acknowledge(0x40, publish.packet_id));
        }
        subscriber.expect_silence();
    }
    Ok(())
}

#[test]
fn several_plugins_are_asked_by_priority_and_then_by_name() -> Result<()> {
    let plant = Plant::start(
        "[plugin.ant.config]\nmark = \"ant\"\n[plugin.bee.config]\nmark = \"bee\"\n[plugin.cat.config]\nmark = \"cat\"\n",
    )?;
    let broker = plant.broker();
    let mut client = peer(broker, 5, "client");
    client.subscribe("raw/#", 0);
    let deploy = |name: &str, version: &str, priority: i32| -> Result<()> {
        let hook = r#""hook":"intercept-publish","filters":["raw/#"],"deadline_ms":5000"#;
        let fields = format!(r#""hooks":[{{{hook},"priority":{priority}}}]"#);
        broker.deploy(&plant.made("decides", name, version, &fields)?)?;
        Ok(())
    };
    deploy("cat", "1.0.0", -3)?;
    deploy("bee", "1.0.0", 5)?;
    deploy("ant", "1.0.0", 5)?;
    client.publish_completely("raw/x", b"x", 0);
    client.expect_publish("raw/x", b"x (cat) (ant) (bee)");
    deploy("bee", "2.0.0", -4)?;
    client.publish_completely("raw/x", b"x", 0);
    client.expect_publish("raw/x", b"x (bee) (cat) (ant)");
    broker.ok(&["plugin", "remove", "cat"])?;
    client.publish_completely("raw/x", b"x", 0);
    client.expect_publish("raw/x", b"x (bee) (ant)");
    Ok(())
}
