//! A client that sends exact bytes and says what exactly came back. It acknowledges nothing by itself.
//!
//! Whoever waits for something waits for [`PATIENCE`] at most, and then fails.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::packets::{self, Connect, PINGREQ, PINGRESP, property};

/// How long anything may take that should take a moment.
const PATIENCE: Duration = Duration::from_secs(30);

/// One end of a connection.
pub(crate) struct Peer {
    stream: TcpStream,
    pub(crate) level: u8,
}

/// A CONNACK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Connack {
    /// The acknowledge flags; the lowest bit says that a session was there.
    pub(crate) flags: u8,
    pub(crate) reason: u8,
    pub(crate) properties: Properties,
}

/// A PUBLISH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Publish {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: u8,
    pub(crate) dup: bool,
    pub(crate) retain: bool,
    /// 0 at QoS 0.
    pub(crate) packet_id: u16,
    pub(crate) properties: Properties,
}

/// Properties in the order in which they came, each with the bytes of its value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Properties(Vec<(u8, Vec<u8>)>);

impl Properties {
    /// The only value of a property, if it is there.
    #[track_caller]
    pub(crate) fn one(&self, id: u8) -> Option<&[u8]> {
        let values = self.all(id);
        assert!(values.len() < 2, "property {id:#x} is there more than once: {self:?}");
        values.first().copied()
    }

    /// All values of a property.
    pub(crate) fn all(&self, id: u8) -> Vec<&[u8]> {
        self.0.iter().filter(|(found, _)| *found == id).map(|(_, value)| &value[..]).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Peer {
    /// A socket on the shared broker on which nothing has been said.
    pub(crate) fn socket(level: u8) -> Self {
        Self::socket_at(super::shared(), level)
    }

    /// The same on another broker.
    pub(crate) fn socket_at(address: SocketAddr, level: u8) -> Self {
        let stream = TcpStream::connect(address).expect("the broker listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.set_nodelay(true).expect("a socket option can be set");
        Self { stream, level }
    }

    /// A client with a clean session, let in by the shared broker.
    #[track_caller]
    pub(crate) fn new(level: u8, client_id: &str) -> Self {
        let (peer, connack) = Self::join(&Connect::new(level, client_id));
        assert_eq!((connack.flags, connack.reason), (0, 0), "{connack:?}");
        peer
    }

    /// A client of the shared broker that sends this CONNECT; gives the answer.
    #[track_caller]
    pub(crate) fn join(connect: &Connect) -> (Self, Connack) {
        Self::join_at(super::shared(), connect)
    }

    /// The same on another broker.
    #[track_caller]
    pub(crate) fn join_at(address: SocketAddr, connect: &Connect) -> (Self, Connack) {
        let mut peer = Self::socket_at(address, connect.level);
        peer.send(&connect.bytes());
        let connack = peer.connack();
        (peer, connack)
    }

    /// Sends bytes. A broker that has closed may not take them all, which what follows then shows.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// The same socket, for another thread to write to.
    pub(crate) fn writer(&self) -> TcpStream {
        self.stream.try_clone().expect("a socket can be cloned")
    }

    /// The next packet.
    #[track_caller]
    pub(crate) fn packet(&mut self) -> Vec<u8> {
        match self.next() {
            Some(packet) => packet,
            None => panic!("the broker closed the connection instead of sending a packet"),
        }
    }

    /// The next packet, or none where the broker has closed the connection.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Option<Vec<u8>> {
        let mut packet = vec![0];
        match self.stream.read(&mut packet) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => return None,
            Err(error) => panic!("nothing came: {error}"),
        }
        let (mut remaining, mut shift) = (0, 0);
        loop {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).expect("a remaining length");
            packet.extend(byte);
            remaining |= usize::from(byte[0] & 0x7F) << shift;
            shift += 7;
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
        let start = packet.len();
        packet.resize(start + remaining, 0);
        self.stream.read_exact(&mut packet[start..]).expect("the rest of a packet");
        Some(packet)
    }

    /// The next packet is this one.
    #[track_caller]
    pub(crate) fn expect(&mut self, bytes: &[u8]) {
        let packet = self.packet();
        assert!(packet == bytes, "{packet:02x?} came instead of {bytes:02x?}");
    }

    /// The broker closes, and has nothing more to say.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        let packet = self.next();
        assert!(packet.is_none(), "{packet:02x?} came instead of the end");
    }

