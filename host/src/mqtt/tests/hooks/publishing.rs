//! Publishes of clients: order, refusals, and exchanges that hooks end.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// A plugin that says of each publish below `h/` what the rest of its topic says; and how often it was asked.
fn install_verdicts(hooks: &Hooks) -> Arc<AtomicU32> {
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    install(hooks, "p", &[declaration(Hook::InterceptPublish, &["h/#"])], move |question| {
        let Question::Publish(passing) = question else { return Err("another question".to_owned()) };
        let count = count.fetch_add(1, Ordering::Relaxed);
        Ok(Answer::Publish(match &passing.message.topic.as_str()[2..] {
            "drop" => PublishVerdict::Drop,
            "deny" => PublishVerdict::Deny(refusal(0x99)),
            "strange" => PublishVerdict::Deny(refusal(0x8A)),
            "deny-again" if count > 0 => PublishVerdict::Deny(refusal(0x87)),
            "change" => PublishVerdict::Replace(changed(passing, "t", b"changed")),
            _ => PublishVerdict::Keep,
        }))
    });
    asked
}

#[test]
fn packets_of_a_client_keep_their_order_whoever_is_asked_about_them() {
    let hooks = Hooks::default();
    install(&hooks, "p", &[declaration(Hook::InterceptPublish, &["slow/#"])], |question| {
        let Question::Publish(passing) = question else { return Err("another question".to_owned()) };
        // Of several at a time, the later ones are answered first.
        let number = u64::from(passing.message.payload[0]);
        std::thread::sleep(Duration::from_micros(300 * (3 - number % 4)));
        Ok(Answer::Publish(PublishVerdict::Keep))
    });
    let served = served_with_hooks(&hooks);
    for level in [4, 5] {
        let mut to = subscriber(&served, level, "to", "#", 2);
        let mut from = client(&served, level, "from");
        let mut all = Vec::new();
        for number in 0..250_u8 {
            let topic = if number % 3 == 0 { "quick" } else { "slow/x" };
            let (first, packet_id) = match number % 4 {
                0 | 3 => (0x30, 0),
                1 => (0x32, u16::from(number)),
                _ => (0x34, u16::from(number)),
            };
            all.extend(publish(level, first, topic, packet_id, &[number]));
            if number % 50 == 0 {
                all.extend([0xC0, 0]);
            }
        }
        from.send(&all);
        for number in 0..250_u8 {
            let packet = to.packet();
            assert_eq!(packet.last(), Some(&number));
        }
        let mut acknowledged = Vec::new();
        while acknowledged.len() < 125 {
            let packet = from.packet();
            if packet[0] != 0xD0 {
                acknowledged.push(packet[3]);
            }
        }
        assert!(acknowledged.is_sorted(), "{acknowledged:?}");
        from.expect_silence();
    }
}

#[test]
fn a_publish_is_changed_and_stays_its_publisher_s() {
    let hooks = Hooks::default();
    install_verdicts(&hooks);
    let served = served_with_hooks(&hooks);
    for level in [4, 5] {
        let mut to = subscriber(&served, level, "to", "t", 1);
        let mut from = client(&served, level, "from");
        from.send(&publish(level, 0x32, "h/change", 9, b"as it was"));
        assert_eq!(from.packet()[..4], [0x40, 2, 0, 9]);
        to.expect(&publish(level, 0x32, "t", 1, b"changed"));
        from.send(&publish(level, 0x30, "h/keep", 0, b""));
        from.expect_silence();
    }
}

#[test]
fn a_refusal_is_an_acknowledgement_with_its_reason_or_the_end_of_a_3_1_1_connection() {
    let hooks = Hooks::default();
    install_verdicts(&hooks);
    let served = served_with_hooks(&hooks);
    let mut to = subscriber(&served, 4, "to", "#", 0);
    let (mut from, _) = served.v5_with("from", &[0x17, 1]);
    for (first, acknowledgement, topic, reason) in
        [(0x32, 0x40, "h/deny", 0x99), (0x34, 0x50, "h/deny", 0x99), (0x32, 0x40, "h/strange", 0x87)]
    {
        from.send(&publish(5, first, topic, 3, b""));
        let packet = from.packet();
        assert_eq!((packet[0], &packet[2..5]), (acknowledgement, &[0, 3, reason][..]), "{packet:02x?}");
        assert!(packet.ends_with(b"because"), "{packet:02x?}");
    }
    from.send(&publish(5, 0x30, "h/deny", 0, b""));
    from.expect_silence();
    for first in [0x32, 0x34] {
        let mut from = served.v3("three");
        from.send(&publish(4, first, "h/deny", 3, b""));
        from.expect_end();
    }
    let mut from = served.v3("three");
    from.send(&publish(4, 0x30, "h/deny", 0, b""));
    from.expect_silence();
    to.expect_silence();
    assert_eq!(served.counters.denied_by_hooks.value(), 7);
}

