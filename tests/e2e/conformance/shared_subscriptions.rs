//! Shared subscriptions (section 4.8.2), in 5.0 and, by the same names, in 3.1.1.

use std::collections::BTreeSet;

use super::LEVELS;
use super::packets::{Connect, acknowledge, acknowledge_because, property, publish, subscribe, unsubscribe};
use super::peer::Peer;

/// Members of `$share/GROUP/FILTER`, who are granted this QoS.
#[track_caller]
fn members(level: u8, group: &str, filter: &str, qos: u8, count: usize) -> Vec<Peer> {
    (0..count)
        .map(|number| {
            let mut peer = Peer::new(level, &format!("shared-{group}-{number}-{level}"));
            peer.subscribe(&format!("$share/{group}/{filter}"), qos);
            peer
        })
        .collect()
}

/// What came to a client until now: payloads of one byte.
#[track_caller]
fn take_all(peer: &mut Peer) -> Vec<u8> {
    peer.send(&super::packets::PINGREQ);
    let mut payloads = Vec::new();
    loop {
        let packet = peer.packet();
        match packet[0] >> 4 {
            3 => payloads.extend(packet.last()),
            _ => break,
        }
    }
    payloads
}

#[test]
fn each_message_goes_to_one_member() {
    for level in LEVELS {
        let topic = format!("shared/one/{level}");
        let mut members = members(level, "one", &topic, 0, 3);
        let mut plain = Peer::new(level, &format!("shared-one-plain-{level}"));
        plain.subscribe(&topic, 0);
        let mut sender = Peer::new(level, &format!("shared-one-from-{level}"));
        let all: Vec<u8> = (0..90).flat_map(|number| publish(level, 0x30, &topic, 0, &[number])).collect();
        sender.send(&all);
        sender.expect_silence();
        let expected: Vec<u8> = (0..90).collect();
        let mut seen: Vec<u8> = members.iter_mut().flat_map(take_all).collect();
        seen.sort_unstable();
        assert_eq!(seen, expected, "each message once among the members");
        assert_eq!(take_all(&mut plain), expected, "an ordinary subscription gets all");
    }
}

#[test]
fn each_group_gets_its_own_copy() {
    for level in LEVELS {
        let topic = format!("shared/groups/{level}/a");
        let mut first = members(level, "first", &topic, 0, 2);
        let mut second = members(level, "second", &format!("shared/groups/{level}/+"), 0, 2);
        let mut sender = Peer::new(level, &format!("shared-groups-from-{level}"));
        let all: Vec<u8> = (0..20).flat_map(|number| publish(level, 0x30, &topic, 0, &[number])).collect();
        sender.send(&all);
        sender.expect_silence();
        for group in [&mut first, &mut second] {
            let seen: BTreeSet<u8> = group.iter_mut().flat_map(take_all).collect();
            assert!(seen.iter().copied().eq(0..20), "{seen:?}");
        }
    }
}

#[test]
fn connack_does_not_say_that_there_are_none() {
    let (peer, connack) = Peer::join(&Connect::new(5, "shared-offer"));
    assert!(matches!(connack.properties.one(property::SHARED_SUBSCRIPTION_AVAILABLE), None | Some([1])));
    peer.leave();
}

#[test]
fn a_member_s_qos_is_respected() {
    for level in LEVELS {
        for granted in 0..3 {
            let topic = format!("shared/qos/{level}/{granted}");
            let mut member = members(level, &format!("qos-{granted}"), &topic, granted, 1).remove(0);
            let mut sender = Peer::new(level, &super::unique("shared-qos-from"));
            for published in 0..3_u8 {
                sender.publish_completely(&topic, &[published], published);
                let seen = member.expect_publish(&topic, &[published]);
                assert_eq!(seen.qos, granted.min(published));
            }
            member.expect_silence();
        }
    }
}

#[test]
fn retained_messages_do_not_greet_a_shared_subscription() {
    for level in LEVELS {
        let topic = format!("shared/retained/{level}");
        let mut sender = Peer::new(level, &format!("shared-retained-from-{level}"));
        sender.send(&publish(level, 0x31, &topic, 0, b"kept"));
        sender.expect_silence();
        members(level, "retained", &topic, 1, 1)[0].expect_silence();
    }
}

#[test]
fn a_group_has_a_name_and_a_filter() {
    for level in LEVELS {
        for filter in ["$share//a", "$share/g", "$share/g/", "$share/", "$share/+/a", "$share/#/a", "$share/a+/b"] {
            let mut peer = Peer::new(level, &super::unique("shared-malformed"));
            peer.send(&subscribe(level, 1, &[(filter, 0)]));
            // Refused by itself, or as malformed with its connection: both keep it from standing.
            let answer = peer.next();
            match (level, answer.as_deref()) {
                (_, None) | (5, Some([0xE0, _, 0x81 | 0x82 | 0x8F, ..])) => {}
                (4, Some([0x90, _, 0, 1, 0x80])) | (5, Some([0x90, .., 0x8F])) => peer.expect_silence(),
                (_, Some(answer)) => panic!("{answer:02x?} for {filter}"),
            }
        }
    }
}

