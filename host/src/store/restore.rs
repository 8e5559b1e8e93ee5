//! Reads back what the broker has to know at start, as the changes that `Broker::restore` takes.
//!
//! The order, so that nothing names what has not come yet: identifiers, plugins, sessions, subscriptions, messages,
//! queues by session, receptions, retained messages, dead letters. Of a plugin's inbox all entries come by sequence, each
//! followed by `Released` where PUBREC had come (`Sent` is folded into the entry's packet identifier), and the
//! messages that they refer to; of a client's queue only what it holds, so that memory is bounded by sessions and
//! not by messages. State of plugins is not read: the broker does not keep it. Dead letters come without payload and
//! properties, for the broker keeps their number only.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use redb::{Database, Key, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, TableHandle, Value};
use vespiary_core::event::{Change, PacketId, PluginName, Sequence, SessionId};
use vespiary_core::message::{Message, MessageId};
use vespiary_core::topic::TopicFilter;

use super::error::StoreError;
use super::record::{self, DeadLetterRow, InvalidRow, MessageRow, PluginRow, QueueRow, SessionRow, SubscriptionRow};
use super::tables::{
    DEAD_LETTERS, MESSAGES, META, META_IDENTIFIERS_BELOW, PLUGINS, QUEUE, RECEIVED, RETAINED, SESSIONS, SUBSCRIPTIONS,
};

/// What was read back.
pub(super) struct Restored {
    /// For the broker, in its order.
    pub(super) changes: Vec<Change>,
    /// The highest sequence found.
    pub(super) highest: u64,
}

