//! Subscriptions, and entries of queues.

use std::borrow::Cow;
use std::num::NonZeroU16;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vespiary_core::event::{
    PacketId, QueueEntry, RetainHandling, ShareNumber, SubscriptionOptions, SubscriptionRecord,
};
use vespiary_core::message::MessageId;

use super::{InvalidRow, RECORD_VERSION, append_as, qos, take_fields, take_version, whole};

/// The version byte of queue entries and subscriptions that know of shared subscriptions.
const SHARED_VERSION: u8 = 2;

/// The version byte of queue entries that know whether a revision that was rolled back has handled them.
const REPLAYED_VERSION: u8 = 3;

/// A subscription, in `subscriptions`.
#[derive(Serialize, Deserialize)]
pub(in crate::store) struct SubscriptionRow {
    first: FirstSubscriptionRow,
    share: Option<u16>,
}

/// A subscription as version 1 has it.
#[derive(Serialize, Deserialize)]
struct FirstSubscriptionRow {
    maximum_qos: u8,
    no_local: bool,
    retain_as_published: bool,
    /// As on the wire: 0, 1 or 2.
    retain_handling: u8,
    identifier: Option<u32>,
}

impl SubscriptionRow {
    pub(in crate::store) fn new(subscription: SubscriptionRecord) -> Self {
        let SubscriptionRecord { options, identifier, share } = subscription;
        let first = FirstSubscriptionRow {
            maximum_qos: options.maximum_qos as u8,
            no_local: options.no_local,
            retain_as_published: options.retain_as_published,
            retain_handling: match options.retain_handling {
                RetainHandling::AtSubscribe => 0,
                RetainHandling::IfNew => 1,
                RetainHandling::Never => 2,
            },
            identifier,
        };
        Self { first, share: share.map(|share| share.0.get()) }
    }

    pub(in crate::store) fn encode(&self, scratch: &mut Vec<u8>) -> Result<(), InvalidRow> {
        scratch.clear();
        self.append(scratch)
    }

    /// The same behind what is there.
    pub(in crate::store) fn append(&self, out: &mut Vec<u8>) -> Result<(), InvalidRow> {
        append_as(SHARED_VERSION, out, self)
    }

    pub(in crate::store) fn decode(value: &[u8]) -> Result<Self, InvalidRow> {
        whole(value, Self::take)
    }

    /// The same from the beginning of `bytes`, which are moved behind it.
    pub(in crate::store) fn take(bytes: &mut &[u8]) -> Result<Self, InvalidRow> {
        match take_version(bytes)? {
            SHARED_VERSION => take_fields(bytes),
            RECORD_VERSION => Ok(Self { first: take_fields(bytes)?, share: None }),
            version => Err(InvalidRow::Version(version)),
        }
    }

    pub(in crate::store) fn subscription(&self) -> Result<SubscriptionRecord, InvalidRow> {
        let options = SubscriptionOptions {
            maximum_qos: qos(self.first.maximum_qos)?,
            no_local: self.first.no_local,
            retain_as_published: self.first.retain_as_published,
            retain_handling: match self.first.retain_handling {
                0 => RetainHandling::AtSubscribe,
                1 => RetainHandling::IfNew,
                2 => RetainHandling::Never,
                _ => return Err(InvalidRow::Field("retain_handling")),
            },
        };
        Ok(SubscriptionRecord { options, identifier: self.first.identifier, share: share(self.share)? })
    }
}

/// An entry of a session's queue, in `queue` and `kept`.
#[derive(Serialize, Deserialize)]
pub(in crate::store) struct QueueRow<'a> {
    #[serde(borrow)]
    second: SecondQueueRow<'a>,
    replayed: bool,
}

/// An entry of a session's queue as version 2 has it.
#[derive(Serialize, Deserialize)]
struct SecondQueueRow<'a> {
    #[serde(borrow)]
    first: FirstQueueRow<'a>,
    share: Option<u16>,
    weight: u32,
}

