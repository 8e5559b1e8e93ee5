//! Enhanced authentication, with a method that asks for its challenge backwards.

use super::*;
use crate::mqtt::authentication::{Answer, Claim, Exchange, Method, Outcome};
use crate::store::testing::Disk;
use vespiary_core::event::ReasonCode;

/// The client answers with the challenge backwards. Its answers come from another thread.
#[derive(Debug)]
struct Backwards;

#[derive(Debug)]
struct Challenged(Vec<u8>);

/// An answer that comes later.
fn later(outcome: impl FnOnce() -> Outcome + Send + 'static) -> Answer {
    let (sender, receiver) = tokio::sync::oneshot::channel::<Box<dyn FnOnce() -> Outcome + Send>>();
    std::thread::spawn(move || sender.send(Box::new(outcome)));
    Box::pin(async move { receiver.await.map_or(Outcome::Refuse(ReasonCode::UnspecifiedError), |outcome| outcome()) })
}

impl Method for Backwards {
    fn begin(&self, claim: Claim) -> Answer {
        later(move || match claim.data.as_deref() {
            Some(b"ticket") => Outcome::Success { data: None, user_name: None },
            Some(_) => Outcome::Refuse(ReasonCode::NotAuthorized),
            None => {
                let challenge = format!("{} {}", claim.client_id, claim.user_name.as_deref().unwrap_or("nobody"));
                let exchange = Box::new(Challenged(challenge.bytes().rev().collect()));
                Outcome::Continue { data: Some(challenge.into_bytes().into()), exchange }
            }
        })
    }
}

impl Exchange for Challenged {
    fn proceed(self: Box<Self>, data: Option<Box<[u8]>>) -> Answer {
        let is_right = data.as_deref() == Some(&self.0);
        later(move || {
            if is_right {
                Outcome::Success { data: Some(b"welcome"[..].into()), user_name: None }
            } else {
                Outcome::Refuse(ReasonCode::BadUserNameOrPassword)
            }
        })
    }
}

/// Never answers.
#[derive(Debug)]
struct Silent;

impl Method for Silent {
    fn begin(&self, _: Claim) -> Answer {
        Box::pin(std::future::pending())
    }
}

/// Answers with more than a packet holds.
#[derive(Debug)]
struct Verbose;

impl Method for Verbose {
    fn begin(&self, _: Claim) -> Answer {
        Box::pin(std::future::ready(Outcome::Success { data: Some(vec![0; 70_000].into()), user_name: None }))
    }
}

fn options() -> MqttOptions {
    let mut options = MqttOptions::default();
    options.authentication_methods.offer("backwards", Arc::new(Backwards));
    options.authentication_methods.offer("silent", Arc::new(Silent));
    options.authentication_methods.offer("verbose", Arc::new(Verbose));
    options
}

fn served_authenticating() -> Served {
    served_with(1, options(), Limits::default())
}

/// Authentication Method and Authentication Data.
fn properties(method: &str, data: Option<&[u8]>) -> Vec<u8> {
    let mut properties = vec![0x15, 0, method.len() as u8];
    properties.extend(method.bytes());
    if let Some(data) = data {
        properties.extend([0x16, 0, data.len() as u8]);
        properties.extend(data);
    }
    properties
}

/// AUTH.
fn auth(reason: u8, method: &str, data: Option<&[u8]>) -> Vec<u8> {
    let properties = properties(method, data);
    frame(0xF0, &[&[reason, properties.len() as u8][..], &properties].concat())
}

/// CONNECT with a method, and a user name.
fn connect_by(method: &str, data: Option<&[u8]>) -> Vec<u8> {
    let mut packet = connect_with("me", &properties(method, data));
    packet[9] |= 0x80;
    packet.extend([0, 1, b'u']);
    packet[1] += 3;
    packet
}

/// A client that has authenticated.
fn authenticated(served: &Served) -> Client {
    let mut client = served.socket();
    client.send(&connect_by("backwards", Some(b"ticket")));
    let connack = client.packet();
    assert_eq!((connack[0], connack[2], connack[3]), (0x20, 0, 0), "{connack:02x?}");
    client
}

/// [MQTT-4.12.0-2] [MQTT-4.12.0-3] [MQTT-4.12.0-5]
#[test]
fn a_client_answers_the_challenge_and_is_let_in() {
    let served = served_authenticating();
    let mut client = served.socket();
    client.send(&connect_by("backwards", None));
    client.expect(&auth(0x18, "backwards", Some(b"me u")));
    assert_eq!(served.driver.inspect(|broker| broker.statistics().connections), 0);
    client.send(&auth(0x18, "backwards", Some(b"u em")));
    let connack = client.packet();
    assert_eq!((connack[0], connack[2], connack[3]), (0x20, 0, 0), "{connack:02x?}");
    assert!(connack.ends_with(&properties("backwards", Some(b"welcome"))), "{connack:02x?}");
    client.expect_silence();
}

