//! Packets of a client that wait for what hooks say of them, or behind such a packet.
//!
//! A client's packets reach the core in the order in which they came, so whatever comes behind a packet that waits waits as
//! well. While something waits, nothing more is read from the socket; what was read before is taken up to a bound, so that
//! hooks can be asked about several packets at a time. A connection that ends forgets all of it.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use vespiary_core::event::{AcknowledgeStep, PacketId, Publish, ReasonCode, Subscribe};
use vespiary_core::{ChangeNumber, Input, Qos};

use super::admitting::Admitting;
use super::delivering::Leaving;
use super::{Connection, Later};
use crate::config::Filter;
use crate::mqtt::frame::{Frame, PacketType};
use crate::mqtt::refusals;
use crate::mqtt::translate::{self, Understood};
use crate::mqtt::worker::Worker;
use crate::plugins::hooks::{Published, Set, Wanted};
use crate::wasm::hooks::{HookClient, Refusal};

/// Packets of a connection that wait at a time, at most.
const WAITING_PACKETS: usize = 64;

/// Bytes of packets that wait beyond which no further one is taken.
const WAITING_BYTES: usize = 64 << 10;

/// What a connection has to do with hooks.
#[derive(Default)]
pub(super) struct Hooked {
    /// The client as hooks see it, once they do.
    client: Option<HookClient>,
    /// A client that waits to be let in.
    pub(super) admitting: Option<Admitting>,
    /// Packets that wait, in the order in which they came.
    packets: VecDeque<Waiting>,
    /// How long those were.
    bytes: usize,
    /// QoS 2 publishes that hooks ended, until the core has answered their release.
    exchanges: Vec<(PacketId, Ended)>,
    /// Publishes that wait to leave.
    pub(super) leaving: VecDeque<Leaving>,
}

/// A packet that waits.
enum Waiting {
    /// For what hooks say.
    Asked(Later<Ruling>),
    /// For those before it.
    Ruled(Ruling),
}

/// What is to be done with a packet.
enum Ruling {
    /// It goes to the core.
    Input(Box<Input>),
    /// What it came to, which is nothing for the core.
    Understood(Result<Understood, ReasonCode>),
    /// A publish is dropped, and counts as taken.
    Dropped(Exchange),
    /// A publish is refused.
    Denied(Exchange, Refusal),
}

/// What the client waits for after a publish.
#[derive(Debug, Clone, Copy)]
struct Exchange {
    /// `Some` exactly for QoS 1 and 2.
    packet_id: Option<PacketId>,
    /// The QoS.
    qos: Qos,
    /// Whether the client may have sent it before.
    dup: bool,
}

/// How hooks ended a QoS 2 publish, of which the core therefore may not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The client was told that it was taken, and releases it.
    Dropped,
    /// The client was told that it was not, and the core is told to forget what it may know of it.
    Denied,
}

/// Whether somebody wants to be asked about packets of this type at all.
pub(super) fn concerns(worker: &Worker, packet: PacketType) -> bool {
    match packet {
        PacketType::Publish => worker.hooks.any(Wanted::Publishes),
        PacketType::Subscribe => worker.hooks.any(Wanted::Subscriptions),
        _ => false,
    }
}

impl Connection {
    /// Whether a further packet may be taken while others wait.
    pub(super) fn takes_more(&self, packet: PacketType) -> bool {
        // AUTH is understood where it is followed, so it is left where it is.
        packet != PacketType::Auth
            && self.hooked.with(|hooked| {
                hooked.admitting.is_none() && hooked.packets.len() < WAITING_PACKETS && hooked.bytes < WAITING_BYTES
            }) != Some(false)
    }

