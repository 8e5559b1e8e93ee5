//! Wills (sections 3.1.2.5 and 3.1.3.2).

use std::time::{Duration, Instant};

use super::LEVELS;
use super::packets::{Connect, property, string, user_property};
use super::peer::Peer;

/// A client that waits for the will at `will/NAME/LEVEL`, and a CONNECT that leaves it, at QoS 1.
fn heir(level: u8, name: &str) -> (Peer, Connect, String) {
    let topic = format!("will/{name}/{level}");
    let mut heir = Peer::new(level, &format!("will-{name}-heir-{level}"));
    heir.subscribe(&topic, 2);
    let connect = Connect::new(level, format!("will-{name}-{level}")).will(&topic, b"gone", 1, false);
    (heir, connect, topic)
}

#[track_caller]
fn join(connect: &Connect) -> Peer {
    let (peer, connack) = Peer::join(connect);
    assert_eq!(connack.reason, 0);
    peer
}

#[test]
fn a_lost_connection_publishes_the_will_once() {
    for level in LEVELS {
        let (mut heir, connect, topic) = heir(level, "lost");
        drop(join(&connect));
        let seen = heir.expect_publish(&topic, b"gone");
        assert_eq!((seen.qos, seen.retain, seen.dup), (1, false, false));
        // It was of that connection: the next one without a will leaves none.
        drop(join(&Connect::new(level, format!("will-lost-{level}"))));
        Peer::new(level, &format!("will-lost-{level}")).leave();
        heir.expect_silence();
    }
}

#[test]
fn a_goodbye_discards_the_will() {
    for level in LEVELS {
        let (mut heir, connect, _) = heir(level, "goodbye");
        join(&connect).leave();
        heir.expect_silence();
        if level == 5 {
            let mut peer = join(&connect);
            peer.send(&[0xE0, 1, 0]);
            peer.expect_end();
            heir.expect_silence();
        }
    }
}

#[test]
fn any_other_goodbye_publishes_it() {
    let (mut heir, connect, topic) = heir(5, "other-goodbye");
    for reason in [0x04, 0x80, 0x83, 0x97, 0x98] {
        let mut peer = join(&connect);
        peer.send(&[0xE0, 1, reason]);
        peer.expect_end();
        heir.expect_publish(&topic, b"gone");
    }
}

#[test]
fn a_violation_publishes_it() {
    for level in LEVELS {
        let (mut heir, connect, topic) = heir(level, "violation");
        let mut peer = join(&connect);
        peer.send(&[0xC1, 0]);
        peer.expect_disconnect(&[0x81]);
        heir.expect_publish(&topic, b"gone");
    }
}

#[test]
fn takeover_publishes_it() {
    for level in LEVELS {
        let (mut heir, connect, topic) = heir(level, "takeover");
        let mut old = join(&connect);
        let new = join(&Connect::new(level, format!("will-takeover-{level}")));
        old.expect_disconnect(&[0x8E]);
        heir.expect_publish(&topic, b"gone");
        new.leave();
        heir.expect_silence();
    }
}

#[test]
fn a_client_without_a_will_leaves_none() {
    for level in LEVELS {
        let (mut heir, _, _) = heir(level, "none");
        drop(join(&Connect::new(level, format!("will-none-{level}"))));
        // The session ended with the connection, so the broker has noticed its end.
        Peer::new(level, &format!("will-none-{level}")).leave();
        heir.expect_silence();
    }
}

#[test]
fn a_will_has_its_own_qos_and_flag() {
    for level in LEVELS {
        for (qos, retain) in [(0, false), (1, true), (2, false), (2, true), (0, true)] {
            let topic = format!("will/own/{level}/{qos}/{retain}");
            let mut heir = Peer::new(level, &super::unique("will-own-heir"));
            heir.subscribe(&topic, 2);
            drop(join(&Connect::new(level, super::unique("will-own")).will(&topic, b"gone", qos, retain)));
            let seen = heir.expect_publish(&topic, b"gone");
            assert_eq!((seen.qos, seen.retain), (qos, false));
            let mut late = Peer::new(level, &super::unique("will-own-late"));
            late.subscribe(&topic, 2);
            if retain {
                let seen = late.expect_publish(&topic, b"gone");
                assert_eq!((seen.qos, seen.retain), (qos, true));
            }
            late.expect_silence();
        }
    }
}

#[test]
fn a_will_may_be_empty() {
    for level in LEVELS {
        let topic = format!("will/empty/{level}");
        let mut heir = Peer::new(level, &format!("will-empty-heir-{level}"));
        heir.subscribe(&topic, 0);
        drop(join(&Connect::new(level, format!("will-empty-{level}")).will(&topic, b"", 0, false)));
        heir.expect_publish(&topic, b"");
    }
}