#[test]
fn one_answer_may_be_enough() {
    let served = served_authenticating();
    let mut client = served.socket();
    client.send(&connect_by("backwards", Some(b"ticket")));
    let connack = client.packet();
    assert!(connack.ends_with(&properties("backwards", None)), "{connack:02x?}");
    client.expect_silence();
}

/// [MQTT-4.12.0-1] [MQTT-4.12.0-4]
#[test]
fn who_fails_is_refused_with_the_reason() {
    let served = served_authenticating();
    for (method, data, answer, reason) in [
        ("other", None, None, 0x8C),
        ("backwards", Some(&b"forged"[..]), None, 0x87),
        ("backwards", None, Some(&b"me u"[..]), 0x86),
        ("backwards", None, Some(&[]), 0x86),
        ("verbose", None, None, 0x83),
    ] {
        let mut client = served.socket();
        client.send(&connect_by(method, data));
        if let Some(answer) = answer {
            assert_eq!(client.packet()[0], 0xF0);
            client.send(&auth(0x18, method, Some(answer).filter(|answer| !answer.is_empty())));
        }
        let connack = client.packet();
        assert_eq!((connack[0], connack[3]), (0x20, reason), "{connack:02x?}");
        client.expect_end();
    }
    assert_eq!(served.counters.failed_authentications.value(), 3);
    assert_eq!(served.driver.inspect(|broker| broker.statistics().sessions), 0);
    // Without any on offer, which is the default.
    let served = super::served();
    let mut client = served.socket();
    client.send(&connect_by("backwards", None));
    assert_eq!(client.packet()[3], 0x8C);
    client.expect_end();
}

/// [MQTT-3.1.2-30] [MQTT-4.12.0-3] [MQTT-4.12.0-5]
#[test]
fn nothing_but_its_auth_and_disconnect_may_come_before_connack() {
    let served = served_authenticating();
    for (method, packet, reason) in [
        ("backwards", publish(5, 0x30, "t", 0, b""), 0x82),
        ("backwards", subscribe(5, 1, "t", 0), 0x82),
        ("backwards", vec![0xC0, 0], 0x82),
        ("backwards", connect_by("backwards", None), 0x82),
        ("backwards", auth(0x18, "silent", None), 0x82),
        ("backwards", auth(0x19, "backwards", None), 0x82),
        ("backwards", auth(0x00, "backwards", None), 0x82),
        ("backwards", vec![0xF0, 0], 0x82),
        ("backwards", vec![0xC1, 0], 0x81),
        ("backwards", frame(0x30, &[0; 70_000]), 0x95),
        // It is the method's turn.
        ("silent", auth(0x18, "silent", None), 0x82),
        ("silent", vec![0xC0, 0], 0x82),
    ] {
        let mut client = served.socket();
        client.send(&connect_by(method, None));
        if method == "backwards" {
            assert_eq!(client.packet()[0], 0xF0);
        }
        // The broker may close before it has read all.
        let _ = client.stream.write_all(&packet);
        let connack = client.packet();
        assert_eq!((connack[0], connack[3]), (0x20, reason), "{packet:02x?}: {connack:02x?}");
        client.expect_end();
    }
    for method in ["backwards", "silent"] {
        let mut client = served.socket();
        client.send(&connect_by(method, None));
        if method == "backwards" {
            assert_eq!(client.packet()[0], 0xF0);
        }
        client.send(&[0xE0, 0]);
        client.expect_end();
    }
    // Whatever came at once behind a CONNECT that is let in later may not be there either.
    let mut client = served.socket();
    client.send(&[connect_by("backwards", Some(b"ticket")), vec![0xC0, 0]].concat());
    assert_eq!(client.packet()[3], 0x82);
    client.expect_end();
}

#[test]
fn the_deadline_of_connect_runs_on_while_a_client_authenticates() {
    let served = served_with(1, MqttOptions { connect_timeout_ms: 100, ..options() }, Limits::default());
    for method in ["silent", "backwards"] {
        let mut client = served.socket();
        client.send(&connect_by(method, None));
        if method == "backwards" {
            assert_eq!(client.packet()[0], 0xF0);
        }
        client.expect_gone();
    }
    assert_eq!(served.counters.timeouts.value(), 2);
    assert_eq!(served.driver.inspect(|broker| broker.statistics().sessions), 0);
}