#[test]
fn the_filter_behind_the_group_is_a_filter() {
    for (level, refused) in [(4, 0x80), (5, 0x8F)] {
        let mut peer = Peer::new(level, &format!("shared-filter-{level}"));
        peer.send(&subscribe(level, 1, &[("$share/g/a#", 0), ("$share/g/#/a", 0), ("$share/g/shared-filter/+/#", 1)]));
        assert_eq!(peer.reasons(0x90, 1), [refused, refused, 1]);
    }
}

#[test]
fn no_local_on_a_shared_subscription_is_a_protocol_error() {
    let mut peer = Peer::new(5, "shared-no-local");
    peer.send(&subscribe(5, 1, &[("$share/g/shared/no-local", 0x04)]));
    peer.expect_disconnect(&[0x82]);
}

#[test]
fn leaving_the_group_leaves_the_messages_to_the_others() {
    for level in LEVELS {
        let topic = format!("shared/leave/{level}");
        let shared = format!("$share/leave/{topic}");
        let mut members = members(level, "leave", &topic, 0, 2);
        // The group is part of the name: the filter alone is another subscription.
        members[0].send(&unsubscribe(level, 1, &[&topic, &format!("$share/other/{topic}")]));
        assert_eq!(members[0].reasons(0xB0, 1), if level == 5 { vec![0x11, 0x11] } else { vec![] });
        members[0].send(&unsubscribe(level, 2, &[&shared]));
        assert_eq!(members[0].reasons(0xB0, 2), if level == 5 { vec![0] } else { vec![] });
        let mut sender = Peer::new(level, &format!("shared-leave-from-{level}"));
        for number in 0..10 {
            sender.send(&publish(level, 0x30, &topic, 0, &[number]));
        }
        sender.expect_silence();
        members[0].expect_silence();
        assert!(take_all(&mut members[1]).into_iter().eq(0..10));
    }
}

#[test]
fn a_qos_2_delivery_that_was_begun_is_finished_with_its_member() {
    for level in LEVELS {
        let topic = format!("shared/begun/{level}");
        let connect = Connect::new(level, format!("shared-begun-{level}")).resume();
        let (mut member, _) = Peer::join(&connect);
        member.subscribe(&format!("$share/begun/{topic}"), 2);
        let mut sender = Peer::new(level, &format!("shared-begun-from-{level}"));
        sender.publish_completely(&topic, b"2", 2);
        let packet_id = member.expect_publish(&topic, b"2").packet_id;
        let mut other = Peer::new(level, &format!("shared-begun-other-{level}"));
        other.subscribe(&format!("$share/begun/{topic}"), 2);
        drop(member);
        let (mut member, connack) = Peer::join(&connect);
        assert_eq!(connack.flags, 1);
        member.expect(&publish(level, 0x3C, &topic, packet_id, b"2"));
        member.send(&acknowledge(0x50, packet_id));
        member.expect_acknowledgement(0x62, packet_id, 0);
        other.expect_silence();
    }
}

#[test]
fn a_delivery_that_was_begun_ends_with_its_member_s_session() {
    let topic = "shared/ended";
    let connect = Connect::new(5, "shared-ended").resume();
    let (mut member, _) = Peer::join(&connect);
    member.subscribe("$share/ended/shared/ended", 2);
    let mut sender = Peer::new(5, "shared-ended-from");
    sender.publish_completely(topic, b"2", 2);
    member.expect_publish(topic, b"2");
    let mut other = Peer::new(5, "shared-ended-other");
    other.subscribe("$share/ended/shared/ended", 2);
    drop(member);
    // A clean start ends the session; nobody else gets what was begun.
    Peer::new(5, "shared-ended").leave();
    other.expect_silence();
}

#[test]
fn a_message_that_a_member_refuses_goes_to_nobody_else() {
    let topic = "shared/refused";
    let mut member = members(5, "refused", topic, 2, 1).remove(0);
    let mut sender = Peer::new(5, "shared-refused-from");
    sender.publish_acknowledged(topic, b"1");
    sender.publish_completely(topic, b"2", 2);
    let one = member.expect_publish(topic, b"1").packet_id;
    let two = member.expect_publish(topic, b"2").packet_id;
    let mut other = Peer::new(5, "shared-refused-other");
    other.subscribe("$share/refused/shared/refused", 2);
    member.send(&acknowledge_because(0x40, one, 0x80));
    member.send(&acknowledge_because(0x50, two, 0x80));
    member.expect_silence();
    other.expect_silence();
}

#[test]
fn messages_of_one_client_stay_in_order_for_a_lonely_member() {
    for level in LEVELS {
        let topic = format!("shared/order/{level}");
        let mut member = members(level, "order", &topic, 0, 1).remove(0);
        let mut sender = Peer::new(level, &format!("shared-order-from-{level}"));
        let all: Vec<u8> = (0..100).flat_map(|number| publish(level, 0x30, &topic, 0, &[number])).collect();
        sender.send(&all);
        sender.expect_silence();
        assert!(take_all(&mut member).into_iter().eq(0..100));
    }
}
