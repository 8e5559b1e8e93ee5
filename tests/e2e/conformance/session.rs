//! Sessions: when they begin, go on and end (sections 3.1.2.4, 3.1.2.11.2 and 4.1).

use std::net::SocketAddr;

use super::LEVELS;
use super::packets::{Connect, acknowledge, packet, property, publish, publish_with, subscribe_with, user_property};
use super::peer::Peer;
use crate::harness::Broker;

/// Connects, sees whether a session was there, and is let in.
#[track_caller]
fn join(connect: &Connect, present: bool) -> Peer {
    let (peer, connack) = Peer::join(connect);
    assert_eq!((connack.flags, connack.reason), (u8::from(present), 0));
    peer
}

/// Another client publishes this at QoS 1.
#[track_caller]
fn say(address: SocketAddr, level: u8, topic: &str, payload: &[u8]) {
    let (mut sender, connack) = Peer::join_at(address, &Connect::new(level, super::unique("session-say")));
    assert_eq!(connack.reason, 0);
    sender.publish_acknowledged(topic, payload);
    sender.leave();
}

#[test]
fn a_session_is_there_or_is_made() {
    for level in LEVELS {
        let connect = Connect::new(level, format!("session-made-{level}")).resume();
        let mut peer = join(&connect, false);
        peer.subscribe(&format!("session/made/{level}"), 1);
        peer.leave();
        let mut peer = join(&connect, true);
        // Its subscription is still there.
        say(super::shared(), level, &format!("session/made/{level}"), b"x");
        peer.expect_publish(&format!("session/made/{level}"), b"x");
    }
}

#[test]
fn a_clean_start_discards_the_session() {
    for level in LEVELS {
        let name = format!("session-clean-{level}");
        let topic = format!("session/clean/{level}");
        let kept = Connect::new(level, &name).resume();
        let mut peer = join(&kept, false);
        peer.subscribe(&topic, 1);
        peer.leave();
        let mut sender = Peer::new(level, &format!("session-clean-from-{level}"));
        sender.publish_acknowledged(&topic, b"queued");
        let mut peer = join(&Connect::new(level, &name), false);
        sender.publish_acknowledged(&topic, b"live");
        peer.expect_silence();
        peer.leave();
        // Nothing of either session is left for the next.
        let mut peer = join(&kept, false);
        sender.publish_acknowledged(&topic, b"later");
        peer.expect_silence();
    }
}

#[test]
fn a_clean_session_ends_with_its_connection() {
    for level in LEVELS {
        let name = format!("session-short-{level}");
        let topic = format!("session/short/{level}");
        let mut peer = join(&Connect::new(level, &name), false);
        peer.subscribe(&topic, 1);
        peer.leave();
        let mut sender = Peer::new(level, &format!("session-short-from-{level}"));
        sender.publish_acknowledged(&topic, b"nobody");
        join(&Connect::new(level, &name).resume(), false).expect_silence();
    }
}

#[test]
fn a_session_lasts_while_its_connection_does() {
    for level in LEVELS {
        // Even one that ends with the connection.
        let mut peer = join(&Connect::new(level, format!("session-lasts-{level}")), false);
        let topic = format!("session/lasts/{level}");
        peer.subscribe(&topic, 2);
        let mut sender = Peer::new(level, &format!("session-lasts-from-{level}"));
        for number in 0..100 {
            sender.publish_acknowledged(&topic, &[number]);
            let packet_id = peer.expect_publish(&topic, &[number]).packet_id;
            peer.send(&acknowledge(0x40, packet_id));
        }
        peer.expect_silence();
    }
}

#[test]
fn sessions_are_told_apart_by_the_whole_name() {
    for level in LEVELS {
        let names = ["session-name", "session-Name", "session-name ", "session-nam", "session-n\u{e4}me"];
        let connects = names.map(|name| Connect::new(level, format!("{name}-{level}")).resume());
        for (number, connect) in connects.iter().enumerate() {
            let mut peer = join(connect, false);
            peer.subscribe(&format!("session/name/{level}/{number}"), 1);
            peer.leave();
        }
        let mut sender = Peer::new(level, &format!("session-name-from-{level}"));
        for number in 0..names.len() {
            sender.publish_acknowledged(&format!("session/name/{level}/{number}"), b"x");
        }
        for (number, connect) in connects.iter().enumerate() {
            let mut peer = join(connect, true);
            peer.expect_publish(&format!("session/name/{level}/{number}"), b"x");
            peer.expect_silence();
        }
    }
}

