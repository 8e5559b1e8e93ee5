//! A disk for tests: it stops working when told to, works again when told to, and forgets some of what was not synced
//! when its power is cut.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redb::{Database, StorageBackend};
use vespiary_core::message::Timestamp;

use super::committer::Pauses;
use super::components::Components;
use super::database::Reopen;
use super::error::StoreError;
use super::purging::Clock;
use super::{Opened, Parts, Store, StoreOptions, directory, tables};

/// A disk with one database on it.
#[derive(Debug, Clone)]
pub(crate) struct Disk(Arc<Mutex<Platters>>);

#[derive(Debug)]
struct Platters {
    /// What is read: everything written.
    live: Vec<u8>,
    /// What survives for sure.
    synced: Vec<u8>,
    /// What was done since the last sync.
    unsynced: Vec<Unsynced>,
    /// Operations that are still carried out.
    operations_left: usize,
    /// What the disk says then.
    says: io::ErrorKind,
    /// Whether reading fails as well.
    unreadable: bool,
}

#[derive(Debug)]
enum Unsynced {
    Length(usize),
    Write(usize, Vec<u8>),
}

impl Unsynced {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Length(length) => bytes.resize(*length, 0),
            Self::Write(offset, data) => {
                bytes.resize(bytes.len().max(offset + data.len()), 0);
                bytes[*offset..offset + data.len()].copy_from_slice(data);
            }
        }
    }
}

impl Disk {
    /// A disk with an empty database.
    pub(crate) fn new() -> Self {
        let disk = Self::with(Vec::new());
        let database = Database::builder().create_with_backend(disk.clone()).unwrap();
        tables::create_all(&database).unwrap();
        database.close().unwrap();
        disk
    }

    /// A disk with this on it.
    pub(crate) fn with(image: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Platters {
            live: image.clone(),
            synced: image,
            unsynced: Vec::new(),
            operations_left: usize::MAX,
            says: io::ErrorKind::StorageFull,
            unreadable: false,
        })))
    }

    /// The disk works for so many operations more, and then says that it is full.
    pub(crate) fn fail_after(&self, operations: usize) {
        self.fail_with(operations, io::ErrorKind::StorageFull);
    }

    /// The same with another word.
    pub(crate) fn fail_with(&self, operations: usize, says: io::ErrorKind) {
        let mut platters = self.0.lock().unwrap();
        (platters.operations_left, platters.says) = (operations, says);
    }

    /// Reading fails from now on, or works again.
    pub(crate) fn set_unreadable(&self, unreadable: bool) {
        self.0.lock().unwrap().unreadable = unreadable;
    }

    /// The disk works again.
    pub(crate) fn mend(&self) {
        self.fail_after(usize::MAX);
    }

    /// The power was cut and is back: what was not synced is there or not.
    pub(crate) fn cut_power(&self, random: &mut fastrand::Rng) {
        self.replace(self.image_after_power_cut(random));
    }

    /// This is on the disk from now on, and nothing else ever was.
    pub(crate) fn replace(&self, image: Vec<u8>) {
        let mut platters = self.0.lock().unwrap();
        platters.unsynced.clear();
        (platters.live, platters.synced) = (image.clone(), image);
    }

    /// What is on the disk after the power is back: all that was synced, and of the rest each write whole, in part
    /// (sectors of 512 bytes), or not at all.
    pub(crate) fn image_after_power_cut(&self, random: &mut fastrand::Rng) -> Vec<u8> {
        let platters = self.0.lock().unwrap();
        let mut image = platters.synced.clone();
        for unsynced in &platters.unsynced {
            match (random.u8(0..3), unsynced) {
                (0, _) => {}
                (1, Unsynced::Write(offset, data)) => {
                    let kept = random.usize(0..=data.len().div_ceil(512)) * 512;
                    Unsynced::Write(*offset, data[..kept.min(data.len())].to_vec()).apply(&mut image);
                }
                _ => unsynced.apply(&mut image),
            }
        }
        image
    }

    /// Opens a store on this disk, with its lock and components in a directory. It tries again after milliseconds, and no
    /// time passes.
    pub(crate) fn open(&self, data: &Path) -> Opened {
        self.open_at(data, &Arc::default())
    }

    /// The same, where it is as late as `now` says, in milliseconds.
    pub(crate) fn open_at(&self, data: &Path, now: &Arc<AtomicU64>) -> Opened {
        loop {
            match self.try_open(data, now.clone()) {
                // Processes that other tests start hold what is open here for a moment, until they have begun.
                Err(StoreError::InUse { .. }) => std::thread::yield_now(),
                opened => return opened.unwrap(),
            }
        }
    }

    fn try_open(&self, data: &Path, now: Arc<AtomicU64>) -> Result<Opened, StoreError> {
        let (disk, path) = (self.clone(), data.to_owned());
        let reopen: Reopen = Box::new(move || {
            directory::builder(&StoreOptions::default(), false, &path)
                .create_with_backend(disk.clone())
                .map_err(StoreError::database("open", &path))
        });
        let pauses = Pauses {
            first: Duration::from_millis(1),
            longest: Duration::from_millis(4),
            purge: Duration::from_millis(2),
        };
        let (components, lock) = (Components::open(data)?, directory::lock(data)?);
        let clock: Clock = Box::new(move || Timestamp(now.load(Ordering::Relaxed)));
        Store::start(Parts { database: reopen()?, path: data.into(), reopen, pauses, clock, components, lock })
    }

    fn operate(&self, unsynced: Option<Unsynced>) -> io::Result<()> {
        let mut platters = self.0.lock().unwrap();
        if platters.operations_left == 0 {
            return Err(platters.says.into());
        }
        platters.operations_left -= 1;
        if let Some(unsynced) = unsynced {
            unsynced.apply(&mut platters.live);
            platters.unsynced.push(unsynced);
        } else {
            platters.synced = platters.live.clone();
            platters.unsynced.clear();
        }
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let platters = self.0.lock().unwrap();
        if platters.unreadable {
            return Err(io::Error::other("unreadable sector"));
        }
        let bytes = platters.live.get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.operate(Some(Unsynced::Length(length as usize)))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.operate(None)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.operate(Some(Unsynced::Write(offset as usize, data.to_vec())))
    }
}