    /// The broker closes; a 5.0 client is told one of these reasons first, a 3.1.1 client nothing.
    #[track_caller]
    pub(crate) fn expect_disconnect(&mut self, reasons: &[u8]) {
        if self.level == 5 {
            let packet = self.packet();
            let reason = packet.get(2).copied().unwrap_or_default();
            assert!(packet[0] == 0xE0 && reasons.contains(&reason), "{packet:02x?} came instead of {reasons:02x?}");
        }
        self.expect_end();
    }

    /// Nothing else has come by the time at which the broker has answered a PINGREQ.
    #[track_caller]
    pub(crate) fn expect_silence(&mut self) {
        self.send(&PINGREQ);
        self.expect(&PINGRESP);
    }

    /// The next packet is a CONNACK.
    #[track_caller]
    pub(crate) fn connack(&mut self) -> Connack {
        let packet = self.packet();
        let body = body(&packet);
        assert_eq!(packet[0], 0x20, "{packet:02x?} is no CONNACK");
        // A 5.0 client may be refused in the form of 3.1.1, which has no properties.
        let mut rest = &body[2..];
        let properties = if rest.is_empty() { Properties::default() } else { take_properties(&mut rest) };
        assert!(rest.is_empty(), "bytes behind the end of {packet:02x?}");
        Connack { flags: body[0], reason: body[1], properties }
    }

    /// The next packet is a PUBLISH.
    #[track_caller]
    pub(crate) fn publish(&mut self) -> Publish {
        let packet = self.packet();
        assert_eq!(packet[0] >> 4, 3, "{packet:02x?} is no PUBLISH");
        let mut rest = body(&packet);
        let qos = packet[0] >> 1 & 3;
        let topic = take_binary(&mut rest);
        Publish {
            topic: String::from_utf8(topic).expect("a topic is UTF-8"),
            packet_id: if qos > 0 { take_number(&mut rest) } else { 0 },
            properties: if self.level == 5 { take_properties(&mut rest) } else { Properties::default() },
            payload: rest.to_vec(),
            qos,
            dup: packet[0] & 8 != 0,
            retain: packet[0] & 1 != 0,
        }
    }

    /// The next packet is a PUBLISH with this topic and payload.
    #[track_caller]
    pub(crate) fn expect_publish(&mut self, topic: &str, payload: &[u8]) -> Publish {
        let publish = self.publish();
        assert_eq!((&publish.topic[..], &publish.payload[..]), (topic, payload), "{publish:?}");
        publish
    }

    /// The next packet acknowledges with this first byte, identifier and reason, which is 0 in 3.1.1.
    #[track_caller]
    pub(crate) fn expect_acknowledgement(&mut self, first: u8, packet_id: u16, reason: u8) {
        let packet = self.packet();
        let body = body(&packet);
        let found = (packet[0], u16::from_be_bytes([body[0], body[1]]), body.get(2).copied().unwrap_or(0));
        assert_eq!(found, (first, packet_id, reason), "{packet:02x?}");
        assert!(self.level == 5 || body.len() == 2, "{packet:02x?} has more than an identifier");
    }

    /// The reasons of the next packet, which is SUBACK (0x90) or UNSUBACK (0xB0) with this identifier.
    #[track_caller]
    pub(crate) fn reasons(&mut self, first: u8, packet_id: u16) -> Vec<u8> {
        let packet = self.packet();
        let mut rest = body(&packet);
        assert_eq!((packet[0], take_number(&mut rest)), (first, packet_id), "{packet:02x?}");
        if self.level == 5 {
            take_properties(&mut rest);
        }
        rest.to_vec()
    }

    /// Subscribes and sees it granted.
    #[track_caller]
    pub(crate) fn subscribe(&mut self, filter: &str, qos: u8) {
        self.send(&packets::subscribe(self.level, 0x7FFF, &[(filter, qos)]));
        assert_eq!(self.reasons(0x90, 0x7FFF), [qos], "subscribing to {filter}");
    }

    /// Publishes at QoS 1 and waits for PUBACK.
    #[track_caller]
    pub(crate) fn publish_acknowledged(&mut self, topic: &str, payload: &[u8]) {
        self.send(&packets::publish(self.level, 0x32, topic, 0x7FFE, payload));
        let packet = self.packet();
        let reason = packet.get(4).copied().unwrap_or(0);
        assert!(packet[0] == 0x40 && packet[2..4] == [0x7F, 0xFE] && reason < 0x80, "{packet:02x?} is no good PUBACK");
    }

