//! Messages from socket to socket.

use super::*;

/// A client of this level that has subscribed.
fn subscriber(served: &Served, level: u8, name: &str, filter: &str, qos: u8) -> Client {
    let mut client = if level == 5 { served.v5(name) } else { served.v3(name) };
    client.send(&subscribe(level, 1, filter, qos));
    let suback = client.packet();
    assert_eq!((suback[0], suback[suback.len() - 1]), (0x90, qos), "{suback:02x?}");
    client
}

#[test]
fn messages_of_each_quality_arrive_in_either_protocol() {
    let served = served();
    for (from, to) in [(4, 4), (4, 5), (5, 4), (5, 5)] {
        let mut to_client = subscriber(&served, to, "to", "a/+", 2);
        let mut from_client = if from == 5 { served.v5("from") } else { served.v3("from") };

        from_client.send(&publish(from, 0x30, "a/b", 0, b"zero"));
        to_client.expect(&publish(to, 0x30, "a/b", 0, b"zero"));

        from_client.send(&publish(from, 0x32, "a/b", 700, b"one"));
        from_client.expect(&[0x40, 2, 2, 188]);
        to_client.expect(&publish(to, 0x32, "a/b", 1, b"one"));
        to_client.send(&[0x40, 2, 0, 1]);

        from_client.send(&publish(from, 0x34, "a/b", 2, b"two"));
        from_client.expect(&[0x50, 2, 0, 2]);
        let delivery = to_client.packet();
        let packet_id = u16::from_be_bytes([delivery[7], delivery[8]]);
        assert_eq!(delivery, publish(to, 0x34, "a/b", packet_id, b"two"));
        let [high, low] = packet_id.to_be_bytes();
        // The same again, before its release, is not a second message.
        from_client.send(&publish(from, 0x3C, "a/b", 2, b"two"));
        from_client.expect(&[0x50, 2, 0, 2]);
        from_client.send(&[0x62, 2, 0, 2]);
        from_client.expect(&[0x70, 2, 0, 2]);
        to_client.send(&[0x50, 2, high, low]);
        to_client.expect(&[0x62, 2, high, low]);
        to_client.send(&[0x70, 2, high, low]);
        to_client.expect_silence();
        from_client.expect_silence();
    }
}

#[test]
fn properties_arrive_unchanged_and_an_alias_stands_for_its_topic() {
    let served = served();
    let mut subscriber = served.v5("to");
    // With subscription identifier 300.
    subscriber.send(&[0x82, 10, 0, 1, 3, 0x0B, 0xAC, 2, 0, 1, b'#', 0]);
    assert_eq!(subscriber.packet()[0], 0x90);
    let mut publisher = served.v5("from");
    let properties = [
        &[0x23, 0, 1][..], // alias
        &[0x26, 0, 1, b'k', 0, 1, b'1'],
        &[1, 0], // payload format
        &[0x26, 0, 1, b'k', 0, 1, b'0'],
        &[3, 0, 1, b't'],   // content type
        &[8, 0, 1, b'r'],   // response topic
        &[9, 0, 1, 0xFF],   // correlation data
        &[2, 0, 0, 0, 200], // message expiry
    ]
    .concat();
    let body = [&[0, 1, b'x', properties.len() as u8][..], &properties, b"!"].concat();
    publisher.send(&frame(0x30, &body));
    publisher.send(&[0x30, 7, 0, 0, 3, 0x23, 0, 1, b'?']);
    let expected = [
        &[2, 0, 0, 0, 200][..],
        &[0x0B, 0xAC, 2],
        &[1, 0, 3, 0, 1, b't', 8, 0, 1, b'r', 9, 0, 1, 0xFF],
        &[0x26, 0, 1, b'k', 0, 1, b'1', 0x26, 0, 1, b'k', 0, 1, b'0'],
    ]
    .concat();
    subscriber.expect(&frame(0x30, &[&[0, 1, b'x', expected.len() as u8][..], &expected, b"!"].concat()));
    subscriber.expect(&frame(0x30, &[&[0, 1, b'x', 3, 0x0B, 0xAC, 2][..], b"?"].concat()));
}

