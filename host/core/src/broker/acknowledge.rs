//! The steps of QoS 1 and 2 exchanges that clients send, in both directions (section 4.3).

use super::Broker;
use crate::event::{AcknowledgeStep, Change, ChangeNumber, Effects, PacketId, ReasonCode};
use crate::key::SessionKey;
use crate::message::{Qos, Timestamp};
use crate::session::window::InFlight;

impl Broker {
    pub(super) fn acknowledge(
        &mut self,
        now: Timestamp,
        key: SessionKey,
        packet_id: PacketId,
        (step, reason): (AcknowledgeStep, ReasonCode),
        effects: &mut Effects,
    ) {
        match step {
            AcknowledgeStep::Puback => self.leave_window(now, key, packet_id, effects, |in_flight| {
                !in_flight.released && in_flight.qos == Qos::AtLeastOnce
            }),
            AcknowledgeStep::Pubrec if reason.is_error() => {
                self.leave_window(now, key, packet_id, effects, |in_flight| {
                    !in_flight.released && in_flight.qos == Qos::ExactlyOnce
                });
            }
            AcknowledgeStep::Pubrec => self.release(key, packet_id, effects),
            AcknowledgeStep::Pubcomp => self.leave_window(now, key, packet_id, effects, |in_flight| in_flight.released),
            AcknowledgeStep::Pubrel => self.end_receipt(key, packet_id, effects),
        }
    }

    /// PUBREC: from now on only PUBREL is sent.
    fn release(&mut self, key: SessionKey, packet_id: PacketId, effects: &mut Effects) {
        let session = &mut self.sessions[key];
        let mut after = ChangeNumber(0);
        let resuming = session.outbound.is_resuming();
        let reason = match session.outbound.window.find(packet_id) {
            Some(in_flight) if in_flight.qos == Qos::ExactlyOnce => {
                if !in_flight.released {
                    in_flight.released = true;
                    if in_flight.place.is_on_disk() {
                        let sequence = in_flight.place.sequence;
                        after = effects.record(Change::Released { session: session.id, sequence });
                    }
                }
                ReasonCode::Success
            }
            // It may be one that is about to be sent again; the client then gets that first.
            _ if resuming => return,
            _ => ReasonCode::PacketIdentifierNotFound,
        };
        self.send_acknowledge(key, packet_id, (AcknowledgeStep::Pubrel, reason), after, effects);
    }

    /// A message leaves, and makes room for the next. One that is not in flight, or not so far, is left alone.
    fn leave_window(
        &mut self,
        now: Timestamp,
        key: SessionKey,
        packet_id: PacketId,
        effects: &mut Effects,
        may_leave: impl Fn(&InFlight) -> bool,
    ) {
        let session = &mut self.sessions[key];
        if let Some(in_flight) = session.outbound.window.remove(packet_id, may_leave) {
            let drained = session.outbound.is_drained() && session.greetings.is_empty();
            self.let_go(key, in_flight.place, effects);
            if !drained {
                self.pump(now, key, effects);
            }
        }
    }

    /// PUBREL: the client may use the identifier again [MQTT-4.3.3-12].
    fn end_receipt(&mut self, key: SessionKey, packet_id: PacketId, effects: &mut Effects) {
        let session = &mut self.sessions[key];
        let mut after = ChangeNumber(0);
        let reason = match session.received.remove(&packet_id) {
            Some(_) => {
                if session.durable {
                    after = effects.record(Change::ReceivedReleased { session: session.id, packet_id });
                }
                ReasonCode::Success
            }
            None => ReasonCode::PacketIdentifierNotFound,
        };
        self.send_acknowledge(key, packet_id, (AcknowledgeStep::Pubcomp, reason), after, effects);
    }
}
