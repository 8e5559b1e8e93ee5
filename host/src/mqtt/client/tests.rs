//! The client against a broker played by the test, byte for byte, and against Mosquitto where it is installed.

use std::process::{Child, Stdio};
use std::time::Duration;

use ntex_bytes::BytesMut;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use vespiary_core::Qos;
use vespiary_core::event::{AcknowledgeStep, PacketId, Protocol};
use vespiary_core::message::MessageProperties;

use super::packet::{Received, Wire, WireError};
use super::session::{Asked, Output, Session};
use super::*;

const V3_CONNACK: &[u8] = &[0x20, 2, 0, 0];
const V3_RESUMED: &[u8] = &[0x20, 2, 1, 0];

/// A broker played by the test.
struct FakeBroker {
    listener: TcpListener,
}

/// Its end of a connection.
struct Peer {
    stream: TcpStream,
}

impl FakeBroker {
    async fn listen() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    fn options(&self) -> ConnectOptions {
        ConnectOptions::new(self.listener.local_addr().unwrap().to_string()).protocol(Protocol::V3).client_id("c")
    }

    /// Takes a connection and its CONNECT, and answers with `connack`.
    async fn accept(&self, connack: &[u8]) -> Peer {
        let (stream, _) = self.listener.accept().await.unwrap();
        let mut peer = Peer { stream };
        assert_eq!(peer.frame().await.0, 0x10);
        peer.send(connack).await;
        peer
    }

    /// A client connected to it, and the connection.
    async fn connected(&self, options: ConnectOptions) -> (Client, Peer) {
        let (client, peer) = tokio::join!(Client::connect(options), self.accept(V3_CONNACK));
        (client.unwrap(), peer)
    }
}

impl Peer {
    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// First byte and body of the next packet; its length is below 128.
    async fn frame(&mut self) -> (u8, Vec<u8>) {
        let mut header = [0; 2];
        self.stream.read_exact(&mut header).await.unwrap();
        let mut body = vec![0; header[1].into()];
        self.stream.read_exact(&mut body).await.unwrap();
        (header[0], body)
    }

    async fn expect(&mut self, frames: &[&[u8]]) {
        for expected in frames {
            let (first, body) = self.frame().await;
            assert_eq!([&[first, u8::try_from(body.len()).unwrap()], &body[..]].concat(), *expected);
        }
    }
}

/// A 3.1.1 PUBLISH to topic `t` with a one-byte payload.
fn publish(first: u8, packet_id: u8, payload: u8) -> Vec<u8> {
    vec![first, 6, 0, 1, b't', 0, packet_id, payload]
}

fn message(payload: u8, qos: Qos) -> Publish {
    Publish::new("t", [payload]).qos(qos)
}

// ---------------------------------------------------------------------------------------------- connecting

#[tokio::test]
async fn connecting_fails_with_one_clear_line() {
    let broker = FakeBroker::listen().await;
    let address = broker.listener.local_addr().unwrap();
    for (connack, expected) in [
        (&[0x20, 2, 0, 5][..], "refused by the broker: not authorized (0x87)"),
        (&[0x20, 2, 0, 2], "refused by the broker: client identifier not valid (0x85)"),
        (&[0x30, 4, 0, 9, b'a', b'b'], "the broker sent a malformed packet (the lengths in a publish do not fit)"),
        (&[0xd0, 0], "the broker sent something else than CONNACK"),
        (&[0x20, 0xff, 0xff, 0xff, 0xff], "the broker sent a malformed packet (its fixed header is wrong)"),
    ] {
        let (client, _peer) = tokio::join!(Client::connect(broker.options()), broker.accept(connack));
        assert_eq!(client.err().unwrap().to_string(), format!("connect to {address}: {expected}"));
    }
    // A broker that knows only 3.1.1 answers a 5.0 client in its own words.
    let (client, _peer) =
        tokio::join!(Client::connect(broker.options().protocol(Protocol::V5)), broker.accept(&[0x20, 2, 0, 1]));
    assert!(client.err().unwrap().to_string().ends_with("unsupported protocol version (0x84)"));
    let options = broker.options();
    drop(broker);
    let error = Client::connect(options).await.err().unwrap();
    assert_eq!(error.to_string(), format!("connect to {address}: connection refused"));
}

