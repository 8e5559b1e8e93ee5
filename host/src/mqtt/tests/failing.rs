//! A disk that stops working and works again: what needs it is refused, everything else goes on.

use super::{Client, Limits, MqttOptions, Served, connect, publish, served_by, subscribe};
use crate::store::testing::Disk;

fn served_on(disk: &Disk) -> Served {
    let directory = tempfile::tempdir().unwrap();
    let opened = disk.open(directory.path());
    served_by(directory, opened, 1, MqttOptions::default(), Limits::default())
}

/// Waits until the store is failing, or is not.
fn wait(served: &Served, failing: bool) {
    while served.driver.store().is_failing() != failing {
        std::thread::yield_now();
    }
}

/// A durable session that is subscribed to `kept`, and whose client is gone.
fn leave_a_session(served: &Served) {
    let mut away = served.socket();
    away.send(&connect(4, 0, 0, "away"));
    away.expect(&[0x20, 2, 0, 0]);
    away.send(&subscribe(4, 1, "kept", 1));
    away.expect(&[0x90, 3, 0, 1, 1]);
    away.send(&[0xE0, 0]);
    away.expect_end();
}

/// Publishes to `kept` with QoS 1 under this identifier, and gives the reason in the PUBACK.
fn publish_kept(from: &mut Client, packet_id: u16) -> u8 {
    from.send(&publish(5, 0x32, "kept", packet_id, &packet_id.to_be_bytes()));
    let puback = from.packet();
    let [high, low] = packet_id.to_be_bytes();
    assert_eq!((puback[0], puback[2], puback[3]), (0x40, high, low), "{puback:02x?}");
    puback.get(4).copied().unwrap_or(0)
}

/// A pair without durable sessions exchanges a message.
fn exchange(from: &mut Client, to: &mut Client, packet_id: u16) {
    from.send(&publish(5, 0x32, "pair", packet_id, b"x"));
    let delivery = to.packet();
    assert!(delivery[0] == 0x32 && delivery.ends_with(b"x"), "{delivery:02x?}");
    // The topic is `pair`, so the identifier follows at 8.
    to.send(&[0x40, 2, delivery[8], delivery[9]]);
    let puback = from.packet();
    assert_eq!((puback[0], puback.get(4).copied().unwrap_or(0)), (0x40, 0), "{puback:02x?}");
}

#[test]
fn while_the_disk_fails_what_needs_it_is_refused_and_the_rest_goes_on() {
    let disk = Disk::new();
    let served = served_on(&disk);
    leave_a_session(&served);
    let (mut from, mut to) = (served.v5("from"), served.v5("to"));
    to.send(&subscribe(5, 1, "pair", 1));
    assert_eq!(to.packet()[0], 0x90);
    exchange(&mut from, &mut to, 1);

    // The first that waits for the disk is sent away, since nobody knows for how long it would wait.
    let mut unlucky = served.v5("unlucky");
    disk.fail_after(0);
    unlucky.send(&publish(5, 0x32, "kept", 1, &1_u16.to_be_bytes()));
    let disconnect = unlucky.packet();
    assert_eq!((disconnect[0], disconnect[2]), (0xE0, 0x89), "{disconnect:02x?}");
    unlucky.expect_end();
    wait(&served, true);

    exchange(&mut from, &mut to, 2);
    assert_eq!(publish_kept(&mut from, 3), 0x97);
    let mut durable = served.socket();
    durable.send(&connect(4, 0, 0, "durable"));
    durable.expect(&[0x20, 2, 0, 3]);
    durable.expect_end();
    served.v5("clean").expect_silence();
    exchange(&mut from, &mut to, 4);
    assert_eq!(served.counters.storage_failures.value(), 1);

    disk.mend();
    wait(&served, false);
    exchange(&mut from, &mut to, 5);
    assert_eq!(publish_kept(&mut from, 6), 0);
    let mut away = served.socket();
    away.send(&connect(4, 0, 0, "away"));
    away.expect(&[0x20, 2, 1, 0]);
    // What the unlucky one sent was kept, though it could not be told so; what was refused was not.
    for expected in [1_u16, 6] {
        let delivery = away.packet();
        assert!(delivery.ends_with(&expected.to_be_bytes()), "{delivery:02x?} is not {expected}");
    }
}

#[test]
fn a_client_whose_session_cannot_be_written_is_told_so_in_its_connack() {
    for (level, refusal) in [(4, 3), (5, 0x89)] {
        let disk = Disk::new();
        let served = served_on(&disk);
        disk.fail_after(0);
        let mut client = served.socket();
        let mut packet = connect(level, 0, 0, "durable");
        if level == 5 {
            // Session Expiry Interval: 100 s.
            packet.splice(12..13, [5, 0x11, 0, 0, 0, 100]);
            packet[1] += 5;
        }
        client.send(&packet);
        let connack = client.packet();
        assert_eq!((connack[0], connack[2], connack[3]), (0x20, 0, refusal), "{connack:02x?}");
        client.expect_end();
        disk.mend();
        wait(&served, false);
        let mut again = served.socket();
        again.send(&packet);
        assert_eq!(again.packet()[3], 0);
    }
}

#[test]
fn a_queue_on_a_disk_that_cannot_be_read_comes_later() {
    let disk = Disk::new();
    let served = served_on(&disk);
    leave_a_session(&served);
    let mut from = served.v5("from");
    for packet_id in 1..=20 {
        assert_eq!(publish_kept(&mut from, packet_id), 0);
    }
    disk.fail_after(0);
    // Something that has to be written, so that the failure is noticed.
    from.send(&publish(5, 0x33, "retained", 21, b"x"));
    assert_eq!(from.packet()[0], 0xE0);
    wait(&served, true);
    let mut away = served.socket();
    away.send(&connect(4, 0, 0, "away"));
    away.expect(&[0x20, 2, 0, 3]);
    disk.mend();
    wait(&served, false);
    let mut away = served.socket();
    away.send(&connect(4, 0, 0, "away"));
    away.expect(&[0x20, 2, 1, 0]);
    for packet_id in 1..=20_u16 {
        let delivery = away.packet();
        assert!(delivery.ends_with(&packet_id.to_be_bytes()), "{delivery:02x?} is not {packet_id}");
    }
}