    /// Takes a packet that hooks may be asked about, or that has to wait behind others.
    pub(super) fn packet_for_hooks(self: &Rc<Self>, worker: &Worker, frame: Frame<'_>) {
        let mut inputs = worker.understood.take();
        let understood = match &mut *self.inbound.borrow_mut() {
            Some(inbound) => inbound.understand(frame, worker.terms(), &mut inputs),
            None => Err(ReasonCode::ProtocolError),
        };
        let input = inputs.pop_front();
        debug_assert!(inputs.is_empty(), "a packet is one input");
        worker.understood.replace(inputs);
        let waiting = match input {
            None => Waiting::Ruled(Ruling::Understood(understood)),
            Some(input) => match self.ask(worker, input) {
                Ok(answer) => answer,
                Err(input) if self.waits.get() => Waiting::Ruled(Ruling::Input(Box::new(input))),
                Err(input) => return worker.push(input),
            },
        };
        match waiting {
            Waiting::Ruled(Ruling::Understood(Ok(Understood::Auth))) => self.authenticate(worker, frame),
            Waiting::Ruled(ruling) if !self.waits.get() => self.rule(worker, ruling),
            waiting => {
                self.hooked.with_some(|hooked| {
                    hooked.packets.push_back(waiting);
                    hooked.bytes += frame.bytes.len();
                });
                self.waits.set(true);
            }
        }
    }

    /// Asks hooks about an input, or gives it back if none wants to know.
    fn ask(&self, worker: &Worker, input: Input) -> Result<Waiting, Input> {
        match input {
            Input::Publish { connection, publish } => {
                let exchange = Exchange { packet_id: publish.packet_id, qos: publish.message.qos, dup: publish.dup };
                if self.was_dropped(exchange) {
                    return Ok(Waiting::Ruled(Ruling::Dropped(exchange)));
                }
                let Some(set) = worker.hooks.publishes(&publish.message.topic) else {
                    return Err(Input::Publish { connection, publish });
                };
                let client = self.client();
                Ok(Waiting::Asked(Box::pin(async move {
                    match set.publish(&client, publish.message).await {
                        Published::Message(message) => {
                            let publish = Publish { packet_id: publish.packet_id, dup: publish.dup, message };
                            Ruling::Input(Box::new(Input::Publish { connection, publish }))
                        }
                        Published::Dropped => Ruling::Dropped(exchange),
                        Published::Denied(refusal) => Ruling::Denied(exchange, refusal),
                    }
                })))
            }
            Input::Subscribe { connection, mut subscribe } => {
                let filters = subscribe.filters.iter().flatten().map(|(filter, _)| filter);
                let Some(set) = worker.hooks.subscriptions(filters) else {
                    return Err(Input::Subscribe { connection, subscribe });
                };
                let (client, denied) = (self.client(), worker.options.denied_subscriptions.clone());
                Ok(Waiting::Asked(Box::pin(async move {
                    ask_about_filters(&set, &client, &denied, &mut subscribe).await;
                    Ruling::Input(Box::new(Input::Subscribe { connection, subscribe }))
                })))
            }
            other => Err(other),
        }
    }

    /// The client as hooks see it.
    pub(super) fn client(&self) -> HookClient {
        let known = self.hooked.with(|hooked| hooked.client.clone()).flatten();
        known.unwrap_or_else(|| {
            let (id, user) =
                self.inbound.borrow().as_ref().map_or_else(|| ("".into(), None), |inbound| inbound.client());
            let client = HookClient { id, user, address: self.address(), protocol: self.protocol() };
            self.hooked.with_some(|hooked| hooked.client = Some(client.clone()));
            client
        })
    }

    /// The client is known by this user name from now on.
    pub(super) fn rename(&self, user: Option<Arc<str>>) {
        self.hooked.with(|hooked| hooked.client = None);
        if let Some(inbound) = &mut *self.inbound.borrow_mut() {
            inbound.rename(user);
        }
    }

    /// Sees what hooks have said, and does it as far as the order allows.
    pub(super) fn poll_waiting(self: &Rc<Self>, worker: &Worker, context: &mut Context<'_>) {
        self.poll_admission(worker, context);
        self.hooked.with(|hooked| {
            for waiting in &mut hooked.packets {
                if let Waiting::Asked(answer) = waiting
                    && let Poll::Ready(ruling) = answer.as_mut().poll(context)
                {
                    *waiting = Waiting::Ruled(ruling);
                }
            }
        });
        while let Some(ruling) = self.next_ruling() {
            self.rule(worker, ruling);
        }
        if !self.waits.get() {
            // The client's silence counts from when it is read again.
            worker.put_off_deadline(self);
        }
    }

