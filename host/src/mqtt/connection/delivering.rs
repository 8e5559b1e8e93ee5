//! Publishes to a client that wait for what hooks say of them, or behind such a publish.
//!
//! Publishes leave in the order in which the core gave them; other packets do not wait. What waits counts as handed to the
//! connection and not written, so the core bounds it. A connection that ends forgets it: what has to arrive is sent again
//! when the client comes back, and hooks are asked again.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use vespiary_core::event::{AcknowledgeStep, Delivery, ReasonCode};
use vespiary_core::{ChangeNumber, Input, Message, Qos};

use super::{Connection, Later};
use crate::clock::wall_clock;
use crate::mqtt::worker::Worker;
use crate::plugins::hooks::Set;

/// Publishes of a connection about which hooks are asked at a time, at most.
const ASKED_AT_ONCE: usize = 32;

/// A publish that waits to leave.
pub(super) struct Leaving {
    /// The change that it rests on.
    after: ChangeNumber,
    /// What is to leave.
    delivery: Delivery,
    /// What hooks say.
    verdict: Verdict,
}

/// A publish of which hooks have said what they say.
struct Departure {
    /// The change that it rests on.
    after: ChangeNumber,
    /// What was to leave.
    delivery: Delivery,
}

/// What hooks say of a publish.
enum Verdict {
    /// Nothing yet.
    Asked(Later<Option<Arc<Message>>>),
    /// This leaves, or nothing.
    Said(Option<Arc<Message>>),
}

impl Connection {
    /// Whether publishes wait to leave, so that further ones have to wait behind them.
    pub(in crate::mqtt) fn delays(&self) -> bool {
        self.delays.get()
    }

    /// Lets a publish wait: for what hooks say of it, if some want to be asked, or for those before it.
    pub(in crate::mqtt) fn delay(&self, set: Option<Arc<Set>>, after: ChangeNumber, delivery: Delivery) {
        let message = delivery.message.clone();
        let verdict = match set {
            None => Verdict::Said(Some(message)),
            Some(set) => {
                let (client, shown) = (self.client(), (delivery.qos, delivery.retain));
                Verdict::Asked(Box::pin(async move { set.deliver(&client, message, shown).await }))
            }
        };
        self.hooked.with_some(|hooked| hooked.leaving.push_back(Leaving { after, delivery, verdict }));
        self.delays.set(true);
        self.wake();
    }

    /// Sees what hooks have said, and lets leave what may.
    pub(super) fn poll_leaving(self: &Rc<Self>, worker: &Worker, context: &mut Context<'_>) {
        loop {
            self.hooked.with(|hooked| {
                for leaving in hooked.leaving.iter_mut().take(ASKED_AT_ONCE) {
                    if let Verdict::Asked(answer) = &mut leaving.verdict
                        && let Poll::Ready(said) = answer.as_mut().poll(context)
                    {
                        leaving.verdict = Verdict::Said(said);
                    }
                }
            });
            let mut any = false;
            while let Some((leaving, said)) = self.next_leaving() {
                any = true;
                self.let_leave(worker, leaving, said);
            }
            // Others have moved up, and are to be asked about.
            if !(any && self.delays.get()) {
                return;
            }
        }
    }

    fn next_leaving(&self) -> Option<(Departure, Option<Arc<Message>>)> {
        let next = self.hooked.with(|hooked| {
            let leaving = hooked.leaving.pop_front_if(|first| matches!(first.verdict, Verdict::Said(_)));
            self.delays.set(!hooked.leaving.is_empty());
            match leaving? {
                Leaving { after, delivery, verdict: Verdict::Said(said) } => {
                    Some((Departure { after, delivery }, said))
                }
                Leaving { verdict: Verdict::Asked(_), .. } => None,
            }
        });
        next.flatten()
    }

    fn let_leave(
        self: &Rc<Self>,
        worker: &Worker,
        Departure { after, mut delivery }: Departure,
        said: Option<Arc<Message>>,
    ) {
        let weight = delivery.message.weight();
        let Some(message) = said else { return self.end_delivery(worker, &delivery, weight) };
        let is_another = !Arc::ptr_eq(&message, &delivery.message);
        if is_another {
            let now = wall_clock();
            delivery.expiry_s = message.expires_at.map(|at| (at.since_ms(now).div_ceil(1_000)) as u32);
            delivery.message = message;
        }
        // The core has seen to it that the message which it gave is not too large for the client [MQTT-3.1.2-25].
        if !worker.stage_late(self, after, &delivery, weight, is_another) {
            self.end_delivery(worker, &delivery, weight);
        }
    }

    /// A publish does not leave: for the core, the client has it [MQTT-3.1.2-25].
    fn end_delivery(self: &Rc<Self>, worker: &Worker, delivery: &Delivery, weight: usize) {
        worker.options.counters.undelivered_by_hooks.add();
        self.flushed_weight.set(self.flushed_weight.get() + weight);
        self.report_flushed(worker);
        let Some(packet_id) = delivery.packet_id else { return };
        let (step, reason) = match delivery.qos {
            Qos::AtMostOnce => return,
            Qos::AtLeastOnce => (AcknowledgeStep::Puback, ReasonCode::Success),
            // With an error, the exchange ends here: the client is not asked to release what it never saw.
            Qos::ExactlyOnce => (AcknowledgeStep::Pubrec, ReasonCode::UnspecifiedError),
        };
        worker.push(Input::Acknowledge { connection: self.id, packet_id, step, reason });
    }
}
