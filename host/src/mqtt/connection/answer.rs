//! What a connection says: the core's packets and its own, as its client takes them.
//!
//! A packet larger than the client's Maximum Packet Size is never staged [MQTT-3.1.2-24]. Reason Strings are left out
//! first; what cannot be said at all ends the connection. Nothing here takes a turn, so a turn may call it.

use std::num::NonZeroU16;
use std::rc::Rc;

use vespiary_core::event::{AcknowledgeStep, Packet, PacketId, Protocol, ReasonCode};
use vespiary_core::{ChangeNumber, Input};

use super::hooked::Ended;
use super::{Connection, Phase};
use crate::mqtt::encode::{self, Announcement};
use crate::mqtt::explain::{About, explain};
use crate::mqtt::translate::ProblemInformation;
use crate::mqtt::worker::Worker;

impl Connection {
    /// Stages a packet of the core that is no PUBLISH.
    pub(in crate::mqtt) fn answer(self: &Rc<Self>, worker: &Worker, after: ChangeNumber, packet: &Packet) {
        let protocol = self.protocol();
        match *packet {
            Packet::Publish(_) => debug_assert!(false, "a publish is staged with its weight"),
            Packet::Acknowledge { packet_id, step, reason } => {
                self.acknowledge(worker, after, packet_id, (step, reason));
            }
            Packet::Suback { packet_id, ref reasons } => {
                let text = self.first_error(About::Subscribe, reasons);
                self.stage_or_end(worker, after, text, |text, out| {
                    encode::suback(protocol, packet_id, reasons, text, out);
                });
            }
            Packet::Unsuback { packet_id, ref reasons } => {
                let text = self.first_error(About::Unsubscribe, reasons);
                self.stage_or_end(worker, after, text, |text, out| {
                    encode::unsuback(protocol, packet_id, reasons, text, out);
                });
            }
            Packet::Connack { session_present, session_expiry_s, ref assigned_client_id } => {
                let announcement = Announcement {
                    session_present,
                    session_expiry_s,
                    assigned_client_id: assigned_client_id.clone(),
                    server_keep_alive_s: self.server_keep_alive_s.get().map(NonZeroU16::get),
                    receive_maximum: worker.limits().receive_maximum,
                    maximum_packet_size: u32::try_from(worker.options.packet_bytes).unwrap_or(u32::MAX),
                    topic_alias_maximum: worker.options.topic_alias_maximum,
                    response_information: worker
                        .options
                        .response_information
                        .clone()
                        .filter(|_| self.response_information.get()),
                    authentication: self.authenticated(),
                };
                self.let_in(worker, after, announcement);
            }
            Packet::Refused { reason } => self.refuse(worker, after, reason),
        }
    }

    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
    pub(in crate::mqtt) fn acknowledge(
        self: &Rc<Self>,
        worker: &Worker,
        after: ChangeNumber,
        packet_id: PacketId,
        (step, reason): (AcknowledgeStep, ReasonCode),
    ) {
        let reason = match step {
            AcknowledgeStep::Pubcomp => match self.released(packet_id) {
                None => reason,
                // The core never had the message.
                Some(Ended::Dropped) => ReasonCode::Success,
                // The client never asked.
                Some(Ended::Denied) => return,
            },
            AcknowledgeStep::Puback | AcknowledgeStep::Pubrec | AcknowledgeStep::Pubrel => reason,
        };
        self.acknowledge_saying(worker, after, packet_id, (step, reason), None);
    }

    /// The same, with `words` as the Reason String if the client takes some.
    pub(super) fn acknowledge_saying(
        self: &Rc<Self>,
        worker: &Worker,
        after: ChangeNumber,
        packet_id: PacketId,
        (step, reason): (AcknowledgeStep, ReasonCode),
        words: Option<&str>,
    ) {
        let protocol = self.protocol();
        if protocol == Protocol::V3 && refuses_publish(step, reason) {
            // 3.1.1 knows no refusal: the client keeps its message and may send it again when it is back
            // [3.1.1: MQTT-3.3.5-2].
            worker.push(Input::ConnectionLost { connection: self.id });
            return self.close(worker);
        }
        // [MQTT-3.4.2-2] [MQTT-3.5.2-2] [MQTT-3.6.2-2] [MQTT-3.7.2-2]
        let text = if reason.is_error() { self.words(About::step(step), reason) } else { None };
        let text = text.map(|text| words.unwrap_or(text));
        let explained = text.is_some()
            && self.stage_if_it_fits(worker, after, |out| {
                encode::acknowledge(protocol, packet_id, (step, reason), text, out);
            });
        if !explained {
            worker.stage(self, after, |out| encode::acknowledge(protocol, packet_id, (step, reason), None, out));
        }
        if let Some(inbound) = &mut *self.inbound.borrow_mut()
            && inbound.ends_exchange(packet_id, step, reason)
            && self.outgoing.borrow_mut().note_acknowledgement()
        {
            inbound.acknowledged(1);
        }
    }

    /// CONNACK that accepts: from now on a DISCONNECT may be sent [MQTT-3.14.0-1].
    fn let_in(self: &Rc<Self>, worker: &Worker, after: ChangeNumber, announcement: Announcement) {
        let protocol = self.protocol();
        if self.stage_if_it_fits(worker, after, |out| encode::connack(protocol, announcement, out)) {
            self.outgoing.borrow_mut().note_connack();
            self.phase.set(Phase::Open);
        } else {
            worker.push(Input::ConnectionLost { connection: self.id });
            self.refuse(worker, after, ReasonCode::PacketTooLarge);
        }
    }

