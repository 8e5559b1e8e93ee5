//! Hooks that trap, are late or are stopped decide by what they declare: refuse, or let through.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::super::conformance::packets;
use super::hooks::{login, peer};
use super::{Plant, metric, timed};

/// Deploys `decides`, asked about logins and publishes under a short deadline.
fn deploy(plant: &Plant, on_failure: &str) -> Result<()> {
    let each = format!(r#""deadline_ms":300,"on_failure":"{on_failure}""#);
    let fields = format!(
        r#""hooks":[{{"hook":"authenticate",{each}}},{{"hook":"intercept-publish","filters":["raw/#"],{each}}}]"#
    );
    plant.deploy("decides", "decides", &fields)
}

#[test]
fn a_hook_that_traps_or_is_late_refuses_unless_it_declares_otherwise() -> Result<()> {
    let plant = Plant::start("")?;
    let broker = plant.broker();
    let mut clients = [4, 5].map(|level| peer(broker, level, &format!("client-{level}")));
    let mut subscriber = peer(broker, 5, "subscriber");
    subscriber.subscribe("raw/#", 0);
    deploy(&plant, "allow")?;
    for client in &mut clients {
        for payload in [&b"panic"[..], b"spin"] {
            for qos in [0, 1, 2] {
                let ((), took) = timed(|| {
                    client.publish_completely("raw/x", payload, qos);
                    subscriber.expect_publish("raw/x", payload);
                    Ok(())
                })?;
                ensure!(took < Duration::from_secs(5), "{took:?}");
            }
            // An answer in between, so that the breaker stays closed.
            client.publish_completely("raw/x", b"keep", 0);
            subscriber.expect_publish("raw/x", b"keep");
        }
        for password in ["panic", "spin"] {
            assert_eq!(login(broker, client.level, password), 0, "{password}");
        }
    }
    broker.ok(&["plugin", "remove", "decides"])?;
    deploy(&plant, "deny")?;
    for client in &mut clients {
        let level = client.level;
        for password in ["panic", "spin"] {
            let (reason, took) = timed(|| Ok(login(broker, level, password)))?;
            assert_eq!(reason, if level == 5 { 0x88 } else { 3 }, "{password}");
            ensure!(took < Duration::from_secs(5), "{took:?}");
        }
        client.send(&packets::publish(level, 0x30, "raw/x", 0, b"panic"));
        client.send(&packets::publish(level, 0x30, "raw/x", 0, b"keep"));
        subscriber.expect_publish("raw/x", b"keep");
        client.send(&packets::publish(level, 0x32, "raw/x", 3, b"spin"));
        if level == 5 {
            let packet = client.packet();
            ensure!(packet[0] == 0x40 && packet.get(4).is_some_and(|reason| *reason >= 0x80), "{packet:02x?}");
            client.publish_completely("raw/x", b"keep", 2);
            subscriber.expect_publish("raw/x", b"keep");
        } else {
            client.expect_end();
        }
    }
    subscriber.expect_silence();
    let logged = broker.ok(&["plugin", "logs", "decides"])?;
    for (outcome, least) in [("answered", 3.0), ("failed", 4.0), ("late", 4.0)] {
        let series = format!("vespiary_plugins_hooks_total{{plugin=\"decides\",outcome=\"{outcome}\"}}");
        let count = metric(broker, &series)?;
        ensure!(count >= Some(least), "{outcome}: {count:?}");
    }
    ensure!(logged.contains("no payload like that") && logged.contains("no password like that"), "{logged}");
    Ok(())
}

#[test]
fn a_hook_of_a_plugin_that_is_paused_still_decides_and_nobody_else_waits_for_a_slow_one() -> Result<()> {
    let plant = Plant::start("")?;
    let broker = plant.broker();
    plant.deploy(
        "decides",
        "decides",
        r#""hooks":[{"hook":"intercept-publish","filters":["raw/#"],"deadline_ms":3000}]"#,
    )?;
    let (mut slow, mut quick) = (peer(broker, 5, "slow"), peer(broker, 5, "quick"));
    quick.subscribe("free/#", 1);
    slow.send(&packets::publish(5, 0x32, "raw/x", 3, b"spin"));
    let ((), took) = timed(|| {
        for _ in 0..20 {
            quick.publish_completely("raw/y", b"keep", 1);
            quick.send(&packets::publish(5, 0x30, "free/y", 0, b"x"));
            quick.expect_publish("free/y", b"x");
        }
        Ok(())
    })?;
    ensure!(took < Duration::from_secs(3), "others waited for {took:?}");
    let packet = slow.packet();
    ensure!(packet[0] == 0x40 && packet.get(4).is_some_and(|reason| *reason >= 0x80), "{packet:02x?}");
    broker.ok(&["plugin", "pause", "decides"])?;
    slow.send(&packets::publish(5, 0x32, "raw/x", 3, b"deny"));
    slow.expect_acknowledgement(0x40, 3, 0x99);
    Ok(())
}
