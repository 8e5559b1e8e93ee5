//! Receive Maximum towards us (sections 3.2.2.3.3 and 4.9): how many QoS 1 and 2 publishes of a 5.0 client are
//! unacknowledged [MQTT-3.3.4-7].
//!
//! Counted here and not in the core, because an acknowledgement may be held until it is durable: a publish counts from
//! when it is read until its last acknowledgement (PUBACK, PUBREC with an error, PUBCOMP) may be written. That is never
//! later than the client can have it, so whoever keeps to the bound is never cut. The count belongs to the network
//! connection, as the client's own does: exchanges of an earlier connection count only if their PUBLISH is sent again.

use std::collections::VecDeque;

use vespiary_core::Qos;
use vespiary_core::event::{AcknowledgeStep, PacketId, Protocol, ReasonCode};

/// Publishes that are not acknowledged.
#[derive(Debug, Default)]
pub(super) struct Quota {
    /// How many.
    unacknowledged: u16,
    /// Identifiers of those at QoS 2 whose last acknowledgement is not staged, so that a repeated packet counts once.
    exchanges: Option<Box<Exchanges>>,
}

/// Identifiers in ascending order, in which most clients give them out and most exchanges end: so one is mostly added at
/// one end and taken from the other.
#[derive(Debug, Default)]
struct Exchanges(VecDeque<PacketId>);

impl Exchanges {
    fn contains(&self, packet_id: PacketId) -> bool {
        self.0.binary_search(&packet_id).is_ok()
    }

    fn insert(&mut self, packet_id: PacketId) {
        if let Err(place) = self.0.binary_search(&packet_id) {
            self.0.insert(place, packet_id);
        }
    }

    /// Says whether it was there.
    fn remove(&mut self, packet_id: PacketId) -> bool {
        self.0.binary_search(&packet_id).is_ok_and(|place| self.0.remove(place).is_some())
    }
}

impl Quota {
    /// Counts a PUBLISH that has come. One too many is an error with which its connection closes. A 3.1.1 client was
    /// told of no bound.
    pub(super) fn take(
        &mut self,
        protocol: Protocol,
        qos: Qos,
        packet_id: PacketId,
        receive_maximum: u16,
    ) -> Result<(), ReasonCode> {
        if protocol == Protocol::V3 {
            return Ok(());
        }
        let is_repeated = || self.exchanges.as_ref().is_some_and(|exchanges| exchanges.contains(packet_id));
        if qos == Qos::ExactlyOnce && is_repeated() {
            return Ok(());
        }
        if self.unacknowledged >= receive_maximum {
            return Err(ReasonCode::ReceiveMaximumExceeded);
        }
        self.unacknowledged += 1;
        if qos == Qos::ExactlyOnce {
            self.exchanges.get_or_insert_default().insert(packet_id);
        }
        Ok(())
    }

    /// Whether an acknowledgement is the last of an exchange that counts.
    pub(super) fn ends_exchange(&mut self, packet_id: PacketId, step: AcknowledgeStep, reason: ReasonCode) -> bool {
        match step {
            AcknowledgeStep::Puback => true,
            AcknowledgeStep::Pubrel => false,
            AcknowledgeStep::Pubrec if !reason.is_error() => false,
            AcknowledgeStep::Pubrec | AcknowledgeStep::Pubcomp => {
                self.exchanges.as_mut().is_some_and(|exchanges| exchanges.remove(packet_id))
            }
        }
    }

    /// This many exchanges are over.
    pub(super) fn give_back(&mut self, count: u16) {
        self.unacknowledged = self.unacknowledged.saturating_sub(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a client sends, and which acknowledgement for it may leave.
    #[derive(Clone, Copy)]
    enum Event {
        Publish(Qos, u16),
        Acknowledge(AcknowledgeStep, u16, ReasonCode),
    }

    /// Whether each PUBLISH is taken, with a Receive Maximum of 2.
    fn check(protocol: Protocol, events: &[Event], expected: &[bool]) {
        let mut quota = Quota::default();
        let mut found = Vec::new();
        for event in events {
            match *event {
                Event::Publish(qos, packet_id) => {
                    found.push(quota.take(protocol, qos, PacketId::new(packet_id).unwrap(), 2).is_ok());
                }
                Event::Acknowledge(step, packet_id, reason) => {
                    if quota.ends_exchange(PacketId::new(packet_id).unwrap(), step, reason) {
                        quota.give_back(1);
                    }
                }
            }
        }
        assert_eq!(found, expected);
    }

    #[test]
    fn a_publish_counts_until_its_last_acknowledgement() {
        use AcknowledgeStep::{Puback, Pubcomp, Pubrec};
        use Event::{Acknowledge, Publish};
        use Qos::{AtLeastOnce, ExactlyOnce};
        let ok = ReasonCode::Success;
        let three = [Publish(AtLeastOnce, 1), Publish(ExactlyOnce, 2), Publish(AtLeastOnce, 3)];
        check(Protocol::V5, &three, &[true, true, false]);
        check(Protocol::V3, &three, &[true, true, true]);
        let two = [Publish(AtLeastOnce, 1), Publish(ExactlyOnce, 2)];
        for (acknowledgements, expected) in [
            (vec![Acknowledge(Puback, 1, ok)], true),
            (vec![Acknowledge(Puback, 1, ReasonCode::QuotaExceeded)], true),
            (vec![Acknowledge(Pubrec, 2, ok)], false),
            (vec![Acknowledge(Pubrec, 2, ReasonCode::QuotaExceeded)], true),
            (vec![Acknowledge(Pubrec, 2, ok), Acknowledge(Pubcomp, 2, ok)], true),
            // A PUBREL that went with nothing, or with an exchange of an earlier connection.
            (vec![Acknowledge(Pubcomp, 7, ReasonCode::PacketIdentifierNotFound)], false),
            (vec![Acknowledge(Pubcomp, 7, ok)], false),
        ] {
            let events = [&two[..], &acknowledgements, &[Publish(AtLeastOnce, 4)]].concat();
            check(Protocol::V5, &events, &[true, true, expected]);
        }
        // Identifiers in any order, and the window full again.
        let events = [
            Publish(ExactlyOnce, 9),
            Publish(ExactlyOnce, 3),
            Acknowledge(Pubcomp, 9, ok),
            Publish(ExactlyOnce, 1),
            Acknowledge(Pubcomp, 9, ok),
            Publish(ExactlyOnce, 7),
        ];
        check(Protocol::V5, &events, &[true, true, true, false]);
        // The same QoS 2 publish again.
        let repeated =
            [Publish(ExactlyOnce, 2), Publish(ExactlyOnce, 2), Publish(AtLeastOnce, 3), Publish(ExactlyOnce, 2)];
        check(Protocol::V5, &repeated, &[true, true, true, true]);
    }
}
