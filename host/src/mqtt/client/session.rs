//! What a client has to remember beyond a connection: packet identifiers, unacknowledged publishes in order, QoS 2
//! messages received, subscriptions. A value without sockets or clocks; what it sends it encodes into [`Output`].
//!
//! Invariants: `used` holds exactly the identifiers of `outgoing` and `requests`; exchanges stand in the order of their
//! first sending, which is the order in which a resume sends them again [MQTT-4.6.0-1].

use std::collections::{HashSet, VecDeque};

use tokio::sync::oneshot;
use vespiary_core::Qos;
use vespiary_core::event::{AcknowledgeStep, PacketId, SubscriptionOptions};

use super::packet::{Sent, Wire, WireError};
use super::{ClientError, Publish, Reason};

/// SUBSCRIBE and UNSUBSCRIBE that may be without an answer.
const REQUESTS: usize = 64;

/// Whoever waits for an answer.
pub(super) type Waiting = oneshot::Sender<Result<Reason, ClientError>>;

/// The session. See the [module](self).
#[derive(Default)]
pub(super) struct Session {
    /// Identifier last given out.
    last_id: u16,
    /// Identifiers in use.
    used: HashSet<PacketId>,
    /// Publishes that are not complete.
    outgoing: VecDeque<Exchange>,
    /// QoS 2 messages that we have sent PUBREC for, and that the broker has not released.
    receiving: HashSet<PacketId>,
    /// SUBSCRIBE and UNSUBSCRIBE without an answer.
    requests: VecDeque<Request>,
    /// What the broker granted, to be asked for again should it forget.
    subscriptions: Vec<(String, SubscriptionOptions)>,
    /// Whoever waits for `outgoing` to be empty.
    settled: Vec<Waiting>,
}

/// A publish that is not complete.
struct Exchange {
    /// Its identifier.
    packet_id: PacketId,
    /// The message, for sending it again.
    publish: Publish,
    /// How far it is.
    step: Step,
    /// Gone once it was told that the connection is lost.
    done: Option<Waiting>,
}

#[derive(Clone, Copy, PartialEq)]
enum Step {
    /// PUBLISH is sent.
    Published,
    /// PUBREC came, PUBREL is sent.
    Released,
}

struct Request {
    packet_id: PacketId,
    asked: Asked,
    done: Option<Waiting>,
}

/// What a request asks for.
pub(super) enum Asked {
    /// SUBSCRIBE.
    Subscribe(Vec<(String, SubscriptionOptions)>),
    /// UNSUBSCRIBE.
    Unsubscribe(Vec<String>),
}

/// Bytes on their way to the socket.
pub(super) struct Output {
    /// The codec of this connection.
    pub(super) wire: Wire,
    /// Encoded and not yet written.
    pub(super) bytes: Vec<u8>,
}

impl Output {
    /// Encodes a packet behind what waits.
    pub(super) fn send(&mut self, packet: Sent<'_>) -> Result<(), WireError> {
        self.wire.encode(packet, &mut self.bytes)
    }
}

impl Session {
    /// Publishes that are not complete.
    #[cfg(test)]
    pub(super) fn unacknowledged(&self) -> usize {
        self.outgoing.len()
    }

    /// Whether another publish or request may be sent.
    pub(super) fn has_room(&self, window: usize) -> bool {
        self.outgoing.len() < window && self.requests.len() < REQUESTS
    }

    /// Sends a publish. One that cannot be encoded is refused to whoever waits, and changes nothing.
    pub(super) fn publish(&mut self, publish: Publish, done: Waiting, output: &mut Output) {
        let packet_id = if publish.qos == Qos::AtMostOnce { None } else { Some(self.allocate()) };
        if let Err(error) = output.send(Sent::Publish { publish: &publish, packet_id, dup: false }) {
            packet_id.inspect(|id| self.free(*id));
            let _ = done.send(Err(ClientError::NotSendable(error.to_string())));
            return;
        }
        match packet_id {
            None => drop(done.send(Ok(Reason(0)))),
            Some(packet_id) => {
                self.outgoing.push_back(Exchange { packet_id, publish, step: Step::Published, done: Some(done) });
            }
        }
    }

    /// Asks to subscribe or to unsubscribe.
    pub(super) fn request(&mut self, asked: Asked, done: Waiting, output: &mut Output) {
        let request = Request { packet_id: self.allocate(), asked, done: Some(done) };
        match request.send(output) {
            Ok(()) => self.requests.push_back(request),
            Err(error) => {
                self.free(request.packet_id);
                if let Some(done) = request.done {
                    let _ = done.send(Err(ClientError::NotSendable(error.to_string())));
                }
            }
        }
    }

    /// Resolves `done` once nothing is unacknowledged.
    pub(super) fn when_settled(&mut self, done: Waiting) {
        self.settled.push(done);
        self.tell_settled();
    }

    /// Takes a SUBACK or UNSUBACK.
    pub(super) fn answered(&mut self, packet_id: PacketId, reasons: &[Reason]) {
        let Some(index) = self.requests.iter().position(|request| request.packet_id == packet_id) else { return };
        let Some(request) = self.requests.remove(index) else { return };
        self.free(packet_id);
        match request.asked {
            Asked::Subscribe(filters) => {
                for ((filter, options), reason) in filters.into_iter().zip(reasons) {
                    self.subscriptions.retain(|(known, _)| *known != filter);
                    if !reason.is_error() {
                        self.subscriptions.push((filter, options));
                    }
                }
            }
            Asked::Unsubscribe(filters) => self.subscriptions.retain(|(known, _)| !filters.contains(known)),
        }
        if let Some(done) = request.done {
            let _ = done.send(Ok(reasons.first().copied().unwrap_or(Reason(0))));
        }
    }