#[test]
fn a_session_of_5_0_without_expiry_ends_with_its_connection() {
    for connect in
        [Connect::new(5, "session-absent").flags(0), Connect::new(5, "session-zero").flags(0).expires_after(0)]
    {
        join(&connect, false).leave();
        drop(join(&connect, false));
        join(&connect, false).leave();
    }
}

#[test]
fn a_clean_start_may_begin_a_session_that_stays() {
    let connect = Connect::new(5, "session-clean-and-stays");
    join(&connect.clone().expires_after(u32::MAX), false).leave();
    join(&connect.clone().resume(), true).leave();
    join(&connect.clone().expires_after(u32::MAX), false).leave();
    join(&connect, false).leave();
}

#[test]
fn disconnect_may_change_when_the_session_ends() {
    let goodbye =
        |seconds: u32| packet(0xE0, &[&[0, 5, property::SESSION_EXPIRY][..], &seconds.to_be_bytes()].concat());
    let connect = Connect::new(5, "session-changed").resume();
    let mut peer = join(&connect, false);
    peer.send(&goodbye(7200));
    peer.expect_end();
    let mut peer = join(&connect, true);
    peer.send(&goodbye(0));
    peer.expect_end();
    // A session that was to end with its connection cannot be prolonged.
    let mut peer = join(&Connect::new(5, "session-changed").flags(0), false);
    peer.send(&goodbye(7200));
    peer.expect_disconnect(&[0x82]);
    join(&connect, false).leave();
}

#[test]
fn takeover_hands_the_session_to_the_new_connection() {
    for level in LEVELS {
        let connect = Connect::new(level, format!("session-taken-{level}")).resume();
        let topic = format!("session/taken/{level}");
        let mut old = join(&connect, false);
        old.subscribe(&topic, 1);
        say(super::shared(), level, &topic, b"open");
        let packet_id = old.expect_publish(&topic, b"open").packet_id;
        let mut new = join(&connect, true);
        old.expect_disconnect(&[0x8E]);
        new.expect(&publish(level, 0x3A, &topic, packet_id, b"open"));
        new.expect_silence();
    }
}

#[test]
fn takeover_with_a_clean_start_discards_the_session() {
    for level in LEVELS {
        let name = format!("session-taken-clean-{level}");
        let topic = format!("session/taken-clean/{level}");
        let mut old = join(&Connect::new(level, &name).resume(), false);
        old.subscribe(&topic, 1);
        let mut new = join(&Connect::new(level, &name), false);
        old.expect_disconnect(&[0x8E]);
        say(super::shared(), level, &topic, b"x");
        new.expect_silence();
    }
}

#[test]
fn sessions_outlive_the_broker_s_death() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let data = directory.path().join("data");
    let broker = Broker::start(&data)?;
    for level in LEVELS {
        let topic = format!("session/death/{level}");
        let (mut peer, _) = Peer::join_at(broker.mqtt, &Connect::new(level, format!("open-{level}")).resume());
        peer.subscribe(&topic, 2);
        let (mut sender, _) = Peer::join_at(broker.mqtt, &Connect::new(level, format!("sender-{level}")).resume());
        sender.publish_acknowledged(&topic, b"open");
        peer.expect_publish(&topic, b"open");
        drop(peer);
        sender.publish_acknowledged(&topic, b"queued");
        sender.send(&publish(level, 0x34, &topic, 7, b"unreleased"));
        sender.expect_acknowledgement(0x50, 7, 0);
    }
    broker.kill()?;
    let broker = Broker::start(&data)?;
    for level in LEVELS {
        let topic = format!("session/death/{level}");
        let (mut sender, connack) =
            Peer::join_at(broker.mqtt, &Connect::new(level, format!("sender-{level}")).resume());
        assert_eq!(connack.flags, 1);
        sender.send(&publish(level, 0x3C, &topic, 7, b"unreleased"));
        sender.expect_acknowledgement(0x50, 7, 0);
        let (mut peer, connack) = Peer::join_at(broker.mqtt, &Connect::new(level, format!("open-{level}")).resume());
        assert_eq!(connack.flags, 1);
        assert!(peer.expect_publish(&topic, b"open").dup);
        peer.expect_publish(&topic, b"queued");
        peer.expect_publish(&topic, b"unreleased");
        peer.expect_silence();
        // The subscription is there, too.
        say(broker.mqtt, level, &topic, b"new");
        peer.expect_publish(&topic, b"new");
    }
    Ok(())
}

