//! UNSUBSCRIBE and UNSUBACK (sections 3.10 and 3.11).

use super::LEVELS;
use super::packets::{acknowledge, packet, publish, unsubscribe};
use super::peer::Peer;

#[test]
fn an_unsubscribe_without_filters_closes_the_connection() {
    for level in LEVELS {
        let mut peer = Peer::new(level, &super::unique("unsubscribe-none"));
        peer.send(&unsubscribe::<&str>(level, 1, &[]));
        peer.expect_disconnect(&[0x82]);
        let mut peer = Peer::new(level, &super::unique("unsubscribe-empty"));
        peer.send(&unsubscribe(level, 1, &[""]));
        peer.expect_disconnect(&[0x81, 0x82]);
    }
}

#[test]
fn an_unsubscribe_is_always_answered() {
    let mut peer = Peer::new(4, "unsubscribe-answer-3");
    peer.send(&unsubscribe(4, 0x0102, &["unsubscribe/never"]));
    peer.expect(&[0xB0, 2, 1, 2]);
    let mut peer = Peer::new(5, "unsubscribe-answer-5");
    peer.send(&unsubscribe(5, 0x0102, &["unsubscribe/never"]));
    peer.expect(&[0xB0, 4, 1, 2, 0, 0x11]);
}

#[test]
fn only_an_equal_filter_is_deleted() {
    for level in LEVELS {
        let name = format!("unsubscribe/equal/{level}");
        let mut peer = Peer::new(level, &format!("unsubscribe-equal-{level}"));
        peer.subscribe(&format!("{name}/+"), 0);
        let near = ["#", "+/+", "a", "+/#", "+/", "/+", "B"].map(|end| format!("{name}/{end}"));
        peer.send(&unsubscribe(level, 1, &near));
        assert_eq!(peer.reasons(0xB0, 1), if level == 5 { vec![0x11; 7] } else { vec![] });
        peer.send(&publish(level, 0x30, format!("{name}/a"), 0, b"still"));
        peer.expect_publish(&format!("{name}/a"), b"still");
        peer.send(&unsubscribe(level, 2, &[format!("{name}/+")]));
        assert_eq!(peer.reasons(0xB0, 2), if level == 5 { vec![0] } else { vec![] });
        peer.send(&publish(level, 0x30, format!("{name}/a"), 0, b"gone"));
        peer.expect_silence();
    }
}

#[test]
fn each_filter_is_answered_in_its_place() {
    for level in LEVELS {
        let names = ["a", "b", "c"].map(|end| format!("unsubscribe/order/{level}/{end}"));
        let mut peer = Peer::new(level, &format!("unsubscribe-order-{level}"));
        peer.subscribe(&names[0], 0);
        peer.subscribe(&names[2], 0);
        peer.send(&unsubscribe(level, 1, &[&names[0], &names[1], &names[2], &names[0]]));
        let expected: &[u8] = if level == 5 { &[0, 0x11, 0, 0x11] } else { &[] };
        assert_eq!(peer.reasons(0xB0, 1), expected);
        for name in &names {
            peer.send(&publish(level, 0x30, name, 0, b"x"));
        }
        peer.expect_silence();
    }
}

#[test]
fn nothing_new_comes_and_what_was_begun_is_finished() {
    for level in LEVELS {
        let topic = format!("unsubscribe/begun/{level}");
        let mut peer = Peer::new(level, &format!("unsubscribe-begun-{level}"));
        peer.subscribe(&topic, 2);
        let mut sender = Peer::new(level, &format!("unsubscribe-begun-from-{level}"));
        sender.publish_acknowledged(&topic, b"one");
        sender.send(&publish(level, 0x34, &topic, 1, b"two"));
        sender.expect_acknowledgement(0x50, 1, 0);
        let one = peer.expect_publish(&topic, b"one").packet_id;
        let two = peer.expect_publish(&topic, b"two").packet_id;
        peer.send(&unsubscribe(level, 9, &[&topic]));
        peer.reasons(0xB0, 9);
        sender.publish_acknowledged(&topic, b"three");
        // Both exchanges go on to their end.
        peer.send(&acknowledge(0x40, one));
        peer.send(&acknowledge(0x50, two));
        peer.expect_acknowledgement(0x62, two, 0);
        peer.send(&acknowledge(0x70, two));
        peer.expect_silence();
    }
}

#[test]
fn what_was_begun_is_also_finished_on_the_next_connection() {
    for level in LEVELS {
        let topic = format!("unsubscribe/resumed/{level}");
        let connect = super::packets::Connect::new(level, format!("unsubscribe-resumed-{level}")).resume();
        let (mut peer, _) = Peer::join(&connect);
        peer.subscribe(&topic, 1);
        let mut sender = Peer::new(level, &format!("unsubscribe-resumed-from-{level}"));
        sender.publish_acknowledged(&topic, b"begun");
        let packet_id = peer.expect_publish(&topic, b"begun").packet_id;
        peer.send(&unsubscribe(level, 9, &[&topic]));
        peer.reasons(0xB0, 9);
        peer.leave();
        sender.publish_acknowledged(&topic, b"not for it");
        let (mut peer, connack) = Peer::join(&connect);
        assert_eq!(connack.flags, 1);
        let seen = peer.expect_publish(&topic, b"begun");
        assert_eq!((seen.packet_id, seen.dup), (packet_id, true));
        peer.send(&acknowledge(0x40, packet_id));
        peer.expect_silence();
    }
}

#[test]
fn properties_of_unsubscribe_are_checked() {
    // A User Property is taken; a Subscription Identifier belongs to SUBSCRIBE.
    let mut peer = Peer::new(5, "unsubscribe-properties");
    peer.send(&packet(0xA2, &[0, 1, 7, 0x26, 0, 1, b'k', 0, 1, b'v', 0, 1, b'a']));
    assert_eq!(peer.reasons(0xB0, 1), [0x11]);
    peer.send(&packet(0xA2, &[0, 1, 2, 0x0B, 1, 0, 1, b'a']));
    peer.expect_disconnect(&[0x81]);
}

#[test]
fn an_unsuback_that_is_too_large_for_its_client_is_not_sent() {
    let connect = super::packets::Connect::new(5, "unsubscribe-unsuback-size")
        .property(super::packets::property::MAXIMUM_PACKET_SIZE, &[0, 0, 0, 60]);
    let (mut peer, _) = Peer::join(&connect);
    let names: Vec<String> = (0..200).map(|number| format!("unsubscribe/unsuback-size/{number}")).collect();
    peer.send(&[unsubscribe(5, 1, &names), super::packets::PINGREQ.to_vec()].concat());
    while let Some(packet) = peer.next() {
        assert!(packet.len() <= 60, "{} bytes for a client that takes 60", packet.len());
        if packet[0] == 0xD0 {
            break;
        }
    }
}