    /// Takes a step of an exchange, in either direction. Steps of exchanges that are not known are answered so that the
    /// broker can end them.
    pub(super) fn acknowledged(
        &mut self,
        packet_id: PacketId,
        step: AcknowledgeStep,
        reason: Reason,
        output: &mut Output,
    ) -> Result<(), WireError> {
        let index = self.outgoing.iter().position(|exchange| exchange.packet_id == packet_id);
        match step {
            AcknowledgeStep::Puback | AcknowledgeStep::Pubcomp => {
                let expected = if step == AcknowledgeStep::Puback { Qos::AtLeastOnce } else { Qos::ExactlyOnce };
                if let Some(index) = index.filter(|index| self.outgoing[*index].publish.qos == expected) {
                    self.complete(index, reason);
                }
                Ok(())
            }
            AcknowledgeStep::Pubrec => {
                match index.filter(|index| self.outgoing[*index].publish.qos == Qos::ExactlyOnce) {
                    Some(index) if reason.is_error() => {
                        self.complete(index, reason);
                        return Ok(());
                    }
                    Some(index) => self.outgoing[index].step = Step::Released,
                    None => {}
                }
                output.send(Sent::Acknowledge { packet_id, step: AcknowledgeStep::Pubrel })
            }
            AcknowledgeStep::Pubrel => {
                self.receiving.remove(&packet_id);
                output.send(Sent::Acknowledge { packet_id, step: AcknowledgeStep::Pubcomp })
            }
        }
    }

    /// Whether a QoS 2 message under this identifier is one that was received before.
    pub(super) fn is_received(&self, packet_id: PacketId) -> bool {
        self.receiving.contains(&packet_id)
    }

    /// Acknowledges a message: PUBACK, or PUBREC.
    pub(super) fn received(&mut self, packet_id: PacketId, qos: Qos, output: &mut Output) -> Result<(), WireError> {
        let step = match qos {
            Qos::AtMostOnce => return Ok(()),
            Qos::AtLeastOnce => AcknowledgeStep::Puback,
            Qos::ExactlyOnce => {
                self.receiving.insert(packet_id);
                AcknowledgeStep::Pubrec
            }
        };
        output.send(Sent::Acknowledge { packet_id, step })
    }

    /// A connection is there again. Sends what is not complete: with DUP or as PUBREL if the broker has the session,
    /// else subscriptions and publishes from the beginning; what had reached PUBREC is the broker's, and done.
    pub(super) fn resume(&mut self, session_present: bool, output: &mut Output) -> Result<(), WireError> {
        if !session_present {
            self.receiving.clear();
            while let Some(index) = self.outgoing.iter().position(|exchange| exchange.step == Step::Released) {
                self.complete(index, Reason(0));
            }
            if !self.subscriptions.is_empty() {
                let packet_id = self.allocate();
                let asked = Asked::Subscribe(self.subscriptions.clone());
                self.requests.push_front(Request { packet_id, asked, done: None });
            }
        }
        for exchange in &self.outgoing {
            let packet_id = exchange.packet_id;
            match exchange.step {
                Step::Published => output.send(Sent::Publish {
                    publish: &exchange.publish,
                    packet_id: Some(packet_id),
                    dup: session_present,
                })?,
                Step::Released => output.send(Sent::Acknowledge { packet_id, step: AcknowledgeStep::Pubrel })?,
            }
        }
        self.requests.iter().try_for_each(|request| request.send(output))
    }

    /// The connection is gone, and nobody brings it back by itself: tells all who wait. Publishes stay for a resume.
    pub(super) fn lost(&mut self, error: &ClientError) {
        let requests = std::mem::take(&mut self.requests);
        for request in requests {
            self.free(request.packet_id);
            if let Some(done) = request.done {
                let _ = done.send(Err(error.clone()));
            }
        }
        let waiting = self.outgoing.iter_mut().filter_map(|exchange| exchange.done.take());
        for done in waiting.chain(self.settled.drain(..)) {
            let _ = done.send(Err(error.clone()));
        }
    }

    fn complete(&mut self, index: usize, reason: Reason) {
        let Some(exchange) = self.outgoing.remove(index) else { return };
        self.free(exchange.packet_id);
        if let Some(done) = exchange.done {
            let topic = exchange.publish.topic;
            let refused = reason.is_error();
            let _ = done.send(if refused { Err(ClientError::PublishRefused { topic, reason }) } else { Ok(reason) });
        }
        self.tell_settled();
    }

    fn tell_settled(&mut self) {
        if self.outgoing.is_empty() {
            for done in self.settled.drain(..) {
                let _ = done.send(Ok(Reason(0)));
            }
        }
    }

    /// The next free identifier. There is one, as [`Session::has_room`] says.
    fn allocate(&mut self) -> PacketId {
        assert!(self.used.len() < usize::from(u16::MAX), "the window leaves identifiers free");
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            if let Some(id) = PacketId::new(self.last_id)
                && self.used.insert(id)
            {
                return id;
            }
        }
    }

    fn free(&mut self, packet_id: PacketId) {
        let was_used = self.used.remove(&packet_id);
        assert!(was_used, "an identifier is freed once");
    }
}

impl Request {
    fn send(&self, output: &mut Output) -> Result<(), WireError> {
        let packet_id = self.packet_id;
        match &self.asked {
            Asked::Subscribe(filters) => output.send(Sent::Subscribe { packet_id, filters }),
            Asked::Unsubscribe(filters) => output.send(Sent::Unsubscribe { packet_id, filters }),
        }
    }
}