    /// CONNACK that refuses, and the end. A broker without room, or about to stop, names another, to which the client is
    /// to go for now (section 4.11).
    pub(in crate::mqtt) fn refuse(self: &Rc<Self>, worker: &Worker, after: ChangeNumber, reason: ReasonCode) {
        self.refuse_saying(worker, after, reason, None);
    }

    /// The same, with `words` as the Reason String.
    pub(super) fn refuse_saying(
        self: &Rc<Self>,
        worker: &Worker,
        after: ChangeNumber,
        reason: ReasonCode,
        words: Option<&str>,
    ) {
        if self.protocol() == Protocol::V3 {
            worker.stage(self, after, |out| encode::refusal_v3(reason, out));
            return self.close(worker);
        }
        let elsewhere = worker.options.server_reference.as_deref();
        let (reason, reference) = match reason {
            ReasonCode::QuotaExceeded
            | ReasonCode::ServerBusy
            | ReasonCode::ServerUnavailable
            | ReasonCode::ServerShuttingDown
                if elsewhere.is_some() =>
            {
                (ReasonCode::UseAnotherServer, elsewhere)
            }
            // A CONNACK has no Server shutting down (table 3-1).
            ReasonCode::ServerShuttingDown => (ReasonCode::ServerUnavailable, None),
            reason => (reason, None),
        };
        // [MQTT-3.2.2-19]
        let text = words.unwrap_or(explain(About::Connect, reason));
        for (text, reference) in [(Some(text), reference), (None, reference), (None, None)] {
            if self.stage_if_it_fits(worker, after, |out| encode::refusal_v5(reason, text, reference, out)) {
                break;
            }
        }
        self.close(worker);
    }

    /// Closes once all that is staged has left; a 5.0 client that was let in is told `reason`, if it is an error.
    pub(in crate::mqtt) fn close_with(self: &Rc<Self>, worker: &Worker, after: ChangeNumber, reason: ReasonCode) {
        if self.is_open() && self.protocol() == Protocol::V5 && reason.is_error() {
            let (reason, reference) = match (reason, worker.options.server_reference.as_deref()) {
                (ReasonCode::ServerShuttingDown, Some(elsewhere)) => (ReasonCode::UseAnotherServer, Some(elsewhere)),
                // What a DISCONNECT does not have (table 3-10).
                (
                    ReasonCode::BadUserNameOrPassword
                    | ReasonCode::ClientIdentifierNotValid
                    | ReasonCode::BadAuthenticationMethod,
                    _,
                ) => (ReasonCode::NotAuthorized, None),
                (ReasonCode::ServerUnavailable, _) => (ReasonCode::ServerBusy, None),
                (reason, _) => (reason, None),
            };
            // [MQTT-3.14.2-3]
            let text = explain(About::Connection, reason);
            for (text, reference) in [(Some(text), reference), (None, reference), (None, None)] {
                if self.stage_if_it_fits(worker, after, |out| encode::disconnect(reason, text, reference, out)) {
                    break;
                }
            }
        }
        self.close(worker);
    }

    /// Stages a packet with its Reason String, or without, or ends the connection because it fits neither way
    /// [MQTT-3.9.2-1] [MQTT-3.11.2-1].
    fn stage_or_end(
        self: &Rc<Self>,
        worker: &Worker,
        after: ChangeNumber,
        text: Option<&str>,
        packet: impl Fn(Option<&str>, &mut Vec<u8>),
    ) {
        let explained = text.is_some() && self.stage_if_it_fits(worker, after, |out| packet(text, out));
        if !explained && !self.stage_if_it_fits(worker, after, |out| packet(None, out)) {
            worker.push(Input::ConnectionLost { connection: self.id });
            self.close_with(worker, after, ReasonCode::PacketTooLarge);
        }
    }

    /// Stages a packet if it is no larger than the client takes [MQTT-3.1.2-24]; says whether it is.
    pub(super) fn stage_if_it_fits(
        self: &Rc<Self>,
        worker: &Worker,
        after: ChangeNumber,
        packet: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        let mut fits = true;
        worker.stage(self, after, |out| {
            let start = out.len();
            packet(out);
            fits = out.len() - start <= self.maximum_packet_size.get() as usize;
            if !fits {
                out.truncate(start);
            }
        });
        fits
    }

    /// The Reason String for a reason, if the client takes some there [MQTT-3.1.2-29].
    fn words(&self, about: About, reason: ReasonCode) -> Option<&'static str> {
        let takes_some = match self.problem_information.get() {
            ProblemInformation::Refused => false,
            ProblemInformation::Unsaid => matches!(about, About::Subscribe | About::Unsubscribe),
            ProblemInformation::Wanted => true,
        };
        takes_some.then(|| explain(about, reason))
    }

    /// The Reason String for the first of these that is an error: a packet has one for all its reasons.
    fn first_error(&self, about: About, reasons: &[ReasonCode]) -> Option<&'static str> {
        let reason = reasons.iter().find(|reason| reason.is_error())?;
        self.words(about, *reason)
    }
}

/// Whether an acknowledgement says that the client's message was not taken.
fn refuses_publish(step: AcknowledgeStep, reason: ReasonCode) -> bool {
    matches!(step, AcknowledgeStep::Puback | AcknowledgeStep::Pubrec) && reason.is_error()
}