#[test]
fn topics_that_begin_with_a_dollar_are_the_broker_s() {
    let served = served();
    let mut watcher = subscriber(&served, 4, "watcher", "$SYS/#", 0);
    let mut client = served.v5("five");
    client.send(&publish(5, 0x30, "$SYS/x", 0, b""));
    client.send(&publish(5, 0x32, "$SYS/x", 1, b""));
    assert_eq!(client.packet()[2..5], [0, 1, 0x87]);
    client.send(&publish(5, 0x34, "$SYS/x", 2, b""));
    assert_eq!(client.packet()[2..5], [0, 2, 0x87]);
    let mut client = served.v3("three");
    client.send(&publish(4, 0x32, "$SYS/x", 1, b""));
    client.expect(&[0x40, 2, 0, 1]);
    client.send(&publish(4, 0x34, "$SYS/x", 2, b""));
    client.expect(&[0x50, 2, 0, 2]);
    client.send(&[0x62, 2, 0, 2]);
    client.expect(&[0x70, 2, 0, 2]);
    watcher.expect_silence();
    assert_eq!(served.counters.denied_publishes.value(), 5);
}

#[test]
fn a_large_message_arrives_whole() {
    let served = served();
    let mut to = subscriber(&served, 4, "to", "big", 1);
    let mut from = served.v5("from");
    let payload: Vec<u8> = (0..900_000_u32).map(|index| (index % 251) as u8).collect();
    from.send(&publish(5, 0x32, "big", 1, &payload));
    to.expect(&publish(4, 0x32, "big", 1, &payload));
    from.expect(&[0x40, 2, 0, 1]);
}

#[test]
fn a_durable_session_s_message_is_acknowledged_once_it_is_on_disk() {
    let served = served();
    let mut away = served.socket();
    away.send(&connect(4, 0, 0, "away"));
    away.expect(&[0x20, 2, 0, 0]);
    away.send(&subscribe(4, 1, "t", 1));
    away.expect(&[0x90, 3, 0, 1, 1]);
    away.send(&[0xE0, 0]);
    away.expect_end();
    let mut from = served.v3("from");
    for packet_id in 1..=50 {
        let before = served.driver.store().durable();
        from.send(&publish(4, 0x32, "t", packet_id, &packet_id.to_be_bytes()));
        let [high, low] = packet_id.to_be_bytes();
        from.expect(&[0x40, 2, high, low]);
        assert!(served.driver.store().durable() > before);
    }
    let mut back = served.socket();
    back.send(&connect(4, 0, 0, "away"));
    back.expect(&[0x20, 2, 1, 0]);
    for number in 1..=50_u16 {
        let delivery = back.packet();
        assert!(delivery.ends_with(&number.to_be_bytes()), "{delivery:02x?} is message {number}");
    }
}

#[test]
fn nothing_that_rests_on_the_disk_is_acknowledged_without_it() {
    let served = served();
    let mut kept = served.socket();
    kept.send(&connect(4, 0, 0, "kept"));
    kept.expect(&[0x20, 2, 0, 0]);
    kept.send(&subscribe(4, 1, "t", 1));
    kept.expect(&[0x90, 3, 0, 1, 1]);
    let mut from = served.v3("from");
    let mut other = served.v3("other");
    // From now on no change becomes durable any more.
    served.driver.store().close().unwrap();
    from.send(&publish(4, 0x32, "t", 1, b"x"));
    from.send(&publish(4, 0x32, "nobody", 2, b"x"));
    from.send(&[0xC0, 0]);
    other.send(&publish(4, 0x32, "nobody", 1, b"x"));
    other.expect(&[0x40, 2, 0, 1]);
    other.expect_silence();
    // The answer to the second publish rests on nothing, but keeps its place behind the first.
    from.stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(from.stream.read(&mut [0]).is_err());
}

