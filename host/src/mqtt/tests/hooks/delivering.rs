//! Publishes to clients: what a hook makes of them, for each receiver.

use super::*;

/// A plugin that keeps messages below `d/` from `without`, says its name to the others, and says too much to `small`.
fn install_deliveries(hooks: &Hooks) {
    install(hooks, "p", &[declaration(Hook::InterceptDeliver, &["d/#"])], |question| {
        let Question::Deliver(passing) = question else { return Err("another question".to_owned()) };
        let number = passing.message.payload.first().copied().unwrap_or(0);
        std::thread::sleep(Duration::from_micros(200 * u64::from(3 - number % 4)));
        Ok(Answer::Deliver(match &*passing.client.id {
            "without" => DeliverVerdict::Drop,
            "small" => DeliverVerdict::Replace(changed(passing, "d", &[b'x'; 200])),
            "plain" => DeliverVerdict::Keep,
            name => DeliverVerdict::Replace(changed(passing, "other", &[&[number], name.as_bytes()].concat())),
        }))
    });
}

#[test]
fn each_receiver_gets_its_own_in_the_order_of_publication() {
    let hooks = Hooks::default();
    install_deliveries(&hooks);
    let served = served_with_hooks(&hooks);
    for (level, qos) in [(4, 0), (5, 0), (4, 1), (5, 1), (5, 2)] {
        let mut receivers = ["plain", "one", "two"].map(|name| subscriber(&served, level, name, "#", qos));
        let mut from = client(&served, level, "from");
        let first = 0x30 | qos << 1;
        let mut all = Vec::new();
        for number in 0..100 {
            let packet_id = if qos == 0 { 0 } else { u16::from(number) + 1 };
            // Every third is nobody's business, and waits behind the others.
            let topic = if number % 3 == 0 { "free" } else { "d/x" };
            all.extend(publish(level, first, topic, packet_id, &[number]));
        }
        from.send(&all);
        for (name, receiver) in ["plain", "one", "two"].iter().zip(&mut receivers) {
            for number in 0..100 {
                let packet_id = if qos == 0 { 0 } else { u16::from(number) + 1 };
                let expected = match (number % 3, *name) {
                    (0, _) => publish(level, first, "free", packet_id, &[number]),
                    (_, "plain") => publish(level, first, "d/x", packet_id, &[number]),
                    (_, name) => publish(level, first, "other", packet_id, &[&[number], name.as_bytes()].concat()),
                };
                receiver.expect(&expected);
            }
            receiver.expect_silence();
        }
    }
    assert_eq!(served.counters.undelivered_by_hooks.value(), 0);
}

#[test]
fn what_a_client_does_not_get_counts_as_acknowledged() {
    let hooks = Hooks::default();
    install_deliveries(&hooks);
    let served = served_with_hooks(&hooks);
    for level in [4, 5] {
        for qos in [0_u8, 1, 2] {
            let mut without = if level == 5 {
                // It takes one at a time.
                served.v5_with("without", &[0x21, 0, 1]).0
            } else {
                served.v3("without")
            };
            without.send(&subscribe(level, 1, "#", qos));
            without.packet();
            let mut from = client(&served, level, "from");
            let packet_id = u16::from(qos > 0);
            for _ in 0..5 {
                from.send(&publish(level, 0x30 | qos << 1, "d/x", packet_id, b"0"));
                if qos == 1 {
                    from.packet();
                } else if qos == 2 {
                    from.packet();
                    from.send(&[0x62, 2, 0, 1]);
                    from.packet();
                }
            }
            from.send(&publish(level, 0x30 | qos << 1, "free", packet_id, b"this"));
            let packet = without.packet();
            assert_eq!((packet[0], packet.ends_with(b"this")), (0x30 | qos << 1, true), "{packet:02x?}");
            without.expect_silence();
        }
    }
    assert_eq!(served.counters.undelivered_by_hooks.value(), 30);
}

/// [MQTT-3.1.2-24] [MQTT-3.1.2-25]
#[test]
fn what_a_hook_makes_too_large_for_a_client_is_not_sent() {
    let hooks = Hooks::default();
    install_deliveries(&hooks);
    let served = served_with_hooks(&hooks);
    let (mut small, _) = served.v5_with("small", &[0x27, 0, 0, 0, 100, 0x21, 0, 1]);
    small.send(&subscribe(5, 1, "#", 1));
    small.packet();
    let mut from = served.v5("from");
    for (topic, packet_id) in [("d/x", 1), ("free", 2)] {
        from.send(&publish(5, 0x32, topic, packet_id, b"this"));
        assert_eq!(from.packet()[0], 0x40);
    }
    assert!(small.packet().ends_with(b"this"));
    small.expect_silence();
}

#[test]
fn what_was_kept_from_a_durable_session_is_not_sent_when_its_client_is_back() {
    let hooks = Hooks::default();
    install_deliveries(&hooks);
    let served = served_with_hooks(&hooks);
    let mut away = served.socket();
    away.send(&connect(4, 0, 0, "without"));
    away.packet();
    away.send(&subscribe(4, 1, "#", 1));
    away.packet();
    away.send(&[0xE0, 0]);
    away.expect_end();
    let mut from = served.v3("from");
    for (topic, packet_id) in [("d/x", 1), ("free", 2), ("d/y", 3)] {
        from.send(&publish(4, 0x32, topic, packet_id, b"this"));
        from.packet();
    }
    let mut back = served.socket();
    back.send(&connect(4, 0, 0, "without"));
    assert_eq!(back.packet(), [0x20, 2, 1, 0]);
    let packet = back.packet();
    assert!(packet.ends_with(b"this") && packet.windows(4).any(|part| part == b"free"), "{packet:02x?}");
    back.expect_silence();
    while served.counters.undelivered_by_hooks.value() < 2 {
        std::thread::yield_now();
    }
    // Nothing of it is left, but for the one that was not acknowledged.
    back.send(&[0x40, 2, packet[packet.len() - 6], packet[packet.len() - 5]]);
    back.expect_silence();
    hooks.remove(&PluginName("p".into()));
    back.send(&[0xE0, 0]);
    back.expect_end();
    let mut back = served.socket();
    back.send(&connect(4, 0, 0, "without"));
    assert_eq!(back.packet(), [0x20, 2, 1, 0]);
    back.expect_silence();
}