/// Reads the database at `path`.
pub(super) fn read(database: &Database, path: &Path) -> Result<Restored, StoreError> {
    let transaction = database.begin_read().map_err(StoreError::database("read", path))?;
    let reader = Reader { transaction, path };
    let mut changes = Vec::new();
    reader.identifiers(&mut changes)?;
    let mut inboxes = BTreeSet::new();
    reader.rows(PLUGINS, |plugin, value| {
        let (session, revision) = record::decode::<PluginRow<'_>>(value)?.plugin();
        inboxes.insert(session.0);
        changes.push(Change::PluginActivated { plugin: PluginName(plugin.into()), session, revision, state: session, probation: None });
        Ok(())
    })?;
    reader.rows(SESSIONS, |session, value| {
        let record = Box::new(record::decode::<SessionRow<'_>>(value)?.record()?);
        changes.push(Change::SessionStored { session: SessionId(session), record });
        Ok(())
    })?;
    reader.rows(SUBSCRIPTIONS, |(session, filter), value| {
        let subscription = SubscriptionRow::decode(value)?.subscription()?;
        let filter = TopicFilter::parse(filter)?;
        changes.push(Change::Subscribed { session: SessionId(session), filter, subscription });
        Ok(())
    })?;
    let queues = reader.queues(&inboxes)?;
    for (message, content) in queues.messages {
        changes.push(Change::MessageStored { message: MessageId(message), content });
    }
    changes.extend(queues.changes);
    reader.rows(RECEIVED, |(session, packet_id), ()| {
        let packet_id = PacketId::new(packet_id).ok_or(InvalidRow::Field("packet_id"))?;
        changes.push(Change::Received { session: SessionId(session), packet_id });
        Ok(())
    })?;
    reader.rows(RETAINED, |_, value| {
        let message = Arc::new(record::decode::<MessageRow<'_>>(value)?.message()?);
        changes.push(Change::Retained { message });
        Ok(())
    })?;
    reader.rows(DEAD_LETTERS, |(session, sequence), value| {
        let mut row: DeadLetterRow<'_> = record::decode(value)?;
        row.message = row.message.without_content();
        let letter = row.letter()?;
        changes.push(Change::DeadLettered { session: SessionId(session), sequence: Sequence(sequence), letter });
        Ok(())
    })?;
    Ok(Restored { changes, highest: queues.highest })
}

/// What was read of the queues.
#[derive(Default)]
struct Queues {
    /// Messages in the inboxes of plugins.
    messages: BTreeMap<u64, Arc<Message>>,
    /// What the queues hold.
    changes: Vec<Change>,
    /// The highest sequence in any of them.
    highest: u64,
}

impl Queues {
    /// Takes one more row of a client's queue; rows come by session.
    fn count(&mut self, session: u64, weight: u32) {
        let session = SessionId(session);
        match self.changes.last_mut() {
            Some(Change::QueueKept { session: last, messages, bytes }) if *last == session => {
                *messages += 1;
                *bytes += u64::from(weight);
            }
            _ => self.changes.push(Change::QueueKept { session, messages: 1, bytes: u64::from(weight) }),
        }
    }
}

/// Reads tables.
struct Reader<'a> {
    transaction: ReadTransaction,
    path: &'a Path,
}

impl Reader<'_> {
    fn identifiers(&self, changes: &mut Vec<Change>) -> Result<(), StoreError> {
        let meta = self.transaction.open_table(META).map_err(StoreError::database("read", self.path))?;
        let below = meta.get(META_IDENTIFIERS_BELOW).map_err(StoreError::database("read", self.path))?;
        changes.extend(below.map(|below| Change::IdentifiersReserved { below: below.value() }));
        Ok(())
    }

    /// Walks all queues once. `inboxes` are the sessions of plugins.
    fn queues(&self, inboxes: &BTreeSet<u64>) -> Result<Queues, StoreError> {
        let mut queues = Queues::default();
        let mut referred = BTreeSet::new();
        self.rows(QUEUE, |(session, sequence), value| {
            queues.highest = queues.highest.max(sequence);
            let row = QueueRow::decode(value)?;
            if inboxes.contains(&session) {
                let (entry, released) = row.entry()?;
                let (session, sequence) = (SessionId(session), Sequence(sequence));
                referred.insert(entry.message.0);
                queues.changes.push(Change::Queued { session, sequence, entry });
                queues.changes.extend(released.then_some(Change::Released { session, sequence }));
            } else {
                queues.count(session, row.weight);
            }
            Ok(())
        })?;
        let table = self.transaction.open_table(MESSAGES).map_err(StoreError::database("read", self.path))?;
        for message in referred {
            if let Some(row) = table.get(message).map_err(StoreError::database("read", self.path))? {
                let content = record::decode::<MessageRow<'_>>(row.value()).and_then(MessageRow::message);
                let content = Arc::new(content.map_err(StoreError::row("messages", self.path))?);
                queues.messages.insert(message, content);
            }
        }
        queues.changes.retain(|change| match change {
            Change::Queued { session, sequence, entry } if !queues.messages.contains_key(&entry.message.0) => {
                let (session, sequence, message) = (session.0, sequence.0, entry.message.0);
                tracing::error!(session, sequence, message, "an inbox refers to a message that is missing");
                false
            }
            _ => true,
        });
        Ok(queues)
    }

    /// Hands each row of a table to `row`, in the order of keys.
    fn rows<K: Key + 'static, V: Value + 'static>(
        &self,
        definition: TableDefinition<'static, K, V>,
        mut row: impl for<'f> FnMut(K::SelfType<'f>, V::SelfType<'f>) -> Result<(), InvalidRow>,
    ) -> Result<(), StoreError> {
        let table = self.transaction.open_table(definition).map_err(StoreError::database("read", self.path))?;
        for entry in table.iter().map_err(StoreError::database("read", self.path))? {
            let (key, value) = entry.map_err(StoreError::database("read", self.path))?;
            row(key.value(), value.value()).map_err(|reason| StoreError::Row {
                path: self.path.to_owned(),
                table: definition.name().to_owned(),
                reason,
            })?;
        }
        Ok(())
    }
}
