//! The records of all assets, in redb, with those in memory that were used before.
//!
//! Changes collect in memory; [`commit`](Store::commit) writes each changed record once, in one transaction that is on disk
//! when it returns. Until then nobody may be told of them. After an error the memory may be ahead of the disk, so the
//! process must end; the broker hands out again what was not acknowledged.

use std::path::Path;

use anyhow::{Context as _, anyhow};
use hashbrown::HashMap;
use redb::{Database, ReadableDatabase as _, TableDefinition};

use crate::vibration::Record;

const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");

/// Bytes of the database's file that redb keeps in memory.
const CACHE_BYTES: usize = 32 << 20;

/// Records kept in memory; beyond it those that are on disk are forgotten. About 30 MB.
const CACHED_RECORDS: usize = 200_000;

/// See the [module](self).
pub struct Store {
    database: Database,
    cached: HashMap<String, Cached, foldhash::fast::RandomState>,
    /// Assets whose records are not on disk, each once.
    changed: Vec<String>,
}

struct Cached {
    record: Record,
    /// It is among the changed.
    is_changed: bool,
}

impl Store {
    /// Opens the store in a directory, or makes one.
    pub fn open(directory: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let file = directory.join("records.redb");
        let database = Database::builder().set_cache_size(CACHE_BYTES).create(&file);
        let database = database.with_context(|| format!("cannot open {}", file.display()))?;
        let transaction = database.begin_write()?;
        transaction.open_table(RECORDS)?;
        transaction.commit()?;
        Ok(Self { database, cached: HashMap::default(), changed: Vec::new() })
    }

    /// The record of an asset; a new one is all zero.
    pub fn record(&mut self, asset: &str) -> anyhow::Result<&Record> {
        self.load(asset).map(|cached| &cached.record)
    }

    /// Changes the record of an asset.
    pub fn change<T>(&mut self, asset: &str, change: impl FnOnce(&mut Record) -> T) -> anyhow::Result<T> {
        let cached = self.load(asset)?;
        let result = change(&mut cached.record);
        if !std::mem::replace(&mut cached.is_changed, true) {
            self.changed.push(asset.to_owned());
        }
        Ok(result)
    }

    /// Writes what has changed. On disk when it returns: redb's default durability ends a commit with fdatasync.
    pub fn commit(&mut self) -> anyhow::Result<()> {
        if self.changed.is_empty() {
            return Ok(());
        }
        // In the order of the B-tree, so that neighbours share the way to their page.
        self.changed.sort_unstable();
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(RECORDS)?;
            for asset in self.changed.drain(..) {
                let cached = self.cached.get_mut(&asset).ok_or_else(|| anyhow!("{asset} changed and is not there"))?;
                cached.is_changed = false;
                table.insert(&*asset, &cached.record.to_bytes()[..])?;
            }
        }
        transaction.commit()?;
        if self.cached.len() > CACHED_RECORDS {
            self.cached.clear();
        }
        Ok(())
    }

    fn load(&mut self, asset: &str) -> anyhow::Result<&mut Cached> {
        if !self.cached.contains_key(asset) {
            let table = self.database.begin_read()?.open_table(RECORDS)?;
            let stored = table.get(asset)?;
            let record = match stored {
                None => Record::default(),
                Some(bytes) => Record::from_bytes(bytes.value()).ok_or_else(|| anyhow!("the record of {asset}"))?,
            };
            self.cached.insert(asset.to_owned(), Cached { record, is_changed: false });
        }
        self.cached.get_mut(asset).ok_or_else(|| anyhow!("{asset} was loaded and is not there"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_committed_is_there_after_a_restart_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::open(directory.path()).unwrap();
        for _ in 0..3 {
            store.change("a", |record| record.readings += 1).unwrap();
        }
        assert_eq!(store.changed.len(), 1);
        store.commit().unwrap();
        store.change("a", |record| record.readings += 1).unwrap();
        store.change("b", |record| record.readings += 1).unwrap();
        drop(store);
        let mut store = Store::open(directory.path()).unwrap();
        assert_eq!(store.record("a").unwrap().readings, 3);
        assert_eq!(store.record("b").unwrap().readings, 0);
    }
}
