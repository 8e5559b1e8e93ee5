//! What a client sends, fuzzed: frames, CONNECT, and the packets behind it.
//!
//! Takes the way of [`super::connection`] through [`frame`] and [`translate`] without socket, worker and turn. Everything
//! accepted is held once more to what the core relies on, by checks that are as plain as can be.

mod accepted;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use vespiary_core::event::{AcknowledgeStep, Connect, ConnectionId, ReasonCode};
use vespiary_core::{Input, Qos, Timestamp, TopicFilter};

use super::frame::{self, Frame, PacketType};
use super::translate::{self, AuthStep, ConnectOptions, Inbound, Refusal, Terms, Understood};
use crate::config::Filter;

/// The connection.
const CONNECTION: ConnectionId = ConnectionId(7);

/// When everything is read.
const NOW: Timestamp = Timestamp(1_700_000_000_000);

/// Highest alias that the client may set.
const TOPIC_ALIAS_MAXIMUM: u16 = 4;

/// Longest keep-alive in seconds.
const KEEP_ALIVE_MAXIMUM_S: u16 = 600;

/// Publishes that a 5.0 client may have unacknowledged.
const RECEIVE_MAXIMUM: u16 = 3;

/// The identifier that is made up for a client.
const FRESH_ID: &str = "fresh";

/// Largest packets, by the bits of the first byte of the input.
const PACKET_BYTES: [usize; 4] = [1 << 20, 1 << 10, 64, 16];

/// Takes `bytes` for what comes on one connection.
///
/// The low bits of the first byte count the bytes behind it that say how much each read gives, over and over; two more
/// say how large a packet may be. The rest is the stream. What it comes to does not depend on the reads; the packets are
/// the stream, one behind the other; none is larger than it may be, nor is the beginning of one that is kept; and what is
/// accepted is valid.
pub fn connection(bytes: &[u8]) {
    let Some((&first, rest)) = bytes.split_first() else { return };
    let limit = PACKET_BYTES[usize::from(first >> 4 & 3)];
    let (reads, stream) = rest.split_at(usize::from(first & 0x0F).min(rest.len()));
    let denied = [Filter(TopicFilter::parse("secret/#").expect("a filter"))];
    let whole = Peer::play(limit, &denied, [stream]);
    if !reads.is_empty() {
        let cut = Peer::play(limit, &denied, Cuts { reads, next: 0, stream });
        assert_eq!(cut.heard, whole.heard);
        assert_eq!(cut.packet_bytes, whole.packet_bytes);
    }
}

/// A stream as it is read.
struct Cuts<'a> {
    /// Lengths less one, taken in turn.
    reads: &'a [u8],
    /// The next of them.
    next: usize,
    /// What has not been read.
    stream: &'a [u8],
}

impl<'a> Iterator for Cuts<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(self.reads[self.next % self.reads.len()]) + 1;
        self.next += 1;
        let (read, rest) = self.stream.split_at(length.min(self.stream.len()));
        self.stream = rest;
        (!read.is_empty()).then_some(read)
    }
}

/// What a packet came to.
#[derive(Debug, PartialEq)]
enum Heard {
    Connect(Box<Connect>),
    Refused(Refusal),
    Input(Box<Input>),
    Understood(Understood),
    Auth(AuthStep, Option<Box<[u8]>>),
    Violated(ReasonCode),
}

/// Where the connection is in its life.
enum Phase {
    Fresh,
    /// CONNECT named a method.
    Authenticating(Arc<str>, Box<Inbound>),
    Open(Box<Inbound>),
    Over,
}

/// Our side of the connection.
struct Peer<'a> {
    /// Largest packet.
    limit: usize,
    /// What may not be subscribed to.
    denied: &'a [Filter],
    phase: Phase,
    /// What came of the packets, in order.
    heard: Vec<Heard>,
    /// How long they were.
    packet_bytes: Vec<usize>,
}