#[test]
fn a_slow_reader_delays_nobody_and_what_it_misses_is_counted() {
    let limits = Limits { buffered_messages: 100, ..Limits::default() };
    let options = MqttOptions { unwritten_bytes: 8 << 20, ..MqttOptions::default() };
    let served = served_with(1, options, limits);
    let _slow = subscriber(&served, 4, "slow", "t", 0);
    let mut quick: Vec<_> = (0..5).map(|index| subscriber(&served, 4, &format!("q{index}"), "t", 0)).collect();
    let mut from = served.v3("from");
    let message = publish(4, 0x30, "t", 0, &[7; 100_000]);
    for _ in 0..200 {
        from.send(&message);
        for client in &mut quick {
            client.expect(&message);
        }
    }
    // 20 MB were sent; the slow one holds at most what its queue and its socket hold.
    assert!(served.driver.dropped(vespiary_core::event::DropReason::QueueFull) > 0);
    from.expect_silence();
}

#[test]
fn a_client_that_never_reads_its_acknowledgements_is_cut() {
    let options = MqttOptions { unwritten_bytes: 100_000, ..MqttOptions::default() };
    let served = served_with(1, options, Limits::default());
    let mut deaf = served.v3("deaf");
    let pings = [0xC0, 0].repeat(100_000);
    deaf.stream.set_write_timeout(Some(PATIENCE)).unwrap();
    while deaf.stream.write_all(&pings).is_ok() {}
    assert_eq!(served.counters.slow_clients.value(), 1);
    served.v3("other").expect_silence();
}

#[test]
fn a_large_message_reaches_many_at_each_one_s_quality_whole_and_in_order() {
    let served = served();
    let mut plain: Vec<_> = (0..3).map(|index| subscriber(&served, 4, &format!("plain{index}"), "t", 0)).collect();
    let mut old = subscriber(&served, 4, "old", "t", 1);
    let mut new = subscriber(&served, 5, "new", "t", 1);
    let mut from = served.v3("from");
    for round in 1..=40_u16 {
        let payload = [round.to_be_bytes().as_slice(), &vec![round as u8; 3_000]].concat();
        from.send(&publish(4, 0x32, "t", round, &payload));
        let [high, low] = round.to_be_bytes();
        from.expect(&[0x40, 2, high, low]);
        for client in &mut plain {
            client.expect(&publish(4, 0x30, "t", 0, &payload));
        }
        old.expect(&publish(4, 0x32, "t", round, &payload));
        new.expect(&publish(5, 0x32, "t", round, &payload));
    }
}

#[test]
fn a_client_that_takes_nothing_is_cut_in_time_and_one_that_takes_little_is_not() {
    let options = MqttOptions { stalled_timeout_ms: 1_000, ..MqttOptions::default() };
    let served = served_with(1, options, Limits::default());
    let deaf = subscriber(&served, 4, "deaf", "t", 0);
    let mut slow = subscriber(&served, 4, "slow", "t", 0);
    let mut from = served.v3("from");
    let message = publish(4, 0x30, "t", 0, &[7; 100_000]);
    for _ in 0..200 {
        from.send(&message);
    }
    from.expect_silence();
    let mut piece = vec![0; 100_000];
    let begun = std::time::Instant::now();
    while served.counters.slow_clients.value() == 0 {
        assert!(begun.elapsed() < PATIENCE, "the deaf one is not cut");
        slow.stream.read_exact(&mut piece).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(served.driver.inspect(|broker| broker.statistics().connections), 2);
    slow.stream.read_exact(&mut piece).unwrap();
    from.expect_silence();
    drop(deaf);
}

#[test]
fn workers_deliver_to_each_other_s_connections() {
    let served = served_with(3, MqttOptions::default(), Limits::default());
    let mut to: Vec<_> = (0..6).map(|index| subscriber(&served, 4, &format!("to{index}"), "t", 1)).collect();
    let mut from: Vec<_> = (0..3).map(|index| served.v3(&format!("from{index}"))).collect();
    for round in 1..=50_u16 {
        for client in &mut from {
            client.send(&publish(4, 0x32, "t", round, &round.to_be_bytes()));
            let [high, low] = round.to_be_bytes();
            client.expect(&[0x40, 2, high, low]);
            for receiver in &mut to {
                let delivery = receiver.packet();
                assert!(delivery.ends_with(&round.to_be_bytes()));
                receiver.send(&[0x40, 2, delivery[5], delivery[6]]);
            }
        }
    }
}
