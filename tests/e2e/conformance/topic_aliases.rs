//! Topic aliases from the broker to a client (sections 3.1.2.11.5 and 3.3.2.3.4).

use std::collections::BTreeMap;

use super::packets::{Connect, acknowledge, property, publish};
use super::peer::{Peer, Publish};

/// A client that takes aliases up to this one, and subscribed to `aliases/NAME/#`.
fn subscriber(name: &str, maximum: u16, qos: u8) -> (Peer, Connect) {
    let connect = Connect::new(5, format!("aliases-{name}"))
        .resume()
        .property(property::TOPIC_ALIAS_MAXIMUM, &maximum.to_be_bytes());
    let (mut peer, _) = Peer::join(&connect);
    peer.subscribe(&format!("aliases/{name}/#"), qos);
    (peer, connect)
}

/// What a client knows of aliases on one connection.
#[derive(Default)]
struct Aliases(BTreeMap<u16, String>);

impl Aliases {
    /// The topic that a message is meant for.
    #[track_caller]
    fn topic(&mut self, seen: &Publish, maximum: u16) -> String {
        let Some(value) = seen.properties.one(property::TOPIC_ALIAS) else {
            assert!(!seen.topic.is_empty(), "neither topic nor alias: {seen:?}");
            return seen.topic.clone();
        };
        let alias = u16::from_be_bytes([value[0], value[1]]);
        assert!((1..=maximum).contains(&alias), "alias {alias} for a client that takes {maximum}");
        if seen.topic.is_empty() {
            return self.0.get(&alias).unwrap_or_else(|| panic!("alias {alias} was never set")).clone();
        }
        self.0.insert(alias, seen.topic.clone());
        seen.topic.clone()
    }
}

#[test]
fn a_client_that_does_not_ask_gets_none() {
    for connect in [
        Connect::new(5, "aliases-absent"),
        Connect::new(5, "aliases-zero").property(property::TOPIC_ALIAS_MAXIMUM, &[0, 0]),
    ] {
        let (mut peer, _) = Peer::join(&connect);
        peer.subscribe("aliases/none", 0);
        for number in 0..20 {
            peer.send(&publish(5, 0x30, "aliases/none", 0, &[number]));
            let seen = peer.expect_publish("aliases/none", &[number]);
            assert_eq!(seen.properties.one(property::TOPIC_ALIAS), None);
        }
        peer.leave();
    }
}

#[test]
fn aliases_stay_within_the_client_s_maximum_and_stand_for_their_topics() {
    for maximum in [1, 3, 100] {
        let (mut peer, _) = subscriber(&format!("within-{maximum}"), maximum, 0);
        let mut sender = Peer::new(5, &format!("aliases-within-from-{maximum}"));
        let mut aliases = Aliases::default();
        for round in 0..10 {
            for leaf in 0..8 {
                // Some topics are heard often, some seldom.
                if round % (leaf + 1) == 0 {
                    let topic = format!("aliases/within-{maximum}/{leaf}");
                    sender.send(&publish(5, 0x30, &topic, 0, &[round, leaf]));
                    let seen = peer.publish();
                    assert_eq!(aliases.topic(&seen, maximum), topic);
                    assert_eq!(seen.payload, [round, leaf]);
                }
            }
        }
    }
}

#[test]
fn an_alias_ends_with_its_connection() {
    let (mut peer, connect) = subscriber("ends", 5, 1);
    let mut sender = Peer::new(5, "aliases-ends-from");
    let mut aliases = Aliases::default();
    let mut open = Vec::new();
    for number in 0..10 {
        sender.publish_acknowledged("aliases/ends/a", &[number]);
        let seen = peer.publish();
        assert_eq!(aliases.topic(&seen, 5), "aliases/ends/a");
        open.push(seen.packet_id);
    }
    drop(peer);
    // What is sent again on the next connection names its topic anew, since no alias is known there.
    let (mut peer, connack) = Peer::join(&connect);
    assert_eq!(connack.flags, 1);
    let mut aliases = Aliases::default();
    for (number, packet_id) in open.iter().enumerate() {
        let seen = peer.publish();
        assert_eq!(aliases.topic(&seen, 5), "aliases/ends/a");
        assert_eq!((seen.payload, seen.packet_id, seen.dup), (vec![number as u8], *packet_id, true));
        peer.send(&acknowledge(0x40, *packet_id));
    }
    // And a client that takes none any more gets none.
    drop(peer);
    let (mut peer, _) = Peer::join(&Connect::new(5, "aliases-ends").resume());
    sender.publish_acknowledged("aliases/ends/a", b"plain");
    assert_eq!(peer.expect_publish("aliases/ends/a", b"plain").properties.one(property::TOPIC_ALIAS), None);
}