    fn next_ruling(&self) -> Option<Ruling> {
        let next = self.hooked.with(|hooked| {
            let ruling = match hooked.packets.pop_front_if(|first| matches!(first, Waiting::Ruled(_))) {
                Some(Waiting::Ruled(ruling)) => Some(ruling),
                Some(Waiting::Asked(_)) | None => None,
            };
            if hooked.packets.is_empty() {
                hooked.bytes = 0;
            }
            self.waits.set(hooked.admitting.is_some() || !hooked.packets.is_empty());
            ruling
        });
        next.flatten()
    }

    fn rule(self: &Rc<Self>, worker: &Worker, ruling: Ruling) {
        match ruling {
            Ruling::Input(input) => worker.push(*input),
            Ruling::Understood(understood) => self.follow(worker, understood),
            Ruling::Dropped(exchange) => {
                worker.options.counters.dropped_by_hooks.add();
                self.end_publish(worker, exchange, ReasonCode::Success, None);
            }
            Ruling::Denied(exchange, refusal) => {
                tracing::debug!(connection = self.id.0, refusal.code, refusal.reason, "a hook refused a publish");
                worker.options.counters.denied_by_hooks.add();
                let words = refusals::words(&refusal.reason);
                self.end_publish(worker, exchange, refusals::of_publish(refusal.code), words.as_deref());
            }
        }
    }

    /// Answers a publish of which the core hears nothing.
    fn end_publish(self: &Rc<Self>, worker: &Worker, exchange: Exchange, reason: ReasonCode, words: Option<&str>) {
        let Exchange { packet_id: Some(packet_id), qos, dup } = exchange else { return };
        let mut step = AcknowledgeStep::Puback;
        if qos == Qos::ExactlyOnce {
            step = AcknowledgeStep::Pubrec;
            if !reason.is_error() {
                self.note_ended(packet_id, Ended::Dropped);
            } else if dup {
                // The core may have taken it when it came before; for the client, the exchange is over.
                self.note_ended(packet_id, Ended::Denied);
                let (step, reason) = (AcknowledgeStep::Pubrel, ReasonCode::Success);
                worker.push(Input::Acknowledge { connection: self.id, packet_id, step, reason });
            }
        }
        worker.settle();
        if self.takes_packets() {
            self.acknowledge_saying(worker, ChangeNumber(0), packet_id, (step, reason), words);
        }
    }

    fn note_ended(&self, packet_id: PacketId, ended: Ended) {
        self.hooked.with_some(|hooked| {
            hooked.exchanges.retain(|(known, _)| *known != packet_id);
            hooked.exchanges.push((packet_id, ended));
        });
    }

    /// Whether the client was told already that this publish was taken, and hooks dropped it.
    fn was_dropped(&self, exchange: Exchange) -> bool {
        let Exchange { packet_id: Some(packet_id), qos: Qos::ExactlyOnce, .. } = exchange else { return false };
        self.hooked.with(|hooked| hooked.exchanges.contains(&(packet_id, Ended::Dropped))) == Some(true)
    }

    /// The core has answered a release. Says how hooks ended the publish, if they did.
    pub(super) fn released(&self, packet_id: PacketId) -> Option<Ended> {
        let ended = self.hooked.with(|hooked| {
            let place = hooked.exchanges.iter().position(|(known, _)| *known == packet_id)?;
            Some(hooked.exchanges.swap_remove(place).1)
        });
        ended.flatten()
    }

    /// Forgets whatever waits.
    pub(super) fn forget_hooks(&self) {
        self.hooked.forget();
        self.waits.set(false);
        self.delays.set(false);
        self.left_over.set(false);
    }
}

/// Asks hooks about each filter, and sets what is made of it.
async fn ask_about_filters(set: &Set, client: &HookClient, denied: &[Filter], subscribe: &mut Subscribe) {
    for requested in &mut subscribe.filters {
        let Ok((filter, options)) = requested else { continue };
        match set.subscribe(client, filter.clone(), options.maximum_qos).await {
            Ok((other, qos)) => match translate::denied(&other, denied) {
                None => {
                    *filter = other;
                    options.maximum_qos = qos;
                }
                Some(reason) => *requested = Err(reason),
            },
            Err(refusal) => {
                tracing::debug!(client = &*client.id, refusal.code, refusal.reason, "a hook refused a subscription");
                *requested = Err(refusals::of_subscribe(refusal.code));
            }
        }
    }
}