/// An entry of a session's queue as version 1 has it.
#[derive(Serialize, Deserialize)]
struct FirstQueueRow<'a> {
    message: u64,
    qos: u8,
    retain: bool,
    subscription_identifiers: Option<Cow<'a, [u32]>>,
    /// The identifier it is in flight under.
    packet_id: Option<u16>,
    /// Whether PUBREC came, so that only PUBREL is sent from now on.
    released: bool,
}

impl<'a> QueueRow<'a> {
    pub(in crate::store) fn new(entry: &'a QueueEntry, released: bool) -> Self {
        let first = FirstQueueRow {
            message: entry.message.0,
            qos: entry.qos as u8,
            retain: entry.retain,
            subscription_identifiers: entry.subscription_identifiers.as_deref().map(Cow::Borrowed),
            packet_id: entry.packet_id.map(PacketId::get),
            released,
        };
        let share = entry.share.map(|share| share.0.get());
        Self { second: SecondQueueRow { first, share, weight: entry.weight }, replayed: entry.replayed }
    }

    pub(in crate::store) fn encode(&self, scratch: &mut Vec<u8>) -> Result<(), InvalidRow> {
        scratch.clear();
        self.append(scratch)
    }

    /// The same behind what is there.
    pub(in crate::store) fn append(&self, out: &mut Vec<u8>) -> Result<(), InvalidRow> {
        append_as(REPLAYED_VERSION, out, self)
    }

    /// Decodes a row. One of version 1 has no weight.
    pub(in crate::store) fn decode(value: &'a [u8]) -> Result<Self, InvalidRow> {
        whole(value, Self::take)
    }

    /// The same from the beginning of `bytes`, which are moved behind it.
    pub(in crate::store) fn take(bytes: &mut &'a [u8]) -> Result<Self, InvalidRow> {
        let second = match take_version(bytes)? {
            REPLAYED_VERSION => return take_fields(bytes),
            SHARED_VERSION => take_fields(bytes)?,
            RECORD_VERSION => SecondQueueRow { first: take_fields(bytes)?, share: None, weight: 0 },
            version => return Err(InvalidRow::Version(version)),
        };
        Ok(Self { second, replayed: false })
    }

    /// The message that a row refers to; nothing else of it is looked at.
    pub(in crate::store) fn message(mut value: &[u8]) -> Result<u64, InvalidRow> {
        match take_version(&mut value)? {
            RECORD_VERSION | SHARED_VERSION | REPLAYED_VERSION => take_fields(&mut value),
            version => Err(InvalidRow::Version(version)),
        }
    }

    /// Weight of the message that it refers to.
    pub(in crate::store) fn weight(&self) -> u32 {
        self.second.weight
    }

    /// Notes that it is in flight under `packet_id`, if one is given, and that PUBREC came.
    pub(in crate::store) fn mark(&mut self, packet_id: Option<PacketId>, released: bool) {
        let first = &mut self.second.first;
        first.packet_id = packet_id.map(PacketId::get).or(first.packet_id);
        first.released |= released;
    }

    /// Notes that a revision that was rolled back has handled it, and that it waits again.
    pub(in crate::store) fn replay(&mut self) {
        self.second.first.released = false;
        self.replayed = true;
    }

    /// The entry, and whether it is released.
    pub(in crate::store) fn entry(self) -> Result<(QueueEntry, bool), InvalidRow> {
        let Self { second: SecondQueueRow { first, share: through, weight }, replayed } = self;
        let packet_id = match first.packet_id {
            None => None,
            Some(id) => Some(PacketId::new(id).ok_or(InvalidRow::Field("packet_id"))?),
        };
        let entry = QueueEntry {
            message: MessageId(first.message),
            qos: qos(first.qos)?,
            retain: first.retain,
            subscription_identifiers: first.subscription_identifiers.map(|identifiers| Arc::from(&*identifiers)),
            packet_id,
            share: share(through)?,
            weight,
            replayed,
        };
        Ok((entry, first.released))
    }
}

fn share(number: Option<u16>) -> Result<Option<ShareNumber>, InvalidRow> {
    number.map(|number| NonZeroU16::new(number).map(ShareNumber).ok_or(InvalidRow::Field("share"))).transpose()
}
