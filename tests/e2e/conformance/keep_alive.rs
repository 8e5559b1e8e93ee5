//! Keep Alive and pings (sections 3.1.2.10, 3.2.2.3.14 and 3.12).

use std::io::Write as _;
use std::time::{Duration, Instant};

use super::LEVELS;
use super::packets::{Connect, PINGREQ, PINGRESP, property, publish};
use super::peer::Peer;
use crate::harness::Broker;

#[test]
fn a_ping_is_answered() {
    for level in LEVELS {
        let mut peer = Peer::new(level, &format!("keep-alive-ping-{level}"));
        peer.send(&PINGREQ.repeat(100));
        for _ in 0..100 {
            peer.expect(&PINGRESP);
        }
        peer.leave();
    }
}

#[test]
fn silence_for_one_and_a_half_times_the_keep_alive_closes_the_connection() {
    let mut silent = Vec::new();
    for level in LEVELS {
        let topic = format!("keep-alive/will/{level}");
        let mut heir = Peer::new(level, &format!("keep-alive-heir-{level}"));
        heir.subscribe(&topic, 0);
        let connect = Connect::new(level, format!("keep-alive-silent-{level}")).keep_alive(1);
        let begun = Instant::now();
        let (peer, connack) = Peer::join(&connect.will(&topic, b"silent", 0, false));
        assert_eq!(connack.properties.one(property::SERVER_KEEP_ALIVE), None);
        silent.push((peer, heir, topic, begun));
    }
    for (mut peer, mut heir, topic, begun) in silent {
        peer.expect_disconnect(&[0x8D]);
        assert!(begun.elapsed() >= Duration::from_millis(1500), "{:?}", begun.elapsed());
        heir.expect_publish(&topic, b"silent");
    }
}

#[test]
fn any_packet_keeps_the_connection_alive() {
    let mut peers =
        LEVELS.map(|level| Peer::join(&Connect::new(level, format!("keep-alive-any-{level}")).keep_alive(1)).0);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(2_500) {
        // The pace of clients that speak before their time is over.
        std::thread::sleep(Duration::from_millis(500));
        for peer in &mut peers {
            peer.send(&publish(peer.level, 0x32, "keep-alive/any", 1, b"x"));
            peer.expect_acknowledgement(0x40, 1, if peer.level == 5 { 0x10 } else { 0 });
        }
    }
}

#[test]
fn a_server_keep_alive_is_told_and_kept() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let config = directory.path().join("config.toml");
    std::fs::write(&config, "[mqtt]\nkeep_alive_maximum_s = 1\n")?;
    let config = config.to_str().expect("a path of this machine");
    let broker = Broker::start_with(&directory.path().join("data"), &["--config", config])?;
    let begun = Instant::now();
    let mut silent: Vec<Peer> = [0, 600]
        .into_iter()
        .map(|keep_alive_s| {
            let connect = Connect::new(5, format!("silent-{keep_alive_s}")).keep_alive(keep_alive_s);
            let (peer, connack) = Peer::join_at(broker.mqtt, &connect);
            assert_eq!(connack.properties.one(property::SERVER_KEEP_ALIVE), Some(&[0, 1][..]));
            peer
        })
        .collect();
    // 3.1.1 cannot be told, so there it is the client's own that holds.
    let (mut patient, _) = Peer::join_at(broker.mqtt, &Connect::new(4, "patient").keep_alive(600));
    for peer in &mut silent {
        peer.expect_disconnect(&[0x8D]);
        assert!(begun.elapsed() >= Duration::from_millis(1500), "{:?}", begun.elapsed());
    }
    patient.expect_silence();
    Ok(())
}

#[test]
fn bytes_of_a_packet_that_never_ends_are_no_packet() {
    let (mut peer, _) = Peer::join(&Connect::new(5, "keep-alive-drip").keep_alive(1));
    let begun = Instant::now();
    let mut writer = peer.writer();
    // A PUBLISH of 32 kB, byte by byte for ten seconds.
    let drip = std::thread::spawn(move || {
        let mut bytes = [0x30, 0xFF, 0xFF, 0x01].into_iter().chain(std::iter::repeat(0)).take(100);
        while bytes.next().is_some_and(|byte| writer.write_all(&[byte]).is_ok()) {
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    peer.expect_disconnect(&[0x8D]);
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    drip.join().expect("the thread ends with the connection");
}