#[test]
fn what_a_client_may_not_publish_is_not_published() {
    let hooks = Hooks::default();
    let authorize = HookDeclaration { actions: vec![Action::Publish], ..declaration(Hook::Authorize, &["a/#"]) };
    install(&hooks, "p", &[authorize], |question| {
        let Question::Authorize(access) = question else { return Err("another question".to_owned()) };
        assert_eq!(access.qos, vespiary_core::Qos::AtLeastOnce);
        let may = &*access.client.id == "may";
        Ok(Answer::Authorize(if may { Authorization::Pass } else { Authorization::Deny(refusal(0x87)) }))
    });
    let served = served_with_hooks(&hooks);
    let mut to = subscriber(&served, 4, "to", "#", 0);
    for (name, reason) in [("may", None), ("may-not", Some(0x87))] {
        let mut from = served.v5(name);
        from.send(&publish(5, 0x32, "a/b", 1, name.as_bytes()));
        assert_eq!(from.packet().get(4).copied(), reason);
    }
    to.expect(&publish(4, 0x30, "a/b", 0, b"may"));
    to.expect_silence();
}

#[test]
fn a_publish_that_a_hook_drops_is_acknowledged_to_the_end() {
    let hooks = Hooks::default();
    let asked = install_verdicts(&hooks);
    let served = served_taking_two(&hooks);
    let mut to = subscriber(&served, 4, "to", "#", 2);
    for level in [4, 5] {
        let mut from = client(&served, level, "from");
        // More than may be unacknowledged at a time.
        for _ in 0..4 {
            from.send(&publish(level, 0x32, "h/drop", 1, b""));
            from.expect(&[0x40, 2, 0, 1]);
            let before = asked.load(Ordering::Relaxed);
            from.send(&publish(level, 0x34, "h/drop", 2, b""));
            from.expect(&[0x50, 2, 0, 2]);
            // The same again, of which nobody is asked.
            from.send(&publish(level, 0x3C, "h/drop", 2, b""));
            from.expect(&[0x50, 2, 0, 2]);
            assert_eq!(asked.load(Ordering::Relaxed), before + 1);
            from.send(&[0x62, 2, 0, 2]);
            from.expect(&[0x70, 2, 0, 2]);
        }
        from.send(&publish(level, 0x30, "h/drop", 0, b""));
        // The identifier is free for another.
        from.send(&publish(level, 0x34, "h/keep", 2, b"kept"));
        from.expect(&[0x50, 2, 0, 2]);
        assert!(to.packet().ends_with(b"kept"));
        from.send(&[0x62, 2, 0, 2]);
        from.expect(&[0x70, 2, 0, 2]);
        // One that nobody knows of is still told so.
        from.send(&[0x62, 2, 0, 2]);
        let pubcomp = from.packet();
        assert_eq!(pubcomp.get(4), if level == 5 { Some(&0x92) } else { None });
    }
    to.expect_silence();
}

fn served_taking_two(hooks: &Hooks) -> Served {
    let options = MqttOptions { hooks: hooks.clone(), ..MqttOptions::default() };
    served_with(1, options, Limits { receive_maximum: 2, ..Limits::default() })
}

#[test]
fn a_publish_that_was_taken_and_is_refused_when_it_comes_again_leaves_nothing_behind() {
    let hooks = Hooks::default();
    install_verdicts(&hooks);
    let served = served_taking_two(&hooks);
    let mut to = subscriber(&served, 4, "to", "#", 0);
    let mut from = served.v5("from");
    from.send(&publish(5, 0x34, "h/deny-again", 2, b"one"));
    from.expect(&[0x50, 2, 0, 2]);
    from.send(&publish(5, 0x3C, "h/deny-again", 2, b"one"));
    assert_eq!(from.packet()[4], 0x87);
    from.expect_silence();
    // For the client the identifier is free, and so it is here.
    from.send(&publish(5, 0x34, "h/keep", 2, b"two"));
    from.expect(&[0x50, 2, 0, 2]);
    from.send(&[0x62, 2, 0, 2]);
    from.expect(&[0x70, 2, 0, 2]);
    assert!(to.packet().ends_with(b"one"));
    assert!(to.packet().ends_with(b"two"));
    to.expect_silence();
}

#[test]
fn a_hook_that_comes_or_goes_is_asked_about_the_next_packet_of_whoever_is_connected() {
    let hooks = Hooks::default();
    let served = served_with_hooks(&hooks);
    let mut to = subscriber(&served, 4, "to", "#", 0);
    let mut from = served.v3("from");
    for (step, expected) in [(0, "h/change"), (1, "t"), (2, "h/change"), (3, "t")] {
        match step {
            0 => {}
            2 => hooks.remove(&PluginName("p".into())),
            _ => drop(install_verdicts(&hooks)),
        }
        from.send(&publish(4, 0x30, "h/change", 0, b"changed"));
        to.expect(&publish(4, 0x30, expected, 0, b"changed"));
    }
}