    /// Publishes at a QoS, from the first step to the last.
    #[track_caller]
    pub(crate) fn publish_completely(&mut self, topic: &str, payload: &[u8], qos: u8) {
        match qos {
            0 => self.send(&packets::publish(self.level, 0x30, topic, 0, payload)),
            1 => self.publish_acknowledged(topic, payload),
            _ => {
                self.send(&packets::publish(self.level, 0x34, topic, 0x7FFC, payload));
                let packet = self.packet();
                assert_eq!((packet[0], &packet[2..4]), (0x50, &[0x7F, 0xFC][..]), "{packet:02x?}");
                self.send(&packets::acknowledge(0x62, 0x7FFC));
                self.expect_acknowledgement(0x70, 0x7FFC, 0);
            }
        }
    }

    /// Says goodbye and sees the connection closed.
    #[track_caller]
    pub(crate) fn leave(mut self) {
        self.send(&packets::DISCONNECT);
        self.expect_end();
    }
}

/// What follows the fixed header.
pub(crate) fn body(packet: &[u8]) -> &[u8] {
    let length_bytes = packet[1..].iter().take_while(|byte| **byte & 0x80 != 0).count() + 1;
    &packet[1 + length_bytes..]
}

/// The properties of an acknowledgement or DISCONNECT, whose reason stands at `at` in the body.
pub(crate) fn properties_behind(packet: &[u8], at: usize) -> Properties {
    let mut rest = body(packet).get(at + 1..).unwrap_or_default();
    if rest.is_empty() { Properties::default() } else { take_properties(&mut rest) }
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, behind) = rest.split_at_checked(count).expect("a packet that is long enough");
    *rest = behind;
    taken
}

fn take_number(rest: &mut &[u8]) -> u16 {
    let bytes = take(rest, 2);
    u16::from_be_bytes([bytes[0], bytes[1]])
}

fn take_binary(rest: &mut &[u8]) -> Vec<u8> {
    let length = take_number(rest);
    take(rest, usize::from(length)).to_vec()
}

fn take_variable(rest: &mut &[u8]) -> usize {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = take(rest, 1)[0];
        value |= usize::from(byte & 0x7F) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return value;
        }
    }
}

/// Takes properties with the length before them [MQTT-2.2.2-1].
fn take_properties(rest: &mut &[u8]) -> Properties {
    let length = take_variable(rest);
    let mut list = take(rest, length);
    let mut properties = Vec::new();
    while !list.is_empty() {
        let id = take(&mut list, 1)[0];
        let before = list;
        match id {
            property::SUBSCRIPTION_IDENTIFIER => drop(take_variable(&mut list)),
            property::MESSAGE_EXPIRY
            | property::SESSION_EXPIRY
            | property::WILL_DELAY
            | property::MAXIMUM_PACKET_SIZE => drop(take(&mut list, 4)),
            property::SERVER_KEEP_ALIVE
            | property::RECEIVE_MAXIMUM
            | property::TOPIC_ALIAS_MAXIMUM
            | property::TOPIC_ALIAS => drop(take(&mut list, 2)),
            property::CONTENT_TYPE
            | property::RESPONSE_TOPIC
            | property::CORRELATION_DATA
            | property::ASSIGNED_CLIENT_IDENTIFIER
            | property::AUTHENTICATION_METHOD
            | property::AUTHENTICATION_DATA
            | property::RESPONSE_INFORMATION
            | property::SERVER_REFERENCE
            | property::REASON_STRING => drop(take_binary(&mut list)),
            property::USER => drop((take_binary(&mut list), take_binary(&mut list))),
            property::PAYLOAD_FORMAT
            | property::REQUEST_PROBLEM_INFORMATION
            | property::REQUEST_RESPONSE_INFORMATION
            | property::MAXIMUM_QOS
            | property::RETAIN_AVAILABLE
            | property::WILDCARD_SUBSCRIPTION_AVAILABLE
            | property::SUBSCRIPTION_IDENTIFIER_AVAILABLE
            | property::SHARED_SUBSCRIPTION_AVAILABLE => drop(take(&mut list, 1)),
            unknown => panic!("a property {unknown:#x} that there is not"),
        }
        properties.push((id, before[..before.len() - list.len()].to_vec()));
    }
    Properties(properties)
}