#[test]
fn who_authenticates_counts_as_one_whose_connect_is_to_come_and_delays_nobody() {
    let served = served_with(1, MqttOptions { connecting_sockets: 2, ..options() }, Limits::default());
    let mut pending = served.socket();
    pending.send(&connect_by("silent", None));
    let mut waiting = served.socket();
    waiting.send(&connect_by("backwards", None));
    assert_eq!(waiting.packet()[0], 0xF0);
    served.socket().expect_gone();
    waiting.send(&auth(0x18, "backwards", Some(b"u em")));
    assert_eq!(waiting.packet()[0], 0x20);
    // One place is free again, and those who are in are served.
    served.v3("other").expect_silence();
    waiting.expect_silence();
    drop(pending);
}

/// [MQTT-4.12.1-1]
#[test]
fn a_running_connection_authenticates_again_while_messages_flow() {
    let served = served_authenticating();
    let mut client = authenticated(&served);
    for _ in 0..2 {
        client.send(&auth(0x19, "backwards", None));
        client.expect(&auth(0x18, "backwards", Some(b"me u")));
        client.send(&publish(5, 0x32, "t", 1, b""));
        assert_eq!(client.packet()[0], 0x40);
        client.send(&auth(0x18, "backwards", Some(b"u em")));
        client.expect(&auth(0x00, "backwards", Some(b"welcome")));
    }
    client.send(&auth(0x19, "backwards", Some(b"ticket")));
    client.expect(&auth(0x00, "backwards", None));
    client.expect_silence();
}

/// [MQTT-4.12.1-2]
#[test]
fn who_fails_to_authenticate_again_is_disconnected() {
    let served = served_authenticating();
    for (packets, reason) in [
        (vec![auth(0x19, "backwards", Some(b"forged"))], 0x87),
        (vec![auth(0x19, "backwards", None), auth(0x18, "backwards", Some(b"wrong"))], 0x87),
        // Another method, an answer to nothing, two exchanges at a time, a server's word.
        (vec![auth(0x19, "silent", None)], 0x82),
        (vec![auth(0x18, "backwards", None)], 0x82),
        (vec![auth(0x19, "backwards", None), auth(0x19, "backwards", None)], 0x82),
        (vec![auth(0x00, "backwards", None)], 0x82),
    ] {
        let mut client = authenticated(&served);
        for (index, packet) in packets.iter().enumerate() {
            if index > 0 {
                assert_eq!(client.packet()[0], 0xF0);
            }
            client.send(packet);
        }
        client.expect_disconnect(reason);
        client.expect_end();
    }
}

/// [MQTT-4.12.0-6] [MQTT-4.12.0-7]
#[test]
fn auth_without_a_method_in_connect_is_a_protocol_error() {
    let served = served_authenticating();
    for reason in [0x18, 0x19] {
        let mut client = served.v5("five");
        client.send(&auth(reason, "backwards", None));
        client.expect_disconnect(0x82);
        client.expect_end();
    }
}

/// [MQTT-3.1.2-24]
#[test]
fn an_auth_that_does_not_fit_is_not_sent() {
    let served = served_authenticating();
    let mut client = served.socket();
    client.send(&connect_with("me", &[&[0x27, 0, 0, 0, 20][..], &properties("backwards", None)].concat()));
    client.expect(&[0x20, 3, 0, 0x95, 0]);
    client.expect_end();
}

/// [MQTT-3.14.0-1]
#[test]
fn who_has_authenticated_and_cannot_be_let_in_is_refused_by_connack() {
    let disk = Disk::new();
    let directory = tempfile::tempdir().unwrap();
    let opened = disk.open(directory.path());
    let served = served_by(directory, opened, 1, options(), Limits::default());
    let mut client = served.socket();
    // With a session that is to be kept.
    client.send(&connect_with("me", &[&[0x11, 0, 0, 0, 9][..], &properties("backwards", None)].concat()));
    client.expect(&auth(0x18, "backwards", Some(b"me nobody")));
    // What the start of the broker left to commit must not be what fails.
    while served.driver.store().backlog_bytes() > 0 {
        std::thread::yield_now();
    }
    disk.fail_after(0);
    client.send(&auth(0x18, "backwards", Some(b"ydobon em")));
    let connack = client.packet();
    assert_eq!((connack[0], connack[2], connack[3]), (0x20, 0, 0x89), "{connack:02x?}");
    client.expect_end();
    assert_eq!(served.counters.storage_failures.value(), 1);
    disk.mend();
}

#[test]
fn a_stop_reaches_those_who_authenticate() {
    let served = served_authenticating();
    let mut client = served.socket();
    client.send(&connect_by("backwards", None));
    client.packet();
    served.stop().unwrap();
    assert_eq!(client.packet()[3], 0x88);
    client.expect_end();
}
