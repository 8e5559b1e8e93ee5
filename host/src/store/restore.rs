//! Reads everything back, as the changes that `Broker::restore` takes.
//!
//! The order, so that nothing names what has not come yet: identifiers, plugins, sessions, subscriptions, messages,
//! queue entries by session and sequence (each followed by `Released` where PUBREC had come; `Sent` is folded into
//! the entry's packet identifier), receptions, retained messages, dead letters. State of plugins is not read: the
//! broker does not keep it. Dead letters come without payload and properties, for the broker keeps their number only.

use std::path::Path;
use std::sync::Arc;

use redb::{Database, Key, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, TableHandle, Value};
use vespiary_core::event::{Change, PacketId, PluginName, Sequence, SessionId};
use vespiary_core::message::MessageId;
use vespiary_core::topic::TopicFilter;

use super::batch::Highest;
use super::error::StoreError;
use super::record::{self, DeadLetterRow, InvalidRow, MessageRow, PluginRow, QueueRow, SessionRow, SubscriptionRow};
use super::tables::{
    DEAD_LETTERS, MESSAGES, META, META_IDENTIFIERS_BELOW, PLUGINS, QUEUE, RECEIVED, RETAINED, SESSIONS, SUBSCRIPTIONS,
};

/// What was read back.
pub(super) struct Restored {
    /// For the broker, in its order.
    pub(super) changes: Vec<Change>,
    /// The highest keys found.
    pub(super) highest: Highest,
}

/// Reads the database at `path`.
pub(super) fn read(database: &Database, path: &Path) -> Result<Restored, StoreError> {
    let transaction = database.begin_read().map_err(StoreError::database("read", path))?;
    let reader = Reader { transaction, path };
    let mut restored = Restored { changes: Vec::new(), highest: Highest::default() };
    let changes = &mut restored.changes;
    reader.identifiers(changes)?;
    reader.rows(PLUGINS, |plugin, value| {
        let (session, revision) = record::decode::<PluginRow<'_>>(value)?.plugin();
        changes.push(Change::PluginActivated { plugin: PluginName(plugin.into()), session, revision });
        Ok(())
    })?;
    reader.rows(SESSIONS, |session, value| {
        let record = Box::new(record::decode::<SessionRow<'_>>(value)?.record()?);
        changes.push(Change::SessionStored { session: SessionId(session), record });
        Ok(())
    })?;
    reader.rows(SUBSCRIPTIONS, |(session, filter), value| {
        let (options, identifier) = record::decode::<SubscriptionRow>(value)?.options()?;
        let filter = TopicFilter::parse(filter)?;
        changes.push(Change::Subscribed { session: SessionId(session), filter, options, identifier });
        Ok(())
    })?;
    reader.rows(MESSAGES, |message, value| {
        restored.highest.message = message;
        let content = Arc::new(record::decode::<MessageRow<'_>>(value)?.message()?);
        changes.push(Change::MessageStored { message: MessageId(message), content });
        Ok(())
    })?;
    reader.rows(QUEUE, |(session, sequence), value| {
        restored.highest.sequence = restored.highest.sequence.max(sequence);
        let (session, sequence) = (SessionId(session), Sequence(sequence));
        let (entry, released) = record::decode::<QueueRow<'_>>(value)?.entry()?;
        changes.push(Change::Queued { session, sequence, entry });
        if released {
            changes.push(Change::Released { session, sequence });
        }
        Ok(())
    })?;
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
    Ok(restored)
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
