//! Topic aliases towards clients.

use super::*;

/// Topic Alias Maximum in CONNECT.
fn takes(maximum: u16) -> [u8; 3] {
    let [high, low] = maximum.to_be_bytes();
    [0x22, high, low]
}

/// A client that takes aliases and has subscribed to everything.
fn subscriber(served: &Served, maximum: u16) -> Client {
    let (mut client, _) = served.v5_with("subscriber", &takes(maximum));
    client.send(&subscribe(5, 1, "#", 1));
    client.expect(&[0x90, 4, 0, 1, 0, 1]);
    client
}

/// [MQTT-3.3.2-8] [MQTT-3.3.2-11]
#[test]
fn a_topic_that_repeats_is_sent_by_its_alias() {
    let served = served();
    let mut to = subscriber(&served, 2);
    let mut plain_v5 = served.v5("plain five");
    let mut plain_v3 = served.v3("plain three");
    plain_v5.send(&subscribe(5, 1, "#", 1));
    plain_v3.send(&subscribe(4, 1, "#", 1));
    plain_v5.packet();
    plain_v3.packet();
    let mut from = served.v5("from");
    let (one, two, three) = ("some/topic", "other/topic", "third/topic");
    for (topic, name, alias) in [
        (one, one, Some(1)),
        (one, "", Some(1)),
        (two, two, Some(2)),
        (one, "", Some(1)),
        ("tiny", "tiny", None),
        (three, three, None),
        (three, three, Some(2)),
        (three, "", Some(2)),
        (one, "", Some(1)),
    ] {
        from.send(&publish(5, 0x30, topic, 0, b"hello"));
        let expected = match alias {
            Some(alias) => publish_with(0x30, name, 0, &[0x23, 0, alias], b"hello"),
            None => publish(5, 0x30, name, 0, b"hello"),
        };
        to.expect(&expected);
        plain_v5.expect(&publish(5, 0x30, topic, 0, b"hello"));
        plain_v3.expect(&publish(4, 0x30, topic, 0, b"hello"));
    }
}

#[test]
fn an_alias_stands_before_the_other_properties_and_behind_the_packet_identifier() {
    let served = served();
    let (mut to, _) = served.v5_with("to", &takes(1));
    // With subscription identifier 5, at QoS 2.
    to.send(&[0x82, 9, 0, 1, 2, 0x0B, 5, 0, 1, b'#', 2]);
    to.packet();
    let mut from = served.v5("from");
    for (packet_id, name) in [(1, "some/topic"), (2, "")] {
        from.send(&publish_with(0x35, "some/topic", packet_id, &[3, 0, 1, b't'], b"hello"));
        let expected = [0x23, 0, 1, 0x0B, 5, 3, 0, 1, b't'];
        to.expect(&publish_with(0x34, name, packet_id, &expected, b"hello"));
    }
}

/// An alias mapping lives as long as its network connection (section 3.3.2.3.4).
#[test]
fn aliases_end_with_their_connection() {
    let served = served();
    let mut from = served.v5("from");
    // A session that outlives its connection, without and with a clean start.
    for (flags, maximum) in [(2, 3), (0, 3), (0, 0)] {
        let mut to = served.socket();
        let mut connect = connect_with("to", &[&[0x11, 0, 0, 0, 99], &takes(maximum)[..]].concat());
        connect[9] = flags;
        to.send(&connect);
        to.packet();
        if flags == 2 {
            to.send(&subscribe(5, 1, "#", 0));
            to.packet();
        }
        for name in ["some/topic", ""] {
            from.send(&publish(5, 0x30, "some/topic", 0, b"x"));
            if maximum == 0 {
                to.expect(&publish(5, 0x30, "some/topic", 0, b"x"));
            } else {
                to.expect(&publish_with(0x30, name, 0, &[0x23, 0, 1], b"x"));
            }
        }
        to.send(&[0xE0, 0]);
        to.expect_end();
    }
}

#[test]
fn the_operator_bounds_the_aliases_that_are_used() {
    for topic_aliases in [0, 1] {
        let options = MqttOptions { topic_aliases, ..MqttOptions::default() };
        let served = served_with(1, options, Limits::default());
        let mut to = subscriber(&served, u16::MAX);
        let mut from = served.v5("from");
        for (topic, name) in [("first/topic", "first/topic"), ("second/topic", "second/topic"), ("first/topic", "")] {
            from.send(&publish(5, 0x30, topic, 0, b"x"));
            if topic_aliases == 1 && topic == "first/topic" {
                to.expect(&publish_with(0x30, name, 0, &[0x23, 0, 1], b"x"));
            } else {
                to.expect(&publish(5, 0x30, topic, 0, b"x"));
            }
        }
    }
}

/// [MQTT-3.1.2-24]
#[test]
fn an_alias_never_makes_a_packet_too_large() {
    let served = served();
    let (mut to, _) = served.v5_with("to", &[&[0x27, 0, 0, 0, 60], &takes(5)[..]].concat());
    to.send(&subscribe(5, 1, "#", 0));
    to.packet();
    let mut from = served.v5("from");
    let full = publish(5, 0x30, "some/topic", 0, &[7; 45]);
    assert_eq!(full.len(), 60);
    from.send(&full);
    to.expect(&full);
    from.send(&publish(5, 0x30, "some/topic", 0, &[7; 40]));
    to.expect(&publish_with(0x30, "some/topic", 0, &[0x23, 0, 1], &[7; 40]));
    from.send(&full);
    to.expect(&publish_with(0x30, "", 0, &[0x23, 0, 1], &[7; 45]));
}

#[test]
fn many_topics_to_many_clients_are_each_understood() {
    let served = served_with(2, MqttOptions { topic_aliases: 8, ..MqttOptions::default() }, Limits::default());
    let mut clients: Vec<_> = (0..6_u16)
        .map(|index| {
            let (mut client, _) = served.v5_with(&format!("to{index}"), &takes(index));
            client.send(&subscribe(5, 1, "#", 0));
            client.packet();
            (client, vec![None; usize::from(index)])
        })
        .collect();
    let mut from = served.v5("from");
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..400_u16 {
        let topic = format!("topic/number/{}", random.u8(..9) / random.u8(1..4));
        from.send(&publish(5, 0x30, &topic, 0, &round.to_be_bytes()));
        for (client, known) in &mut clients {
            let packet = client.packet();
            let length = usize::from(packet[3]);
            let name = std::str::from_utf8(&packet[4..4 + length]).unwrap();
            assert!(packet.ends_with(&round.to_be_bytes()));
            match packet[4 + length] {
                0 => assert_eq!(name, topic),
                3 => {
                    let known = &mut known[usize::from(packet[7 + length]) - 1];
                    if !name.is_empty() {
                        *known = Some(name.to_owned());
                    }
                    assert_eq!(known.as_ref(), Some(&topic));
                }
                other => panic!("{other} bytes of properties"),
            }
        }
    }
}