#[test]
fn a_connection_that_ends_while_it_waits_publishes_nothing_more() {
    let hooks = Hooks::default();
    let (open, wait) = gate();
    let (asked, is_asked) = channel();
    install(&hooks, "p", &[declaration(Hook::InterceptPublish, &["h"])], move |_| {
        asked.send(()).unwrap();
        wait();
        Ok(Answer::Publish(PublishVerdict::Keep))
    });
    let served = served_with_hooks(&hooks);
    let mut to = subscriber(&served, 4, "to", "#", 0);
    let mut from = served.v5("from");
    from.send(&[publish(5, 0x32, "h", 1, b"lost"), publish(5, 0x32, "t", 2, b"lost")].concat());
    is_asked.recv_timeout(PATIENCE).unwrap();
    let mut again = served.v5("from");
    from.expect_disconnect(0x8E);
    from.expect_end();
    drop(open);
    again.send(&publish(5, 0x32, "t", 1, b"new"));
    again.expect(&[0x40, 2, 0, 1]);
    to.expect(&publish(4, 0x30, "t", 0, b"new"));
    to.expect_silence();
}

#[test]
fn a_client_that_says_goodbye_at_once_is_heard_out() {
    let hooks = Hooks::default();
    install_verdicts(&hooks);
    let served = served_with_hooks(&hooks);
    let mut to = subscriber(&served, 4, "to", "#", 0);
    for level in [4, 5] {
        let mut from = served.socket();
        let publishes = [publish(level, 0x30, "h/keep", 0, b"last"), publish(level, 0x30, "u", 0, b"words")].concat();
        from.send(&[connect(level, 2, 0, "from"), publishes, vec![0xE0, 0]].concat());
        drop(from);
        to.expect(&publish(4, 0x30, "h/keep", 0, b"last"));
        to.expect(&publish(4, 0x30, "u", 0, b"words"));
    }
}

#[test]
fn what_stands_before_a_mistake_is_done_before_the_client_is_told() {
    let hooks = Hooks::default();
    install_verdicts(&hooks);
    let served = served_with_hooks(&hooks);
    let mut to = subscriber(&served, 4, "to", "#", 0);
    for (mistake, reason) in [(&[0x32, 2, 0, 1][..], 0x81), (&[0x30, 0xFF, 0xFF, 0xFF, 0xFF, 1], 0x81)] {
        let mut from = served.v5("from");
        from.send(&[&publish(5, 0x32, "h/keep", 1, b"before"), mistake].concat());
        to.expect(&publish(4, 0x30, "h/keep", 0, b"before"));
        assert_eq!(from.packet()[..4], [0x40, 2, 0, 1]);
        from.expect_disconnect(reason);
        from.expect_end();
    }
}

#[test]
fn nobody_is_timed_out_for_what_a_hook_takes_its_time_for() {
    let hooks = Hooks::default();
    let (open, wait) = gate();
    install(&hooks, "p", &[declaration(Hook::InterceptPublish, &["h"])], move |_| {
        wait();
        Ok(Answer::Publish(PublishVerdict::Keep))
    });
    let served = served_with_hooks(&hooks);
    let mut client = served.socket();
    client.send(&connect(5, 2, 1, "me"));
    client.packet();
    client.send(&publish(5, 0x32, "h", 1, b""));
    // Far beyond 1.5 times the keep-alive, in which it says no more.
    std::thread::sleep(Duration::from_millis(3_500));
    open.send(()).unwrap();
    assert_eq!(client.packet()[0], 0x40);
    client.expect_silence();
    assert_eq!(served.counters.timeouts.value(), 0);
}

#[test]
fn what_the_broker_says_by_itself_clients_may_neither_say_nor_always_hear() {
    let served = served();
    let mut to = subscriber(&served, 4, "to", "$clients/#", 0);
    let mut client = served.v5("me");
    to.packet();
    for topic in ["$timer/x", "$clients/me/x", "$dead/p/x", "$plugin/p"] {
        client.send(&publish(5, 0x32, topic, 1, b""));
        assert_eq!(client.packet()[2..5], [0, 1, 0x87], "{topic}");
    }
    // Nobody waits for this answer.
    client.send(&publish(5, 0x33, "$reply/p/7", 1, b""));
    let puback = client.packet();
    assert!(puback.get(4).is_none_or(|reason| *reason < 0x80), "{puback:02x?}");
    assert_eq!(served.driver.inspect(|broker| broker.statistics().retained_messages), 0);
    for (filter, reason) in [
        ("$timer/#", 0x87),
        ("$reply/p/7", 0x87),
        ("$share/g/$reply/#", 0x87),
        ("$timer", 0x87),
        ("$dead/#", 0),
        ("$timers/#", 0),
    ] {
        client.send(&subscribe(5, 2, filter, 0));
        assert_eq!(client.packet().last(), Some(&reason), "{filter}");
    }
}