impl<'a> Peer<'a> {
    fn play<'b>(limit: usize, denied: &'a [Filter], reads: impl IntoIterator<Item = &'b [u8]>) -> Self {
        let mut peer = Self { limit, denied, phase: Phase::Fresh, heard: Vec::new(), packet_bytes: Vec::new() };
        let mut partial = Vec::new();
        let mut received = 0;
        for read in reads {
            received += read.len();
            partial.extend_from_slice(read);
            let consumed = peer.consume(&partial);
            partial.drain(..consumed);
            if matches!(peer.phase, Phase::Over) {
                break;
            }
            assert_eq!(peer.packet_bytes.iter().sum::<usize>() + partial.len(), received);
            assert!(partial.len() < limit.max(frame::MAX_HEADER_BYTES), "{} bytes are kept", partial.len());
        }
        peer
    }

    /// Takes the whole packets at the beginning of `bytes`, and gives their length.
    fn consume(&mut self, bytes: &[u8]) -> usize {
        let mut consumed = 0;
        while !matches!(self.phase, Phase::Over) {
            match frame::next(&bytes[consumed..], self.limit) {
                Ok(Some(frame)) => {
                    self.check_frame(frame, &bytes[consumed..]);
                    consumed += frame.bytes.len();
                    self.packet_bytes.push(frame.bytes.len());
                    self.packet(frame);
                }
                Ok(None) => break,
                Err(reason) => self.violated(reason),
            }
        }
        consumed
    }

    fn check_frame(&self, frame: Frame<'_>, bytes: &[u8]) {
        assert!(frame.bytes.len() <= self.limit && bytes.starts_with(frame.bytes));
        let header = frame.bytes.len() - frame.body.len();
        assert!((2..=frame::MAX_HEADER_BYTES).contains(&header) && frame.bytes.ends_with(frame.body));
        assert!(frame.body.len() <= frame::MAX_REMAINING_LENGTH);
        assert_eq!(frame.flags, frame.bytes[0] & 0x0F);
    }

    fn packet(&mut self, frame: Frame<'_>) {
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Fresh => self.connect(frame),
            Phase::Authenticating(method, inbound) => match frame.packet {
                PacketType::Auth => match self.auth(frame) {
                    Some(name) if name == method => self.phase = Phase::Open(inbound),
                    Some(_) => self.violated(ReasonCode::ProtocolError),
                    None => {}
                },
                PacketType::Disconnect => {}
                _ => self.violated(ReasonCode::ProtocolError),
            },
            Phase::Open(inbound) => self.understand(frame, inbound),
            Phase::Over => unreachable!("nothing is read any more"),
        }
    }

    fn connect(&mut self, frame: Frame<'_>) {
        let options = ConnectOptions {
            keep_alive_maximum_s: Some(KEEP_ALIVE_MAXIMUM_S),
            topic_alias_maximum: TOPIC_ALIAS_MAXIMUM,
        };
        match translate::connect(CONNECTION, frame, NOW, options, || FRESH_ID.into()) {
            Ok(accepted) => {
                accepted::check_connect(&accepted, frame.bytes.len());
                let inbound = Box::new(accepted.inbound);
                self.phase = match accepted.authentication {
                    Some(request) => Phase::Authenticating(request.method, inbound),
                    None => Phase::Open(inbound),
                };
                self.heard.push(Heard::Connect(accepted.connect));
            }
            Err(refusal) => self.heard.push(Heard::Refused(refusal)),
        }
    }

    fn understand(&mut self, frame: Frame<'_>, mut inbound: Box<Inbound>) {
        let mut inputs = VecDeque::new();
        let terms = Terms { now: NOW, receive_maximum: RECEIVE_MAXIMUM, denied_subscriptions: self.denied };
        let understood = match inbound.understand(frame, terms, &mut inputs) {
            Ok(understood) => understood,
            Err(reason) => return self.violated(reason),
        };
        assert_eq!(inputs.len(), usize::from(understood == Understood::Input));
        match understood {
            Understood::Input => {}
            Understood::Ping | Understood::Denied(_) | Understood::Disconnect(_) => {
                self.heard.push(Heard::Understood(understood));
            }
            Understood::Auth => {
                if self.auth(frame).is_none() {
                    return;
                }
            }
        }
        if let Some(input) = inputs.pop_front() {
            let connect = self.heard.iter().find_map(|heard| match heard {
                Heard::Connect(connect) => Some(&**connect),
                _ => None,
            });
            accepted::check_input(&input, connect.expect("CONNECT came first"), frame, self.denied);
            acknowledge(&mut inbound, &input);
            self.heard.push(Heard::Input(Box::new(input)));
        }
        if !matches!(understood, Understood::Disconnect(_)) {
            self.phase = Phase::Open(inbound);
        }
    }

    /// The method that AUTH names, if it is one.
    fn auth(&mut self, frame: Frame<'_>) -> Option<Arc<str>> {
        match translate::auth(frame) {
            Ok(auth) => {
                assert!(auth.method.len() + auth.data.map_or(0, <[u8]>::len) < frame.body.len());
                self.heard.push(Heard::Auth(auth.step, auth.data.map(Into::into)));
                Some(auth.method.into())
            }
            Err(reason) => {
                self.violated(reason);
                None
            }
        }
    }

    fn violated(&mut self, reason: ReasonCode) {
        assert!(reason.is_error(), "{reason:?} is no reason to close");
        self.heard.push(Heard::Violated(reason));
        self.phase = Phase::Over;
    }
}

/// Every publish is acknowledged at once, and every one at QoS 2 completed when it is released.
fn acknowledge(inbound: &mut Inbound, input: &Input) {
    let (packet_id, step) = match input {
        Input::Publish { publish, .. } => match (publish.packet_id, publish.message.qos) {
            (Some(packet_id), Qos::AtLeastOnce) => (packet_id, AcknowledgeStep::Puback),
            (Some(packet_id), Qos::ExactlyOnce) => (packet_id, AcknowledgeStep::Pubrec),
            (_, _) => return,
        },
        Input::Acknowledge { packet_id, step: AcknowledgeStep::Pubrel, .. } => (*packet_id, AcknowledgeStep::Pubcomp),
        _ => return,
    };
    if inbound.ends_exchange(packet_id, step, ReasonCode::Success) {
        inbound.acknowledged(1);
    }
}