#[tokio::test]
async fn a_broker_that_does_not_answer_is_given_up() {
    let broker = FakeBroker::listen().await;
    let options = ConnectOptions { connect_timeout: Duration::from_millis(50), ..broker.options() };
    let error = Client::connect(options).await.err().unwrap();
    assert!(error.to_string().ends_with("no answer within 0.05 s"), "{error}");
}

#[tokio::test]
async fn silence_is_filled_with_pings_and_a_dead_broker_noticed() {
    let broker = FakeBroker::listen().await;
    let (mut client, mut peer) = broker.connected(ConnectOptions { keep_alive_s: 1, ..broker.options() }).await;
    peer.expect(&[&[0xc0, 0]]).await;
    peer.send(&[0xd0, 0]).await;
    peer.expect(&[&[0xc0, 0]]).await;
    let error = client.receive().await.unwrap_err();
    assert!(error.to_string().ends_with("lost: no answer to a ping"), "{error}");
}

// ---------------------------------------------------------------------------------------------- publishing

#[tokio::test]
async fn the_window_bounds_what_is_unacknowledged() {
    let broker = FakeBroker::listen().await;
    let (client, mut peer) = broker.connected(ConnectOptions { window: 2, ..broker.options() }).await;
    let mut receipts = Vec::new();
    for payload in 1..=3 {
        receipts.push(client.start(message(payload, Qos::AtLeastOnce)).await.unwrap());
    }
    peer.expect(&[&publish(0x32, 1, 1), &publish(0x32, 2, 2)]).await;
    let third = tokio::time::timeout(Duration::from_millis(50), peer.stream.peek(&mut [0])).await;
    assert!(third.is_err(), "a third publish left before an acknowledgement");
    peer.send(&[0x40, 2, 0, 1]).await;
    peer.expect(&[&publish(0x32, 3, 3)]).await;
    peer.send(&[0x40, 2, 0, 2, 0x40, 2, 0, 3]).await;
    for receipt in receipts {
        assert_eq!(receipt.done().await, Ok(Reason(0)));
    }
    client.settled().await.unwrap();
}

#[tokio::test]
async fn unacknowledged_publishes_are_sent_again_in_order() {
    let broker = FakeBroker::listen().await;
    let (mut client, mut peer) = broker.connected(broker.options().durable(u32::MAX)).await;
    let mut receipts = Vec::new();
    for (payload, qos) in [Qos::AtLeastOnce, Qos::ExactlyOnce, Qos::ExactlyOnce, Qos::AtLeastOnce].iter().enumerate() {
        receipts.push(client.start(message(payload as u8, *qos)).await.unwrap());
        peer.frame().await;
    }
    peer.send(&[0x50, 2, 0, 2, 0x40, 2, 0, 4]).await;
    peer.expect(&[&[0x62, 2, 0, 2]]).await;
    assert_eq!(receipts.pop().unwrap().done().await, Ok(Reason(0)));
    drop(peer);
    for receipt in receipts {
        assert!(receipt.done().await.unwrap_err().to_string().ends_with("lost: closed by the broker"));
    }
    let again: &[&[u8]] = &[&publish(0x3a, 1, 0), &[0x62, 2, 0, 2], &publish(0x3c, 3, 2)];
    let (result, mut peer) = tokio::join!(client.reconnect(), broker.accept(V3_RESUMED));
    result.unwrap();
    assert_eq!(client.connected(), Connected { session_present: true, client_id: "c".into(), connections: 2 });
    peer.expect(again).await;
    peer.send(&[0x40, 2, 0, 1, 0x70, 2, 0, 2, 0x50, 2, 0, 3]).await;
    peer.expect(&[&[0x62, 2, 0, 3]]).await;
    peer.send(&[0x70, 2, 0, 3]).await;
    client.settled().await.unwrap();
}