#[test]
fn takeover_of_a_session_that_would_end_starts_a_new_one() {
    // The old connection's end is the session's end, so there is none to resume.
    let connect = Connect::new(5, "session-would-end").flags(0);
    let mut old = join(&connect, false);
    old.subscribe("session/would-end", 0);
    let mut new = join(&connect, false);
    old.expect_disconnect(&[0x8E]);
    new.send(&publish(5, 0x30, "session/would-end", 0, b"x"));
    new.expect_silence();
}

#[test]
fn a_session_may_be_resumed_and_then_end_with_its_connection() {
    let stays = Connect::new(5, "session-then-ends").resume();
    join(&stays, false).leave();
    join(&Connect::new(5, "session-then-ends").flags(0), true).leave();
    join(&stays, false).leave();
}

#[test]
fn what_waits_keeps_everything_that_belongs_to_it() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let data = directory.path().join("data");
    let broker = Broker::start(&data)?;
    let connect = Connect::new(5, "sleeper").resume();
    let (mut peer, _) = Peer::join_at(broker.mqtt, &connect);
    // Retain As Published, and a subscription identifier.
    peer.send(&subscribe_with(5, 1, &[0x0B, 0xAC, 2], &[("waits/+", 0x0A)]));
    assert_eq!(peer.reasons(0x90, 1), [2]);
    peer.leave();
    let (mut sender, _) = Peer::join_at(broker.mqtt, &Connect::new(5, "sender"));
    let properties = [
        &[property::PAYLOAD_FORMAT, 1, property::CONTENT_TYPE, 0, 1, b't', property::RESPONSE_TOPIC, 0, 1, b'r'][..],
        &[property::CORRELATION_DATA, 0, 2, 0, 0xFF],
        &user_property("b", "1"),
        &user_property("a", "2"),
    ]
    .concat();
    sender.send(&publish_with(5, 0x35, "waits/a", 1, &properties, b"x"));
    sender.expect_acknowledgement(0x50, 1, 0);
    broker.kill()?;
    let broker = Broker::start(&data)?;
    for dup in [false, true] {
        let (mut peer, connack) = Peer::join_at(broker.mqtt, &connect);
        assert_eq!(connack.flags, 1);
        let seen = peer.expect_publish("waits/a", b"x");
        assert_eq!((seen.qos, seen.retain, seen.dup), (2, true, dup));
        assert_eq!(seen.properties.one(property::SUBSCRIPTION_IDENTIFIER), Some(&[0xAC, 2][..]));
        assert_eq!(seen.properties.one(property::PAYLOAD_FORMAT), Some(&[1][..]));
        assert_eq!(seen.properties.one(property::CONTENT_TYPE), Some(&[0, 1, b't'][..]));
        assert_eq!(seen.properties.one(property::RESPONSE_TOPIC), Some(&[0, 1, b'r'][..]));
        assert_eq!(seen.properties.one(property::CORRELATION_DATA), Some(&[0, 2, 0, 0xFF][..]));
        assert_eq!(seen.properties.all(property::USER), [[0, 1, b'b', 0, 1, b'1'], [0, 1, b'a', 0, 1, b'2']]);
        peer.leave();
    }
    Ok(())
}

#[test]
fn a_shorter_expiry_than_asked_for_is_told() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let config = directory.path().join("config.toml");
    std::fs::write(&config, "[limits]\nsession_expiry_s = 60\n")?;
    let config = config.to_str().expect("a path of this machine");
    let broker = Broker::start_with(&directory.path().join("data"), &["--config", config])?;
    for (asked, told) in [(3600, Some(&[0, 0, 0, 60][..])), (u32::MAX, Some(&[0, 0, 0, 60])), (60, None), (30, None)] {
        let (peer, connack) = Peer::join_at(broker.mqtt, &Connect::new(5, "asks").expires_after(asked));
        assert_eq!(connack.properties.one(property::SESSION_EXPIRY), told, "{asked} s");
        peer.leave();
    }
    Ok(())
}