#[test]
fn a_will_keeps_its_properties() {
    let (mut heir, connect, topic) = heir(5, "properties");
    let pairs = [("b", "1"), ("a", "2"), ("b", "0")];
    let mut connect = connect
        .will_property(property::CONTENT_TYPE, &string("text/plain"))
        .will_property(property::RESPONSE_TOPIC, &string("will/answers"))
        .will_property(property::CORRELATION_DATA, &string([0, 0xFF]))
        .will_property(property::PAYLOAD_FORMAT, &[1]);
    for (name, value) in pairs {
        connect = connect.will_property(property::USER, &user_property(name, value)[1..]);
    }
    drop(join(&connect));
    let seen = heir.expect_publish(&topic, b"gone").properties;
    assert_eq!(seen.one(property::CONTENT_TYPE), Some(&string("text/plain")[..]));
    assert_eq!(seen.one(property::RESPONSE_TOPIC), Some(&string("will/answers")[..]));
    assert_eq!(seen.one(property::CORRELATION_DATA), Some(&string([0, 0xFF])[..]));
    assert_eq!(seen.one(property::PAYLOAD_FORMAT), Some(&[1][..]));
    assert_eq!(seen.all(property::USER), pairs.map(|(name, value)| [string(name), string(value)].concat()));
    assert_eq!(seen.one(property::WILL_DELAY), None);
}

#[test]
fn a_will_may_not_go_to_a_wildcard() {
    for topic in ["will/#", "will/+", ""] {
        let (mut peer, connack) = Peer::join(&Connect::new(5, "will-wildcard").will(topic, b"gone", 0, false));
        assert!([0x81, 0x82, 0x90].contains(&connack.reason), "{connack:?}");
        peer.expect_end();
        let mut peer = Peer::socket(4);
        peer.send(&Connect::new(4, "will-wildcard-3").will(topic, b"gone", 0, false).bytes());
        peer.expect_end();
    }
}

// ------------------------------------------------------------------------------------ will delay

#[test]
fn a_delayed_will_comes_after_its_delay() {
    let (mut heir, connect, topic) = heir(5, "delay");
    let peer = join(&connect.resume().will_property(property::WILL_DELAY, &1_u32.to_be_bytes()));
    let closed = Instant::now();
    drop(peer);
    heir.expect_publish(&topic, b"gone");
    assert!(closed.elapsed() >= Duration::from_secs(1), "{:?}", closed.elapsed());
}

#[test]
fn a_return_before_the_delay_is_over_cancels_it() {
    let (mut heir, connect, _) = heir(5, "cancelled");
    let delayed = connect.resume().will_property(property::WILL_DELAY, &3600_u32.to_be_bytes());
    drop(join(&delayed));
    let (peer, connack) = Peer::join(&Connect::new(5, "will-cancelled-5").resume());
    assert_eq!(connack.flags, 1);
    peer.leave();
    heir.expect_silence();
    // The end of the session has nothing left to publish.
    Peer::new(5, "will-cancelled-5").leave();
    heir.expect_silence();
}

#[test]
fn the_end_of_the_session_does_not_wait_for_the_delay() {
    let (mut heir, connect, topic) = heir(5, "session-end");
    let delayed = connect.will_property(property::WILL_DELAY, &3600_u32.to_be_bytes());
    // The session ends with its connection.
    drop(join(&delayed));
    heir.expect_publish(&topic, b"gone");
    // The session is discarded by a clean start.
    drop(join(&delayed.clone().resume()));
    Peer::new(5, "will-session-end-5").leave();
    heir.expect_publish(&topic, b"gone");
    heir.expect_silence();
}

#[test]
fn an_empty_retained_will_removes_what_was_retained() {
    for level in LEVELS {
        let topic = format!("will/removes/{level}");
        let mut sender = Peer::new(level, &format!("will-removes-from-{level}"));
        sender.send(&super::packets::publish(level, 0x31, &topic, 0, b"kept"));
        let mut heir = Peer::new(level, &format!("will-removes-heir-{level}"));
        heir.subscribe(&topic, 0);
        heir.expect_publish(&topic, b"kept");
        drop(join(&Connect::new(level, format!("will-removes-{level}")).will(&topic, b"", 1, true)));
        heir.expect_publish(&topic, b"");
        let mut late = Peer::new(level, &format!("will-removes-late-{level}"));
        late.subscribe(&topic, 0);
        late.expect_silence();
    }
}