#[tokio::test]
async fn a_forgotten_session_is_made_again() {
    let broker = FakeBroker::listen().await;
    let backoff = Backoff { first: Duration::from_millis(1), ..Backoff::default() };
    let options = ConnectOptions { reconnect: Some(backoff), ..broker.options().durable(u32::MAX) };
    let (client, mut peer) = broker.connected(options).await;
    let answer = async {
        peer.expect(&[&[0x82, 6, 0, 1, 0, 1, b'a', 1]]).await;
        peer.send(&[0x90, 3, 0, 1, 1]).await;
    };
    let (granted, ()) = tokio::join!(client.subscribe("a", Qos::AtLeastOnce), answer);
    assert_eq!(granted, Ok(Qos::AtLeastOnce));
    let receipt = client.start(message(7, Qos::AtLeastOnce)).await.unwrap();
    peer.expect(&[&publish(0x32, 2, 7)]).await;
    drop(peer);
    let mut peer = broker.accept(V3_CONNACK).await;
    peer.expect(&[&publish(0x32, 2, 7), &[0x82, 6, 0, 3, 0, 1, b'a', 1]]).await;
    peer.send(&[0x90, 3, 0, 3, 1, 0x40, 2, 0, 2]).await;
    assert_eq!(receipt.done().await, Ok(Reason(0)));
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_and_harms_nothing() {
    let broker = FakeBroker::listen().await;
    let (mut client, mut peer) = broker.connected(broker.options()).await;
    let error = client.publish(Publish::new("a/#", "")).await.unwrap_err();
    assert_eq!(error.to_string(), "invalid topic \"a/#\": a topic name holds no wildcard");
    let error = client.subscribe("a+", Qos::AtMostOnce).await.unwrap_err();
    assert_eq!(error.to_string(), "invalid topic \"a+\": '+' must be a whole level");
    assert_eq!(client.publish(message(1, Qos::AtMostOnce)).await, Ok(Reason(0)));
    peer.expect(&[&[0x30, 4, 0, 1, b't', 1]]).await;
    client.disconnect().await.unwrap();
    peer.expect(&[&[0xe0, 0]]).await;
    assert_eq!(client.publish(message(1, Qos::AtMostOnce)).await, Err(ClientError::Disconnected));
}

// ---------------------------------------------------------------------------------------------- receiving

#[tokio::test]
async fn a_qos_2_message_sent_again_is_delivered_once() {
    let broker = FakeBroker::listen().await;
    let (mut client, mut peer) = broker.connected(broker.options().durable(u32::MAX)).await;
    peer.send(&publish(0x34, 9, 1)).await;
    peer.expect(&[&[0x50, 2, 0, 9]]).await;
    drop(peer);
    assert_eq!(client.receive().await.unwrap().payload, [1]);
    client.receive().await.unwrap_err();
    let (result, mut peer) = tokio::join!(client.reconnect(), broker.accept(V3_RESUMED));
    result.unwrap();
    peer.send(&publish(0x3c, 9, 1)).await;
    peer.expect(&[&[0x50, 2, 0, 9]]).await;
    peer.send(&[0x62, 2, 0, 9]).await;
    peer.expect(&[&[0x70, 2, 0, 9]]).await;
    peer.send(&publish(0x34, 9, 2)).await;
    assert_eq!(client.receive().await.unwrap().payload, [2]);
}

#[tokio::test]
async fn manual_acknowledgements_wait_for_the_application() {
    let broker = FakeBroker::listen().await;
    let (mut client, mut peer) =
        broker.connected(ConnectOptions { manual_acknowledge: true, ..broker.options() }).await;
    peer.send(&[publish(0x32, 1, 1), publish(0x34, 2, 2)].concat()).await;
    let first = client.receive().await.unwrap();
    let second = client.receive().await.unwrap();
    client.acknowledge(&second).await.unwrap();
    client.acknowledge(&first).await.unwrap();
    peer.expect(&[&[0x50, 2, 0, 2], &[0x40, 2, 0, 1]]).await;
}

#[tokio::test]
async fn an_application_that_does_not_take_its_messages_stops_the_socket() {
    let broker = FakeBroker::listen().await;
    let (mut client, mut peer) = broker.connected(ConnectOptions { unread_bytes: 200, ..broker.options() }).await;
    for payload in 1..=5 {
        peer.send(&publish(0x32, payload, payload)).await;
    }
    // Room for three: the rest is neither taken nor acknowledged.
    peer.expect(&[&[0x40, 2, 0, 1], &[0x40, 2, 0, 2], &[0x40, 2, 0, 3]]).await;
    let fourth = tokio::time::timeout(Duration::from_millis(50), peer.stream.peek(&mut [0])).await;
    assert!(fourth.is_err(), "a message was acknowledged for which there is no room");
    for payload in 1..=5 {
        assert_eq!(client.receive().await.unwrap().payload, [payload]);
    }
    peer.expect(&[&[0x40, 2, 0, 4], &[0x40, 2, 0, 5]]).await;
}

// ---------------------------------------------------------------------------------------------- bytes

const V3_STREAM: &[&[u8]] = &[
    &[0x20, 2, 1, 0],
    &[0x90, 4, 0, 1, 1, 0x80],
    &[0x30, 4, 0, 1, b't', 1],
    &[0x34, 6, 0, 1, b't', 0, 9, 1],
    &[0x40, 2, 0, 1],
    &[0xd0, 0],
];
const V5_STREAM: &[&[u8]] = &[
    &[0x20, 6, 0, 0, 3, 0x21, 0, 20],
    &[0x90, 5, 0, 1, 0, 2, 0x8f],
    &[0x32, 14, 0, 1, b't', 0, 9, 7, 0x26, 0, 1, b'a', 0, 1, b'b', 1],
    &[0x50, 3, 0, 1, 0x97],
    &[0xe0, 1, 0x8e],
];

fn decode_all(protocol: Protocol, chunks: &[&[u8]]) -> Vec<Received> {
    let mut wire = Wire::new(protocol, 1024);
    let mut input = BytesMut::new();
    let mut packets = Vec::new();
    for chunk in chunks {
        input.extend_from_slice(chunk);
        while let Some(packet) = wire.decode(&mut input).unwrap() {
            packets.push(packet);
        }
    }
    assert!(input.is_empty());
    packets
}

#[test]
fn frames_may_be_split_anywhere() {
    for (protocol, stream) in [(Protocol::V3, V3_STREAM), (Protocol::V5, V5_STREAM)] {
        let bytes = stream.concat();
        let whole = decode_all(protocol, &[&bytes]);
        assert_eq!(whole.len(), stream.len());
        for at in 0..=bytes.len() {
            assert_eq!(decode_all(protocol, &[&bytes[..at], &bytes[at..]]), whole, "split at {at}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(decode_all(protocol, &single), whole);
    }
}

#[test]
fn a_publish_whose_lengths_do_not_fit_is_refused() {
    for (frame, protocol) in [
        (&[0x30, 1, 0][..], Protocol::V3),
        (&[0x30, 4, 0, 16, b'a', b'b'], Protocol::V3),
        (&[0x32, 4, 0, 1, b't', 1], Protocol::V3),
        (&[0x30, 4, 0, 1, b't', 9], Protocol::V5),
        (&[0x30, 3, 0, 1, b't'], Protocol::V5),
    ] {
        let decoded = Wire::new(protocol, 1024).decode(&mut BytesMut::from(frame));
        assert!(matches!(decoded, Err(WireError::Malformed(_))), "{frame:?}: {decoded:?}");
    }
    let announced = Wire::new(Protocol::V3, 1024).decode(&mut BytesMut::from(&[0x30, 0xff, 0x7f][..]));
    assert_eq!(announced, Err(WireError::TooLarge { limit: 1024 }));
}

/// What a broker may send: noise, or packets with noise in them.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let noise = prop::collection::vec(any::<u8>(), 0..64);
    let valid = prop::sample::select([V3_STREAM, V5_STREAM].concat()).prop_map(<[u8]>::to_vec);
    let bent = (valid.clone(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut frame, index, byte)| {
        let index = index.index(frame.len());
        frame[index] = byte;
        frame
    });
    let framed = (any::<u8>(), prop::collection::vec(any::<u8>(), 0..100))
        .prop_map(|(first, body)| [&[first, u8::try_from(body.len()).unwrap()], &body[..]].concat());
    prop::collection::vec(prop_oneof![noise, valid, bent, framed], 1..20).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn no_broker_makes_the_client_panic(bytes in stream(), v5 in any::<bool>()) {
        let protocol = if v5 { Protocol::V5 } else { Protocol::V3 };
        let mut output = Output { wire: Wire::new(protocol, 1024), bytes: Vec::new() };
        let mut session = Session::default();
        for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce, Qos::ExactlyOnce] {
            session.publish(message(1, qos), tokio::sync::oneshot::channel().0, &mut output);
        }
        let asked = Asked::Subscribe(vec![("a".to_owned(), subscription(Qos::AtMostOnce))]);
        session.request(asked, tokio::sync::oneshot::channel().0, &mut output);
        let mut input = BytesMut::from(&bytes[..]);
        while let Ok(Some(received)) = output.wire.decode(&mut input) {
            match received {
                Received::Publish(delivery) => if let Some(id) = delivery.packet_id {
                    session.received(id, delivery.qos, &mut output).unwrap();
                }
                Received::Acknowledge { packet_id, step, reason } => {
                    session.acknowledged(packet_id, step, reason, &mut output).unwrap();
                }
                Received::Answer { packet_id, reasons } => session.answered(packet_id, &reasons),
                Received::Connack(_) | Received::Pong | Received::Disconnect { .. } => {}
            }
        }
        session.resume(v5, &mut output).unwrap();
    }
}

#[test]
fn an_acknowledgement_of_the_wrong_kind_completes_nothing() {
    let mut output = Output { wire: Wire::new(Protocol::V3, 1024), bytes: Vec::new() };
    let mut session = Session::default();
    session.publish(message(1, Qos::ExactlyOnce), tokio::sync::oneshot::channel().0, &mut output);
    session.acknowledged(PacketId::MIN, AcknowledgeStep::Puback, Reason(0), &mut output).unwrap();
    assert_eq!(session.unacknowledged(), 1);
    session.acknowledged(PacketId::MIN, AcknowledgeStep::Pubcomp, Reason(0), &mut output).unwrap();
    assert_eq!(session.unacknowledged(), 0);
}

// ---------------------------------------------------------------------------------------------- Mosquitto

/// Mosquitto on a free port; killed at the end.
struct Mosquitto {
    process: Child,
    address: String,
    _directory: tempfile::TempDir,
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Mosquitto {
    /// `None`, with a line that says so, where it is not installed.
    async fn start() -> Option<Self> {
        let Some(program) = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"]
            .into_iter()
            .find(|path| std::fs::exists(path).unwrap())
        else {
            eprintln!("SKIPPED: mosquitto is not installed");
            return None;
        };
        // Mosquitto cannot pick a port itself; the kernel hardly gives the same one out twice in a row.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("mosquitto.conf");
        // Its own bounds stay as they are by default: at 20 in flight it drops what a 3.1.1 client sends beyond.
        let text = format!("listener {port} 127.0.0.1\nallow_anonymous true\nlog_dest none\n");
        std::fs::write(&config, text).unwrap();
        let process = std::process::Command::new(program).arg("-c").arg(&config).stderr(Stdio::null()).spawn().unwrap();
        let broker = Self { process, address: format!("127.0.0.1:{port}"), _directory: directory };
        for _ in 0..200 {
            if TcpStream::connect(&broker.address).await.is_ok() {
                return Some(broker);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("mosquitto does not listen");
    }

    fn options(&self, protocol: Protocol) -> ConnectOptions {
        ConnectOptions::new(&self.address).protocol(protocol)
    }
}

#[tokio::test]
async fn mosquitto_takes_and_gives_all_qualities_of_service() {
    let Some(broker) = Mosquitto::start().await else { return };
    for protocol in [Protocol::V3, Protocol::V5] {
        let mut client = Client::connect(broker.options(protocol)).await.unwrap();
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
            assert_eq!(client.subscribe("load/+", qos).await, Ok(qos));
            let mut receipts = Vec::new();
            for number in 0..500_u32 {
                let publish = Publish::new(format!("load/{}", number % 3), number.to_be_bytes()).qos(qos);
                receipts.push(client.start(publish).await.unwrap());
            }
            for receipt in receipts {
                receipt.done().await.unwrap();
            }
            for number in 0..500_u32 {
                let delivery = client.receive().await.unwrap();
                assert_eq!((delivery.payload, delivery.qos), (number.to_be_bytes().to_vec(), qos));
            }
        }
        client.disconnect().await.unwrap();
    }
}

#[tokio::test]
async fn mosquitto_keeps_a_durable_session_and_publishes_the_will() {
    let Some(broker) = Mosquitto::start().await else { return };
    for protocol in [Protocol::V3, Protocol::V5] {
        let mut watcher = Client::connect(broker.options(protocol)).await.unwrap();
        watcher.subscribe("will", Qos::AtLeastOnce).await.unwrap();
        let will = Will { publish: message(1, Qos::AtLeastOnce), delay_s: 0 };
        let will = Will { publish: Publish { topic: "will".into(), ..will.publish }, ..will };
        let id = format!("durable-{protocol:?}");
        let options = ConnectOptions { will: Some(will), ..broker.options(protocol).client_id(id).durable(3600) };
        let mut client = Client::connect(options).await.unwrap();
        assert!(!client.connected().session_present);
        client.subscribe("queue", Qos::ExactlyOnce).await.unwrap();
        client.abort().await;
        assert_eq!(watcher.receive().await.unwrap().topic, "will");
        watcher.publish(Publish::new("queue", "kept").qos(Qos::ExactlyOnce)).await.unwrap();
        client.reconnect().await.unwrap();
        assert!(client.connected().session_present);
        assert_eq!(client.receive().await.unwrap().payload, b"kept");
    }
}

#[tokio::test]
async fn mosquitto_carries_the_properties_of_5_0() {
    let Some(broker) = Mosquitto::start().await else { return };
    let mut client = Client::connect(broker.options(Protocol::V5)).await.unwrap();
    client.subscribe("t", Qos::AtLeastOnce).await.unwrap();
    let properties = MessageProperties {
        payload_is_utf8: Some(true),
        content_type: Some("text/plain".into()),
        response_topic: Topic::parse("answers").ok(),
        correlation_data: Some([1, 2].into()),
        user_properties: vec![("k".into(), "v".into()), ("k".into(), "w".into())],
    };
    let publish =
        Publish { properties: Some(Box::new(properties)), expiry_s: Some(60), ..message(b'x', Qos::AtLeastOnce) };
    client.publish(publish.clone()).await.unwrap();
    let delivery = client.receive().await.unwrap();
    assert_eq!(delivery.properties, publish.properties);
    assert_eq!(delivery.expiry_s, Some(60));
    let reason = client.publish(Publish::new("nobody", "").qos(Qos::AtLeastOnce)).await.unwrap();
    assert_eq!(reason.to_string(), "no matching subscribers (0x10)");
}
